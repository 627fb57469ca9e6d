// SPDX-License-Identifier: BSD-3-Clause
// Two data planes that hear each other by DERP and through a UDP relay only: what leaves, what arrives, and in which sizes.
#include <gtest/gtest.h>

#include <deque>

#include "magicsock/relay/server.h"
#include "netstack/test_packets.h"
#include "tailscaled/dataplane/dataplane.h"

namespace mesh::dataplane {
namespace {

using netstack::test::build;
using netstack::test::bytes_of_length;

struct Net;

struct Side final : Kernel, Events {
    Side(Net& n, int i)
        : net(n), index(i), random(static_cast<uint64_t>(500 + i)), key(NodePrivate::generate(random)), disco(DiscoPrivate::generate(random)),
          udp{Addr::v4(203, 0, 113, static_cast<uint8_t>(i + 1)), 41641}, dp(random, *this, *this) {
        dp.set_tun_offload(false, false);  // what arrives is written packet by packet
    }
    void write_tun(std::span<const TunWrite> writes) override {
        for (const TunWrite& w : writes)
            for (const ByteSpan p : w.pieces) got.insert(got.end(), p.begin(), p.end());
    }
    void send_udp(std::span<const UdpSend> sends) override;
    bool send_derp(int region, const NodePublic& to, ByteSpan datagram) override;
    void relay_requested(PeerId by, const disco::AllocateRequest& request) override { asked.emplace_back(by, request); }

    Net& net;
    int index;
    SeededRandom random;
    NodePrivate key;
    DiscoPrivate disco;
    Endpoint udp;
    Bytes got;
    std::vector<std::pair<size_t, uint32_t>> shapes;  // of sends to the relay: bytes, segment
    std::vector<std::pair<PeerId, disco::AllocateRequest>> asked;
    DataPlane dp;
};

/// The relay is the first side's own.
struct Net {
    struct Flight {
        Endpoint from, to;
        Bytes bytes;
        uint32_t stride;
        int derp_from, derp_to;
    };
    Net() : a(*this, 0), b(*this, 1) {
        server.set_addrs({at});
        for (Side* s : {&a, &b}) {
            Side& other = s == &a ? b : a;
            s->dp.wg().set_wall_clock(WallTime{1'700'000'000'000'000'000}, now);
            s->dp.set_node_key(s->key, now);
            s->dp.sock().set_disco_key(s->disco);
            s->dp.sock().derp_state(1, true, now);
            s->dp.sock().set_relay_client(true, s == &a);
            auto t = std::make_shared<Tables>();
            t->add_peer(static_cast<PeerId>(other.index), {*Prefix::parse(other.index == 0 ? "100.64.0.1" : "100.64.0.2")});
            t->self = {*Addr::parse(s->index == 0 ? "100.64.0.1" : "100.64.0.2")};
            netstack::FilterRule all;
            EXPECT_TRUE(netstack::parse_source("*", all));
            for (const Prefix& p : all.src) all.dst.push_back({p, {}});
            t->filter = netstack::FilterTable(std::vector{all}, {{Prefix::single(t->self[0])}, {}});
            s->dp.set_tables(t);
            s->dp.upsert_peer(static_cast<PeerId>(other.index), {other.key.public_key(), other.disco.public_key(), {}, 1, false}, now);
        }
    }
    void run(Duration d) {
        const Time end = now + d;
        for (; now < end; now = now + milliseconds(1)) {
            for (size_t n = flights.size(); n > 0; --n) {
                Flight f = std::move(flights.front());
                flights.pop_front();
                arrive(f);
            }
            for (Side* s : {&a, &b}) {
                if (s->dp.next_timeout() <= now) s->dp.handle_timeout(now);
                for (const auto& [by, request] : std::exchange(s->asked, {}))
                    s->dp.sock().relay_allocated(by, {request.generation, *server.allocate(request.clients[0], request.clients[1], now)}, now);
            }
        }
    }
    void arrive(Flight& f) {
        if (f.derp_to >= 0) {
            Side& from = f.derp_from == 0 ? a : b;
            return (f.derp_to == 0 ? a : b).dp.receive_derp(1, from.key.public_key(), f.bytes, now);
        }
        if (f.to == at) {
            // As the service does: one by one, out again as it came in.
            Endpoint to;
            for (size_t i = 0; i < f.bytes.size(); i += f.stride) {
                const auto r = server.receive(ByteSpan(f.bytes).subspan(i, std::min<size_t>(f.stride, f.bytes.size() - i)), f.from, now);
                if (r.verdict == relay::Server::Verdict::kReply) flights.push_back({at, r.to, to_bytes(server.reply()), static_cast<uint32_t>(server.reply().size()), 0, -1});
                if (r.verdict == relay::Server::Verdict::kForward) to = r.to;
            }
            if (to.is_valid()) flights.push_back({at, to, std::move(f.bytes), f.stride, 0, -1});
            return;
        }
        if (f.from != at) return;  // no other way
        UdpReceive r{f.from, f.bytes, f.stride};
        (f.to == a.udp ? a : b).dp.receive({&r, 1}, now);
    }
    SeededRandom random{9};
    relay::Server server{random, DiscoPrivate::generate(random)};
    Endpoint at = *Endpoint::parse("203.0.113.9:7000");
    Time now{seconds(1000).ns};
    std::deque<Flight> flights;
    Side a, b;
};

void Side::send_udp(std::span<const UdpSend> sends) {
    for (const UdpSend& s : sends) {
        if (s.to == net.at) shapes.emplace_back(s.bytes.size(), s.segment);
        net.flights.push_back({udp, s.to, to_bytes(s.bytes), s.segment == 0 ? static_cast<uint32_t>(s.bytes.size()) : s.segment, 0, -1});
    }
}
bool Side::send_derp(int, const NodePublic& to, ByteSpan datagram) {
    net.flights.push_back({{}, {}, to_bytes(datagram), 0, index, to == net.a.key.public_key() ? 0 : 1});
    return true;
}

Bytes udp_packet(size_t payload, uint8_t seed) {
    netstack::test::Spec s;
    s.src = "100.64.0.1";
    s.dst = "100.64.0.2";
    s.proto = netstack::kProtoUdp;
    s.payload = bytes_of_length(payload, seed);
    return build(s);
}

TEST(PeerRelay, DataTakesTheRelayInWholeBatchesAndArrivesAsItWas) {
    Net net;
    const auto send = [&](size_t count, size_t payload) {
        std::vector<Bytes> packets;
        for (size_t i = 0; i < count; ++i) packets.push_back(udp_packet(payload, static_cast<uint8_t>(i)));
        std::vector<TunRead> reads;
        for (Bytes& p : packets) reads.push_back({{}, p});
        net.a.dp.send(reads, net.now);
        Bytes all;
        for (const Bytes& p : packets) all.insert(all.end(), p.begin(), p.end());
        return all;
    };
    (void)send(1, 100);
    net.run(seconds(2));
    const magicsock::Path path = net.a.dp.sock().peek_path(1, net.now);
    ASSERT_EQ(path.udp, net.at);
    ASSERT_EQ(path.vni, 1U);
    ASSERT_TRUE(path.udp_trusted);

    net.b.got.clear();
    net.a.shapes.clear();
    const auto before = net.a.dp.counters().out[static_cast<size_t>(PathKind::kPeerRelay4)];
    const uint64_t received = net.b.dp.counters().in[static_cast<size_t>(PathKind::kPeerRelay4)].bytes;
    const uint64_t derp = net.a.dp.counters().out[static_cast<size_t>(PathKind::kDerp)].packets;
    const Bytes sent = send(20, 1000);
    net.run(milliseconds(20));
    // IPv4 and UDP 28, padded to 16; WireGuard 32; Geneve 8.
    const uint32_t segment = 1040 + 32 + 8;
    ASSERT_FALSE(net.a.shapes.empty());
    EXPECT_EQ(net.a.shapes[0], (std::pair<size_t, uint32_t>(20 * segment, segment))) << "one send of twenty";
    EXPECT_EQ(net.b.got, sent);
    EXPECT_EQ(net.b.dp.counters().in[static_cast<size_t>(PathKind::kPeerRelay4)].bytes - received, 20U * segment);
    EXPECT_EQ(net.a.dp.counters().out[static_cast<size_t>(PathKind::kPeerRelay4)].packets - before.packets, 20U);
    EXPECT_EQ(net.a.dp.counters().out[static_cast<size_t>(PathKind::kDerp)].packets, derp) << "DERP rests";
}

TEST(PeerRelay, ASessionBeginsThroughTheRelay) {
    Net net;
    Bytes first = udp_packet(100, 1);
    TunRead read{{}, first};
    net.a.dp.send({&read, 1}, net.now);
    net.run(seconds(2));
    ASSERT_EQ(net.a.dp.sock().peek_path(1, net.now).vni, 1U);
    net.now = net.now + seconds(200);  // sessions are worn out, legs are not
    net.b.got.clear();
    Bytes again = udp_packet(100, 2);
    for (int i = 0; i < 10; ++i) {
        TunRead r{{}, again};
        net.a.dp.send({&r, 1}, net.now);
        net.run(milliseconds(200));
    }
    EXPECT_FALSE(net.b.got.empty());
    EXPECT_EQ(net.a.dp.sock().peek_path(1, net.now).vni, 1U);
    EXPECT_GT(net.b.dp.counters().in[static_cast<size_t>(PathKind::kPeerRelay4)].packets, 0U);
}

}  // namespace
}  // namespace mesh::dataplane
