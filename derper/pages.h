// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What a derper answers over plain HTTP, beside /derp itself. Pure.

#include <string>

#include "base/http1.h"
#include "base/keys.h"

namespace mesh::derper {

/// GET / , /robots.txt, /derp/probe, /derp/latency-check, /generate_204; 404 for the rest. For HEAD the body is empty.
[[nodiscard]] http1::Response answer_page(const http1::Request& request);
/// Port 80: /generate_204, and a redirect to HTTPS for everything else.
[[nodiscard]] http1::Response answer_port_80(const http1::Request& request);

/// What a GET /derp asks for.
enum class Upgrade : uint8_t {
    kNone,       ///< no or another upgrade: answer refusal()
    kWebSocket,  ///< browsers; not spoken here: answer refusal()
    kDerp,
};
[[nodiscard]] Upgrade wanted_upgrade(const http1::Request& request);
[[nodiscard]] http1::Response refusal(Upgrade asked);
[[nodiscard]] bool wants_fast_start(const http1::Request& request);
/// The 101 head.
[[nodiscard]] std::string switching_protocols(const NodePublic& server_key);

}  // namespace mesh::derper
