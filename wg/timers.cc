// SPDX-License-Identifier: BSD-3-Clause
// Device: what happens when time passes.
#include "wg/device_calls.h"

namespace mesh::wg {

namespace {
constexpr uint64_t kHandshakesPerSlice = 16;  // about 2 ms of curve operations
constexpr int kPeersPerSlice = 256;
}  // namespace

Time Device::next_timeout() const { return queue_.next(); }

void Device::handle_timeout(Time now) {
    const uint64_t start = handshake_work_;
    for (int i = 0; i < kPeersPerSlice && handshake_work_ - start < kHandshakesPerSlice; ++i) {
        if (queue_.next() > now) return;
        const PeerId id = queue_.pop();
        Peer* const p = find(id);
        if (p == nullptr || !p->state) continue;
        run_timers(id, *p, now);
        if (p->state) arm(id, *p->state);
    }
}

void Device::run_timers(PeerId id, Peer& p, Time now) {
    PeerState& s = *p.state;
    if (s.timers.zero <= now) {
        if (!s.attempt.active && s.staged.empty()) {
            reset_state(id, p);
            return;
        }
        // Traffic of ours keeps the state, but not what shuts out a peer whose clock went back.
        s.last_stamp = {};
        s.timers.zero = now + kZeroKeysAfter;
    }
    if (s.held && s.held_until <= now) {
        const OpenedInitiation opened = *s.held;
        s.held.reset();
        (void)answer(id, p, opened, now);
    }
    if (s.timers.keepalive <= now) {
        s.timers.keepalive = Time::never();
        const bool again = s.timers.another_keepalive;
        s.timers.another_keepalive = false;
        send_keepalive(id, p, now);
        if (again) s.timers.keepalive = now + kKeepaliveTimeout;
    }
    if (s.timers.new_handshake <= now) {
        s.timers.new_handshake = Time::never();
        if (nervous(s, now)) ++s.nervous_tries;
        want_session(id, p, Attempt::Kind::kWanted, now);
    }
    if (s.attempt.active && s.attempt.next <= now) try_initiation(id, p, now);
}

void Device::call_session_ready(PeerId id, Time now) {
    const Calling guard(*this);
    output_.session_ready(id, now);
}

void Device::send_keepalive(PeerId id, Peer& p, Time now) {
    PeerState& s = *p.state;
    if (!s.current || !s.current->can_send(now)) return;
    if (!s.staged.empty()) {
        const uint64_t before = s.current->messages_sent();
        call_session_ready(id, now);
        if (s.current->messages_sent() != before) return;
    }
    uint8_t datagram[kDataOverhead];
    const size_t len = s.current->seal(datagram, 0, 0);
    s.timers.keepalive = Time::never();
    p.tx_bytes += len;
    const Calling guard(*this);
    (void)output_.send_to_peer(id, ByteSpan(datagram, len), now);
}

const DeviceCounters& Device::counters() const { return counters_; }

}  // namespace mesh::wg
