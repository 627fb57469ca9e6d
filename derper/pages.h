// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What a derper answers over plain HTTP, beside /derp itself. Pure.

#include <string>
#include <string_view>
#include <vector>

#include "base/http1.h"
#include "base/ip.h"
#include "base/keys.h"

namespace mesh::derper {

/// GET / , /robots.txt, /derp/probe, /derp/latency-check, /generate_204; 404 for the rest. For HEAD the body is empty.
/// `home`: "" = our page at /, "blank", or a URL to redirect to.
[[nodiscard]] http1::Response answer_page(const http1::Request& request, const std::string& home = "");
/// Port 80: /generate_204, and a redirect to HTTPS for everything else.
[[nodiscard]] http1::Response answer_port_80(const http1::Request& request);

/// What a GET /derp asks for.
enum class Upgrade : uint8_t {
    kNone,       ///< no or another upgrade: answer refusal()
    kWebSocket,  ///< with subprotocol derp
    kDerp,
};
[[nodiscard]] Upgrade wanted_upgrade(const http1::Request& request);
[[nodiscard]] http1::Response refusal(Upgrade asked);
/// Text with a status, and the page of a path that is not there.
[[nodiscard]] http1::Response text_page(unsigned status, std::string_view body);
[[nodiscard]] std::string_view path_of(const http1::Request& request);

/// Who really asks. `peer` is the other end of the connection.
struct Asker {
    Addr addr;
    bool certain = true;  ///< false: a proxy that is not trusted says it forwards for somebody
};
/// X-Forwarded-For is read from the right as long as addresses are of trusted proxies; the first other one is the client.
[[nodiscard]] Asker real_client(const http1::Request& request, const Addr& peer, const std::vector<Prefix>& trusted);
[[nodiscard]] bool wants_fast_start(const http1::Request& request);
/// The 101 head.
[[nodiscard]] std::string switching_protocols(const NodePublic& server_key);

}  // namespace mesh::derper
