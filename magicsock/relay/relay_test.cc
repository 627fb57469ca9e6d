// SPDX-License-Identifier: BSD-3-Clause
// The server and the client's handshake against each other, and what a hostile client or bystander can do.
#include <gtest/gtest.h>

#include <set>

#include "magicsock/relay/handshake.h"
#include "magicsock/relay/server.h"

namespace mesh::relay {
namespace {

using disco::RelayBind;

Endpoint ep(const char* text) { return *Endpoint::parse(text); }
Time at(double s) { return Time{1'000'000'000'000} + nanoseconds(static_cast<int64_t>(s * 1e9)); }

Bytes data(uint32_t vni) { return Geneve{Geneve::kWireGuard, false, vni}.around(Bytes(32, 4)); }
Bytes control(uint32_t vni, ByteSpan box) { return Geneve{Geneve::kDisco, true, vni}.around(box); }

TEST(Geneve, HasItsGoldenBytes) {
    Bytes b(kGeneveLen);
    Geneve{Geneve::kDisco, true, 0x010203}.write(b.data());
    EXPECT_EQ(hex_encode(b), "00807a1101020300");
    EXPECT_EQ(Geneve::parse(b), (Geneve{Geneve::kDisco, true, 0x010203}));
    Geneve{Geneve::kWireGuard, false, kMaxVni}.write(b.data());
    EXPECT_EQ(hex_encode(b), "00007a12ffffff00");
    EXPECT_EQ(Geneve::parse(b), (Geneve{Geneve::kWireGuard, false, kMaxVni}));
}

TEST(Geneve, RefusesWhatTheProtocolDoesNotSend) {
    for (const char* hex : {"00807a11010203", "40807a1101020300", "01807a1101020300", "00c07a1101020300", "00817a1101020300", "0080655801020300",
                            "00807a1101020301", "00807a1100000000"}) {
        Bytes b(std::strlen(hex) / 2);
        ASSERT_TRUE(hex_decode(hex, b));
        EXPECT_FALSE(Geneve::parse(b)) << hex;
    }
}

struct Client {
    DiscoPrivate key;
    Endpoint addr;
    disco::SharedKey shared;
};

struct Relay : ::testing::Test {
    SeededRandom random{11};
    DiscoPrivate key = DiscoPrivate::generate(random);
    Server server{random, key};
    Client a = client("192.0.2.1:1001"), b = client("[2001:db8::2]:1002"), eve = client("203.0.113.66:6666");
    uint32_t generation = 0;

    Relay() { server.set_addrs({ep("198.51.100.1:7000"), ep("[2001:db8::1]:7000")}); }

    Client client(const char* addr) {
        DiscoPrivate k = DiscoPrivate::generate(random);
        auto shared = disco::SharedKey::derive(k, key.public_key());
        return {std::move(k), ep(addr), std::move(*shared)};
    }
    disco::RelayEndpoint allocate(Time now) { return *server.allocate(a.key.public_key(), b.key.public_key(), now); }

    Server::Received send(const Client& from, const RelayBind& m, Time now, std::optional<Endpoint> source = {}, uint32_t header_vni = 0) {
        const Bytes box = from.shared.seal(from.key.public_key(), disco::encode(m), random);
        return server.receive(control(header_vni != 0 ? header_vni : m.vni, box), source.value_or(from.addr), now);
    }
    RelayBind opened_reply(const Client& by) {
        const auto header = Geneve::parse(server.reply());
        EXPECT_TRUE(header && header->control && header->protocol == Geneve::kDisco);
        const auto payload = by.shared.open(server.reply().subspan(kGeneveLen));
        EXPECT_TRUE(payload);
        return std::get<RelayBind>(*disco::parse(*payload));
    }
    static RelayBind bind(const Client& other, uint32_t vni, uint32_t gen) {
        return {RelayBind::Step::kBind, vni, gen, other.key.public_key(), {}};
    }
    RelayBind challenge_for(const Client& me, const Client& other, uint32_t vni, uint32_t gen, Time now) {
        const auto r = send(me, bind(other, vni, gen), now);
        EXPECT_EQ(r.verdict, Server::Verdict::kReply);
        EXPECT_EQ(r.to, me.addr);
        return opened_reply(me);
    }
    void bind_leg(const Client& me, const Client& other, uint32_t vni, Time now) {
        RelayBind answer = challenge_for(me, other, vni, ++generation, now);
        answer.step = RelayBind::Step::kAnswer;
        EXPECT_EQ(send(me, answer, now).verdict, Server::Verdict::kDrop) << "an answer is not answered";
    }
    uint32_t bound(Time now) {
        const uint32_t vni = allocate(now).vni;
        bind_leg(a, b, vni, now);
        bind_leg(b, a, vni, now);
        return vni;
    }
};

TEST_F(Relay, ForwardsBetweenTwoBoundClientsUnchanged) {
    const disco::RelayEndpoint e = allocate(at(0));
    EXPECT_EQ(e.server, key.public_key());
    EXPECT_EQ(e.clients, disco::sorted_pair(a.key.public_key(), b.key.public_key()));
    EXPECT_EQ(e.addrs.size(), 2U);
    EXPECT_EQ(e.bind_lifetime, seconds(30));
    EXPECT_EQ(server.connecting(), 1U);
    bind_leg(a, b, e.vni, at(0));
    EXPECT_EQ(server.receive(data(e.vni), a.addr, at(0)).verdict, Server::Verdict::kDrop) << "the other leg is not bound";
    EXPECT_EQ(server.counters().unbound, 1U);
    bind_leg(b, a, e.vni, at(0));
    EXPECT_EQ(server.open(), 1U);
    EXPECT_EQ(server.connecting(), 0U);
    for (const auto& [from, to] : {std::pair{a.addr, b.addr}, std::pair{b.addr, a.addr}}) {
        const auto r = server.receive(data(e.vni), from, at(1));
        EXPECT_EQ(r.verdict, Server::Verdict::kForward);
        EXPECT_EQ(r.to, to);
    }
    const auto sessions = server.sessions();
    ASSERT_EQ(sessions.size(), 1U);
    EXPECT_EQ(sessions[0].clients[0].packets, 1U);
    EXPECT_EQ(sessions[0].clients[1].bytes, data(e.vni).size());
}

TEST_F(Relay, AThirdPartyGetsNothingThrough) {
    const uint32_t vni = bound(at(0));
    EXPECT_EQ(server.receive(data(vni), eve.addr, at(1)).verdict, Server::Verdict::kDrop);
    EXPECT_EQ(server.receive(data(vni), ep("192.0.2.1:1003"), at(1)).verdict, Server::Verdict::kDrop) << "right host, other port";
    EXPECT_EQ(server.counters().wrong_source, 2U);
    EXPECT_EQ(server.receive(data(vni + 1), a.addr, at(1)).verdict, Server::Verdict::kDrop);
    EXPECT_EQ(server.counters().unknown_vni, 1U);
    EXPECT_EQ(send(eve, bind(b, vni, 1), at(1)).verdict, Server::Verdict::kDrop) << "not one of the two";
    // Eve names a as the sender; the box is not a's.
    const Bytes box = eve.shared.seal(a.key.public_key(), disco::encode(bind(b, vni, 9)), random);
    EXPECT_EQ(server.receive(control(vni, box), eve.addr, at(1)).verdict, Server::Verdict::kDrop);
    EXPECT_EQ(server.receive(data(vni), a.addr, at(1)).to, b.addr) << "nothing moved";
}

TEST_F(Relay, AnswersWithAWrongMacOrFromElsewhereBindNothing) {
    const uint32_t vni = allocate(at(0)).vni;
    RelayBind answer = challenge_for(a, b, vni, 7, at(0));
    answer.step = RelayBind::Step::kAnswer;
    RelayBind wrong = answer;
    wrong.challenge[0] ^= 1;
    send(a, wrong, at(0));
    wrong = answer;
    wrong.generation = 8;
    send(a, wrong, at(0));
    wrong = answer;
    wrong.remote = eve.key.public_key();
    send(a, wrong, at(0));
    wrong = answer;
    wrong.vni = vni + 1;
    send(a, wrong, at(0), {}, vni);
    send(a, answer, at(0), eve.addr);  // heard by a bystander, sent from his place
    EXPECT_EQ(server.counters().bad_control, 5U);
    EXPECT_EQ(server.counters().bound, 0U);
    send(a, answer, at(0));
    EXPECT_EQ(server.counters().bound, 1U);
}

TEST_F(Relay, AReplayedAnswerDoesNotMoveALegBack) {
    const uint32_t vni = bound(at(0));
    RelayBind old = challenge_for(a, b, vni, 100, at(1));
    old.step = RelayBind::Step::kAnswer;
    send(a, old, at(1));
    const Endpoint moved = ep("192.0.2.9:9");
    RelayBind fresh = bind(b, vni, 101);
    ASSERT_EQ(send(a, fresh, at(2), moved).verdict, Server::Verdict::kReply);
    fresh = opened_reply(a);
    fresh.step = RelayBind::Step::kAnswer;
    send(a, fresh, at(2), moved);
    EXPECT_EQ(server.receive(data(vni), b.addr, at(2)).to, moved);
    send(a, old, at(3));  // replayed
    EXPECT_EQ(server.receive(data(vni), b.addr, at(3)).to, moved);
    EXPECT_EQ(server.receive(data(vni), a.addr, at(3)).verdict, Server::Verdict::kDrop) << "the old place is nobody's";
    EXPECT_EQ(server.open(), 1U);
}

TEST_F(Relay, GenerationZeroIsRefused) {
    const uint32_t vni = allocate(at(0)).vni;
    EXPECT_EQ(send(a, bind(b, vni, 0), at(0)).verdict, Server::Verdict::kDrop);
}

TEST_F(Relay, AReplyIsNoLongerThanWhatItAnswers) {
    const uint32_t vni = allocate(at(0)).vni;
    ASSERT_EQ(send(a, bind(b, vni, 1), at(0)).verdict, Server::Verdict::kReply);
    EXPECT_EQ(server.reply().size(), kGeneveLen + disco::kOverhead + 2 + 72);
}

TEST_F(Relay, AChallengeIsGoodForTwoToFourMinutesAcrossTheRotationOfItsSecret) {
    const uint32_t vni = allocate(at(0)).vni;
    RelayBind answer = challenge_for(a, b, vni, 1, at(0));
    answer.step = RelayBind::Step::kAnswer;
    send(a, answer, at(150));
    EXPECT_EQ(server.counters().bound, 1U) << "by the secret before";
    answer = challenge_for(a, b, vni, 2, at(151));
    answer.step = RelayBind::Step::kAnswer;
    send(a, answer, at(151 + 600));
    EXPECT_EQ(server.counters().bound, 1U) << "after a long rest nothing of before counts";
    answer = challenge_for(b, a, vni, 3, at(800));
    answer.step = RelayBind::Step::kAnswer;
    (void)challenge_for(a, b, vni, 4, at(930));
    (void)challenge_for(a, b, vni, 5, at(1060));
    send(b, answer, at(1060));
    EXPECT_EQ(server.counters().bound, 1U) << "two rotations";
}

TEST_F(Relay, TheSamePairGetsTheSameEndpointAndVniGoRound) {
    const auto first = allocate(at(0));
    EXPECT_EQ(first.vni, 1U);
    EXPECT_EQ(server.allocate(b.key.public_key(), a.key.public_key(), at(1)), first);
    const auto second = *server.allocate(a.key.public_key(), eve.key.public_key(), at(1));
    EXPECT_EQ(second.vni, 2U);
    EXPECT_GT(second.lamport, first.lamport);
    server.handle_timeout(at(60));
    EXPECT_EQ(server.connecting(), 0U);
    EXPECT_TRUE(server.next_timeout().is_never());
    EXPECT_EQ(allocate(at(60)).vni, 3U) << "a number rests as long as possible";
}

TEST_F(Relay, EndpointsEndWhenNobodyBindsOrOneSideFallsSilent) {
    const uint32_t vni = bound(at(0));
    const auto half = *server.allocate(a.key.public_key(), eve.key.public_key(), at(0));
    bind_leg(a, eve, half.vni, at(20));
    server.handle_timeout(at(31));
    EXPECT_EQ(server.connecting(), 0U) << "one of two is not enough";
    EXPECT_EQ(server.open(), 1U);
    for (int s = 60; s <= 280; s += 30) {
        (void)server.receive(data(vni), a.addr, at(s));
        (void)server.receive(data(vni), b.addr, at(s));
        server.handle_timeout(at(s));
    }
    for (int s = 300; s <= 540; s += 30) {
        (void)server.receive(data(vni), a.addr, at(s));
        server.handle_timeout(at(s));
    }
    EXPECT_EQ(server.open(), 1U);
    (void)server.receive(data(vni), a.addr, at(600));
    server.handle_timeout(at(600));
    EXPECT_EQ(server.open(), 0U) << "five minutes of silence on one leg";
    EXPECT_EQ(server.receive(data(vni), a.addr, at(601)).verdict, Server::Verdict::kDrop);
}

TEST_F(Relay, AllocatesNothingWithoutAddressesOrForNoPair) {
    EXPECT_FALSE(server.allocate(a.key.public_key(), a.key.public_key(), at(0)));
    EXPECT_FALSE(server.allocate(a.key.public_key(), key.public_key(), at(0)));
    EXPECT_FALSE(server.allocate(a.key.public_key(), DiscoPublic{}, at(0))) << "a weak point";
    server.set_addrs({});
    EXPECT_FALSE(server.allocate(a.key.public_key(), b.key.public_key(), at(0)));
    EXPECT_EQ(server.counters().refused, 4U);
}

TEST_F(Relay, OneClientCannotTakeAllEndpoints) {
    size_t got = 0;
    for (size_t i = 0; i < Server::kMaxPerClient + 50; ++i)
        got += server.allocate(eve.key.public_key(), DiscoPrivate::generate(random).public_key(), at(0)) ? 1U : 0U;
    EXPECT_EQ(got, Server::kMaxPerClient);
    EXPECT_TRUE(server.allocate(a.key.public_key(), b.key.public_key(), at(0))) << "others go on";
    server.handle_timeout(at(31));
    EXPECT_EQ(server.connecting(), 0U);
    EXPECT_TRUE(server.allocate(eve.key.public_key(), b.key.public_key(), at(32)));
}

// ---- the client's side

struct Shaking : Relay {
    std::vector<Handshake::Out> out;
};

TEST_F(Shaking, AClientBindsAndAnswersTheFirstChallengeOnly) {
    const auto e = allocate(at(0));
    Handshake h(e, b.key.public_key(), 3, at(0), out);
    ASSERT_EQ(out.size(), 2U) << "to both addresses";
    ASSERT_EQ(send(a, out[0].message, at(0)).verdict, Server::Verdict::kReply);
    const RelayBind challenge = opened_reply(a);
    out.clear();
    RelayBind wrong = challenge;
    wrong.vni ^= 1;
    EXPECT_FALSE(h.heard_challenge(wrong, e.addrs[0], e.vni, at(0), out));
    EXPECT_FALSE(h.heard_challenge(challenge, e.addrs[0], e.vni + 1, at(0), out)) << "the header was tampered with";
    wrong = challenge;
    wrong.remote = eve.key.public_key();
    EXPECT_FALSE(h.heard_challenge(wrong, e.addrs[0], e.vni, at(0), out));
    wrong = challenge;
    wrong.generation = 2;
    EXPECT_FALSE(h.heard_challenge(wrong, e.addrs[0], e.vni, at(0), out)) << "of an earlier handshake";
    EXPECT_TRUE(out.empty());
    EXPECT_TRUE(h.heard_challenge(challenge, e.addrs[1], e.vni, at(0), out));
    EXPECT_EQ(h.addr(), e.addrs[1]);
    ASSERT_EQ(out.size(), 1U);
    EXPECT_EQ(out[0].to, e.addrs[1]);
    send(a, out[0].message, at(0));
    EXPECT_EQ(server.counters().bound, 1U);
    EXPECT_FALSE(h.heard_challenge(challenge, e.addrs[0], e.vni, at(0), out)) << "a second one";
}

TEST_F(Shaking, LostMessagesAreRepeatedAFewTimesUntilItIsProved) {
    const auto e = allocate(at(0));
    Handshake h(e, b.key.public_key(), 3, at(0), out);
    std::set<int64_t> when;
    for (Time now = at(0); now < at(40) && !h.next_timeout().is_never();) {
        now = h.next_timeout();
        if (h.failed(now)) break;
        const size_t before = out.size();
        h.handle_timeout(now, out);
        if (out.size() > before) when.insert((now - at(0)).millis());
    }
    EXPECT_EQ(when, (std::set<int64_t>{500, 1000, 2000, 4000}));
    EXPECT_TRUE(h.failed(at(30)));
    EXPECT_FALSE(h.failed(at(29.9)));

    Handshake proved(e, b.key.public_key(), 4, at(50), out);
    ASSERT_EQ(send(a, out.back().message, at(50)).verdict, Server::Verdict::kReply);
    ASSERT_TRUE(proved.heard_challenge(opened_reply(a), e.addrs[0], e.vni, at(50), out));
    EXPECT_EQ(proved.next_timeout(), at(50.5)) << "the answer may be lost too";
    proved.proved();
    EXPECT_TRUE(proved.next_timeout().is_never());
    EXPECT_FALSE(proved.failed(at(500)));
}

}  // namespace
}  // namespace mesh::relay
