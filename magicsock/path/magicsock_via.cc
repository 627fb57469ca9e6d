// SPDX-License-Identifier: BSD-3-Clause
// Paths through UDP relays: what ViaPaths asks for is done here, and what servers and peers say about them is taken in.
#include <algorithm>

#include "magicsock/path/magicsock.h"
#include "magicsock/path/magicsock_peer.h"

namespace mesh::magicsock {

using relay::Geneve;

namespace {

// Servers with whom handshakes are under way have their keys here; computing one anew costs some 50 µs.
constexpr size_t kMaxRelayKeys = 64;

}  // namespace

void Magicsock::set_relay_client(bool allowed, bool own_server) {
    relay_client_ = allowed;
    own_relay_ = own_server;
    if (allowed) return;
    for (const PeerId id : std::vector<PeerId>(active_.begin(), active_.end())) drop_via(*find(id));
}

ViaPaths* Magicsock::via_of(Peer& p, Time now) {
    if (!relay_client_ || !speaks_disco(p)) return nullptr;
    static_cast<void>(paths_of(p, now));
    if (p.via) return p.via.get();
    p.via = std::make_unique<ViaPaths>(random_, disco_public_, p.config.disco, now);
    if (full_datagram_ > 0) p.via->set_full_datagram(full_datagram_ + relay::kGeneveLen);
    return p.via.get();
}

void Magicsock::drop_via(Peer& p) {
    if (!p.via) return;
    p.via.reset();
    set_legs(p);
    rearm(p);
}

void Magicsock::note_relay_server(PeerId peer, bool usable, bool announced) {
    const auto keep = [peer](std::set<PeerId>& set, bool in) {
        if (in)
            set.insert(peer);
        else
            set.erase(peer);
    };
    keep(relay_servers_, usable);
    keep(relay_announced_, usable && announced);
}

void Magicsock::look_for_relays(Peer& p, Time now) {
    if (!relay_client_ || (relay_servers_.empty() && !own_relay_) || p.paths->trusted(now)) return;
    if (p.via && !p.via->discovery_due(now)) return;
    std::vector<NodePublic> servers;
    if (own_relay_) servers.push_back(node_key_);
    // A grant may well name everybody; then those that call themselves relays are asked. Where control does not pass that on, all, by turns.
    const std::set<PeerId>& known = relay_announced_.empty() ? relay_servers_ : relay_announced_;
    auto it = known.lower_bound(relay_next_);
    for (size_t n = known.size(); n > 0 && servers.size() < kMaxRelayServers; --n, ++it) {
        if (it == known.end()) it = known.begin();
        if (*it != p.id && speaks_disco(*find(*it))) servers.push_back(find(*it)->config.key);
    }
    relay_next_ = it == known.end() ? 0 : *it;
    ViaPaths* via = servers.empty() ? nullptr : via_of(p, now);
    if (via == nullptr) return;
    ViaTodo todo;
    via->discover(servers, now, todo);
    carry_out_via(p, todo, now);
}

// ---- doing

void Magicsock::carry_out_via(Peer& p, ViaTodo& todo, Time now) {
    if (todo.legs_changed) set_legs(p);
    for (const ViaTodo::Request& r : todo.requests) {
        ++counters_.relay_requests_out;
        if (r.server == node_key_) {
            out_.relay_requested(kNoPeer, r.message);
        } else if (Peer* server = find_by_node(r.server); server != nullptr && derp_region_of(*server) != 0) {
            send_disco(*server, r.message, Source{.udp = {}, .derp_region = derp_region_of(*server), .derp_key = {}});
        }
    }
    for (const disco::RelayEndpoint& relay : todo.offers) {
        const int region = derp_region_of(p);
        if (region != 0 && send_disco(p, disco::CallMeMaybeVia{relay}, Source{.udp = {}, .derp_region = region, .derp_key = {}}))
            ++counters_.relay_offers_out;
    }
    for (const ViaTodo::Bind& b : todo.binds) {
        const disco::SharedKey* key = relay_key(b.server);
        if (key == nullptr) continue;
        const Bytes box = key->seal(disco_public_, disco::encode(b.out.message), random_);
        out_.send_udp(b.out.to, Geneve{Geneve::kDisco, true, b.out.message.vni}.around(box));
        ++counters_.relay_binds_out;
    }
    for (const Todo::Probe& probe : todo.paths.probes) {
        const uint32_t vni = p.via ? p.via->vni_of(probe.to) : 0;
        if (vni == 0) continue;
        disco::Ping ping{.tx = probe.tx, .node = node_key_, .padding = 0};
        const size_t smallest = disco::kOverhead + disco::kPingPayloadLen + relay::kGeneveLen + 8 + (probe.to.addr.is_v6() ? 40 : 20);
        if (probe.size > smallest) ping.padding = probe.size - smallest;
        if (send_disco(p, ping, Source{.udp = probe.to, .derp_region = 0, .derp_key = {}, .vni = vni})) ++counters_.pings_out;
    }
    if (todo.paths.path_changed) {
        const Path path = path_now(p, now);
        if (!path.empty()) p.path_wanted = false;
        out_.path_changed(p.id, path, now);
    }
    rearm(p);
}

void Magicsock::set_legs(Peer& p) {
    for (const ViaPaths::Leg& leg : p.legs) {
        const auto it = by_leg_.find({leg.addr, leg.vni});
        if (it != by_leg_.end() && it->second == p.id) by_leg_.erase(it);
    }
    p.legs = p.via ? p.via->legs() : std::vector<ViaPaths::Leg>{};
    for (const ViaPaths::Leg& leg : p.legs) by_leg_[{leg.addr, leg.vni}] = p.id;
}

const disco::SharedKey* Magicsock::relay_key(const DiscoPublic& server) {
    if (const auto it = relay_keys_.find(server); it != relay_keys_.end()) return &it->second;
    auto key = disco::SharedKey::derive(disco_private_, server);
    if (!key) return nullptr;
    if (relay_keys_.size() >= kMaxRelayKeys) relay_keys_.erase(relay_keys_.begin());
    return &relay_keys_.emplace(server, std::move(*key)).first->second;
}

// ---- hearing

Magicsock::Kind Magicsock::receive_geneve(ByteSpan datagram, const Endpoint& from, Time now) {
    const auto header = Geneve::parse(datagram);
    const ByteSpan inner = datagram.subspan(relay::kGeneveLen);
    ++counters_.geneve;
    if (header->protocol == Geneve::kWireGuard && !header->control) return Kind::kRelayed;
    const Source source{.udp = from, .derp_region = 0, .derp_key = {}, .vni = header->vni};
    if (header->protocol != Geneve::kDisco || !disco::looks_like_disco(inner) || node_key_.is_zero())
        ++counters_.geneve_bad;
    else if (header->control)
        receive_relay_control(inner, source, now);
    else
        receive_disco_udp(inner, source, now);
    return Kind::kConsumed;
}

// Only challenges of servers come this way. The other client's key inside says whose handshake it belongs to.
void Magicsock::receive_relay_control(ByteSpan sealed, const Source& source, Time now) {
    const DiscoPublic server = disco::sender_of(sealed);
    const auto key = relay_keys_.find(server);
    if (key == relay_keys_.end() || !usable(source.udp)) {
        ++counters_.disco_unknown_sender;
        return;
    }
    const auto payload = key->second.open(sealed);
    const auto m = payload ? disco::parse(*payload) : std::nullopt;
    const auto* challenge = m ? std::get_if<disco::RelayBind>(&*m) : nullptr;
    const auto peers = challenge != nullptr ? by_disco_.find(challenge->remote) : by_disco_.end();
    if (peers == by_disco_.end()) {
        ++counters_.disco_bad;
        return;
    }
    for (const PeerId id : std::vector<PeerId>(peers->second)) {
        Peer& p = *find(id);
        if (!p.via) continue;
        ViaTodo todo;
        p.via->heard_challenge(server, *challenge, {source.udp, source.vni}, now, todo);
        carry_out_via(p, todo, now);
    }
}

disco::RelayEndpoint Magicsock::usable_part(const disco::RelayEndpoint& relay) const {
    disco::RelayEndpoint out = relay;
    std::erase_if(out.addrs, [&](const Endpoint& e) { return !usable(e); });
    return out;
}

// What comes by DERP from a known peer under its own disco key.
void Magicsock::handle_relay_message(Peer& p, const disco::Message& m, Time now) {
    if (const auto* offer = std::get_if<disco::CallMeMaybeVia>(&m)) {
        if (ViaPaths* via = via_of(p, now)) {
            ViaTodo todo;
            via->heard_offer(usable_part(offer->relay), now, todo);
            carry_out_via(p, todo, now);
        }
    } else if (const auto* request = std::get_if<disco::AllocateRequest>(&m)) {
        const bool for_itself = request->clients[0] == p.config.disco || request->clients[1] == p.config.disco;
        if (p.config.may_relay && for_itself)
            out_.relay_requested(p.id, *request);
        else
            ++counters_.disco_ignored;
    } else if (const auto* response = std::get_if<disco::AllocateResponse>(&m)) {
        take_allocation(p.config.key, *response, now);
    } else {
        ++counters_.disco_ignored;
    }
}

void Magicsock::relay_allocated(PeerId by, const disco::AllocateResponse& response, Time now) {
    if (by != kNoPeer) {
        if (Peer* p = find(by); p != nullptr && derp_region_of(*p) != 0)
            send_disco(*p, response, Source{.udp = {}, .derp_region = derp_region_of(*p), .derp_key = {}});
        return;
    }
    take_allocation(node_key_, response, now);
}

// Which peer it is for, its generation tells.
void Magicsock::take_allocation(const NodePublic& server, const disco::AllocateResponse& response, Time now) {
    const disco::AllocateResponse usable{response.generation, usable_part(response.relay)};
    for (const PeerId id : std::vector<PeerId>(active_.begin(), active_.end())) {
        Peer& other = *find(id);
        if (!other.via) continue;
        ViaTodo todo;
        other.via->heard_response(server, usable, now, todo);
        carry_out_via(other, todo, now);
    }
}

void Magicsock::handle_via_ping(Peer& p, const disco::Ping& m, const Source& source, Time now) {
    const disco::Pong pong{.tx = m.tx, .source = source.udp};
    ViaTodo todo;
    if (usable(source.udp) && (!p.via || p.via->heard_ping({source.udp, source.vni}, m.tx, m.padding, now, todo)))
        if (send_disco(p, pong, source)) ++counters_.pongs_out;
    if (p.via) carry_out_via(p, todo, now);
}

}  // namespace mesh::magicsock
