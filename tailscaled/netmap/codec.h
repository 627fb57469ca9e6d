// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// JSON of the values in this room, in the field order and with the omissions of the Go types (tailcfg). Parsing takes
/// what it can: an unreadable key or prefix inside a node makes that node an error, unknown fields are ignored.

#include "base/json.h"
#include "tailscaled/netmap/netmap.h"

namespace mesh::netmap {

/// A list in one node longer than this is cut off (hostile or broken server).
inline constexpr size_t kMaxListPerNode = 65'536;

[[nodiscard]] Result<Node> parse_node(const Json& j);
/// For whois, status and the notification bus; with ComputedName and ComputedNameWithHost, as the original shows them.
[[nodiscard]] Json to_json(const Node& n);
[[nodiscard]] UserProfile parse_user_profile(const Json& j);
[[nodiscard]] Json to_json(const UserProfile& u);
[[nodiscard]] DnsConfig parse_dns_config(const Json& j);
[[nodiscard]] Json to_json(const DnsConfig& d);
[[nodiscard]] CapMap parse_cap_map(const Json& j);
[[nodiscard]] Json to_json(const CapMap& c);
[[nodiscard]] Json to_json(const Resolver& r);
[[nodiscard]] std::vector<Endpoint> parse_endpoints(const Json& j);
[[nodiscard]] DisplayMessage parse_display_message(const Json& j);
[[nodiscard]] ClientVersion parse_client_version(const Json& j);

/// One FilterRule. nullopt: it uses the deprecated SrcBits/Bits forms, and the whole filter must then block everything.
/// Unreadable sources and destinations are left out and counted in `errors`.
[[nodiscard]] std::optional<netstack::FilterRule> parse_filter_rule(const Json& j, size_t& errors);

}  // namespace mesh::netmap
