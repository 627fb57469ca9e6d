// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/path/magicsock.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>

#include "magicsock/path/test_net.h"

namespace mesh::magicsock {
namespace {

using test::ep;
using test::NatKind;
using test::TestNet;
using test::TestNode;

struct Pair {
    TestNet net;
    TestNode& a;
    TestNode& b;
    Pair(NatKind x, NatKind y) : a(net.add(x)), b(net.add(y)) {
        net.start();
        net.share_netmap();
    }
    // Both sides send every 200 ms, as a ping and its answer would.
    void traffic(Duration d) {
        for (const Time end = net.now + d; net.now < end;) {
            a.send_data(1);
            b.send_data(0);
            net.run(milliseconds(200));
        }
    }
};

TEST(Magicsock, NetcheckFindsEndpointsAndHome) {
    TestNet net;
    TestNode& easy = net.add(NatKind::kEasy);
    TestNode& hard = net.add(NatKind::kHard);
    net.start();
    ASSERT_FALSE(easy.reports.empty());
    EXPECT_EQ(easy.reports[0].mapping_varies_by_dest_ip, false);
    EXPECT_EQ(hard.reports[0].mapping_varies_by_dest_ip, true);
    EXPECT_NE(easy.home, 0);
    ASSERT_EQ(easy.endpoints.size(), 2U);
    EXPECT_EQ(easy.endpoints[0], (LocalEndpoint{ep("203.0.113.1:41641"), EndpointType::kStun}));
    EXPECT_EQ(easy.endpoints[1], (LocalEndpoint{ep("192.168.1.10:41641"), EndpointType::kLocal}));
    EXPECT_TRUE(std::any_of(hard.endpoints.begin(), hard.endpoints.end(), [](const LocalEndpoint& e) {
        return e.type == EndpointType::kStun4LocalPort && e.ep == ep("203.0.113.2:41641");
    }));
}

TEST(Magicsock, WithoutUdpSomeHomeIsChosenAllTheSame) {
    TestNet net;
    TestNode& n = net.add(NatKind::kBlocked);
    net.start();
    EXPECT_FALSE(n.https.empty()) << "STUN is silent: HTTPS is asked for";
    net.run(seconds(10));
    ASSERT_FALSE(n.reports.empty());
    EXPECT_FALSE(n.reports[0].udp);
    EXPECT_NE(n.home, 0);
}

// The initiator sends first; the responder answers what it receives.
void expect_direct_within_a_second(NatKind x, NatKind y) {
    Pair p(x, y);
    const Time start = p.net.now;
    size_t answered = 0;
    Time a_direct, b_direct;
    p.a.send_data(1);
    while (p.net.now < start + seconds(2)) {
        p.net.run(milliseconds(1));
        if (p.b.data.size() > answered) {
            answered = p.b.data.size();
            p.b.send_data(0);
        }
        if (a_direct.is_zero() && p.a.direct(1)) a_direct = p.net.now;
        if (b_direct.is_zero() && p.b.direct(0)) b_direct = p.net.now;
    }
    ASSERT_FALSE(p.b.data.empty());
    EXPECT_LE((p.b.data[0].at - start).millis(), 15) << "the first datagram does not wait";
    ASSERT_FALSE(a_direct.is_zero());
    ASSERT_FALSE(b_direct.is_zero());
    EXPECT_LT((a_direct - start).millis(), 100);
    EXPECT_LT((b_direct - start).millis(), 100);
}

TEST(Magicsock, TwoEasyNatsAreDirectWithinASecondInBothRoles) {
    expect_direct_within_a_second(NatKind::kEasy, NatKind::kEasy);
}
TEST(Magicsock, EasyAndOpenAreDirectWithinASecond) {
    expect_direct_within_a_second(NatKind::kEasy, NatKind::kNone);
    expect_direct_within_a_second(NatKind::kNone, NatKind::kEasy);
}
TEST(Magicsock, HardAndOpenAreDirectWithinASecond) {
    expect_direct_within_a_second(NatKind::kHard, NatKind::kNone);
    expect_direct_within_a_second(NatKind::kNone, NatKind::kHard);
}

void expect_relay(NatKind x, NatKind y) {
    Pair p(x, y);
    p.traffic(seconds(60));
    EXPECT_EQ(p.a.data.size(), 300U);
    EXPECT_EQ(p.b.data.size(), 300U);
    EXPECT_TRUE(std::all_of(p.a.data.begin(), p.a.data.end(), [](const auto& d) { return d.by_derp; }));
    EXPECT_TRUE(p.a.changes.empty()) << "relayed pairs must not flap";
    EXPECT_TRUE(p.b.changes.empty());
    EXPECT_LT(p.a.udp_out, 60 * kMaxPingsPerSecond);
}

TEST(Magicsock, TwoHardNatsStayRelayed) { expect_relay(NatKind::kHard, NatKind::kHard); }
TEST(Magicsock, HardAndEasyStayRelayed) { expect_relay(NatKind::kHard, NatKind::kEasy); }
TEST(Magicsock, UdpThatOpensLaterIsNoticedWithinSixSeconds) {
    Pair p(NatKind::kBlocked, NatKind::kEasy);
    p.traffic(seconds(30));
    EXPECT_FALSE(p.a.direct(1));
    const size_t before = p.a.udp_out;
    p.traffic(seconds(60));
    EXPECT_LT(p.a.udp_out - before, 60U * 4) << "asking goes on, but it is cheap";
    p.a.nat = NatKind::kNone;
    p.traffic(seconds(6));
    EXPECT_TRUE(p.a.direct(1) && p.b.direct(0));
}
TEST(Magicsock, AHomeThatCannotBeConnectedToIsLeftAtOnce) {
    Pair p(NatKind::kEasy, NatKind::kEasy);
    const int old = p.a.home;
    p.a.ms.derp_state(old, false, p.net.now);
    p.a.ms.derp_in_doubt(old, p.net.now);
    p.net.run(seconds(2));
    EXPECT_EQ(p.a.home, old) << "its STUN answers: it may be back in a moment";
    p.a.ms.derp_unreachable(old, p.net.now);
    p.net.run(seconds(2));
    EXPECT_EQ(p.a.home, 3 - old);
}
TEST(Magicsock, BlockedUdpStaysRelayed) { expect_relay(NatKind::kBlocked, NatKind::kEasy); }

TEST(Magicsock, ADirectPathInUseDoesNotFlap) {
    Pair p(NatKind::kEasy, NatKind::kEasy);
    p.traffic(seconds(2));
    ASSERT_TRUE(p.a.direct(1) && p.b.direct(0));
    p.a.changes.clear();
    p.b.changes.clear();
    p.a.data.clear();
    p.traffic(minutes(5));
    EXPECT_TRUE(p.a.changes.empty());
    EXPECT_TRUE(p.b.changes.empty());
    EXPECT_EQ(p.a.data.size(), 1500U) << "each datagram arrives once";
    EXPECT_TRUE(std::none_of(p.a.data.begin(), p.a.data.end(), [](const auto& d) { return d.by_derp; }));
}

TEST(Magicsock, ADeadPathIsGoneRoundWithinASecondLeftSoonAndFoundAgain) {
    Pair p(NatKind::kEasy, NatKind::kEasy);
    p.traffic(seconds(5));
    ASSERT_TRUE(p.a.direct(1) && p.b.direct(0));
    p.net.udp_cut = true;
    const Time cut = p.net.now;
    p.a.data.clear();
    p.b.data.clear();
    p.traffic(seconds(6));
    for (TestNode* n : {&p.a, &p.b}) {
        const auto it = std::find_if(n->data.begin(), n->data.end(), [&](const auto& d) { return d.at > cut + milliseconds(20); });
        ASSERT_NE(it, n->data.end());
        EXPECT_TRUE(it->by_derp);
        EXPECT_LE((it->at - cut).millis(), 1100);
    }
    EXPECT_TRUE(std::any_of(p.a.sent.begin(), p.a.sent.end(), [](const auto& s) { return s.second.udp_trusted && s.second.derp_region != 0; }))
        << "both ways while in doubt";
    EXPECT_FALSE(p.a.direct(1));
    p.net.udp_cut = false;
    p.traffic(seconds(6));
    EXPECT_TRUE(p.a.direct(1) && p.b.direct(0));
}

TEST(Magicsock, WhileThereIsNoTrustDataGoesBothWays) {
    Pair p(NatKind::kEasy, NatKind::kEasy);
    p.traffic(seconds(2));
    p.net.run(seconds(60));  // trust expires, the address is still known
    p.a.send_data(1);
    const Path path = p.a.sent.back().second;
    EXPECT_TRUE(path.udp.is_valid());
    EXPECT_NE(path.derp_region, 0);
    EXPECT_FALSE(path.udp_trusted);
    p.net.run(milliseconds(100));
    EXPECT_TRUE(p.a.direct(1));
}

TEST(Magicsock, AnIdlePairFallsSilent) {
    Pair p(NatKind::kEasy, NatKind::kEasy);
    p.traffic(seconds(2));
    p.net.run(seconds(120));
    const size_t before = p.a.udp_out + p.a.derp_out + p.b.udp_out + p.b.derp_out;
    p.net.run(minutes(60));
    EXPECT_EQ(p.a.udp_out + p.a.derp_out + p.b.udp_out + p.b.derp_out, before);
    EXPECT_EQ(p.a.ms.active_peers(), 0U) << "path state is dropped";
    EXPECT_TRUE(p.a.ms.next_timeout().is_never());
}

TEST(Magicsock, APingUpgradesWithoutWaitingForTheHeartbeat) {
    Pair p(NatKind::kEasy, NatKind::kEasy);
    p.a.ms.ping(1, 1, 0, p.net.now);
    p.net.run(milliseconds(200));
    ASSERT_TRUE(p.a.pings.contains(1));
    EXPECT_EQ(p.a.pings[1].error, "");
    EXPECT_NE(p.a.pings[1].derp_region, 0) << "the relay answers first";
    EXPECT_EQ(p.a.pings[1].latency.millis(), 30);
    p.a.ms.ping(2, 1, 0, p.net.now);
    p.net.run(milliseconds(200));
    EXPECT_EQ(p.a.pings[2].udp, ep("203.0.113.2:41641"));
    EXPECT_EQ(p.a.pings[2].latency.millis(), 10);
}

TEST(Magicsock, EveryPingEndsOnce) {
    Pair p(NatKind::kEasy, NatKind::kEasy);
    p.a.ms.ping(1, 99, 0, p.net.now);
    EXPECT_EQ(p.a.pings[1].error, "no matching peer");
    p.net.udp_cut = true;
    p.b.derp_up = false;
    p.a.ms.ping(2, 1, 0, p.net.now);
    p.net.run(seconds(6));
    EXPECT_EQ(p.a.pings[2].error, "timed out");
    p.a.ms.ping(3, 1, 0, p.net.now);
    p.a.ms.remove_peer(1);
    EXPECT_EQ(p.a.pings[3].error, "peer removed");
}

TEST(Magicsock, APingToAPeerThatDoesNotKnowUsYetIsRepeated) {
    for (const bool direct_meanwhile : {false, true}) {
        Pair p(NatKind::kNone, NatKind::kNone);
        p.net.udp_cut = !direct_meanwhile;
        p.b.ms.remove_peer(0);  // the map that brings us is still on its way
        p.a.ms.ping(1, 1, 0, p.net.now);
        p.net.run(milliseconds(300));
        ASSERT_FALSE(p.a.pings.contains(1));
        p.b.ms.upsert_peer(0, p.net.config_of(p.a), p.net.now);
        p.net.run(milliseconds(600));  // other pings than this one may have proven a path by now
        EXPECT_EQ(p.a.direct(1), direct_meanwhile);
        p.net.run(milliseconds(400));
        ASSERT_TRUE(p.a.pings.contains(1));
        EXPECT_EQ(p.a.pings[1].error, "");
        EXPECT_EQ(p.a.pings[1].latency.millis(), direct_meanwhile ? 10 : 30) << "of the ping that was answered";
    }
}

TEST(Magicsock, APeerWithoutHomeHasNoPathUntilTheNetmapBringsOne) {
    Pair p(NatKind::kEasy, NatKind::kEasy);
    PeerConfig c = p.net.config_of(p.b);
    const PeerConfig whole = c;
    c.home_derp = 0;
    c.endpoints.clear();
    p.a.ms.upsert_peer(1, c, p.net.now);
    p.a.changes.clear();
    EXPECT_FALSE(p.a.send_data(1));
    p.net.run(milliseconds(700));
    EXPECT_TRUE(p.a.changes.empty());
    p.a.ms.upsert_peer(1, whole, p.net.now);
    ASSERT_FALSE(p.a.changes.empty());
    EXPECT_EQ(p.a.changes.back().path.derp_region, p.b.home);
    p.net.run(milliseconds(200));
    EXPECT_TRUE(p.a.direct(1)) << "discovery goes on without a further send";
}

TEST(Magicsock, APeerThatReachesUsByAnotherRegionIsAnsweredThere) {
    Pair p(NatKind::kBlocked, NatKind::kBlocked);
    PeerConfig c = p.net.config_of(p.b);
    c.home_derp = 0;
    p.a.ms.upsert_peer(1, c, p.net.now);
    p.b.ms.remove_peer(0);  // keeps quiet but for what follows
    p.a.ms.derp_state(2, true, p.net.now);
    EXPECT_TRUE(p.a.ms.path_for_send(1, p.net.now).empty());
    p.a.changes.clear();
    p.net.relay(p.b, 2, p.a.key, Bytes{4, 0, 0, 0, 1, 0, 0, 0});
    p.net.run(milliseconds(50));
    ASSERT_EQ(p.a.changes.size(), 1U) << "the first packet gives a path";
    EXPECT_EQ(p.a.ms.path_for_send(1, p.net.now).derp_region, 2);
    c.home_derp = 1;
    p.a.ms.upsert_peer(1, c, p.net.now);
    EXPECT_EQ(p.a.ms.path_for_send(1, p.net.now).derp_region, 2) << "no connection to its home yet";
    p.a.ms.derp_state(1, true, p.net.now);
    EXPECT_EQ(p.a.ms.path_for_send(1, p.net.now).derp_region, 1);
    p.a.ms.derp_state(1, false, p.net.now);
    p.a.ms.derp_peer_gone(2, p.b.key, 0, p.net.now);
    EXPECT_EQ(p.a.ms.path_for_send(1, p.net.now).derp_region, 1);
}

TEST(Magicsock, ACallMeMaybeThatTheRelayRefusedFollowsWhenItConnects) {
    Pair p(NatKind::kEasy, NatKind::kEasy);
    p.a.derp_up = p.b.derp_up = false;
    p.a.send_data(1);
    p.net.run(milliseconds(100));
    EXPECT_FALSE(p.a.direct(1));
    p.a.derp_up = p.b.derp_up = true;
    p.a.ms.derp_state(p.b.home, true, p.net.now);
    p.net.run(milliseconds(100));
    EXPECT_TRUE(p.a.direct(1) && p.b.direct(0));
}

TEST(Magicsock, ACallMeMaybeWithoutAnyNetmapEndpointsLeadsToADirectPath) {
    Pair p(NatKind::kEasy, NatKind::kEasy);
    for (auto [n, o, id] : {std::tuple(&p.a, &p.b, PeerId{1}), std::tuple(&p.b, &p.a, PeerId{0})}) {
        PeerConfig c = p.net.config_of(*o);
        c.endpoints.clear();
        n->ms.upsert_peer(id, c, p.net.now);
    }
    p.a.send_data(1);
    p.net.run(milliseconds(200));
    EXPECT_TRUE(p.a.direct(1) && p.b.direct(0));
}

TEST(Magicsock, ARestartedPeerIsDirectAgainSoonAfterItsKeyIsKnown) {
    Pair p(NatKind::kEasy, NatKind::kEasy);
    p.traffic(seconds(3));
    p.a.alive.clear();
    p.b.disco = DiscoPrivate::generate(p.b.random);
    p.b.ms.set_disco_key(p.b.disco);
    p.b.ms.rebind(p.net.now);
    p.traffic(milliseconds(800));
    EXPECT_GT(p.a.ms.counters().disco_unknown_sender, 0U);
    p.a.ms.upsert_peer(1, p.net.config_of(p.b), p.net.now);
    EXPECT_TRUE(p.a.alive.empty());
    p.traffic(milliseconds(1600));
    EXPECT_TRUE(p.a.direct(1) && p.b.direct(0));
    EXPECT_EQ(p.a.alive, std::vector<PeerId>{1}) << "told once";
}

TEST(Magicsock, ANewDiscoKeyOfAnActivePeerIsAskedAtOnce) {
    Pair p(NatKind::kEasy, NatKind::kEasy);
    p.traffic(seconds(2));
    PeerConfig c = p.net.config_of(p.b);
    c.disco = DiscoPrivate::generate(p.b.random).public_key();
    const uint64_t before = p.a.ms.counters().pings_out;
    p.a.ms.upsert_peer(1, c, p.net.now);
    EXPECT_EQ(p.a.ms.counters().pings_out, before + 1);
    EXPECT_TRUE(p.a.direct(1)) << "the path stays";
    p.a.ms.set_peer_disco(1, p.b.disco.public_key(), p.net.now);
    EXPECT_EQ(p.a.ms.counters().pings_out, before + 2) << "learnt inside the tunnel: the same";
    p.a.ms.set_peer_disco(1, {}, p.net.now);
    p.net.run(milliseconds(100));
    EXPECT_TRUE(p.a.direct(1));
}

TEST(Magicsock, AnUnreachableAddressIsLeftAtOnce) {
    Pair p(NatKind::kEasy, NatKind::kEasy);
    p.traffic(seconds(2));
    const Endpoint best = p.a.ms.peek_path(1, p.net.now).udp;
    p.a.ms.udp_send_failed(best, EAGAIN, p.net.now);
    EXPECT_TRUE(p.a.direct(1)) << "a full queue says nothing about the path";
    p.a.ms.udp_send_failed(best, EHOSTUNREACH, p.net.now);
    EXPECT_FALSE(p.a.direct(1));
    EXPECT_FALSE(p.a.ms.path_for_send(1, p.net.now).udp.is_valid());
}

TEST(Magicsock, NothingIsSentToAddressesThatCannotBePeers) {
    TestNet net;
    TestNode& a = net.add(NatKind::kNone);
    net.add(NatKind::kNone);
    net.start();
    PeerConfig c = net.config_of(*net.nodes[1]);
    c.endpoints = {ep("127.0.0.1:41641"),  ep("169.254.1.1:41641"),  ep("224.0.0.1:41641"), ep("0.0.0.0:41641"),
                   ep("100.64.0.7:41641"), ep("[fe80::1]:41641"),    ep("[::1]:41641"),     ep("255.255.255.255:1"),
                   ep("10.1.0.5:41641"),   ep("[fd7a:115c:a1e0::1]:41641"), ep("203.0.113.2:0")};
    a.ms.set_tunnel_prefixes({*Prefix::parse("10.1.0.0/16")});
    a.ms.upsert_peer(1, c, net.now);
    const uint64_t before = a.ms.counters().pings_out;
    a.ms.path_for_send(1, net.now);
    EXPECT_EQ(a.ms.counters().pings_out, before);
}

TEST(Magicsock, LoopbackIsProbedOnlyIfConfigured) {
    struct Quiet final : test::QuietOutput {
        std::vector<Endpoint> to;
        void send_udp(const Endpoint& e, ByteSpan) override { to.push_back(e); }
        bool send_derp(int, const NodePublic&, ByteSpan) override { return false; }
    };
    for (bool allow : {false, true}) {
        SeededRandom random(1);
        Quiet out;
        Magicsock ms(random, out, {.allow_loopback = allow});
        const Time now{seconds(1000).ns};
        NodePublic key;
        key.raw[0] = 1;
        ms.set_node_key(key);
        ms.set_disco_key(DiscoPrivate::generate(random));
        PeerConfig c{.key = NodePublic::from(Bytes(32, 2)), .disco = DiscoPrivate::generate(random).public_key(), .endpoints = {ep("127.0.0.1:1")}};
        ms.upsert_peer(0, c, now);
        ms.path_for_send(0, now);
        EXPECT_EQ(out.to.size(), allow ? 1U : 0U);
    }
}

TEST(Magicsock, JunkIsCountedAndWireGuardPasses) {
    Pair p(NatKind::kNone, NatKind::kNone);
    Bytes wg(32);
    wg[0] = 4;
    EXPECT_EQ(p.a.ms.receive_udp(wg, ep("9.9.9.9:9"), p.net.now), Magicsock::Kind::kWireGuard);
    Bytes other(100, 0xee);
    EXPECT_EQ(p.a.ms.receive_udp(other, ep("9.9.9.9:9"), p.net.now), Magicsock::Kind::kWireGuard);
    Bytes disco(100);
    std::copy(disco::kMagic.begin(), disco::kMagic.end(), disco.begin());
    EXPECT_EQ(p.a.ms.receive_udp(disco, ep("9.9.9.9:9"), p.net.now), Magicsock::Kind::kConsumed);
    EXPECT_EQ(p.a.ms.counters().disco_unknown_sender, 1U);
    const DiscoPublic b = p.b.disco.public_key();
    std::copy(b.raw.begin(), b.raw.end(), disco.begin() + 6);
    EXPECT_EQ(p.a.ms.receive_udp(disco, ep("9.9.9.9:9"), p.net.now), Magicsock::Kind::kConsumed);
    EXPECT_EQ(p.a.ms.counters().disco_bad, 1U);
    EXPECT_EQ(p.a.ms.active_peers(), 0U) << "a forged datagram makes no state";
    Bytes geneve{0, 0, 0x7a, 0x12, 0, 0, 1, 0, 4, 0, 0, 0};
    EXPECT_EQ(p.a.ms.receive_udp(geneve, ep("9.9.9.9:9"), p.net.now), Magicsock::Kind::kRelayed);
    geneve[1] = 0x80;
    EXPECT_EQ(p.a.ms.receive_udp(geneve, ep("9.9.9.9:9"), p.net.now), Magicsock::Kind::kConsumed) << "servers send no such thing";
    EXPECT_EQ(p.a.ms.counters().geneve_bad, 1U);
    for (size_t n = 0; n < 40; ++n) {
        Bytes zeros(n);
        p.a.ms.receive_udp(zeros, ep("9.9.9.9:9"), p.net.now);
    }
}

TEST(Magicsock, DiscoByRelayMustComeFromTheNodeThatOwnsTheKey) {
    Pair p(NatKind::kNone, NatKind::kNone);
    const auto key = disco::SharedKey::derive(p.b.disco, p.a.disco.public_key());
    Bytes call = key->seal(p.b.disco.public_key(), disco::encode(disco::CallMeMaybe{{ep("203.0.113.9:1")}}), p.net.nodes[0]->random);
    NodePublic stranger;
    stranger.raw[0] = 9;
    const size_t before = p.a.udp_out;
    p.a.ms.receive_derp(call, 1, stranger, p.net.now);
    PeerConfig known{.key = stranger, .disco = DiscoPrivate::generate(p.a.random).public_key(), .endpoints = {}, .home_derp = 1};
    p.a.ms.upsert_peer(7, known, p.net.now);
    p.a.ms.receive_derp(call, 1, stranger, p.net.now);
    EXPECT_EQ(p.a.udp_out, before);
    EXPECT_EQ(p.a.ms.counters().disco_unknown_sender, 2U) << "refused before any cryptography";
    p.a.ms.receive_udp(call, ep("203.0.113.2:41641"), p.net.now);
    EXPECT_EQ(p.a.udp_out, before) << "CallMeMaybe comes by relay only";
    p.a.ms.receive_derp(call, 1, p.b.key, p.net.now);
    EXPECT_GT(p.a.udp_out, before);
}

TEST(Magicsock, APingThroughTheTunnelIsNotAnswered) {
    Pair p(NatKind::kNone, NatKind::kNone);
    const auto key = disco::SharedKey::derive(p.b.disco, p.a.disco.public_key());
    const disco::Ping ping{.tx = {}, .node = p.b.key, .padding = 0};
    Bytes d = key->seal(p.b.disco.public_key(), disco::encode(ping), p.a.random);
    const size_t before = p.a.udp_out;
    p.a.ms.receive_udp(d, ep("100.64.0.2:41641"), p.net.now);
    EXPECT_EQ(p.a.udp_out, before);
    p.a.ms.receive_udp(d, ep("203.0.113.2:41641"), p.net.now);
    EXPECT_GT(p.a.udp_out, before);
}

TEST(Magicsock, SourcesLeadToTheirPeer) {
    Pair p(NatKind::kEasy, NatKind::kEasy);
    p.traffic(seconds(1));
    const Source udp{.udp = ep("203.0.113.2:41641"), .derp_region = 0, .derp_key = {}};
    EXPECT_EQ(p.a.ms.peer_of(udp), 1U);
    EXPECT_EQ(p.a.ms.peer_of(Source{.udp = {}, .derp_region = 1, .derp_key = p.b.key}), 1U);
    EXPECT_EQ(p.a.ms.peer_of(Source{.udp = ep("9.9.9.9:9"), .derp_region = 0, .derp_key = {}}), kNoPeer);
    p.a.ms.remove_peer(1);
    EXPECT_EQ(p.a.ms.peer_of(udp), kNoPeer);
    EXPECT_TRUE(p.a.ms.path_for_send(1, p.net.now).empty());
}

TEST(Magicsock, AForeignWireGuardPeerIsFollowedToWhereItSpeaksFrom) {
    Pair p(NatKind::kNone, NatKind::kNone);
    PeerConfig c{.key = NodePublic::from(Bytes(32, 7)), .disco = {}, .endpoints = {ep("203.0.113.50:1"), ep("203.0.113.51:1")}, .home_derp = 0, .wireguard_only = true};
    p.a.ms.upsert_peer(5, c, p.net.now);
    const Path first = p.a.ms.path_for_send(5, p.net.now);
    EXPECT_EQ(first.udp, ep("203.0.113.50:1"));
    EXPECT_EQ(first.derp_region, 0);
    p.net.run(seconds(2));
    EXPECT_EQ(p.a.ms.path_for_send(5, p.net.now).udp, ep("203.0.113.51:1")) << "silent: the next one";
    p.a.ms.wg_received(5, {.udp = ep("203.0.113.60:9"), .derp_region = 0, .derp_key = {}}, p.net.now);
    p.net.run(seconds(4));
    EXPECT_EQ(p.a.ms.path_for_send(5, p.net.now).udp, ep("203.0.113.60:9"));
    EXPECT_EQ(p.a.ms.status(5, p.net.now).last_send, p.net.now);
    c.endpoints = {ep("203.0.113.70:1")};
    p.a.ms.upsert_peer(5, c, p.net.now);
    EXPECT_EQ(p.a.ms.path_for_send(5, p.net.now).udp, ep("203.0.113.70:1")) << "the control server says that it moved";
}

TEST(Magicsock, APeerWithoutDiscoIsReachedByRelay) {
    Pair p(NatKind::kNone, NatKind::kNone);
    PeerConfig c = p.net.config_of(p.b);
    c.disco = {};
    p.a.ms.upsert_peer(1, c, p.net.now);
    const size_t before = p.a.udp_out;
    EXPECT_EQ(p.a.ms.path_for_send(1, p.net.now).derp_region, p.b.home);
    EXPECT_EQ(p.a.udp_out, before);
}

TEST(Magicsock, StatusTellsWhatHappened) {
    Pair p(NatKind::kEasy, NatKind::kEasy);
    p.traffic(seconds(1));
    const PeerPathStatus s = p.a.ms.status(1, p.net.now);
    EXPECT_EQ(s.cur_addr, ep("203.0.113.2:41641"));
    EXPECT_EQ(s.relay, p.b.home);
    EXPECT_EQ(s.latency.millis(), 10);
    EXPECT_FALSE(s.candidates.empty());
    EXPECT_TRUE(std::any_of(s.events.begin(), s.events.end(), [](const PathEvent& e) { return e.kind == PathEvent::Kind::kNowUsing; }));
    for (size_t i = 1; i < s.events.size(); ++i) EXPECT_GE(s.events[i].at, s.events[i - 1].at);
}

TEST(Magicsock, TheRelaysWordThatAPeerIsGoneStandsUntilThePeerIsHeard) {
    Pair p(NatKind::kHard, NatKind::kHard);
    const auto status = [&] { return p.a.ms.status(1, p.net.now); };
    p.a.ms.derp_peer_gone(1, p.b.key, 1, p.net.now);
    EXPECT_EQ(status().relay_gone, p.net.now);
    EXPECT_TRUE(status().relay_heard.is_zero());
    p.b.send_data(0);
    p.net.run(seconds(1));
    EXPECT_TRUE(status().relay_gone.is_zero());
    EXPECT_FALSE(status().relay_heard.is_zero());
}

TEST(Magicsock, TenThousandIdlePeersCostNothingPerTick) {
    TestNet net;
    TestNode& a = net.add(NatKind::kNone);
    net.start();
    SeededRandom random(5);
    for (PeerId id = 0; id < 10'000; ++id) {
        PeerConfig c;
        random.fill(c.key.raw);
        random.fill(c.disco.raw);
        c.endpoints = {Endpoint{Addr::v4(0xcb007000U + id), 41641}, Endpoint{Addr::v4(0xc0a80000U + id), 41641}};
        c.home_derp = 1;
        a.ms.upsert_peer(id, c, net.now);
    }
    EXPECT_EQ(a.ms.active_peers(), 0U);
    EXPECT_TRUE(a.changes.empty());
    const uint64_t turns = net.turns;
    net.run(minutes(30));
    EXPECT_LE(net.turns - turns, 20U);
    a.ms.path_for_send(77, net.now);
    EXPECT_EQ(a.ms.active_peers(), 1U);
}

TEST(Magicsock, TheSameSeedGivesTheSameRun) {
    const auto run = [] {
        Pair p(NatKind::kEasy, NatKind::kHard);
        p.traffic(seconds(20));
        return std::tuple(p.net.turns, p.a.udp_out, p.b.udp_out, p.a.derp_out, p.a.random.u64());
    };
    EXPECT_EQ(run(), run());
}

TEST(Magicsock, ANetworkChangeLosesNoDatagramAndIsDirectAgainWithinASecond) {
    Pair p(NatKind::kEasy, NatKind::kEasy);
    p.traffic(seconds(2));
    p.a.mappings.clear();
    p.a.wan = ep("203.0.113.200:0");  // another provider
    p.a.ms.rebind(p.net.now);
    p.b.data.clear();
    p.a.data.clear();
    p.traffic(seconds(1));
    EXPECT_GE(p.b.data.size(), 5U);
    EXPECT_TRUE(p.a.direct(1));
    EXPECT_EQ(p.a.endpoints[0].ep, ep("203.0.113.200:41641"));
    p.traffic(seconds(3));
    EXPECT_TRUE(p.b.direct(0));
    EXPECT_EQ(p.b.ms.peek_path(0, p.net.now).udp, ep("203.0.113.200:41641"));
}

TEST(Magicsock, APeerFollowsToTheNewAddressWithoutWaitingForSilence) {
    Pair p(NatKind::kEasy, NatKind::kNone);  // answers our first ping from there, so nobody lacks a path
    p.traffic(seconds(2));
    p.a.mappings.clear();
    p.a.wan = ep("203.0.113.200:0");
    p.a.ms.rebind(p.net.now);
    p.traffic(milliseconds(400));
    EXPECT_EQ(p.b.ms.peek_path(0, p.net.now).udp, ep("203.0.113.200:41641"));
    const auto was = [](const LocalEndpoint& e) { return e.ep.addr == ep("203.0.113.1:1").addr; };
    EXPECT_TRUE(std::none_of(p.a.endpoints.begin(), p.a.endpoints.end(), was)) << "where we were is not advertised any more";
}

}  // namespace
}  // namespace mesh::magicsock
