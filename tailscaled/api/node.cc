// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/api/node.h"

#include "base/json.h"
#include "tailscaled/api/read_json.h"

namespace mesh::api {
namespace {

using Empty = JsonText::Empty;

Node read_node(const Json& j) {
    Node n;
    n.id = json::integer(j, "ID");
    n.stable_id = json::str(j, "StableID");
    n.name = json::str(j, "Name");
    n.user = json::integer(j, "User");
    n.sharer = json::integer(j, "Sharer");
    n.key = NodePublic::parse(json::str(j, "Key")).value_or(NodePublic{});
    if (json::find(j, "KeyExpiry")) n.key_expiry = read_time(j, "KeyExpiry");
    n.machine = MachinePublic::parse(json::str(j, "Machine"));
    n.disco_key = DiscoPublic::parse(json::str(j, "DiscoKey"));
    n.addresses = read_list<Prefix>(j, "Addresses");
    n.allowed_ips = read_list<Prefix>(j, "AllowedIPs");
    n.endpoints = read_list<Endpoint>(j, "Endpoints");
    n.home_derp = json::integer(j, "HomeDERP");
    if (const Json* h = json::find(j, "Hostinfo")) n.hostinfo_json = json::dump(*h);
    if (json::find(j, "Created")) n.created = read_time(j, "Created");
    n.cap = json::integer(j, "Cap");
    n.tags = json::strings(j, "Tags");
    n.primary_routes = read_list<Prefix>(j, "PrimaryRoutes");
    if (json::find(j, "LastSeen")) n.last_seen = read_time(j, "LastSeen");
    n.online = json::opt_bool(j, "Online");
    n.machine_authorized = json::boolean(j, "MachineAuthorized");
    n.cap_map = read_cap_map(j, "CapMap");
    n.expired = json::boolean(j, "Expired");
    n.computed_name = json::str(j, "ComputedName");
    n.computed_name_with_host = json::str(j, "ComputedNameWithHost");
    return n;
}

}  // namespace

void write_node(JsonText& out, const Node& n) {
    out.open_object();
    out.field("ID", n.id).field("StableID", n.stable_id).field("Name", n.name).field("User", n.user);
    if (n.sharer != 0) out.field("Sharer", n.sharer);
    out.field("Key", n.key.text());
    if (n.key_expiry && !n.key_expiry->is_zero()) out.field("KeyExpiry", *n.key_expiry);
    if (n.machine) out.field("Machine", n.machine->text());
    if (n.disco_key) out.field("DiscoKey", n.disco_key->text());
    out.list("Addresses", n.addresses, Empty::kNull);
    out.list("AllowedIPs", n.allowed_ips, Empty::kNull);
    out.list("Endpoints", n.endpoints, Empty::kOmit);
    if (n.home_derp != 0) out.field("HomeDERP", n.home_derp);
    out.raw_field("Hostinfo", n.hostinfo_json.empty() ? "{}" : n.hostinfo_json);
    if (n.created) out.field("Created", *n.created);
    if (n.cap != 0) out.field("Cap", n.cap);
    out.list("Tags", n.tags, Empty::kOmit);
    out.list("PrimaryRoutes", n.primary_routes, Empty::kOmit);
    if (n.last_seen) out.field("LastSeen", *n.last_seen);
    if (n.online) out.field("Online", *n.online);
    if (n.machine_authorized) out.field("MachineAuthorized", true);
    if (!n.cap_map.empty()) {
        out.key("CapMap");
        write_cap_map(out, n.cap_map);
    }
    if (!n.computed_name.empty()) out.field("ComputedName", n.computed_name);
    if (!n.computed_name_with_host.empty()) out.field("ComputedNameWithHost", n.computed_name_with_host);
    if (n.expired) out.field("Expired", true);
    out.close_object();
}

std::string node_json(const Node& n) {
    JsonText out;
    write_node(out, n);
    return out.take();
}

std::string whois_json(const WhoIsResult& w) {
    JsonText out;
    out.open_object().key("Node");
    write_node(out, w.node);
    out.key("UserProfile");
    write_user_profile(out, w.user);
    out.key("CapMap");
    write_cap_map(out, w.cap_map);
    out.close_object();
    return out.take();
}

Result<WhoIsResult> parse_whois(std::string_view text) {
    TRY_ASSIGN(const Json j, json::parse(text));
    const Json* node = json::find(j, "Node");
    if (!node || !node->is_object()) return fail(Code::kInvalid, "whois answer has no Node");
    WhoIsResult w;
    w.node = read_node(*node);
    if (const Json* u = json::find(j, "UserProfile")) w.user = read_user_profile(*u);
    w.cap_map = read_cap_map(j, "CapMap");
    return w;
}

}  // namespace mesh::api
