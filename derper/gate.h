// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// How often somebody may connect: everybody together, and each source by itself, so that one host that knocks all day
/// leaves room for the others. Pure. Sources share a fixed number of buckets through a keyed hash: no memory per source,
/// and nobody can choose whose bucket to empty.

#include <cstdint>
#include <vector>

#include "base/crypto/crypto.h"
#include "base/ip.h"
#include "base/random.h"
#include "base/time.h"
#include "derper/rate.h"

namespace mesh::derper {

/// What one source may take of the rate and of the burst. A whole office behind one address that comes back at once after a
/// restart has the burst for it.
inline constexpr double kSourceShare = 1.0 / 20;
inline constexpr double kLeastSourceBurst = 10;

class Gate {
   public:
    /// `rate` connections a second and `burst` at once, of all sources together; a source is an IPv4 address or an IPv6 /64.
    Gate(Random& random, double rate, double burst, Time now);

    enum class Verdict : uint8_t { kOpen, kTooManyOfSource, kTooMany };
    /// An invalid source stands for many (a proxy) and meets only the limit of all. What a source is refused for costs the
    /// others nothing.
    [[nodiscard]] Verdict ask(const Addr& source, Time now);

   private:
    [[nodiscard]] TokenBucket& bucket_of(const Addr& source);

    crypto::Key32 key_{};
    TokenBucket all_;
    std::vector<TokenBucket> sources_;
};

}  // namespace mesh::derper
