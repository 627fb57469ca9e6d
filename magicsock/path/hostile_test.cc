// SPDX-License-Identifier: BSD-3-Clause
// A peer that lies: call-me-maybe with a thousand foreign addresses, floods of pings. We must not become its weapon.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "magicsock/path/magicsock.h"
#include "magicsock/path/test_net.h"

namespace mesh::magicsock {
namespace {

constexpr size_t kPingLen = disco::kOverhead + disco::kPingPayloadLen;

/// Remembers the pings that leave; nobody answers.
struct Sink final : test::QuietOutput {
    std::vector<std::pair<Time, Endpoint>> pings;
    size_t pongs = 0;
    Time now{};

    void send_udp(const Endpoint& to, ByteSpan datagram) override {
        if (!disco::looks_like_disco(datagram)) return;
        if (datagram.size() < kPingLen)
            ++pongs;
        else
            pings.emplace_back(now, to);
    }
};

struct Attack {
    static constexpr PeerId kEnemy = 1;
    SeededRandom random{7};
    Sink sink;
    Magicsock sock{random, sink};
    Time now{seconds(1000).ns};
    DiscoPrivate own = DiscoPrivate::generate(random), enemy = DiscoPrivate::generate(random);
    NodePublic enemy_node = NodePrivate::generate(random).public_key();
    disco::SharedKey shared = *disco::SharedKey::derive(enemy, own.public_key());

    Attack() {
        sink.now = now;
        sock.set_disco_key(own);
        sock.set_node_key(NodePrivate::generate(random).public_key());
        sock.set_network({.up = true, .have_v4 = true, .have_v6 = true, .os_has_ipv6 = true}, now);
        sock.set_tunnel_prefixes({*Prefix::parse("10.1.0.0/16")});
        PeerConfig c;
        c.key = enemy_node;
        c.disco = enemy.public_key();
        c.home_derp = 1;
        sock.upsert_peer(kEnemy, c, now);
    }

    Bytes seal(const disco::Message& m) { return shared.seal(enemy.public_key(), disco::encode(m), random); }
    void by_relay(const disco::Message& m) {
        Bytes datagram = seal(m);
        (void)sock.receive_derp(datagram, 1, enemy_node, now);
    }
    void from(const Endpoint& source, const disco::Message& m) {
        Bytes datagram = seal(m);
        (void)sock.receive_udp(datagram, source, now);
    }
    void pass(Duration d) {
        const Time until = now + d;
        while (sock.next_timeout() <= until) {
            now = sink.now = max(now, sock.next_timeout());
            sock.handle_timeout(now);
        }
        now = sink.now = until;
    }
    /// Never more than 20 in a second of the limiter's, so never more than 40 in any second, and 20 in the long run.
    void expect_limited(Duration span) const {
        EXPECT_LE(sink.pings.size(), kMaxPingsPerSecond * static_cast<size_t>(span.ns / seconds(1).ns + 1));
        for (size_t first = 0, i = 0; i < sink.pings.size(); ++i) {
            while (sink.pings[i].first - sink.pings[first].first >= seconds(1)) ++first;
            EXPECT_LE(i - first + 1, 2 * kMaxPingsPerSecond);
        }
    }
};

Endpoint foreign(uint32_t i) { return {Addr::v4(0xc6120000U + i), static_cast<uint16_t>(1 + i % 65535)}; }  // 198.18.0.0/15

TEST(Hostile, CallMeMaybesWithAThousandForeignAddressesMakeTwentyProbesASecond) {
    for (const bool in_use : {false, true}) {
        Attack a;
        for (uint32_t round = 0; round < 100; ++round) {  // ten seconds, ten messages a second, all addresses new
            disco::CallMeMaybe m;
            for (uint32_t i = 0; i < 1000; ++i) m.endpoints.push_back(foreign(round * 1000 + i));
            a.by_relay(m);
            if (in_use) (void)a.sock.path_for_send(Attack::kEnemy, a.now);
            a.pass(milliseconds(100));
        }
        EXPECT_GE(a.sink.pings.size(), 100U) << "it is still a way to be called";
        a.expect_limited(seconds(10));
        a.sink.pings.clear();
        a.pass(minutes(5));
        std::set<Endpoint> targets;
        for (const auto& [at, to] : a.sink.pings) targets.insert(to);
        EXPECT_LE(targets.size(), kMaxCandidates) << "what is forgotten is not probed any more";
        a.expect_limited(minutes(5));
    }
}

TEST(Hostile, AFloodOfPingsFromEverywhereMakesTwentyProbesASecond) {
    Attack a;
    constexpr uint32_t kPings = 20'000;
    for (uint32_t i = 0; i < kPings; ++i) {
        disco::Ping p;
        a.random.fill(p.tx);
        p.node = a.enemy_node;
        a.from(foreign(i), p);
        if (i % 2 == 1) a.pass(milliseconds(1));
    }
    EXPECT_EQ(a.sink.pongs, kPings) << "each is answered by one pong of less size";
    a.expect_limited(seconds(10));
}

TEST(Hostile, AddressesThatCannotBePeersAreNeverProbedWhoeverNamesThem) {
    Attack a;
    std::vector<Endpoint> bad;
    for (const char* text : {"127.0.0.1:1", "127.8.9.10:53", "169.254.169.254:80", "224.0.0.1:1", "239.255.255.250:1900", "255.255.255.255:9", "0.0.0.0:1",
                             "100.64.0.7:1", "100.100.100.100:53", "10.1.0.5:1", "203.0.113.9:0", "[::1]:1", "[fe80::1]:1", "[ff02::1]:1", "[::]:1",
                             "[fd7a:115c:a1e0::53]:53"})
        bad.push_back(*Endpoint::parse(text));
    a.by_relay(disco::CallMeMaybe{bad});
    for (const Endpoint& e : bad) {
        disco::Ping p;
        a.random.fill(p.tx);
        p.node = a.enemy_node;
        a.from(e, p);
    }
    (void)a.sock.path_for_send(Attack::kEnemy, a.now);
    a.pass(seconds(30));
    for (const auto& [at, to] : a.sink.pings) ADD_FAILURE() << to.str();
    // The same with one good address among them: that one is asked.
    bad.insert(bad.begin() + 5, *Endpoint::parse("198.51.100.7:41641"));
    a.by_relay(disco::CallMeMaybe{bad});
    a.pass(seconds(1));
    EXPECT_FALSE(a.sink.pings.empty());
    for (const auto& [at, to] : a.sink.pings) EXPECT_EQ(to.str(), "198.51.100.7:41641");
}

}  // namespace
}  // namespace mesh::magicsock
