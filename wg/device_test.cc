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
using testing::type_of;
using Opened = Device::Opened;

constexpr Duration kGrain = milliseconds(1);

/// Relative send times of `n`'s datagrams of one type, in ms.
std::vector<int64_t> times_of(const Node& n, uint32_t type) {
    std::vector<int64_t> out;
    for (size_t i = 0; i < n.sent.size(); ++i)
        if (type_of(n.sent[i]) == type) out.push_back((n.sent_at[i] - kStart).millis());
    return out;
}

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
    Node fresh(99);
    fresh.device.set_private_key(p.b.key, p.now);
    fresh.device.set_wall_clock(kWallStart + seconds(5), p.now);
    fresh.device.add_peer(0, p.a.key.public_key());
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
    for (int ms = 0; ms < 20'000; ms += 100) fresh.device.unknown_index_from(0, p.now + milliseconds(ms));
    EXPECT_LE(fresh.sent.size(), 5U);
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
    Node fresh(99);
    fresh.device.set_private_key(p.a.key, p.now);
    fresh.device.set_wall_clock(kWallStart + seconds(-86'400), p.now);
    fresh.device.add_peer(0, p.b.key.public_key());
    fresh.transmit(0, "x", p.now);
    EXPECT_EQ(p.b.deliver(fresh.sent.front(), p.now + seconds(3)).drop, DropReason::kReplayedStamp);
    p.b.device.peer_restarted(0, p.now + seconds(3));
    EXPECT_NE(p.b.deliver(fresh.sent.front(), p.now + seconds(4)).kind, Opened::kDropped);
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
