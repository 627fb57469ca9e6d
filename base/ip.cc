// SPDX-License-Identifier: BSD-3-Clause
#include "base/ip.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <charconv>

namespace mesh {

Addr Addr::v4(uint32_t host_order) {
    Addr a;
    a.family_ = Family::kV4;
    store_be32(a.bytes_.data(), host_order);
    return a;
}

Addr Addr::v4(uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
    const uint8_t four[4] = {a, b, c, d};
    return v4_bytes(four);
}

Addr Addr::v4_bytes(const uint8_t* four) {
    Addr a;
    a.family_ = Family::kV4;
    std::memcpy(a.bytes_.data(), four, 4);
    return a;
}

Addr Addr::v6_bytes(const uint8_t* sixteen, bool unmap) {
    static constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (unmap && std::memcmp(sixteen, kMapped, 12) == 0) return v4_bytes(sixteen + 12);
    Addr a;
    a.family_ = Family::kV6;
    std::memcpy(a.bytes_.data(), sixteen, 16);
    return a;
}

std::optional<Addr> Addr::parse(std::string_view text) {
    if (text.empty() || text.size() > 45 || text.find('\0') != std::string_view::npos) return std::nullopt;
    const std::string z(text);
    uint8_t b[16];
    if (inet_pton(AF_INET, z.c_str(), b) == 1) return v4_bytes(b);
    if (inet_pton(AF_INET6, z.c_str(), b) == 1) return v6_bytes(b, false);
    return std::nullopt;
}

std::array<uint8_t, 16> Addr::mapped16() const {
    if (is_v6()) return bytes_;
    std::array<uint8_t, 16> out{};
    out[10] = out[11] = 0xff;
    std::memcpy(out.data() + 12, bytes_.data(), 4);
    return out;
}

bool Addr::is_loopback() const {
    if (is_v4()) return bytes_[0] == 127;
    if (!is_v6()) return false;
    for (size_t i = 0; i < 15; ++i)
        if (bytes_[i] != 0) return false;
    return bytes_[15] == 1;
}

bool Addr::is_multicast() const { return is_v4() ? (bytes_[0] & 0xf0) == 0xe0 : is_v6() && bytes_[0] == 0xff; }

bool Addr::is_unspecified() const {
    if (!is_valid()) return false;
    for (uint8_t b : bytes_)
        if (b != 0) return false;
    return true;
}

bool Addr::is_link_local() const {
    if (is_v4()) return bytes_[0] == 169 && bytes_[1] == 254;
    return is_v6() && bytes_[0] == 0xfe && (bytes_[1] & 0xc0) == 0x80;
}

bool Addr::is_private() const {
    if (is_v4())
        return bytes_[0] == 10 || (bytes_[0] == 172 && (bytes_[1] & 0xf0) == 16) ||
               (bytes_[0] == 192 && bytes_[1] == 168);
    return is_v6() && (bytes_[0] & 0xfe) == 0xfc;
}

std::string Addr::str() const {
    if (!is_valid()) return "";
    char text[INET6_ADDRSTRLEN];
    if (is_v4()) {
        char* end = text;
        for (size_t i = 0; i < 4; ++i) {
            if (i > 0) *end++ = '.';
            end = std::to_chars(end, text + sizeof text, bytes_[i]).ptr;
        }
        return {text, end};
    }
    inet_ntop(AF_INET6, bytes_.data(), text, sizeof text);
    return text;
}

static std::optional<unsigned> parse_number(std::string_view text, unsigned max) {
    unsigned v = 0;
    if (text.empty() || text.size() > 5) return std::nullopt;
    auto [p, ec] = std::from_chars(text.data(), text.data() + text.size(), v);
    if (ec != std::errc() || p != text.data() + text.size() || v > max) return std::nullopt;
    return v;
}

std::optional<Endpoint> Endpoint::parse(std::string_view text) {
    const size_t colon = text.rfind(':');
    if (colon == std::string_view::npos) return std::nullopt;
    const auto port = parse_number(text.substr(colon + 1), 65535);
    std::string_view host = text.substr(0, colon);
    const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
    if (bracketed) host = host.substr(1, host.size() - 2);
    const auto addr = Addr::parse(host);
    if (!port || !addr || addr->is_v6() != bracketed) return std::nullopt;
    return Endpoint{*addr, static_cast<uint16_t>(*port)};
}

std::string Endpoint::str() const {
    if (!addr.is_valid()) return "";
    return addr.is_v6() ? fmt::format("[{}]:{}", addr.str(), port) : fmt::format("{}:{}", addr.str(), port);
}

std::optional<Prefix> Prefix::parse(std::string_view text) {
    const size_t slash = text.find('/');
    const auto addr = Addr::parse(text.substr(0, slash));
    if (!addr) return std::nullopt;
    if (slash == std::string_view::npos) return single(*addr);
    const auto len = parse_number(text.substr(slash + 1), addr->bits());
    if (!len) return std::nullopt;
    return Prefix{*addr, static_cast<uint8_t>(*len)};
}

bool Prefix::contains(const Addr& a) const {
    if (!is_valid() || a.bits() != addr.bits()) return false;
    const uint8_t* x = addr.bytes().data();
    const uint8_t* y = a.bytes().data();
    const size_t whole = len / 8;
    if (std::memcmp(x, y, whole) != 0) return false;
    const unsigned rest = len % 8;
    if (rest == 0) return true;
    const auto mask = static_cast<uint8_t>(0xff << (8 - rest));
    return ((x[whole] ^ y[whole]) & mask) == 0;
}

Prefix Prefix::masked() const {
    if (!is_valid()) return *this;
    uint8_t b[16] = {};
    const ByteSpan in = addr.bytes();
    for (size_t i = 0; i < in.size(); ++i) {
        const size_t bit = i * 8;
        if (bit + 8 <= len)
            b[i] = in[i];
        else if (bit < len)
            b[i] = static_cast<uint8_t>(in[i] & (0xff << (8 - (len - bit))));
    }
    return {addr.is_v4() ? Addr::v4_bytes(b) : Addr::v6_bytes(b, false), len};
}

std::string Prefix::str() const { return is_valid() ? addr.str() + "/" + fmt::format_int(unsigned{len}).c_str() : ""; }

bool is_tailscale_range(const Addr& a) {
    static const Prefix v4{Addr::v4(100, 64, 0, 0), 10};
    static const Prefix v6 = *Prefix::parse("fd7a:115c:a1e0::/48");
    return v4.contains(a) || v6.contains(a);
}

Addr service_addr_v4() { return Addr::v4(100, 100, 100, 100); }
Addr service_addr_v6() {
    static const Addr a = *Addr::parse("fd7a:115c:a1e0::53");
    return a;
}

}  // namespace mesh
