// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// How each peer is reached: what was tried, when, with what result. A function of values only.

#include <string>

#include "tailscaled/status_view.h"

namespace mesh::daemon {

/// Compact JSON array for `tailscale debug paths`, one object per peer; with `all` of every peer, else of `peer` alone
/// (none if null). Times are seconds before now, −1 for never.
[[nodiscard]] std::string paths_json(const StatusInputs& in, const netmap::Node* peer, bool all);
/// For `tailscale debug peer-relay-sessions`: the port of the prefs, and the pairs that talk through our UDP relay; no sessions if null.
[[nodiscard]] std::string relay_sessions_json(const RelaySnapshot* relay, std::optional<uint16_t> port);

}  // namespace mesh::daemon
