// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// JSON of the relay map, as control sends it and as the local API and `debug derp-map` show it. Include from .cc files.

#include "base/json.h"
#include "magicsock/derp/derp_map.h"

namespace mesh::derp {

/// A complete map. Limits: 1024 regions, 64 nodes per region; more is an error. Unknown fields are ignored.
[[nodiscard]] Result<DerpMap> parse_derp_map(const Json& j);
/// `current` changed by the DERPMap of a map response: Regions absent or null keeps the old ones (and the old
/// omit flag), HomeParams absent or RegionScore null keeps the scores, {} resets them.
[[nodiscard]] Result<DerpMap> apply_derp_map_delta(const DerpMap& current, const Json& delta);
/// Keys in the order of tailcfg, zero values omitted as there.
[[nodiscard]] Json derp_map_json(const DerpMap& map);
[[nodiscard]] Json derp_node_json(const DerpNode& node);

}  // namespace mesh::derp
