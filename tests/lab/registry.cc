// SPDX-License-Identifier: BSD-3-Clause
#include "tests/lab/registry.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "base/log.h"

namespace mesh::lab {
namespace {

constexpr int kMinVersion = 113;
constexpr int kNodeVersion = 130;  // of every node, as told to the others: like Headscale, not what the node said
constexpr size_t kMaxBody = 1U << 20;
constexpr size_t kMaxLogins = 1024;
constexpr int64_t kUser = 1;

std::string error_body(const std::string& text) {
    Json j = Json::object();
    j["Error"] = text;
    return json::dump(j);
}

bool contains(const std::vector<std::string>& list, const std::string& v) {
    return std::find(list.begin(), list.end(), v) != list.end();
}

std::set<Prefix> offered_routes(const LabNode& n) {
    std::set<Prefix> out;
    for (const std::string& text : json::strings(n.hostinfo, "RoutableIPs"))
        if (const auto p = Prefix::parse(text)) out.insert(p->masked());
    return out;
}

std::string dns_label(const std::string& hostname) {
    std::string out;
    for (char c : hostname.substr(0, hostname.find('.'))) {
        const auto lower = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
        out += std::isalnum(static_cast<unsigned char>(c)) ? lower : '-';
    }
    return out.substr(0, 60);
}

Json single_json(const Addr& a) { return Prefix::single(a).str(); }

}  // namespace

LabNode* Registry::by_key(const NodePublic& key) {
    for (auto& [id, n] : nodes_)
        if (n.key == key) return &n;
    return nullptr;
}

LabNode* Registry::by_machine(const MachinePublic& machine) {
    for (auto& [id, n] : nodes_)
        if (n.machine == machine) return &n;
    return nullptr;
}

std::string Registry::success_body() const {
    Json user = Json::object();
    user["ID"] = kUser;
    user["DisplayName"] = "lab";
    Json login = Json::object();
    login["ID"] = kUser;
    login["Provider"] = "";
    login["LoginName"] = "lab";
    login["DisplayName"] = "lab";
    Json j = Json::object();
    j["User"] = std::move(user);
    j["Login"] = std::move(login);
    j["NodeKeyExpired"] = false;
    j["MachineAuthorized"] = true;
    j["AuthURL"] = "";
    j["NodeKeySignature"] = Json();
    j["Error"] = "";
    return json::dump(j);
}

Registry::Answer Registry::on_register(const MachinePublic& machine, std::string_view body, WallTime now) {
    const auto parsed = json::parse(body, kMaxBody);
    const int64_t version = parsed ? json::integer(*parsed, "Version") : 0;
    if (version < kMinVersion) return {400, fmt::format("unsupported client version: ({})", version), ""};
    const auto key = NodePublic::parse(json::str(*parsed, "NodeKey"));
    if (!key || key->is_zero()) return {200, error_body("invalid node key"), ""};
    LabNode* known = by_key(*key);
    if (known && known->machine != machine) return {200, error_body("node exists with a different machine key"), ""};

    const auto expiry = json::parse_time(json::str(*parsed, "Expiry"));
    if (known && expiry && !expiry->is_zero() && *expiry < now) {
        log(fmt::format("{} logged out", known->name));
        if (known->ephemeral)
            remove(known->id, now);
        else
            expire(known->id, now);
        return {200, R"({"NodeKeyExpired":true,"MachineAuthorized":false})", ""};
    }
    const Json* auth = json::find(*parsed, "Auth");
    const std::string auth_key = auth ? json::str(*auth, "AuthKey") : "";
    if (known && !known->expired) return {200, success_body(), ""};
    if (known && auth_key.empty()) return {200, R"({"NodeKeyExpired":true})", ""};

    const bool keys_needed = !options_.auth_keys.empty() || !options_.ephemeral_keys.empty();
    if (!auth_key.empty()) {
        const bool ephemeral = contains(options_.ephemeral_keys, auth_key);
        if (keys_needed && !ephemeral && !contains(options_.auth_keys, auth_key)) {
            log("refused a registration: unknown auth key");
            return {200, error_body("invalid pre auth key"), ""};
        }
        admit(machine, *key, *parsed, ephemeral, now);
        return {200, success_body(), ""};
    }
    if (!options_.require_login && !keys_needed) {
        admit(machine, *key, *parsed, json::boolean(*parsed, "Ephemeral"), now);
        return {200, success_body(), ""};
    }

    const std::string prefix = options_.base_url + "/register/";
    const std::string followup = json::str(*parsed, "Followup");
    if (followup.starts_with(prefix)) {
        const std::string id = followup.substr(prefix.size());
        const auto it = logins_.find(id);
        if (it != logins_.end() && it->second.key == *key && it->second.machine == machine) {
            if (!it->second.approved) return {200, "", id};
            logins_.erase(it);
            admit(machine, *key, *parsed, false, now);
            return {200, success_body(), ""};
        }
    }
    if (logins_.size() >= kMaxLogins) return {200, error_body("too many logins are pending"), ""};
    std::array<uint8_t, 12> raw{};
    random_.fill(raw);
    const std::string id = "lab-" + hex_encode(raw);
    logins_[id] = {*key, machine, false};
    log(fmt::format("login: open {}{}", prefix, id));
    Json j = Json::object();
    j["AuthURL"] = prefix + id;
    return {200, json::dump(j), ""};
}

bool Registry::approve_login(const std::string& id) {
    const auto it = logins_.find(id);
    if (it == logins_.end()) return false;
    it->second.approved = true;
    log(fmt::format("login {} approved", id));
    return true;
}

bool Registry::login_pending(const std::string& id) const {
    const auto it = logins_.find(id);
    return it != logins_.end() && !it->second.approved;
}

/// A returning machine keeps its node: ID, addresses, name.
LabNode& Registry::admit(const MachinePublic& machine, const NodePublic& key, const Json& request, bool ephemeral,
                         WallTime now) {
    LabNode* n = by_machine(machine);
    const bool fresh = n == nullptr;
    if (fresh) {
        LabNode node;
        node.id = next_id_++;
        node.machine = machine;
        node.created = now;
        node.v4 = allocate(options_.v4);
        if (options_.v6) node.v6 = allocate(*options_.v6);
        const NodeId id = node.id;
        n = &nodes_.emplace(id, std::move(node)).first->second;
    }
    n->key = key;
    n->expired = false;
    n->key_expiry = {};
    n->ephemeral = ephemeral;
    if (const Json* h = json::find(request, "Hostinfo"); h && h->is_object()) n->hostinfo = *h;
    if (fresh) n->name = unique_name(json::str(n->hostinfo, "Hostname"), n->id);
    auto_approve(*n);
    log(fmt::format("{} {} as {} {}", n->name, fresh ? "joined" : "logged in again", n->v4.str(), short_key(n->key)));
    tell_changed(*n, now);
    tell_self(*n, now);
    return *n;
}

void Registry::add_crowd(int count, WallTime now) {
    for (int i = 0; i < count; ++i) {
        LabNode n;
        n.v4 = allocate(options_.v4);
        if (options_.v6) n.v6 = allocate(*options_.v6);
        n.id = next_id_++;
        n.machine = MachinePrivate::generate(random_).public_key();
        n.key = NodePrivate::generate(random_).public_key();
        n.disco = DiscoPrivate::generate(random_).public_key();
        n.name = fmt::format("crowd-{}", n.id);
        n.hostinfo["OS"] = "linux";
        n.hostinfo["Hostname"] = n.name;
        n.endpoints = {fmt::format("198.18.{}.{}:41641", n.id / 256 % 256, n.id % 256), fmt::format("192.168.1.{}:41641", n.id % 256)};
        n.home_derp = 1;
        n.online = i % 2 == 0;
        n.made_up = true;
        n.created = n.last_seen = now;
        nodes_.emplace(n.id, std::move(n));
    }
}

Addr Registry::allocate(const Prefix& p) const {
    // The first host address on, in the order of arrival; enough for any lab.
    const auto offset = static_cast<uint32_t>(nodes_.empty() ? 1 : nodes_.rbegin()->first + 1);
    if (p.addr.is_v4()) return Addr::v4(p.masked().addr.v4_host_order() + offset);
    std::array<uint8_t, 16> raw{};
    const Prefix base = p.masked();
    std::copy(base.addr.bytes().begin(), base.addr.bytes().end(), raw.begin());
    store_be32(&raw[12], load_be32(&raw[12]) + offset);
    return Addr::v6_bytes(raw.data(), false);
}

std::string Registry::unique_name(const std::string& hostname, NodeId self) const {
    std::string label = dns_label(hostname);
    if (label.empty()) label = fmt::format("node-{}", self);
    const auto taken = [&](const std::string& name) {
        return std::any_of(nodes_.begin(), nodes_.end(),
                           [&](const auto& e) { return e.first != self && e.second.name == name; });
    };
    std::string name = label;
    for (int i = 1; taken(name); ++i) name = fmt::format("{}-{}", label, i);
    return name;
}

Registry::Poll Registry::on_map(const MachinePublic& machine, std::string_view body, WallTime now) {
    Poll out;
    const auto parsed = json::parse(body, kMaxBody);
    if (!parsed || !parsed->is_object()) {
        out.refusal = {500, "internal server error", ""};
        return out;
    }
    const int64_t version = json::integer(*parsed, "Version");
    if (version < kMinVersion) {
        out.refusal = {400, fmt::format("unsupported client version: ({})", version), ""};
        return out;
    }
    const auto key = NodePublic::parse(json::str(*parsed, "NodeKey"));
    LabNode* n = key ? by_key(*key) : nullptr;
    if (!n || n->machine != machine) {
        out.refusal = {404, n ? "node key in request does not match the one associated with this machine key" : "node not found", ""};
        return out;
    }
    out.node = n->id;
    out.stream = json::boolean(*parsed, "Stream");
    out.zstd = json::str(*parsed, "Compress") == "zstd";

    const LabNode before = *n;
    n->disco = DiscoPublic::parse(json::str(*parsed, "DiscoKey")).value_or(DiscoPublic{});
    if (json::find(*parsed, "Endpoints")) n->endpoints = json::strings(*parsed, "Endpoints");
    const Json* hostinfo = json::find(*parsed, "Hostinfo");
    const Json old_net_info = json::find(n->hostinfo, "NetInfo") ? *json::find(n->hostinfo, "NetInfo") : Json();
    n->hostinfo = hostinfo && hostinfo->is_object() ? *hostinfo : Json::object();
    if (!json::find(n->hostinfo, "NetInfo") && !old_net_info.is_null()) n->hostinfo["NetInfo"] = old_net_info;
    if (const Json* net = json::find(n->hostinfo, "NetInfo"))
        n->home_derp = static_cast<int>(json::integer(*net, "PreferredDERP", n->home_derp));
    auto_approve(*n);

    Json old_host = before.hostinfo, new_host = n->hostinfo;
    old_host.erase("NetInfo");
    new_host.erase("NetInfo");
    if (n->disco != before.disco || old_host != new_host || n->approved != before.approved) {
        tell_changed(*n, now);
        tell_self(*n, now);
        reassign_routes(now);
    } else if (n->endpoints != before.endpoints || n->home_derp != before.home_derp) {
        Json patch = Json::object();
        patch["NodeID"] = n->id;
        if (n->home_derp != before.home_derp) patch["DERPRegion"] = n->home_derp;
        if (n->endpoints != before.endpoints) patch["Endpoints"] = n->endpoints;
        Json m = Json::object();
        m["PeersChangedPatch"] = Json::array({patch});
        tell_others(*n, std::move(m), now);
        tell_self(*n, now);
    }
    if (n->home_derp != before.home_derp || n->endpoints != before.endpoints)
        log(fmt::format("{}: home relay {}, {} endpoints", n->name, n->home_derp, n->endpoints.size()));
    return out;
}

void Registry::auto_approve(LabNode& n) {
    if (options_.approve_routes) n.approved = offered_routes(n);
}

bool Registry::set_routes(NodeId id, const std::set<Prefix>& routes, WallTime now) {
    const auto it = nodes_.find(id);
    if (it == nodes_.end()) return false;
    it->second.approved = routes;
    tell_changed(it->second, now);
    tell_self(it->second, now);
    reassign_routes(now);
    return true;
}

void Registry::set_derp_map(Json map) {
    options_.derp_map = std::move(map);
    Json m = Json::object();
    m["DERPMap"] = options_.derp_map;
    for (const auto& [id, node] : nodes_) messages_.emplace_back(id, m);
}

bool Registry::expire(NodeId id, WallTime now) {
    const auto it = nodes_.find(id);
    if (it == nodes_.end()) return false;
    it->second.expired = true;
    it->second.key_expiry = now;
    log(fmt::format("{} expired", it->second.name));
    tell_changed(it->second, now);
    tell_self(it->second, now);
    return true;
}

bool Registry::remove(NodeId id, WallTime now) {
    const auto it = nodes_.find(id);
    if (it == nodes_.end()) return false;
    Json m = Json::object();
    m["PeersRemoved"] = Json::array({id});
    log(fmt::format("{} removed", it->second.name));
    tell_others(it->second, std::move(m), now);
    nodes_.erase(it);
    reassign_routes(now);
    return true;
}

void Registry::set_online(NodeId id, bool online, WallTime now) {
    const auto it = nodes_.find(id);
    if (it == nodes_.end() || it->second.online == online) return;
    LabNode& n = it->second;
    n.online = online;
    n.last_seen = now;
    log(fmt::format("{} is {}", n.name, online ? "online" : "offline"));
    if (!online && n.ephemeral) {
        remove(id, now);
        return;
    }
    Json patch = Json::object();
    patch["NodeID"] = id;
    patch["Online"] = online;
    if (!online) patch["LastSeen"] = json::time_text(now);
    Json m = Json::object();
    m["PeersChangedPatch"] = Json::array({patch});
    tell_others(n, std::move(m), now);
    reassign_routes(now);
}

/// A subnet is served by one router at a time: the one that has it, as long as it is online; exit routes by all.
void Registry::reassign_routes(WallTime now) {
    std::map<Prefix, NodeId> next;
    std::set<Prefix> all;
    for (const auto& [id, n] : nodes_)
        for (const Prefix& p : n.approved)
            if (!p.is_default()) all.insert(p);
    for (const Prefix& p : all) {
        const auto may = [&](NodeId id) {
            const auto it = nodes_.find(id);
            return it != nodes_.end() && it->second.online && !it->second.expired && it->second.approved.contains(p) &&
                   offered_routes(it->second).contains(p);
        };
        const auto current = primary_.find(p);
        NodeId chosen = current != primary_.end() && may(current->second) ? current->second : 0;
        for (const auto& [id, n] : nodes_)
            if (chosen == 0 && may(id)) chosen = id;
        if (chosen != 0) next[p] = chosen;
    }
    std::set<NodeId> affected;
    for (const auto& [p, id] : next)
        if (const auto it = primary_.find(p); it == primary_.end() || it->second != id) affected.insert(id);
    for (const auto& [p, id] : primary_)
        if (const auto it = next.find(p); it == next.end() || it->second != id) affected.insert(id);
    primary_ = std::move(next);
    for (NodeId id : affected) {
        const auto it = nodes_.find(id);
        if (it == nodes_.end()) continue;
        std::string list;
        for (const Prefix& p : served_routes(it->second)) list += " " + p.str();
        log(fmt::format("{} serves{}", it->second.name, list.empty() ? " no routes" : list));
        tell_changed(it->second, now);
        tell_self(it->second, now);
    }
}

std::vector<Prefix> Registry::served_routes(const LabNode& n) const {
    std::vector<Prefix> out;
    const std::set<Prefix> offered = offered_routes(n);
    for (const Prefix& p : n.approved) {
        if (!offered.contains(p)) continue;
        const auto it = primary_.find(p);
        if (p.is_default() || (it != primary_.end() && it->second == n.id)) out.push_back(p);
    }
    return out;
}

Json Registry::node_json(const LabNode& n, bool self) const {
    Json j = Json::object();
    j["ID"] = n.id;
    j["StableID"] = fmt::format("{}", n.id);
    j["Name"] = fmt::format("{}.{}.", n.name, options_.domain);
    j["User"] = kUser;
    j["Key"] = n.key.text();
    if (!n.key_expiry.is_zero()) j["KeyExpiry"] = json::time_text(n.key_expiry);
    j["Machine"] = n.machine.text();
    if (!n.disco.is_zero()) j["DiscoKey"] = n.disco.text();
    Json addresses = Json::array({single_json(n.v4)});
    if (n.v6.is_valid()) addresses.push_back(single_json(n.v6));
    Json allowed = addresses;
    Json primary = Json::array();
    for (const Prefix& p : served_routes(n)) {
        allowed.push_back(p.str());
        if (!p.is_default()) primary.push_back(p.str());
    }
    j["Addresses"] = std::move(addresses);
    j["AllowedIPs"] = std::move(allowed);
    if (!n.endpoints.empty()) j["Endpoints"] = n.endpoints;
    if (n.home_derp != 0) j["HomeDERP"] = n.home_derp;
    j["Hostinfo"] = n.hostinfo;
    j["Created"] = json::time_text(n.created);
    j["Cap"] = kNodeVersion;
    if (!primary.empty()) j["PrimaryRoutes"] = std::move(primary);
    if (!n.online && !n.last_seen.is_zero()) j["LastSeen"] = json::time_text(n.last_seen);
    j["Online"] = n.online;
    if (!n.expired) j["MachineAuthorized"] = true;
    if (self) {
        Json caps = Json::object();
        caps["https://tailscale.com/cap/file-sharing"] = Json::array();
        caps["https://tailscale.com/cap/is-admin"] = Json::array();
        j["CapMap"] = std::move(caps);
    }
    if (n.expired) j["Expired"] = true;
    return j;
}

Json Registry::user_profiles() const {
    Json u = Json::object();
    u["ID"] = kUser;
    u["LoginName"] = "lab";
    u["DisplayName"] = "lab";
    return Json::array({u});
}

Json Registry::first_map(NodeId id, WallTime now) const {
    Json m = Json::object();
    const auto self = nodes_.find(id);
    if (self == nodes_.end()) return m;
    m["Node"] = node_json(self->second, true);
    m["DERPMap"] = options_.derp_map;
    Json peers = Json::array();
    for (const auto& [other, n] : nodes_)
        if (other != id) peers.push_back(node_json(n, false));
    if (!peers.empty()) m["Peers"] = std::move(peers);
    Json dns = options_.dns;
    if (!dns.contains("Domains")) dns["Domains"] = Json::array({options_.domain});
    if (options_.magic_dns && !dns.contains("Proxied")) dns["Proxied"] = true;
    m["DNSConfig"] = std::move(dns);
    m["Domain"] = options_.domain;
    Json ports = Json::object();
    ports["First"] = 0;
    ports["Last"] = 65535;
    Json dst = Json::object();
    dst["IP"] = "*";
    dst["Ports"] = std::move(ports);
    Json rule = Json::object();
    rule["SrcIPs"] = Json::array({"*"});
    rule["DstPorts"] = Json::array({dst});
    Json filters = Json::object();
    filters["base"] = Json::array({rule});
    if (!options_.rules.empty()) filters["more"] = options_.rules;
    m["PacketFilters"] = std::move(filters);
    m["UserProfiles"] = user_profiles();
    m["ControlTime"] = json::time_text(now);
    return m;
}

void Registry::tell_others(const LabNode& about, Json message, WallTime now) {
    message["ControlTime"] = json::time_text(now);
    for (const auto& [id, n] : nodes_)
        if (id != about.id && !n.made_up) messages_.emplace_back(id, message);
}

void Registry::tell_changed(const LabNode& n, WallTime now) {
    Json m = Json::object();
    m["PeersChanged"] = Json::array({node_json(n, false)});
    m["UserProfiles"] = user_profiles();
    tell_others(n, std::move(m), now);
}

void Registry::tell_self(const LabNode& n, WallTime now) {
    Json m = Json::object();
    m["Node"] = node_json(n, true);
    m["ControlTime"] = json::time_text(now);
    messages_.emplace_back(n.id, std::move(m));
}

std::vector<std::pair<NodeId, Json>> Registry::take_messages() { return std::exchange(messages_, {}); }
std::vector<std::string> Registry::take_log() { return std::exchange(log_, {}); }

Json Registry::nodes_json() const {
    Json list = Json::array();
    for (const auto& [id, n] : nodes_) {
        Json j = node_json(n, false);
        Json offered = Json::array();
        for (const Prefix& p : offered_routes(n)) offered.push_back(p.str());
        j["OfferedRoutes"] = std::move(offered);
        list.push_back(std::move(j));
    }
    return list;
}

}  // namespace mesh::lab
