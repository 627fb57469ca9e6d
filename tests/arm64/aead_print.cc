// SPDX-License-Identifier: BSD-3-Clause
// Prints what the engine vec128 makes of packets of every length up to 2,100 bytes, alone and in groups, and what it says to forged ones.
// Two processors must print the same; the native one is held against libsodium by base_test.

#include <cstdio>
#include <vector>

#include "base/crypto/aead_engine.h"

int main() {
    using namespace mesh::crypto;
    constexpr size_t kTag = 16;
    uint64_t state = 1;
    const auto next = [&state] {
        state = state * 6364136223846793005U + 1442695040888963407U;
        return static_cast<uint8_t>(state >> 56);
    };
    uint8_t key[32];
    for (size_t len = 0; len <= 2100; ++len) {
        const size_t packets = 1 + len % 9;
        for (uint8_t& b : key) b = next();
        std::vector<uint8_t> text(packets * len), work(packets * (len + kTag));
        for (uint8_t& b : text) b = next();
        std::vector<AeadJob> jobs(packets);
        for (size_t i = 0; i < packets; ++i) jobs[i] = {text.data() + i * len, work.data() + i * (len + kTag), len, i * 0x1'0000'0003 + len, false};
        kAeadVec128.seal(key, jobs.data(), packets);
        uint64_t digest = 14695981039346656037U;  // FNV-1a
        for (const uint8_t b : work) digest = (digest ^ b) * 1099511628211U;
        work[len] ^= 1;  // the first one's tag
        for (size_t i = 0; i < packets; ++i) jobs[i] = {work.data() + i * (len + kTag), work.data() + i * (len + kTag), len, jobs[i].counter, false};
        kAeadVec128.open(key, jobs.data(), packets);
        size_t good = 0;
        for (size_t i = 1; i < packets; ++i) good += jobs[i].ok && std::vector(jobs[i].dst, jobs[i].dst + len) == std::vector(text.data() + i * len, text.data() + (i + 1) * len) ? 1U : 0U;
        std::printf("%zu %zu %016llx %d %zu\n", len, packets, static_cast<unsigned long long>(digest), jobs[0].ok ? 1 : 0, good);
    }
}
