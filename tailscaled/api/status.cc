// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/api/status.h"

#include <algorithm>

#include "base/json_split.h"
#include "tailscaled/api/read_json.h"

namespace mesh::api {
namespace {

using Empty = JsonText::Empty;

/// Tells programs that the list beside it is old; every daemon of this kind sends it first.
constexpr std::string_view kCapabilitiesMarker =
    "HTTPS://TAILSCALE.COM/s/DEPRECATED-NODE-CAPS#see-https://github.com/tailscale/tailscale/issues/11508";

void write_peer(JsonText& out, const PeerStatus& p) {
    out.open_object();
    out.field("ID", p.id).field("NodeID", p.node_id).field("PublicKey", p.public_key.text());
    out.field("HostName", p.host_name).field("DNSName", p.dns_name).field("OS", p.os).field("UserID", p.user_id);
    if (p.alt_sharer_user_id != 0) out.field("AltSharerUserID", p.alt_sharer_user_id);
    out.list("TailscaleIPs", p.tailscale_ips, Empty::kNull);
    out.list("AllowedIPs", p.allowed_ips, Empty::kOmit);
    out.list("Tags", p.tags, Empty::kOmit);
    out.list("PrimaryRoutes", p.primary_routes, Empty::kOmit);
    if (p.addrs)
        out.list("Addrs", *p.addrs, Empty::kArray);
    else
        out.key("Addrs").null();
    out.field("CurAddr", p.cur_addr).field("Relay", p.relay).field("PeerRelay", p.peer_relay);
    out.field("RxBytes", p.rx_bytes).field("TxBytes", p.tx_bytes);
    out.field("Created", p.created).field("LastWrite", p.last_write).field("LastSeen", p.last_seen);
    out.field("LastHandshake", p.last_handshake);
    out.field("Online", p.online).field("ExitNode", p.exit_node).field("ExitNodeOption", p.exit_node_option);
    out.field("Active", p.active);
    out.list("PeerAPIURL", p.peer_api_url, Empty::kNull);
    out.field("TaildropTarget", p.taildrop_target).field("NoFileSharingReason", p.no_file_sharing_reason);
    if (!p.capabilities.empty()) {
        out.key("Capabilities").open_array().text(kCapabilitiesMarker);
        for (const std::string& c : p.capabilities) out.text(c);
        out.close_array();
    }
    if (!p.cap_map.empty()) {
        out.key("CapMap");
        write_cap_map(out, p.cap_map);
    }
    out.list("sshHostKeys", p.ssh_host_keys, Empty::kOmit);
    if (p.sharee_node) out.field("ShareeNode", true);
    out.field("InNetworkMap", p.in_network_map).field("InMagicSock", p.in_magic_sock).field("InEngine", p.in_engine);
    if (p.expired) out.field("Expired", true);
    if (p.key_expiry) out.field("KeyExpiry", *p.key_expiry);
    if (!p.location_json.empty()) out.raw_field("Location", p.location_json);
    out.close_object();
}

PeerStatus read_peer(const Json& j) {
    PeerStatus p;
    p.id = json::str(j, "ID");
    p.node_id = json::integer(j, "NodeID");
    p.public_key = NodePublic::parse(json::str(j, "PublicKey")).value_or(NodePublic{});
    p.host_name = json::str(j, "HostName");
    p.dns_name = json::str(j, "DNSName");
    p.os = json::str(j, "OS");
    p.user_id = json::integer(j, "UserID");
    p.alt_sharer_user_id = json::integer(j, "AltSharerUserID");
    p.tailscale_ips = read_list<Addr>(j, "TailscaleIPs");
    p.allowed_ips = read_list<Prefix>(j, "AllowedIPs");
    p.tags = json::strings(j, "Tags");
    p.primary_routes = read_list<Prefix>(j, "PrimaryRoutes");
    if (json::find(j, "Addrs")) p.addrs = json::strings(j, "Addrs");
    p.cur_addr = json::str(j, "CurAddr");
    p.relay = json::str(j, "Relay");
    p.peer_relay = json::str(j, "PeerRelay");
    p.rx_bytes = json::integer(j, "RxBytes");
    p.tx_bytes = json::integer(j, "TxBytes");
    p.created = read_time(j, "Created");
    p.last_write = read_time(j, "LastWrite");
    p.last_seen = read_time(j, "LastSeen");
    p.last_handshake = read_time(j, "LastHandshake");
    p.online = json::boolean(j, "Online");
    p.exit_node = json::boolean(j, "ExitNode");
    p.exit_node_option = json::boolean(j, "ExitNodeOption");
    p.active = json::boolean(j, "Active");
    p.peer_api_url = json::strings(j, "PeerAPIURL");
    p.taildrop_target = static_cast<int>(std::clamp<int64_t>(json::integer(j, "TaildropTarget"), 0, 99));
    p.no_file_sharing_reason = json::str(j, "NoFileSharingReason");
    p.capabilities = json::strings(j, "Capabilities");
    if (!p.capabilities.empty() && p.capabilities[0] == kCapabilitiesMarker)
        p.capabilities.erase(p.capabilities.begin());
    p.cap_map = read_cap_map(j, "CapMap");
    p.ssh_host_keys = json::strings(j, "sshHostKeys");
    p.sharee_node = json::boolean(j, "ShareeNode");
    p.in_network_map = json::boolean(j, "InNetworkMap");
    p.in_magic_sock = json::boolean(j, "InMagicSock");
    p.in_engine = json::boolean(j, "InEngine");
    p.expired = json::boolean(j, "Expired");
    if (json::find(j, "KeyExpiry")) p.key_expiry = json::parse_time(json::str(j, "KeyExpiry"));
    if (const Json* l = json::find(j, "Location")) p.location_json = json::dump(*l);
    return p;
}

void write_users(JsonText& out, const std::map<int64_t, UserProfile>& users) {
    // Keys of a JSON object sort as text: "10" before "2".
    std::map<std::string, const UserProfile*> sorted;
    for (const auto& [id, user] : users) sorted.emplace(std::to_string(id), &user);
    out.open_object();
    for (const auto& [id, user] : sorted) {
        out.key(id);
        write_user_profile(out, *user);
    }
    out.close_object();
}

void write_tailnet(JsonText& out, const std::optional<TailnetStatus>& t) {
    out.key("CurrentTailnet");
    if (!t) {
        out.null();
        return;
    }
    out.open_object().field("Name", t->name).field("MagicDNSSuffix", t->magic_dns_suffix);
    out.field("MagicDNSEnabled", t->magic_dns_enabled).close_object();
}

}  // namespace

void write_cap_map(JsonText& out, const CapMap& caps) {
    if (caps.empty()) {
        out.null();
        return;
    }
    out.open_object();
    for (const auto& [name, arguments] : caps) out.raw_field(name, arguments);
    out.close_object();
}

UserProfile read_user_profile(const Json& j) {
    return {json::integer(j, "ID"), json::str(j, "LoginName"), json::str(j, "DisplayName"),
            json::str(j, "ProfilePicURL")};
}

WallTime read_time(const Json& j, const char* key) {
    return json::parse_time(json::str(j, key)).value_or(WallTime{});
}

CapMap read_cap_map(const Json& j, const char* key) {
    CapMap out;
    const Json* m = json::find(j, key);
    if (m && m->is_object())
        for (const auto& [name, arguments] : m->items()) out[name] = json::dump(arguments);
    return out;
}

void write_status(JsonText& out, const DaemonStatus& s) {
    out.open_object();
    out.field("Version", s.version).field("TUN", s.tun).field("BackendState", state_name(s.backend_state));
    if (s.have_node_key) out.field("HaveNodeKey", true);
    out.field("AuthURL", s.auth_url);
    out.list("TailscaleIPs", s.tailscale_ips, Empty::kNull);
    out.key("Self");
    write_peer(out, s.self);
    if (s.exit_node_status) {
        out.key("ExitNodeStatus").open_object();
        out.field("ID", s.exit_node_status->id).field("Online", s.exit_node_status->online);
        out.list("TailscaleIPs", s.exit_node_status->tailscale_ips, Empty::kNull).close_object();
    }
    out.list("Health", s.health, Empty::kArray);
    out.field("MagicDNSSuffix", s.magic_dns_suffix);
    write_tailnet(out, s.current_tailnet);
    if (s.cert_domains)
        out.list("CertDomains", *s.cert_domains, Empty::kArray);
    else
        out.key("CertDomains").null();
    out.key("ExtraRecords");
    if (s.extra_records.empty()) {
        out.null();
    } else {
        out.open_array();
        for (const DnsRecord& r : s.extra_records) {
            out.open_object().field("Name", r.name);
            if (!r.type.empty()) out.field("Type", r.type);
            out.field("Value", r.value).close_object();
        }
        out.close_array();
    }
    out.key("Peer");
    if (!s.peers) {
        out.null();
    } else {
        out.open_object();
        for (const auto& [key, peer] : *s.peers) {
            out.key(key.text());
            write_peer(out, peer);
        }
        out.close_object();
    }
    out.key("User");
    if (s.users)
        write_users(out, *s.users);
    else
        out.null();
    out.key("ClientVersion").null();
    out.close_object();
}

std::string status_json(const DaemonStatus& status, std::string_view indent) {
    JsonText out(indent);
    write_status(out, status);
    return out.take();
}

Result<DaemonStatus> parse_status(std::string_view text) {
    DaemonStatus s;
    // Peers and users one by one: in a tree that keeps its order, 10,000 members of one object cost seconds.
    std::string rest = "{";
    TRY(json::split_object(text, [&](std::string_view name, std::string_view value) -> Status {
        if (name == "Peer" && json::is_object(value)) {
            s.peers.emplace();
            return json::split_object(value, [&](std::string_view key, std::string_view peer) -> Status {
                TRY_ASSIGN(const Json j, json::parse_piece(peer));
                if (const auto k = NodePublic::parse(key)) s.peers->emplace(*k, read_peer(j));
                return {};
            });
        }
        if (name == "User" && json::is_object(value)) {
            s.users.emplace();
            return json::split_object(value, [&](std::string_view, std::string_view user) -> Status {
                TRY_ASSIGN(const Json j, json::parse_piece(user));
                s.users->emplace(json::integer(j, "ID"), read_user_profile(j));
                return {};
            });
        }
        rest += rest.size() > 1 ? ",\"" : "\"";
        rest.append(name).append("\":").append(value);
        return {};
    }));
    TRY_ASSIGN(const Json j, json::parse(rest + "}"));
    s.version = json::str(j, "Version");
    s.tun = json::boolean(j, "TUN");
    s.backend_state = parse_state(json::str(j, "BackendState")).value_or(State::kNoState);
    s.have_node_key = json::boolean(j, "HaveNodeKey");
    s.auth_url = json::str(j, "AuthURL");
    s.tailscale_ips = read_list<Addr>(j, "TailscaleIPs");
    if (const Json* self = json::find(j, "Self")) s.self = read_peer(*self);
    if (const Json* e = json::find(j, "ExitNodeStatus"))
        s.exit_node_status = {json::str(*e, "ID"), json::boolean(*e, "Online"),
                              read_list<Prefix>(*e, "TailscaleIPs")};
    s.health = json::strings(j, "Health");
    s.magic_dns_suffix = json::str(j, "MagicDNSSuffix");
    if (const Json* t = json::find(j, "CurrentTailnet"))
        s.current_tailnet = {json::str(*t, "Name"), json::str(*t, "MagicDNSSuffix"),
                             json::boolean(*t, "MagicDNSEnabled")};
    if (json::find(j, "CertDomains")) s.cert_domains = json::strings(j, "CertDomains");
    if (const Json* records = json::find(j, "ExtraRecords"); records && records->is_array())
        for (const Json& r : *records)
            s.extra_records.push_back({json::str(r, "Name"), json::str(r, "Type"), json::str(r, "Value")});
    return s;
}

}  // namespace mesh::api
