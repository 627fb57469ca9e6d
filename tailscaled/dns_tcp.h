// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// DNS over TCP (RFC 7766) for what the packet loop redirects here (tailscaled/dataplane/service_tcp.h). On the control
/// loop. Takes connections that come by the TUN from our own service address and no others.

#include <functional>
#include <memory>
#include <string>

#include "tailscaled/tunnel_server.h"

namespace mesh::daemon {

class DnsTcp {
   public:
    static constexpr size_t kMaxConnections = 64;
    static constexpr size_t kMaxQueries = 32;  ///< under way per connection
    static constexpr Duration kIdle = seconds(45);

    using Reply = std::function<void(Bytes)>;
    /// Must call `reply` once, maybe at once, maybe with nothing to close the connection.
    using Ask = std::function<void(ByteSpan query, Reply reply)>;

    /// `device` as in platform::Listener; "" takes connections from anywhere (tests).
    [[nodiscard]] static Result<std::unique_ptr<DnsTcp>> start(platform::Loop& loop, const std::string& device, Ask ask);
    ~DnsTcp();
    [[nodiscard]] uint16_t port() const;

   private:
    class Connection;
    DnsTcp(platform::Loop& loop, Ask ask, bool only_service) : loop_(loop), ask_(std::move(ask)), only_service_(only_service) {}
    void accept(platform::ByteStream stream);

    platform::Loop& loop_;
    Ask ask_;
    bool only_service_;
    Connections<Connection> connections_{loop_};
    std::unique_ptr<platform::Listener> listener_;
};

}  // namespace mesh::daemon
