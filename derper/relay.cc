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

void Relay::add(ConnId id, derp::ServerSession& session, const Endpoint& remote, Time now) {
    auto conn = std::make_unique<Conn>();
    conn->id = id;
    conn->session = &session;
    conn->remote = remote;
    conn->key = session.key();
    conn->gone_tokens_at = now;
    Peer& peer = peers_[conn->key];
    peer.conns.push_back(conn.get());
    peer.active = conn.get();
    const bool fresh = conns_.emplace(id, std::move(conn)).second;
    CHECK(fresh);
    ++stats_.accepts;
    stats_.clients = peers_.size();
    stats_.connections = conns_.size();
    mark_dirty(id);
}

void Relay::remove(ConnId id, Time now) {
    const auto it = conns_.find(id);
    if (it == conns_.end()) return;
    const std::unique_ptr<Conn> conn = std::move(it->second);
    conns_.erase(it);
    for (const NodePublic& key : conn->heard_from)
        if (const auto source = peers_.find(key); source != peers_.end()) source->second.reached.erase(id);

    Peer& peer = peers_.at(conn->key);
    std::erase(peer.conns, conn.get());
    if (peer.active == conn.get()) peer.active = peer.conns.empty() ? nullptr : peer.conns.back();
    if (peer.conns.empty()) {
        const std::set<ConnId> reached = std::move(peer.reached);
        peers_.erase(conn->key);
        for (const ConnId other : reached) {
            const auto o = conns_.find(other);
            if (o == conns_.end()) continue;
            o->second->heard_from.erase(conn->key);
            o->second->session->peer_gone(conn->key, derp::GoneReason::kDisconnected, now);
            ++stats_.gone_disconnected;
            mark_dirty(other);
        }
    }
    stats_.clients = peers_.size();
    stats_.connections = conns_.size();
}

Relay::Conn* Relay::find(const NodePublic& key) const {
    const auto it = peers_.find(key);
    return it == peers_.end() ? nullptr : it->second.active;
}

void Relay::packet(ConnId from, const NodePublic& to, ByteSpan packet, Time now) {
    const auto it = conns_.find(from);
    if (it == conns_.end()) return;
    Conn& source = *it->second;
    ++stats_.packets_in;
    stats_.bytes_in += packet.size();
    Conn* destination = find(to);
    if (!destination) {
        ++stats_.dropped_unknown;
        if (derp::looks_like_disco(packet)) answer_not_here(source, to, now);
        return;
    }
    destination->session->deliver(source.key, packet, now);
    ++stats_.packets_out;
    stats_.bytes_out += packet.size();
    if (destination->heard_from.insert(source.key).second) peers_.at(source.key).reached.insert(destination->id);
    mark_dirty(destination->id);
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
    if (it != conns_.end()) peers_.at(it->second->key).active = it->second.get();
}

void Relay::note_preferred(ConnId id, bool preferred) {
    const auto it = conns_.find(id);
    if (it != conns_.end()) it->second->preferred = preferred;
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
