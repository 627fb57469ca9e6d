// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The line `tailscale ping` prints for an answer. Pure.

#include <string>

#include "tailscaled/api/ping.h"

namespace mesh::cli {

[[nodiscard]] std::string pong_text(const api::PingResult& r, api::PingType type);

}  // namespace mesh::cli
