// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The daemon's knowledge in the shapes that clients read: status, whois, metrics, paths. Functions of values only.

#include <functional>
#include <string>
#include <vector>

#include "tailscaled/api/node.h"
#include "tailscaled/api/prefs.h"
#include "tailscaled/api/status.h"
#include "tailscaled/engine.h"
#include "tailscaled/netmap/netmap.h"

namespace mesh::daemon {

/// Everything that status shows.
struct StatusInputs {
    const netmap::NetMap* map = nullptr;  ///< null before the first map
    const api::Prefs* prefs = nullptr;
    const EngineSnapshot* engine = nullptr;
    std::function<PeerId(netmap::NodeId)> peer_id;
    api::State state = api::State::kNoState;
    bool has_node_key = false;
    NodePublic node_key;
    std::string auth_url;
    std::string hostname;
    std::vector<std::string> health;
    std::vector<magicsock::LocalEndpoint> endpoints;
    int home_derp = 0;
    uint16_t peer_api_port = 0;  ///< of ours; 0: none
    bool tun = true;  ///< false: userspace networking
    WallTime wall;
    Time now;
};

[[nodiscard]] api::DaemonStatus build_status(const StatusInputs& in, bool with_peers);
[[nodiscard]] api::Node api_node(const netmap::Node& node);
[[nodiscard]] api::WhoIsResult whois_of(const netmap::NetMap& map, const netmap::Node& node);
[[nodiscard]] std::string derp_code(const netmap::NetMap* map, int region);
/// Prometheus text (facts: localapi-and-cli 9): TYPE before HELP, labels sorted.
[[nodiscard]] std::string metrics_text(const StatusInputs& in);
[[nodiscard]] std::string drops_json(const EngineSnapshot& engine);

/// Packets within this span make a peer "active".
inline constexpr Duration kActiveSpan = seconds(45);

}  // namespace mesh::daemon
