// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Pings of our own through the tunnel: TSMP (does the other node's program answer?) and ICMP (does its system?).

#include <array>
#include <vector>

#include "base/keys.h"
#include "base/random.h"
#include "base/time.h"

namespace mesh::dataplane {

enum class PingKind : uint8_t { kTsmp, kIcmp };

/// How one ended.
struct TunnelPong {
    PeerId peer = kNoPeer;
    PingKind kind = PingKind::kTsmp;
    bool answered = false;
    Duration latency;
    uint16_t peerapi_port = 0;  ///< TSMP; 0: none told
};

/// Pings under way, at most kMax; a further one ends the oldest unanswered.
class TunnelPings {
   public:
    static constexpr size_t kMax = 64;
    static constexpr Duration kTimeout = seconds(5);

    struct Ended {
        uint64_t id = 0;
        TunnelPong pong;
    };

    /// Returns the token to put into the ping. ICMP uses its low 32 bits as identifier and sequence.
    uint64_t start(uint64_t id, PeerId peer, PingKind kind, Random& random, Time now);
    /// True if that answers one of ours.
    [[nodiscard]] bool answer(PeerId peer, PingKind kind, uint64_t token, uint16_t peerapi_port, Time now, Ended& out);
    /// One that ran out of time, oldest first.
    [[nodiscard]] bool expire(Time now, Ended& out);
    [[nodiscard]] Time next_timeout() const { return open_.empty() ? Time::never() : open_.front().sent + kTimeout; }
    [[nodiscard]] bool empty() const { return open_.empty(); }

   private:
    struct Open {
        uint64_t id, token;
        PeerId peer;
        PingKind kind;
        Time sent;
    };
    std::vector<Open> open_;  // by time
};

}  // namespace mesh::dataplane
