// SPDX-License-Identifier: BSD-3-Clause
#include "tailscale-cli/ping_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/log.h"
#include "tailscale-cli/flags.h"

namespace mesh::cli {

std::string pong_text(const api::PingResult& r, api::PingType type) {
    const double ms = std::clamp(std::round(r.latency_seconds * 1000), 0.0, 1e9);
    const std::string latency = duration_text(milliseconds(static_cast<int64_t>(ms)));
    const std::string name = log::printable(r.node_name);
    if (type == api::PingType::kPeerApi)
        return fmt::format("hit peerapi of {} ({}) at {} in {}\n", log::printable(r.node_ip), name,
                           log::printable(r.peer_api_url), latency);
    std::string via = log::printable(r.endpoint);
    if (!r.peer_relay.empty())
        via = fmt::format("peer-relay({})", log::printable(r.peer_relay));
    else if (r.derp_region_id != 0)
        via = fmt::format("DERP({})", log::printable(r.derp_region_code));
    if (type != api::PingType::kDisco) via = api::ping_type_name(type);
    const std::string port = r.peer_api_port != 0 ? fmt::format(", {}", r.peer_api_port) : "";
    return fmt::format("pong from {} ({}{}) via {} in {}\n", name, log::printable(r.node_ip), port, via, latency);
}

}  // namespace mesh::cli
