// SPDX-License-Identifier: BSD-3-Clause
// The table of peers and the straight line. Disco messages: magicsock_disco.cc; ourselves: magicsock_self.cc.
#include "magicsock/path/magicsock.h"

#include <algorithm>
#include <cerrno>

#include "magicsock/path/magicsock_peer.h"

namespace mesh::magicsock {
namespace {

constexpr size_t kMaxSourcesPerPeer = 16;
constexpr PeerId kMaxPeerId = 1 << 20;
// At most so often is the network measured because paths die.
constexpr Duration kNetcheckAfterSilence = seconds(5);
constexpr Duration kWholeNetcheckEvery = seconds(20);  // while UDP does not work
// Foreign WireGuard peers: how long an address is kept after something came from it, and after a mere guess.
constexpr Duration kFixedAfterReceive = seconds(5);
constexpr Duration kFixedAfterChoice = seconds(1);

}  // namespace

Magicsock::Magicsock(Random& random, Output& output, Config config)
    : random_(random), out_(output), config_(config), netcheck_(random) {}
Magicsock::~Magicsock() = default;

// ---- keys

void Magicsock::set_node_key(const NodePublic& key) { node_key_ = key; }

void Magicsock::set_disco_key(const DiscoPrivate& key) {
    if (key == disco_private_) return;
    disco_private_ = key;
    disco_public_ = key.is_zero() ? DiscoPublic{} : key.public_key();
    for (const auto& p : peers_) {
        if (!p) continue;
        p->shared.reset();
        p->alive_told = false;
        drop_via(*p);
    }
    relay_keys_.clear();
}

const disco::SharedKey* Magicsock::shared_key(Peer& p) {
    if (!p.shared && !p.config.disco.is_zero() && !disco_private_.is_zero())
        p.shared = disco::SharedKey::derive(disco_private_, p.config.disco);
    return p.shared ? &*p.shared : nullptr;
}

// ---- peers

Magicsock::Peer* Magicsock::find(PeerId peer) { return peer < peers_.size() ? peers_[peer].get() : nullptr; }
const Magicsock::Peer* Magicsock::find(PeerId peer) const {
    return peer < peers_.size() ? peers_[peer].get() : nullptr;
}
Magicsock::Peer* Magicsock::find_by_node(const NodePublic& key) {
    const auto it = by_node_.find(key);
    return it == by_node_.end() ? nullptr : find(it->second);
}

bool Magicsock::speaks_disco(const Peer& p) const {
    return !p.config.wireguard_only && !p.config.disco.is_zero() && !disco_private_.is_zero() && !node_key_.is_zero();
}

bool Magicsock::usable(const Endpoint& e) const {
    const Addr& a = e.addr;
    if (!e.is_valid() || e.port == 0 || a.is_unspecified() || a.is_multicast() || a.is_link_local()) return false;
    if (a.is_loopback()) return config_.allow_loopback;
    if (a.is_v4() && a.v4_host_order() >= 0xf0000000U) return false;  // class E and broadcast
    if (is_tailscale_range(a)) return false;
    return std::none_of(tunnel_prefixes_.begin(), tunnel_prefixes_.end(), [&](const Prefix& p) { return p.contains(a); });
}

void Magicsock::upsert_peer(PeerId peer, const PeerConfig& config, Time now) {
    if (peer >= kMaxPeerId) return;
    if (peer >= peers_.size()) peers_.resize(peer + 1);
    if (peers_[peer] && peers_[peer]->config.key != config.key) remove_peer(peer);
    const bool is_new = !peers_[peer];
    if (is_new) {
        peers_[peer] = std::make_unique<Peer>();
        peers_[peer]->id = peer;
    }
    Peer& p = *peers_[peer];
    if (!is_new && p.config == config) return;
    const bool had_path = !is_new && !path_now(p, now).empty();
    const bool had_relay = derp_region_of(p) != 0;
    const bool endpoints_moved = p.config.endpoints != config.endpoints;
    const DiscoPublic disco_before = p.config.disco;
    p.config = config;
    p.config.disco = disco_before;  // set_disco keeps the index
    p.config.endpoints.shrink_to_fit();
    by_node_[config.key] = peer;
    note_relay_server(peer, config.relay_server, config.relay_announced);
    if (endpoints_moved && p.paths) set_candidates(p, now);
    if (endpoints_moved) {  // plain WireGuard: it moved; if not, it answers from where it is
        p.fixed_until = {};
        p.fixed_next = 0;
    }
    set_disco(p, config.disco, now);
    if (p.paths && !had_relay && derp_region_of(p) != 0) {
        Todo todo;
        p.paths->relay_appeared(now, todo);
        carry_out(p, todo, now);
    }
    const Path path = path_now(p, now);
    if (!is_new && !had_path && !path.empty()) {
        p.path_wanted = false;
        out_.path_changed(peer, path, now);
    }
}

void Magicsock::remove_peer(PeerId peer) {
    Peer* p = find(peer);
    if (p == nullptr) return;
    drop_pings_of(peer);
    set_disco(*p, {}, {});
    unlearn_sources(*p);
    drop_paths(*p);
    note_relay_server(peer, false, false);
    const auto it = by_node_.find(p->config.key);
    if (it != by_node_.end() && it->second == peer) by_node_.erase(it);
    peers_[peer].reset();
}

void Magicsock::set_peer_disco(PeerId peer, const DiscoPublic& disco, Time now) {
    Peer* p = find(peer);
    if (p != nullptr && !disco.is_zero()) set_disco(*p, disco, now);
}

void Magicsock::set_disco(Peer& p, const DiscoPublic& disco, Time now) {
    if (p.config.disco == disco) return;
    const bool changed = !p.config.disco.is_zero();
    if (changed) {
        const auto it = by_disco_.find(p.config.disco);
        if (it != by_disco_.end()) {
            std::erase(it->second, p.id);
            if (it->second.empty()) by_disco_.erase(it);
        }
    }
    p.config.disco = disco;
    p.shared.reset();
    p.alive_told = false;
    p.last_derp_tx = {};
    drop_via(p);  // its legs are bound to the old key
    if (disco.is_zero()) return;
    std::vector<PeerId>& ids = by_disco_[disco];
    ids.insert(std::lower_bound(ids.begin(), ids.end(), p.id), p.id);
    if (changed && p.paths) {
        Todo todo;
        p.paths->peer_restarted(now, todo);
        carry_out(p, todo, now);
    }
}

// ---- path state

PeerPaths& Magicsock::paths_of(Peer& p, Time now) {
    if (!p.paths) {
        p.paths = std::make_unique<PeerPaths>(random_, now);
        p.paths->set_full_datagram(full_datagram_);
        active_.insert(p.id);
        set_candidates(p, now);
        rearm(p);
    }
    return *p.paths;
}

void Magicsock::drop_paths(Peer& p) {
    if (!p.paths) return;
    drop_via(p);
    p.paths.reset();
    active_.erase(p.id);
    arm(p, Time::never());
}

void Magicsock::set_candidates(Peer& p, Time now) {
    std::vector<Endpoint> list;
    for (const Endpoint& e : p.config.endpoints)
        if (usable(e)) list.push_back(e);
    Todo todo;
    p.paths->set_netmap(list, now, todo);
    if (!todo.empty()) carry_out(p, todo, now);
}

void Magicsock::arm(Peer& p, Time at) {
    if (p.deadline == at) return;
    if (!p.deadline.is_never()) deadlines_.erase({p.deadline, p.id});
    p.deadline = at;
    if (!at.is_never()) deadlines_.insert({at, p.id});
}

void Magicsock::rearm(Peer& p) {
    if (!p.paths) return;
    const Time via = p.via ? p.via->next_timeout() : Time::never();
    arm(p, min(min(p.paths->next_timeout(), via), p.paths->last_activity() + kForgetPaths));
}

void Magicsock::learn_source(Peer& p, const Endpoint& from) {
    const auto [it, fresh] = by_endpoint_.try_emplace(from, p.id);
    if (!fresh && it->second == p.id) return;
    it->second = p.id;
    if (std::find(p.sources.begin(), p.sources.end(), from) != p.sources.end()) return;
    if (p.sources.size() >= kMaxSourcesPerPeer) {
        const auto old = by_endpoint_.find(p.sources.front());
        if (old != by_endpoint_.end() && old->second == p.id) by_endpoint_.erase(old);
        p.sources.erase(p.sources.begin());
    }
    p.sources.push_back(from);
}

void Magicsock::unlearn_sources(Peer& p) {
    for (const Endpoint& e : p.sources) {
        const auto it = by_endpoint_.find(e);
        if (it != by_endpoint_.end() && it->second == p.id) by_endpoint_.erase(it);
    }
    p.sources.clear();
}

// ---- straight line

// An open connection to the home region, else an open one by which the peer reached us, else whatever is known.
int Magicsock::derp_region_of(const Peer& p) const {
    if (p.config.wireguard_only) return 0;
    const int home = p.config.home_derp;
    if (p.derp_route == 0 || (home != 0 && connected_.contains(home))) return home;
    if (connected_.contains(p.derp_route)) return p.derp_route;
    return home != 0 ? home : p.derp_route;
}

Path Magicsock::path_now(const Peer& p, Time now) const {
    if (p.config.wireguard_only) return {.udp = p.fixed, .derp_region = 0, .udp_trusted = now < p.fixed_until};
    if (!p.paths) return {.udp = {}, .derp_region = derp_region_of(p), .udp_trusted = false};
    if (p.paths->trusted(now))
        return {.udp = p.paths->best(), .derp_region = p.paths->in_doubt(now) ? derp_region_of(p) : 0, .udp_trusted = true};
    const int region = derp_region_of(p);
    Path both{.udp = p.paths->best(), .derp_region = region, .udp_trusted = false};
    bool too_small = p.paths->too_small(both.udp);
    if (p.via) {
        const ViaPaths::Leg leg = p.via->best();
        if (p.via->trusted(now))
            return {.udp = leg.addr, .derp_region = p.via->in_doubt(now) ? region : 0, .udp_trusted = true, .vni = leg.vni};
        if (!both.udp.is_valid() && leg.vni != 0) {
            both.udp = leg.addr;
            both.vni = leg.vni;
            too_small = p.via->too_small(leg.addr);
        }
    }
    if (too_small && connected_.contains(region)) return {.udp = {}, .derp_region = region};
    return both;
}

// No disco there to prove anything: stay where something came from, else try the addresses in turn.
Path Magicsock::wireguard_only_path(Peer& p, Time now) {
    if (now >= p.fixed_until) {
        const std::vector<Endpoint>& list = p.config.endpoints;
        for (size_t i = 0; i < list.size(); ++i) {
            const Endpoint& e = list[p.fixed_next++ % list.size()];
            if (!usable(e)) continue;
            p.fixed = e;
            p.fixed_until = now + kFixedAfterChoice;
            break;
        }
    }
    p.fixed_sent = now;
    return path_now(p, now);
}

Path Magicsock::path_for_send(PeerId peer, Time now) {
    Peer* p = find(peer);
    if (p == nullptr) return {};
    if (p->config.wireguard_only) return wireguard_only_path(*p, now);
    if (speaks_disco(*p)) {
        last_any_send_ = now;
        if (restun_at_.is_never() && !netcheck_.running()) resume_restun(now);
        if (paths_of(*p, now).note_sent(now, todo_)) rearm(*p);
        if (!todo_.empty()) carry_out(*p, todo_, now);
        if (!p->paths->trusted(now)) send_without_direct(*p, now);
    }
    const Path path = path_now(*p, now);
    if (path.empty()) p->path_wanted = true;
    return path;
}

void Magicsock::send_without_direct(Peer& p, Time now) {
    look_for_relays(p, now);
    if (!p.via) return;
    ViaTodo todo;
    const bool moved = p.via->note_sent(now, todo);
    if (!todo.paths.empty())
        carry_out_via(p, todo, now);
    else if (moved)
        rearm(p);
}

Path Magicsock::peek_path(PeerId peer, Time now) const {
    const Peer* p = find(peer);
    return p == nullptr ? Path{} : path_now(*p, now);
}

PeerId Magicsock::peer_of(const Source& source) const {
    if (source.by_derp()) return peer_of(source.derp_key);
    if (source.vni != 0) {
        const auto leg = by_leg_.find({source.udp, source.vni});
        return leg == by_leg_.end() ? kNoPeer : leg->second;
    }
    const auto it = by_endpoint_.find(source.udp);
    return it == by_endpoint_.end() ? kNoPeer : it->second;
}

PeerId Magicsock::peer_of(const NodePublic& key) const {
    const auto it = by_node_.find(key);
    return it == by_node_.end() ? kNoPeer : it->second;
}

// ---- facts from elsewhere

void Magicsock::wg_authenticated(PeerId peer, const Source& source, Time now) {
    Peer* p = find(peer);
    if (p == nullptr) return;
    wg_received(peer, source, now);
    if (source.by_derp() || source.vni != 0 || !usable(source.udp)) return;
    learn_source(*p, source.udp);
    if (!speaks_disco(*p)) return;
    Todo todo;
    paths_of(*p, now).learn(source.udp, now, todo);
    carry_out(*p, todo, now);
}

void Magicsock::wg_received(PeerId peer, const Source& source, Time now) {
    Peer* p = find(peer);
    if (p == nullptr) return;
    if (p->config.wireguard_only) {
        if (source.by_derp() || !usable(source.udp)) return;
        p->fixed = source.udp;
        p->fixed_until = now + kFixedAfterReceive;
        return;
    }
    if (!p->paths) return;
    const Endpoint from = source.by_derp() ? Endpoint{} : source.udp;
    bool moved = p->paths->note_received(from, now);
    if (p->via && (source.vni != 0 || source.by_derp())) moved = p->via->note_received(from, now) || moved;
    if (moved) rearm(*p);
}

// A first packet may be what gives a path to a peer whose home is not known.
void Magicsock::learn_route(Peer& p, int region, Time now) {
    if (region == p.config.home_derp || region == p.derp_route || p.config.wireguard_only) return;
    const bool had_path = !path_now(p, now).empty();
    p.derp_route = region;
    if (had_path) return;
    p.path_wanted = false;
    if (p.paths) {
        Todo todo;
        p.paths->relay_appeared(now, todo);
        carry_out(p, todo, now);
    }
    out_.path_changed(p.id, path_now(p, now), now);
}

void Magicsock::derp_state(int region, bool connected, Time now) {
    if (connected) {
        connected_.insert(region);
        derp_heard(region, now);
        for (const PeerId id : std::vector<PeerId>(active_.begin(), active_.end())) {
            Peer& p = *find(id);
            if (!p.call_me_maybe_due || derp_region_of(p) != region) continue;
            if (!p.paths->active(now) || p.paths->trusted(now)) continue;
            send_call_me_maybe(p, now);
            rearm(p);
        }
        return;
    }
    connected_.erase(region);
    for (const auto& p : peers_)
        if (p && p->derp_route == region) p->derp_route = 0;
}

void Magicsock::derp_peer_gone(int region, const NodePublic& peer, int /*reason*/, Time now) {
    Peer* p = find_by_node(peer);
    if (p == nullptr) return;
    if (p->derp_route == region) p->derp_route = 0;
    if (region == p->config.home_derp) p->relay_gone = now;
}

void Magicsock::derp_heard(int region, Time now) { netcheck_.heard_derp(region, now); }

void Magicsock::udp_send_failed(const Endpoint& to, int err, Time now) {
    const bool unreachable = err == EHOSTUNREACH || err == ENETUNREACH || err == ENETDOWN || err == EADDRNOTAVAIL ||
                             err == EAFNOSUPPORT || err == EINVAL || err == ECONNREFUSED;
    if (err == EMSGSIZE) return too_long(to, now);
    if (!unreachable) return;  // full queue, firewall rule of the moment
    netcheck_.send_failed(to, now);
    pump_netcheck(now);
    std::vector<PeerId> through;  // the relay there
    for (auto leg = by_leg_.lower_bound({to, 0}); leg != by_leg_.end() && leg->first.first == to; ++leg) through.push_back(leg->second);
    for (const PeerId id : through) {
        Peer& other = *find(id);
        if (!other.via) continue;
        ViaTodo todo;
        other.via->send_failed(to, now, todo);
        carry_out_via(other, todo, now);
    }
    const auto it = by_endpoint_.find(to);
    Peer* p = it == by_endpoint_.end() ? nullptr : find(it->second);
    if (p == nullptr || !p->paths) return;
    Todo todo;
    p->paths->send_failed(to, now, todo);
    carry_out(*p, todo, now);
}

void Magicsock::too_long(const Endpoint& to, Time now) {
    const auto it = by_endpoint_.find(to);
    Peer* p = it == by_endpoint_.end() ? nullptr : find(it->second);
    if (p == nullptr || !p->paths) return;
    Todo todo;
    p->paths->too_long(to, now, todo);
    carry_out(*p, todo, now);
}

// ---- carrying out

void Magicsock::carry_out(Peer& p, Todo& todo, Time now) {
    for (const Todo::Probe& probe : todo.probes) {
        disco::Ping ping{.tx = probe.tx, .node = node_key_, .padding = 0};
        const size_t smallest = disco::kOverhead + disco::kPingPayloadLen + 8 + (probe.to.addr.is_v6() ? 40 : 20);
        if (probe.size > smallest) ping.padding = probe.size - smallest;
        if (send_disco(p, ping, Source{.udp = probe.to, .derp_region = 0, .derp_key = {}})) ++counters_.pings_out;
    }
    if (todo.call_me_maybe) send_call_me_maybe(p, now);
    if (todo.path_changed) {
        if (p.paths && p.paths->best().is_valid()) learn_source(p, p.paths->best());
        const Path path = path_now(p, now);
        if (!path.empty()) p.path_wanted = false;
        out_.path_changed(p.id, path, now);
    }
    const bool check = todo.check_network;
    todo.clear();
    rearm(p);
    // The endpoints that we advertise may be void. What they become goes out with refresh_endpoints().
    if (check && derp_map_ && network_.up && !netcheck_.running())
        restun_at_ = min(restun_at_, max(now, last_netcheck_ + kNetcheckAfterSilence));
}

bool Magicsock::send_disco(Peer& p, const disco::Message& m, const Source& to) {
    const disco::SharedKey* key = shared_key(p);
    if (key == nullptr) return false;
    const Bytes datagram = key->seal(disco_public_, disco::encode(m), random_);
    if (to.vni != 0) {
        out_.send_udp(to.udp, relay::Geneve{relay::Geneve::kDisco, false, to.vni}.around(datagram));
        return true;
    }
    if (!to.by_derp()) {
        out_.send_udp(to.udp, datagram);
        return true;
    }
    if (out_.send_derp(to.derp_region, p.config.key, datagram)) return true;
    ++counters_.derp_send_failed;
    return false;
}

void Magicsock::send_call_me_maybe(Peer& p, Time now) {
    if (!p.paths) return;
    const int region = derp_region_of(p);
    p.call_me_maybe_due = true;
    if (region != 0 && !advertised_.empty()) {
        disco::CallMeMaybe m;
        for (const LocalEndpoint& e : advertised_) m.endpoints.push_back(e.ep);
        if (send_disco(p, m, Source{.udp = {}, .derp_region = region, .derp_key = {}})) {
            p.call_me_maybe_due = false;
            ++counters_.call_me_maybe_out;
            p.paths->call_me_maybe_sent(now);
        }
    }
    // What was said may be old: measure again, refresh_endpoints() repeats the message if something moved.
    if (now - last_netcheck_ > seconds(27) && !netcheck_.running()) start_netcheck(false, now);
}

// ---- time

Time Magicsock::next_timeout() const {
    Time t = min(min(netcheck_.next_timeout(), restun_at_), endpoints_expire_);
    if (!deadlines_.empty()) t = min(t, deadlines_.begin()->first);
    for (const CliPing& c : cli_pings_) t = min(t, min(c.repeat_at, c.started + kPingTimeout));
    return t;
}

void Magicsock::handle_timeout(Time now) {
    if (now >= netcheck_.next_timeout()) {
        netcheck_.handle_timeout(now);
        pump_netcheck(now);
    }
    if (now >= restun_at_) {
        restun_at_ = Time::never();
        if (recently_active(now)) start_netcheck(false, now, udp_blocked() && now - last_whole_netcheck_ < kWholeNetcheckEvery);
    }
    if (now >= endpoints_expire_) refresh_endpoints(now);
    repeat_or_expire_pings(now);
    // Each peer once: what it asks for next lies in the future.
    for (size_t budget = deadlines_.size(); budget > 0; --budget) {
        const auto it = deadlines_.begin();
        if (it == deadlines_.end() || it->first > now) break;
        Peer& p = *peers_[it->second];
        if (now - p.paths->last_activity() >= kForgetPaths) {
            drop_paths(p);
            continue;
        }
        Todo todo;
        p.paths->handle_timeout(now, todo);
        carry_out(p, todo, now);
        if (!p.via || p.via->next_timeout() > now) continue;
        ViaTodo via;
        p.via->handle_timeout(now, via);
        carry_out_via(p, via, now);
    }
}

// ---- questions

PeerPathStatus Magicsock::status(PeerId peer, Time now) const {
    PeerPathStatus s;
    const Peer* p = find(peer);
    if (p == nullptr) return s;
    s.relay = derp_region_of(*p);
    s.relay_heard = p->relay_heard;
    s.relay_gone = p->relay_gone;
    if (p->paths) p->paths->fill(s, now);
    if (p->via) p->via->fill(s, now);
    if (p->config.wireguard_only) {
        s.last_send = p->fixed_sent;
        if (now < p->fixed_until) s.cur_addr = s.best = p->fixed;
    }
    return s;
}

}  // namespace mesh::magicsock
