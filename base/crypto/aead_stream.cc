// SPDX-License-Identifier: BSD-3-Clause
#include "base/crypto/aead_stream.h"

#include <sodium.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string_view>

#include "base/check.h"
#include "base/log.h"
#include "base/random.h"

namespace mesh::crypto {

namespace {

constexpr size_t kEngines = static_cast<size_t>(AeadEngine::kCount);

void sodium_seal(const uint8_t key[32], AeadJob* jobs, size_t count) {
    for (AeadJob& j : std::span(jobs, count)) {
        uint8_t nonce[12];
        nonce_le(nonce, j.counter);
        crypto_aead_chacha20poly1305_ietf_encrypt(j.dst, nullptr, j.src, j.len, nullptr, 0, nullptr, nonce, key);
        j.ok = true;
    }
}

void sodium_open(const uint8_t key[32], AeadJob* jobs, size_t count) {
    for (AeadJob& j : std::span(jobs, count)) {
        uint8_t nonce[12];
        nonce_le(nonce, j.counter);
        j.ok = crypto_aead_chacha20poly1305_ietf_decrypt_detached(j.dst, nullptr, j.src, j.len, j.src + j.len, nullptr, 0,
                                                                  nonce, key) == 0;
    }
}

constinit const AeadFunctions kAeadSodium = {sodium_seal, sodium_open};

/// Null: not compiled in, or not for this processor.
const AeadFunctions* functions_of(AeadEngine engine) {
    switch (engine) {
        case AeadEngine::kSodium: return &kAeadSodium;
#if defined(MESH_AEAD_VEC128)
        case AeadEngine::kVec128: return &kAeadVec128;
#else
        case AeadEngine::kVec128: return nullptr;
#endif
#if defined(MESH_AEAD_X86)
        // These ask the operating system too whether it saves the wide registers.
        case AeadEngine::kAvx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") ? &kAeadAvx2 : nullptr;
        case AeadEngine::kAvx512:
            return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                           __builtin_cpu_supports("avx512ifma") && __builtin_cpu_supports("avx512vbmi") &&
                           __builtin_cpu_supports("avx512vbmi2")
                       ? &kAeadAvx512
                       : nullptr;
#else
        case AeadEngine::kAvx2:
        case AeadEngine::kAvx512:
#endif
        case AeadEngine::kCount: break;
    }
    return nullptr;
}

bool usable_now(AeadEngine engine) {
    const AeadFunctions* f = functions_of(engine);
    if (f == nullptr) return false;
    if (engine == AeadEngine::kSodium || aead_agrees_with_sodium(*f)) return true;
    log::info("crypto: engine {} computes wrong results on this machine and is not used", name(engine));
    return false;
}

/// Best of some runs over a batch of full-size packets.
std::chrono::nanoseconds cost(const AeadFunctions& engine) {
    constexpr size_t kPackets = 8, kLen = 1280, kRuns = 4;
    const Key32 key{};
    Bytes memory(kPackets * (kLen + kTagLen));
    AeadJob jobs[kPackets];
    for (size_t i = 0; i < kPackets; ++i) {
        uint8_t* p = memory.data() + i * (kLen + kTagLen);
        jobs[i] = {p, p, kLen, i, false};
    }
    auto best = std::chrono::nanoseconds::max();
    for (size_t run = 0; run < kRuns; ++run) {
        const auto start = std::chrono::steady_clock::now();
        engine.seal(key.data(), jobs, kPackets);
        best = std::min(best, std::chrono::nanoseconds(std::chrono::steady_clock::now() - start));
    }
    return best;
}

AeadEngine choose() {
    if (const char* wanted = std::getenv("TAILMESH_AEAD"); wanted != nullptr && *wanted != '\0') {
        for (size_t i = 0; i < kEngines; ++i) {
            const auto engine = static_cast<AeadEngine>(i);
            if (std::string_view(wanted) == name(engine) && aead_usable(engine)) return engine;
        }
        log::info("crypto: TAILMESH_AEAD={} is not to be had here", log::printable(wanted));
    }
    AeadEngine best = AeadEngine::kSodium;
    auto best_cost = std::chrono::nanoseconds::max();
    for (size_t i = kEngines; i-- > 0;) {
        const auto engine = static_cast<AeadEngine>(i);
        if (!aead_usable(engine)) continue;
        const auto c = cost(*functions_of(engine));
        // The widest one, unless another is clearly faster.
        if (best_cost == std::chrono::nanoseconds::max() || c * 10 < best_cost * 9) {
            best = engine;
            best_cost = c;
        }
    }
    return best;
}

}  // namespace

const char* name(AeadEngine engine) {
    switch (engine) {
        case AeadEngine::kSodium: return "sodium";
        case AeadEngine::kVec128: return "vec128";
        case AeadEngine::kAvx2: return "avx2";
        case AeadEngine::kAvx512: return "avx512";
        case AeadEngine::kCount: break;
    }
    return "";
}

bool aead_agrees_with_sodium(const AeadFunctions& engine) {
    // Around all the steps an engine takes.
    constexpr size_t kLens[] = {0,   1,   15,  16,  17,  32,  48,  63,  64,  65,  80,   96,   112,  113,  127,  128, 129,
                                144, 191, 192, 193, 255, 256, 257, 320, 383, 448, 449, 511, 512, 513, 700,  767,  768,  769,  832, 1023,
                                1024, 1025, 1088, 1279, 1280, 1281, 1360, 1471, 1472, 1473, 2048, 2049};
    constexpr size_t kPackets = std::size(kLens);
    Key32 key;
    SeededRandom random(kPackets);
    random.fill(key);
    size_t room = 0;
    for (const size_t len : kLens) room += len + kTagLen;
    Bytes plain(room), sealed(room), work(room);
    random.fill(plain);
    AeadJob to_seal[kPackets], to_open[kPackets];
    size_t at = 0;
    for (size_t i = 0; i < kPackets; ++i) {
        // Counters that need both words of the nonce.
        const uint64_t counter = i * 0x1'0000'0003;
        AeadJob reference{plain.data() + at, sealed.data() + at, kLens[i], counter, false};
        sodium_seal(key.data(), &reference, 1);
        to_seal[i] = {plain.data() + at, work.data() + at, kLens[i], counter, false};
        to_open[i] = {work.data() + at, work.data() + at, kLens[i], counter, false};
        at += kLens[i] + kTagLen;
    }
    engine.seal(key.data(), to_seal, kPackets);
    if (work != sealed) return false;
    const size_t forged = kPackets / 2;
    work[static_cast<size_t>(to_open[forged].src - work.data()) + to_open[forged].len] ^= 0x80;
    engine.open(key.data(), to_open, kPackets);
    for (size_t i = 0; i < kPackets; ++i) {
        const auto offset = to_open[i].src - work.data();
        const bool same = std::equal(to_open[i].dst, to_open[i].dst + kLens[i], plain.begin() + offset);
        if (i == forged ? to_open[i].ok || same : !to_open[i].ok || !same) return false;
    }
    // One by one, which may be another way.
    work = plain;
    for (size_t i = 0; i < kPackets; ++i) {
        AeadJob one = to_open[i];
        engine.seal(key.data(), &one, 1);
    }
    if (work != sealed) return false;
    for (size_t i = 0; i < kPackets; ++i) {
        AeadJob one = to_open[i];
        const auto offset = one.src - work.data();
        work[static_cast<size_t>(offset) + one.len] ^= 0x80;
        engine.open(key.data(), &one, 1);
        if (one.ok) return false;
        // What a refused one leaves is not to be relied on.
        std::copy_n(sealed.begin() + offset, one.len + kTagLen, work.begin() + offset);
        engine.open(key.data(), &one, 1);
        if (!one.ok || !std::equal(one.dst, one.dst + one.len, plain.begin() + offset)) return false;
    }
    return true;
}

bool aead_usable(AeadEngine engine) {
    static const std::array<bool, kEngines> usable = [] {
        init();
        std::array<bool, kEngines> u{};
        for (size_t i = 0; i < kEngines; ++i) u[i] = usable_now(static_cast<AeadEngine>(i));
        return u;
    }();
    return engine < AeadEngine::kCount && usable[static_cast<size_t>(engine)];
}

AeadEngine aead_engine() {
    static const AeadEngine chosen = [] {
        const AeadEngine engine = choose();
        log::debug(1, "crypto: packets are sealed by engine {}", name(engine));
        return engine;
    }();
    return chosen;
}

AeadStream::AeadStream(const Key32& key, AeadEngine engine) : locked_(key), key_(&locked_.bytes()), functions_(functions_of(engine)) {
    CHECK(functions_ != nullptr && aead_usable(engine));
}

}  // namespace mesh::crypto
