// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// One question to a peer's PeerAPI, for `tailscale ping --peerapi`: is it there, and how long does it take? On the control loop.

#include <functional>
#include <memory>

#include "base/http1.h"
#include "base/result.h"
#include "platform/net/byte_stream.h"
#include "tailscaled/user_net.h"

namespace mesh::daemon {

class PeerApiProbe final : platform::ByteStream::Listener {
   public:
    /// From the first byte of the dial to the head of the answer, or why there is none. Called once; it may destroy the probe.
    using Done = std::function<void(const Result<Duration>&)>;
    /// `dial`: makes the connection, see OutgoingDialer.
    PeerApiProbe(platform::Loop& loop, const Endpoint& to, const std::function<void(Outgoing)>& dial, Done done);

   private:
    void on_bytes(MutByteSpan bytes) override;
    void on_closed(const Status& why) override;
    void end(const Result<Duration>& result);

    platform::Loop& loop_;
    const Time began_;
    Done done_;
    platform::ByteStream stream_;
    http1::Parser parser_{http1::Role::kResponses, 65536};
    std::string heard_;  ///< before the answer: '+', or '-' and why there is no connection
};

}  // namespace mesh::daemon
