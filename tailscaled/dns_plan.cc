// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/dns_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>

#include "base/log.h"

namespace mesh::daemon {

using netmap::NetMap;
using netmap::Node;

namespace {

constexpr size_t kMaxNotes = 10;
constexpr size_t kMaxMatch = 256;   // domains given to the host's resolver
constexpr size_t kMaxSearch = 16;
constexpr size_t kMaxExtra = 65'536;

void add_node(dns::NameTable& t, const Node& n, bool v6_only, bool want_v6) {
    if (n.name.empty()) return;
    const bool has_v4 = n.address(Addr::Family::kV4).is_valid();
    for (const Prefix& p : n.addresses) {
        if (!p.is_single()) continue;
        t.add_reverse(p.addr, n.name);
        // Peers of the same name are reached by IPv4 wherever both sides have it; nobody knows whether their IPv6 works.
        const bool show = v6_only ? p.addr.is_v6() : p.addr.is_v4() || !has_v4 || want_v6;
        if (show) t.add_host(n.name, p.addr);
    }
    if (n.cap_map.has("dns-subdomain-resolve")) t.add_wildcard(n.name);
}

/// Reverse zones of the usual ranges, if this tailnet lives in them. For others the control server names zones itself.
void add_reverse_zones(const NetMap& map, const std::function<void(std::string)>& add) {
    for (const Prefix& p : map.self->addresses) {
        if (!is_tailscale_range(p.addr)) continue;
        if (p.addr.is_v6()) add("0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa");
        if (p.addr.is_v4())
            for (int i = 64; i < 128; ++i) add(fmt::format("{}.100.in-addr.arpa", i));
    }
}

std::vector<std::string> zones_of(const NetMap& map) {
    std::vector<std::string> out;
    const auto add = [&](std::string zone) {
        if (!zone.empty() && std::find(out.begin(), out.end(), zone) == out.end()) out.push_back(std::move(zone));
    };
    if (map.dns->proxied) {
        add(dns::canonical(map.magic_dns_suffix()));
        add_reverse_zones(map, add);
    }
    for (const auto& [suffix, resolvers] : map.dns->routes)
        if (resolvers.empty()) add(dns::canonical(suffix));
    return out;
}

std::vector<dns::Upstream> upstreams(const std::vector<netmap::Resolver>& resolvers, std::vector<std::string>& notes) {
    std::vector<dns::Upstream> out;
    for (const netmap::Resolver& r : resolvers) {
        auto up = dns::parse_upstream(r.addr, r.bootstrap);
        if (up)
            out.push_back(std::move(*up));
        else if (notes.size() < kMaxNotes)
            notes.push_back("DNS: " + log::printable(up.error().message()) + ".");
    }
    return out;
}

/// Where names go that nobody claims: as the control server says, or by way of the exit node. Empty: as the host did.
std::vector<dns::Upstream> default_upstreams(const NetMap& map, const netmap::NodePtr& exit_node, std::vector<std::string>& notes) {
    std::vector<netmap::Resolver> wanted = map.dns->resolvers;
    if (wanted.empty())
        for (const Addr& a : map.dns->nameservers) wanted.push_back({a.str(), {}, false});
    if (exit_node) {
        std::vector<netmap::Resolver> with_exit;
        std::copy_if(wanted.begin(), wanted.end(), std::back_inserter(with_exit), [](const auto& r) { return r.use_with_exit_node; });
        if (!with_exit.empty()) return upstreams(with_exit, notes);
        if (exit_node->wireguard_only && !exit_node->exit_node_resolvers.empty()) return upstreams(exit_node->exit_node_resolvers, notes);
        if (exit_node->hostinfo && exit_node->hostinfo->peerapi_dns_proxy()) {
            for (const Addr::Family family : {Addr::Family::kV4, Addr::Family::kV6}) {
                const uint16_t port = exit_node->hostinfo->peerapi_port(family);
                const Addr addr = exit_node->address(family);
                if (port != 0 && addr.is_valid())
                    return upstreams({{fmt::format("http://{}/dns-query", Endpoint{addr, port}.str()), {}, false}}, notes);
            }
        }
    }
    return upstreams(wanted, notes);
}

std::vector<dns::Upstream> host_upstreams(const platform::ResolverConfig& base) {
    std::vector<dns::Upstream> out;
    for (const Endpoint& e : base.servers) out.push_back({{e.addr, e.port == 0 ? uint16_t{53} : e.port}, "", e.addr.str()});
    return out;
}

bool plain(const std::vector<dns::Upstream>& list) {
    return !list.empty() && std::all_of(list.begin(), list.end(), [](const auto& u) { return u.at.is_valid() && u.at.port == 53 && u.text == u.at.addr.str(); });
}

}  // namespace

bool touches_dns(const netmap::PeerChanges* changes, const netmap::NodePtr& exit_node) {
    if (changes == nullptr || changes->self || changes->dns || !changes->added.empty() || !changes->removed.empty()) return true;
    return std::any_of(changes->changed.begin(), changes->changed.end(), [&](const auto& c) {
        const Node &a = *c.before, &b = *c.after;
        if (a.name != b.name || a.addresses != b.addresses || !(a.cap_map == b.cap_map)) return true;
        return c.after == exit_node && a.hostinfo != b.hostinfo;  // its services say where it answers
    });
}

std::shared_ptr<const dns::NameTable> make_names(const NetMap& map) {
    auto t = std::make_shared<dns::NameTable>();
    t->set_suffix(map.magic_dns_suffix());
    for (const std::string& zone : zones_of(map)) t->add_zone(zone);
    const bool v6_only = !map.self->address(Addr::Family::kV4).is_valid() && map.self->address(Addr::Family::kV6).is_valid();
    const bool want_v6 = map.has_cap("magicdns-aaaa");
    add_node(*t, *map.self, v6_only, want_v6);
    for (const auto& n : map.peers) add_node(*t, *n, v6_only, want_v6);
    std::map<std::string, std::vector<Addr>> extra;
    for (const netmap::DnsRecord& r : map.dns->extra_records) {
        const auto addr = Addr::parse(r.value);
        if (!addr || extra.size() >= kMaxExtra) continue;
        if (r.type.empty() || (r.type == "A" && addr->is_v4()) || (r.type == "AAAA" && addr->is_v6())) extra[dns::canonical(r.name)].push_back(*addr);
    }
    for (auto& [name, addrs] : extra) t->set_host(name, std::move(addrs));
    return t;
}

DnsPlan make_dns_plan(const NetMap& map, const api::Prefs& prefs, const netmap::NodePtr& exit_node, const DnsHost& host) {
    DnsPlan out;
    if (!prefs.corp_dns) return out;
    const std::vector<std::string> zones = zones_of(map);
    std::vector<std::string> suffixes;
    for (const auto& [suffix, resolvers] : map.dns->routes) {
        if (resolvers.empty() || dns::canonical(suffix).empty()) continue;
        suffixes.push_back(dns::canonical(suffix));
        out.routes.set(suffix, upstreams(resolvers, out.notes));  // none usable: SERVFAIL, rather than asking strangers
    }
    const std::vector<dns::Upstream> defaults = default_upstreams(map, exit_node, out.notes);
    if (zones.empty() && suffixes.empty() && map.dns->extra_records.empty() && defaults.empty()) return out;

    for (const std::string& d : map.dns->domains)
        if (out.os.search.size() < kMaxSearch) out.os.search.push_back(dns::canonical(d));
    if (zones.empty() && suffixes.empty() && map.dns->extra_records.empty() && plain(defaults)) {
        // Nothing that needs us: the host asks those servers itself.
        for (const dns::Upstream& u : defaults) out.os.nameservers.push_back(u.at.addr);
    } else {
        if (map.self->address(Addr::Family::kV4).is_valid()) out.os.nameservers.push_back(service_addr_v4());
        if (map.self->address(Addr::Family::kV6).is_valid() && host.v6) out.os.nameservers.push_back(service_addr_v6());
    }
    if (!defaults.empty()) {
        out.routes.set("", defaults);
    } else {
        // Ordinary names stay where they were, also if no server we were told of can be used.
        std::vector<dns::Upstream> base = host_upstreams(host.base);
        if (base.empty()) base = upstreams(map.dns->fallback_resolvers, out.notes);
        if (!base.empty()) out.routes.set("", std::move(base));
        if (host.can_split) {
            const auto match = [&](const std::string& domain) {
                if (out.os.match.size() < kMaxMatch && std::find(out.os.match.begin(), out.os.match.end(), domain) == out.os.match.end())
                    out.os.match.push_back(domain);
            };
            for (const std::string& z : zones) match(z);
            for (const std::string& s : suffixes) match(s);
            for (const netmap::DnsRecord& r : map.dns->extra_records) {
                const std::string name = dns::canonical(r.name);
                if (std::none_of(zones.begin(), zones.end(), [&](const auto& z) { return dns::is_inside(name, z); })) match(name);
            }
        }
    }
    if (!host.can_split && !exit_node)
        for (const std::string& d : host.base.search)
            if (out.os.search.size() < kMaxSearch && std::find(out.os.search.begin(), out.os.search.end(), d) == out.os.search.end())
                out.os.search.push_back(d);
    return out;
}

dns::Routes routes_for_peers(const DnsPlan& plan, const platform::ResolverConfig& base) {
    dns::Routes out = plan.routes;
    if (!out.all().contains("")) out.set("", host_upstreams(base));
    return out;
}

bool refused_to_peers(const std::vector<std::string>& set, std::string_view name) {
    return std::any_of(set.begin(), set.end(), [&](std::string_view entry) {
        if (!entry.starts_with('.')) return dns::canonical(entry) == name;
        const std::string suffix = dns::canonical(entry.substr(1));
        return name != suffix && dns::is_inside(name, suffix);
    });
}

}  // namespace mesh::daemon
