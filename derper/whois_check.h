// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Asks the tailscaled beside this derper whether it knows a node: GET /localapi/v0/whois?addr=nodekey%3A<hex> on its
/// Unix socket. Fails closed: anything but 200 with a JSON object refuses the client.

#include <functional>
#include <string>

#include "base/http1.h"
#include "base/keys.h"
#include "base/result.h"
#include "platform/loop/loop.h"
#include "platform/net/byte_stream.h"

namespace mesh::derper {

/// The request, byte for byte what tailscaled's own clients send.
[[nodiscard]] std::string whois_request(const NodePublic& key);
/// What an answer means. Errors are fit for the log line "client … rejected: <error>".
[[nodiscard]] Status judge_whois(const NodePublic& key, const http1::Response& answer);

/// One question under way. Destruction cancels.
class WhoisCheck final : private platform::ByteStream::Listener {
   public:
    using Callback = std::function<void(Status)>;
    WhoisCheck(platform::Loop& loop, const std::string& socket, const NodePublic& key, Callback done);

   private:
    void on_bytes(MutByteSpan bytes) override;
    void on_closed(const Status& why) override;
    void finish(Status verdict);
    [[nodiscard]] tl::unexpected<Error> failed(const std::string& why) const;

    NodePublic key_;
    Callback done_;
    http1::Parser parser_;
    Status early_verdict_;
    platform::Timer timer_;
    platform::ByteStream stream_;
};

}  // namespace mesh::derper
