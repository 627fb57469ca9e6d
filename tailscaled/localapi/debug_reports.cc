// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/localapi/debug_reports.h"

#include <fmt/format.h>

#include <vector>

#include "base/json.h"
#include "base/log.h"
#include "tailscaled/api/json_text.h"

namespace mesh::localapi {
namespace {

const Json* find_region(const Json& map, std::string_view wanted) {
    const Json* regions = json::find(map, "Regions");
    if (regions == nullptr || !regions->is_object()) return nullptr;
    for (const Json& r : *regions)
        if (json::str(r, "RegionCode") == wanted || std::to_string(json::integer(r, "RegionID")) == wanted) return &r;
    return nullptr;
}

}  // namespace

std::string derp_region_report(std::string_view region, std::string_view derp_map, std::string_view checks) {
    std::vector<std::string> info, warnings, errors;
    const auto map = json::parse(derp_map);
    const auto results = json::parse(checks);
    const Json* found = map ? find_region(*map, region) : nullptr;
    if (!map || !map->is_object()) {
        errors.emplace_back("no map of relays yet: the control server has not sent one");
    } else if (found == nullptr) {
        errors.push_back(fmt::format("no region {:?} in the map of relays; see \"tailscale debug derp-map\"", log::printable(region, 64)));
    } else {
        const int64_t id = json::integer(*found, "RegionID");
        info.push_back(fmt::format("Region {} == {:?}", id, json::str(*found, "RegionCode")));
        if (json::find(*map, "Regions")->size() == 1)
            warnings.emplace_back("This is the only region: when it is down, nodes without a direct path do not reach each other");
        const Json* relays = results ? json::find(*results, "Relays") : nullptr;
        size_t tried = 0;
        for (const Json& relay : relays != nullptr && relays->is_array() ? *relays : Json::array()) {
            if (json::integer(relay, "RegionID") != id) continue;
            ++tried;
            const auto add = [&](std::vector<std::string>& to, const char* key) {
                for (const std::string& line : json::strings(relay, key)) to.push_back(fmt::format("Node {:?}: {}", json::str(relay, "Node"), line));
            };
            add(info, "Steps");
            add(errors, "Problems");
        }
        if (tried == 0) warnings.emplace_back("None of its nodes could be tried as a relay");
        if (results && json::boolean(*results, "CaptivePortal"))
            warnings.emplace_back("A captive portal answers in place of the relays: log in to this network first");
    }
    using Empty = api::JsonText::Empty;
    api::JsonText out;
    out.open_object().list("Info", info, Empty::kNull).list("Warnings", warnings, Empty::kNull).list("Errors", errors, Empty::kNull);
    out.close_object();
    return out.take();
}

std::string endpoint_changes(std::string_view paths) {
    api::JsonText out;
    out.open_array();
    const auto all = json::parse(paths);
    for (const Json& peer : all && all->is_array() ? *all : Json::array()) {
        const Json* events = json::find(peer, "Events");
        for (const Json& e : events != nullptr && events->is_array() ? *events : Json::array()) {
            out.open_object().field("When", json::str(e, "When")).field("What", json::str(e, "What")).field("From", "");
            out.field("To", json::str(e, "Endpoint")).close_object();
        }
    }
    out.close_array();
    return out.take();
}

}  // namespace mesh::localapi
