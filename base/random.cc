// SPDX-License-Identifier: BSD-3-Clause
#include "base/random.h"

#include <sodium.h>

#include <cstring>

#include "base/check.h"

namespace mesh {

uint32_t Random::u32() {
    uint8_t b[4];
    fill(b);
    uint32_t v;
    std::memcpy(&v, b, 4);
    return v;
}

uint64_t Random::u64() {
    uint8_t b[8];
    fill(b);
    uint64_t v;
    std::memcpy(&v, b, 8);
    return v;
}

uint32_t Random::below(uint32_t bound) {
    CHECK(bound > 0);
    return static_cast<uint32_t>((static_cast<uint64_t>(u32()) * bound) >> 32);
}

void SystemRandom::fill(std::span<uint8_t> out) { randombytes_buf(out.data(), out.size()); }

SeededRandom::SeededRandom(uint64_t seed) {
    std::memset(key_, 0, sizeof key_);
    std::memcpy(key_, &seed, sizeof seed);
}

void SeededRandom::fill(std::span<uint8_t> out) {
    uint8_t nonce[crypto_stream_chacha20_NONCEBYTES] = {};
    std::memcpy(nonce, &block_, sizeof block_);
    ++block_;
    if (out.empty()) return;
    crypto_stream_chacha20(out.data(), out.size(), nonce, key_);
}

}  // namespace mesh
