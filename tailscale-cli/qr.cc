// SPDX-License-Identifier: BSD-3-Clause
#include "tailscale-cli/qr.h"

#include <qrencode.h>

#include <array>
#include <cstdint>
#include <memory>

namespace mesh::cli {
namespace {

constexpr int kBorder = 4;  // the quiet zone the standard asks for
constexpr int kPngPixels = 128;

class Code {
   public:
    explicit Code(const std::string& content)
        : code_(QRcode_encodeString8bit(content.c_str(), 0, QR_ECLEVEL_M), &QRcode_free) {}
    [[nodiscard]] bool ok() const { return code_ != nullptr; }
    [[nodiscard]] int size() const { return code_->width + 2 * kBorder; }
    [[nodiscard]] bool dark(int x, int y) const {
        const int cx = x - kBorder;
        const int cy = y - kBorder;
        if (cx < 0 || cy < 0 || cx >= code_->width || cy >= code_->width) return false;
        return (code_->data[cy * code_->width + cx] & 1U) != 0;
    }

   private:
    std::unique_ptr<QRcode, decltype(&QRcode_free)> code_;
};

void put_be32(std::string& out, uint32_t v) {
    for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(v >> shift);
}

uint32_t crc32(const std::string& data) {
    uint32_t crc = 0xffffffffU;
    for (const char c : data) {
        crc ^= static_cast<unsigned char>(c);
        for (int i = 0; i < 8; ++i) crc = (crc >> 1) ^ ((crc & 1U) != 0 ? 0xedb88320U : 0U);
    }
    return ~crc;
}

uint32_t adler32(const std::string& data) {
    uint32_t a = 1, b = 0;
    for (const char c : data) {
        a = (a + static_cast<unsigned char>(c)) % 65521;
        b = (b + a) % 65521;
    }
    return (b << 16) | a;
}

void put_chunk(std::string& png, const std::string& type, const std::string& data) {
    put_be32(png, static_cast<uint32_t>(data.size()));
    png += type + data;
    put_be32(png, crc32(type + data));
}

}  // namespace

std::optional<QrFormat> parse_qr_format(const std::string& text) {
    if (text == "auto" || text == "small") return QrFormat::kSmall;
    if (text == "large") return QrFormat::kLarge;
    if (text == "ascii") return QrFormat::kAscii;
    return std::nullopt;
}

std::string qr_text(const std::string& content, QrFormat format) {
    const Code code(content);
    if (!code.ok()) return "";
    std::string out;
    if (format == QrFormat::kSmall) {
        for (int y = 0; y < code.size(); y += 2) {
            for (int x = 0; x < code.size(); ++x) {
                const bool upper = !code.dark(x, y);
                const bool lower = y + 1 < code.size() && !code.dark(x, y + 1);
                out += upper && lower ? "█" : upper ? "▀" : lower ? "▄" : " ";
            }
            out += '\n';
        }
        return out;
    }
    const char* light = format == QrFormat::kLarge ? "██" : "##";
    for (int y = 0; y < code.size(); ++y) {
        for (int x = 0; x < code.size(); ++x) out += code.dark(x, y) ? "  " : light;
        out += '\n';
    }
    return out;
}

std::string qr_png(const std::string& content) {
    const Code code(content);
    if (!code.ok()) return "";
    const int scale = (kPngPixels + code.size() - 1) / code.size();
    const int pixels = code.size() * scale;
    // One bit per pixel, rows start with filter type 0 (PNG specification, section 9).
    std::string raw;
    for (int y = 0; y < pixels; ++y) {
        raw += '\0';
        uint8_t byte = 0;
        for (int x = 0; x < pixels; ++x) {
            byte = static_cast<uint8_t>((byte << 1) | (code.dark(x / scale, y / scale) ? 0 : 1));
            if (x % 8 == 7 || x + 1 == pixels) {
                byte = static_cast<uint8_t>(byte << (7 - x % 8));
                raw += static_cast<char>(byte);
                byte = 0;
            }
        }
    }
    // zlib stream of one stored block (RFC 1951, section 3.2.4); a code never comes near its 65,535 bytes.
    std::string zlib = "\x78\x01\x01";
    const auto length = static_cast<uint16_t>(raw.size());
    for (const uint16_t v : {length, static_cast<uint16_t>(~length)}) {
        zlib += static_cast<char>(v & 0xff);
        zlib += static_cast<char>(v >> 8);
    }
    zlib += raw;
    put_be32(zlib, adler32(raw));

    std::string png("\x89PNG\r\n\x1a\n", 8);
    std::string header;
    put_be32(header, static_cast<uint32_t>(pixels));
    put_be32(header, static_cast<uint32_t>(pixels));
    header += std::string("\x01\x00\x00\x00\x00", 5);  // one bit, grey
    put_chunk(png, "IHDR", header);
    put_chunk(png, "IDAT", zlib);
    put_chunk(png, "IEND", "");
    return png;
}

}  // namespace mesh::cli
