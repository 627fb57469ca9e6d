// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What the engine keeps per peer. `Peer` is small and stays while the peer is configured; `PeerState` holds keys,
/// handshakes, timers and waiting packets, comes with the first traffic and goes 540 s after the last session.
/// These are data with their laws; what happens when is in device.cc, receive.cc and timers.cc.

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "base/bytes.h"
#include "base/keys.h"
#include "base/random.h"
#include "base/time.h"
#include "wg/cookie.h"
#include "wg/noise.h"
#include "wg/session.h"

namespace mesh::wg {

/// A handshake we want, from the first try until a session stands or we give up.
///
/// The specification waits 5 s between initiations. Real peers accept one every 20 ms, and what is lost is mostly lost
/// because the other side is just starting, so the first retries come early and then back off to 5 s. The jitter
/// keeps two nodes that started together from staying in step.
class Attempt {
   public:
    enum class Kind : uint8_t {
        kWanted,  ///< there is traffic: try for 90 s
        kEarly,   ///< nobody asked yet: a few quick tries
    };
    bool active = false;
    bool unsent = false;  ///< the last try found no path
    Kind kind = Kind::kWanted;
    uint8_t tries = 0;    ///< initiations that left us
    Time started{};
    Time next{};

    void start(Kind k, Time now) {
        *this = Attempt{};
        active = true;
        kind = k;
        started = now;
        next = now;
    }
    void stop() { active = false; }
    /// Begin the schedule of intervals anew, without prolonging the attempt.
    void restart(Time at) {
        tries = 0;
        next = at;
    }
    [[nodiscard]] bool exhausted(Time now) const;
    /// After a try.
    void schedule(bool sent, Time now, Random& random);
};

/// Packets that wait for a session, oldest first.
class StagedQueue {
   public:
    static constexpr size_t kMaxPackets = 128;
    static constexpr size_t kMaxBytes = 256 * 1024;

    [[nodiscard]] bool empty() const { return packets_.empty(); }
    [[nodiscard]] size_t bytes() const { return bytes_; }
    [[nodiscard]] size_t size() const { return packets_.size(); }
    /// Returns how many old ones had to go.
    size_t push(ByteSpan packet);
    [[nodiscard]] bool pop(Bytes& out);
    size_t clear();

   private:
    std::deque<Bytes> packets_;
    size_t bytes_ = 0;
};

/// Timers that an event arms; never() = idle. Section 6 of the whitepaper.
struct PeerTimers {
    Time new_handshake = Time::never();   ///< data sent, nothing came back
    Time keepalive = Time::never();       ///< data received, nothing sent back
    bool another_keepalive = false;
    Time zero = Time::never();            ///< the whole state goes
};

struct PeerState {
    Secret shared;            ///< static-static
    bool weak_key = false;    ///< the peer's key is no proper point: never a handshake

    // Our own initiation and one received are kept apart, so that two that cross do not destroy each other.
    InitiatorHandshake initiation;
    Time initiation_sent{};   ///< zero: never (or nothing left us)
    std::optional<OpenedInitiation> held;  ///< received while ours was young; answered at held_until
    Time held_until = Time::never();
    CookieJar cookies;
    Attempt attempt;

    Stamp last_stamp{};       ///< of their initiations
    Time last_accepted{};     ///< when; zero: none

    // next: made as responder, not confirmed yet. Sending uses current only, all three receive.
    std::unique_ptr<Session> previous, current, next;

    PeerTimers timers;
    StagedQueue staged;

    Time last_sent_data{};
    Time last_received{};     ///< anything authenticated
    Time last_unknown_index{};
    Time last_reconfirmed{};  ///< when the keepalive that confirms a session was repeated
    Time nervous_until{};     ///< one side restarted: a dead session is likely
    uint8_t nervous_tries = 0;
    bool nervous_extended = false;

    [[nodiscard]] Time deadline() const;
};

struct Peer {
    NodePublic key;                    ///< zero: slot unused
    std::unique_ptr<PeerState> state;  ///< null: idle
    uint64_t rx_bytes = 0;
    uint64_t tx_bytes = 0;
    uint64_t last_stamp_sent = 0;      ///< unix ns; outlives the state
    WallTime last_handshake{};

    [[nodiscard]] bool used() const { return !key.is_zero(); }
};
static_assert(sizeof(Peer) <= 96, "an idle peer is cheap");

}  // namespace mesh::wg
