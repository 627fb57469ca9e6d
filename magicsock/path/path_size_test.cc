// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/path/path_size.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>

#include "magicsock/path/peer_paths.h"

namespace mesh::magicsock {
namespace {

using Verdict = PathSize::Verdict;

constexpr size_t kDatagram = 1312;        // 1280 in the tunnel
constexpr size_t kFull = kDatagram + 28;  // what the wire sees

Endpoint ep(int host) { return {Addr::v4(203, 0, 113, static_cast<uint8_t>(host)), 41641}; }

struct Address {
    size_t mtu = 1500;
    Duration rtt = milliseconds(20);
    std::function<bool(size_t)> lost = [](size_t) { return false; };
};
using Addresses = std::vector<Address>;

/// One peer whose addresses carry what the table says and answer after a round trip.
struct World {
    SeededRandom random{1};
    Time now{seconds(1000).ns};
    PeerPaths paths{random, now};
    std::map<Endpoint, Address> addresses;
    std::vector<std::pair<Time, Todo::Probe>> pings;
    std::multimap<Time, disco::TxId> pongs;
    std::vector<bool> trust;  // as the owner was told

    explicit World(const Addresses& list) {
        paths.set_full_datagram(kDatagram);
        std::vector<Endpoint> v;
        for (size_t i = 0; i < list.size(); ++i) {
            v.push_back(ep(static_cast<int>(i) + 1));
            addresses[v.back()] = list[i];
        }
        Todo todo;
        paths.set_netmap(v, now, todo);
        carry_out(todo);
    }
    void carry_out(Todo& todo) {
        for (const Todo::Probe& p : todo.probes) {
            pings.emplace_back(now, p);
            const Address& a = addresses[p.to];
            if (p.size <= a.mtu && !a.lost(p.size)) pongs.emplace(now + a.rtt, p.tx);
        }
        if (todo.path_changed) trust.push_back(paths.trusted(now));
    }
    /// A packet every 100 ms, and the peer answers it.
    void traffic(Duration d) {
        for (const Time end = now + d; now < end;) {
            Todo todo;
            paths.note_sent(now, todo);
            carry_out(todo);
            if (paths.best().is_valid()) paths.note_received(paths.best(), now);
            rest(milliseconds(100));
        }
    }
    void rest(Duration d) {
        for (const Time end = now + d;;) {
            const Time pong = pongs.empty() ? Time::never() : pongs.begin()->first;
            const Time next = min(pong, paths.next_timeout());
            if (next > end) {
                now = end;
                return;
            }
            now = max(now, next);
            Todo todo;
            if (pong <= now) {
                const disco::TxId tx = pongs.begin()->second;
                pongs.erase(pongs.begin());
                paths.heard_pong(tx, now, todo);
            } else {
                paths.handle_timeout(now, todo);
            }
            carry_out(todo);
        }
    }
    size_t long_pings(const Endpoint& to, size_t at_least = kFull) const {
        return static_cast<size_t>(std::count_if(pings.begin(), pings.end(), [&](const auto& p) { return p.second.to == to && p.second.size >= at_least; }));
    }
    CandidateStatus status(int host) const {
        PeerPathStatus s;
        paths.fill(s, now);
        for (const CandidateStatus& c : s.candidates)
            if (c.ep == ep(host)) return c;
        return {};
    }
    size_t events(PathEvent::Kind kind) const {
        PeerPathStatus s;
        paths.fill(s, now);
        return static_cast<size_t>(std::count_if(s.events.begin(), s.events.end(), [&](const PathEvent& e) { return e.kind == kind; }));
    }
};

TEST(PathSize, AGoodPathCostsOneLongPingAndOneMoreRoundTrip) {
    World w(Addresses(1));
    Todo todo;
    w.paths.note_sent(w.now, todo);
    w.carry_out(todo);
    w.rest(milliseconds(39));
    EXPECT_FALSE(w.paths.trusted(w.now));
    EXPECT_EQ(w.paths.best(), ep(1)) << "data goes both ways meanwhile";
    w.rest(milliseconds(2));
    EXPECT_TRUE(w.paths.trusted(w.now));
    EXPECT_EQ(w.status(1).size, Verdict::kWhole);
    EXPECT_EQ(w.status(1).carries, kFull);
    w.traffic(seconds(30));
    EXPECT_EQ(w.long_pings(ep(1), 1), 1U);
    w.traffic(seconds(600));
    EXPECT_TRUE(w.paths.trusted(w.now));
    EXPECT_LE(w.long_pings(ep(1), 1), 11U) << "once a minute";
    EXPECT_EQ(w.events(PathEvent::Kind::kTooSmall), 0U);
}

TEST(PathSize, APathThatLosesFullPacketsIsNeverTrusted) {
    World w(Addresses{Address{.mtu = 1300}});
    w.traffic(seconds(60));
    EXPECT_TRUE(w.trust == std::vector<bool>(w.trust.size(), false)) << "no flapping";
    EXPECT_LE(w.trust.size(), 2U);
    EXPECT_EQ(w.status(1).size, Verdict::kTooSmall);
    EXPECT_EQ(w.status(1).carries, 1280U);
    EXPECT_EQ(w.status(1).full, kFull);
    EXPECT_TRUE(w.paths.too_small(ep(1)));
    EXPECT_EQ(w.paths.best(), ep(1)) << "where there is no relay it is better than nothing";
    EXPECT_EQ(w.events(PathEvent::Kind::kBestLost), 0U);
}

TEST(PathSize, FullSizeIsTriedAgainSparsely) {
    World w(Addresses{Address{.mtu = 1300}});
    w.traffic(seconds(10));
    const size_t first = w.long_pings(ep(1));
    EXPECT_EQ(first, PathSize::kTries);
    w.traffic(seconds(3600));
    EXPECT_LE(w.long_pings(ep(1)) - first, 8U);
    EXPECT_GE(w.long_pings(ep(1)) - first, 5U);
    w.addresses[ep(1)].mtu = 1500;  // somebody mended it
    w.traffic(seconds(1000));
    EXPECT_TRUE(w.paths.trusted(w.now));
    EXPECT_EQ(w.status(1).size, Verdict::kWhole);
}

TEST(PathSize, AnotherPathThatCarriesAllIsTakenThoughItIsSlower) {
    World w(Addresses{Address{.mtu = 1300, .rtt = milliseconds(5)}, Address{.rtt = milliseconds(80)}});
    w.traffic(seconds(120));
    EXPECT_TRUE(w.paths.trusted(w.now));
    EXPECT_EQ(w.paths.best(), ep(2));
    EXPECT_EQ(w.status(1).size, Verdict::kTooSmall);
    EXPECT_EQ(std::count(w.trust.begin(), w.trust.end(), true), 1);
}

TEST(PathSize, AFasterPathIsMeasuredBeforeTheOldOneIsLeft) {
    World w(Addresses{Address{.rtt = milliseconds(80)}, Address{.rtt = milliseconds(10)}});
    w.addresses[ep(2)].lost = [](size_t) { return true; };
    w.traffic(seconds(10));
    ASSERT_TRUE(w.paths.trusted(w.now));
    w.trust.clear();
    w.addresses[ep(2)] = {.mtu = 1300, .rtt = milliseconds(10)};
    w.traffic(seconds(130));
    EXPECT_TRUE(w.trust.empty()) << "it never was in use";
    EXPECT_EQ(w.status(2).size, Verdict::kTooSmall);
    w.addresses[ep(2)].mtu = 1500;
    w.traffic(seconds(400));
    EXPECT_EQ(w.paths.best(), ep(2));
    EXPECT_EQ(w.trust, std::vector<bool>{true});
}

TEST(PathSize, APeerThatDoesNotAnswerPaddedPingsKeepsItsPath) {
    World w(Addresses(1));
    w.addresses[ep(1)].lost = [](size_t size) { return size > 0; };
    w.traffic(seconds(3));
    EXPECT_TRUE(w.paths.trusted(w.now));
    EXPECT_EQ(w.status(1).size, Verdict::kUntold);
    w.trust.clear();
    w.traffic(seconds(600));
    EXPECT_TRUE(w.trust.empty());
    EXPECT_LE(w.long_pings(ep(1)), PathSize::kTries + 4U);
}

TEST(PathSize, APathThatBecomesTooSmallIsLeftWithinAMinuteOrTwo) {
    World w(Addresses(1));
    w.traffic(seconds(5));
    ASSERT_TRUE(w.paths.trusted(w.now));
    w.addresses[ep(1)].mtu = 1000;
    w.trust.clear();
    w.traffic(seconds(65));
    EXPECT_EQ(w.trust, std::vector<bool>{false});
    EXPECT_EQ(w.status(1).carries, 576U);
    EXPECT_EQ(w.events(PathEvent::Kind::kSilent), 0U) << "small pings are answered";
}

TEST(PathSize, TheSocketsErrorMakesItBeAskedAtOnce) {
    World w(Addresses(1));
    w.traffic(seconds(5));
    w.addresses[ep(1)].mtu = 1300;
    Todo todo;
    w.paths.too_long(ep(1), w.now, todo);
    w.carry_out(todo);
    todo.clear();
    w.traffic(seconds(2));
    EXPECT_FALSE(w.paths.trusted(w.now));
    EXPECT_EQ(w.status(1).size, Verdict::kTooSmall);
    const size_t asked = w.pings.size();
    for (int i = 0; i < 100; ++i) w.paths.too_long(ep(1), w.now, todo);
    EXPECT_TRUE(todo.empty()) << "it is known";
    EXPECT_EQ(w.pings.size(), asked);
}

// Full packets are lost a little more often than small ones where queues are full.
TEST(PathSize, LossAloneCondemnsNoPath) {
    for (uint64_t seed = 1; seed <= 200; ++seed) {
        World w(Addresses(1));
        SeededRandom dice(seed);
        w.addresses[ep(1)].lost = [&](size_t size) { return dice.below(100) < (size > 1000 ? 15U : 10U); };
        w.traffic(seconds(20));
        EXPECT_EQ(w.status(1).size, Verdict::kWhole) << seed;
    }
}

TEST(PathSize, APathThatFallsSilentWhileItIsAskedIsNotJudged) {
    World w(Addresses(1));
    bool silent = true, asked = false;
    w.addresses[ep(1)].lost = [&](size_t size) {
        asked = asked || size > 0;
        return silent && asked;
    };
    w.traffic(seconds(4));
    EXPECT_EQ(w.status(1).size, Verdict::kUnknown);
    EXPECT_FALSE(w.paths.trusted(w.now));
    silent = false;
    w.traffic(seconds(15));
    EXPECT_EQ(w.status(1).size, Verdict::kWhole);
    EXPECT_TRUE(w.paths.trusted(w.now));
}

TEST(PathSize, APathThatDiesWhileItIsAskedAgainIsLeftForGood) {
    World w(Addresses(1));
    w.traffic(seconds(5));
    ASSERT_TRUE(w.paths.trusted(w.now));
    Todo todo;
    w.paths.too_long(ep(1), w.now, todo);
    w.addresses[ep(1)].lost = [](size_t) { return true; };
    w.trust.clear();
    for (int i = 0; i < 100; ++i) {
        w.paths.note_sent(w.now, todo);
        w.carry_out(todo);
        todo.clear();
        w.rest(milliseconds(100));
    }
    EXPECT_FALSE(w.trust.empty());
    EXPECT_EQ(std::count(w.trust.begin(), w.trust.end(), true), 0);
}

TEST(PathSize, APeerThatDoesNotMeasureIsSentAwayFromTheHole) {
    World w(Addresses{Address{.mtu = 1300}});
    Todo todo;
    uint8_t n = 0;
    w.addresses[ep(2)].lost = [](size_t) { return true; };
    const auto answered = [&](size_t padding = 0) {
        disco::TxId tx{};
        tx[0] = ++n;
        return w.paths.heard_ping(ep(1), tx, padding, w.now, todo);
    };
    w.traffic(seconds(1));
    EXPECT_TRUE(answered());
    w.traffic(seconds(10));
    ASSERT_TRUE(w.paths.too_small(ep(1)));
    EXPECT_FALSE(answered());
    EXPECT_TRUE(w.paths.heard_ping(ep(2), disco::TxId{9}, 0, w.now, todo)) << "elsewhere it is";
    w.addresses[ep(1)].mtu = 1500;
    w.traffic(seconds(120));
    ASSERT_EQ(w.status(1).size, Verdict::kWhole);
    EXPECT_TRUE(answered());
    w.addresses[ep(1)].mtu = 1300;
    w.traffic(seconds(130));
    ASSERT_TRUE(w.paths.too_small(ep(1)));
    EXPECT_FALSE(answered());
    EXPECT_TRUE(answered(100)) << "it measures itself";
    EXPECT_TRUE(answered());
}

TEST(PathSize, IdlePeersCostNothing) {
    World w(Addresses{Address{.mtu = 1300}});
    w.traffic(seconds(1));
    w.rest(seconds(60));
    const size_t asked = w.pings.size();
    EXPECT_TRUE(w.paths.next_timeout().is_never());
    w.rest(seconds(3600));
    EXPECT_EQ(w.pings.size(), asked);
}

TEST(PathSize, AnotherNetworkIsMeasuredAnew) {
    World w(Addresses{Address{.mtu = 1300}});
    w.traffic(seconds(5));
    ASSERT_TRUE(w.paths.too_small(ep(1)));
    w.addresses[ep(1)].mtu = 1500;
    Todo todo;
    w.paths.reset(w.now, todo);
    w.carry_out(todo);
    w.traffic(seconds(1));
    EXPECT_TRUE(w.paths.trusted(w.now));
}

}  // namespace
}  // namespace mesh::magicsock
