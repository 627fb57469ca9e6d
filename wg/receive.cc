// SPDX-License-Identifier: BSD-3-Clause
// Device: the inbound half.
#include "wg/device_calls.h"

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

}  // namespace

Device::Opened Device::receive(MutByteSpan datagram, const Source& from, Time now) {
    Opened out;
    out.drop = DropReason::kMalformed;
    if (datagram.size() < kDataOverhead) return out;
    const uint32_t type = load_le32(datagram.data());
    if (type == kTypeTransport) [[likely]] return receive_transport(datagram, from, now);
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

Device::Opened Device::receive_transport(MutByteSpan datagram, const Source& from, Time now) {
    Opened out;
    const auto it = by_index_.find(load_le32(datagram.data() + 4));
    if (it == by_index_.end() || it->second.session == nullptr) {
        out.drop = have_key() ? DropReason::kUnknownIndex : DropReason::kNoKey;
        return out;
    }
    Session& session = *it->second.session;
    out.peer = session.peer();
    out.drop = session.open(datagram, now);
    if (out.drop != DropReason::kNone) return out;

    Peer& p = peers_[out.peer];
    PeerState& s = *p.state;
    s.last_received = now;
    s.timers.new_handshake = Time::never();
    if (&session == s.next.get()) [[unlikely]] {
        // The initiator has our answer: only now do we send with this session.
        drop_session(s.previous);
        s.previous = std::move(s.current);
        s.current = std::move(s.next);
        established(s, p, now);
        arm(out.peer, s);
        {
            const Calling guard(*this);
            output_.authenticated(out.peer, from, now);
        }
        call_session_ready(out.peer, now);
    }
    if (datagram.size() == kDataOverhead) {
        p.rx_bytes += kDataOverhead;
        out.kind = Opened::kKeepalive;
        return out;
    }
    out.kind = Opened::kData;
    out.plain = datagram.subspan(kDataHeader, datagram.size() - kDataOverhead);
    return out;
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
    CookieReply reply = gate_.make_reply(datagram, from, now);
    ++counters_.cookie_replies_sent;
    const Calling guard(*this);
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
