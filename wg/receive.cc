// SPDX-License-Identifier: BSD-3-Clause
// Device: the inbound half.
#include "wg/device_calls.h"

#include <array>

namespace mesh::wg {

namespace {

// While our own initiation is this young a received one waits: a peer with a single handshake slot forgets its own when
// it takes ours, and an answer sent to it then would at best be wasted. Both sides may be of our kind, so the two
// waits differ: the side with the larger key gives in first.
constexpr Duration kHoldSmallerKey = milliseconds(300);
constexpr Duration kHoldLargerKey = milliseconds(100);

template <class Message>
const Message& view(ByteSpan datagram) {
    return *reinterpret_cast<const Message*>(datagram.data());
}

bool is_transport(ByteSpan datagram) {
    return datagram.size() >= kDataOverhead && load_le32(datagram.data()) == kTypeTransport;
}

}  // namespace

void Device::receive(std::span<const MutByteSpan> datagrams, const Source& from, Time now, std::span<Opened> out) {
    for (size_t i = 0; i < datagrams.size();) {
        if (is_transport(datagrams[i])) [[likely]] {
            i += receive_run(datagrams.subspan(i), from, now, out.subspan(i));
        } else {
            out[i] = receive(datagrams[i], from, now);
            ++i;
        }
    }
}

Device::Opened Device::receive(MutByteSpan datagram, const Source& from, Time now) {
    Opened out;
    if (is_transport(datagram)) [[likely]] {
        static_cast<void>(receive_run({&datagram, 1}, from, now, {&out, 1}));
        return out;
    }
    out.drop = DropReason::kMalformed;
    if (datagram.size() < kDataOverhead) return out;
    const uint32_t type = load_le32(datagram.data());
    const bool well_formed = (type == kTypeInitiation && datagram.size() == sizeof(Initiation)) ||
                             (type == kTypeResponse && datagram.size() == sizeof(Response)) ||
                             (type == kTypeCookie && datagram.size() == sizeof(CookieReply));
    if (!well_formed) return out;
    if (!have_key()) {
        out.drop = DropReason::kNoKey;
        return out;
    }
    if (type == kTypeInitiation)
        out.drop = receive_initiation(datagram, from, now, out.peer);
    else if (type == kTypeResponse)
        out.drop = receive_response(datagram, from, now, out.peer);
    else
        out.drop = receive_cookie(datagram, now, out.peer);
    if (out.drop == DropReason::kNone) out.kind = Opened::kHandshake;
    return out;
}

/// The transport messages for one session that `datagrams` begins with, at most kRun. Returns how many.
size_t Device::receive_run(std::span<const MutByteSpan> datagrams, const Source& from, Time now, std::span<Opened> out) {
    // So many stay in the first-level cache between decryption and what comes after.
    constexpr size_t kRun = 16;
    const uint32_t index = load_le32(datagrams[0].data() + 4);
    size_t n = 1;
    while (n < datagrams.size() && n < kRun && is_transport(datagrams[n]) && load_le32(datagrams[n].data() + 4) == index) ++n;
    const auto it = by_index_.find(index);
    if (it == by_index_.end() || it->second.session == nullptr) {
        for (size_t i = 0; i < n; ++i) {
            out[i] = {};
            out[i].drop = have_key() ? DropReason::kUnknownIndex : DropReason::kNoKey;
        }
        return n;
    }
    Session& session = *it->second.session;
    std::array<crypto::AeadJob, kRun> jobs;
    size_t used = 0;
    for (size_t i = 0; i < n; ++i) {
        out[i] = {};
        out[i].peer = session.peer();
        out[i].drop = session.check(datagrams[i], now, jobs[used]);
        if (out[i].drop == DropReason::kNone) ++used;
    }
    session.open(std::span(jobs).first(used));
    size_t job = 0;
    for (size_t i = 0; i < n; ++i) {
        if (out[i].drop != DropReason::kNone) continue;
        const crypto::AeadJob& opened = jobs[job++];
        out[i].drop = session.accept(opened);
        if (out[i].drop != DropReason::kNone) continue;
        transport_accepted(session, datagrams[i].size(), from, now);
        out[i].kind = opened.len == 0 ? Opened::kKeepalive : Opened::kData;
        if (opened.len > 0) out[i].plain = {opened.dst, opened.len};
    }
    return n;
}

void Device::transport_accepted(const Session& session, size_t size, const Source& from, Time now) {
    const PeerId id = session.peer();
    Peer& p = peers_[id];
    PeerState& s = *p.state;
    s.last_received = now;
    s.timers.new_handshake = Time::never();
    if (&session == s.next.get()) [[unlikely]] {
        // The initiator has our answer: only now do we send with this session.
        drop_session(s.previous);
        s.previous = std::move(s.current);
        s.current = std::move(s.next);
        established(s, p, now);
        arm(id, s);
        {
            const Calling guard(*this);
            output_.authenticated(id, from, now);
        }
        call_session_ready(id, now);
    }
    if (size == kDataOverhead) p.rx_bytes += kDataOverhead;
}

void Device::received_data(PeerId peer, size_t bytes, Time now) {
    Peer* const p = find(peer);
    if (p == nullptr || !p->state) return;
    PeerState& s = *p->state;
    p->rx_bytes += bytes;
    s.last_received = now;
    s.timers.new_handshake = Time::never();
    if (s.timers.keepalive.is_never()) {
        s.timers.keepalive = now + kKeepaliveTimeout;
        queue_.arm(peer, s.timers.keepalive);
    } else {
        s.timers.another_keepalive = true;
    }
    // Receiving only: a new session in time for the last keepalive and one retry.
    constexpr Duration kLate = kRejectAfterTime - kKeepaliveTimeout - kRekeyTimeout;
    if (s.current && s.current->role() == Role::kInitiator && s.current->age(now) >= kLate)
        [[unlikely]]
        want_session(peer, *p, Attempt::Kind::kWanted, now);
}

DropReason Device::pass_gate(MutByteSpan datagram, const Source& from, Time now) {
    switch (gate_.check(datagram, from, now)) {
        case HandshakeGate::Verdict::kAdmit: return DropReason::kNone;
        case HandshakeGate::Verdict::kBadMac: return DropReason::kBadMac;
        case HandshakeGate::Verdict::kRefuse: return DropReason::kRateLimited;
        case HandshakeGate::Verdict::kDemandCookie: break;
    }
    const Calling guard(*this);
    if (!gate_.may_reply(from.by_derp() || output_.knows(from), now)) return DropReason::kRateLimited;
    CookieReply reply = gate_.make_reply(datagram, from, now);
    ++counters_.cookie_replies_sent;
    output_.reply(from, bytes_of(reply), now);
    return DropReason::kUnderLoad;
}

bool Device::hold(const Peer& p, Time now) const {
    const PeerState& s = *p.state;
    if (!s.attempt.active || s.attempt.unsent || !s.initiation.active || s.initiation_sent.is_zero()) return false;
    return now - s.initiation_sent < (identity_.key < p.key ? kHoldSmallerKey : kHoldLargerKey);
}

DropReason Device::receive_initiation(MutByteSpan datagram, const Source& from, Time now, PeerId& who) {
    if (const DropReason d = pass_gate(datagram, from, now); d != DropReason::kNone) return d;
    const Initiation& msg = view<Initiation>(datagram);
    OpenedInitiation opened;
    if (!open_static(opened, msg, identity_)) return DropReason::kBadHandshake;
    const auto it = by_key_.find(opened.remote_static);
    if (it == by_key_.end()) return DropReason::kUnknownPeer;
    const PeerId id = it->second;
    Peer& p = peers_[id];

    // Until the stamp opens, the static key is only a claim: no state is made for it.
    Secret shared;
    if (p.state)
        shared = p.state->shared;
    else if (!static_shared(shared, identity_, p.key))
        return DropReason::kBadHandshake;
    if ((p.state && p.state->weak_key) || !open_stamp(opened, msg, shared)) return DropReason::kBadHandshake;

    who = id;
    PeerState& s = state_of(id, p, now);
    if (opened.stamp <= s.last_stamp) return DropReason::kReplayedStamp;
    if (!s.last_accepted.is_zero() && now - s.last_accepted <= kInitiationGap) return DropReason::kFlood;
    s.last_stamp = opened.stamp;
    s.last_accepted = now;
    s.last_received = now;
    s.timers.new_handshake = Time::never();
    p.rx_bytes += sizeof msg;
    {
        const Calling guard(*this);
        output_.authenticated(id, from, now);
    }
    if (s.held || hold(p, now)) {
        if (!s.held) s.held_until = s.initiation_sent + (identity_.key < p.key ? kHoldSmallerKey : kHoldLargerKey);
        s.held = opened;  // a newer one takes the place, not more time
        arm(id, s);
        return DropReason::kNone;
    }
    return answer(id, p, opened, now);
}

DropReason Device::receive_response(MutByteSpan datagram, const Source& from, Time now, PeerId& who) {
    const Response& msg = view<Response>(datagram);
    const auto it = by_index_.find(load_le32(msg.receiver));
    if (it == by_index_.end() || it->second.session != nullptr) return DropReason::kUnknownIndex;
    if (const DropReason d = pass_gate(datagram, from, now); d != DropReason::kNone) return d;
    const PeerId id = it->second.peer;
    who = id;
    Peer& p = peers_[id];
    PeerState& s = *p.state;
    TransportKeys keys;
    if (!consume_response(keys, msg, s.initiation, identity_)) return DropReason::kBadHandshake;

    // The index now belongs to the session.
    auto session = std::make_unique<Session>(keys, Role::kInitiator, s.initiation.index, load_le32(msg.sender), id, now);
    it->second.session = session.get();
    s.initiation.wipe();
    if (s.next) {
        // We had answered the peer too; it may be sending with that session.
        drop_session(s.current);
        drop_session(s.previous);
        s.previous = std::move(s.next);
    } else {
        drop_session(s.previous);
        s.previous = std::move(s.current);
    }
    s.current = std::move(session);
    s.held.reset();
    ++counters_.sessions;
    p.rx_bytes += sizeof msg;
    established(s, p, now);
    arm(id, s);
    {
        const Calling guard(*this);
        output_.authenticated(id, from, now);
    }
    call_session_ready(id, now);
    // The responder may not send before it has heard from us.
    if (s.current->messages_sent() == 0) send_keepalive(id, p, now);
    return DropReason::kNone;
}

DropReason Device::receive_cookie(ByteSpan datagram, Time now, PeerId& who) {
    const CookieReply& msg = view<CookieReply>(datagram);
    const auto it = by_index_.find(load_le32(msg.receiver));
    if (it == by_index_.end()) return DropReason::kUnknownIndex;
    Peer& p = peers_[it->second.peer];
    if (!p.state->cookies.accept(msg, p.key, now)) return DropReason::kBadHandshake;
    who = it->second.peer;
    return DropReason::kNone;
}

}  // namespace mesh::wg
