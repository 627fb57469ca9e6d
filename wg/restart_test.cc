// SPDX-License-Identifier: BSD-3-Clause
// Paths that come and go, restarts of either side, crossing initiations.
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
using testing::Restarted;
using testing::source_of;
using testing::times_of;
using testing::type_of;
using Opened = Device::Opened;

constexpr Duration kGrain = milliseconds(1);

TEST(Device, AFailedSendLeavesNoStampAndThePathBringsTheRetryAtOnce) {
    Pair p;
    p.a.path = false;
    p.a.transmit(0, "x", p.now);
    EXPECT_EQ(p.a.tries, 1);
    EXPECT_EQ(p.a.device.counters().initiations_sent, 0U);
    p.advance(milliseconds(50), false);
    p.a.path = true;
    p.a.device.path_appeared(0, p.now);
    ASSERT_EQ(p.a.sent.size(), 1U);
    p.a.device.path_appeared(0, p.now);  // nothing to repeat: that one left us
    EXPECT_EQ(p.a.sent.size(), 1U);
    p.settle();
    EXPECT_EQ(p.b.received, std::vector<std::string>{"x"});
}

TEST(Device, ANewPathEndsALongWait) {
    Pair p;
    p.a.transmit(0, "x", p.now);
    p.advance(seconds(20), false);
    p.a.forget_sent();
    p.a.device.path_appeared(0, p.now + milliseconds(300));
    EXPECT_EQ(p.a.sent.size(), 1U);
}

TEST(Device, WithoutPathItKeepsTryingNowAndThen) {
    Pair p;
    p.a.path = false;
    p.a.transmit(0, "x", p.now);
    p.advance(seconds(10), false);
    EXPECT_GE(p.a.tries, 7);
    EXPECT_LE(p.a.tries, 11);
    p.advance(seconds(100), false);
    EXPECT_FALSE(p.a.device.stats(0, p.now).handshake_pending);
}

TEST(Device, EarlyInitiationsComeQuicklyAndStopIfNobodyAnswers) {
    Pair p;
    p.a.device.initiate_early(0, p.now);
    p.advance(seconds(60), false);
    const auto t = times_of(p.a, kTypeInitiation);
    ASSERT_EQ(t.size(), 6U);
    EXPECT_LE(t[1], 250);
    EXPECT_LE(t[2], 600);
    EXPECT_LE(t[3], 1150);
    EXPECT_FALSE(p.a.device.stats(0, p.now).handshake_pending);
    EXPECT_EQ(p.a.device.counters().handshakes_given_up, 0U);
}

TEST(Device, TrafficDuringEarlyInitiationsMakesItAProperAttempt) {
    Pair p;
    p.a.device.initiate_early(0, p.now);
    p.advance(seconds(2), false);
    p.a.transmit(0, "x", p.now);
    p.advance(seconds(60), false);
    EXPECT_TRUE(p.a.device.stats(0, p.now).handshake_pending);
    p.a.forget_sent();
    p.advance(seconds(6), true);
    EXPECT_EQ(p.b.received, std::vector<std::string>{"x"});
}

TEST(Device, EarlyInitiationsOfManyPeersComeInSlices) {
    Node n(1);
    SeededRandom keys(9);
    for (PeerId id = 0; id < 300; ++id) n.device.add_peer(id, NodePrivate::generate(keys).public_key());
    for (PeerId id = 0; id < 300; ++id) n.device.initiate_early(id, kStart);
    size_t before = n.sent.size();
    EXPECT_LE(before, 32U);
    int turns = 0;
    while (n.sent.size() < 300 && turns < 100) {
        EXPECT_LE(n.device.next_timeout(), kStart);
        n.device.handle_timeout(kStart);
        EXPECT_LE(n.sent.size() - before, 16U);
        before = n.sent.size();
        ++turns;
    }
    EXPECT_EQ(n.sent.size(), 300U);
    EXPECT_GT(n.device.next_timeout(), kStart);
}

TEST(Device, JustStartedItTakesASilentSessionForDeadAfterOneAndAHalfSeconds) {
    Pair p;
    p.connect();
    p.a.transmit(0, "into the void", p.now);
    p.a.forget_sent();
    p.advance(milliseconds(1499), false);
    EXPECT_TRUE(p.a.sent.empty());
    p.advance(milliseconds(1), false);
    ASSERT_EQ(p.a.sent.size(), 1U);
    EXPECT_EQ(type_of(p.a.sent[0]), kTypeInitiation);
}

TEST(Device, ThatSuspicionIsLimitedToThreeTries) {
    Pair p;
    p.connect();
    // A sender of one-way traffic whose peer answers handshakes but no data: never within 12 s.
    for (int i = 0; i < 190; ++i) {
        p.a.transmit(0, "x", p.now);
        p.settle();
        p.advance(milliseconds(100));
    }
    EXPECT_LE(p.a.device.counters().initiations_sent, 5U);
    EXPECT_GE(p.a.device.counters().initiations_sent, 3U);
}

TEST(Device, DataOfAnUnknownSessionBringsAHandshakeButNotTooOften) {
    Pair p;
    p.connect();
    // `b` forgets everything, as if restarted, with the same key.
    Restarted fresh(p.b, p.a, seconds(5), p.now);
    p.a.transmit(0, "lost", p.now);
    const Bytes lost = p.a.take();
    EXPECT_EQ(fresh.deliver(lost, p.now).drop, DropReason::kUnknownIndex);
    for (int i = 0; i < 100; ++i) fresh.device.unknown_index_from(0, p.now);
    ASSERT_EQ(fresh.sent.size(), 1U);
    (void)p.a.deliver(fresh.take(), p.now);
    (void)fresh.deliver(p.a.take(), p.now);
    (void)p.a.deliver(fresh.take(), p.now);
    EXPECT_TRUE(fresh.has_session(0, p.now));
    p.a.transmit(0, "found", p.now);
    (void)fresh.deliver(p.a.take(), p.now);
    EXPECT_EQ(fresh.received, std::vector<std::string>{"found"});
    // From now on every handshake is answered, and still there are few.
    for (int ms = 0; ms < 20'000; ms += 100) {
        const Time t = p.now + milliseconds(ms);
        fresh.device.unknown_index_from(0, t);
        fresh.device.handle_timeout(t);
        while (!fresh.sent.empty()) (void)p.a.deliver(fresh.take(), t);
        while (!p.a.sent.empty()) (void)fresh.deliver(p.a.take(), t);
    }
    EXPECT_LE(fresh.device.counters().initiations_sent, 6U);
    EXPECT_GE(fresh.device.counters().initiations_sent, 3U);
}

TEST(Device, ALostConfirmationIsRepeatedWhenThePeerStillSendsByTheOldSession) {
    Pair p;
    p.connect();
    // `b` restarts; its new session with `a` stands, but the keepalive that says so is lost.
    Restarted fresh(p.b, p.a, seconds(5), p.now);
    fresh.transmit(0, "x", p.now);
    (void)p.a.deliver(fresh.take(), p.now);
    (void)fresh.deliver(p.a.take(), p.now);
    ASSERT_TRUE(fresh.has_session(0, p.now));
    fresh.forget_sent();

    const auto old_index = [&](Duration after) {
        p.a.transmit(0, "by the old session", p.now + after);
        const bool unknown = fresh.deliver(p.a.take(), p.now + after).drop == DropReason::kUnknownIndex;
        if (unknown) fresh.device.unknown_index_from(0, p.now + after);
        return unknown;
    };
    EXPECT_TRUE(old_index(milliseconds(100)));  // what was on its way
    EXPECT_TRUE(fresh.sent.empty());
    EXPECT_TRUE(old_index(milliseconds(300)));
    ASSERT_EQ(fresh.sent.size(), 1U);
    EXPECT_EQ(fresh.sent[0].size(), kDataOverhead);
    EXPECT_TRUE(old_index(milliseconds(400)));  // often, but not for each
    EXPECT_TRUE(old_index(milliseconds(600)));
    ASSERT_EQ(fresh.sent.size(), 2U);
    fresh.take();  // this one is lost as well
    (void)p.a.deliver(fresh.take(), p.now + milliseconds(610));
    EXPECT_FALSE(old_index(milliseconds(700)));
    EXPECT_EQ(fresh.received, std::vector<std::string>{"by the old session"});
    // A session that is known to work is not confirmed again.
    for (int i = 0; i < 100; ++i) fresh.device.unknown_index_from(0, p.now + milliseconds(900 + i));
    EXPECT_TRUE(fresh.sent.empty());
}

TEST(Device, APeersRestartKeepsTheKeysForReceivingAndInitiatesAtOnce) {
    Pair p;
    p.connect();
    p.b.transmit(0, "in flight", p.now);
    const Bytes in_flight = p.b.take();
    p.advance(seconds(5), false);
    p.a.forget_sent();
    p.a.device.peer_restarted(0, p.now);
    ASSERT_EQ(p.a.sent.size(), 1U);
    EXPECT_EQ(type_of(p.a.sent[0]), kTypeInitiation);
    EXPECT_EQ(p.a.deliver(in_flight, p.now).kind, Opened::kData);
    p.settle();
    EXPECT_LT(p.a.device.stats(0, p.now).session_age, seconds(1));
}

TEST(Device, APeersRestartWithoutRecentTrafficCostsNothing) {
    Pair p;
    p.a.device.peer_restarted(0, p.now);
    EXPECT_TRUE(p.a.sent.empty());
    p.connect();
    p.advance(seconds(300));
    p.a.forget_sent();
    p.a.device.peer_restarted(0, p.now);
    EXPECT_TRUE(p.a.sent.empty());
}

TEST(Device, ASessionThePeerMadeAfterItsRestartIsNotQuestioned) {
    Pair p;
    p.connect();  // b is the responder
    p.b.forget_sent();
    p.b.device.peer_restarted(0, p.now + milliseconds(200));
    EXPECT_TRUE(p.b.sent.empty());
}

TEST(Device, AfterAPeersRestartAnEarlierStampIsAccepted) {
    Pair p;
    p.connect();  // b knows a stamp of a
    Restarted fresh(p.a, p.b, seconds(-86'400), p.now);
    fresh.transmit(0, "x", p.now);
    EXPECT_EQ(p.b.deliver(fresh.sent.front(), p.now + seconds(3)).drop, DropReason::kReplayedStamp);
    p.b.device.peer_restarted(0, p.now + seconds(3));
    EXPECT_NE(p.b.deliver(fresh.sent.front(), p.now + seconds(4)).kind, Opened::kDropped);
}

TEST(Device, APeerWhoseClockWentBackGetsInThoughWeKeepCallingIt) {
    CalmPair p;
    p.b.device.set_wall_clock(kWallStart + seconds(86'400), p.now);
    p.b.transmit(0, "x", p.now);
    p.settle();
    ASSERT_TRUE(p.a.has_session(0, p.now));
    Node fresh(99, p.now);  // b again, with its clock right; what we send does not reach it
    fresh.device.set_private_key(p.b.key, p.now);
    fresh.device.add_peer(0, p.a.key.public_key());
    const Time began = p.now;
    while (!fresh.has_session(0, p.now) && p.now - began < seconds(1200)) {
        p.now = p.now + seconds(5);
        for (Node* n : {&p.a, &fresh}) {
            n->device.handle_timeout(p.now);
            n->transmit(0, "anybody there?", p.now);
        }
        p.a.forget_sent();
        while (!fresh.sent.empty()) (void)p.a.deliver(fresh.take(), p.now);
        while (!p.a.sent.empty()) (void)fresh.deliver(p.a.take(), p.now);
    }
    EXPECT_TRUE(fresh.has_session(0, p.now));
    EXPECT_GT(p.now - began, seconds(500)) << "replays of old initiations stay refused as long as sessions could live";
    EXPECT_LT(p.now - began, seconds(600));
}

TEST(Device, RetriedInitiationsCarryGrowingStampsInOneInstant) {
    Pair p;
    p.a.transmit(0, "x", p.now);
    const Bytes one = p.a.take();
    Node& a = p.a;
    a.device.set_wall_clock(kWallStart + seconds(-3600), p.now);  // the clock jumps back
    p.advance(milliseconds(900), false);
    const Bytes two = a.take();
    a.device.set_wall_clock(kWallStart + seconds(300'000'000), p.now);  // and years ahead
    p.advance(milliseconds(900), false);
    const Bytes three = a.take();
    a.device.set_wall_clock(kWallStart + seconds(3), p.now);  // and is right again
    p.advance(milliseconds(2000), false);
    const Bytes four = a.take();
    Time t = p.now;
    for (const Bytes& m : {one, two, three, four}) {
        ASSERT_EQ(m.size(), sizeof(Initiation));
        EXPECT_EQ(p.b.deliver(m, t).kind, Opened::kHandshake);
        t = t + milliseconds(25);
    }
    EXPECT_GT(a.device.last_timestamp(), static_cast<uint64_t>(kWallStart.unix_ns) + 299'000'000ULL * 1'000'000'000ULL);
}

TEST(Device, ARestartWithThePersistedFloorIsAcceptedThoughTheClockIsBehind) {
    Pair p;
    p.connect();
    const uint64_t persisted = p.a.device.last_timestamp();
    EXPECT_GE(persisted, granule_of(static_cast<uint64_t>(kWallStart.unix_ns)));
    Node again(55);
    again.device.set_private_key(p.a.key, p.now);
    again.device.set_wall_clock(WallTime{1'000'000'000}, p.now);  // 1970
    again.device.add_peer(0, p.b.key.public_key());
    again.transmit(0, "refused", p.now);
    EXPECT_EQ(p.b.deliver(again.take(), p.now + seconds(1)).drop, DropReason::kReplayedStamp);
    again.device.set_timestamp_floor(persisted);
    again.device.remove_peer(0);
    again.device.add_peer(0, p.b.key.public_key());
    again.transmit(0, "accepted", p.now);
    EXPECT_EQ(p.b.deliver(again.take(), p.now + seconds(1)).kind, Opened::kHandshake);
}

TEST(Device, AHandshakeEndsTheSuspicionOfASilentSession) {
    CalmPair p;
    p.connect();
    p.a.transmit(0, "lost", p.now);
    p.a.forget_sent();
    p.advance(seconds(5), false);
    p.b.forget_sent();
    p.a.device.unknown_index_from(0, p.now);
    p.settle();
    ASSERT_EQ(p.a.device.counters().initiations_sent, 2U);
    p.advance(seconds(60));
    EXPECT_EQ(p.a.device.counters().initiations_sent, 2U);
}

TEST(Device, APeerThatIsRemovedAndComesBackStillGetsLaterStamps) {
    Pair p;
    p.connect();
    p.a.device.remove_peer(0);
    p.a.device.add_peer(0, p.b.key.public_key());
    p.a.device.set_wall_clock(kWallStart + seconds(-3600), p.now);
    p.a.transmit(0, "x", p.now);
    EXPECT_EQ(p.b.deliver(p.a.take(), p.now + seconds(1)).kind, Opened::kHandshake);
}

/// Two that initiated at the same moment; `small` has the smaller key.
struct Crossed : CalmPair {
    Crossed() : small(a.key.public_key() < b.key.public_key() ? a : b), large(&small == &a ? b : a) {
        a.transmit(0, "from a", now);
        b.transmit(0, "from b", now);
    }
    Node& small;
    Node& large;
};

TEST(Device, WhileItsOwnInitiationIsYoungAReceivedOneWaits) {
    for (const bool smaller : {true, false}) {
        Crossed p;
        Node& n = smaller ? p.small : p.large;
        Node& other = smaller ? p.large : p.small;
        n.forget_sent();  // ours is lost
        EXPECT_EQ(n.deliver(other.take(), p.now).kind, Opened::kHandshake);
        EXPECT_TRUE(n.sent.empty());
        const Duration wait = milliseconds(smaller ? 300 : 100);
        EXPECT_EQ(n.device.next_timeout(), p.now + wait);
        n.device.handle_timeout(p.now + wait - kGrain);
        EXPECT_TRUE(n.sent.empty());
        n.device.handle_timeout(p.now + wait);
        ASSERT_EQ(n.sent.size(), 1U);
        EXPECT_EQ(type_of(n.sent[0]), kTypeResponse);
        p.settle();
        EXPECT_TRUE(p.a.has_session(0, p.now));
        EXPECT_TRUE(p.b.has_session(0, p.now));
        EXPECT_EQ(p.a.device.counters().sessions + p.b.device.counters().sessions, 2U);
    }
}

TEST(Device, AResponseToOursMakesTheWaitingInitiationMoot) {
    Crossed p;
    const Bytes ours = p.small.take();
    EXPECT_EQ(p.small.deliver(p.large.take(), p.now).kind, Opened::kHandshake);
    EXPECT_EQ(p.large.deliver(ours, p.now).kind, Opened::kHandshake);
    p.now = p.now + milliseconds(100);
    p.large.device.handle_timeout(p.now);  // gives in first
    p.settle();
    EXPECT_EQ(p.a.received, std::vector<std::string>{"from b"});
    EXPECT_EQ(p.b.received, std::vector<std::string>{"from a"});
    p.advance(seconds(2));
    EXPECT_EQ(p.small.device.counters().responses_sent, 0U);
    EXPECT_EQ(p.small.device.counters().initiations_sent, 1U);
    EXPECT_EQ(p.large.device.counters().initiations_sent, 1U);
}

TEST(Device, AfterAnOldInitiationBothHandshakesMaySucceedAndBothSessionsOpen) {
    CalmPair p;
    p.a.transmit(0, "from a", p.now);
    const Bytes slow = p.a.take();
    p.now = p.now + milliseconds(500);
    p.b.transmit(0, "from b", p.now);
    EXPECT_EQ(p.a.deliver(p.b.take(), p.now).kind, Opened::kHandshake);  // answered: ours is not young any more
    const Bytes answer_of_a = p.a.take();
    p.now = p.now + milliseconds(400);
    EXPECT_EQ(p.b.deliver(slow, p.now).kind, Opened::kHandshake);
    const Bytes answer_of_b = p.b.take();
    // Both responses cross as well.
    EXPECT_EQ(p.b.deliver(answer_of_a, p.now).kind, Opened::kHandshake);
    EXPECT_EQ(p.a.deliver(answer_of_b, p.now).kind, Opened::kHandshake);
    p.settle();
    EXPECT_EQ(p.a.received, std::vector<std::string>{"from b"});
    EXPECT_EQ(p.b.received, std::vector<std::string>{"from a"});
    for (int i = 0; i < 5; ++i) {
        p.a.transmit(0, "a", p.now);
        p.b.transmit(0, "b", p.now);
        p.settle();
    }
    EXPECT_EQ(p.a.received.size(), 6U);
    EXPECT_EQ(p.b.received.size(), 6U);
}

TEST(Device, APathThatAppearsInsideACallbackSendsNothingBetweenMessageAndAnswer) {
    struct Eager : Node {
        using Node::Node;
        void authenticated(PeerId peer, const Source& from, Time now) override {
            path = true;
            device.path_appeared(peer, now);
            Node::authenticated(peer, from, now);
        }
    };
    Node a(1);
    Eager b(2);
    a.device.add_peer(0, b.key.public_key());
    b.device.add_peer(0, a.key.public_key());
    b.path = false;
    b.transmit(0, "from b", kStart);
    a.transmit(0, "from a", kStart);
    (void)b.deliver(a.take(), kStart);
    b.device.handle_timeout(kStart);
    ASSERT_EQ(b.sent.size(), 1U);
    EXPECT_EQ(type_of(b.sent[0]), kTypeResponse);
}

}  // namespace
}  // namespace mesh::wg
