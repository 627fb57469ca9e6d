// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Byte views, endianness, hex and base64, and bounds-checked reading and writing of wire formats.

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mesh {

using ByteSpan = std::span<const uint8_t>;
using MutByteSpan = std::span<uint8_t>;
using Bytes = std::vector<uint8_t>;

inline ByteSpan as_bytes(std::string_view s) { return {reinterpret_cast<const uint8_t*>(s.data()), s.size()}; }
inline std::string_view as_text(ByteSpan b) { return {reinterpret_cast<const char*>(b.data()), b.size()}; }
inline Bytes to_bytes(ByteSpan b) { return {b.begin(), b.end()}; }

inline uint16_t load_be16(const uint8_t* p) { return static_cast<uint16_t>((p[0] << 8) | p[1]); }
inline uint32_t load_be32(const uint8_t* p) {
    return (uint32_t{p[0]} << 24) | (uint32_t{p[1]} << 16) | (uint32_t{p[2]} << 8) | p[3];
}
inline uint64_t load_be64(const uint8_t* p) { return (uint64_t{load_be32(p)} << 32) | load_be32(p + 4); }
inline uint16_t load_le16(const uint8_t* p) { return static_cast<uint16_t>(p[0] | (p[1] << 8)); }
inline uint32_t load_le32(const uint8_t* p) {
    return p[0] | (uint32_t{p[1]} << 8) | (uint32_t{p[2]} << 16) | (uint32_t{p[3]} << 24);
}
inline uint64_t load_le64(const uint8_t* p) { return load_le32(p) | (uint64_t{load_le32(p + 4)} << 32); }
inline void store_be16(uint8_t* p, uint16_t v) {
    p[0] = static_cast<uint8_t>(v >> 8);
    p[1] = static_cast<uint8_t>(v);
}
inline void store_be32(uint8_t* p, uint32_t v) {
    store_be16(p, static_cast<uint16_t>(v >> 16));
    store_be16(p + 2, static_cast<uint16_t>(v));
}
inline void store_be64(uint8_t* p, uint64_t v) {
    store_be32(p, static_cast<uint32_t>(v >> 32));
    store_be32(p + 4, static_cast<uint32_t>(v));
}
inline void store_le16(uint8_t* p, uint16_t v) {
    p[0] = static_cast<uint8_t>(v);
    p[1] = static_cast<uint8_t>(v >> 8);
}
inline void store_le32(uint8_t* p, uint32_t v) {
    store_le16(p, static_cast<uint16_t>(v));
    store_le16(p + 2, static_cast<uint16_t>(v >> 16));
}
inline void store_le64(uint8_t* p, uint64_t v) {
    store_le32(p, static_cast<uint32_t>(v));
    store_le32(p + 4, static_cast<uint32_t>(v >> 32));
}

[[nodiscard]] std::string hex_encode(ByteSpan b);
/// Exactly `out.size()` bytes from lower- or upper-case hex; false if malformed.
[[nodiscard]] bool hex_decode(std::string_view text, MutByteSpan out);
[[nodiscard]] std::string base64_encode(ByteSpan b);
/// Standard alphabet with padding. nullopt if malformed.
[[nodiscard]] std::optional<Bytes> base64_decode(std::string_view text);

/// Reads a wire format. Failure is sticky: after a short read every getter yields zeros and ok() is false.
class WireReader {
   public:
    explicit WireReader(ByteSpan bytes) : rest_(bytes) {}
    [[nodiscard]] bool ok() const { return ok_; }
    [[nodiscard]] size_t remaining() const { return rest_.size(); }
    [[nodiscard]] ByteSpan rest() const { return rest_; }

    ByteSpan take(size_t n) {
        if (n > rest_.size()) {
            ok_ = false;
            rest_ = {};
            return {};
        }
        ByteSpan out = rest_.first(n);
        rest_ = rest_.subspan(n);
        return out;
    }
    /// Fills `out` completely or zeroes it.
    void copy(MutByteSpan out) {
        ByteSpan b = take(out.size());
        if (b.size() == out.size() && !b.empty())
            std::memcpy(out.data(), b.data(), b.size());
        else
            std::fill(out.begin(), out.end(), uint8_t{0});
    }
    uint8_t u8() {
        ByteSpan b = take(1);
        return b.empty() ? uint8_t{0} : b[0];
    }
    uint16_t be16() {
        ByteSpan b = take(2);
        return b.empty() ? uint16_t{0} : load_be16(b.data());
    }
    uint32_t be32() {
        ByteSpan b = take(4);
        return b.empty() ? 0 : load_be32(b.data());
    }
    uint64_t be64() {
        ByteSpan b = take(8);
        return b.empty() ? 0 : load_be64(b.data());
    }
    uint32_t le32() {
        ByteSpan b = take(4);
        return b.empty() ? 0 : load_le32(b.data());
    }
    uint64_t le64() {
        ByteSpan b = take(8);
        return b.empty() ? 0 : load_le64(b.data());
    }

   private:
    ByteSpan rest_;
    bool ok_ = true;
};

/// Appends to a vector the caller owns.
class WireWriter {
   public:
    explicit WireWriter(Bytes& out) : out_(out) {}
    void bytes(ByteSpan b) { out_.insert(out_.end(), b.begin(), b.end()); }
    void zeros(size_t n) { out_.resize(out_.size() + n); }
    void u8(uint8_t v) { out_.push_back(v); }
    void be16(uint16_t v) { store_be16(grow(2), v); }
    void be32(uint32_t v) { store_be32(grow(4), v); }
    void be64(uint64_t v) { store_be64(grow(8), v); }
    void le32(uint32_t v) { store_le32(grow(4), v); }
    void le64(uint64_t v) { store_le64(grow(8), v); }

   private:
    uint8_t* grow(size_t n) {
        out_.resize(out_.size() + n);
        return out_.data() + out_.size() - n;
    }
    Bytes& out_;
};

}  // namespace mesh
