// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The packet loop, seen from the control loop. One thread owns TUN, UDP sockets, established DERP connections, wg,
/// magicsock and the data plane; this class hands it immutable values and slices of peer changes, and brings back
/// events. Every method and every Listener call is on the control loop.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/ip.h"
#include "base/keys.h"
#include "base/result.h"
#include "base/time.h"
#include "magicsock/derp/derp_map.h"
#include "magicsock/netcheck/netcheck.h"
#include "magicsock/path/magicsock.h"
#include "platform/loop/loop.h"
#include "tailscaled/dataplane/tables.h"
#include "tailscaled/dataplane/tunnel_ping.h"
#include "tailscaled/derp_dialer.h"
#include "tailscaled/dns/names.h"
#include "tailscaled/relay_service.h"
#include "tailscaled/user_net.h"

namespace mesh::daemon {

/// A peer as the packet loop needs it.
struct EnginePeer {
    PeerId id = kNoPeer;
    magicsock::PeerConfig config;
    bool operator==(const EnginePeer&) const = default;
};

/// A slice of changes, applied in one turn (≤ 64 entries).
struct PeerSlice {
    std::vector<PeerId> removed;
    std::vector<EnginePeer> upserted;
    std::vector<PeerId> greet_early;  ///< initiate before there is traffic
};

struct PeerSnapshot {
    int64_t rx_bytes = 0;
    int64_t tx_bytes = 0;
    WallTime last_handshake;
    WallTime last_write;
    bool has_session = false;
    magicsock::PeerPathStatus path;
};

struct EngineSnapshot {
    std::map<PeerId, PeerSnapshot> peers;  ///< those with any state worth telling
    std::vector<std::pair<std::string, uint64_t>> drops;         ///< "in_no_rule" → packets
    std::vector<std::pair<std::string, uint64_t>> metric_drops;  ///< "in_acl" → packets
    std::vector<std::pair<std::string, int64_t>> traffic;  ///< "inbound_bytes/derp" → count
    int live_derps = 0;
    std::optional<RelaySnapshot> relay;  ///< none: this node is no UDP relay
};

/// Whom a DNS answer goes to.
struct DnsClient {
    Endpoint client;
    Endpoint service;  ///< the address of ours that was asked
};

class Engine {
   public:
    static constexpr size_t kMaxDnsQueries = 256;
    struct Options {
        std::string tun_name = "tailscale0";
        bool userspace = false;  ///< no TUN: this program ends the connections of the tunnel itself
        unsigned mtu = 1280;
        uint16_t port = 0;  ///< 0 = any
        std::vector<Endpoint> static_endpoints;  ///< given by the owner: they lead to that port
    };
    class Listener {
       public:
        virtual ~Listener() = default;
        virtual void on_netcheck(const netcheck::Report& report) = 0;
        virtual void on_endpoints(const std::vector<magicsock::LocalEndpoint>& endpoints) = 0;
        virtual void on_home_derp(int region) = 0;
        virtual void on_derp_wanted(int region) = 0;
        virtual void on_derp_lost(int region, const std::string& why) = 0;
        virtual void on_names_wanted(const std::vector<std::string>& hosts) = 0;
        virtual void on_https_wanted(const std::vector<int>& regions) = 0;
        virtual void on_ping(uint64_t id, const magicsock::PingResult& result) = 0;
        virtual void on_tunnel_ping(uint64_t id, const dataplane::TunnelPong& pong) = 0;
        /// A WireGuard session with some peer stands.
        virtual void on_session() = 0;
        /// The peer's trusted path moved.
        virtual void on_path(PeerId peer, const magicsock::Path& path) = 0;
        /// Newest WireGuard timestamp used, for the state file; now and then.
        virtual void on_timestamp(int64_t unix_ns) = 0;
        /// A DNS query to our service address for a name that is not ours. give_dns_reply() must follow, whatever comes
        /// of it: the packet loop holds at most kMaxDnsQueries of them.
        virtual void on_dns_query(const DnsClient& client, Bytes query) = 0;
        /// The answer to a send_datagram().
        virtual void on_datagram(uint64_t association, const Endpoint& from, const Bytes& payload) = 0;
        /// The TUN died under us; nothing can be done but end.
        virtual void on_fatal(const std::string& why) = 0;
    };

    /// Opens the TUN and the UDP sockets and starts the thread. `listener` must outlive the engine.
    [[nodiscard]] static Result<std::unique_ptr<Engine>> start(platform::Loop& control, const Options& options, Listener& listener);
    ~Engine();  ///< ends the thread
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    [[nodiscard]] uint16_t port_v4() const;
    [[nodiscard]] uint16_t port_v6() const;  ///< 0: no IPv6 socket
    [[nodiscard]] int tun_index() const;  ///< 0: userspace networking
    [[nodiscard]] bool userspace() const { return tun_index() == 0; }
    /// Newest WireGuard timestamp used (unix ns), as far as told.
    [[nodiscard]] int64_t last_timestamp() const;

    void set_keys(const NodePrivate& node, const DiscoPrivate& disco, int64_t timestamp_floor_ns);
    void set_tables(std::shared_ptr<const dataplane::Tables> tables);
    void apply_peers(PeerSlice slice);
    void set_derp_map(std::shared_ptr<const derp::DerpMap> map);
    /// Addresses of this host that peers may try (without port), and whether the families work here.
    void set_local_addrs(std::vector<Addr> addrs, bool have_v4, bool have_v6);
    void set_running(bool running);  ///< false: packets are dropped, no probes leave, DERP connections close
    void adopt_derp(DerpLink link);
    void derp_failed(int region);
    void close_derp();
    void give_names(std::string host, std::vector<Addr> addrs);
    void give_https_latency(int region, bool ok, Duration latency, Addr::Family family);
    /// The endpoint that the router forwards to port_v4(), and what it speaks (for the net check).
    void set_port_mapping(std::optional<Endpoint> endpoint, std::optional<bool> upnp, std::optional<bool> pmp, std::optional<bool> pcp);
    void give_captive_portal(std::optional<bool> found);
    void restun();
    void measure();  ///< on_netcheck follows with a report about all regions, if there is a network
    void rebind();
    void ping(uint64_t id, PeerId peer, size_t size);
    void ping_tunnel(uint64_t id, PeerId peer, const Addr& dst, dataplane::PingKind kind);
    /// Names that are answered without asking anybody; null: none, queries are dropped.
    void set_names(std::shared_ptr<const dns::NameTable> names);
    /// Port of the control loop's listener for DNS over TCP; 0: none.
    void set_dns_listener(uint16_t port);
    void give_dns_reply(const DnsClient& client, Bytes reply);
    /// As Magicsock::set_relay_client.
    void set_relay_client(bool allowed, bool own_server);
    /// Opened by RelayService::open(); both empty: no relay any more.
    void set_relay_server(RelayService::Sockets sockets);
    void set_relay_static_endpoints(std::vector<Endpoint> endpoints);
    void link_up();  ///< the TUN is up now: probe what it can take
    /// With userspace networking: joins a program's connection to one through the tunnel.
    void dial(Outgoing what);
    /// ... a datagram of a program, of which several share one port here and so one association, until end_association().
    void send_datagram(uint64_t association, const Endpoint& to, Bytes payload);
    void end_association(uint64_t association);
    /// ... and whose connection it is that came to a program here from `local`. Waits for the packet loop as snapshot() does.
    [[nodiscard]] std::optional<Endpoint> client_of(const Endpoint& local);
    /// Asks the packet loop and waits, 200 ms at most; then the last one known.
    [[nodiscard]] const EngineSnapshot& snapshot();  ///< until the next call

    class Thread;  ///< for the packet loop only

   private:
    explicit Engine(std::unique_ptr<Thread> thread);
    std::unique_ptr<Thread> thread_;
};

}  // namespace mesh::daemon
