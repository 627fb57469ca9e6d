// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/netmap/node.h"

#include <algorithm>

namespace mesh::netmap {
namespace {

auto lower_bound(const CapMap& c, std::string_view name) {
    return std::lower_bound(c.entries.begin(), c.entries.end(), name,
                            [](const auto& e, std::string_view n) { return e.first < n; });
}

}  // namespace

const std::vector<std::string>* CapMap::values(std::string_view name) const {
    const auto it = lower_bound(*this, name);
    return it != entries.end() && it->first == name ? &it->second : nullptr;
}

void CapMap::set(std::string_view name, std::vector<std::string> json_values) {
    const auto at = lower_bound(*this, name) - entries.begin();
    const auto it = entries.begin() + at;
    if (it != entries.end() && it->first == name)
        it->second = std::move(json_values);
    else
        entries.insert(it, {std::string(name), std::move(json_values)});
}

uint16_t PeerHostinfo::peerapi_port(Addr::Family family) const {
    const std::string_view want = family == Addr::Family::kV4 ? "peerapi4" : "peerapi6";
    for (const Service& s : services)
        if (s.proto == want) return s.port;
    return 0;
}

bool PeerHostinfo::peerapi_dns_proxy() const {
    return std::any_of(services.begin(), services.end(),
                       [](const Service& s) { return s.proto == "peerapi-dns-proxy" && s.port != 0; });
}

std::string_view Node::host_label() const { return std::string_view(name).substr(0, name.find('.')); }

std::string_view Node::domain_suffix() const {
    const size_t dot = name.find('.');
    if (dot == std::string::npos) return {};
    std::string_view rest = std::string_view(name).substr(dot + 1);
    if (rest.ends_with('.')) rest.remove_suffix(1);
    return rest;
}

Addr Node::address(Addr::Family family) const {
    for (const Prefix& p : addresses)
        if (p.is_single() && p.addr.is_v4() == (family == Addr::Family::kV4)) return p.addr;
    return {};
}

std::vector<Prefix> Node::routes() const {
    std::vector<Prefix> out;
    for (const Prefix& p : allowed_ips)
        if (std::find(addresses.begin(), addresses.end(), p) == addresses.end()) out.push_back(p);
    return out;
}

bool Node::offers_exit() const {
    const auto allows = [&](bool v4) {
        return std::any_of(allowed_ips.begin(), allowed_ips.end(), [&](const Prefix& p) { return p.is_default() && p.addr.is_v4() == v4; });
    };
    return allows(true) && allows(false);
}

bool Node::operator==(const Node& o) const {
    const bool same_hostinfo = hostinfo == o.hostinfo || (hostinfo && o.hostinfo && *hostinfo == *o.hostinfo);
    return same_hostinfo && id == o.id && stable_id == o.stable_id && name == o.name && user == o.user &&
           sharer == o.sharer && key == o.key && key_expiry == o.key_expiry && expired == o.expired &&
           key_signature == o.key_signature && machine == o.machine && disco_key == o.disco_key &&
           addresses == o.addresses && allowed_ips == o.allowed_ips && primary_routes == o.primary_routes &&
           endpoints == o.endpoints && home_derp == o.home_derp && created == o.created && cap == o.cap &&
           tags == o.tags && last_seen == o.last_seen && online == o.online &&
           machine_authorized == o.machine_authorized && cap_map == o.cap_map &&
           unsigned_peerapi_only == o.unsigned_peerapi_only && data_plane_audit_log_id == o.data_plane_audit_log_id &&
           masq_v4 == o.masq_v4 && masq_v6 == o.masq_v6 && wireguard_only == o.wireguard_only &&
           jailed == o.jailed && exit_node_resolvers == o.exit_node_resolvers;
}

}  // namespace mesh::netmap
