// SPDX-License-Identifier: BSD-3-Clause
// Configuration, the outbound half and facts from other rooms.
#include "wg/device.h"

#include "base/check.h"
#include "wg/device_calls.h"

namespace mesh::wg {

namespace {

constexpr size_t kMaxStagedBytes = 8 * 1024 * 1024;      // all peers together
constexpr Duration kNervousTime = seconds(20);
constexpr Duration kLately = seconds(120);               // peer_restarted: worth a handshake
constexpr Duration kRetryGap = milliseconds(200);        // between two initiations asked for by facts
constexpr Duration kSurelyNew = seconds(2);
constexpr Duration kUnknownIndexGap = seconds(5);
constexpr Duration kReconfirmGap = milliseconds(250);
constexpr PeerId kMaxPeers = 1U << 24;

bool within(Time when, Duration span, Time now) { return !when.is_zero() && now - when < span; }

}  // namespace

std::string_view name(DropReason reason) {
    switch (reason) {
        case DropReason::kNone: return "none";
        case DropReason::kMalformed: return "malformed";
        case DropReason::kNoKey: return "no_key";
        case DropReason::kBadMac: return "bad_mac";
        case DropReason::kUnderLoad: return "under_load";
        case DropReason::kRateLimited: return "rate_limited";
        case DropReason::kUnknownPeer: return "unknown_peer";
        case DropReason::kBadHandshake: return "bad_handshake";
        case DropReason::kReplayedStamp: return "replayed_stamp";
        case DropReason::kFlood: return "flood";
        case DropReason::kUnknownIndex: return "unknown_index";
        case DropReason::kExpired: return "expired";
        case DropReason::kBadTag: return "bad_tag";
        case DropReason::kReplayed: return "replayed";
        case DropReason::kCount: break;
    }
    return "unknown";
}

Device::Device(Random& random, Output& output) : random_(random), output_(output), gate_(random) {}
Device::~Device() = default;

// -- configuration ---------------------------------------------------------------------------------------------------

void Device::set_private_key(const NodePrivate& key, Time now) {
    const NodePublic own = key.is_zero() ? NodePublic{} : key.public_key();
    if (own == identity_.key) return;
    for (PeerId id = 0; id < peers_.size(); ++id) reset_state(id, peers_[id]);
    identity_.secret.bytes() = key.secret();
    identity_.key = own;
    gate_.set_key(own);
    nervous_until_ = now + kNervousTime;
}

void Device::set_wall_clock(WallTime wall, Time now) { stamps_.set_wall(wall, now); }
void Device::set_timestamp_floor(uint64_t unix_ns) { stamps_.raise_floor(unix_ns); }
uint64_t Device::last_timestamp() const { return stamps_.latest(); }

void Device::add_peer(PeerId peer, const NodePublic& key) {
    CHECK(peer < kMaxPeers);
    if (key.is_zero()) return;
    if (peer >= peers_.size()) peers_.resize(peer + 1);
    if (peers_[peer].key == key) return;
    remove_peer(peer);
    peers_[peer].key = key;
    by_key_[key] = peer;
}

void Device::remove_peer(PeerId peer) {
    Peer* const p = find(peer);
    if (p == nullptr) return;
    reset_state(peer, *p);
    // The peer may come back while our clock is behind what it has seen of us.
    stamps_.raise_floor(p->last_stamp_sent);
    const auto it = by_key_.find(p->key);
    if (it != by_key_.end() && it->second == peer) by_key_.erase(it);
    *p = Peer{};
}

bool Device::has_peer(PeerId peer) const { return find(peer) != nullptr; }

Peer* Device::find(PeerId peer) { return peer < peers_.size() && peers_[peer].used() ? &peers_[peer] : nullptr; }
const Peer* Device::find(PeerId peer) const {
    return peer < peers_.size() && peers_[peer].used() ? &peers_[peer] : nullptr;
}

PeerState& Device::state_of(PeerId id, Peer& p, Time now) {
    if (!p.state) {
        p.state = std::make_unique<PeerState>();
        p.state->weak_key = !static_shared(p.state->shared, identity_, p.key);
        p.state->timers.zero = now + kZeroKeysAfter;
        arm(id, *p.state);
    }
    return *p.state;
}

void Device::reset_state(PeerId id, Peer& p) {
    if (!p.state) return;
    PeerState& s = *p.state;
    drop_session(s.previous);
    drop_session(s.current);
    drop_session(s.next);
    drop_initiation(s);
    staged_bytes_ -= s.staged.bytes();
    counters_.staged_dropped += s.staged.size();
    queue_.remove(id);
    p.state.reset();
}

uint32_t Device::new_index(PeerId id, Session* session) {
    for (;;) {
        const uint32_t index = random_.u32();
        if (by_index_.try_emplace(index, IndexEntry{id, session}).second) return index;
    }
}

void Device::drop_session(std::unique_ptr<Session>& session) {
    if (!session) return;
    by_index_.erase(session->local_index());
    session.reset();
}

void Device::drop_initiation(PeerState& s) {
    if (!s.initiation.active) return;
    by_index_.erase(s.initiation.index);
    s.initiation.wipe();
}

// -- outbound --------------------------------------------------------------------------------------------------------

Session* Device::send_session(PeerId peer, Time now) {
    Peer* const p = find(peer);
    if (p == nullptr || !p->state || !p->state->current) return nullptr;
    PeerState& s = *p->state;
    if (!s.current->can_send(now)) return nullptr;
    if (s.current->rekey_on_send(now)) [[unlikely]] want_session(peer, *p, Attempt::Kind::kWanted, now);
    return s.current.get();
}

size_t Device::seal(Session& session, uint8_t* slot, size_t plain_len, size_t mtu) {
    return session.seal(slot, plain_len, mtu);
}

void Device::sent_data(PeerId peer, size_t bytes, Time now) {
    Peer* const p = find(peer);
    if (p == nullptr || !p->state) return;
    PeerState& s = *p->state;
    p->tx_bytes += bytes;
    s.last_sent_data = now;
    s.timers.keepalive = Time::never();
    s.timers.another_keepalive = false;
    if (!s.timers.new_handshake.is_never()) return;
    const Duration patience = nervous(s, now) ? milliseconds(1500) * (int64_t{1} << s.nervous_tries)
                                              : kKeepaliveTimeout + kRekeyTimeout + milliseconds(random_.below(334));
    s.timers.new_handshake = now + patience;
    queue_.arm(peer, s.timers.new_handshake);
}

void Device::stage(PeerId peer, ByteSpan packet, Time now) {
    Peer* const p = find(peer);
    if (p == nullptr || !have_key() || packet.empty() || packet.size() > StagedQueue::kMaxBytes) {
        ++counters_.staged_dropped;
        return;
    }
    PeerState& s = state_of(peer, *p, now);
    if (s.weak_key) {
        ++counters_.staged_dropped;
        return;
    }
    Bytes oldest;
    while (staged_bytes_ + packet.size() > kMaxStagedBytes) {
        const bool freed = s.staged.pop(oldest);
        ++counters_.staged_dropped;
        if (!freed) return;  // other peers fill the common room: this packet is the one that goes
        staged_bytes_ -= oldest.size();
    }
    staged_bytes_ -= s.staged.bytes();
    counters_.staged_dropped += s.staged.push(packet);
    staged_bytes_ += s.staged.bytes();
    if (s.current && s.current->can_send(now)) {
        // The caller need not have staged; the keepalive timer flushes.
        s.timers.keepalive = now;
        arm(peer, s);
        return;
    }
    want_session(peer, *p, Attempt::Kind::kWanted, now);
}

bool Device::take_staged(PeerId peer, Bytes& out) {
    Peer* const p = find(peer);
    if (p == nullptr || !p->state || !p->state->staged.pop(out)) return false;
    staged_bytes_ -= out.size();
    return true;
}

bool Device::has_staged(PeerId peer) const {
    const Peer* const p = find(peer);
    return p != nullptr && p->state && !p->state->staged.empty();
}

// -- facts from other rooms ------------------------------------------------------------------------------------------

void Device::path_appeared(PeerId peer, Time now) {
    Peer* const p = find(peer);
    if (p == nullptr || !p->state || !p->state->attempt.active) return;
    PeerState& s = *p->state;
    // What left us recently may still be answered; what did not, or has been waiting long, goes again at once.
    const bool waited = !within(s.initiation_sent, kRetryGap, now) && s.attempt.next - now > kFirstRetry;
    if (!s.attempt.unsent && !waited) return;
    s.attempt.restart(now);
    try_now(peer, *p, now);
}

void Device::peer_restarted(PeerId peer, Time now) {
    Peer* const p = find(peer);
    if (p == nullptr || !p->state) return;
    PeerState& s = *p->state;
    // Its clock may be behind now, and what it forgot we must not hold against it.
    s.last_stamp = {};
    s.nervous_until = now + kNervousTime;
    s.nervous_tries = 0;
    s.nervous_extended = false;
    s.timers.new_handshake = Time::never();
    const bool lately = s.attempt.active || !s.staged.empty() || within(s.last_sent_data, kLately, now) ||
                        within(s.last_received, kLately, now);
    if (!lately) return;
    // A session that the peer itself asked for a moment ago is younger than its restart.
    if (s.current && s.current->role() == Role::kResponder && s.current->age(now) < kSurelyNew) return;
    if (!s.attempt.active) {
        want_session(peer, *p, Attempt::Kind::kWanted, now);
        return;
    }
    s.attempt.restart(within(s.initiation_sent, kRetryGap, now) ? s.initiation_sent + kRetryGap : now);
    if (s.attempt.next <= now) try_now(peer, *p, now);
    arm(peer, s);
}

void Device::initiate_early(PeerId peer, Time now) {
    Peer* const p = find(peer);
    if (p == nullptr || !have_key()) return;
    if (p->state && p->state->current && p->state->current->can_send(now)) return;
    want_session(peer, *p, Attempt::Kind::kEarly, now);
}

void Device::unknown_index_from(PeerId peer, Time now) {
    Peer* const p = find(peer);
    if (p == nullptr || !have_key()) return;
    PeerState& s = state_of(peer, *p, now);
    // The message that confirms our session was lost: the peer, its responder, still sends by the one before.
    if (s.current && s.current->role() == Role::kInitiator && !s.current->heard() &&
        s.current->age(now) >= kReconfirmGap && !within(s.last_reconfirmed, kReconfirmGap, now)) {
        s.last_reconfirmed = now;
        send_keepalive(peer, *p, now);
    }
    if (s.attempt.active || within(s.last_unknown_index, kUnknownIndexGap, now)) return;
    // Stragglers of the session before this one.
    if (s.current && s.current->can_send(now) && s.current->age(now) < seconds(1)) return;
    s.last_unknown_index = now;
    want_session(peer, *p, Attempt::Kind::kWanted, now);
}

PeerStats Device::stats(PeerId peer, Time now) const {
    PeerStats out;
    const Peer* const p = find(peer);
    if (p == nullptr) return out;
    out.rx_bytes = p->rx_bytes;
    out.tx_bytes = p->tx_bytes;
    out.last_handshake = p->last_handshake;
    if (!p->state) return out;
    out.handshake_pending = p->state->attempt.active;
    if (p->state->current && p->state->current->can_send(now)) {
        out.has_session = true;
        out.session_age = p->state->current->age(now);
    }
    return out;
}

}  // namespace mesh::wg
