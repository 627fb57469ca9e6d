// SPDX-License-Identifier: BSD-3-Clause
// Device: when a handshake is wanted, what leaves us for it, and what its end means.
#include <algorithm>

#include "wg/device_calls.h"

namespace mesh::wg {

namespace {
constexpr uint8_t kNervousTries = 3;
}

bool Device::nervous(const PeerState& s, Time now) const {
    return s.nervous_tries < kNervousTries && (now < nervous_until_ || now < s.nervous_until);
}

void Device::want_session(PeerId id, Peer& p, Attempt::Kind kind, Time now) {
    if (!have_key()) return;
    PeerState& s = state_of(id, p, now);
    if (s.weak_key) return;
    if (s.attempt.active) {
        if (kind == Attempt::Kind::kWanted && s.attempt.kind == Attempt::Kind::kEarly) {
            s.attempt.kind = kind;
            s.attempt.started = now;
            s.attempt.tries = std::min<uint8_t>(s.attempt.tries, 2);
        }
        return;
    }
    s.attempt.start(kind, now);
    if (s.next && s.next->age(now) < kFirstRetry) {
        // The peer has just initiated and we answered: its first message will do.
        s.attempt.next = s.next->created() + kFirstRetry;
        arm(id, s);
        return;
    }
    try_now(id, p, now);
}

void Device::try_now(PeerId id, Peer& p, Time now) {
    if (calling_ == 0 && initiations_.take(now)) {
        try_initiation(id, p, now);
    } else {
        p.state->attempt.next = now;
    }
    arm(id, *p.state);
}

void Device::try_initiation(PeerId id, Peer& p, Time now) {
    PeerState& s = *p.state;
    if (s.held) {
        // One of the two crossing handshakes first: ours again only if neither gives a session.
        s.attempt.next = s.held_until + kFirstRetry;
        return;
    }
    if (s.attempt.exhausted(now)) {
        give_up(p);
        return;
    }
    const bool sent = send_initiation(id, p, now);
    s.attempt.schedule(sent, now, random_);
}

bool Device::send_initiation(PeerId id, Peer& p, Time now) {
    PeerState& s = *p.state;
    ++handshake_work_;
    drop_initiation(s);
    const uint32_t index = new_index(id, nullptr);
    const uint64_t stamp = stamps_.next(p.last_stamp_sent, now);
    Initiation msg;
    if (!create_initiation(msg, s.initiation, random_, identity_, p.key, s.shared, index, tai64n(stamp))) {
        by_index_.erase(index);
        s.weak_key = true;
        return false;
    }
    p.last_stamp_sent = stamp;
    s.cookies.write_macs(bytes_of(msg), p.key, now);
    bool sent;
    {
        const Calling guard(*this);
        sent = output_.send_to_peer(id, bytes_of(msg), now);
    }
    if (!sent) {
        drop_initiation(s);
        return false;
    }
    s.initiation_sent = now;
    s.timers.keepalive = Time::never();
    p.tx_bytes += sizeof msg;
    ++counters_.initiations_sent;
    return true;
}

DropReason Device::answer(PeerId id, Peer& p, const OpenedInitiation& opened, Time now) {
    PeerState& s = *p.state;
    ++handshake_work_;
    Response msg;
    TransportKeys keys;
    const uint32_t index = new_index(id, nullptr);
    if (!create_response(msg, keys, random_, opened, index)) {
        by_index_.erase(index);
        return DropReason::kBadHandshake;
    }
    // Whatever was waiting for confirmation is superseded. `previous` stays, unlike in the specification: until the
    // new session is confirmed the peer may still send with it.
    drop_session(s.next);
    s.next = std::make_unique<Session>(keys, Role::kResponder, index, opened.remote_index, id, now);
    by_index_[index].session = s.next.get();
    ++counters_.sessions;
    s.timers.zero = now + kZeroKeysAfter;
    s.timers.keepalive = Time::never();
    if (s.attempt.active) s.attempt.next = max(s.attempt.next, now + kFirstRetry);
    s.cookies.write_macs(bytes_of(msg), p.key, now);
    p.tx_bytes += sizeof msg;
    ++counters_.responses_sent;
    arm(id, s);
    const Calling guard(*this);
    (void)output_.send_to_peer(id, bytes_of(msg), now);
    return DropReason::kNone;
}

void Device::give_up(Peer& p) {
    PeerState& s = *p.state;
    if (s.attempt.kind == Attempt::Kind::kWanted) ++counters_.handshakes_given_up;
    s.attempt.stop();
    drop_initiation(s);
    s.timers.keepalive = Time::never();
    s.timers.another_keepalive = false;
    staged_bytes_ -= s.staged.bytes();
    counters_.staged_dropped += s.staged.clear();
}

void Device::established(PeerState& s, Peer& p, Time now) {
    s.attempt.stop();
    drop_initiation(s);
    s.timers.zero = now + kZeroKeysAfter;
    s.timers.new_handshake = Time::never();
    s.last_received = now;
    p.last_handshake = stamps_.wall(now);
    // A session made right after a restart may be forgotten by the other side a moment later.
    if (!s.nervous_extended && (now < nervous_until_ || now < s.nervous_until)) {
        s.nervous_extended = true;
        s.nervous_until = now + seconds(20);
    }
}

}  // namespace mesh::wg
