// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/status_view.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/version.h"
#include "tailscaled/network_plan.h"

namespace mesh::daemon {

using netmap::NetMap;
using netmap::Node;

namespace {

std::vector<Addr> own_addrs(const Node& n) {
    std::vector<Addr> out;
    for (const Prefix& p : n.addresses)
        if (p.is_single()) out.push_back(p.addr);
    return out;
}

api::CapMap api_caps(const netmap::CapMap& caps) {
    api::CapMap out;
    for (const auto& [name, values] : caps.entries) {
        std::string list = "[";
        for (const std::string& v : values) list += (list.size() > 1 ? "," : "") + v;
        out[name] = list + "]";
    }
    return out;
}

std::vector<std::string> peerapi_urls(const Node& n) {
    std::vector<std::string> out;
    if (!n.hostinfo) return out;
    for (const Prefix& p : n.addresses) {
        const uint16_t port = n.hostinfo->peerapi_port(p.addr.is_v4() ? Addr::Family::kV4 : Addr::Family::kV6);
        if (port != 0) out.push_back("http://" + Endpoint{p.addr, port}.str());
    }
    return out;
}

api::PeerStatus node_status(const NetMap& map, const Node& n, WallTime wall) {
    api::PeerStatus s;
    s.id = n.stable_id;
    s.node_id = n.id;
    s.public_key = n.key;
    s.host_name = n.hostinfo ? n.hostinfo->hostname : "";
    s.dns_name = n.name;
    s.os = n.hostinfo ? n.hostinfo->os : "";
    s.user_id = n.user;
    s.alt_sharer_user_id = n.sharer;
    s.tailscale_ips = own_addrs(n);
    s.allowed_ips = n.allowed_ips;
    s.tags = n.tags;
    s.primary_routes = n.primary_routes;
    s.relay = derp_code(&map, n.home_derp);
    s.created = n.created;
    s.last_seen = n.online.value_or(false) ? WallTime{} : n.last_seen.value_or(WallTime{});
    s.online = n.online.value_or(false);
    s.exit_node_option = n.offers_exit();
    s.peer_api_url = peerapi_urls(n);
    if (n.hostinfo) {
        s.ssh_host_keys = n.hostinfo->ssh_host_keys;
        s.sharee_node = n.hostinfo->sharee_node;
    }
    for (const auto& [name, values] : n.cap_map.entries) s.capabilities.push_back(name);
    s.cap_map = api_caps(n.cap_map);
    s.in_network_map = true;
    s.expired = map.is_expired(n, wall);
    if (!n.key_expiry.is_zero()) s.key_expiry = n.key_expiry;
    return s;
}

api::UserProfile api_user(const netmap::UserProfile& u) {
    return {u.id, u.login_name, u.display_name, u.profile_pic_url};
}

bool is_exit_node(const api::Prefs& prefs, const Node& n) {
    if (!prefs.exit_node_id.empty()) return prefs.exit_node_id == n.stable_id;
    if (!prefs.exit_node_ip) return false;
    return std::any_of(n.addresses.begin(), n.addresses.end(), [&](const Prefix& p) { return p.addr == *prefs.exit_node_ip; });
}

void add_traffic(api::PeerStatus& s, const PeerSnapshot& p, const NetMap& map, WallTime wall, Time now) {
    s.rx_bytes = p.rx_bytes;
    s.tx_bytes = p.tx_bytes;
    s.last_handshake = p.last_handshake;
    s.in_engine = p.has_session;
    if (!p.path.last_send.is_zero()) {
        s.last_write = WallTime{wall.unix_ns - (now - p.path.last_send).ns};
        s.active = now - p.path.last_send < kActiveSpan;
    }
    if (p.path.cur_addr.is_valid())
        s.cur_addr = p.path.cur_addr.str();
    else if (p.path.via_addr.is_valid())
        s.peer_relay = magicsock::via_text(p.path.via_addr, p.path.via_vni);
    if (s.relay.empty()) s.relay = derp_code(&map, p.path.relay);
}

}  // namespace

std::string derp_code(const NetMap* map, int region) {
    if (!map || !map->derp_map || region == 0) return "";
    const derp::DerpRegion* r = map->derp_map->region(region);
    return r ? r->code : "";
}

api::DaemonStatus build_status(const StatusInputs& in, bool with_peers) {
    api::DaemonStatus s;
    s.version = kLongVersion;
    s.tun = in.tun;
    s.backend_state = in.state;
    s.have_node_key = in.has_node_key;
    s.auth_url = in.auth_url;
    s.health = in.health;
    s.self.host_name = in.hostname;
    s.self.os = "linux";
    if (!in.map) return s;

    const NetMap& map = *in.map;
    s.tailscale_ips = own_addrs(*map.self);
    s.self = node_status(map, *map.self, in.wall);
    if (s.self.host_name.empty()) s.self.host_name = in.hostname;
    if (s.self.os.empty()) s.self.os = "linux";
    s.self.relay = derp_code(&map, in.home_derp);
    s.self.online = in.state == api::State::kRunning || in.state == api::State::kStarting;
    s.self.exit_node_option = in.prefs->advertises_exit_node() && map.self->offers_exit();
    std::vector<std::string> addrs;
    for (const auto& e : in.endpoints) addrs.push_back(e.ep.str());
    s.self.addrs = addrs;
    s.self.peer_api_url.clear();
    for (const Addr& a : s.tailscale_ips)
        if (in.peer_api_port != 0) s.self.peer_api_url.push_back("http://" + Endpoint{a, in.peer_api_port}.str());
    s.magic_dns_suffix = map.magic_dns_suffix();
    s.current_tailnet = api::TailnetStatus{map.domain, s.magic_dns_suffix, map.dns->proxied};
    if (!map.dns->cert_domains.empty()) s.cert_domains = map.dns->cert_domains;
    for (const auto& r : map.dns->extra_records) s.extra_records.push_back({r.name, r.type, r.value});

    std::map<int64_t, api::UserProfile> users;
    const auto add_user = [&](netmap::UserId id) {
        if (const auto* u = map.user(id)) users[id] = api_user(*u);
    };
    add_user(map.self->user);
    if (with_peers) {
        s.peers.emplace();
        const FileTargets targets(map);
        for (const auto& node : map.peers) {
            api::PeerStatus p = node_status(map, *node, in.wall);
            p.in_magic_sock = true;
            p.taildrop_target = static_cast<int>(targets.of(*node, in.state));
            p.exit_node = is_exit_node(*in.prefs, *node);
            if (const auto it = in.engine->peers.find(in.peer_id(node->id)); it != in.engine->peers.end())
                add_traffic(p, it->second, map, in.wall, in.now);
            add_user(node->user);
            s.peers->emplace(node->key, std::move(p));
        }
    }
    s.users = std::move(users);
    if (in.prefs->has_exit_node())
        for (const auto& node : map.peers)
            if (is_exit_node(*in.prefs, *node))
                s.exit_node_status = api::ExitNodeStatus{node->stable_id, node->online.value_or(false), node->addresses};
    return s;
}

api::Node api_node(const Node& n) {
    api::Node out;
    out.id = n.id;
    out.stable_id = n.stable_id;
    out.name = n.name;
    out.user = n.user;
    out.sharer = n.sharer;
    out.key = n.key;
    if (!n.key_expiry.is_zero()) out.key_expiry = n.key_expiry;
    if (!n.machine.is_zero()) out.machine = n.machine;
    if (!n.disco_key.is_zero()) out.disco_key = n.disco_key;
    out.addresses = n.addresses;
    out.allowed_ips = n.allowed_ips;
    out.endpoints = n.endpoints;
    out.home_derp = n.home_derp;
    out.hostinfo_json = n.hostinfo ? n.hostinfo->json : "";
    if (!n.created.is_zero()) out.created = n.created;
    out.cap = n.cap;
    out.tags = n.tags;
    out.primary_routes = n.primary_routes;
    out.last_seen = n.last_seen;
    out.online = n.online;
    out.machine_authorized = n.machine_authorized;
    out.cap_map = api_caps(n.cap_map);
    out.expired = n.expired;
    out.computed_name = std::string(n.host_label());
    out.computed_name_with_host = out.computed_name;
    return out;
}

api::WhoIsResult whois_of(const NetMap& map, const Node& node) {
    api::WhoIsResult w;
    w.node = api_node(node);
    if (const auto* u = map.user(node.user)) w.user = api_user(*u);
    return w;
}

std::string metrics_text(const StatusInputs& in) {
    std::string out;
    const auto head = [&](std::string_view name, std::string_view type, std::string_view help) {
        out += fmt::format("# TYPE {0} {1}\n# HELP {0} {2}\n", name, type, help);
    };
    const auto traffic = [&](std::string_view name, std::string_view key, std::string_view help) {
        head(name, "counter", help);
        for (const char* path : {"derp", "direct_ipv4", "direct_ipv6", "peer_relay_ipv4", "peer_relay_ipv6"}) {
            int64_t value = 0;
            for (const auto& [label, count] : in.engine->traffic)
                if (label == fmt::format("{}/{}", key, path)) value = count;
            out += fmt::format("{}{{path=\"{}\"}} {}\n", name, path, value);
        }
    };
    size_t advertised = in.prefs->advertise_routes ? in.prefs->advertise_routes->size() : 0;
    size_t approved = 0;
    if (in.map && in.prefs->advertise_routes)
        for (const Prefix& r : *in.prefs->advertise_routes)
            approved += static_cast<size_t>(std::count(in.map->self->allowed_ips.begin(), in.map->self->allowed_ips.end(), r));
    head("tailscaled_advertised_routes", "gauge", "Number of advertised network routes (e.g. by a subnet router)");
    out += fmt::format("tailscaled_advertised_routes {}\n", advertised);
    head("tailscaled_approved_routes", "gauge", "Number of approved network routes (e.g. by a subnet router)");
    out += fmt::format("tailscaled_approved_routes {}\n", approved);
    head("tailscaled_health_messages", "gauge", "Number of health messages broken down by type.");
    out += fmt::format("tailscaled_health_messages{{type=\"warning\"}} {}\n", in.health.size());
    head("tailscaled_home_derp_region_id", "gauge", "DERP region ID of this node's home relay server");
    out += fmt::format("tailscaled_home_derp_region_id {}\n", in.home_derp);
    traffic("tailscaled_inbound_bytes_total", "inbound_bytes", "Counts the number of bytes received from other peers");
    const auto drops = [&](std::string_view name, std::string_view prefix, std::string_view help, bool always_error) {
        head(name, "counter", help);
        for (const auto& [reason, count] : in.engine->metric_drops) {
            if (!reason.starts_with(prefix)) continue;
            const std::string label = reason.substr(prefix.size());
            if (count > 0 || (always_error && label == "error")) out += fmt::format("{}{{reason=\"{}\"}} {}\n", name, label, count);
        }
    };
    drops("tailscaled_inbound_dropped_packets_total", "in_", "Counts the number of dropped packets received by the node from other peers", false);
    traffic("tailscaled_inbound_packets_total", "inbound_packets", "Counts the number of packets received from other peers");
    traffic("tailscaled_outbound_bytes_total", "outbound_bytes", "Counts the number of bytes sent to other peers");
    drops("tailscaled_outbound_dropped_packets_total", "out_", "Counts the number of packets dropped while being sent to other peers", true);
    traffic("tailscaled_outbound_packets_total", "outbound_packets", "Counts the number of packets sent to other peers");
    if (!in.engine->relay) return out;
    const RelaySnapshot& relay = *in.engine->relay;
    head("tailscaled_peer_relay_endpoints", "gauge", "Number of allocated Peer Relay endpoints");
    out += fmt::format("tailscaled_peer_relay_endpoints{{state=\"connecting\"}} {}\n", relay.connecting);
    out += fmt::format("tailscaled_peer_relay_endpoints{{state=\"open\"}} {}\n", relay.open);
    const auto forwarded = [&](std::string_view name, std::string_view help, uint64_t RelaySnapshot::Forwarded::*field) {
        head(name, "counter", help);
        for (size_t from = 0; from < 2; ++from)
            for (size_t to = 0; to < 2; ++to)
                out += fmt::format("{}{{transport_in=\"udp{}\",transport_out=\"udp{}\"}} {}\n", name, from == 0 ? 4 : 6, to == 0 ? 4 : 6,
                                   relay.forwarded[from][to].*field);
    };
    forwarded("tailscaled_peer_relay_forwarded_bytes_total", "Number of bytes forwarded via Peer Relay", &RelaySnapshot::Forwarded::bytes);
    forwarded("tailscaled_peer_relay_forwarded_packets_total", "Number of packets forwarded via Peer Relay", &RelaySnapshot::Forwarded::packets);
    return out;
}

std::string drops_json(const EngineSnapshot& engine) {
    api::JsonText out;
    out.open_object();
    for (const auto& [reason, count] : engine.drops) out.field(reason, static_cast<int64_t>(count));
    out.close_object();
    return out.take();
}

}  // namespace mesh::daemon
