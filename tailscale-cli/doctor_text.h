// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What `tailscale doctor` prints, made from the daemon's findings. Pure; what is not understood is left out.

#include <optional>
#include <span>
#include <string>

#include "base/ip.h"
#include "base/json.h"

namespace mesh::cli {

/// Findings of this host, then those of the peer, each with its advice.
[[nodiscard]] std::string doctor_text(const Json& report);
/// The findings of the peer alone, one line each, or "" if there is none.
[[nodiscard]] std::string doctor_peer_text(const Json& report);
/// Some finding is a problem.
[[nodiscard]] bool doctor_found_problem(const Json& report);
/// What the first routers on the way out say of the NATs in front of this host, as a finding; nullopt: nothing.
[[nodiscard]] std::optional<Json> judge_hops(std::span<const Addr> hops);

}  // namespace mesh::cli
