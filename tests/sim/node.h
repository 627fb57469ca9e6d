// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// A node: the release daemon's DataPlane (WireGuard, magicsock, filter inside), map session, PeerIds and plans, with a
/// simulated kernel below and a small host above it that answers pings. What Node does itself is what the two loops of the
/// daemon do between these objects.

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tailscaled/control/map_session.h"
#include "tailscaled/dataplane/dataplane.h"
#include "tailscaled/network_plan.h"
#include "tests/sim/network.h"

namespace mesh::sim {

/// What a node tells control about itself, or what a map says of another.
struct Record {
    NodePublic key;
    DiscoPublic disco;
    std::vector<Endpoint> endpoints;
    int home_derp = 0;
    bool operator==(const Record&) const = default;
};

/// A node that does on purpose what no node may do, to show that the judge sees it.
enum class Sabotage : uint8_t {
    kNone,
    kClear,         ///< sends each packet in clear besides
    kTwice,         ///< hands each packet to the host twice
    kChanged,       ///< changes a byte of each packet for the host
    kOpenFilter,    ///< takes any packet, whatever control's filter says
    kAnySource,     ///< takes any source address from any peer
    kCrossedPeers,  ///< sends to one peer what is for another
};

class Node final : public Host, public dataplane::Kernel, public dataplane::Events {
   public:
    enum class Request : uint8_t { kRegister, kPoll, kUpdate };
    /// How things that happen in a node reach World. Peers are named by their addresses in the tailnet.
    class Listener {
       public:
        virtual ~Listener() = default;
        /// A request to control, as its body on the wire. kPoll opens the stream of maps, of which control_says() brings one each.
        virtual void control_request(Node& node, Request kind, const std::string& body) = 0;
        /// A map arrived that could not be read.
        virtual void control_error(Node& node, const std::string& why) = 0;
        virtual void path_changed(Node& node, const Addr& peer, const magicsock::Path& path) = 0;
        /// An echo request for this host, an answer to one of ours: `id` as given to ping(), `intact` by comparing bytes.
        virtual void ping_arrived(Node& node, const Addr& from, uint32_t id, bool intact) = 0;
        virtual void pong_arrived(Node& node, const Addr& from, uint32_t id, bool intact) = 0;
    };

    /// `addr`: what control will give it.
    Node(Network& net, Listener& listener, int number, const Addr& addr, Site& site, uint64_t seed);
    ~Node() override;
    void set_sabotage(Sabotage s) { sabotage_ = s; }

    /// The program starts. Keys as before, but for the disco key if `new_disco`.
    void start(bool new_disco);
    /// The program is gone at once, without goodbye.
    void kill();
    [[nodiscard]] bool running() const { return plane_ != nullptr; }

    /// The connection to control was lost and stands again: a new poll.
    void poll_again();
    /// One message of the poll.
    void control_says(const std::string& json);
    /// The host pings an address: an ICMP echo request of `size` bytes (kMinPing..1280) enters by the TUN. With `as`, a
    /// user of this host gives a false source address.
    static constexpr size_t kMinPing = 44;
    void ping(const Addr& to, uint32_t id, size_t size, const Addr& as = {});
    void rebind();

    [[nodiscard]] int number() const { return number_; }
    [[nodiscard]] Site& site() { return *site_; }
    [[nodiscard]] const Record& record() const { return record_; }
    [[nodiscard]] const Addr& tunnel_addr() const { return tunnel_addr_; }
    [[nodiscard]] const MachinePublic& machine() const { return machine_; }
    /// What this run of the program was told about a peer; key zero: nothing.
    [[nodiscard]] Record knows(const Addr& peer) const;
    /// Over all runs of the program.
    [[nodiscard]] uint64_t dropped_in(dataplane::Drop why) const;
    [[nodiscard]] Time next_timeout() const;
    void handle_timeout();

    // Host
    void udp_arrived(Bytes datagram, const Endpoint& from) override;
    void derp_arrived(Bytes datagram, int region, const NodePublic& from) override;
    void derp_connected(int region, bool connected) override;
    void derp_failed(int region) override;
    void derp_peer_gone(int region, const NodePublic& peer) override;

   private:
    // dataplane::Kernel
    void write_tun(std::span<const TunWrite> writes) override;
    void send_udp(std::span<const UdpSend> sends) override;
    bool send_derp(int region, const NodePublic& to, ByteSpan datagram) override;
    // dataplane::Events
    void path_changed(PeerId peer, const magicsock::Path& path, Time now) override;
    void endpoints_changed(std::span<const magicsock::LocalEndpoint> endpoints) override;
    void home_derp_changed(int region) override;
    void netcheck_done(const netcheck::Report& report) override;
    void https_latency_wanted(const std::vector<int>& regions) override;

    void request(Request kind);
    void set_tables();
    void host_received(ByteSpan packet);
    void host_sends(Bytes packet);
    void set_local_endpoints();
    void dial_home_again(int region);
    /// Runs after the present call, if this run of the program still lives.
    void later(std::function<void()> run, Duration delay = {});

    Network& net_;
    Listener& listener_;
    int number_;
    Addr tunnel_addr_;
    Site* site_;
    SeededRandom random_;
    Sabotage sabotage_ = Sabotage::kNone;
    MachinePublic machine_;
    NodePrivate node_key_;
    DiscoPrivate disco_key_;
    Addr lan4_, addr6_;
    Record record_;
    uint64_t run_ = 0;  // how often the program was started
    std::unique_ptr<dataplane::DataPlane> plane_;
    uint64_t timestamp_ = 0;  // persisted
    std::array<uint64_t, static_cast<size_t>(dataplane::Drop::kCount)> dropped_in_{};  // of runs that ended

    // The control side of this run.
    control::MapSession session_;
    std::shared_ptr<const netmap::NetMap> map_;
    daemon::PeerIds ids_;
    std::map<PeerId, Addr> addrs_;
    bool greeted_ = false;
};

}  // namespace mesh::sim
