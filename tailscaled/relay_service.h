// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// This node as a UDP relay for others (`tailscale set --relay-server-port`): sockets of its own around relay::Server. It lives on the
/// packet loop. What comes in as one batch of the kernel (UDP_GRO) leaves as one (UDP_SEGMENT), from the memory it was read into.
///
/// Clients are told the addresses of the interfaces, what STUN servers see of these sockets (asked every 20 to 26 s), and
/// static ones.

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/random.h"
#include "magicsock/netcheck/netcheck.h"
#include "magicsock/path/own_endpoints.h"
#include "magicsock/relay/server.h"
#include "platform/loop/loop.h"
#include "platform/net/udp_socket.h"

namespace mesh::daemon {

/// What `tailscale metrics` and `debug` tell about it.
struct RelaySnapshot {
    struct Forwarded {
        uint64_t packets = 0, bytes = 0;
    };
    std::array<std::array<Forwarded, 2>, 2> forwarded;  ///< [in][out], 0: IPv4, 1: IPv6
    size_t open = 0, connecting = 0;
    uint16_t port = 0;
    std::vector<relay::Server::Session> sessions;
    std::vector<Endpoint> addrs;
    relay::Server::Counters counters;
};

class RelayService final : private platform::UdpSocket::Listener {
   public:
    struct Sockets {
        std::unique_ptr<platform::UdpSocket> v4, v6;  ///< v6: none if the host has no IPv6
    };
    /// Both on that port, 0: any. Fails if it is taken.
    [[nodiscard]] static Result<Sockets> open(uint16_t port);

    /// `names_wanted`: names of STUN servers; each is answered by give_names().
    RelayService(platform::Loop& loop, Random& random, Sockets sockets, std::function<void(const std::vector<std::string>&)> names_wanted);
    ~RelayService() override;

    void set_static_endpoints(std::vector<Endpoint> endpoints);
    void set_local_addrs(const std::vector<Addr>& addrs, bool have_v4, bool have_v6);
    void set_derp_map(std::shared_ptr<const derp::DerpMap> map);
    void give_names(const std::string& host, const std::vector<Addr>& addrs);
    /// The host moved: what STUN said is void.
    void network_changed();
    /// nullopt: not ready, or full.
    [[nodiscard]] std::optional<disco::RelayEndpoint> allocate(const disco::DiscoPair& clients);
    [[nodiscard]] RelaySnapshot snapshot() const;

   private:
    // platform::UdpSocket::Listener
    void on_datagrams(std::span<UdpReceive> batch) override;
    void on_send_error(const Endpoint& to, int err) override;

    void take(MutByteSpan datagram, size_t stride, const Endpoint& from, Time now);
    void take_stun(ByteSpan datagram, const Endpoint& from, Time now);
    void send(const Endpoint& to, ByteSpan datagram);
    void ask_stun(Time now);
    void pump(Time now);
    void refresh(Time now);
    void on_timer();

    platform::Loop& loop_;
    Random& random_;
    Sockets sockets_;
    std::function<void(const std::vector<std::string>&)> names_wanted_;
    relay::Server server_;
    netcheck::Netcheck netcheck_;
    magicsock::OwnEndpoints own_;
    std::vector<Endpoint> static_;
    std::shared_ptr<const derp::DerpMap> derp_map_;
    std::set<std::string> asked_;  // names, in this report
    bool have_v4_ = true, have_v6_ = false;
    bool looked_ = false;  // STUN has been asked once, so the addresses are complete
    Time ask_at_ = Time::never();
    std::array<std::vector<UdpSend>, 2> out_;  // of the batch at hand: IPv4, IPv6
    decltype(RelaySnapshot::forwarded) forwarded_{};
    platform::Timer timer_;
};

}  // namespace mesh::daemon
