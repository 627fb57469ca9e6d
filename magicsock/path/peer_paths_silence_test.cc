// SPDX-License-Identifier: BSD-3-Clause
// Rule 5 in virtual time: when a path that does not answer is doubted, how long, and what ends the doubt.
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "magicsock/path/peer_paths.h"

namespace mesh::magicsock {
namespace {

/// One address with a round trip, a flow to it, and an owner that looks before each datagram whether the relay gets a copy.
struct Bench {
    SeededRandom random{1};
    Time now{seconds(1000).ns};
    PeerPaths paths{random, now};
    Todo todo;
    Endpoint at{Addr::v4(203, 0, 113, 1), 41641};
    Duration rtt = milliseconds(20);
    Duration interval = milliseconds(20);           // of datagrams to the peer; zero: none
    Duration answers;                               // of datagrams from there; zero: none
    bool pongs = true;                              // pings are answered
    std::function<bool()> loses = [] { return false; };  // asked once per ping
    bool relay_brings_data = false;                 // every 100 ms

    struct Answer {
        Time at;
        disco::TxId tx;
    };
    std::vector<Answer> under_way;
    std::vector<Time> pings;
    size_t sent = 0, copies = 0, doubts = 0;
    bool was_in_doubt = false;

    Bench(Endpoint where = {Addr::v4(203, 0, 113, 1), 41641}, Duration round_trip = milliseconds(20)) : at(where), rtt(round_trip) {
        paths.set_netmap({&at, 1}, now, todo);
        paths.note_sent(now, todo);
        drain();
        run(rtt + milliseconds(1));
        EXPECT_TRUE(paths.trusted(now));
        pings.clear();
        sent = copies = 0;
    }
    void drain() {
        for (const Todo::Probe& p : todo.probes) {
            pings.push_back(now);
            if (pongs && !loses()) under_way.push_back({now + rtt, p.tx});
        }
        if (todo.call_me_maybe) paths.call_me_maybe_sent(now);
        todo.clear();
        const bool doubt = paths.in_doubt(now);
        if (doubt && !was_in_doubt) ++doubts;
        was_in_doubt = doubt;
    }
    [[nodiscard]] bool every(Duration d) const { return d.ns > 0 && now.ns % d.ns == 0; }
    void step() {
        now = now + milliseconds(1);
        for (size_t i = 0; i < under_way.size();) {
            if (under_way[i].at > now) {
                ++i;
                continue;
            }
            const disco::TxId tx = under_way[i].tx;
            under_way.erase(under_way.begin() + static_cast<std::ptrdiff_t>(i));
            paths.heard_pong(tx, now, todo);
            drain();
        }
        if (every(answers)) paths.note_received(at, now);
        if (relay_brings_data && every(milliseconds(100))) paths.note_received(Endpoint{}, now);
        if (paths.next_timeout() <= now) {
            paths.handle_timeout(now, todo);
            drain();
        }
        if (every(interval)) {
            paths.note_sent(now, todo);
            drain();
            ++sent;
            if (paths.in_doubt(now) || !paths.trusted(now)) ++copies;
        }
    }
    void run(Duration span) {
        for (const Time end = now + span; now < end;) step();
    }
    template <class Until>
    Duration until(Until done, Duration limit = seconds(10)) {
        const Time begin = now;
        while (!done() && now - begin < limit) step();
        return now - begin;
    }
};

const Endpoint kSix{*Addr::parse("2001:db8::1"), 41641};

TEST(Silence, APathThatDiesUnderLoadIsDoubtedInHalfASecondAndLeftAfterTwo) {
    for (const Endpoint& where : {Endpoint{Addr::v4(203, 0, 113, 1), 41641}, kSix}) {
        Bench b(where);
        b.answers = milliseconds(20);
        b.run(seconds(7));
        EXPECT_EQ(b.copies, 0U);
        b.answers = {};
        b.pongs = false;
        const Time dead = b.now;
        const Duration doubted = b.until([&] { return b.paths.in_doubt(b.now); });
        EXPECT_GE(doubted.millis(), 250) << "no hasty judgement";
        EXPECT_LE(doubted.millis(), 550) << "before the third packet that TCP repeats";
        EXPECT_TRUE(b.paths.trusted(b.now)) << "doubt is no verdict";
        const size_t first_copy = b.copies;
        b.until([&] { return !b.paths.trusted(b.now); });
        EXPECT_GE((b.now - dead).millis(), 1700);
        EXPECT_LE((b.now - dead).millis(), 2100);
        EXPECT_GE(b.copies - first_copy, 45U) << "every datagram since";
        EXPECT_FALSE(b.paths.in_doubt(b.now)) << "now it is no trusted one at all";
    }
}

TEST(Silence, AHealthyPathWithOneWayTrafficIsNeverDoubtedHoweverSlow) {
    for (const int rtt : {1, 20, 100, 240, 400, 700, 900}) {
        Bench b({Addr::v4(203, 0, 113, 1), 41641}, milliseconds(rtt));
        b.run(seconds(120));
        EXPECT_EQ(b.doubts, 0U) << rtt << " ms";
        EXPECT_EQ(b.copies, 0U) << rtt << " ms";
        EXPECT_TRUE(b.paths.trusted(b.now)) << rtt << " ms";
        EXPECT_LE(b.pings.size(), 260U) << "two pings a second, at " << rtt << " ms";
    }
}

TEST(Silence, OneWayTrafficIsGivenMoreTime) {
    Bench b;
    b.run(seconds(7));
    b.pongs = false;
    const Duration doubted = b.until([&] { return b.paths.in_doubt(b.now); });
    EXPECT_GE(doubted.millis(), 250);
    EXPECT_LE(doubted.millis(), 800);
}

TEST(Silence, TrafficThatIsAnsweredNeedsNoPingsButTheHeartbeat) {
    Bench b;
    b.answers = milliseconds(20);
    b.run(seconds(60));
    EXPECT_LE(b.pings.size(), 21U);
    EXPECT_EQ(b.copies, 0U);
}

TEST(Silence, ALostPingCostsCopiesForOneRepetition) {
    Bench b;
    b.run(seconds(5));
    size_t lose = 1;
    b.loses = [&] { return lose > 0 && lose-- > 0; };
    b.run(seconds(10));
    EXPECT_EQ(b.doubts, 1U);
    EXPECT_LE(b.copies, 3U) << "one round trip of datagrams 20 ms apart";
    EXPECT_TRUE(b.paths.trusted(b.now));
}

// One ping in ten is lost: a path that one stays on.
TEST(Silence, ALossyPathStaysAndCostsFewCopies) {
    Bench b;
    SeededRandom dice(7);
    b.loses = [&] { return dice.below(10) == 0; };
    b.run(seconds(300));
    EXPECT_GT(b.doubts, 10U) << "or this shows nothing";
    EXPECT_LE(b.copies * 50, b.sent) << "2 % of them at most";
    EXPECT_TRUE(b.paths.trusted(b.now) || b.paths.best().is_valid());
}

// What comes in may answer what the relay brought there, so it does not prove that what goes out arrives.
TEST(Silence, OnlyAPongEndsADoubt) {
    Bench b;
    b.answers = milliseconds(20);
    b.run(seconds(4));
    b.pongs = false;
    const Duration doubted = b.until([&] { return b.paths.in_doubt(b.now); });
    EXPECT_LE(doubted, kHeartbeat + milliseconds(300)) << "a path that is dead one way shows by its heartbeat";
    EXPECT_LE(b.until([&] { return !b.paths.trusted(b.now); }).millis(), 2000) << "though data comes in all the time";
    EXPECT_EQ(b.doubts, 1U);

    Bench again;
    again.pongs = false;
    again.until([&] { return again.paths.in_doubt(again.now); });
    again.answers = milliseconds(5);
    again.run(milliseconds(200));
    EXPECT_TRUE(again.paths.in_doubt(again.now));
    again.pongs = true;
    again.until([&] { return !again.paths.in_doubt(again.now); });
    EXPECT_TRUE(again.paths.trusted(again.now));
    EXPECT_EQ(again.doubts, 1U);
}

// The peer knows before us that the path is dead: its first packet by the relay is answered both ways.
TEST(Silence, DataByTheRelayMakesASilentPathDoubtedAtOnce) {
    Bench b;
    b.interval = {};  // we have nothing to say and so no reason to ask
    b.pongs = false;
    b.run(milliseconds(600));
    EXPECT_FALSE(b.paths.in_doubt(b.now));
    EXPECT_TRUE(b.paths.note_received(Endpoint{}, b.now));
    EXPECT_TRUE(b.paths.in_doubt(b.now));
    b.relay_brings_data = true;
    EXPECT_LE(b.until([&] { return !b.paths.trusted(b.now); }).millis(), 500);
}

TEST(Silence, DataByTheRelayBesideAHealthyPathIsNoLastingReason) {
    Bench b;
    b.relay_brings_data = true;
    b.run(seconds(60));
    EXPECT_LE(b.doubts, 6U) << "one in ten seconds";
    EXPECT_LE(b.copies, 12U);
    EXPECT_TRUE(b.paths.trusted(b.now));
}

// TCP doubles its patience with each repetition that is lost, so the second death would cost more than the first.
TEST(Silence, APathThatComesAndGoesIsCoveredByTheRelayAfterItsFirstDeath) {
    Bench b;
    b.answers = milliseconds(20);
    for (int death = 0; death < 5; ++death) {
        const size_t uncovered = b.sent - b.copies;
        b.answers = {};
        b.pongs = false;
        b.until([&] { return !b.paths.trusted(b.now); });
        b.pongs = true;
        b.until([&] { return b.paths.trusted(b.now); });
        b.answers = milliseconds(20);
        if (death > 0) {
            EXPECT_EQ(b.sent - b.copies, uncovered) << death;
        }
    }
    b.run(kProbation);
    const size_t copies = b.copies;
    b.run(seconds(60));
    EXPECT_EQ(b.copies, copies) << "and that ends";
}

TEST(Silence, AnIdlePathIsNotAsked) {
    Bench b;
    b.interval = {};
    b.run(seconds(50));
    b.pings.clear();
    b.pongs = false;
    b.run(seconds(600));
    EXPECT_TRUE(b.pings.empty());
    EXPECT_TRUE(b.paths.next_timeout().is_never());
}

}  // namespace
}  // namespace mesh::magicsock
