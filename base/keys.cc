// SPDX-License-Identifier: BSD-3-Clause
#include "base/keys.h"

#include <sodium.h>

namespace mesh {

namespace detail {

std::optional<std::array<uint8_t, 32>> parse_key(std::string_view prefix, std::string_view text) {
    if (!text.starts_with(prefix)) return std::nullopt;
    std::array<uint8_t, 32> raw{};
    if (!hex_decode(text.substr(prefix.size()), raw)) return std::nullopt;
    return raw;
}

std::string key_text(std::string_view prefix, ByteSpan raw) { return std::string(prefix) + hex_encode(raw); }

std::array<uint8_t, 32> public_of(const std::array<uint8_t, 32>& private_key) {
    std::array<uint8_t, 32> out{};
    crypto_scalarmult_base(out.data(), private_key.data());
    return out;
}

std::array<uint8_t, 32> generate_clamped(Random& random) {
    std::array<uint8_t, 32> k{};
    random.fill(k);
    k[0] &= 248;
    k[31] = static_cast<uint8_t>((k[31] & 127) | 64);
    return k;
}

void wipe(MutByteSpan b) { sodium_memzero(b.data(), b.size()); }

}  // namespace detail

std::string short_key(const NodePublic& key) { return "[" + base64_encode(key.bytes()).substr(0, 5) + "]"; }

}  // namespace mesh
