// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The shell around the data plane on its own thread: read a batch, feed it, flush, re-arm one timer. It owns TUN (or what stands in its place), UDP
/// sockets and established relay connections. Everything here runs on the packet loop.

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/random.h"
#include "platform/loop/loop.h"
#include "platform/net/send_lane.h"
#include "platform/net/udp_socket.h"
#include "platform/tun/tun_device.h"
#include "tailscaled/dataplane/dataplane.h"
#include "tailscaled/dataplane/service_tcp.h"
#include "tailscaled/engine.h"
#include "tailscaled/user_net.h"

namespace mesh::daemon {

class PacketLoop final : private dataplane::Kernel, private dataplane::Events, private platform::UdpSocket::Listener {
   public:
    struct Parts {
        std::optional<platform::TunDevice> tun;  ///< none: userspace networking
        std::unique_ptr<platform::UdpSocket> v4, v6;
        size_t mtu = 1280;
        std::vector<Endpoint> static_endpoints;
    };
    /// TUN first: it is what fails for people without rights.
    [[nodiscard]] static Result<Parts> open(const Engine::Options& options);

    PacketLoop(platform::Loop& loop, Parts parts, Engine::Thread& shared);
    ~PacketLoop() override;

    void set_keys(const NodePrivate& node, const DiscoPrivate& disco, int64_t timestamp_floor_ns);
    void set_tables(std::shared_ptr<const dataplane::Tables> tables);
    void apply_peers(const PeerSlice& slice);
    void set_derp_map(std::shared_ptr<const derp::DerpMap> map);
    void set_local_addrs(const std::vector<Addr>& addrs, bool have_v4, bool have_v6);
    void set_running(bool running);
    void adopt_derp(DerpLink link);
    void derp_failed(int region);
    void close_derp();
    void give_names(const std::string& host, const std::vector<Addr>& addrs);
    void give_https_latency(int region, bool ok, Duration latency, Addr::Family family);
    void set_port_mapping(const std::optional<Endpoint>& endpoint, std::optional<bool> upnp, std::optional<bool> pmp, std::optional<bool> pcp);
    void give_captive_portal(std::optional<bool> found) { plane_.sock().set_captive_portal(found); }
    void restun();
    void measure();
    void rebind();
    void ping(uint64_t id, PeerId peer, size_t size);
    void ping_tunnel(uint64_t id, PeerId peer, const Addr& dst, dataplane::PingKind kind);
    void set_names(std::shared_ptr<const dns::NameTable> names) { names_ = std::move(names); }
    void set_dns_listener(uint16_t port) { service_tcp_.set_listener(port); }
    void give_dns_reply(const DnsClient& client, const Bytes& reply);
    void set_relay_client(bool allowed, bool own_server);
    void set_relay_server(RelayService::Sockets sockets);
    void set_relay_static_endpoints(const std::vector<Endpoint>& endpoints);
    void link_up();
    /// Userspace networking only.
    void dial(Outgoing what);
    void send_datagram(uint64_t association, const Endpoint& to, ByteSpan payload);
    void end_association(uint64_t association);
    [[nodiscard]] std::optional<Endpoint> client_of(const Endpoint& local) const { return user_ ? user_->client_of(local) : std::nullopt; }
    [[nodiscard]] EngineSnapshot snapshot();

   private:
    class DerpConn;
    /// Packets for a relay that is being dialled.
    struct Waiting {
        std::vector<std::pair<NodePublic, Bytes>> packets;
        size_t bytes = 0;
        Time since;
    };

    // dataplane::Kernel
    void write_tun(std::span<const TunWrite> writes) override;
    void send_udp(std::span<const UdpSend> sends) override { send_lane_.send(sends); }
    void send_batch(UdpBatch& batch) override { send_lane_.send(batch, loop_.now()); }
    [[nodiscard]] bool seals_too() const override { return send_lane_.in_use(); }
    bool send_derp(int region, const NodePublic& to, ByteSpan datagram) override;
    // dataplane::Events
    void path_changed(PeerId peer, const magicsock::Path& path, Time now) override;
    void endpoints_changed(std::span<const magicsock::LocalEndpoint> endpoints) override;
    void home_derp_changed(int region) override;
    void netcheck_done(const netcheck::Report& report) override;
    void resolve_names(const std::vector<std::string>& hosts) override;
    void https_latency_wanted(const std::vector<int>& regions) override;
    void ping_done(uint64_t id, const magicsock::PingResult& result) override;
    void relay_requested(PeerId by, const disco::AllocateRequest& request) override;
    void tunnel_ping_done(uint64_t id, const dataplane::TunnelPong& pong) override;
    bool service_packet(MutByteSpan packet, const netstack::Parsed& parsed, Time now) override;
    // platform::UdpSocket::Listener
    void on_datagrams(std::span<UdpReceive> batch) override;
    void on_batch_end() override;
    void on_send_error(const Endpoint& to, int err) override;

    void on_tun();
    void send_from_user();
    /// Packets of this host into the tunnel.
    void send(std::span<TunRead> batch) {
        if (running_)
            plane_.send(batch, loop_.now());
        else
            tun_drops_ += batch.size();
    }
    void on_timer();
    void on_sweep();
    /// After everything that came in: relay bytes out, facts told, timer armed.
    void pump_relays();
    void finish_turn();
    void derp_bytes(DerpConn& conn);
    void derp_closed(int region, const std::string& why);
    void want_derp(int region);
    void want_home();
    void answer_relay_requests();
    void read_wall_clock();
    void set_network();
    void tell(std::function<void(Engine::Listener&)> task);
    void note_timestamp(int64_t unix_ns);

    platform::Loop& loop_;
    std::optional<platform::TunDevice> tun_;
    std::unique_ptr<platform::UdpSocket> v4_, v6_;
    Engine::Thread& shared_;
    SystemRandom random_;
    dataplane::DataPlane plane_;

    bool running_ = false;
    bool have_v4_ = true, have_v6_ = false;
    int home_derp_ = 0;
    NodePublic node_;
    std::map<int, std::unique_ptr<DerpConn>> derps_;
    std::map<int, Waiting> waiting_;
    std::vector<std::unique_ptr<DerpConn>> dead_derps_;  // until the turn is over: they may be on the stack
    std::set<int> dirty_derps_;
    std::vector<std::pair<Endpoint, int>> send_errors_;
    std::map<PeerId, Endpoint> told_path_;
    std::set<PeerId> peers_;
    uint64_t sessions_told_ = 0;
    int64_t timestamp_told_ = 0;
    Time wall_read_;
    uint64_t tun_drops_ = 0;

    std::shared_ptr<const dns::NameTable> names_;
    dataplane::ServiceTcp service_tcp_;
    size_t dns_asked_ = 0;  ///< queries that the control loop has not answered yet

    // what our UDP relay is told when it starts
    std::vector<Addr> local_addrs_;
    std::shared_ptr<const derp::DerpMap> derp_map_;
    std::vector<Endpoint> relay_static_;
    std::vector<std::pair<PeerId, disco::AllocateRequest>> relay_requests_;  ///< of this turn
    std::unique_ptr<RelayService> relay_;  ///< none: this node is no UDP relay

    platform::Timer timer_;
    platform::Timer sweep_;
    // Last: no callback after anything else is gone. Either a TUN or this.
    std::optional<platform::FdPoll> tun_poll_;
    std::optional<platform::TurnEnd> user_turn_;
    std::unique_ptr<UserNet> user_;
    platform::SendLane send_lane_;
};

}  // namespace mesh::daemon
