// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// ChaCha20-Poly1305 (RFC 8439) for streams of packets: no additional data, nonce = four zero bytes, then a counter,
/// little endian. One interface, several engines; the fastest that this machine has and that proves itself is chosen
/// once. No engine has branches or addresses that depend on keys or plaintext (aead_secrets_test.cc, for vec128 and avx2); lengths, counters and
/// verdicts are public.
///
///   sodium   libsodium, everywhere; the reference the others are held against
///   vec128   4 blocks of ChaCha20 at once with what every 64-bit ARM and x86 processor has (NEON, SSE2)
///   avx2     8 blocks of ChaCha20 at once, Poly1305 beside them in the integer registers (needs BMI2 too)
///   avx512   16 blocks at once, Poly1305 in 8 lanes (needs F, VL, BW, DQ, IFMA, VBMI, VBMI2)
///
/// Several packets in one call are faster than one by one: their blocks share the lanes of the vectors.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/crypto/aead_engine.h"
#include "base/crypto/crypto.h"
#include "base/secret.h"

namespace mesh::crypto {

enum class AeadEngine : uint8_t { kSodium, kVec128, kAvx2, kAvx512, kCount };

[[nodiscard]] const char* name(AeadEngine engine);
/// Compiled in, supported by this processor and equal to libsodium on some hundred packets. Cached.
[[nodiscard]] bool aead_usable(AeadEngine engine);
/// The self-test: packets of many lengths sealed together and one by one, opened again, forged ones too.
[[nodiscard]] bool aead_agrees_with_sodium(const AeadFunctions& engine);
/// The engine of all keys made without naming one: the fastest usable one by a measurement of some 100 µs at the first
/// call, or what TAILMESH_AEAD=sodium|vec128|avx2|avx512 names, if usable. Thread-safe.
[[nodiscard]] AeadEngine aead_engine();

/// The key of one direction of one session. In locked memory, wiped when it goes. Const calls may run at the same time.
class AeadStream {
   public:
    explicit AeadStream(const Key32& key) : AeadStream(key, aead_engine()) {}
    /// For tests and measurements; the engine must be usable.
    AeadStream(const Key32& key, AeadEngine engine);
    AeadStream(const AeadStream&) = delete;
    AeadStream& operator=(const AeadStream&) = delete;

    /// dst = plain.size() + kTagLen bytes; dst is where plain is, or does not overlap it.
    void seal(uint8_t* dst, ByteSpan plain, uint64_t counter) const {
        AeadJob job{plain.data(), dst, plain.size(), counter, false};
        functions_->seal(key_->data(), &job, 1);
    }
    /// sealed ends with the tag; dst = sealed.size() - kTagLen bytes, in place or apart. False: forged or too short; dst is
    /// then as it was, or zeros. While the call runs, dst may hold plaintext that is not authenticated yet: nobody else may
    /// read it before the call returns.
    [[nodiscard]] bool open(uint8_t* dst, ByteSpan sealed, uint64_t counter) const {
        if (sealed.size() < kTagLen) return false;
        AeadJob job{sealed.data(), dst, sealed.size() - kTagLen, counter, false};
        functions_->open(key_->data(), &job, 1);
        return job.ok;
    }
    /// Any number of packets, with what seal() says for each. No two may overlap.
    void seal(std::span<AeadJob> jobs) const { functions_->seal(key_->data(), jobs.data(), jobs.size()); }
    /// Sets AeadJob::ok of each, with what open() says for each.
    void open(std::span<AeadJob> jobs) const { functions_->open(key_->data(), jobs.data(), jobs.size()); }

   private:
    LockedKey locked_;
    const Key32* key_;  ///< in locked_; the packet path reads it without asking
    const AeadFunctions* functions_;
};

}  // namespace mesh::crypto
