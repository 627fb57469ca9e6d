// SPDX-License-Identifier: BSD-3-Clause
#include "wg/device.h"

#include <gtest/gtest.h>

#include "wg/testing.h"

namespace mesh::wg {
namespace {

using testing::CalmPair;
using testing::kStart;
using testing::kWallStart;
using testing::Node;
using testing::Pair;
using testing::source_of;
using testing::times_of;
using testing::type_of;
using Opened = Device::Opened;

constexpr Duration kGrain = milliseconds(1);

TEST(Device, StagesHandshakesAndDelivers) {
    Pair p;
    p.a.transmit(0, "hello", p.now);
    ASSERT_EQ(p.a.sent.size(), 1U);
    EXPECT_EQ(p.a.sent[0].size(), sizeof(Initiation));
    EXPECT_TRUE(p.a.device.stats(0, p.now).handshake_pending);
    p.settle();
    EXPECT_EQ(p.b.received, std::vector<std::string>{"hello"});
    p.b.transmit(0, "back", p.now);
    p.settle();
    EXPECT_EQ(p.a.received, std::vector<std::string>{"back"});
    EXPECT_TRUE(p.a.has_session(0, p.now));
    EXPECT_TRUE(p.b.has_session(0, p.now));
    EXPECT_EQ(p.a.device.stats(0, p.now).last_handshake, kWallStart);
    EXPECT_FALSE(p.a.device.stats(0, p.now).handshake_pending);
    EXPECT_GT(p.a.device.stats(0, p.now).rx_bytes, 0U);
    EXPECT_EQ(p.a.ready, 1);
    EXPECT_EQ(p.b.ready, 1);
}

TEST(Device, ResponderSendsNothingBeforeTheInitiatorsFirstMessage) {
    Pair p;
    p.a.transmit(0, "x", p.now);
    (void)p.b.deliver(p.a.take(), p.now);
    EXPECT_EQ(p.b.device.send_session(0, p.now), nullptr);
    p.b.transmit(0, "waits", p.now);
    ASSERT_EQ(p.b.sent.size(), 1U);  // the response alone, and no crossing initiation
    EXPECT_EQ(type_of(p.b.sent[0]), kTypeResponse);
    p.settle();
    EXPECT_EQ(p.a.received, std::vector<std::string>{"waits"});
}

TEST(Device, InitiatorConfirmsAtOnceWithAKeepaliveIfNothingWaits) {
    Pair p;
    p.a.device.initiate_early(0, p.now);
    (void)p.b.deliver(p.a.take(), p.now);
    (void)p.a.deliver(p.b.take(), p.now);
    ASSERT_EQ(p.a.sent.size(), 1U);
    EXPECT_EQ(p.a.sent[0].size(), kDataOverhead);
    EXPECT_EQ(p.b.deliver(p.a.take(), p.now).kind, Opened::kKeepalive);
    EXPECT_TRUE(p.b.has_session(0, p.now));
}

TEST(Device, TellsWhereAuthenticMessagesCameFromBeforeItAnswers) {
    Pair p;
    p.a.transmit(0, "x", p.now);
    (void)p.b.deliver(p.a.take(), p.now, source_of(7));
    ASSERT_EQ(p.b.authenticated_from.size(), 1U);
    EXPECT_EQ(p.b.authenticated_from[0].udp, source_of(7).udp);
    (void)p.a.deliver(p.b.take(), p.now, source_of(8));
    ASSERT_EQ(p.a.authenticated_from.size(), 1U);
    EXPECT_EQ(p.a.authenticated_from[0].udp, source_of(8).udp);
    (void)p.b.deliver(p.a.take(), p.now, source_of(9));
    ASSERT_EQ(p.b.authenticated_from.size(), 2U);
    EXPECT_EQ(p.b.authenticated_from[1].udp, source_of(9).udp);
}

TEST(Device, RetriesSoonThenBacksOffAndGivesUpAfterNinetySeconds) {
    Pair p;
    p.a.transmit(0, "x", p.now);
    p.advance(seconds(200), false);
    const auto t = times_of(p.a, kTypeInitiation);
    ASSERT_GE(t.size(), 18U);
    const std::vector<int64_t> want = {0, 800, 800, 1600, 3200};
    int64_t at = 0;
    for (size_t i = 0; i < t.size(); ++i) {
        const int64_t step = i < want.size() ? want[i] : 5000;
        EXPECT_GE(t[i] - at, step);
        EXPECT_LE(t[i] - at, step + (i == 0 ? 0 : 334));
        at = t[i];
    }
    EXPECT_LT(t.back(), 90'000);
    EXPECT_FALSE(p.a.device.stats(0, p.now).handshake_pending);
    EXPECT_EQ(p.a.device.counters().handshakes_given_up, 1U);
    EXPECT_EQ(p.a.device.counters().staged_dropped, 1U);
    // New traffic begins anew.
    p.a.forget_sent();
    p.a.transmit(0, "y", p.now);
    EXPECT_EQ(p.a.sent.size(), 1U);
}

TEST(Device, InitiatorRekeysAt120SecondsWhileItSends) {
    CalmPair p;
    p.connect();
    for (int i = 0; i < 119; ++i) {
        p.advance(seconds(1));
        p.a.transmit(0, "tick", p.now);
        p.b.transmit(0, "tock", p.now);
        p.settle();
    }
    EXPECT_EQ(p.a.device.counters().initiations_sent, 1U);
    p.advance(seconds(2));
    p.b.transmit(0, "the responder does not", p.now);
    p.settle();
    EXPECT_EQ(p.b.device.counters().initiations_sent, 0U);
    p.a.transmit(0, "the initiator does", p.now);
    p.settle();
    EXPECT_EQ(p.a.device.counters().initiations_sent, 2U);
    EXPECT_LT(p.a.device.stats(0, p.now).session_age, seconds(1));
    EXPECT_EQ(p.b.received.back(), "the initiator does");
    EXPECT_EQ(p.b.device.counters().initiations_sent, 0U);
}

TEST(Device, RekeysAfterTwoToTheSixtyMessages) {
    Pair p;
    p.connect();
    p.b.device.send_session(0, p.now)->skip_to_counter(kRekeyAfterMessages + 1);
    p.b.transmit(0, "x", p.now);
    p.settle();
    EXPECT_EQ(p.b.device.counters().initiations_sent, 1U);
    EXPECT_EQ(p.a.received.back(), "x");
}

TEST(Device, ASessionSendsNothingAfter180Seconds) {
    CalmPair p;
    p.connect();
    p.advance(seconds(180) - kGrain, false);
    EXPECT_NE(p.b.device.send_session(0, p.now), nullptr);
    p.advance(kGrain, false);
    EXPECT_EQ(p.b.device.send_session(0, p.now), nullptr);
    p.a.forget_sent();
    p.b.forget_sent();
    p.b.transmit(0, "needs a new one", p.now);
    ASSERT_EQ(p.b.sent.size(), 1U);
    EXPECT_EQ(type_of(p.b.sent[0]), kTypeInitiation);
    p.settle();
    EXPECT_EQ(p.a.received.back(), "needs a new one");
}

TEST(Device, ASessionOpensNothingAfter180Seconds) {
    CalmPair p;
    p.connect();
    p.a.transmit(0, "late", p.now);
    const Bytes late = p.a.take();
    p.advance(seconds(180) + kGrain, false);
    EXPECT_EQ(p.b.deliver(late, p.now).drop, DropReason::kExpired);
}

TEST(Device, AReceivingInitiatorRekeysAt165SecondsOnce) {
    CalmPair p;
    p.connect();
    p.advance(seconds(164));
    p.b.transmit(0, "x", p.now);
    p.settle();
    EXPECT_EQ(p.a.device.counters().initiations_sent, 1U);
    p.advance(seconds(2));
    p.b.transmit(0, "y", p.now);
    (void)p.a.deliver(p.b.take(), p.now);
    EXPECT_EQ(p.a.device.counters().initiations_sent, 2U);
    p.settle();
    p.b.transmit(0, "z", p.now);
    p.settle();
    EXPECT_EQ(p.a.device.counters().initiations_sent, 2U);
}

TEST(Device, AnswersOneSidedTrafficWithAKeepaliveAfterTenSeconds) {
    CalmPair p;
    p.connect();
    p.b.transmit(0, "quiet", p.now);
    p.settle();
    p.a.transmit(0, "one", p.now);
    (void)p.b.deliver(p.a.take(), p.now);
    p.advance(seconds(10) - kGrain, false);
    EXPECT_TRUE(p.b.sent.empty());
    p.advance(kGrain, false);
    ASSERT_EQ(p.b.sent.size(), 1U);
    EXPECT_EQ(p.a.deliver(p.b.take(), p.now).kind, Opened::kKeepalive);
    // A keepalive is not answered.
    p.advance(seconds(60), false);
    EXPECT_TRUE(p.a.sent.empty());
    EXPECT_TRUE(p.b.sent.empty());
}

TEST(Device, SendsOneMoreKeepaliveIfMoreCameMeanwhile) {
    CalmPair p;
    p.connect();
    p.b.forget_sent();
    p.a.transmit(0, "one", p.now);
    p.a.transmit(0, "two", p.now);
    (void)p.b.deliver(p.a.take(), p.now);
    (void)p.b.deliver(p.a.take(), p.now);
    p.advance(seconds(60), false);
    EXPECT_EQ(times_of(p.b, kTypeTransport).size(), 2U);
}

TEST(Device, DataOfOursCancelsTheKeepalive) {
    CalmPair p;
    p.connect();
    p.a.transmit(0, "one", p.now);
    p.settle();
    p.b.transmit(0, "reply", p.now);
    p.settle();
    const auto tx = p.b.device.stats(0, p.now).tx_bytes;
    p.advance(seconds(9));
    EXPECT_EQ(p.b.device.stats(0, p.now).tx_bytes, tx);
}

TEST(Device, UnansweredDataBringsANewHandshakeAfterFifteenSeconds) {
    CalmPair p;
    p.connect();
    p.a.transmit(0, "ping", p.now);
    p.settle();
    p.b.transmit(0, "pong", p.now);
    p.settle();
    p.a.forget_sent();
    p.a.transmit(0, "into the void", p.now);
    p.a.forget_sent();
    p.advance(seconds(15) - kGrain, false);
    p.b.forget_sent();
    EXPECT_TRUE(times_of(p.a, kTypeInitiation).empty());
    p.advance(milliseconds(335), false);
    EXPECT_EQ(times_of(p.a, kTypeInitiation).size(), 1U);
}

TEST(Device, ReplayedAndStaleInitiationsAreRefused) {
    Pair p;
    p.a.transmit(0, "x", p.now);
    const Bytes first = p.a.sent.front();
    p.settle();
    EXPECT_EQ(p.b.deliver(first, p.now + seconds(1)).drop, DropReason::kReplayedStamp);
    EXPECT_EQ(p.b.deliver(first, p.now + seconds(1)).peer, 0U);
    p.b.device.peer_restarted(0, p.now + seconds(30));
    p.b.forget_sent();
    EXPECT_EQ(p.b.deliver(first, p.now + seconds(40)).kind, Opened::kHandshake);
}

TEST(Device, InitiationsOfOnePeerWithinTwentyMillisecondsAreAFlood) {
    Pair p;
    Node twin(77);
    twin.device.set_private_key(p.a.key, p.now);
    twin.device.set_wall_clock(kWallStart + seconds(10), p.now);
    twin.device.add_peer(0, p.b.key.public_key());
    p.a.transmit(0, "x", p.now);
    twin.transmit(0, "x", p.now);
    EXPECT_EQ(p.b.deliver(p.a.take(), p.now).kind, Opened::kHandshake);
    EXPECT_EQ(p.b.deliver(twin.sent.front(), p.now + milliseconds(20)).drop, DropReason::kFlood);
    EXPECT_EQ(p.b.deliver(twin.sent.front(), p.now + milliseconds(21)).kind, Opened::kHandshake);
}

TEST(Device, StagedPacketsAreBoundedAndTheOldestGoFirst) {
    Pair p;
    p.a.path = false;
    for (int i = 0; i < 200; ++i) p.a.transmit(0, std::to_string(i), p.now);
    EXPECT_EQ(p.a.device.counters().staged_dropped, 72U);
    p.a.path = true;
    p.a.device.path_appeared(0, p.now);
    p.settle();
    ASSERT_EQ(p.b.received.size(), 128U);
    EXPECT_EQ(p.b.received.front(), "72");
    EXPECT_EQ(p.b.received.back(), "199");
}

TEST(Device, StagedBytesAreBoundedPerPeerAndAltogether) {
    Node n(1);
    n.path = false;
    SeededRandom keys(9);
    const Bytes big(65'000, 1);
    for (PeerId id = 0; id < 60; ++id) {
        n.device.add_peer(id, NodePrivate::generate(keys).public_key());
        for (int i = 0; i < 6; ++i) n.device.stage(id, big, kStart);
    }
    size_t total = 0;
    Bytes out;
    for (PeerId id = 0; id < 60; ++id) {
        size_t mine = 0;
        while (n.device.take_staged(id, out)) mine += out.size();
        EXPECT_LE(mine, 256U * 1024);
        total += mine;
    }
    EXPECT_LE(total, 8U * 1024 * 1024);
    EXPECT_GT(total, 7U * 1024 * 1024);
    n.device.stage(0, Bytes(300'000), kStart);
    EXPECT_FALSE(n.device.take_staged(0, out));
}

TEST(Device, StateGoes540SecondsAfterTheLastSession) {
    CalmPair p;
    p.connect();
    p.advance(seconds(539));
    EXPECT_FALSE(p.a.device.next_timeout().is_never());
    p.advance(seconds(2));
    EXPECT_TRUE(p.a.device.next_timeout().is_never());
    EXPECT_TRUE(p.b.device.next_timeout().is_never());
    EXPECT_TRUE(p.a.device.has_peer(0));
    EXPECT_GT(p.a.device.stats(0, p.now).tx_bytes, 0U);
    p.a.transmit(0, "again", p.now);
    p.settle();
    EXPECT_EQ(p.b.received.back(), "again");
}

TEST(Device, ALostKeyEndsEverythingAndTheSameKeyNothing) {
    Pair p;
    p.connect();
    p.a.device.set_private_key(p.a.key, p.now);
    EXPECT_TRUE(p.a.has_session(0, p.now));
    p.b.transmit(0, "x", p.now);
    const Bytes late = p.b.take();
    p.a.device.set_private_key(NodePrivate{}, p.now);
    EXPECT_FALSE(p.a.has_session(0, p.now));
    EXPECT_EQ(p.a.deliver(late, p.now).drop, DropReason::kNoKey);
    p.a.transmit(0, "nothing happens", p.now);
    p.a.device.initiate_early(0, p.now);
    p.a.device.unknown_index_from(0, p.now);
    EXPECT_TRUE(p.a.sent.empty());
    EXPECT_TRUE(p.a.device.next_timeout().is_never());
}

TEST(Device, RemovedPeersAreGoneAndUnknownOnesIgnored) {
    Pair p;
    p.connect();
    p.a.transmit(0, "x", p.now);
    const Bytes data = p.a.take();
    p.b.device.remove_peer(0);
    EXPECT_EQ(p.b.deliver(data, p.now).drop, DropReason::kUnknownIndex);
    EXPECT_FALSE(p.b.device.has_peer(0));
    p.a.device.remove_peer(0);
    p.a.device.add_peer(0, p.b.key.public_key());
    p.a.transmit(0, "y", p.now);
    EXPECT_EQ(p.b.deliver(p.a.take(), p.now).drop, DropReason::kUnknownPeer);
    for (const PeerId id : {PeerId{5}, kNoPeer}) {
        EXPECT_EQ(p.a.device.send_session(id, p.now), nullptr);
        p.a.device.sent_data(id, 1, p.now);
        p.a.device.received_data(id, 1, p.now);
        p.a.device.stage(id, as_bytes("x"), p.now);
        p.a.device.path_appeared(id, p.now);
        p.a.device.peer_restarted(id, p.now);
        p.a.device.initiate_early(id, p.now);
        p.a.device.unknown_index_from(id, p.now);
        p.a.device.remove_peer(id);
    }
}

TEST(Device, AReplacedKeyUnderTheSameIdForgetsTheOldPeer) {
    Pair p;
    p.connect();
    SeededRandom r(4);
    p.a.device.add_peer(0, NodePrivate::generate(r).public_key());
    EXPECT_FALSE(p.a.has_session(0, p.now));
    p.b.transmit(0, "x", p.now);
    EXPECT_EQ(p.a.deliver(p.b.take(), p.now).drop, DropReason::kUnknownIndex);
}

TEST(Device, MalformedMessagesAreDropped) {
    Pair p;
    p.a.transmit(0, "x", p.now);
    const Bytes good = p.a.take();
    for (size_t n = 0; n < 200; ++n) {
        if (n == good.size()) continue;
        Bytes cut = good;
        cut.resize(n);
        ASSERT_EQ(p.b.deliver(cut, p.now).drop, DropReason::kMalformed) << n;
    }
    for (size_t i = 0; i < 4; ++i) {
        Bytes bad = good;
        bad[i] ^= 0x80;
        ASSERT_NE(p.b.deliver(bad, p.now).kind, Opened::kHandshake);
    }
    Bytes bad = good;
    bad[20] ^= 1;
    EXPECT_EQ(p.b.deliver(bad, p.now).drop, DropReason::kBadMac);
    EXPECT_TRUE(p.b.sent.empty());
    EXPECT_TRUE(p.b.replies.empty());
    EXPECT_EQ(p.b.deliver(good, p.now).kind, Opened::kHandshake);
}

TEST(Device, NoMutatedDatagramOfAnyKindIsAccepted) {
    Pair p;
    p.a.transmit(0, "x", p.now);
    const Bytes initiation = p.a.sent.front();
    const auto refused = [&](Node& n, const Bytes& good, size_t end) {
        for (size_t bit = 0; bit < end * 8; ++bit) {
            Bytes bad = good;
            bad[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
            ASSERT_EQ(n.deliver(bad, p.now).kind, Opened::kDropped) << bit;
        }
    };
    refused(p.b, initiation, sizeof(Initiation) - kMac);  // mac2 is not looked at without load
    (void)p.b.deliver(p.a.take(), p.now);
    const Bytes response = p.b.sent.front();
    refused(p.a, response, sizeof(Response) - kMac);
    (void)p.a.deliver(p.b.take(), p.now);
    ASSERT_TRUE(p.a.has_session(0, p.now));
    const Bytes data = p.a.sent.front();
    refused(p.b, data, data.size());
    p.settle();
    EXPECT_EQ(p.b.received, std::vector<std::string>{"x"});
}

TEST(Device, AReplayedResponseOrDatagramIsRefused) {
    Pair p;
    p.a.transmit(0, "x", p.now);
    (void)p.b.deliver(p.a.take(), p.now);
    const Bytes response = p.b.sent.front();
    (void)p.a.deliver(p.b.take(), p.now);
    EXPECT_EQ(p.a.deliver(response, p.now).drop, DropReason::kUnknownIndex);
    const Bytes data = p.a.sent.front();
    p.settle();
    EXPECT_EQ(p.b.deliver(data, p.now).drop, DropReason::kReplayed);
    EXPECT_EQ(p.b.received.size(), 1U);
}

TEST(Device, DataOfThePreviousSessionIsStillOpenedAfterARekey) {
    CalmPair p;
    p.connect();
    p.a.transmit(0, "old", p.now);
    const Bytes old = p.a.take();
    p.advance(seconds(121));
    p.a.transmit(0, "rekey", p.now);
    p.settle();
    EXPECT_LT(p.b.device.stats(0, p.now).session_age, seconds(1));
    EXPECT_EQ(p.b.deliver(old, p.now).kind, Opened::kData);
    EXPECT_EQ(p.b.received.back(), "old");
}

TEST(Device, ALostResponseDuringRekeyDoesNotDisturbTheTraffic) {
    CalmPair p;
    p.connect();
    p.advance(seconds(121));
    p.a.transmit(0, "x", p.now);
    for (int i = 0; i < 20; ++i) {
        // Responses are lost, data is not.
        while (!p.a.sent.empty()) (void)p.b.deliver(p.a.take(), p.now);
        while (!p.b.sent.empty()) {
            const Bytes m = p.b.take();
            if (type_of(m) != kTypeResponse) (void)p.a.deliver(m, p.now);
        }
        p.a.transmit(0, "a", p.now);
        p.b.transmit(0, "b", p.now);
        p.advance(milliseconds(500), false);
    }
    EXPECT_GE(p.b.received.size(), 20U);
    EXPECT_GE(p.a.received.size(), 19U);
}

}  // namespace
}  // namespace mesh::wg
