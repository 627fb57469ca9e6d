// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// A node: the DataPlane of the release daemon (WireGuard, magicsock, filter inside), with a simulated kernel below and
/// a small host above it that answers pings. What the daemon's control side does, World does.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tailscaled/dataplane/dataplane.h"
#include "tests/sim/network.h"

namespace mesh::sim {

/// What control knows about a node.
struct Record {
    NodePublic key;
    DiscoPublic disco;
    std::vector<Endpoint> endpoints;
    int home_derp = 0;
    bool operator==(const Record&) const = default;
};

class Node final : public Host, public dataplane::Kernel, public dataplane::Events {
   public:
    /// How things that happen in a node reach World.
    class Listener {
       public:
        virtual ~Listener() = default;
        virtual void record_changed(Node& node) = 0;
        virtual void path_changed(Node& node, PeerId peer, const magicsock::Path& path) = 0;
        /// An echo request for this host, an answer to one of ours: `id` as given to ping(), `intact` by comparing bytes.
        virtual void ping_arrived(Node& node, PeerId from, uint32_t id, bool intact) = 0;
        virtual void pong_arrived(Node& node, PeerId from, uint32_t id, bool intact) = 0;
    };

    Node(Network& net, Listener& listener, int number, Site& site, uint64_t seed);
    ~Node() override;

    /// The program starts. Keys as before, but for the disco key if `new_disco`.
    void start(bool new_disco);
    /// The program is gone at once, without goodbye.
    void kill();
    [[nodiscard]] bool running() const { return plane_ != nullptr; }

    /// The network map's word on a peer: PeerId = number of the node.
    void learn_peer(int peer, const Record& record);
    /// The host pings a peer: an ICMP echo request of `size` bytes (28..1280) enters by the TUN.
    void ping(int peer, uint32_t id, size_t size);
    void rebind();

    [[nodiscard]] int number() const { return number_; }
    [[nodiscard]] Site& site() { return *site_; }
    [[nodiscard]] const Record& record() const { return record_; }
    [[nodiscard]] Addr tunnel_addr() const { return tunnel_addr_of(number_); }
    [[nodiscard]] dataplane::DataPlane& plane() { return *plane_; }
    [[nodiscard]] bool trusts_direct(int peer) const;
    /// When this run of the program knew the peer's relay first; zero: not yet.
    [[nodiscard]] Time knows_since(int peer) const;
    /// First word of control in this run (early greetings).
    [[nodiscard]] Time next_timeout() const { return plane_ ? plane_->next_timeout() : Time::never(); }
    void handle_timeout();
    [[nodiscard]] static Addr tunnel_addr_of(int n) { return Addr::v4(100, 64, 0, static_cast<uint8_t>(n + 1)); }

    // Host
    void udp_arrived(Bytes datagram, const Endpoint& from) override;
    void derp_arrived(Bytes datagram, int region, const NodePublic& from) override;
    void derp_connected(int region, bool connected) override;
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

    void host_received(ByteSpan packet);
    void host_sends(Bytes packet);
    void set_local_endpoints();
    /// Runs after the present call, if this run of the program still lives.
    void later(std::function<void()> run, Duration delay = {});

    Network& net_;
    Listener& listener_;
    int number_;
    Site* site_;
    SeededRandom random_;
    NodePrivate node_key_;
    DiscoPrivate disco_key_;
    Addr lan4_, addr6_;
    Record record_;
    uint64_t run_ = 0;  // how often the program was started
    std::unique_ptr<dataplane::DataPlane> plane_;
    std::map<int, Time> knows_;
    std::map<int, Record> peers_;
    uint64_t timestamp_ = 0;  // persisted
};

}  // namespace mesh::sim
