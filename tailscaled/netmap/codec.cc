// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/netmap/codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace mesh::netmap {
namespace {

constexpr std::string_view kLegacyDerpPrefix = "127.3.3.40:";

WallTime time_of(const Json& j, const char* key) {
    return json::parse_time(json::str(j, key)).value_or(WallTime{});
}

std::optional<WallTime> opt_time_of(const Json& j, const char* key) {
    const Json* v = json::find(j, key);
    if (!v || !v->is_string()) return std::nullopt;
    return json::parse_time(v->get_ref<const std::string&>());
}

std::vector<Prefix> prefixes_of(const Json& j, const char* key) {
    std::vector<Prefix> out;
    const Json* list = json::find(j, key);
    if (!list || !list->is_array()) return out;
    out.reserve(std::min(list->size(), kMaxListPerNode));
    for (const Json& e : *list) {
        if (out.size() == kMaxListPerNode) break;
        if (!e.is_string()) continue;
        if (const auto p = Prefix::parse(e.get_ref<const std::string&>())) out.push_back(*p);
    }
    return out;
}

std::vector<std::string> strings_of(const Json& j, const char* key) {
    std::vector<std::string> out = json::strings(j, key);
    if (out.size() > kMaxListPerNode) out.resize(kMaxListPerNode);
    return out;
}

/// False if present and malformed.
template <class Key>
bool read_key(const Json& j, const char* name, Key& out) {
    const std::string text = json::str(j, name);
    if (text.empty()) return true;
    const auto k = Key::parse(text);
    if (!k) return false;
    out = *k;
    return true;
}

int int_of(const Json& j, const char* key) {
    const int64_t v = json::integer(j, key);
    return v > INT32_MAX || v < INT32_MIN ? 0 : static_cast<int>(v);
}

uint16_t port_of(const Json& j, const char* key) {
    const int64_t v = json::integer(j, key);
    return v < 0 || v > 65535 ? uint16_t{0} : static_cast<uint16_t>(v);
}

int legacy_derp(std::string_view text) {
    if (!text.starts_with(kLegacyDerpPrefix)) return 0;
    text.remove_prefix(kLegacyDerpPrefix.size());
    int region = 0;
    const auto r = std::from_chars(text.data(), text.data() + text.size(), region);
    return r.ec == std::errc() && r.ptr == text.data() + text.size() && region > 0 ? region : 0;
}

std::shared_ptr<const PeerHostinfo> parse_hostinfo(const Json* j) {
    static const auto empty = std::make_shared<const PeerHostinfo>();
    if (!j || !j->is_object()) return empty;
    auto h = std::make_shared<PeerHostinfo>();
    h->json = json::dump(*j);
    h->json.shrink_to_fit();  // there may be 10,000 of these
    h->hostname = json::str(*j, "Hostname");
    h->os = json::str(*j, "OS");
    h->app = json::str(*j, "App");
    h->exit_node_id = json::str(*j, "ExitNodeID");
    h->routable_ips = prefixes_of(*j, "RoutableIPs");
    h->ssh_host_keys = strings_of(*j, "sshHostKeys");
    h->shields_up = json::boolean(*j, "ShieldsUp");
    h->sharee_node = json::boolean(*j, "ShareeNode");
    h->peer_relay = json::boolean(*j, "PeerRelay");
    if (const Json* list = json::find(*j, "Services"); list && list->is_array()) {
        h->services.reserve(std::min(list->size(), kMaxListPerNode));
        for (const Json& s : *list) {
            if (h->services.size() == kMaxListPerNode) break;
            h->services.push_back({json::str(s, "Proto"), port_of(s, "Port"), json::str(s, "Description")});
        }
    }
    return h;
}

std::vector<Resolver> parse_resolvers(const Json* list) {
    std::vector<Resolver> out;
    if (!list || !list->is_array()) return out;
    for (const Json& j : *list) {
        if (out.size() == kMaxListPerNode) break;
        if (!j.is_object()) continue;
        Resolver r;
        r.addr = json::str(j, "Addr");
        for (const std::string& a : json::strings(j, "BootstrapResolution"))
            if (const auto addr = Addr::parse(a)) r.bootstrap.push_back(*addr);
        r.use_with_exit_node = json::boolean(j, "UseWithExitNode");
        out.push_back(std::move(r));
    }
    return out;
}

template <class T>
Json text_list(const std::vector<T>& list) {
    Json out = Json::array();
    for (const T& e : list) out.push_back(e.str());
    return out;
}

Json resolver_list(const std::vector<Resolver>& list) {
    Json out = Json::array();
    for (const Resolver& r : list) out.push_back(to_json(r));
    return out;
}

/// Text that was JSON when it came in.
Json raw(const std::string& text) { return json::parse(text).value_or(Json()); }

}  // namespace

CapMap parse_cap_map(const Json& j) {
    CapMap out;
    if (!j.is_object()) return out;
    out.entries.reserve(j.size());
    for (const auto& [name, values] : j.items()) {
        std::vector<std::string> texts;
        if (values.is_array())
            for (const Json& v : values) texts.push_back(json::dump(v));
        out.entries.emplace_back(name, std::move(texts));
    }
    std::sort(out.entries.begin(), out.entries.end());
    const auto same_name = [](const auto& a, const auto& b) { return a.first == b.first; };
    out.entries.erase(std::unique(out.entries.begin(), out.entries.end(), same_name), out.entries.end());
    return out;
}

Json to_json(const CapMap& c) {
    Json out = Json::object();
    for (const auto& [name, values] : c.entries) {
        Json list = Json::array();
        for (const std::string& v : values) list.push_back(raw(v));
        out[name] = std::move(list);
    }
    return out;
}

std::vector<Endpoint> parse_endpoints(const Json& j) {
    std::vector<Endpoint> out;
    if (!j.is_array()) return out;
    out.reserve(std::min(j.size(), kMaxListPerNode));
    for (const Json& e : j) {
        if (out.size() == kMaxListPerNode) break;
        if (!e.is_string()) continue;
        if (const auto ep = Endpoint::parse(e.get_ref<const std::string&>())) out.push_back(*ep);
    }
    return out;
}

Result<Node> parse_node(const Json& j) {
    if (!j.is_object()) return fail(Code::kInvalid, "a node is not an object");
    Node n;
    n.id = json::integer(j, "ID");
    if (n.id <= 0) return fail(Code::kInvalid, "a node has no ID");
    if (!read_key(j, "Key", n.key) || !read_key(j, "Machine", n.machine) || !read_key(j, "DiscoKey", n.disco_key))
        return fail(Code::kInvalid, fmt::format("node {} has a malformed key", n.id));
    n.stable_id = json::str(j, "StableID");
    n.name = json::str(j, "Name");
    n.user = json::integer(j, "User");
    n.sharer = json::integer(j, "Sharer");
    n.key_expiry = time_of(j, "KeyExpiry");
    n.expired = json::boolean(j, "Expired");
    n.key_signature = base64_decode(json::str(j, "KeySignature")).value_or(Bytes{});
    n.addresses = prefixes_of(j, "Addresses");
    n.unsigned_peerapi_only = json::boolean(j, "UnsignedPeerAPIOnly");
    // Absent or null means "its own addresses" (since version 112); [] means nothing.
    n.allowed_ips = json::find(j, "AllowedIPs") && !n.unsigned_peerapi_only ? prefixes_of(j, "AllowedIPs") : n.addresses;
    n.primary_routes = prefixes_of(j, "PrimaryRoutes");
    if (const Json* e = json::find(j, "Endpoints")) n.endpoints = parse_endpoints(*e);
    n.home_derp = std::max(0, int_of(j, "HomeDERP"));
    if (n.home_derp == 0) n.home_derp = legacy_derp(json::str(j, "DERP"));
    n.hostinfo = parse_hostinfo(json::find(j, "Hostinfo"));
    n.created = time_of(j, "Created");
    n.cap = int_of(j, "Cap");
    n.tags = strings_of(j, "Tags");
    n.last_seen = opt_time_of(j, "LastSeen");
    n.online = json::opt_bool(j, "Online");
    n.machine_authorized = json::boolean(j, "MachineAuthorized");
    if (const Json* c = json::find(j, "CapMap")) n.cap_map = parse_cap_map(*c);
    std::vector<std::string> old_caps = strings_of(j, "Capabilities");
    if (old_caps.size() > 1024) old_caps.resize(1024);
    for (const std::string& c : old_caps)
        if (!n.cap_map.has(c)) n.cap_map.set(c, {});
    n.data_plane_audit_log_id = json::str(j, "DataPlaneAuditLogID");
    n.masq_v4 = Addr::parse(json::str(j, "SelfNodeV4MasqAddrForThisPeer")).value_or(Addr{});
    n.masq_v6 = Addr::parse(json::str(j, "SelfNodeV6MasqAddrForThisPeer")).value_or(Addr{});
    n.wireguard_only = json::boolean(j, "IsWireGuardOnly");
    n.jailed = json::boolean(j, "IsJailed");
    n.exit_node_resolvers = parse_resolvers(json::find(j, "ExitNodeDNSResolvers"));
    return n;
}

Json to_json(const Node& n) {
    Json j = Json::object();
    j["ID"] = n.id;
    j["StableID"] = n.stable_id;
    j["Name"] = n.name;
    j["User"] = n.user;
    if (n.sharer != 0) j["Sharer"] = n.sharer;
    j["Key"] = n.key.text();
    if (!n.key_expiry.is_zero()) j["KeyExpiry"] = json::time_text(n.key_expiry);
    if (!n.key_signature.empty()) j["KeySignature"] = base64_encode(n.key_signature);
    if (!n.machine.is_zero()) j["Machine"] = n.machine.text();
    if (!n.disco_key.is_zero()) j["DiscoKey"] = n.disco_key.text();
    j["Addresses"] = n.addresses.empty() ? Json() : text_list(n.addresses);
    j["AllowedIPs"] = text_list(n.allowed_ips);
    if (!n.endpoints.empty()) j["Endpoints"] = text_list(n.endpoints);
    if (n.home_derp != 0) j["HomeDERP"] = n.home_derp;
    if (n.hostinfo && !n.hostinfo->json.empty()) j["Hostinfo"] = raw(n.hostinfo->json);
    if (!n.created.is_zero()) j["Created"] = json::time_text(n.created);
    if (n.cap != 0) j["Cap"] = n.cap;
    if (!n.tags.empty()) j["Tags"] = n.tags;
    if (!n.primary_routes.empty()) j["PrimaryRoutes"] = text_list(n.primary_routes);
    if (n.last_seen) j["LastSeen"] = json::time_text(*n.last_seen);
    if (n.online) j["Online"] = *n.online;
    if (n.machine_authorized) j["MachineAuthorized"] = true;
    if (!n.cap_map.entries.empty()) j["CapMap"] = to_json(n.cap_map);
    if (n.unsigned_peerapi_only) j["UnsignedPeerAPIOnly"] = true;
    if (!n.name.empty()) {
        const std::string label(n.host_label());
        const bool differs = n.hostinfo && !n.hostinfo->hostname.empty() && n.hostinfo->hostname != label;
        j["ComputedName"] = label;
        j["ComputedNameWithHost"] = differs ? fmt::format("{} ({})", label, n.hostinfo->hostname) : label;
    }
    if (!n.data_plane_audit_log_id.empty()) j["DataPlaneAuditLogID"] = n.data_plane_audit_log_id;
    if (n.expired) j["Expired"] = true;
    if (n.masq_v4.is_valid()) j["SelfNodeV4MasqAddrForThisPeer"] = n.masq_v4.str();
    if (n.masq_v6.is_valid()) j["SelfNodeV6MasqAddrForThisPeer"] = n.masq_v6.str();
    if (n.wireguard_only) j["IsWireGuardOnly"] = true;
    if (n.jailed) j["IsJailed"] = true;
    if (!n.exit_node_resolvers.empty()) j["ExitNodeDNSResolvers"] = resolver_list(n.exit_node_resolvers);
    return j;
}

UserProfile parse_user_profile(const Json& j) {
    UserProfile u;
    u.id = json::integer(j, "ID");
    u.login_name = json::str(j, "LoginName");
    u.display_name = json::str(j, "DisplayName");
    u.profile_pic_url = json::str(j, "ProfilePicURL");
    u.groups = strings_of(j, "Groups");
    return u;
}

Json to_json(const UserProfile& u) {
    Json j = Json::object();
    j["ID"] = u.id;
    j["LoginName"] = u.login_name;
    j["DisplayName"] = u.display_name;
    if (!u.profile_pic_url.empty()) j["ProfilePicURL"] = u.profile_pic_url;
    if (!u.groups.empty()) j["Groups"] = u.groups;
    return j;
}

Json to_json(const Resolver& r) {
    Json j = Json::object();
    if (!r.addr.empty()) j["Addr"] = r.addr;
    if (!r.bootstrap.empty()) j["BootstrapResolution"] = text_list(r.bootstrap);
    if (r.use_with_exit_node) j["UseWithExitNode"] = true;
    return j;
}

DnsConfig parse_dns_config(const Json& j) {
    DnsConfig d;
    d.resolvers = parse_resolvers(json::find(j, "Resolvers"));
    if (const Json* routes = json::find(j, "Routes"); routes && routes->is_object())
        for (const auto& [suffix, list] : routes->items()) d.routes[suffix] = parse_resolvers(&list);
    d.fallback_resolvers = parse_resolvers(json::find(j, "FallbackResolvers"));
    d.domains = strings_of(j, "Domains");
    d.proxied = json::boolean(j, "Proxied");
    for (const std::string& a : json::strings(j, "Nameservers"))
        if (const auto addr = Addr::parse(a)) d.nameservers.push_back(*addr);
    d.cert_domains = strings_of(j, "CertDomains");
    if (const Json* list = json::find(j, "ExtraRecords"); list && list->is_array())
        for (const Json& r : *list)
            if (r.is_object() && d.extra_records.size() < kMaxListPerNode)
                d.extra_records.push_back({json::str(r, "Name"), json::str(r, "Type"), json::str(r, "Value")});
    d.exit_node_filtered_set = strings_of(j, "ExitNodeFilteredSet");
    return d;
}

Json to_json(const DnsConfig& d) {
    Json j = Json::object();
    if (!d.resolvers.empty()) j["Resolvers"] = resolver_list(d.resolvers);
    if (!d.routes.empty()) {
        Json routes = Json::object();
        for (const auto& [suffix, list] : d.routes) routes[suffix] = resolver_list(list);
        j["Routes"] = std::move(routes);
    }
    if (!d.fallback_resolvers.empty()) j["FallbackResolvers"] = resolver_list(d.fallback_resolvers);
    if (!d.domains.empty()) j["Domains"] = d.domains;
    if (d.proxied) j["Proxied"] = true;
    if (!d.nameservers.empty()) j["Nameservers"] = text_list(d.nameservers);
    if (!d.cert_domains.empty()) j["CertDomains"] = d.cert_domains;
    if (!d.extra_records.empty()) {
        Json list = Json::array();
        for (const DnsRecord& r : d.extra_records) {
            Json e = Json::object();
            e["Name"] = r.name;
            if (!r.type.empty()) e["Type"] = r.type;
            e["Value"] = r.value;
            list.push_back(std::move(e));
        }
        j["ExtraRecords"] = std::move(list);
    }
    if (!d.exit_node_filtered_set.empty()) j["ExitNodeFilteredSet"] = d.exit_node_filtered_set;
    return j;
}

DisplayMessage parse_display_message(const Json& j) {
    DisplayMessage m;
    m.title = json::str(j, "Title");
    m.text = json::str(j, "Text");
    m.severity = json::str(j, "Severity");
    m.impacts_connectivity = json::boolean(j, "ImpactsConnectivity");
    if (const Json* a = json::find(j, "PrimaryAction")) {
        m.action_url = json::str(*a, "URL");
        m.action_label = json::str(*a, "Label");
    }
    return m;
}

ClientVersion parse_client_version(const Json& j) {
    ClientVersion v;
    v.running_latest = json::boolean(j, "RunningLatest");
    v.latest_version = json::str(j, "LatestVersion");
    v.urgent_security_update = json::boolean(j, "UrgentSecurityUpdate");
    v.notify = json::boolean(j, "Notify");
    v.notify_url = json::str(j, "NotifyURL");
    v.notify_text = json::str(j, "NotifyText");
    return v;
}

std::optional<netstack::FilterRule> parse_filter_rule(const Json& j, size_t& errors) {
    netstack::FilterRule rule;
    if (const Json* bits = json::find(j, "SrcBits"); bits && !bits->empty()) return std::nullopt;
    for (const std::string& s : json::strings(j, "SrcIPs"))
        if (rule.src.size() > kMaxListPerNode || !netstack::parse_source(s, rule)) ++errors;
    if (const Json* list = json::find(j, "DstPorts"); list && list->is_array()) {
        std::vector<Prefix> prefixes;
        for (const Json& d : *list) {
            if (json::find(d, "Bits")) return std::nullopt;
            const Json* ports = json::find(d, "Ports");
            const int64_t first = ports ? json::integer(*ports, "First") : 0;
            const int64_t last = ports ? json::integer(*ports, "Last") : 0;
            prefixes.clear();
            if (rule.dst.size() > kMaxListPerNode || !netstack::parse_ip_set(json::str(d, "IP"), prefixes) || first < 0 ||
                last > 65535 || first > last) {
                ++errors;
                continue;
            }
            for (const Prefix& p : prefixes)
                rule.dst.push_back({p, {static_cast<uint16_t>(first), static_cast<uint16_t>(last)}});
        }
    }
    bool protos_given = false;
    if (const Json* list = json::find(j, "IPProto"); list && list->is_array()) {
        for (const Json& p : *list) {
            protos_given = true;
            if (!p.is_number_integer() || p.get<int64_t>() < 0 || p.get<int64_t>() > 255) continue;
            const auto proto = static_cast<uint8_t>(p.get<int64_t>());
            if (std::find(rule.protos.begin(), rule.protos.end(), proto) == rule.protos.end())
                rule.protos.push_back(proto);
        }
    }
    // Only protocols outside 0–255: the list is not "all the usual ones" but nothing.
    if (protos_given && rule.protos.empty()) rule.dst.clear();
    if (const Json* list = json::find(j, "CapGrant"); list && list->is_array()) {
        for (const Json& g : *list) {
            if (!g.is_object() || rule.grants.size() > kMaxListPerNode) continue;
            netstack::CapGrant grant;
            grant.dsts = prefixes_of(g, "Dsts");
            if (const Json* caps = json::find(g, "CapMap"); caps && caps->is_object())
                for (const auto& [name, values] : caps->items())
                    grant.caps.emplace_back(name, values.is_array() ? json::dump(values) : "[]");
            for (const std::string& name : json::strings(g, "Caps")) grant.caps.emplace_back(name, "[]");
            rule.grants.push_back(std::move(grant));
        }
    }
    return rule;
}

}  // namespace mesh::netmap
