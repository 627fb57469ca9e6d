// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What `tailscale status` prints, made from the status alone. Pure.

#include <optional>
#include <string>

#include "base/time.h"
#include "tailscaled/api/status.h"

namespace mesh::cli {

struct StatusOptions {
    bool active = false;  ///< only peers with a session
    bool header = false;
    bool peers = true;
    bool self = true;
};

/// Rows and the health trailer; ends with a newline (or is empty).
[[nodiscard]] std::string status_text(const api::DaemonStatus& status, const StatusOptions& options, WallTime now);

/// Set when the node is not (about to be) up: what to print instead, without final newline. The exit code is then 1.
[[nodiscard]] std::optional<std::string> not_running_text(const api::DaemonStatus& status);

/// "router-b", or ("host") for a node without name.
[[nodiscard]] std::string display_name(const api::DaemonStatus& status, const api::PeerStatus& peer);

/// Peers in the order of the table: by DNS name, host name, address, key.
[[nodiscard]] std::vector<const api::PeerStatus*> sorted_peers(const api::DaemonStatus& status);

/// ", last seen 3m ago", "" if unknown.
[[nodiscard]] std::string last_seen_text(WallTime seen, WallTime now);

}  // namespace mesh::cli
