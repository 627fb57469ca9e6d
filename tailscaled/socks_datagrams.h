// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// UDP by the SOCKS5 proxy (UDP ASSOCIATE, RFC 1928 section 7): a socket for the program, which lives as long as the TCP connection
/// that asked for it. Datagrams for the tailnet go to the packet loop, the others leave from this host. On the control loop.

#include <cstdint>
#include <functional>
#include <memory>

#include "platform/net/dialer.h"
#include "tailscaled/outgoing_dialer.h"
#include "tailscaled/tunnel_server.h"

namespace mesh::daemon {

class SocksDatagrams {
   public:
    static constexpr size_t kMaxAssociations = 256;
    static constexpr size_t kMaxNames = 64;  ///< that one association knows or looks up; datagrams to more are dropped

    struct Hooks {
        std::function<std::vector<Addr>(const std::string& host)> names;  ///< as OutgoingDialer::Hooks
        std::function<OutgoingDialer::Way(const Addr& to)> way;
        std::function<void(uint64_t id, const Endpoint& to, ByteSpan payload)> tunnel;
        std::function<void(uint64_t id)> end;  ///< no more of this one
    };
    SocksDatagrams(platform::Dialer& dialer, Hooks hooks) : dialer_(dialer), hooks_(std::move(hooks)) {}
    ~SocksDatagrams();
    SocksDatagrams(const SocksDatagrams&) = delete;
    SocksDatagrams& operator=(const SocksDatagrams&) = delete;

    /// `client` has asked for an association and waits for the reply.
    void associate(platform::ByteStream client);
    /// From the tunnel.
    void answer(uint64_t id, const Endpoint& from, ByteSpan payload);

   private:
    class Association;
    platform::Dialer& dialer_;
    Hooks hooks_;
    uint64_t next_id_ = 1;
    Connections<Association> associations_{dialer_.loop()};
};

}  // namespace mesh::daemon
