// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Answers of debug endpoints whose form other clients know, made from what the daemon says in its own. Pure.

#include <string>
#include <string_view>

namespace mesh::localapi {

/// The relays of one region: {"Info":[…],"Warnings":[…],"Errors":[…]}; lists without entries are null.
/// `region`: number or code; `derp_map`, `checks`: JSON of Backend::derp_map_json() and Backend::check_relays().
[[nodiscard]] std::string derp_region_report(std::string_view region, std::string_view derp_map, std::string_view checks);

/// What happened on the paths to one peer: [{"When","What","From","To"}], oldest first. `paths`: JSON of Backend::paths_json().
[[nodiscard]] std::string endpoint_changes(std::string_view paths);

}  // namespace mesh::localapi
