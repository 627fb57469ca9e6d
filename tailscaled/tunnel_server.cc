// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/tunnel_server.h"

namespace mesh::daemon {

Result<std::unique_ptr<platform::Listener>> listen_by_tun(platform::Loop& loop, const std::string& device,
                                                          std::initializer_list<uint16_t> ports,
                                                          const platform::Listener::OnAccept& on_accept) {
    platform::Listener::TcpOptions options;
    options.v6_only = false;
    options.device = device;
    Result<std::unique_ptr<platform::Listener>> listener = fail(Code::kInvalid, "no port to listen on");
    for (const uint16_t port : ports)
        for (const Addr& any : {*Addr::parse("::"), Addr::v4(0, 0, 0, 0)}) {
            listener = platform::Listener::tcp(loop, {any, port}, on_accept, options);
            if (listener) return listener;
        }
    return listener;
}

}  // namespace mesh::daemon
