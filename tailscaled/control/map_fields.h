// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The members of a map message that mean something to this client, as slices of its text. Private to map_session.cc and
/// map_peers.cc.

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/json_split.h"
#include "base/result.h"
#include "tailscaled/netmap/node.h"

namespace mesh::control {

using json::is_array, json::is_null, json::is_object, json::parse_piece, json::PieceLimits, json::split_array, json::split_object;

struct MapFields {
    std::string_view keep_alive, ping, pop_browser, node, derp_map, peers, peers_changed, peers_removed, patches,
        seen_change, online_change, dns, domain, collect_services, packet_filter, packet_filters, user_profiles, health,
        display_messages, ssh_policy, control_time, tka, debug, client_version;
};
[[nodiscard]] Result<MapFields> split_map_message(std::string_view json);

/// Neither absent nor null.
[[nodiscard]] inline bool given(std::string_view value) { return !value.empty() && !is_null(value); }
/// Decimal, > 0.
[[nodiscard]] std::optional<netmap::NodeId> node_id(std::string_view digits);
/// The elements or members of a value; of a value of another kind there are none.
[[nodiscard]] Status each_element(std::string_view value, const std::function<Status(std::string_view)>& f);
[[nodiscard]] Status each_member(std::string_view value,
                                 const std::function<Status(std::string_view key, std::string_view value)>& f);
/// A key or the inside of a string, escapes resolved.
[[nodiscard]] std::string unescape(std::string_view key);
/// "" if the value is no string.
[[nodiscard]] std::string string_value(std::string_view value);

}  // namespace mesh::control
