// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// A network for the tests of this room: nodes with one Magicsock each, NATs, one relay per region that also answers
/// STUN, all on a simulated clock. Only what these tests need; tests/sim has the whole thing.

#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <set>
#include <string>
#include <vector>

#include "magicsock/path/magicsock.h"
#include "magicsock/relay/server.h"

namespace mesh::magicsock::test {

inline Endpoint ep(const std::string& text) { return *Endpoint::parse(text); }

/// Mapping and filtering as in RFC 4787.
enum class NatKind : uint8_t {
    kNone,     ///< public address
    kEasy,     ///< endpoint-independent mapping, address- and port-dependent filtering
    kHard,     ///< address- and port-dependent mapping and filtering
    kBlocked,  ///< no UDP at all
};

/// Takes everything and tells nothing: tests override what they look at.
struct QuietOutput : Output {
    void send_udp(const Endpoint&, ByteSpan) override {}
    bool send_derp(int, const NodePublic&, ByteSpan) override { return true; }
    void path_changed(PeerId, const Path&, Time) override {}
    void endpoints_changed(std::span<const LocalEndpoint>) override {}
    void home_derp_changed(int) override {}
    void netcheck_done(const netcheck::Report&) override {}
    void ping_done(uint64_t, const PingResult&) override {}
    void resolve_names(const std::vector<std::string>&) override {}
    void https_latency_wanted(const std::vector<int>&) override {}
};

class TestNet;

class TestNode final : public Output {
   public:
    TestNode(TestNet& net, int index, NatKind nat, uint64_t seed);

    // Output
    void send_udp(const Endpoint& to, ByteSpan datagram) override;
    bool send_derp(int region, const NodePublic& to, ByteSpan datagram) override;
    void path_changed(PeerId peer, const Path& path, Time now) override { changes.push_back({now, peer, path}); }
    void disco_alive(PeerId peer, Time) override { alive.push_back(peer); }
    void endpoints_changed(std::span<const LocalEndpoint> e) override { endpoints.assign(e.begin(), e.end()); }
    void home_derp_changed(int region) override { home = region; }
    void netcheck_done(const netcheck::Report& r) override { reports.push_back(r); }
    void ping_done(uint64_t id, const PingResult& r) override { pings[id] = r; }
    void resolve_names(const std::vector<std::string>& hosts) override {
        asked.insert(asked.end(), hosts.begin(), hosts.end());
    }
    void https_latency_wanted(const std::vector<int>& regions) override { https = regions; }

    /// A datagram of the tunnel to the peer, by the path of the moment. False if there is none.
    bool send_data(PeerId peer);
    void take(Bytes datagram, const Endpoint& from);
    void take_derp(Bytes datagram, int region, const NodePublic& from);
    void leave_host(const Endpoint& to, Bytes datagram);
    [[nodiscard]] bool direct(PeerId peer);
    /// Makes it a UDP relay as well, at its address and this port.
    void serve_relay(uint16_t port);
    void relay_requested(PeerId by, const disco::AllocateRequest& r) override;
    void take_at_relay(Bytes datagram, const Endpoint& from);

    struct Change {
        Time at;
        PeerId peer;
        Path path;
    };
    struct Arrival {
        Time at;
        bool by_derp;
        uint32_t vni = 0;
    };
    std::unique_ptr<relay::Server> relay;
    Endpoint relay_addr;
    TestNet& net;
    int index;
    NatKind nat;
    SeededRandom random;
    NodePublic key;
    DiscoPrivate disco;
    Endpoint local;
    Endpoint wan;  // address of the NAT; port unused
    Magicsock ms;

    std::vector<Change> changes;
    std::vector<PeerId> alive;
    std::vector<LocalEndpoint> endpoints;
    std::vector<netcheck::Report> reports;
    std::map<uint64_t, PingResult> pings;
    std::vector<std::string> asked;
    std::vector<int> https;
    std::vector<Arrival> data;  // what came through the "tunnel"
    std::vector<std::pair<Time, Path>> sent;
    int home = 0;
    size_t udp_out = 0, derp_out = 0;
    bool derp_up = true;

    struct Mapping {
        uint16_t port = 0;
        std::set<Endpoint> sent_to;
    };
    std::map<Endpoint, Mapping> mappings;  // kEasy: one under the empty endpoint; kHard: one per destination
    uint16_t next_port = 20000;
};

class TestNet {
   public:
    Time now{seconds(10'000).ns};
    Duration udp_delay = milliseconds(5);
    Duration derp_delay = milliseconds(15);
    bool udp_cut = false;  // between nodes; STUN goes on

    TestNode& add(NatKind nat) {
        nodes.push_back(std::make_unique<TestNode>(*this, static_cast<int>(nodes.size()), nat, nodes.size() + 77));
        return *nodes.back();
    }
    /// Everybody knows everybody: PeerId = index. Endpoints as advertised now.
    void share_netmap() {
        for (auto& a : nodes)
            for (auto& b : nodes)
                if (a != b) a->ms.upsert_peer(static_cast<PeerId>(b->index), config_of(*b), now);
    }
    [[nodiscard]] PeerConfig config_of(const TestNode& n) const {
        PeerConfig c{.key = n.key, .disco = n.disco.public_key(), .endpoints = {}, .home_derp = n.home};
        for (const LocalEndpoint& e : n.endpoints) c.endpoints.push_back(e.ep);
        return c;
    }
    /// Keys, one network, relays 1 and 2; then 6 s, enough for a netcheck.
    void start() {
        auto map = std::make_shared<derp::DerpMap>();
        for (int id : {1, 2}) {
            derp::DerpRegion r;
            r.id = id;
            r.code = "r" + std::to_string(id);
            derp::DerpNode n;
            n.name = std::to_string(id) + "a";
            n.region_id = id;
            n.host_name = "198.51.100." + std::to_string(id);
            n.ipv4 = n.host_name;
            n.ipv6 = "none";
            r.nodes.push_back(n);
            map->regions[id] = r;
        }
        for (auto& n : nodes) {
            n->ms.set_node_key(n->key);
            n->ms.set_disco_key(n->disco);
            n->ms.set_local_endpoints({n->local}, now);
            n->ms.set_derp_map(map, now);
        }
        run(seconds(6));
    }
    void at(Time t, std::function<void()> f) { queue_.push({t, seq_++, std::move(f)}); }
    void run(Duration d) { run_until(now + d); }
    void run_until(Time end) {
        for (;;) {
            Time next = queue_.empty() ? Time::never() : queue_.top().at;
            TestNode* node = nullptr;
            for (auto& n : nodes)
                if (n->ms.next_timeout() < next) {
                    next = n->ms.next_timeout();
                    node = n.get();
                }
            if (next > end) break;
            now = max(now, next);
            ++turns;
            if (node != nullptr) {
                node->ms.handle_timeout(now);
                continue;
            }
            auto f = queue_.top().run;
            queue_.pop();
            f();
        }
        now = max(now, end);
    }
    void route(const Endpoint& from, const Endpoint& to, Bytes datagram);
    void relay(TestNode& from, int region, const NodePublic& to, Bytes datagram);

    std::vector<std::unique_ptr<TestNode>> nodes;
    uint64_t turns = 0;

   private:
    struct Event {
        Time at;
        uint64_t seq;
        std::function<void()> run;
        bool operator<(const Event& o) const { return std::tie(o.at.ns, o.seq) < std::tie(at.ns, seq); }
    };
    std::priority_queue<Event> queue_;
    uint64_t seq_ = 0;
};

}  // namespace mesh::magicsock::test
