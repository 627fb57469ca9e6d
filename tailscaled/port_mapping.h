// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The shell around portmap::Mapper on the control loop: one marked UDP socket, an HTTP client, one timer.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "magicsock/portmap/mapper.h"
#include "platform/http/http_client.h"
#include "platform/loop/loop.h"
#include "platform/net/udp_socket.h"

namespace mesh::daemon {

class PortMapping final : private platform::UdpSocket::Listener {
    /// Gateways that say to everybody that they have started.
    struct Announcements final : platform::UdpSocket::Listener {
        explicit Announcements(PortMapping& mapping) : owner(mapping) {}
        void on_datagrams(std::span<UdpReceive> batch) override;
        void on_send_error(const Endpoint&, int) override {}
        PortMapping& owner;
        std::unique_ptr<platform::UdpSocket> socket;
    };

   public:
    struct State {
        std::optional<Endpoint> endpoint;         ///< forwarded to us by the router
        std::string protocol;                     ///< that gave it: "UPnP"
        std::optional<bool> upnp, pmp, pcp;       ///< what the router speaks; nullopt: not asked yet
        std::vector<portmap::Note> notes;
        bool operator==(const State&) const = default;
    };
    /// Called in a turn of the loop in which the state changed.
    using OnChange = std::function<void()>;
    /// All must outlive it.
    PortMapping(platform::Loop& loop, platform::HttpClient& http, Random& random, OnChange on_change);

    /// `gateway`: of the default route; none, IPv6 or port 0: no mapping, and one that stands is taken back. Equal to before: nothing.
    void set(const Addr& gateway, uint16_t local_port, bool upnp);
    /// The network moved in some way, or somebody asks.
    void look_again();
    /// As relays see this host; another address than the router's own means that the port is open elsewhere.
    void set_seen(const Addr& seen);
    /// Takes a mapping back and turns the loop until the router has answered, a second at most.
    void close();

    [[nodiscard]] const State& state() const { return state_; }

   private:
    void open_socket(const Addr& self);
    void hear_announcements();
    void settle();
    void on_datagrams(std::span<UdpReceive> batch) override;
    void on_send_error(const Endpoint&, int) override {}

    platform::Loop& loop_;
    platform::HttpClient& http_;
    OnChange on_change_;
    portmap::Mapper mapper_;
    Addr gateway_, self_, seen_;
    uint16_t port_ = 0;
    bool upnp_ = true;
    State state_;
    std::map<uint64_t, std::unique_ptr<platform::HttpClient::Call>> calls_;
    std::unique_ptr<platform::UdpSocket> socket_;
    Announcements announcements_{*this};
    platform::Timer timer_;
};

}  // namespace mesh::daemon
