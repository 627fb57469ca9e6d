// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/control/map_fields.h"

#include <fmt/format.h>

#include <charconv>

namespace mesh::control {

Result<MapFields> split_map_message(std::string_view json) {
    struct Known {
        std::string_view name;
        std::string_view MapFields::*field;
    };
    static constexpr Known kKnown[] = {
        {"KeepAlive", &MapFields::keep_alive},
        {"PingRequest", &MapFields::ping},
        {"PopBrowserURL", &MapFields::pop_browser},
        {"Node", &MapFields::node},
        {"DERPMap", &MapFields::derp_map},
        {"Peers", &MapFields::peers},
        {"PeersChanged", &MapFields::peers_changed},
        {"PeersRemoved", &MapFields::peers_removed},
        {"PeersChangedPatch", &MapFields::patches},
        {"PeerSeenChange", &MapFields::seen_change},
        {"OnlineChange", &MapFields::online_change},
        {"DNSConfig", &MapFields::dns},
        {"Domain", &MapFields::domain},
        {"CollectServices", &MapFields::collect_services},
        {"PacketFilter", &MapFields::packet_filter},
        {"PacketFilters", &MapFields::packet_filters},
        {"UserProfiles", &MapFields::user_profiles},
        {"Health", &MapFields::health},
        {"DisplayMessages", &MapFields::display_messages},
        {"SSHPolicy", &MapFields::ssh_policy},
        {"ControlTime", &MapFields::control_time},
        {"TKAInfo", &MapFields::tka},
        {"Debug", &MapFields::debug},
        {"ClientVersion", &MapFields::client_version},
    };
    MapFields f;
    Status s = split_object(json, [&f](std::string_view key, std::string_view value) -> Status {
        for (const Known& k : kKnown)
            if (k.name == key) f.*k.field = value;
        return {};
    });
    if (!s) return tl::unexpected(std::move(s.error()).with("map message"));
    return f;
}

std::optional<netmap::NodeId> node_id(std::string_view digits) {
    netmap::NodeId id = 0;
    const auto r = std::from_chars(digits.data(), digits.data() + digits.size(), id);
    if (r.ec != std::errc() || r.ptr != digits.data() + digits.size() || id <= 0) return std::nullopt;
    return id;
}

Status each_element(std::string_view value, const std::function<Status(std::string_view)>& f) {
    return is_array(value) ? split_array(value, f) : Status{};
}
Status each_member(std::string_view value, const std::function<Status(std::string_view, std::string_view)>& f) {
    return is_object(value) ? split_object(value, f) : Status{};
}

std::string unescape(std::string_view key) {
    if (key.find('\\') == std::string_view::npos) return std::string(key);
    const auto j = parse_piece(fmt::format("\"{}\"", key));
    return j && j->is_string() ? j->get<std::string>() : std::string(key);
}

std::string string_value(std::string_view value) {
    if (value.size() < 2 || value.front() != '"') return {};
    return unescape(value.substr(1, value.size() - 2));
}

}  // namespace mesh::control
