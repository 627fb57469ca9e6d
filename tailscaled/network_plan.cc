// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/network_plan.h"

#include <fmt/format.h>

#include <algorithm>

namespace mesh::daemon {

using netmap::NetMap;
using netmap::Node;

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

std::vector<Prefix> accepted_prefixes(const Node& node, const api::Prefs& prefs, bool is_exit_node) {
    std::vector<Prefix> out;
    for (const Prefix& p : node.allowed_ips) {
        const bool own = std::find(node.addresses.begin(), node.addresses.end(), p) != node.addresses.end();
        if (own || (p.is_default() ? is_exit_node : p.is_single() || prefs.route_all)) out.push_back(p.masked());
    }
    return out;
}

std::shared_ptr<const dataplane::Tables> make_tables(const NetMap& map, const api::Prefs& prefs, const PeerIds& ids,
                                                     const platform::NetState& net, WallTime wall) {
    auto tables = std::make_shared<dataplane::Tables>();
    const auto chosen = exit_node(map, prefs);
    for (const auto& node : map.peers) {
        const PeerId id = ids.find(node->id);
        if (id == kNoPeer || !takes_part(map, *node, wall)) continue;
        tables->add_peer(id, accepted_prefixes(*node, prefs, node == chosen), node->jailed);
    }
    netstack::LocalSet local;
    for (const Prefix& p : map.self->addresses) local.prefixes.push_back(p);
    if (prefs.advertise_routes)
        for (const Prefix& p : *prefs.advertise_routes) local.prefixes.push_back(p.masked());
    local.except = netstack::exit_node_exceptions();
    for (const auto& i : net.interfaces)
        for (const auto& a : i.addrs)
            if (!a.prefix.is_single()) local.except.push_back(a.prefix.masked());
    const auto caps = [&](std::string_view cap) {
        std::vector<Prefix> out;
        for (const auto& node : map.peers)
            if (node->cap_map.has(cap)) out.insert(out.end(), node->addresses.begin(), node->addresses.end());
        return out;
    };
    for (const Prefix& p : map.self->addresses)
        if (p.is_single()) tables->self.push_back(p.addr);
    std::sort(tables->self.begin(), tables->self.end());  // IPv4 first
    tables->filter = netstack::FilterTable(map.filter->rules, local, prefs.shields_up, caps);
    return tables;
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
    for (const Prefix& p : map.self->addresses)
        if (p.is_single()) c.local_addrs.push_back(p);

    // Table 52 is asked before main, so an accepted route that covers a network this host sits in would cut it off.
    std::vector<Prefix> connected;
    for (const auto& i : net.interfaces) {
        if (i.link.name == tun || !i.link.up || i.link.loopback) continue;
        for (const auto& a : i.addrs)
            if (!a.prefix.is_single() && !a.prefix.addr.is_link_local()) connected.push_back(a.prefix.masked());
    }
    const auto chosen = exit_node(map, prefs);
    for (const auto& node : map.peers) {
        if (!takes_part(map, *node, wall)) continue;
        for (const Prefix& p : accepted_prefixes(*node, prefs, node == chosen)) {
            if (p.is_single()) {
                c.peer_routes.push_back(p);
                continue;
            }
            const bool inside = std::any_of(connected.begin(), connected.end(), [&](const Prefix& own) {
                return own.contains(p.addr) && own.len <= p.len;
            });
            if (inside && !p.is_default()) {
                if (notes)
                    notes->push_back(fmt::format("The route {} offered by {} is not used: this host is itself connected to that network.",
                                                 p.str(), node->host_label()));
                continue;
            }
            c.accepted_routes.push_back(p);
            for (const Prefix& own : connected)
                if (p.contains(own.addr) && p.len < own.len && (!p.is_default() || prefs.exit_node_allow_lan_access))
                    c.throw_routes.push_back(own);
        }
    }
    return c;
}

}  // namespace mesh::daemon
