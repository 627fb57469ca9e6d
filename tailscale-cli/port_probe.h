// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What the router of this host speaks to open ports: portmap::Prober on a loop and a socket of its own. Opens none.

#include <memory>

#include "magicsock/portmap/prober.h"
#include "platform/loop/loop.h"
#include "platform/net/udp_socket.h"

namespace mesh::cli {

class PortProbe final : platform::UdpSocket::Listener {
   public:
    /// Begins at once.
    explicit PortProbe(platform::Loop& loop);
    [[nodiscard]] bool done() const { return prober_.done(loop_.now()); }
    [[nodiscard]] const portmap::Found& found() const { return prober_.found(); }

   private:
    void drive();
    void on_datagrams(std::span<UdpReceive> batch) override;
    void on_send_error(const Endpoint&, int) override {}

    platform::Loop& loop_;
    portmap::Prober prober_;
    platform::Timer timer_;
    std::unique_ptr<platform::UdpSocket> socket_;
};

}  // namespace mesh::cli
