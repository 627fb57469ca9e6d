// SPDX-License-Identifier: BSD-3-Clause
#include "wg/cookie.h"

#include <gtest/gtest.h>

#include "wg/testing.h"

namespace mesh::wg {
namespace {

using testing::kStart;
using testing::Node;
using testing::source_of;
using Opened = Device::Opened;
using Verdict = HandshakeGate::Verdict;

/// A server and as many clients as wanted, each at its own address.
struct Crowd {
    Node server{1};
    std::vector<std::unique_ptr<Node>> clients;

    explicit Crowd(size_t n) {
        for (size_t i = 0; i < n; ++i) {
            clients.push_back(std::make_unique<Node>(100 + i));
            server.device.add_peer(static_cast<PeerId>(i), clients[i]->key.public_key());
            clients[i]->device.add_peer(0, server.key.public_key());
            clients[i]->transmit(0, "x", kStart);
        }
    }
};

/// Messages with a valid mac1 only, from many places.
Bytes noise_message(Random& r, const NodePublic& to, CookieJar* jar = nullptr, Time now = kStart) {
    Bytes m(sizeof(Initiation));
    r.fill(m);
    store_le32(m.data(), kTypeInitiation);
    CookieJar own;
    (jar != nullptr ? *jar : own).write_macs(m, to, now);
    return m;
}

TEST(TokenBucket, AllowsItsBurstThenItsRate) {
    TokenBucket b(milliseconds(50), 5);
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(b.take(kStart));
    EXPECT_FALSE(b.take(kStart));
    EXPECT_FALSE(b.take(kStart + milliseconds(49)));
    EXPECT_TRUE(b.take(kStart + milliseconds(50)));
    EXPECT_FALSE(b.take(kStart + milliseconds(50)));
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(b.take(kStart + seconds(10)));
    EXPECT_FALSE(b.take(kStart + seconds(10)));
}

TEST(Cookie, AReplyArmsTheNextMessageOnlyAndOnlyFor120Seconds) {
    SeededRandom r(1);
    const NodePublic server = NodePrivate::generate(r).public_key();
    HandshakeGate gate(r);
    gate.set_key(server);
    CookieJar jar;
    Bytes m = noise_message(r, server, &jar);
    EXPECT_TRUE(std::all_of(m.end() - kMac, m.end(), [](uint8_t b) { return b == 0; }));
    const CookieReply reply = gate.make_reply(m, source_of(1), kStart);
    EXPECT_TRUE(jar.accept(reply, server, kStart));
    EXPECT_FALSE(jar.accept(reply, server, kStart)) << "one reply per message";
    m = noise_message(r, server, &jar, kStart + seconds(119));
    EXPECT_FALSE(std::all_of(m.end() - kMac, m.end(), [](uint8_t b) { return b == 0; }));
    m = noise_message(r, server, &jar, kStart + seconds(120));
    EXPECT_TRUE(std::all_of(m.end() - kMac, m.end(), [](uint8_t b) { return b == 0; }));
}

TEST(Cookie, AReplyToAnotherMessageOrWithoutOneIsRefused) {
    SeededRandom r(1);
    const NodePublic server = NodePrivate::generate(r).public_key();
    HandshakeGate gate(r);
    gate.set_key(server);
    CookieJar jar, empty;
    const Bytes one = noise_message(r, server, &jar);
    (void)noise_message(r, server, &jar);
    const CookieReply reply = gate.make_reply(one, source_of(1), kStart);
    EXPECT_FALSE(jar.accept(reply, server, kStart));
    EXPECT_FALSE(empty.accept(reply, server, kStart));
}

TEST(HandshakeGate, DemandsCookiesOnceTheFreeBudgetIsSpentAndForOneSecondAfter) {
    SeededRandom r(1);
    const NodePublic server = NodePrivate::generate(r).public_key();
    HandshakeGate gate(r);
    gate.set_key(server);
    int64_t admitted = 0;
    for (uint32_t i = 0; i < 500; ++i)
        if (gate.check(noise_message(r, server), source_of(i), kStart) == Verdict::kAdmit) ++admitted;
    EXPECT_EQ(admitted, HandshakeGate::kFreeBurst);
    EXPECT_TRUE(gate.under_load(kStart + milliseconds(999)));
    EXPECT_FALSE(gate.under_load(kStart + seconds(1)));
    EXPECT_EQ(gate.check(noise_message(r, server), source_of(9), kStart + milliseconds(999)), Verdict::kDemandCookie);
    EXPECT_EQ(gate.check(noise_message(r, server), source_of(9), kStart + seconds(1)), Verdict::kAdmit);
}

TEST(HandshakeGate, AFloodThatGoesOnGetsNothingThrough) {
    SeededRandom r(1);
    const NodePublic server = NodePrivate::generate(r).public_key();
    HandshakeGate gate(r);
    gate.set_key(server);
    const Bytes m = noise_message(r, server);
    int64_t admitted = 0;
    for (int us = 0; us < 5'000'000; us += 500)  // 2000 per second for 5 s
        if (gate.check(m, source_of(1), kStart + microseconds(us)) == Verdict::kAdmit) ++admitted;
    EXPECT_LE(admitted, HandshakeGate::kFreeBurst + 30);
}

TEST(HandshakeGate, AValidCookiePassesAtTwentyPerSecondAndSource) {
    SeededRandom r(1);
    const NodePublic server = NodePrivate::generate(r).public_key();
    HandshakeGate gate(r);
    gate.set_key(server);
    while (gate.check(noise_message(r, server), source_of(99), kStart) == Verdict::kAdmit) {
    }
    CookieJar jar;
    const Bytes m = noise_message(r, server, &jar);
    ASSERT_TRUE(jar.accept(gate.make_reply(m, source_of(5, 1000), kStart), server, kStart));
    for (int64_t i = 0; i < HandshakeGate::kSourceBurst; ++i)
        EXPECT_EQ(gate.check(noise_message(r, server, &jar), source_of(5, 1000), kStart), Verdict::kAdmit);
    EXPECT_EQ(gate.check(noise_message(r, server, &jar), source_of(5, 1000), kStart), Verdict::kRefuse);
    EXPECT_EQ(gate.check(noise_message(r, server, &jar), source_of(5, 1000), kStart + milliseconds(50)),
              Verdict::kAdmit);
    // The cookie is bound to address and port.
    EXPECT_EQ(gate.check(noise_message(r, server, &jar), source_of(5, 1001), kStart), Verdict::kDemandCookie);
    EXPECT_EQ(gate.check(noise_message(r, server, &jar), source_of(6, 1000), kStart), Verdict::kDemandCookie);
    Source relayed;
    relayed.derp_region = 1;
    EXPECT_EQ(gate.check(noise_message(r, server, &jar), relayed, kStart), Verdict::kDemandCookie);
}

TEST(HandshakeGate, TheSecretChangesAfter120Seconds) {
    SeededRandom r(1);
    const NodePublic server = NodePrivate::generate(r).public_key();
    HandshakeGate gate(r);
    gate.set_key(server);
    CookieJar jar;
    const Bytes m = noise_message(r, server, &jar);
    ASSERT_TRUE(jar.accept(gate.make_reply(m, source_of(5), kStart), server, kStart + seconds(119)));
    const Time later = kStart + seconds(121);
    while (gate.check(noise_message(r, server), source_of(99), later) == Verdict::kAdmit) {
    }
    EXPECT_EQ(gate.check(noise_message(r, server, &jar, later), source_of(5), later), Verdict::kDemandCookie);
}

TEST(HandshakeGate, WithoutMac1NothingIsAnsweredAndNothingSpent) {
    SeededRandom r(1);
    const NodePublic server = NodePrivate::generate(r).public_key();
    HandshakeGate gate(r);
    gate.set_key(server);
    Bytes m(sizeof(Initiation));
    for (int i = 0; i < 1000; ++i) {
        r.fill(m);
        ASSERT_EQ(gate.check(m, source_of(1), kStart), Verdict::kBadMac);
    }
    EXPECT_FALSE(gate.under_load(kStart));
    EXPECT_EQ(gate.check(noise_message(r, server), source_of(1), kStart), Verdict::kAdmit);
}

TEST(Device, UnderLoadClientsGetThroughWithTheirCookies) {
    Crowd crowd(120);
    Time now = kStart;
    size_t cookies = 0;
    const auto round = [&] {
        for (size_t i = 0; i < crowd.clients.size(); ++i) {
            Node& c = *crowd.clients[i];
            const Source from = source_of(static_cast<uint32_t>(1000 + i));
            while (!c.sent.empty()) {
                crowd.server.forget_sent();
                crowd.server.replies.clear();
                (void)crowd.server.deliver(c.take(), now, from);
                for (const Bytes& r : crowd.server.replies) {
                    ++cookies;
                    EXPECT_EQ(c.deliver(r, now).kind, Opened::kHandshake);
                    EXPECT_TRUE(c.sent.empty()) << "a cookie is not answered";
                }
                for (const Bytes& m : std::vector<Bytes>(crowd.server.sent.begin(), crowd.server.sent.end()))
                    (void)c.deliver(m, now);
            }
        }
    };
    round();
    EXPECT_EQ(cookies, crowd.clients.size() - static_cast<size_t>(HandshakeGate::kFreeBurst));
    EXPECT_EQ(crowd.server.device.counters().cookie_replies_sent, cookies);
    for (int step = 0; step < 40; ++step) {
        now = now + milliseconds(100);
        for (auto& c : crowd.clients) c->device.handle_timeout(now);
        round();
    }
    for (auto& c : crowd.clients) EXPECT_TRUE(c->has_session(0, now));
}

/// Initiations of nobody, each from a place of its own; returns how many were answered with a cookie.
size_t flood(Node& server, int64_t first, int64_t count, Time from, Duration over) {
    SeededRandom r(static_cast<uint64_t>(first));
    server.replies.clear();
    for (int64_t i = 0; i < count; ++i)
        (void)server.deliver(noise_message(r, server.key.public_key()), from + over * i / count,
                             source_of(0xc6120000U + static_cast<uint32_t>(first + i), 1024));
    return server.replies.size();
}

TEST(Device, FloodsFromInventedSourcesGetFewAnswers) {
    Node server(1);
    flood(server, 0, 1000, kStart, {});
    const size_t answers = flood(server, 1000, 10'000, kStart, seconds(1));
    EXPECT_GE(answers, static_cast<size_t>(HandshakeGate::kReplyRate) - 10);
    EXPECT_LE(answers, static_cast<size_t>(HandshakeGate::kReplyRate + HandshakeGate::kReplyBurst));
    EXPECT_EQ(server.last_drop, DropReason::kRateLimited);
    EXPECT_TRUE(server.sent.empty()) << "none was computed after the first";
}

TEST(Device, WhoIsKnownGetsItsCookieInAFloodAtOnce) {
    for (const bool relayed : {false, true}) {
        Node server(1), client(2);
        server.device.add_peer(0, client.key.public_key());
        client.device.add_peer(0, server.key.public_key());
        Source from = source_of(77);
        if (relayed) {
            from = {};
            from.derp_region = 1;
            from.derp_key = client.key.public_key();
        } else {
            server.known = from;
        }
        Time now = kStart + milliseconds(200);
        flood(server, 0, 2'000, kStart, now - kStart);
        client.transmit(0, "x", now);
        server.replies.clear();
        (void)server.deliver(client.take(), now, from);
        ASSERT_EQ(server.replies.size(), 1U) << relayed;
        (void)client.deliver(server.replies[0], now);
        const Time retry = client.device.next_timeout();
        flood(server, 2'000, 5'000, now, retry - now);
        now = retry;
        client.device.handle_timeout(now);
        (void)server.deliver(client.take(), now, from);
        ASSERT_EQ(server.sent.size(), 1U) << relayed;
        (void)client.deliver(server.take(), now);
        EXPECT_TRUE(client.has_session(0, now));
    }
}

TEST(Device, AForgedCookieReplyIsRefused) {
    testing::Pair p;
    p.a.transmit(0, "x", p.now);
    const Bytes initiation = p.a.sent.front();
    SeededRandom r(5);
    HandshakeGate gate(r);
    gate.set_key(p.b.key.public_key());
    const CookieReply reply = gate.make_reply(initiation, source_of(1), p.now);
    const ByteSpan raw(reinterpret_cast<const uint8_t*>(&reply), sizeof reply);
    for (size_t bit = 8 * 4; bit < 8 * raw.size(); ++bit) {
        Bytes bad = to_bytes(raw);
        bad[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
        ASSERT_EQ(p.a.deliver(bad, p.now).kind, Opened::kDropped) << bit;
    }
    EXPECT_EQ(p.a.deliver(to_bytes(raw), p.now).kind, Opened::kHandshake);
}

}  // namespace
}  // namespace mesh::wg
