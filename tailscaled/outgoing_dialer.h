// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Where a program of this host wants to go in userspace networking: names first to addresses, then through the tunnel if a
/// peer has that address or routes to it, else from the host as any program would. On the control loop.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "platform/net/dialer.h"
#include "tailscaled/tunnel_server.h"
#include "tailscaled/user_net.h"

namespace mesh::daemon {

class OutgoingDialer {
   public:
    static constexpr size_t kMaxConnections = 2048;  ///< being dialled, or through the host

    enum class Way : uint8_t { kHost, kTunnel, kSelf };
    struct Hooks {
        /// Addresses of a name of the tailnet; empty: not one.
        std::function<std::vector<Addr>(const std::string& host)> names;
        std::function<Way(const Addr& to)> way;
        std::function<void(Outgoing)> tunnel;  ///< for kTunnel
    };
    OutgoingDialer(platform::Dialer& dialer, Hooks hooks) : dialer_(dialer), hooks_(std::move(hooks)) {}
    ~OutgoingDialer();
    OutgoingDialer(const OutgoingDialer&) = delete;
    OutgoingDialer& operator=(const OutgoingDialer&) = delete;

    /// `what.to.addr` is found from `host`, a name or a literal. The client hears greeting or refusal in any case.
    void dial(const std::string& host, Outgoing what);

   private:
    class Pair;
    platform::Dialer& dialer_;
    Hooks hooks_;
    Connections<Pair> pairs_{dialer_.loop()};
};

}  // namespace mesh::daemon
