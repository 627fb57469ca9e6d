// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Randomness is an argument: the system's in the daemon, seeded in tests and simulations.

#include <cstdint>
#include <span>

namespace mesh {

class Random {
   public:
    virtual ~Random() = default;
    virtual void fill(std::span<uint8_t> out) = 0;

    uint32_t u32();
    uint64_t u64();
    /// Uniform in [0, bound); bound ≥ 1.
    uint32_t below(uint32_t bound);
};

/// The kernel's generator, by libsodium. Threadsafe.
class SystemRandom final : public Random {
   public:
    void fill(std::span<uint8_t> out) override;
};

/// Deterministic stream from a seed (ChaCha20). Not for keys outside tests.
class SeededRandom final : public Random {
   public:
    explicit SeededRandom(uint64_t seed);
    void fill(std::span<uint8_t> out) override;

   private:
    uint8_t key_[32];
    uint64_t block_ = 0;
};

}  // namespace mesh
