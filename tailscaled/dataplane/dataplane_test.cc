// SPDX-License-Identifier: BSD-3-Clause
// Two whole data planes, with real WireGuard and magicsock, back to back over a network in memory.

#include "tailscaled/dataplane/dataplane.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <functional>

#include "netstack/checksum.h"
#include "netstack/icmp.h"
#include "netstack/test_packets.h"
#include "wg/messages.h"

namespace mesh::dataplane {
namespace {

using netstack::Parsed;
using netstack::test::build;
using netstack::test::bytes_of_length;
using netstack::test::parsed;
using netstack::test::Spec;

Addr addr(std::string_view text) { return *Addr::parse(text); }
Prefix pfx(std::string_view text) { return *Prefix::parse(text); }

struct Net;

/// One node: 100.64.0.(i+1), fd7a:115c:a1e0::(i+1), UDP 203.0.113.(i+1):41641, relay region 1.
struct Node final : Kernel, Events {
    Node(Net& n, int i, Config config)
        : net(n), index(i), random(static_cast<uint64_t>(100 + i)), key(NodePrivate::generate(random)),
          disco(DiscoPrivate::generate(random)), udp{Addr::v4(203, 0, 113, static_cast<uint8_t>(i + 1)), 41641},
          dp(random, *this, *this, config) {}

    // Kernel
    void write_tun(std::span<const TunWrite> writes) override {
        for (const TunWrite& w : writes) {
            Bytes b;
            for (const ByteSpan p : w.pieces) b.insert(b.end(), p.begin(), p.end());
            tun.push_back(b);
            gso.push_back(w.vnet.gso_size);
        }
    }
    void send_udp(std::span<const UdpSend> sends) override;
    bool send_derp(int region, const NodePublic& to, ByteSpan datagram) override;
    // Events
    void tunnel_ping_done(uint64_t id, const TunnelPong& pong) override { pongs.emplace_back(id, pong); }
    void flow_rejected(PeerId, const netstack::TsmpReject& r) override { rejects.push_back(r); }
    bool service_packet(MutByteSpan packet, const Parsed&, Time) override {
        service.push_back(to_bytes(packet));
        return serve;
    }

    void host_sends(std::vector<Bytes> packets, VnetHdr vnet = {});
    [[nodiscard]] std::string ip(bool v4 = true) const {
        return (v4 ? "100.64.0." : "fd7a:115c:a1e0::") + std::to_string(index + 1);
    }

    Net& net;
    int index;
    SeededRandom random;
    NodePrivate key;
    DiscoPrivate disco;
    Endpoint udp;
    std::vector<Bytes> tun;
    std::vector<uint16_t> gso;
    std::vector<UdpSend> udp_shapes;  // bytes are stale: look at sizes only
    std::vector<std::pair<uint64_t, TunnelPong>> pongs;
    std::vector<netstack::TsmpReject> rejects;
    std::vector<Bytes> service;
    bool serve = false;
    DataPlane dp;
};

struct Net {
    struct Flight {
        Time at;
        int to = 0;
        bool by_derp = false;
        int from = 0;
        Bytes bytes;
        uint32_t stride = 0;
    };

    explicit Net(int count = 2, Config config = {}) {
        for (int i = 0; i < count; ++i) nodes.push_back(std::make_unique<Node>(*this, i, config));
        for (auto& n : nodes) {
            n->dp.wg().set_wall_clock(WallTime{1'700'000'000'000'000'000}, now);
            n->dp.set_node_key(n->key, now);
            n->dp.sock().set_disco_key(n->disco);
            n->dp.sock().set_local_endpoints({n->udp}, now);
            n->dp.sock().derp_state(1, true, now);
            for (auto& other : nodes)
                if (other != n) n->dp.upsert_peer(id(*other), config_of(*other), now);
            n->dp.set_tables(tables_of(*n));
            n->dp.settle(now);
        }
    }
    static PeerId id(const Node& n) { return static_cast<PeerId>(n.index); }
    magicsock::PeerConfig config_of(const Node& n) const {
        return {n.key.public_key(), n.disco.public_key(), {n.udp}, 1, false};
    }
    std::shared_ptr<Tables> tables_of(const Node& n, const std::vector<netstack::FilterRule>& rules = allow_all()) const {
        auto t = std::make_shared<Tables>();
        for (const auto& other : nodes)
            if (other.get() != &n) t->add_peer(id(*other), {pfx(other->ip()), pfx(other->ip(false))});
        t->self = {addr(n.ip()), addr(n.ip(false))};
        t->filter = netstack::FilterTable(rules, {{pfx(n.ip()), pfx(n.ip(false))}, {}});
        t->peerapi_port4 = 4444;
        t->peerapi_port6 = 6666;
        return t;
    }
    static std::vector<netstack::FilterRule> allow_all() {
        netstack::FilterRule r;
        EXPECT_TRUE(netstack::parse_source("*", r));
        for (const Prefix& p : r.src) r.dst.push_back({p, {}});
        return {r};
    }

    // Handles what comes due in [now, now + d], timers included.
    void run(Duration d) {
        const Time end = now + d;
        for (;;) {
            Time next = flights.empty() ? Time::never() : flights.front().at;
            for (auto& n : nodes) next = min(next, n->dp.next_timeout());
            if (next > end) break;
            now = max(now, next);
            while (!flights.empty() && flights.front().at <= now) {
                Flight f = std::move(flights.front());
                flights.pop_front();
                Node& to = *nodes[static_cast<size_t>(f.to)];
                const Node& from = *nodes[static_cast<size_t>(f.from)];
                if (f.by_derp) {
                    to.dp.receive_derp(1, from.key.public_key(), f.bytes, now);
                } else {
                    UdpReceive r{from.udp, f.bytes, f.stride};
                    to.dp.receive({&r, 1}, now);
                }
            }
            for (auto& n : nodes)
                if (n->dp.next_timeout() <= now) n->dp.handle_timeout(now);
        }
        now = end;
    }
    void connect() {
        a().host_sends({build({.src = "100.64.0.1", .dst = "100.64.0.2", .proto = netstack::kProtoUdp})});
        run(seconds(2));
        ASSERT_TRUE(a().dp.sock().peek_path(1, now).udp_trusted);
        for (auto& n : nodes) {
            n->tun.clear();
            n->gso.clear();
            n->udp_shapes.clear();
        }
    }
    Node& a() { return *nodes[0]; }
    Node& b() { return *nodes[1]; }

    Time now{seconds(1000).ns};
    std::vector<std::unique_ptr<Node>> nodes;
    std::deque<Flight> flights;
    bool udp_works = true;
    bool record = false;
    std::vector<Flight> recorded;
};

void Node::send_udp(std::span<const UdpSend> sends) {
    for (const UdpSend& s : sends) {
        udp_shapes.push_back(s);
        for (auto& n : net.nodes) {
            if (n->udp != s.to || !net.udp_works) continue;
            Net::Flight f{net.now + milliseconds(5), n->index, false, index, to_bytes(s.bytes), s.segment};
            if (net.record) net.recorded.push_back(f);
            net.flights.push_back(std::move(f));
        }
    }
}

bool Node::send_derp(int region, const NodePublic& to, ByteSpan datagram) {
    for (auto& n : net.nodes) {
        if (region != 1 || n->key.public_key() != to) continue;
        // Same delay as UDP: the queue stays sorted.
        net.flights.push_back({net.now + milliseconds(5), n->index, true, index, to_bytes(datagram), 0});
        return true;
    }
    return false;
}

void Node::host_sends(std::vector<Bytes> packets, VnetHdr vnet) {
    std::vector<TunRead> reads;
    for (Bytes& b : packets) reads.push_back({vnet, b});
    dp.send(reads, net.now);
}

Spec from_to(const Node& a, const Node& b, bool v4 = true) {
    static std::deque<std::string> texts;  // Spec holds views
    texts.push_back(a.ip(v4));
    Spec s;
    s.src = texts.back();
    texts.push_back(b.ip(v4));
    s.dst = texts.back();
    return s;
}

Spec ping(const Node& a, const Node& b, bool v4 = true) {
    Spec s = from_to(a, b, v4);
    s.proto = v4 ? netstack::kProtoIcmp4 : netstack::kProtoIcmp6;
    s.icmp_type = v4 ? 8 : 128;
    s.payload = bytes_of_length(56);
    return s;
}

/// The TUN of `n` answers pings as a kernel would.
void answer_pings(Node& n) {
    std::vector<Bytes> replies;
    for (Bytes b : std::exchange(n.tun, {})) {
        const Parsed p = parsed(b);
        if (!p.is_echo_request()) continue;
        netstack::make_echo_reply(b, p);
        replies.push_back(b);
    }
    n.gso.clear();
    n.host_sends(replies);
}

TEST(DataPlane, TheFirstPingArrivesAndIsAnswered) {
    for (const bool udp_works : {true, false}) {
        Net net;
        net.udp_works = udp_works;
        for (const bool v4 : {true, false}) {
            const Bytes request = build(ping(net.a(), net.b(), v4));
            net.a().host_sends({request});
            net.run(milliseconds(100));
            ASSERT_EQ(net.b().tun.size(), 1U);
            EXPECT_EQ(net.b().tun[0], request) << "without padding, byte for byte";
            answer_pings(net.b());
            net.run(milliseconds(100));
            ASSERT_EQ(net.a().tun.size(), 1U);
            EXPECT_TRUE(parsed(net.a().tun[0]).is_echo_reply());
            net.a().tun.clear();
        }
        EXPECT_EQ(net.a().dp.counters().staged, 1U) << "one packet waited for the handshake";
        if (udp_works) continue;
        const Traffic sent = net.a().dp.counters().out[static_cast<size_t>(PathKind::kDerp)];
        const Traffic received = net.b().dp.counters().in[static_cast<size_t>(PathKind::kDerp)];
        EXPECT_EQ(sent.packets, 3U) << "the Initiation counts as well";
        EXPECT_EQ(sent.packets, received.packets);
        EXPECT_EQ(sent.bytes, received.bytes);
    }
}

TEST(DataPlane, PacketsThatWaitedForTheSessionArriveInOrder) {
    Net net;
    std::vector<Bytes> packets;
    for (uint8_t i = 0; i < 20; ++i) {
        Spec s = from_to(net.a(), net.b());
        s.proto = netstack::kProtoUdp;
        s.payload = bytes_of_length(10U + i, i);  // growing, so that nothing is joined
        packets.push_back(build(s));
    }
    net.a().host_sends(packets);
    EXPECT_TRUE(net.b().tun.empty());
    EXPECT_EQ(net.a().dp.counters().staged, 20U);
    net.run(milliseconds(100));
    EXPECT_EQ(net.b().tun, packets);
}

TEST(DataPlane, AnUnprovenPathSendsOnUdpAndRelayAndTheCopyIsDropped) {
    Net net;
    net.connect();
    const Counters& c = net.a().dp.counters();
    const auto udp = [&] { return c.out[static_cast<size_t>(PathKind::kDirect4)].packets; };
    const auto derp = [&] { return c.out[static_cast<size_t>(PathKind::kDerp)].packets; };
    uint64_t udp_before = udp(), derp_before = derp();
    net.a().host_sends({build(ping(net.a(), net.b()))});
    EXPECT_EQ(udp(), udp_before + 1);
    EXPECT_EQ(derp(), derp_before) << "proven: UDP alone";

    // UDP dies under traffic until nobody trusts it.
    net.udp_works = false;
    for (int i = 0; i < 100 && net.a().dp.sock().peek_path(1, net.now).udp_trusted; ++i) {
        net.a().host_sends({build(ping(net.a(), net.b()))});
        net.run(milliseconds(100));
    }
    const magicsock::Path path = net.a().dp.sock().peek_path(1, net.now);
    ASSERT_FALSE(path.udp_trusted);
    ASSERT_TRUE(path.udp.is_valid());
    ASSERT_EQ(path.derp_region, 1);
    // Both ways are used; where both arrive, one copy is refused.
    net.udp_works = true;
    net.b().tun.clear();
    udp_before = udp();
    derp_before = derp();
    const uint64_t replayed = net.b().dp.counters().wg_dropped(wg::DropReason::kReplayed);
    net.a().host_sends({build(ping(net.a(), net.b()))});
    EXPECT_EQ(udp(), udp_before + 1);
    EXPECT_EQ(derp(), derp_before + 1);
    net.run(milliseconds(20));
    EXPECT_EQ(net.b().tun.size(), 1U);
    EXPECT_EQ(net.b().dp.counters().wg_dropped(wg::DropReason::kReplayed), replayed + 1);
}

// More than are sealed at once: handed to the relay in order, opened together, and one write to the host for all of it.
TEST(DataPlane, ABatchByRelayStaysInOrderAndReachesTheHostAsOneWrite) {
    Net net;
    net.udp_works = false;
    net.a().host_sends({build(ping(net.a(), net.b()))});
    net.run(seconds(2));
    ASSERT_EQ(net.b().tun.size(), 1U);
    ASSERT_FALSE(net.a().dp.sock().peek_path(1, net.now).udp.is_valid());
    net.b().dp.set_tun_offload(true, true);
    net.b().tun.clear();
    net.b().gso.clear();
    net.flights.clear();

    constexpr size_t kCount = 40, kPayload = 1000;
    std::vector<Bytes> packets;
    for (size_t i = 0; i < kCount; ++i) {
        Spec s = from_to(net.a(), net.b());
        s.seq = static_cast<uint32_t>(1000 + i * kPayload);
        s.payload = bytes_of_length(kPayload);
        packets.push_back(build(s));
    }
    net.a().host_sends(packets);
    std::vector<DataPlane::DerpReceive> batch;
    for (auto& f : net.flights)
        if (f.by_derp && f.bytes.size() > kPayload) batch.push_back({net.a().key.public_key(), f.bytes});
    ASSERT_EQ(batch.size(), kCount);
    net.b().dp.receive_derp(1, batch, net.now);
    ASSERT_EQ(net.b().tun.size(), 1U);
    EXPECT_EQ(net.b().gso[0], kPayload);
    EXPECT_EQ(net.b().tun[0].size(), packets[0].size() + (kCount - 1) * kPayload);
}

TEST(DataPlane, SuperPacketsStaySuperPacketsOverTheWire) {
    for (const bool v4 : {true, false}) {
        Net net;
        net.connect();
        Spec s = from_to(net.a(), net.b(), v4);
        s.payload = bytes_of_length(60000);
        s.flags = netstack::kTcpAck | netstack::kTcpPsh;
        const Bytes super = build(s);
        const uint16_t ip_len = v4 ? 20 : 40;
        const VnetHdr vnet{VnetHdr::kNeedsCsum, v4 ? VnetHdr::kTcpV4 : VnetHdr::kTcpV6, static_cast<uint16_t>(ip_len + 20),
                           1220, ip_len, 16};
        net.a().host_sends({super}, vnet);
        // 50 segments: 49 of 1220 and one of 220 bytes.
        ASSERT_EQ(net.a().udp_shapes.size(), 1U);
        EXPECT_EQ(net.a().udp_shapes[0].segment, (ip_len + 20U + 1220 + 15) / 16 * 16 + wg::kDataOverhead);
        net.run(milliseconds(20));
        ASSERT_EQ(net.b().tun.size(), 1U);
        EXPECT_EQ(net.b().gso, std::vector<uint16_t>{1220});
        // All but the checksum field, which is left to the kernel on the way in.
        Bytes got = net.b().tun[0], want = super;
        store_be16(got.data() + ip_len + 16, 0);
        store_be16(want.data() + ip_len + 16, 0);
        EXPECT_EQ(got, want);
    }
}

TEST(DataPlane, PaddingNeverExceedsTheMtu) {
    Net net;
    net.connect();
    Spec s = from_to(net.a(), net.b());
    s.proto = netstack::kProtoUdp;
    s.payload = bytes_of_length(1278 - 28);
    net.a().host_sends({build(s)});
    ASSERT_EQ(net.a().udp_shapes.size(), 1U);
    EXPECT_EQ(net.a().udp_shapes[0].segment, 1280 + wg::kDataOverhead);
    net.a().udp_shapes.clear();
    net.a().dp.set_mtu(1278);
    net.a().host_sends({build(s)});
    EXPECT_EQ(net.a().udp_shapes[0].segment, 1278 + wg::kDataOverhead);
    net.run(milliseconds(20));
    EXPECT_EQ(net.b().tun, (std::vector<Bytes>{build(s), build(s)}));
}

TEST(DataPlane, ASourceThatIsNotThePeersIsDropped) {
    Net net(3);
    net.connect();
    const Bytes forged = build(ping(*net.nodes[2], net.b()));
    net.a().dp.inject_to_peer(1, forged, net.now);
    net.run(milliseconds(50));
    EXPECT_TRUE(net.b().tun.empty());
    EXPECT_EQ(net.b().dp.counters().in_dropped(Drop::kSource), 1U);
}

TEST(DataPlane, TheFilterDropsAndTellsTheSenderOfASyn) {
    Net net;
    net.connect();
    net.b().dp.set_tables(net.tables_of(net.b(), {}));
    Spec s = from_to(net.a(), net.b());
    s.flags = netstack::kTcpSyn;
    net.a().host_sends({build(s)});
    net.a().host_sends({build(ping(net.a(), net.b()))});
    net.run(milliseconds(50));
    EXPECT_TRUE(net.b().tun.empty());
    EXPECT_EQ(net.b().dp.counters().in_dropped(Drop::kNoRule), 2U);
    ASSERT_EQ(net.a().rejects.size(), 1U);
    EXPECT_EQ(net.a().rejects[0], (netstack::TsmpReject{6, netstack::TsmpReject::kAcl, s.sport, s.dport, false}));
    EXPECT_TRUE(net.a().tun.empty()) << "TSMP never reaches the host";
    // What we began ourselves is answered.
    s = from_to(net.b(), net.a());
    s.proto = netstack::kProtoUdp;
    net.b().host_sends({build(s)});
    net.run(milliseconds(50));
    std::swap(s.src, s.dst);
    std::swap(s.sport, s.dport);
    net.a().host_sends({build(s)});
    net.run(milliseconds(50));
    EXPECT_EQ(net.b().tun.size(), 1U);
}

TEST(DataPlane, AFloodOfDeniedSynsGetsFewRejects) {
    Net net;
    net.connect();
    net.b().dp.set_tables(net.tables_of(net.b(), {}));
    std::vector<Bytes> flood;
    for (uint16_t i = 0; i < 64; ++i) {
        Spec s = from_to(net.a(), net.b());
        s.flags = netstack::kTcpSyn;
        s.sport = i;
        flood.push_back(build(s));
    }
    net.a().host_sends(flood);
    net.run(milliseconds(50));
    EXPECT_EQ(net.b().dp.counters().in_dropped(Drop::kNoRule), 64U);
    EXPECT_GE(net.a().rejects.size(), 1U);
    EXPECT_LE(net.a().rejects.size(), 8U);
}

TEST(DataPlane, ReplayedDatagramsAreDropped) {
    Net net;
    net.connect();
    net.record = true;
    net.a().host_sends({build(ping(net.a(), net.b()))});
    ASSERT_EQ(net.recorded.size(), 1U);
    net.record = false;
    net.run(milliseconds(50));
    ASSERT_EQ(net.b().tun.size(), 1U);
    const uint64_t before = net.b().dp.counters().wg_dropped(wg::DropReason::kReplayed);  // what came both ways while the path was unsure
    for (int i = 0; i < 3; ++i) {
        Bytes copy = net.recorded[0].bytes;
        UdpReceive r{net.a().udp, copy, 0};
        net.b().dp.receive({&r, 1}, net.now);
    }
    EXPECT_EQ(net.b().tun.size(), 1U);
    EXPECT_EQ(net.b().dp.counters().wg_dropped(wg::DropReason::kReplayed), before + 3);
}

TEST(DataPlane, TsmpAndIcmpPingsComeBackToTheirAskers) {
    Net net;
    net.connect();
    net.a().dp.ping_tunnel(7, 1, addr(net.b().ip()), PingKind::kTsmp, net.now);
    net.a().dp.ping_tunnel(8, 1, addr(net.b().ip(false)), PingKind::kTsmp, net.now);
    net.a().dp.ping_tunnel(9, 1, addr(net.b().ip()), PingKind::kIcmp, net.now);
    net.run(milliseconds(5));
    answer_pings(net.b());
    net.run(milliseconds(20));
    ASSERT_EQ(net.a().pongs.size(), 3U);
    for (const auto& [id, pong] : net.a().pongs) {
        EXPECT_TRUE(pong.answered) << id;
        EXPECT_EQ(pong.latency.millis(), 10) << id;
        EXPECT_EQ(pong.peerapi_port, id == 7 ? 4444 : id == 8 ? 6666 : 0);
    }
    EXPECT_TRUE(net.a().tun.empty()) << "the host did not ask";
    // Nobody there.
    net.a().dp.ping_tunnel(10, 77, addr("100.64.0.99"), PingKind::kTsmp, net.now);
    net.run(seconds(6));
    ASSERT_EQ(net.a().pongs.size(), 4U);
    EXPECT_FALSE(net.a().pongs.back().second.answered);
    EXPECT_EQ(net.a().pongs.back().first, 10U);
}

TEST(DataPlane, ThePeerApiIsOpenToPeersWhateverTheFilterSays) {
    Net net;
    net.connect();
    const auto arrives = [&](const char* dst, uint16_t port, bool jailed = false, std::shared_ptr<Tables> t = nullptr) {
        if (!t) t = net.tables_of(net.b(), {});
        t->peers[0].jailed = jailed;
        net.b().dp.set_tables(t);
        net.b().tun.clear();
        const bool v6 = std::string_view(dst).find(':') != std::string_view::npos;
        net.a().host_sends({build({.src = v6 ? net.a().ip(false) : net.a().ip(), .dst = dst, .dport = port, .flags = netstack::kTcpSyn})});
        net.run(milliseconds(100));
        return !net.b().tun.empty();
    };
    EXPECT_TRUE(arrives("100.64.0.2", 4444));
    EXPECT_TRUE(arrives(net.b().ip(false).c_str(), 6666));
    EXPECT_FALSE(arrives("100.64.0.2", 6666)) << "the other family's port";
    EXPECT_FALSE(arrives("100.64.0.2", 80));
    EXPECT_FALSE(arrives("100.64.0.2", 4444, true)) << "a jailed peer may only answer";
    auto none = net.tables_of(net.b(), {});
    none->peerapi_port4 = 0;
    EXPECT_FALSE(arrives("100.64.0.2", 0, false, none));
    EXPECT_FALSE(arrives("100.64.0.2", 4444, false, none));
}

TEST(DataPlane, TheServiceAddressAnswersPingsAndHandsOnTheRest) {
    Net net;
    for (const bool v4 : {true, false}) {
        Spec s = ping(net.a(), net.b(), v4);
        s.dst = v4 ? "100.100.100.100" : "fd7a:115c:a1e0::53";
        net.a().host_sends({build(s)});
        ASSERT_EQ(net.a().tun.size(), 1U);
        const Parsed p = parsed(net.a().tun[0]);
        EXPECT_TRUE(p.is_echo_reply());
        EXPECT_EQ(p.src, addr(s.dst));
        net.a().tun.clear();
    }
    Spec dns = from_to(net.a(), net.b());
    dns.dst = "100.100.100.100";
    dns.proto = netstack::kProtoUdp;
    dns.payload = bytes_of_length(20);
    const Bytes query = build(dns);
    Bytes partial = query;  // as the kernel hands it over: checksum not finished
    store_be16(partial.data() + 26, netstack::sum_fold(netstack::pseudo_sum(partial.data(), 4, 17, static_cast<uint32_t>(partial.size() - 20))));
    net.a().host_sends({partial}, {VnetHdr::kNeedsCsum, VnetHdr::kNone, 0, 0, 20, 6});
    EXPECT_EQ(net.a().dp.counters().out_dropped(Drop::kService), 1U);
    net.a().serve = true;
    net.a().host_sends({query});
    EXPECT_EQ(net.a().service, (std::vector<Bytes>{query, query}));
    EXPECT_EQ(net.a().dp.counters().out_dropped(Drop::kService), 1U);
    EXPECT_TRUE(net.flights.empty());
}

TEST(DataPlane, WhatCannotGoAnywhereIsCountedByReason) {
    Net net;
    const auto dropped = [&](Drop d, Bytes packet, VnetHdr vnet = {}) {
        const uint64_t before = net.a().dp.counters().out_dropped(d);
        net.a().host_sends({std::move(packet)}, vnet);
        EXPECT_EQ(net.a().dp.counters().out_dropped(d), before + 1) << name(d);
    };
    Spec s = from_to(net.a(), net.b());
    s.dst = "100.64.0.77";
    dropped(Drop::kNoRoute, build(s));
    s.dst = "224.0.0.251";
    dropped(Drop::kMulticast, build(s));
    s.dst = "169.254.7.7";
    dropped(Drop::kLinkLocal, build(s));
    dropped(Drop::kMalformed, Bytes(10, 0x45));
    dropped(Drop::kTsmp, build({.src = "100.64.0.1", .dst = "100.64.0.2", .proto = netstack::kProtoTsmp, .payload = bytes_of_length(9)}));
    dropped(Drop::kUnknownProto, build({.src = "100.64.0.1", .dst = "100.64.0.2", .df = false, .fragment_offset = 3}));
    dropped(Drop::kBadOffload, build({.src = "100.64.0.1", .dst = "100.64.0.2"}), {1, VnetHdr::kTcpV6, 0, 100, 20, 16});
    EXPECT_TRUE(net.flights.empty());
}

TEST(DataPlane, WithoutAnyPathThePacketsWaitAndGoWhenThereIsOne) {
    Net net;
    auto config = net.config_of(net.b());
    config.endpoints.clear();
    config.home_derp = 0;
    net.a().dp.remove_peer(1);
    net.a().dp.upsert_peer(1, config, net.now);
    const Bytes request = build(ping(net.a(), net.b()));
    net.a().host_sends({request});
    net.run(milliseconds(300));
    EXPECT_TRUE(net.b().tun.empty());
    net.a().dp.upsert_peer(1, net.config_of(net.b()), net.now);
    net.a().dp.settle(net.now);
    net.run(milliseconds(50));
    EXPECT_EQ(net.b().tun, std::vector<Bytes>{request}) << "at once, not after the next retry";
}

TEST(DataPlane, JailedPeersMayAnswerButNotAsk) {
    Net net;
    net.connect();
    auto t = net.tables_of(net.b());
    t->add_peer(0, {pfx(net.a().ip())}, true);
    net.b().dp.set_tables(t);
    net.a().host_sends({build(ping(net.a(), net.b()))});
    net.run(milliseconds(50));
    EXPECT_TRUE(net.b().tun.empty());
    net.b().host_sends({build(ping(net.b(), net.a()))});
    net.run(milliseconds(50));
    answer_pings(net.a());
    net.run(milliseconds(50));
    EXPECT_EQ(net.b().tun.size(), 1U);
}

TEST(DataPlane, ARemovedPeerIsCutOffBothWays) {
    Net net;
    net.connect();
    net.b().dp.remove_peer(0);
    net.a().host_sends({build(ping(net.a(), net.b()))});
    net.run(milliseconds(50));
    EXPECT_TRUE(net.b().tun.empty());
    EXPECT_EQ(net.b().dp.counters().wg_dropped(wg::DropReason::kUnknownIndex), 1U);
    net.b().host_sends({build(ping(net.b(), net.a()))});
    net.run(milliseconds(50));
    EXPECT_TRUE(net.a().tun.empty());
}

TEST(DataPlane, HostileDatagramsAreCountedAndHarmless) {
    Net net;
    net.connect();
    SeededRandom random(11);
    net.record = true;
    net.a().host_sends({build(ping(net.a(), net.b()))});
    net.record = false;
    net.run(milliseconds(50));
    net.b().tun.clear();
    const Bytes good = net.recorded.at(0).bytes;
    for (int i = 0; i < 5000; ++i) {
        Bytes b = good;
        switch (i % 4) {
            case 0: b.resize(random.below(static_cast<uint32_t>(b.size()))); break;
            case 1: b[random.below(static_cast<uint32_t>(b.size()))] ^= 0x40; break;
            case 2: random.fill(b); break;
            default:
                random.fill(b);
                store_le32(b.data(), 1 + random.below(4));
                break;
        }
        UdpReceive r{net.a().udp, b, random.below(5) == 0 ? 1 + random.below(40) : 0};
        net.b().dp.receive({&r, 1}, net.now);
    }
    EXPECT_TRUE(net.b().tun.empty());
    net.a().host_sends({build(ping(net.a(), net.b()))});
    net.run(milliseconds(50));
    EXPECT_EQ(net.b().tun.size(), 1U) << "and the session lives";
}

TEST(DataPlane, ReceiveStatsArePerPeer) {
    Net net(3);
    net.connect();
    const uint64_t rx = net.b().dp.wg().stats(0, net.now).rx_bytes;
    const uint64_t tx = net.a().dp.wg().stats(1, net.now).tx_bytes;
    net.a().host_sends({build(ping(net.a(), net.b()))});
    net.run(milliseconds(50));
    const size_t wire = (20 + 8 + 56 + 15) / 16 * 16 + wg::kDataOverhead;
    EXPECT_EQ(net.b().dp.wg().stats(0, net.now).rx_bytes - rx, wire);
    EXPECT_EQ(net.a().dp.wg().stats(1, net.now).tx_bytes - tx, wire);
    EXPECT_EQ(net.b().dp.wg().stats(2, net.now).rx_bytes, 0U);
}

}  // namespace
}  // namespace mesh::dataplane
