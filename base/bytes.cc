// SPDX-License-Identifier: BSD-3-Clause
#include "base/bytes.h"

#include <sodium.h>

#include <cstdio>
#include <cstdlib>

#include "base/check.h"

namespace mesh {

void check_failed(const char* expression, const char* file, int line) {
    std::fprintf(stderr, "internal error: CHECK(%s) failed at %s:%d\n", expression, file, line);
    std::abort();
}

std::string hex_encode(ByteSpan b) {
    std::string out(b.size() * 2 + 1, '\0');
    sodium_bin2hex(out.data(), out.size(), b.data(), b.size());
    out.pop_back();
    return out;
}

bool hex_decode(std::string_view text, MutByteSpan out) {
    if (text.size() != out.size() * 2) return false;
    if (out.empty()) return true;  // the library may not be given a null pointer
    size_t n = 0;
    return sodium_hex2bin(out.data(), out.size(), text.data(), text.size(), nullptr, &n, nullptr) == 0 &&
           n == out.size();
}

std::string base64_encode(ByteSpan b) {
    constexpr int kVariant = sodium_base64_VARIANT_ORIGINAL;
    std::string out(sodium_base64_encoded_len(b.size(), kVariant), '\0');
    sodium_bin2base64(out.data(), out.size(), b.data(), b.size(), kVariant);
    out.pop_back();
    return out;
}

std::optional<Bytes> base64_decode(std::string_view text) {
    Bytes out(text.size() / 4 * 3 + 3);
    size_t n = 0;
    const char* end = nullptr;
    if (sodium_base642bin(out.data(), out.size(), text.data(), text.size(), nullptr, &n, &end,
                          sodium_base64_VARIANT_ORIGINAL) != 0 ||
        end != text.data() + text.size())
        return std::nullopt;
    out.resize(n);
    return out;
}

}  // namespace mesh
