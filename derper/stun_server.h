// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Answers STUN binding requests of mesh clients, and nothing else.

#include <memory>
#include <vector>

#include "base/result.h"
#include "platform/loop/loop.h"
#include "platform/net/udp_socket.h"

namespace mesh::derper {

class StunServer final : private platform::UdpSocket::Listener {
   public:
    /// `addr` invalid: all addresses of both families; one family may be missing on the host.
    [[nodiscard]] static Result<std::unique_ptr<StunServer>> open(platform::Loop& loop, const Addr& addr,
                                                                  uint16_t port);
    [[nodiscard]] uint16_t port() const;
    [[nodiscard]] uint64_t answered() const { return answered_; }
    [[nodiscard]] uint64_t ignored() const { return ignored_; }

   private:
    void on_datagrams(std::span<UdpReceive> batch) override;
    void on_send_error(const Endpoint&, int) override {}

    uint64_t answered_ = 0;
    uint64_t ignored_ = 0;
    std::vector<std::unique_ptr<platform::UdpSocket>> sockets_;
};

}  // namespace mesh::derper
