// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/network_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/log.h"
#include "netstack/via6.h"

namespace mesh::daemon {

using netmap::NetMap;
using netmap::Node;

namespace {

constexpr size_t kMaxOwnAddrs = 16;
// A filter rule may name holders of a capability: what all rules together may unfold to.
constexpr size_t kMaxCapNames = 1'024;
constexpr size_t kMaxCapSources = 1'000'000;
constexpr size_t kMaxNotes = 10;
constexpr size_t kGreetAtMost = 16;

// Nodes of before do not know what a UDP relay is. Servers that tell no versions leave it at 0.
constexpr int kFirstWithRelays = 121;

magicsock::PeerConfig peer_config(const netmap::Node& n, const RelayGrants& grants) {
    magicsock::PeerConfig c;
    c.key = n.key;
    c.disco = n.disco_key;
    c.endpoints = n.endpoints;
    c.home_derp = n.home_derp;
    c.wireguard_only = n.wireguard_only;
    const bool able = n.cap == 0 || n.cap >= kFirstWithRelays;
    c.relay_server = able && holds(grants.servers, n);
    c.relay_announced = c.relay_server && n.hostinfo && n.hostinfo->peer_relay;
    c.may_relay = able && holds(grants.clients, n);
    return c;
}

/// Does the change touch routes, source check or filter, or only how the peer is reached?
bool policy_changed(const netmap::Node& a, const netmap::Node& b) {
    return a.key != b.key || a.allowed_ips != b.allowed_ips || a.addresses != b.addresses || a.jailed != b.jailed || a.expired != b.expired ||
           a.key_expiry != b.key_expiry || !(a.cap_map == b.cap_map);
}

bool is_own_address(const Node& node, const Prefix& p) {
    return p.is_single() && std::find(node.addresses.begin(), node.addresses.end(), p) != node.addresses.end();
}

/// Places that no packet of a tunnel may come from or go to.
bool is_unroutable(const Prefix& p) {
    static const Prefix metadata = Prefix::single(Addr::v4(169, 254, 169, 254));
    if (p == metadata) return false;
    return p.addr.is_loopback() || p.addr.is_multicast() || p.addr.is_link_local() || (p.is_single() && p.addr.is_unspecified());
}

struct Claim {
    const Node* node;
    std::vector<Prefix> prefixes;
};

/// What each peer that takes part may use, in the order of the map, with no more than kMaxRoutes routes.
std::vector<Claim> claims(const NetMap& map, const api::Prefs& prefs, WallTime wall, std::vector<std::string>* notes) {
    std::vector<Claim> out;
    out.reserve(map.peers.size());
    const auto chosen = exit_node(map, prefs);
    size_t routes = 0;
    for (const auto& node : map.peers) {
        if (!takes_part(map, *node, wall)) continue;
        Claim c{node.get(), accepted_prefixes(map, *node, prefs, node == chosen)};
        std::erase_if(c.prefixes, [&](const Prefix& p) { return !p.is_default() && !is_own_address(*node, p) && ++routes > kMaxRoutes; });
        out.push_back(std::move(c));
    }
    if (routes > kMaxRoutes && notes)
        notes->push_back(fmt::format("The control server offers {} routes; only {} of them are used.", routes, kMaxRoutes));
    return out;
}

/// Sorted, each once. A prefix of two peers is noted.
void keep_each_once(std::vector<Prefix>& prefixes, std::vector<std::string>* notes) {
    std::sort(prefixes.begin(), prefixes.end());
    for (size_t i = 1; notes && i < prefixes.size(); ++i)
        if (prefixes[i] == prefixes[i - 1] && notes->size() < kMaxNotes)
            notes->push_back(fmt::format("The route {} is offered by more than one node; one of them is used.", prefixes[i].str()));
    prefixes.erase(std::unique(prefixes.begin(), prefixes.end()), prefixes.end());
}

void note_outside_ranges(const platform::RouterConfig& c, std::vector<std::string>* notes) {
    const bool ours = std::any_of(c.local_addrs.begin(), c.local_addrs.end(),
                                  [](const Prefix& p) { return Prefix{Addr::v4(100, 64, 0, 0), 10}.contains(p.addr); });
    if (!notes || !ours || !c.cgnat_drop || c.netfilter == platform::NetfilterMode::kOff) return;
    for (const auto& o : c.outside_ranges) {
        std::string networks;
        for (const Prefix& p : o.networks) networks += (networks.empty() ? "" : ", ") + p.str();
        notes->push_back(fmt::format("{} uses addresses of 100.64.0.0/10, as this tailnet does{}. Answers, leases{} are let in there; a "
                                     "device whose address equals a node's cannot be reached.",
                                     log::printable(o.interface), networks.empty() ? "" : " (" + networks + ")",
                                     networks.empty() ? "" : " and these networks"));
    }
}

}  // namespace

PeerId PeerIds::assign(netmap::NodeId node, const NodePublic& key) {
    const auto it = by_node_.find(node);
    if (it != by_node_.end() && it->second.key == key) return it->second.id;
    if (it != by_node_.end()) release(node);
    PeerId id = next_;
    if (free_.empty()) {
        ++next_;
    } else {
        id = free_.back();
        free_.pop_back();
    }
    by_node_[node] = {id, key};
    return id;
}

PeerId PeerIds::find(netmap::NodeId node) const {
    const auto it = by_node_.find(node);
    return it == by_node_.end() ? kNoPeer : it->second.id;
}

void PeerIds::release(netmap::NodeId node) {
    const auto it = by_node_.find(node);
    if (it == by_node_.end()) return;
    free_.insert(free_.begin(), it->second.id);  // reused as late as possible
    by_node_.erase(it);
}

bool takes_part(const NetMap& map, const Node& node, WallTime wall) {
    return !node.key.is_zero() && !map.is_expired(node, wall);
}

netmap::NodePtr exit_node(const NetMap& map, const api::Prefs& prefs) {
    if (!prefs.has_exit_node()) return nullptr;
    for (const auto& node : map.peers) {
        if (!prefs.exit_node_id.empty()) {
            if (node->stable_id == prefs.exit_node_id) return node;
            continue;
        }
        for (const Prefix& p : node->addresses)
            if (p.addr == *prefs.exit_node_ip) return node;
    }
    return nullptr;
}

std::vector<Prefix> accepted_prefixes(const NetMap& map, const Node& node, const api::Prefs& prefs, bool is_exit_node) {
    std::vector<Prefix> out;
    for (const Prefix& p : node.allowed_ips) {
        if (p != p.masked() || is_unroutable(p) || is_own_address(*map.self, p)) continue;
        // Services live on single addresses of the tailnet's usual ranges; any other single address is somebody's subnet.
        const bool belongs = is_own_address(node, p) || (p.is_single() && is_tailscale_range(p.addr));
        if (belongs || (p.is_default() ? is_exit_node : prefs.route_all)) out.push_back(p);
    }
    return out;
}

std::vector<Prefix> granted(const NetMap& map, std::string_view capability) {
    std::vector<Prefix> out;
    const auto about_us = [&](const netstack::CapGrant& g) {
        return std::any_of(g.dsts.begin(), g.dsts.end(), [&](const Prefix& dst) {
            return std::any_of(map.self->addresses.begin(), map.self->addresses.end(),
                               [&](const Prefix& own) { return own.is_single() && dst.contains(own.addr); });
        });
    };
    for (const netstack::FilterRule& rule : map.filter->rules)
        for (const netstack::CapGrant& g : rule.grants)
            for (const auto& [name, values] : g.caps)
                if (name == capability && out.size() < kMaxCapSources && about_us(g)) out.insert(out.end(), rule.src.begin(), rule.src.end());
    return out;
}

RelayGrants relay_grants(const NetMap& map) {
    RelayGrants out;
    out.client_list = granted(map, "tailscale.com/cap/relay");
    out.server_list = granted(map, "tailscale.com/cap/relay-target");
    out.clients = netstack::PrefixSet(out.client_list);
    out.servers = netstack::PrefixSet(out.server_list);
    return out;
}

Result<std::string> file_sender(const NetMap& map, const Addr& peer) {
    const auto node = map.node_by_addr(peer);
    if (!node || node == map.self || node->jailed || node->unsigned_peerapi_only) return fail(Code::kDenied, "you may not send files to this node");
    const bool same_user = node->user == map.self->user && !node->is_tagged() && !map.self->is_tagged();
    if (!same_user && !holds(netstack::PrefixSet(granted(map, "https://tailscale.com/cap/file-send")), *node))
        return fail(Code::kDenied, "you may not send files to this node: it belongs to another user, or is tagged");
    if (!map.has_cap(kFileSharing)) return fail(Code::kDenied, "Taildrop is not enabled on this tailnet");
    return node->stable_id;
}

FileTargets::FileTargets(const NetMap& map)
    : enabled_(map.has_cap(kFileSharing)), user_(map.self->user), others_(granted(map, "https://tailscale.com/cap/file-sharing-target")) {}

TaildropTarget FileTargets::of(const Node& node, api::State state) const {
    if (state != api::State::kRunning) return TaildropTarget::kNotRunning;
    if (!enabled_) return TaildropTarget::kMissingCap;
    if (!node.online.value_or(false)) return TaildropTarget::kOffline;
    if (!takes(node)) return is_tv(node) ? TaildropTarget::kUnsupportedOs : TaildropTarget::kOtherOwner;
    if (!peer_api(node).is_valid()) return TaildropTarget::kNoPeerApi;
    return TaildropTarget::kAvailable;
}

bool FileTargets::is_tv(const Node& node) { return node.hostinfo && node.hostinfo->os == "tvOS"; }

bool FileTargets::takes(const Node& node) const { return !is_tv(node) && (node.user == user_ || holds(others_, node)); }

Endpoint peer_api(const Node& node) {
    if (!node.hostinfo) return {};
    for (const auto family : {Addr::Family::kV4, Addr::Family::kV6})
        if (const uint16_t port = node.hostinfo->peerapi_port(family); port != 0 && node.address(family).is_valid()) return {node.address(family), port};
    return {};
}

bool holds(const netstack::PrefixSet& set, const Node& node) {
    if (set.empty() || node.unsigned_peerapi_only) return false;
    return std::any_of(node.addresses.begin(), node.addresses.end(), [&](const Prefix& p) { return p.is_single() && set.contains(p.addr); });
}

PeerPlan plan_peers(const NetMap& map, const netmap::PeerChanges* changes, PeerIds& ids, WallTime wall, const RelayGrants& grants) {
    PeerPlan plan;
    PeerSlice& slice = plan.slice;
    plan.policy = changes == nullptr || changes->self || changes->filter;
    const auto upsert = [&](const Node& n, const Node* was = nullptr) {
        const PeerId before = ids.find(n.id);
        if (!takes_part(map, n, wall)) {
            if (before != kNoPeer) slice.removed.push_back(before);
            ids.release(n.id);
            return;
        }
        const PeerId id = ids.assign(n.id, n.key);
        if (before != kNoPeer && before != id) slice.removed.push_back(before);
        magicsock::PeerConfig config = peer_config(n, grants);
        // Who is online, or has another name: most of what changes is not the packet loop's business.
        if (was != nullptr && before == id && config == peer_config(*was, grants)) return;
        slice.upserted.push_back({id, std::move(config)});
    };
    if (changes == nullptr) {
        for (const auto& n : map.peers) upsert(*n);
        return plan;
    }
    for (const auto& n : changes->removed) {
        if (const PeerId id = ids.find(n->id); id != kNoPeer) slice.removed.push_back(id);
        ids.release(n->id);
    }
    for (const auto& n : changes->added) upsert(*n);
    for (const auto& c : changes->changed) {
        plan.policy = plan.policy || policy_changed(*c.before, *c.after);
        upsert(*c.after, c.before.get());
    }
    plan.policy = plan.policy || !changes->removed.empty() || !changes->added.empty();
    return plan;
}

bool offer_routes(const NetMap& map) {
    const auto offered = [](const netmap::NodePtr& n) {
        return std::any_of(n->allowed_ips.begin(), n->allowed_ips.end(), [&](const Prefix& p) {
            return !p.is_default() && !(p.is_single() && is_tailscale_range(p.addr)) && !is_own_address(*n, p);
        });
    };
    return std::any_of(map.peers.begin(), map.peers.end(), offered);
}

std::vector<PeerId> peers_to_greet(const NetMap& map, const PeerIds& ids) {
    std::vector<PeerId> out;
    for (const auto& n : map.peers) {
        if (out.size() >= kGreetAtMost) break;
        if (n->online.value_or(true) && ids.find(n->id) != kNoPeer) out.push_back(ids.find(n->id));
    }
    return out;
}

std::shared_ptr<const dataplane::Tables> make_tables(const NetMap& map, const api::Prefs& prefs, const PeerIds& ids,
                                                     const platform::NetState& net, WallTime wall, uint16_t peer_api_port) {
    auto tables = std::make_shared<dataplane::Tables>();
    tables->peerapi_port4 = tables->peerapi_port6 = peer_api_port;
    const std::vector<Claim> all = claims(map, prefs, wall, nullptr);
    // Who comes last gets a prefix.
    for (auto c = all.rbegin(); c != all.rend(); ++c)
        if (const PeerId id = ids.find(c->node->id); id != kNoPeer) tables->add_peer(id, c->prefixes, c->node->jailed);
    for (auto c = all.rbegin(); c != all.rend(); ++c) {
        const PeerId id = ids.find(c->node->id);
        for (const Prefix& p : c->prefixes)
            if (id != kNoPeer && is_own_address(*c->node, p)) tables->routes.insert(p, id);
        if (id != kNoPeer) tables->peers[id].v4 = c->node->address(Addr::Family::kV4);
    }
    netstack::LocalSet local;
    for (const Prefix& p : map.self->addresses)
        if (p.is_single()) local.prefixes.push_back(p);
    if (prefs.advertise_routes)
        for (const Prefix& p : *prefs.advertise_routes) {
            local.prefixes.push_back(p.masked());
            if (netstack::is_via6(p)) tables->via6_routes.push_back(p.masked());
        }
    local.except = netstack::exit_node_exceptions();
    for (const auto& i : net.interfaces)
        for (const auto& a : i.addrs)
            if (!a.prefix.is_single()) local.except.push_back(a.prefix.masked());
    std::set<std::string, std::less<>> cap_names;
    size_t cap_sources = 0;
    const auto caps = [&](std::string_view cap) {
        std::vector<Prefix> out;
        if (cap_names.size() >= kMaxCapNames && !cap_names.contains(cap)) return out;
        cap_names.emplace(cap);
        for (const auto& node : map.peers) {
            if (cap_sources >= kMaxCapSources) break;
            if (!node->cap_map.has(cap)) continue;
            out.insert(out.end(), node->addresses.begin(), node->addresses.end());
            cap_sources += node->addresses.size();
        }
        return out;
    };
    for (const Prefix& p : map.self->addresses)
        if (p.is_single()) tables->self.push_back(p.addr);
    std::sort(tables->self.begin(), tables->self.end());  // IPv4 first
    tables->filter = netstack::FilterTable(map.filter->rules, local, prefs.shields_up, caps);
    return tables;
}

bool may_use_internet(const NetMap& map, const dataplane::Tables& tables, const Addr& peer) {
    const auto node = map.node_by_addr(peer);
    if (!node || node->jailed) return false;
    if (node->user == map.self->user && !node->is_tagged() && !map.self->is_tagged()) return true;
    // The question to the filter that the original asks; policies that open "the internet" cover these addresses.
    netstack::Parsed p;
    p.version = peer.is_v4() ? 4 : 6;
    p.proto = netstack::kProtoTcp;
    p.tcp_flags = netstack::kTcpSyn;
    p.src = peer;
    p.dst = peer.is_v4() ? Addr::v4(0, 0, 0, 0) : *Addr::parse("2000::");
    p.dst_port = 53;
    return tables.filter.allows(p);
}

std::vector<Prefix> connected_networks(const platform::NetState& net, const std::string& tun) {
    std::vector<Prefix> out;
    for (const auto& i : net.interfaces) {
        if (i.link.name == tun || !i.link.up || i.link.loopback) continue;
        for (const auto& a : i.addrs)
            if (!a.prefix.is_single() && !a.prefix.addr.is_link_local()) out.push_back(a.prefix.masked());
    }
    for (const Addr& gateway : net.gateways)
        if (!gateway.is_link_local() && std::none_of(out.begin(), out.end(), [&](const Prefix& p) { return p.contains(gateway); }))
            out.push_back(Prefix::single(gateway));
    return out;
}

platform::RouterConfig make_router_config(const NetMap& map, const api::Prefs& prefs, const platform::NetState& net, const std::string& tun,
                                          uint16_t port_v4, uint16_t port_v6, WallTime wall, std::vector<std::string>* notes) {
    platform::RouterConfig c;
    c.tun_name = tun;
    c.netfilter = prefs.netfilter_mode == api::NetfilterMode::kOn         ? platform::NetfilterMode::kOn
                  : prefs.netfilter_mode == api::NetfilterMode::kNoDivert ? platform::NetfilterMode::kNoDivert
                                                                          : platform::NetfilterMode::kOff;
    c.snat_subnet_routes = !prefs.no_snat;
    c.stateful_filtering = !prefs.no_stateful_filtering.value_or(true);
    c.cgnat_drop = !map.has_cap("disable-linux-cgnat-drop-rule");
    c.port_v4 = port_v4;
    c.port_v6 = port_v6;
    c.forwards = prefs.advertise_routes && !prefs.advertise_routes->empty();
    c.outside_ranges = net.outside_ranges;
    for (const Prefix& p : map.self->addresses) {
        if (!p.is_single() || c.local_addrs.size() >= kMaxOwnAddrs) continue;
        if (!is_unroutable(p))
            c.local_addrs.push_back(p);
        else if (notes)
            notes->push_back(fmt::format("The control server gave this node the address {}, which is not used.", p.addr.str()));
    }

    note_outside_ranges(c, notes);

    // Table 52 is asked before main, so an accepted route that covers a network this host sits in would cut it off.
    const std::vector<Prefix> connected = connected_networks(net, tun);
    for (const Claim& claim : claims(map, prefs, wall, notes)) {
        for (const Prefix& p : claim.prefixes) {
            if (p.is_single() && is_own_address(*claim.node, p)) {
                c.peer_routes.push_back(p);
                continue;
            }
            const auto own = std::find_if(connected.begin(), connected.end(), [&](const Prefix& o) {
                return o.contains(p.addr) && o.len <= p.len;
            });
            if (own != connected.end() && !p.is_default()) {
                if (notes && notes->size() < kMaxNotes)
                    notes->push_back(fmt::format("The route {} offered by {} is not used: this host is itself connected to {}.", p.str(),
                                                 log::printable(claim.node->host_label()), own->str()));
                continue;
            }
            (p.is_single() ? c.peer_routes : c.accepted_routes).push_back(p);
            for (const Prefix& o : connected)
                if (p.contains(o.addr) && p.len < o.len && !p.is_default())
                    c.throw_routes.push_back(o);
        }
    }
    if (prefs.has_exit_node()) {
        // Both families always, whatever the exit node offers or whether it is there at all: nothing may go past it.
        for (const Prefix& all : {Prefix{Addr::v4(0, 0, 0, 0), 0}, Prefix{*Addr::parse("::"), 0}})
            if (std::find(c.accepted_routes.begin(), c.accepted_routes.end(), all) == c.accepted_routes.end()) c.accepted_routes.push_back(all);
        if (prefs.exit_node_allow_lan_access) c.throw_routes.insert(c.throw_routes.end(), connected.begin(), connected.end());
    }
    keep_each_once(c.peer_routes, notes);
    keep_each_once(c.accepted_routes, notes);
    keep_each_once(c.throw_routes, nullptr);
    return c;
}

}  // namespace mesh::daemon
