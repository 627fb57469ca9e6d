// SPDX-License-Identifier: BSD-3-Clause
#include "derper/relay.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace mesh::derper {
namespace {
constexpr double kGonePerSecond = 1;
constexpr double kGoneBurst = 3;

constexpr uint64_t bit(size_t loop) { return uint64_t{1} << loop; }
}  // namespace

RelayStats& RelayStats::operator+=(const RelayStats& more) {
    packets_in += more.packets_in;
    bytes_in += more.bytes_in;
    packets_out += more.packets_out;
    bytes_out += more.bytes_out;
    received += more.received;
    dropped_unknown += more.dropped_unknown;
    dropped_between += more.dropped_between;
    gone_disconnected += more.gone_disconnected;
    gone_not_here += more.gone_not_here;
    forwarded_out += more.forwarded_out;
    forwarded_in += more.forwarded_in;
    dropped_unknown_forward += more.dropped_unknown_forward;
    home_moves_in += more.home_moves_in;
    home_moves_out += more.home_moves_out;
    accepts += more.accepts;
    clients += more.clients;
    connections += more.connections;
    home_connections += more.home_connections;
    not_ideal_connections += more.not_ideal_connections;
    duplicate_keys += more.duplicate_keys;
    duplicates += more.duplicates;
    watchers += more.watchers;
    remote_clients += more.remote_clients;
    return *this;
}

void Relay::refresh_counts() {
    stats_.clients = peers_.size();
    stats_.connections = conns_.size();
    stats_.watchers = watchers_.size();
    stats_.remote_clients = forwarders_.size();
}

bool Relay::say(size_t loop, const Note& note, ByteSpan packet) {
    return silent_ || siblings_->tell(loop, note, packet);
}

void Relay::say_packet(size_t loop, const Note& note, ByteSpan packet) {
    if (!say(loop, note, packet)) stats_.dropped_between.add(packet);
}

// ---- who is here

void Relay::add(ConnId id, derp::ServerSession& session, const Endpoint& remote, Time now, bool not_ideal) {
    const auto [it, fresh] = conns_.try_emplace(id);
    CHECK(fresh);
    Conn& conn = it->second;
    conn.id = id;
    conn.session = &session;
    conn.remote = remote;
    conn.not_ideal = not_ideal;
    conn.gone_tokens_at = now;
    const bool reached_before = front_reaches(conn.key());
    Peer& peer = peers_[conn.key()];
    conn.peer = &peer;
    peer.conns.push_back(&conn);
    if (peer.conns.size() > 1) ++stats_.duplicates;
    if (peer.conns.size() == 2) ++stats_.duplicate_keys;
    if (not_ideal) ++stats_.not_ideal_connections;
    peer.active = &conn;
    note_reach(conn.key(), reached_before);
    arrived(conn, now);
    ++stats_.accepts;
    refresh_counts();
    mark_dirty(id);
}

void Relay::remove(ConnId id, Time now) {
    const auto it = conns_.find(id);
    if (it == conns_.end()) return;
    const auto node = conns_.extract(it);
    Conn& conn = node.mapped();
    watchers_.erase(id);
    if (conn.preferred) --stats_.home_connections;
    if (conn.not_ideal) --stats_.not_ideal_connections;
    for (const NodePublic& key : conn.heard_from) {
        const auto source = reached_.find(key);
        if (source == reached_.end()) continue;
        source->second.erase(id);
        if (source->second.empty()) reached_.erase(source);
    }

    Peer& peer = *conn.peer;
    std::erase(peer.conns, &conn);
    if (peer.conns.size() == 1) --stats_.duplicate_keys;
    if (peer.active == &conn) peer.active = peer.conns.empty() ? nullptr : peer.conns.back();
    if (peer.conns.empty()) {
        peers_.erase(conn.key());
        if (!silent_) departed(conn.key(), now);
    }
    refresh_counts();
}

bool Relay::front_reaches(const NodePublic& key) const {
    if (!is_front()) return elsewhere_.contains(key);
    return forwarders_.contains(key) || (home_of(key) != self_ && peers_.contains(key));
}

void Relay::note_reach(const NodePublic& key, bool before) {
    if (!is_front()) return;
    const size_t home = home_of(key);
    if (home == self_ || front_reaches(key) == before) return;
    say(home, {.kind = before ? Note::Kind::kUnreached : Note::Kind::kReached, .key = key});
}

void Relay::departed(const NodePublic& key, Time now) {
    const Note left{.kind = Note::Kind::kLeft, .key = key};
    if (is_front())
        tell_watchers(self_, left, now);
    else if (watched_)
        say(kFront, left);
    if (home_of(key) != self_)
        note_reach(key, true);  // a mesh peer
    else if (!front_reaches(key))
        gone_from_region(key, now);
}

void Relay::gone_from_region(const NodePublic& key, Time now) {
    tell_gone(key, now);
    if (!siblings_) return;
    for (size_t loop = 0; loop < siblings_->loops(); ++loop)
        if (loop != self_) say(loop, {.kind = Note::Kind::kGone, .key = key});
}

void Relay::tell_gone(const NodePublic& key, Time now) {
    const auto it = reached_.find(key);
    if (it == reached_.end()) return;
    const std::set<ConnId> reached = std::move(it->second);
    reached_.erase(it);
    for (const ConnId other : reached) {
        const auto o = conns_.find(other);
        if (o == conns_.end()) continue;
        o->second.heard_from.erase(key);
        o->second.session->peer_gone(key, derp::GoneReason::kDisconnected, now);
        ++stats_.gone_disconnected;
        mark_dirty(other);
    }
}

void Relay::add_forwarder(const NodePublic& key, Forwarder& by) {
    const bool reached_before = front_reaches(key);
    auto& ways = forwarders_[key];
    if (std::find(ways.begin(), ways.end(), &by) == ways.end()) ways.push_back(&by);
    note_reach(key, reached_before);
    refresh_counts();
}

void Relay::remove_forwarder(const NodePublic& key, Forwarder& by, Time now) {
    const auto it = forwarders_.find(key);
    if (it == forwarders_.end()) return;
    std::erase(it->second, &by);
    if (!it->second.empty()) return;
    forwarders_.erase(it);
    if (home_of(key) != self_)
        note_reach(key, true);
    else if (!peers_.contains(key))
        gone_from_region(key, now);
    refresh_counts();
}

void Relay::activity(ConnId id) {
    const auto it = conns_.find(id);
    if (it != conns_.end()) it->second.peer->active = &it->second;
}

void Relay::note_preferred(ConnId id, bool preferred) {
    const auto it = conns_.find(id);
    if (it == conns_.end() || it->second.preferred == preferred) return;
    it->second.preferred = preferred;
    if (preferred) {
        ++stats_.home_connections;
        ++stats_.home_moves_in;
    } else {
        --stats_.home_connections;
        ++stats_.home_moves_out;
    }
}

std::vector<ConnId> Relay::connections_of(const NodePublic& key) const {
    std::vector<ConnId> out;
    if (const auto it = peers_.find(key); it != peers_.end())
        for (const Conn* c : it->second.conns) out.push_back(c->id);
    return out;
}

// ---- who watches

Note Relay::present(const Conn& who, ConnId watcher) {
    uint8_t flags = 0;
    if (who.session->is_mesh_peer()) flags |= derp::kPresentMeshPeer;
    if (who.session->is_prober()) flags |= derp::kPresentProber;
    if (who.not_ideal) flags |= derp::kPresentNotIdeal;
    return {.kind = Note::Kind::kPresent, .flags = flags == 0 ? derp::kPresentRegular : flags, .conn = watcher, .key = who.key(), .where = who.remote};
}

void Relay::arrived(const Conn& who, Time now) {
    if (is_front()) {
        if (!watchers_.empty()) tell_watchers(self_, present(who, 0), now);
    } else if (watched_) {
        say(kFront, present(who, 0));
    }
}

void Relay::tell_watchers(size_t from, const Note& note, Time now) {
    for (const auto& [id, heard_of] : watchers_) {
        // Before its list came from that loop it would hear of some twice, and of others only that they left.
        if (note.conn == 0 ? (heard_of & bit(from)) == 0 : note.conn != id) continue;
        derp::ServerSession& session = *conns_.at(id).session;
        if (note.kind == Note::Kind::kPresent)
            session.peer_present(note.key, note.where, note.flags, now);
        else
            session.peer_gone(note.key, derp::GoneReason::kDisconnected, now);
        mark_dirty(id);
    }
}

void Relay::list_for(ConnId watcher) {
    watched_ = true;
    for (const auto& [id, conn] : conns_)
        if (conn.peer->active == &conn) say(kFront, present(conn, watcher));
    say(kFront, {.kind = Note::Kind::kListed, .conn = watcher});
}

void Relay::watch(ConnId id, Time now) {
    const auto it = conns_.find(id);
    if (it == conns_.end() || !it->second.session->is_mesh_peer() || !watchers_.emplace(id, bit(self_)).second) return;
    for (const auto& [other, conn] : conns_)
        if (conn.peer->active == &conn) tell_watchers(self_, present(conn, id), now);
    if (siblings_)
        for (size_t loop = 0; loop < siblings_->loops(); ++loop)
            if (loop != self_) say(loop, {.kind = Note::Kind::kList, .conn = id});
    refresh_counts();
    mark_dirty(id);
}

// ---- packets

Relay::Conn* Relay::active(const NodePublic& key) const {
    const auto it = peers_.find(key);
    return it == peers_.end() ? nullptr : it->second.active;
}

ConnId Relay::deliver(Conn& to, const NodePublic& source, ByteSpan packet, Time now) {
    const bool full = to.session->deliver(source, packet, now);
    ++stats_.packets_out;
    stats_.bytes_out += packet.size();
    if (to.heard_from.insert(source).second) reached_[source].insert(to.id);
    mark_dirty(to.id);
    return full ? to.id : 0;
}

ConnId Relay::packet(ConnId from, const NodePublic& to, ByteSpan packet, Time now) {
    const auto it = conns_.find(from);
    if (it == conns_.end()) return 0;
    Conn& source = it->second;
    source.peer->active = &source;
    ++stats_.packets_in;
    stats_.received.add(packet);
    stats_.bytes_in += packet.size();
    const size_t home = home_of(to);
    if (home == self_) return route(source.key(), {self_, from}, to, packet, now);
    say_packet(home, {.kind = Note::Kind::kPacket, .loop = static_cast<uint8_t>(self_), .conn = from, .source = source.key(), .key = to}, packet);
    return 0;
}

ConnId Relay::route(const NodePublic& source, Origin origin, const NodePublic& to, ByteSpan packet, Time now) {
    if (Conn* destination = active(to)) return deliver(*destination, source, packet, now);
    if (const auto way = forwarders_.find(to); way != forwarders_.end()) {
        ++stats_.forwarded_out;
        way->second.front()->forward(source, to, packet, now);
        return 0;
    }
    if (!is_front() && front_reaches(to)) {
        say_packet(kFront, {.kind = Note::Kind::kPacket, .loop = static_cast<uint8_t>(origin.loop), .conn = origin.conn, .source = source, .key = to},
                   packet);
        return 0;
    }
    stats_.dropped_unknown.add(packet);
    if (derp::looks_like_disco(packet)) not_here(origin, to, now);
    return 0;
}

ConnId Relay::forwarded(const NodePublic& source, const NodePublic& to, ByteSpan packet, Time now) {
    ++stats_.forwarded_in;
    const size_t home = home_of(to);
    if (home == self_) return route_forwarded(source, to, packet, now);
    say_packet(home, {.kind = Note::Kind::kForward, .source = source, .key = to}, packet);
    return 0;
}

ConnId Relay::route_forwarded(const NodePublic& source, const NodePublic& to, ByteSpan packet, Time now) {
    if (Conn* destination = active(to)) return deliver(*destination, source, packet, now);
    if (!is_front() && front_reaches(to))  // a mesh peer, perhaps
        say_packet(kFront, {.kind = Note::Kind::kForward, .source = source, .key = to}, packet);
    else
        stats_.dropped_unknown_forward.add(packet);
    return 0;
}

void Relay::not_here(Origin origin, const NodePublic& to, Time now) {
    if (origin.loop != self_) {
        say(origin.loop, {.kind = Note::Kind::kNotHere, .conn = origin.conn, .key = to});
        return;
    }
    if (const auto it = conns_.find(origin.conn); it != conns_.end()) answer_not_here(it->second, to, now);
}

void Relay::answer_not_here(Conn& from, const NodePublic& to, Time now) {
    from.gone_tokens = std::min(kGoneBurst, from.gone_tokens + (now - from.gone_tokens_at).seconds() * kGonePerSecond);
    from.gone_tokens_at = now;
    if (from.gone_tokens < 1) return;
    from.gone_tokens -= 1;
    from.session->peer_gone(to, derp::GoneReason::kNotHere, now);
    ++stats_.gone_not_here;
    mark_dirty(from.id);
}

ConnId Relay::hear(size_t from, const Note& note, ByteSpan packet, Time now) {
    using Kind = Note::Kind;
    switch (note.kind) {
        case Kind::kPacket: return route(note.source, {note.loop, note.conn}, note.key, packet, now);
        case Kind::kForward: return route_forwarded(note.source, note.key, packet, now);
        case Kind::kNotHere: not_here({self_, note.conn}, note.key, now); break;
        case Kind::kGone: tell_gone(note.key, now); break;
        case Kind::kReached: elsewhere_.insert(note.key); break;
        case Kind::kUnreached:
            elsewhere_.erase(note.key);
            if (!peers_.contains(note.key)) gone_from_region(note.key, now);
            break;
        case Kind::kList: list_for(note.conn); break;
        case Kind::kPresent:
        case Kind::kLeft: tell_watchers(from, note, now); break;
        case Kind::kListed:
            if (const auto w = watchers_.find(note.conn); w != watchers_.end()) w->second |= bit(from);
            break;
    }
    return 0;
}

// ---- what is to be written

void Relay::mark_dirty(ConnId id) {
    if (dirty_.empty() || dirty_.back() != id) dirty_.push_back(id);
}

std::vector<ConnId> Relay::take_dirty() {
    std::sort(dirty_.begin(), dirty_.end());
    dirty_.erase(std::unique(dirty_.begin(), dirty_.end()), dirty_.end());
    return std::exchange(dirty_, {});
}

}  // namespace mesh::derper
