// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The endpoints under /localapi/v0/, all but the bus.

#include <functional>

#include "base/http1.h"
#include "tailscaled/localapi/backend.h"
#include "tailscaled/localapi/session.h"

namespace mesh::localapi {

/// What POST dial asks for.
struct DialRequest {
    std::string host;
    uint16_t port = 0;
    unsigned status = 0;     ///< of the refusal
    std::string refusal;     ///< "": all is well
};
[[nodiscard]] DialRequest parse_dial(const http1::Request& request);

/// Called at most once per request; later or never for what takes time.
using Respond = std::function<void(http1::Response)>;

struct Exchange {
    const http1::Request& request;
    const http1::Target& target;
    Caller caller;
};

void handle_request(Context& context, const Exchange& exchange, const Respond& respond);

/// `text/plain`, ends with a newline, as clients read error texts.
[[nodiscard]] http1::Response text_response(unsigned status, std::string_view text);
/// Compact JSON and a newline.
[[nodiscard]] http1::Response json_response(std::string_view compact);
/// Headers every answer carries, Content-Type first.
void add_standard_headers(http1::Headers& headers, const Context& context);

}  // namespace mesh::localapi
