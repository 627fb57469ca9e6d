// SPDX-License-Identifier: BSD-3-Clause
#include "base/keys.h"

#include <sodium.h>

namespace mesh {

namespace detail {

bool parse_key_into(std::array<uint8_t, 32>& out, std::string_view prefix, std::string_view text) {
    return text.starts_with(prefix) && hex_decode(text.substr(prefix.size()), out);
}

std::optional<std::array<uint8_t, 32>> parse_key(std::string_view prefix, std::string_view text) {
    std::array<uint8_t, 32> raw{};
    if (!parse_key_into(raw, prefix, text)) return std::nullopt;
    return raw;
}

std::string key_text(std::string_view prefix, ByteSpan raw) { return std::string(prefix) + hex_encode(raw); }

std::array<uint8_t, 32> public_of(const std::array<uint8_t, 32>& private_key) {
    std::array<uint8_t, 32> out{};
    crypto_scalarmult_base(out.data(), private_key.data());
    return out;
}

void generate_clamped(std::array<uint8_t, 32>& out, Random& random) {
    random.fill(out);
    out[0] &= 248;
    out[31] = static_cast<uint8_t>((out[31] & 127) | 64);
}

}  // namespace detail

std::string short_key(const NodePublic& key) { return "[" + base64_encode(key.bytes()).substr(0, 5) + "]"; }

}  // namespace mesh
