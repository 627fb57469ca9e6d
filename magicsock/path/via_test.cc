// SPDX-License-Identifier: BSD-3-Clause
// Paths through UDP relays: two nodes that cannot reach each other, and a third one that both can.
#include <gtest/gtest.h>

#include <algorithm>

#include "magicsock/path/magicsock_peer.h"
#include "magicsock/path/test_net.h"

namespace mesh::magicsock {
namespace {

using test::ep;
using test::NatKind;
using test::TestNet;
using test::TestNode;

enum class Asks : uint8_t { kFirst, kSecond, kBoth };

struct Trio {
    TestNet net;
    TestNode &a, &b, &server;
    Asks asks;
    explicit Trio(NatKind x = NatKind::kHard, NatKind y = NatKind::kHard, Asks who = Asks::kBoth)
        : a(net.add(x)), b(net.add(y)), server(net.add(NatKind::kNone)), asks(who) {
        server.serve_relay(7000);
        for (auto& n : net.nodes) n->ms.set_relay_client(true, false);
        net.start();
        share();
    }
    /// A network map with what has changed.
    void share() {
        net.share_netmap();
        grant(a, may_ask(a));
        grant(b, may_ask(b));
    }
    [[nodiscard]] bool may_ask(const TestNode& n) const { return asks != (n.index == 0 ? Asks::kSecond : Asks::kFirst); }
    void grant(TestNode& n, bool use) {
        PeerConfig relay = net.config_of(server), client = net.config_of(n);
        relay.relay_server = use;
        client.may_relay = true;
        n.ms.upsert_peer(2, relay, net.now);
        server.ms.upsert_peer(static_cast<PeerId>(n.index), client, net.now);
    }
    void traffic(Duration d, bool both = true) {
        for (const Time end = net.now + d; net.now < end;) {
            a.send_data(1);
            if (both) b.send_data(0);
            net.run(milliseconds(200));
        }
    }
    [[nodiscard]] Path path(TestNode& n) { return n.ms.peek_path(n.index == 0 ? 1 : 0, net.now); }
};

TEST(Via, TwoBehindHardNatsFindTheRelayWhoeverMayUseIt) {
    for (const Asks asks : {Asks::kFirst, Asks::kSecond, Asks::kBoth}) {
        Trio t(NatKind::kHard, NatKind::kHard, asks);
        t.traffic(seconds(2));
        for (TestNode* n : {&t.a, &t.b}) {
            const Path p = t.path(*n);
            EXPECT_TRUE(p.udp_trusted);
            EXPECT_EQ(p.udp, t.server.relay_addr);
            EXPECT_EQ(p.vni, 1U);
            EXPECT_EQ(p.derp_region, 0);
            ASSERT_FALSE(n->data.empty());
            EXPECT_EQ(n->data.back().vni, 1U);
        }
        EXPECT_EQ(t.server.relay->open(), 1U) << "both asked, one endpoint";
    }
}

TEST(Via, NothingIsAskedWithoutTheCapabilityOrWithoutLeave) {
    Trio t;
    t.grant(t.a, false);
    t.grant(t.b, false);
    t.traffic(seconds(3));
    EXPECT_EQ(t.a.ms.counters().relay_requests_out, 0U);
    EXPECT_EQ(t.path(t.a).vni, 0U);

    Trio off;
    for (TestNode* n : {&off.a, &off.b}) n->ms.set_relay_client(false, false);
    off.traffic(seconds(3));
    EXPECT_EQ(off.a.ms.counters().relay_requests_out, 0U);
    EXPECT_EQ(off.a.ms.counters().relay_binds_out, 0U);

    // One of the two may not take part: the other's offer is not answered.
    Trio half(NatKind::kHard, NatKind::kHard, Asks::kFirst);
    half.b.ms.set_relay_client(false, false);
    half.traffic(seconds(3));
    EXPECT_EQ(half.b.ms.counters().relay_binds_out, 0U);
    EXPECT_EQ(half.path(half.a).vni, 0U);
}

TEST(Via, AServerAllocatesForThoseWhoMayAndOnlyForThemselves) {
    Trio t;
    PeerConfig client = t.net.config_of(t.a);
    client.may_relay = false;
    t.server.ms.upsert_peer(0, client, t.net.now);
    client = t.net.config_of(t.b);
    client.may_relay = false;
    t.server.ms.upsert_peer(1, client, t.net.now);
    t.traffic(seconds(4));
    EXPECT_GT(t.a.ms.counters().relay_requests_out, 1U) << "asked again";
    EXPECT_EQ(t.server.relay->connecting() + t.server.relay->open(), 0U);
}

// A grant that names everybody.
void allow_thirty_others(Trio& t) {
    for (PeerId id = 10; id < 40; ++id) {
        PeerConfig c = t.net.config_of(t.server);
        t.a.random.fill(c.key.raw);
        c.disco = DiscoPrivate::generate(t.a.random).public_key();
        c.relay_server = true;
        t.a.ms.upsert_peer(id, c, t.net.now);
    }
}

TEST(Via, OfManyThatAreAllowedThoseAreAskedThatCallThemselvesRelays) {
    Trio t(NatKind::kHard, NatKind::kHard, Asks::kFirst);
    allow_thirty_others(t);
    PeerConfig relay = t.net.config_of(t.server);
    relay.relay_server = relay.relay_announced = true;
    t.a.ms.upsert_peer(2, relay, t.net.now);
    t.traffic(seconds(2));
    EXPECT_EQ(t.a.ms.counters().relay_requests_out, 1U);
    EXPECT_EQ(t.path(t.a).vni, 1U);
}

TEST(Via, WithoutAnySuchAllAreAskedByTurns) {
    Trio t(NatKind::kHard, NatKind::kHard, Asks::kFirst);
    t.grant(t.a, false);
    allow_thirty_others(t);
    t.traffic(seconds(1));
    t.grant(t.a, true);  // its turn is over
    t.traffic(seconds(60));
    EXPECT_EQ(t.path(t.a).vni, 0U);
    t.traffic(seconds(35));
    EXPECT_EQ(t.path(t.a).vni, 1U);
}

TEST(Via, ADirectPathWinsAsSoonAsItIsTrusted) {
    Trio t(NatKind::kEasy, NatKind::kEasy);
    t.traffic(seconds(2));
    EXPECT_TRUE(t.path(t.a).udp_trusted);
    EXPECT_EQ(t.path(t.a).vni, 0U);

    Trio late;
    late.traffic(seconds(2));
    ASSERT_EQ(late.path(late.a).vni, 1U);
    late.a.nat = NatKind::kNone;  // it got a public address
    late.a.local = {late.a.wan.addr, 41641};
    late.a.ms.set_local_endpoints({late.a.local}, late.net.now);
    late.share();
    late.traffic(seconds(8));
    EXPECT_TRUE(late.path(late.a).udp_trusted);
    EXPECT_EQ(late.path(late.a).vni, 0U);
    EXPECT_EQ(late.path(late.b).vni, 0U);
}

TEST(Via, ADeadRelayIsLeftForDerpWithinASecondAndFoundAgain) {
    Trio t;
    t.traffic(seconds(5));
    ASSERT_EQ(t.path(t.a).vni, 1U);
    const Endpoint was = t.server.relay_addr;
    t.server.relay_addr = ep("198.51.100.99:1");  // nobody there any more
    const Time died = t.net.now;
    Time left;
    while (left.is_zero() && t.net.now < died + seconds(10)) {
        t.traffic(milliseconds(200));
        if (t.path(t.a).derp_region != 0) left = t.net.now;
    }
    EXPECT_LE((left - died).millis(), 1200);
    EXPECT_EQ(t.path(t.a).vni, 1U) << "and beside it still used";
    // It comes back as a restarted server does: other key, other endpoints, same address.
    t.server.serve_relay(7000);
    ASSERT_EQ(t.server.relay_addr, was);
    t.traffic(seconds(40));
    EXPECT_TRUE(t.path(t.a).udp_trusted);
    EXPECT_EQ(t.path(t.a).udp, was);
    EXPECT_EQ(t.server.relay->open(), 1U);
}

TEST(Via, AnIdlePairFindsItsEndpointAgainAtOnce) {
    Trio t;
    t.traffic(seconds(3));
    t.net.run(seconds(100));
    EXPECT_FALSE(t.path(t.a).udp_trusted);
    t.traffic(seconds(1));
    EXPECT_EQ(t.path(t.a).vni, 1U);
    EXPECT_TRUE(t.path(t.a).udp_trusted);
    t.net.run(seconds(400));
    EXPECT_EQ(t.a.ms.active_peers(), 0U) << "and is forgotten in the end";
}

TEST(Via, ARestartedPeerIsReachedThroughAnotherEndpoint) {
    Trio t;
    t.traffic(seconds(3));
    t.b.disco = DiscoPrivate::generate(t.b.random);
    t.b.ms.set_disco_key(t.b.disco);
    t.share();
    t.traffic(seconds(3));
    EXPECT_TRUE(t.path(t.a).udp_trusted);
    EXPECT_EQ(t.path(t.a).vni, 2U);
    EXPECT_EQ(t.path(t.b).vni, 2U);
}

TEST(Via, CliPingNamesTheRelay) {
    Trio t;
    t.traffic(seconds(3));
    t.a.ms.ping(7, 1, 0, t.net.now);
    t.net.run(seconds(1));
    const PingResult& r = t.a.pings.at(7);
    EXPECT_EQ(r.error, "");
    EXPECT_EQ(via_text(r.udp, r.vni), t.server.relay_addr.str() + ":vni:1");
    EXPECT_GT(r.latency, milliseconds(19)) << "twice through the server";
    const PeerPathStatus s = t.a.ms.status(1, t.net.now);
    EXPECT_FALSE(s.cur_addr.is_valid());
    EXPECT_EQ(via_text(s.via_addr, s.via_vni), via_text(r.udp, r.vni));
    ASSERT_EQ(s.via.size(), 1U);
    EXPECT_TRUE(s.via[0].bound);
}

TEST(Via, OurOwnServerServesUs) {
    Trio t(NatKind::kHard, NatKind::kBlocked);
    t.server.ms.set_relay_client(true, true);
    t.net.udp_cut = false;
    for (int i = 0; i < 10; ++i) {
        t.server.send_data(0);
        t.net.run(milliseconds(200));
    }
    EXPECT_EQ(t.server.relay->connecting() + t.server.relay->open(), 1U);
}

// A peer that offers endpoints on servers that do not exist.
TEST(Via, OffersWithoutEndMakeFewDatagramsLeaveAndDoNotTakeTheGoodPath) {
    Trio t;
    t.traffic(seconds(3));
    ASSERT_EQ(t.path(t.a).vni, 1U);
    const auto shared = disco::SharedKey::derive(t.b.disco, t.a.disco.public_key());
    const uint64_t before = t.a.ms.counters().relay_binds_out;
    const Time began = t.net.now;
    for (int i = 0; i < 500; ++i) {
        disco::CallMeMaybeVia m;
        m.relay.server = DiscoPrivate::generate(t.b.random).public_key();
        m.relay.clients = disco::sorted_pair(t.a.disco.public_key(), t.b.disco.public_key());
        m.relay.lamport = static_cast<uint64_t>(i);
        m.relay.vni = 5;
        m.relay.bind_lifetime = seconds(30);
        for (uint16_t n = 0; n < 60; ++n) m.relay.addrs.push_back({Addr::v4(192, 0, 2, static_cast<uint8_t>(n)), 53});
        Bytes d = shared->seal(t.b.disco.public_key(), disco::encode(m), t.b.random);
        (void)t.a.ms.receive_derp(d, 1, t.b.key, t.net.now);
        t.net.run(milliseconds(10));
    }
    const auto span = static_cast<uint64_t>((t.net.now - began).millis() / 1000 + 1);
    EXPECT_LE(t.a.ms.counters().relay_binds_out - before, kMaxBindsPerSecond * (span + 1));
    t.traffic(seconds(3));
    EXPECT_EQ(t.path(t.a).udp, t.server.relay_addr);
    EXPECT_LE(t.a.ms.status(1, t.net.now).via.size(), kMaxViaEndpoints);
}

TEST(Via, OffersForOthersAndAddressesOfTheTailnetAreIgnored) {
    Trio t(NatKind::kHard, NatKind::kHard, Asks::kFirst);
    const auto shared = disco::SharedKey::derive(t.b.disco, t.a.disco.public_key());
    const auto offer = [&](disco::RelayEndpoint relay) {
        const uint64_t before = t.a.ms.counters().relay_binds_out;
        Bytes d = shared->seal(t.b.disco.public_key(), disco::encode(disco::CallMeMaybeVia{std::move(relay)}), t.b.random);
        (void)t.a.ms.receive_derp(d, 1, t.b.key, t.net.now);
        return t.a.ms.counters().relay_binds_out - before;
    };
    disco::RelayEndpoint relay{DiscoPrivate::generate(t.b.random).public_key(), disco::sorted_pair(t.a.disco.public_key(), t.b.disco.public_key()),
                               1, 9, seconds(30), minutes(5), {ep("100.64.0.9:7000"), ep("127.0.0.1:7000"), ep("224.0.0.1:7000")}};
    EXPECT_EQ(offer(relay), 0U);
    relay.addrs = {ep("192.0.2.1:7000")};
    disco::RelayEndpoint other = relay;
    other.clients[0] = t.server.disco.public_key();
    EXPECT_EQ(offer(other), 0U) << "not about the two of us";
    other = relay;
    other.vni = relay::kMaxVni + 1;
    EXPECT_EQ(offer(other), 0U);
    EXPECT_EQ(offer(relay), 1U);
    EXPECT_EQ(offer(relay), 0U) << "the same again";
}

}  // namespace
}  // namespace mesh::magicsock
