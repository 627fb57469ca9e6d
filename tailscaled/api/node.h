// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// A node of the netmap as clients see it (whois, SelfChange), and the answer to whois.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ip.h"
#include "base/keys.h"
#include "base/result.h"
#include "base/time.h"
#include "tailscaled/api/prefs.h"
#include "tailscaled/api/status.h"

namespace mesh::api {

struct Node {
    int64_t id = 0;
    std::string stable_id;
    std::string name;  ///< FQDN with the final dot
    int64_t user = 0;
    int64_t sharer = 0;
    NodePublic key;
    std::optional<WallTime> key_expiry;
    std::optional<MachinePublic> machine;
    std::optional<DiscoPublic> disco_key;
    std::vector<Prefix> addresses;
    std::vector<Prefix> allowed_ips;
    std::vector<Endpoint> endpoints;
    int64_t home_derp = 0;
    std::string hostinfo_json;  ///< compact, as control sent it; "" = {}
    std::optional<WallTime> created;
    int64_t cap = 0;
    std::vector<std::string> tags;
    std::vector<Prefix> primary_routes;
    std::optional<WallTime> last_seen;
    std::optional<bool> online;
    bool machine_authorized = false;
    CapMap cap_map;
    bool expired = false;
    std::string computed_name;  ///< first label of `name`
    std::string computed_name_with_host;
};
void write_node(JsonText& out, const Node& n);
[[nodiscard]] std::string node_json(const Node& n);

struct WhoIsResult {
    Node node;
    UserProfile user;
    CapMap cap_map;  ///< empty = null
};
[[nodiscard]] std::string whois_json(const WhoIsResult& w);
/// The part of the node that the CLI prints (names, ids, addresses, tags) and the rest.
[[nodiscard]] Result<WhoIsResult> parse_whois(std::string_view json);

}  // namespace mesh::api
