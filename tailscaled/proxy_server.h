// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// SOCKS5 and HTTP proxy for programs of this host (--socks5-server, --outbound-http-proxy-listen). Takes connections, hears what is
/// wanted (netstack/proxy_handshake.h) and gives them to the OutgoingDialer. On the control loop.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tailscaled/outgoing_dialer.h"

namespace mesh::daemon {

class ProxyServer {
   public:
    static constexpr size_t kMaxUnheard = 256;  ///< connections that have not said what they want
    static constexpr Duration kPatience = seconds(30);

    using Open = std::function<void(const std::string& host, Outgoing what)>;
    /// A program wants to send datagrams (SocksDatagrams).
    using Associate = std::function<void(platform::ByteStream client)>;
    /// Where to listen, if at all. The same for both: the first byte decides. Error: in words for people.
    [[nodiscard]] static Result<std::unique_ptr<ProxyServer>> start(platform::Loop& loop, const std::optional<Endpoint>& socks,
                                                                    const std::optional<Endpoint>& http, Open open,
                                                                    Associate associate);
    ~ProxyServer();
    ProxyServer(const ProxyServer&) = delete;
    ProxyServer& operator=(const ProxyServer&) = delete;

   private:
    class Connection;
    ProxyServer(platform::Loop& loop, Open open, Associate associate) : loop_(loop), open_(std::move(open)), associate_(std::move(associate)) {}
    Status listen(const Endpoint& at, bool socks, bool http);

    platform::Loop& loop_;
    Open open_;
    Associate associate_;
    Connections<Connection> connections_{loop_};
    std::vector<std::unique_ptr<platform::Listener>> listeners_;
};

}  // namespace mesh::daemon
