// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Which of two proven paths is better.

#include <cstdint>

#include "base/ip.h"
#include "base/time.h"

namespace mesh::magicsock {

/// A UDP path with its measured round trip.
struct ScoredAddr {
    Endpoint ep{};         ///< invalid: no path
    Duration latency{};    ///< > 0 once measured
    uint16_t wire_mtu = 0; ///< largest proven IP packet; 0 unknown
    bool operator==(const ScoredAddr&) const = default;
};

/// True if `a` should replace `b`. Rules, in this order:
///   the same address: only for a larger MTU; an invalid one loses;
///   points: the faster gets 100 − 100·fast/slow, then loopback +50, else link-local +30, else private +20; IPv6 +10;
///   a lead of one point or less over nothing is noise: `b` stays; else strictly more points win.
/// Source: tailscale/tailscale wgengine/magicsock/endpoint.go (betterAddr).
[[nodiscard]] bool better_addr(const ScoredAddr& a, const ScoredAddr& b);

}  // namespace mesh::magicsock
