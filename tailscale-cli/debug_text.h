// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Tables of `debug drops`, `debug paths` and `debug peer-relay-sessions`, made from the daemon's JSON. Pure; what is not understood is left out.

#include <string>
#include <string_view>

#include "base/json.h"

namespace mesh::cli {

/// Object reason → count. Reasons with 0 only if `all`.
[[nodiscard]] std::string drops_text(std::string_view json, bool all);
/// One event of a peer's paths: "no answer 192.0.2.7:41641".
[[nodiscard]] std::string path_event_text(const Json& event);
/// {UDPPort, Sessions}: who talks through this node, as the original prints it.
[[nodiscard]] std::string relay_sessions_text(std::string_view json);
/// Array of objects, one per peer. `peer` limits it to a name or address; "" = all.
[[nodiscard]] std::string paths_text(std::string_view json, const std::string& peer);

}  // namespace mesh::cli
