// SPDX-License-Identifier: BSD-3-Clause
#include "derper/relay.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace mesh::derper {
namespace {
constexpr double kGonePerSecond = 1;
constexpr double kGoneBurst = 3;
}  // namespace

void Relay::refresh_counts() {
    stats_.clients = peers_.size();
    stats_.connections = conns_.size();
    stats_.watchers = watchers_.size();
    stats_.remote_clients = forwarders_.size();
}

void Relay::tell_present(Conn& watcher, const Conn& who, Time now) {
    uint8_t flags = 0;
    if (who.session->is_mesh_peer()) flags |= derp::kPresentMeshPeer;
    if (who.session->is_prober()) flags |= derp::kPresentProber;
    if (who.not_ideal) flags |= derp::kPresentNotIdeal;
    watcher.session->peer_present(who.key, who.remote, flags == 0 ? derp::kPresentRegular : flags, now);
}

void Relay::add(ConnId id, derp::ServerSession& session, const Endpoint& remote, Time now, bool not_ideal) {
    auto conn = std::make_unique<Conn>();
    conn->id = id;
    conn->session = &session;
    conn->remote = remote;
    conn->key = session.key();
    conn->not_ideal = not_ideal;
    conn->gone_tokens_at = now;
    Peer& peer = peers_[conn->key];
    conn->peer = &peer;
    peer.conns.push_back(conn.get());
    if (peer.conns.size() > 1) ++stats_.duplicates;
    if (peer.conns.size() == 2) ++stats_.duplicate_keys;
    if (not_ideal) ++stats_.not_ideal_connections;
    peer.active = conn.get();
    for (const ConnId w : watchers_) {
        tell_present(*conns_.at(w), *conn, now);
        mark_dirty(w);
    }
    const bool fresh = conns_.emplace(id, std::move(conn)).second;
    CHECK(fresh);
    ++stats_.accepts;
    refresh_counts();
    mark_dirty(id);
}

void Relay::remove(ConnId id, Time now) {
    const auto it = conns_.find(id);
    if (it == conns_.end()) return;
    const std::unique_ptr<Conn> conn = std::move(it->second);
    conns_.erase(it);
    watchers_.erase(id);
    if (conn->preferred) --stats_.home_connections;
    if (conn->not_ideal) --stats_.not_ideal_connections;
    for (const NodePublic& key : conn->heard_from) {
        const auto source = reached_.find(key);
        if (source == reached_.end()) continue;
        source->second.erase(id);
        if (source->second.empty()) reached_.erase(source);
    }

    Peer& peer = *conn->peer;
    std::erase(peer.conns, conn.get());
    if (peer.conns.size() == 1) --stats_.duplicate_keys;
    if (peer.active == conn.get()) peer.active = peer.conns.empty() ? nullptr : peer.conns.back();
    if (peer.conns.empty()) {
        peers_.erase(conn->key);
        if (!silent_) tell_gone(conn->key, now);
    }
    refresh_counts();
}

void Relay::tell_gone(const NodePublic& key, Time now) {
    for (const ConnId w : watchers_) {
        conns_.at(w)->session->peer_gone(key, derp::GoneReason::kDisconnected, now);
        mark_dirty(w);
    }
    if (!forwarders_.contains(key)) gone_from_region(key, now);
}

void Relay::gone_from_region(const NodePublic& key, Time now) {
    const auto it = reached_.find(key);
    if (it == reached_.end()) return;
    const std::set<ConnId> reached = std::move(it->second);
    reached_.erase(it);
    for (const ConnId other : reached) {
        const auto o = conns_.find(other);
        if (o == conns_.end()) continue;
        o->second->heard_from.erase(key);
        o->second->session->peer_gone(key, derp::GoneReason::kDisconnected, now);
        ++stats_.gone_disconnected;
        mark_dirty(other);
    }
}

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
    Conn& source = *it->second;
    source.peer->active = &source;
    ++stats_.packets_in;
    stats_.received.add(packet);
    stats_.bytes_in += packet.size();
    if (Conn* destination = active(to)) return deliver(*destination, source.key, packet, now);
    if (const auto way = forwarders_.find(to); way != forwarders_.end()) {
        ++stats_.forwarded_out;
        way->second.front()->forward(source.key, to, packet, now);
        return 0;
    }
    stats_.dropped_unknown.add(packet);
    if (derp::looks_like_disco(packet)) answer_not_here(source, to, now);
    return 0;
}

ConnId Relay::forwarded(const NodePublic& source, const NodePublic& to, ByteSpan packet, Time now) {
    ++stats_.forwarded_in;
    if (Conn* destination = active(to)) return deliver(*destination, source, packet, now);
    stats_.dropped_unknown_forward.add(packet);
    return 0;
}

void Relay::watch(ConnId id, Time now) {
    const auto it = conns_.find(id);
    if (it == conns_.end() || !it->second->session->is_mesh_peer() || !watchers_.insert(id).second) return;
    for (const auto& [other, conn] : conns_)
        if (conn->peer->active == conn.get()) tell_present(*it->second, *conn, now);
    refresh_counts();
    mark_dirty(id);
}

std::vector<ConnId> Relay::connections_of(const NodePublic& key) const {
    std::vector<ConnId> out;
    if (const auto it = peers_.find(key); it != peers_.end())
        for (const Conn* c : it->second.conns) out.push_back(c->id);
    return out;
}

void Relay::add_forwarder(const NodePublic& key, Forwarder& by) {
    auto& ways = forwarders_[key];
    if (std::find(ways.begin(), ways.end(), &by) == ways.end()) ways.push_back(&by);
    refresh_counts();
}

void Relay::remove_forwarder(const NodePublic& key, Forwarder& by, Time now) {
    const auto it = forwarders_.find(key);
    if (it == forwarders_.end()) return;
    std::erase(it->second, &by);
    if (!it->second.empty()) return;
    forwarders_.erase(it);
    if (!peers_.contains(key)) gone_from_region(key, now);
    refresh_counts();
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

void Relay::activity(ConnId id) {
    const auto it = conns_.find(id);
    if (it != conns_.end()) it->second->peer->active = it->second.get();
}

void Relay::note_preferred(ConnId id, bool preferred) {
    const auto it = conns_.find(id);
    if (it == conns_.end() || it->second->preferred == preferred) return;
    it->second->preferred = preferred;
    if (preferred) {
        ++stats_.home_connections;
        ++stats_.home_moves_in;
    } else {
        --stats_.home_connections;
        ++stats_.home_moves_out;
    }
}

void Relay::mark_dirty(ConnId id) {
    if (dirty_.empty() || dirty_.back() != id) dirty_.push_back(id);
}

std::vector<ConnId> Relay::take_dirty() {
    std::sort(dirty_.begin(), dirty_.end());
    dirty_.erase(std::unique(dirty_.begin(), dirty_.end()), dirty_.end());
    return std::exchange(dirty_, {});
}

}  // namespace mesh::derper
