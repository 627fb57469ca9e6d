// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/path/peer_paths.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace mesh::magicsock {
namespace {

Endpoint ep(int host, uint16_t port = 41641) {
    return {Addr::v4(203, 0, 113, static_cast<uint8_t>(host)), port};
}
disco::TxId tx(uint8_t n) {
    disco::TxId t{};
    t[0] = n;
    t[1] = 1;
    return t;
}

// Drives one PeerPaths and keeps what it asks for.
struct Bench {
    SeededRandom random{1};
    Time now{seconds(1000).ns};
    PeerPaths paths{random, now};
    Todo todo;
    std::vector<std::pair<Time, Todo::Probe>> pings;
    std::vector<Time> calls;
    int changes = 0;
    bool auto_pong = false;  // every address answers at once

    void drain() {
        Todo t = todo;
        todo.clear();
        for (const auto& p : t.probes) pings.emplace_back(now, p);
        if (t.call_me_maybe) {
            calls.push_back(now);
            paths.call_me_maybe_sent(now);
        }
        if (t.path_changed) ++changes;
        if (!auto_pong) return;
        for (const auto& p : t.probes) {
            now = now + milliseconds(1);
            paths.heard_pong(p.tx, now, todo);
        }
        if (!todo.empty()) drain();
    }
    void candidates(int n) {
        std::vector<Endpoint> v;
        for (int i = 1; i <= n; ++i) v.push_back(ep(i));
        paths.set_netmap(v, now, todo);
        drain();
    }
    void send() {
        paths.note_sent(now, todo);
        drain();
    }
    void advance(Duration d) {
        const Time end = now + d;
        int turns = 0;
        while (paths.next_timeout() <= end) {
            now = max(now, paths.next_timeout());
            paths.handle_timeout(now, todo);
            drain();
            ASSERT_LT(++turns, 10000) << "the timer does not advance";
        }
        now = max(now, end);
    }
    // A send every 100 ms; everything sent to the best address is answered while `answered`.
    void traffic(Duration d, bool answered) {
        for (const Time end = now + d; now < end;) {
            send();
            if (answered) paths.note_received(paths.best(), now);
            advance(milliseconds(100));
        }
    }
    size_t pings_to(const Endpoint& e) const {
        return static_cast<size_t>(
            std::count_if(pings.begin(), pings.end(), [&](const auto& p) { return p.second.to == e; }));
    }
    // Proves an address: pings it by a send and answers.
    void prove(int host, Duration rtt = milliseconds(10)) {
        send();
        const auto it = std::find_if(pings.rbegin(), pings.rend(), [&](const auto& p) { return p.second.to == ep(host); });
        ASSERT_NE(it, pings.rend());
        const disco::TxId id = it->second.tx;
        now = now + rtt;
        ASSERT_TRUE(paths.heard_pong(id, now, todo).has_value());
        drain();
        pings.clear();
        calls.clear();
        changes = 0;
    }
    bool has_event(PathEvent::Kind k) const {
        PeerPathStatus s;
        paths.fill(s, now);
        return std::any_of(s.events.begin(), s.events.end(), [&](const PathEvent& e) { return e.kind == k; });
    }
};

TEST(PeerPaths, AFirstSendPingsEveryCandidateAndAsksForCallMeMaybe) {
    Bench b;
    b.candidates(3);
    EXPECT_TRUE(b.pings.empty()) << "an idle peer costs nothing";
    EXPECT_TRUE(b.paths.next_timeout().is_never());
    b.send();
    EXPECT_EQ(b.pings.size(), 3U);
    EXPECT_EQ(b.calls.size(), 1U);
    b.send();
    EXPECT_EQ(b.pings.size(), 3U) << "not again on each send";
}

TEST(PeerPaths, TheFirstRoundIsRepeatedAfterHalfOneAndTwoSeconds) {
    Bench b;
    b.candidates(1);
    b.send();
    const Time start = b.now;
    b.advance(milliseconds(2900));
    std::vector<int64_t> at;
    for (const auto& [t, p] : b.pings) at.push_back((t - start).millis());
    EXPECT_EQ(at, (std::vector<int64_t>{0, 500, 1000, 2000}));
    ASSERT_EQ(b.calls.size(), 3U) << "again, for nothing was heard";
    EXPECT_EQ((b.calls[1] - start).millis(), 1000);
    EXPECT_EQ((b.calls[2] - start).millis(), 2000);
}

// A peer that learns of us late knows neither the first CallMeMaybe nor the one that our own first STUN answer causes.
TEST(PeerPaths, CallMeMaybeIsRepeatedThoughOurOwnAddressesCausedOneInBetween) {
    Bench b;
    b.candidates(1);
    b.send();
    const Time start = b.now;
    b.advance(milliseconds(100));
    b.paths.call_me_maybe_sent(b.now);
    b.advance(milliseconds(2800));
    ASSERT_EQ(b.calls.size(), 3U);
    EXPECT_EQ((b.calls[1] - start).millis(), 1000);
}

TEST(PeerPaths, APongGivesTrustForSixAndAHalfSeconds) {
    Bench b;
    b.candidates(2);
    b.send();
    b.now = b.now + milliseconds(20);
    const auto rtt = b.paths.heard_pong(b.pings[1].second.tx, b.now, b.todo);
    ASSERT_TRUE(rtt.has_value());
    EXPECT_EQ(rtt->millis(), 20);
    EXPECT_TRUE(b.todo.path_changed);
    EXPECT_EQ(b.paths.best(), ep(2));
    EXPECT_TRUE(b.paths.trusted(b.now + milliseconds(6499)));
    EXPECT_FALSE(b.paths.trusted(b.now + milliseconds(6500)));
}

TEST(PeerPaths, APongWithAnUnknownOrUsedIdProvesNothing) {
    Bench b;
    b.candidates(1);
    b.send();
    EXPECT_FALSE(b.paths.heard_pong(tx(9), b.now, b.todo).has_value());
    EXPECT_FALSE(b.paths.best().is_valid());
    const auto id = b.pings[0].second.tx;
    EXPECT_TRUE(b.paths.heard_pong(id, b.now, b.todo).has_value());
    EXPECT_FALSE(b.paths.heard_pong(id, b.now, b.todo).has_value());
}

TEST(PeerPaths, ABetterAddressTakesOverAndAWorseOneDoesNot) {
    Bench b;
    b.candidates(3);
    b.send();
    const auto pings = b.pings;
    b.now = b.now + milliseconds(10);
    b.paths.heard_pong(pings[0].second.tx, b.now, b.todo);
    b.now = b.now + milliseconds(10);
    b.paths.heard_pong(pings[1].second.tx, b.now, b.todo);
    EXPECT_EQ(b.paths.best(), ep(1)) << "20 ms does not beat 10 ms";
    b.paths.cli_probe(0, b.now, b.todo);
    b.drain();
    b.now = b.now + milliseconds(10);
    b.paths.heard_pong(b.pings.back().second.tx, b.now, b.todo);
    EXPECT_EQ(b.paths.best(), ep(1));
}

TEST(PeerPaths, APingIsAnsweredByAPingBackWhileThereIsNoTrust) {
    Bench b;
    EXPECT_TRUE(b.paths.heard_ping(ep(7), tx(1), 0, b.now, b.todo));
    b.drain();
    ASSERT_EQ(b.pings.size(), 1U);
    EXPECT_EQ(b.pings[0].second.to, ep(7));
    EXPECT_EQ(b.calls.size(), 1U);
    EXPECT_FALSE(b.paths.heard_ping(ep(7), tx(1), 0, b.now, b.todo)) << "a repetition is not answered";
    EXPECT_TRUE(b.paths.heard_ping(ep(7), tx(2), 0, b.now + milliseconds(300), b.todo));
    b.drain();
    EXPECT_EQ(b.pings.size(), 1U) << "once a second and source";
    b.now = b.now + seconds(1);
    b.paths.heard_ping(ep(7), tx(3), 0, b.now, b.todo);
    b.drain();
    EXPECT_EQ(b.pings.size(), 2U);
    EXPECT_EQ(b.calls.size(), 1U) << "once in five seconds";
}

TEST(PeerPaths, APingOnATrustedPathMakesNoNoise) {
    Bench b;
    b.candidates(1);
    b.prove(1);
    EXPECT_TRUE(b.paths.heard_ping(ep(1), tx(1), 0, b.now, b.todo));
    EXPECT_TRUE(b.paths.heard_ping(ep(9), tx(2), 0, b.now, b.todo));
    EXPECT_TRUE(b.todo.empty());
}

TEST(PeerPaths, ACallMeMaybePingsAtOnceAndIsAnsweredOnce) {
    Bench b;
    b.candidates(1);
    b.send();
    b.pings.clear();
    b.calls.clear();
    b.now = b.now + milliseconds(50);
    const Endpoint list[] = {ep(1), ep(5)};
    b.paths.heard_call_me_maybe(list, b.now, b.todo);
    b.drain();
    EXPECT_EQ(b.pings.size(), 2U) << "also the one pinged a moment ago";
    EXPECT_TRUE(b.calls.empty()) << "ours went out 50 ms ago";
    b.now = b.now + seconds(5);
    b.paths.heard_call_me_maybe(list, b.now, b.todo);
    b.drain();
    EXPECT_EQ(b.calls.size(), 1U);
}

TEST(PeerPaths, ACallMeMaybeReplacesTheCandidatesOfTheLast) {
    Bench b;
    b.candidates(1);
    const Endpoint first[] = {ep(5), ep(6)};
    const Endpoint second[] = {ep(6)};
    b.paths.heard_call_me_maybe(first, b.now, b.todo);
    b.drain();
    b.pings.clear();
    b.now = b.now + seconds(6);
    b.paths.heard_call_me_maybe(second, b.now, b.todo);
    b.drain();
    EXPECT_EQ(b.pings_to(ep(5)), 0U);
    EXPECT_EQ(b.pings_to(ep(6)), 1U);
    EXPECT_EQ(b.pings_to(ep(1)), 1U) << "the network map's stay";
}

TEST(PeerPaths, AnAddressThePeerWithdrawsGivesWayToTheNextPong) {
    for (const bool withdrawn : {false, true}) {
        Bench b;
        b.candidates(1);
        b.prove(1, milliseconds(10));
        const Endpoint with[] = {ep(1), ep(5)}, without[] = {ep(5)}, none_yet[] = {ep(6)};
        if (withdrawn) b.paths.heard_call_me_maybe(none_yet, b.now, b.todo);  // it does not know its new address yet
        b.paths.heard_call_me_maybe(withdrawn ? std::span<const Endpoint>(without) : with, b.now, b.todo);
        b.drain();
        ASSERT_EQ(b.pings_to(ep(5)), 1U);
        EXPECT_EQ(b.paths.best(), ep(1)) << "nothing else is proven yet";
        EXPECT_TRUE(b.paths.trusted(b.now));
        const auto ping = std::find_if(b.pings.begin(), b.pings.end(), [](const auto& p) { return p.second.to == ep(5); });
        b.now = b.now + milliseconds(20);  // slower, so by itself no reason
        b.paths.heard_pong(ping->second.tx, b.now, b.todo);
        EXPECT_EQ(b.paths.best(), withdrawn ? ep(5) : ep(1));
    }
}

TEST(PeerPaths, ALearntCandidateLivesFortyFiveSeconds) {
    Bench b;
    b.paths.heard_ping(ep(7), tx(1), 0, b.now, b.todo);
    b.drain();
    b.now = b.now + seconds(44);
    b.pings.clear();
    b.send();
    EXPECT_EQ(b.pings_to(ep(7)), 1U);
    b.now = b.now + seconds(6);
    b.pings.clear();
    b.send();
    EXPECT_EQ(b.pings_to(ep(7)), 0U);
}

TEST(PeerPaths, HeartbeatsGoOutEveryThreeSecondsAndStopFortyFiveAfterTheLastSend) {
    Bench b;
    b.candidates(2);
    b.prove(1, milliseconds(1));
    b.auto_pong = true;
    b.send();
    const Time start = b.now;
    b.advance(seconds(44));
    EXPECT_EQ(b.pings_to(ep(2)), 0U) << "a good path is not doubted";
    EXPECT_GE(b.pings_to(ep(1)), 13U);
    EXPECT_LE(b.pings_to(ep(1)), 15U);
    b.advance(seconds(20));
    EXPECT_LE((b.pings.back().first - start).millis(), 45'100);
    EXPECT_TRUE(b.paths.next_timeout().is_never());
    b.pings.clear();
    b.advance(seconds(600));
    EXPECT_TRUE(b.pings.empty());
}

TEST(PeerPaths, TrustIsKeptByHeartbeatsAlone) {
    Bench b;
    b.candidates(1);
    b.prove(1);
    b.auto_pong = true;
    b.changes = 0;
    for (int i = 0; i < 40; ++i) {
        b.send();
        b.advance(seconds(1));
        EXPECT_TRUE(b.paths.trusted(b.now)) << i;
    }
    EXPECT_EQ(b.changes, 0) << "a path in use does not flap";
}

TEST(PeerPaths, ASilentPathUnderTrafficIsLeftAfterTwoSeconds) {
    Bench b;
    b.candidates(1);
    b.prove(1);
    b.traffic(seconds(2), true);
    ASSERT_TRUE(b.paths.trusted(b.now));
    const Time dead = b.now;
    b.pings.clear();
    while (b.paths.trusted(b.now)) b.traffic(milliseconds(100), false);
    EXPECT_LE((b.now - dead).millis(), 2300);
    EXPECT_GE((b.now - dead).millis(), 1900) << "no hasty judgement";
    EXPECT_GE(b.pings_to(ep(1)), 4U);
    EXPECT_TRUE(b.has_event(PathEvent::Kind::kSilent));
    EXPECT_EQ(b.paths.best(), ep(1)) << "still tried, beside the relay";
    EXPECT_FALSE(b.calls.empty());
}

TEST(PeerPaths, OneWayTrafficOnAHealthyPathNeverLosesTrust) {
    Bench b;
    b.candidates(1);
    b.prove(1);
    b.auto_pong = true;  // pings are answered, data is not
    b.changes = 0;
    b.traffic(seconds(40), false);
    EXPECT_EQ(b.changes, 0);
    EXPECT_TRUE(b.paths.trusted(b.now));
    EXPECT_LE(b.pings.size(), 100U) << "at the price of two pings per second";
}

TEST(PeerPaths, DataFromAnotherAddressDoesNotExcuseASilentBest) {
    Bench b;
    b.candidates(1);
    b.prove(1);
    for (int i = 0; i < 25; ++i) {
        b.send();
        b.paths.note_received(Endpoint{}, b.now);  // by relay
        b.advance(milliseconds(100));
    }
    EXPECT_FALSE(b.paths.trusted(b.now));
}

TEST(PeerPaths, DataByTheRelayHastensTheJudgementOfASilentPath) {
    Bench b;
    b.candidates(1);
    b.prove(1, milliseconds(50));
    b.advance(milliseconds(400));
    b.paths.note_received(Endpoint{}, b.now);
    EXPECT_EQ(b.pings_to(ep(1)), 0U) << "late packets of the relay mean nothing";
    b.advance(milliseconds(200));
    const Time noticed = b.now;
    for (int i = 0; i < 10 && b.paths.trusted(b.now); ++i) {
        b.send();
        EXPECT_EQ(b.paths.note_received(Endpoint{}, b.now), i == 0);
        b.advance(milliseconds(100));
    }
    EXPECT_FALSE(b.paths.trusted(b.now));
    EXPECT_LE((b.now - noticed).millis(), 400);
    EXPECT_GE(b.pings_to(ep(1)), 2U);
}

TEST(PeerPaths, DataByTheRelayOnAHealthyPathCostsTwoPingsPerSecondAndNoTrust) {
    Bench b;
    b.candidates(1);
    b.prove(1, milliseconds(50));
    b.auto_pong = true;
    for (int i = 0; i < 100; ++i) {
        b.send();
        b.paths.note_received(Endpoint{}, b.now);
        b.advance(milliseconds(100));
        ASSERT_TRUE(b.paths.trusted(b.now));
    }
    EXPECT_LE(b.pings_to(ep(1)), 25U);
}

TEST(PeerPaths, AnUntrustedBestIsGivenUpWhenItsPingsTimeOut) {
    Bench b;
    b.candidates(1);
    b.prove(1);
    b.traffic(seconds(12), false);
    EXPECT_FALSE(b.paths.best().is_valid());
    EXPECT_TRUE(b.has_event(PathEvent::Kind::kBestLost));
}

TEST(PeerPaths, TrustThatNobodyRenewsExpiresAndTheOwnerIsTold) {
    Bench b;
    b.candidates(1);
    b.send();
    b.paths.heard_pong(b.pings[0].second.tx, b.now, b.todo);
    b.drain();
    b.changes = 0;
    b.advance(seconds(7));
    EXPECT_FALSE(b.paths.trusted(b.now));
    EXPECT_GE(b.changes, 1);
}

TEST(PeerPaths, TrustFromBeforeTheFirstSendIsRenewedInTime) {
    for (const int idle_ms : {100, 2000, 3400, 3600, 5000, 6400}) {
        Bench b;
        b.candidates(1);
        b.auto_pong = true;
        (void)b.paths.heard_ping(ep(1), tx(1), 0, b.now, b.todo);
        b.drain();
        ASSERT_TRUE(b.paths.trusted(b.now));
        b.advance(milliseconds(idle_ms));
        b.changes = 0;
        b.traffic(seconds(8), true);
        EXPECT_EQ(b.changes, 0) << "trust was lost when traffic began after " << idle_ms << " ms";
    }
}

TEST(PeerPaths, AtMostTwentyPingsLeaveInASecondAndTheRestFollows) {
    Bench b;
    b.candidates(45);
    b.send();
    EXPECT_EQ(b.pings.size(), kMaxPingsPerSecond);
    b.advance(seconds(10));
    for (int i = 1; i <= 45; ++i) EXPECT_GE(b.pings_to(ep(i)), 1U) << i;
    for (size_t i = 0; i + kMaxPingsPerSecond < b.pings.size(); ++i)
        EXPECT_GE(b.pings[i + kMaxPingsPerSecond].first - b.pings[i].first, milliseconds(999)) << i;
}

TEST(PeerPaths, CandidatesAreBoundedAndLearntOnesYieldFirst) {
    Bench b;
    b.candidates(20);
    for (int i = 0; i < 200; ++i) {
        b.now = b.now + milliseconds(1);
        b.paths.heard_ping(ep(200, static_cast<uint16_t>(1000 + i)), tx(1), 0, b.now, b.todo);
        b.todo.clear();
    }
    PeerPathStatus s;
    b.paths.fill(s, b.now);
    EXPECT_EQ(s.candidates.size(), kMaxCandidates);
    EXPECT_EQ(std::count_if(s.candidates.begin(), s.candidates.end(), [](const auto& c) { return c.from_netmap; }), 20);
    EXPECT_LE(s.events.size(), kMaxPathEvents);
}

TEST(PeerPaths, AFailedSendClearsTheBestAddressAtOnce) {
    Bench b;
    b.candidates(2);
    b.prove(1);
    b.paths.send_failed(ep(1), b.now, b.todo);
    EXPECT_FALSE(b.paths.best().is_valid());
    EXPECT_TRUE(b.todo.path_changed);
    b.todo.clear();
    b.now = b.now + seconds(5);
    b.send();
    EXPECT_GE(b.pings.size(), 2U);
}

TEST(PeerPaths, ARestartedPeerKeepsItsPathAndIsAskedSoon) {
    Bench b;
    b.candidates(2);
    b.prove(1);
    b.paths.peer_restarted(b.now, b.todo);
    b.drain();
    EXPECT_TRUE(b.paths.trusted(b.now));
    EXPECT_EQ(b.pings_to(ep(1)), 1U);
}

TEST(PeerPaths, ARestartOfAnIdlePeerCostsNothing) {
    Bench b;
    b.candidates(2);
    b.paths.peer_restarted(b.now, b.todo);
    EXPECT_TRUE(b.todo.empty());
}

TEST(PeerPaths, ANetworkChangeVoidsProofsAndStartsOver) {
    Bench b;
    b.candidates(2);
    b.prove(1);
    b.paths.reset(b.now, b.todo);
    b.drain();
    EXPECT_FALSE(b.paths.best().is_valid());
    EXPECT_EQ(b.pings.size(), 2U);
    EXPECT_EQ(b.calls.size(), 1U);
    EXPECT_EQ(b.changes, 1);
}

TEST(PeerPaths, ASlowTrustedPathIsComparedWithTheOthersOnceAMinute) {
    Bench b;
    b.candidates(2);
    b.prove(1, milliseconds(30));
    for (int i = 0; i < 130; ++i) {
        b.send();
        const size_t seen = b.pings.size();
        b.advance(milliseconds(500));
        for (size_t k = seen; k < b.pings.size(); ++k)
            if (b.pings[k].second.to == ep(1)) {
                const auto id = b.pings[k].second.tx;
                b.now = b.now + milliseconds(30);
                b.paths.heard_pong(id, b.now, b.todo);
                b.drain();
            }
        b.paths.note_received(ep(1), b.now);
    }
    EXPECT_EQ(b.pings_to(ep(2)), 1U);
    EXPECT_TRUE(b.paths.trusted(b.now));
}

TEST(PeerPaths, HandlingATimeoutTwiceOrEarlyChangesNothing) {
    Bench b;
    b.candidates(3);
    b.send();
    b.paths.handle_timeout(b.now, b.todo);
    EXPECT_TRUE(b.todo.empty());
    b.now = b.now + milliseconds(500);
    b.paths.handle_timeout(b.now, b.todo);
    b.drain();
    const Time next = b.paths.next_timeout();
    EXPECT_GT(next, b.now);
    b.paths.handle_timeout(b.now, b.todo);
    EXPECT_TRUE(b.todo.empty());
    EXPECT_EQ(b.paths.next_timeout(), next);
}

TEST(PeerPaths, TheSameSeedGivesTheSamePings) {
    const auto run = [] {
        Bench b;
        b.candidates(3);
        b.traffic(seconds(20), false);
        std::string s;
        for (const auto& [t, p] : b.pings) s += std::to_string(t.ns) + p.to.str() + hex_encode(p.tx);
        return s;
    };
    EXPECT_EQ(run(), run());
}

TEST(PeerPaths, TellsForEachAddressHowManyPingsWereAnswered) {
    Bench b;
    b.candidates(2);
    b.send();
    ASSERT_FALSE(b.pings.empty());
    b.now = b.now + milliseconds(7);
    for (const auto& [at, p] : b.pings)
        if (p.to == ep(1)) b.paths.heard_pong(p.tx, b.now, b.todo);
    b.drain();
    b.traffic(seconds(8), true);
    PeerPathStatus s;
    b.paths.fill(s, b.now);
    ASSERT_EQ(s.candidates.size(), 2U);
    EXPECT_EQ(s.candidates[0].pongs, 1U);
    EXPECT_EQ(s.candidates[0].best_latency, milliseconds(7));
    EXPECT_EQ(s.candidates[1].pings, b.pings_to(ep(2)));
    EXPECT_EQ(s.candidates[1].pongs, 0U);
    EXPECT_GT(s.candidates[1].recent, 0U);
    EXPECT_EQ(s.candidates[1].recent_lost, s.candidates[1].recent);
    const auto unanswered = [&](const Endpoint& e) {
        return std::count_if(s.events.begin(), s.events.end(), [&](const PathEvent& x) { return x.kind == PathEvent::Kind::kNoAnswer && x.ep == e; });
    };
    EXPECT_EQ(unanswered(ep(2)), 1) << "once, not for each ping";
}

}  // namespace
}  // namespace mesh::magicsock
