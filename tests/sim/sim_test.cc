// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "tests/sim/world.h"

namespace mesh::sim {
namespace {

constexpr std::array<NatType, 9> kAll{kOpen, kFirewall, kFullCone, kEasy, kEasyRandomPort, kEasyAddress, kHard, kHardAddress, kBlocked};

Scenario pair(const NatType& a, const NatType& b) {
    Scenario s;
    s.sites = {{.v4 = a, .link = {.delay = milliseconds(8)}}, {.v4 = b, .link = {.delay = milliseconds(12)}}};
    s.nodes = {{.site = 0, .join = {}}, {.site = 1, .join = milliseconds(100)}};
    s.flows = {{.from = 0, .to = 1, .start = seconds(4)}};
    s.length = seconds(30);
    return s;
}

void expect_good(const Scenario& s) {
    const Outcome o = run_scenario(s);
    for (const std::string& f : o.failures) ADD_FAILURE() << s.describe() << f;
}

TEST(Sim, SeedsHoldWhatIsPromised) {
    constexpr uint64_t last = 60;  // thousands: ./dev test --full runs the program sim
    int direct = 0, relayed = 0;
    for (uint64_t seed = 1; seed <= last; ++seed) {
        const Scenario s = random_scenario(seed);
        const Outcome o = run_scenario(s);
        for (const std::string& f : o.failures) ADD_FAILURE() << s.describe() << f;
        direct += o.direct_pairs;
        relayed += o.relayed_pairs;
    }
    EXPECT_GT(direct, static_cast<int>(last) / 2) << "the scenarios must not be trivial";
    EXPECT_GT(relayed, static_cast<int>(last) / 6);
}

TEST(Sim, EveryPairOfNatsEndsAsPredictedInBothRoles) {
    for (const NatType& a : kAll)
        for (const NatType& b : kAll) {
            const Outcome o = run_scenario(pair(a, b));
            for (const std::string& f : o.failures) ADD_FAILURE() << a.name << " to " << b.name << ": " << f;
            EXPECT_LE(o.reached[0].first.millis(), 150) << a.name << " to " << b.name << ": first answer";
            if (o.direct_pairs == 1) {
                EXPECT_LE(o.reached[0].second.millis(), 250) << a.name << " to " << b.name << ": direct";
            }
        }
}

TEST(Sim, ThePredictionIsThatOfTheMeasuredMatrix) {
    const auto possible = [](const NatType& a, const NatType& b) {
        const Place x{.site = 0, .v4 = a}, y{.site = 1, .v4 = b};
        EXPECT_EQ(direct_path_possible(x, y), direct_path_possible(y, x));
        return direct_path_possible(x, y);
    };
    EXPECT_TRUE(possible(kFullCone, kHard));
    EXPECT_TRUE(possible(kEasy, kEasy));
    EXPECT_TRUE(possible(kEasyRandomPort, kEasyRandomPort));
    EXPECT_TRUE(possible(kEasyAddress, kHard));
    EXPECT_FALSE(possible(kEasy, kHard));
    EXPECT_FALSE(possible(kHard, kHard));
    EXPECT_FALSE(possible(kFirewall, kHard));
    for (const NatType& n : kAll) EXPECT_FALSE(possible(n, kBlocked)) << n.name;
    EXPECT_TRUE(direct_path_possible({.site = 3, .v4 = kHard}, {.site = 3, .v4 = kHard})) << "one LAN";
    EXPECT_FALSE(direct_path_may_lapse({.site = 0, .v4 = kEasy}, {.site = 1, .v4 = kHard}));
    EXPECT_TRUE(direct_path_possible({.site = 0, .v4 = kHard, .has_v6 = true}, {.site = 1, .v4 = kHard, .has_v6 = true}));
}

TEST(Sim, TwoHardNatsUseIPv6) {
    Scenario s = pair(kHard, kHard);
    s.sites[0].has_v6 = s.sites[1].has_v6 = true;
    const Outcome o = run_scenario(s);
    EXPECT_TRUE(o.failures.empty()) << o.failures[0];
    EXPECT_EQ(o.direct_pairs, 1);
}

TEST(Sim, ALinkThatSwallowsFullPacketsHoldsNobodyUp) {
    for (const size_t mtu : {size_t{1339}, size_t{1000}, size_t{300}})
        for (const size_t who : {size_t{0}, size_t{1}}) {
            Scenario s = pair(kEasy, kEasyRandomPort);
            s.sites[who].link.mtu = mtu;
            s.flows[0].size = 1280;
            const Outcome o = run_scenario(s);
            for (const std::string& f : o.failures) ADD_FAILURE() << mtu << ": " << f;
            EXPECT_EQ(o.relayed_pairs, 1);
            EXPECT_GE(o.answers + 3, o.pings) << mtu;
        }
    Scenario s = pair(kEasy, kEasy);  // over IPv6 a full packet is longer
    s.sites[0].has_v6 = s.sites[1].has_v6 = true;
    s.sites[1].link.mtu = kFullPacketV6 - 1;
    s.flows[0].size = 1280;
    const Outcome o = run_scenario(s);
    for (const std::string& f : o.failures) ADD_FAILURE() << f;
    EXPECT_EQ(o.direct_pairs, 1);
}

TEST(Sim, PacketsFromBeforeTheNetmapAreAnsweredSoonAfterIt) {
    Scenario s = pair(kEasy, kEasy);
    s.flows[0].start = milliseconds(50);
    s.nodes[1].join = seconds(2);
    s.control_delay = seconds(1);
    expect_good(s);
}

TEST(Sim, EachDisturbanceIsOvercomeInBothRoles) {
    using Kind = Disturbance::Kind;
    for (const NatType& nat : {kEasy, kEasyRandomPort, kHard})
        for (const Kind kind : {Kind::kCut, Kind::kNatReboot, Kind::kRenumber, Kind::kRestart, Kind::kRestartNewKey, Kind::kRelayRestart})
            for (const int who : {0, 1}) {
                Scenario s = pair(nat, nat);
                s.length = seconds(45);
                s.disturbances = {{.kind = kind, .at = seconds(20), .length = seconds(3), .x = who, .y = 1 - who}};
                if (kind == Kind::kRelayRestart) s.disturbances[0].x = who + 1;
                expect_good(s);
            }
}

TEST(Sim, ANatThatForgotItsPortIsNoticedBeforeThePeriodicNetcheck) {
    Scenario s = pair(kEasyRandomPort, kEasyRandomPort);
    s.disturbances = {{.kind = Disturbance::Kind::kNatReboot, .at = seconds(8), .x = 1}};
    s.length = seconds(19);  // the next one would begin after 20 s
    expect_good(s);
}

TEST(Sim, AnIdlePairSendsNothing) {
    Scenario s = pair(kEasy, kEasy);
    s.flows.clear();
    s.length = minutes(2);  // early greeting, then 45 s of heartbeats
    const Outcome quiet = run_scenario(s);
    s.length = minutes(60);
    const Outcome later = run_scenario(s);
    EXPECT_EQ(quiet.datagrams, later.datagrams);
}

TEST(Sim, HomeIsTheNearestRegionMovesWhenItDiesAndComesBackOnce) {
    Scenario s = pair(kEasy, kEasy);
    s.regions = 3;
    // Two links of 8 and 12 ms: round trips of about 26, 66 and 216 ms, and 34, 74 and 224 ms.
    s.far = {{.delay = milliseconds(10), .dies = seconds(60), .back = seconds(120)}, {.delay = milliseconds(50)}, {.delay = milliseconds(200)}};
    s.length = minutes(15);
    std::vector<std::pair<double, int>> homes[2];
    const Outcome o = run_scenario(s, [&](const std::string& line) {
        double at = 0;
        int node = 0, home = 0;
        if (std::sscanf(line.c_str(), "%lf n%d home is %d", &at, &node, &home) == 3) homes[node].emplace_back(at, home);
    });
    for (const std::string& f : o.failures) ADD_FAILURE() << f;
    for (const auto& moves : homes) {
        ASSERT_EQ(moves.size(), 3U) << "it neither stayed nor flapped";
        EXPECT_EQ(moves[0].second, 1);
        EXPECT_EQ(moves[1].second, 2);
        EXPECT_EQ(moves[2].second, 1);
        EXPECT_LT(moves[1].first, 60 + 10) << "soon after its death";
        EXPECT_GT(moves[2].first, 120);
        EXPECT_LT(moves[2].first, 120 + 360) << "a relay that could not be dialled is given five minutes";
    }
}

TEST(Sim, ARelayThatLiesCannotBreakWhatItCarries) {
    for (const NatType& nat : {kHard, kEasy}) {
        Scenario s = pair(nat, nat);
        for (int i = 0; i < 3; ++i) s.nodes.push_back({.site = i % 2, .join = milliseconds(200)});
        s.roll_call = true;
        s.regions = 1;
        s.liar = 1;
        expect_good(s);
    }
}

TEST(Sim, TheSameSeedIsTheSameRun) {
    for (const uint64_t seed : {3ULL, 17ULL}) {
        std::vector<std::string> first, second;
        const Scenario s = random_scenario(seed);
        const Outcome a = run_scenario(s, [&](const std::string& line) { first.push_back(line); });
        const Outcome b = run_scenario(s, [&](const std::string& line) { second.push_back(line); });
        EXPECT_EQ(first, second);
        EXPECT_EQ(a.trace_hash, b.trace_hash);
        EXPECT_NE(a.trace_hash, run_scenario(random_scenario(seed + 1)).trace_hash);
    }
}

// A judge that accepts everything would be worthless.
bool says(const Outcome& o, const char* what) {
    return std::any_of(o.failures.begin(), o.failures.end(), [&](const std::string& f) { return f.find(what) != std::string::npos; });
}

TEST(SimJudge, SeesWhatIsTooLate) {
    Scenario lost = pair(kOpen, kOpen);
    lost.sites[0].link.loss_ppm = 1'000'000;  // no UDP at all, which the prediction does not know
    EXPECT_TRUE(says(run_scenario(lost), "direct never"));

    Scenario late = pair(kHard, kHard);
    late.disturbances = {{.kind = Disturbance::Kind::kRestart, .at = seconds(10), .length = minutes(5), .x = 1}};
    EXPECT_TRUE(says(run_scenario(late), "not known again"));

    Scenario alone = pair(kEasy, kEasy);
    alone.nodes[1].join = minutes(5);
    EXPECT_TRUE(says(run_scenario(alone), "never got to know"));

    Scenario silent = pair(kOpen, kBlocked);
    silent.roll_call = true;
    silent.flows.clear();
    silent.disturbances = {{.kind = Disturbance::Kind::kRestart, .at = seconds(10), .length = minutes(5), .x = 1}};
    EXPECT_TRUE(says(run_scenario(silent), "roll call"));
    silent = pair(kOpen, kOpen);
    silent.roll_call = true;
    silent.flows.clear();
    silent.disturbances = {{.kind = Disturbance::Kind::kCut, .at = seconds(10), .length = minutes(5), .x = 0, .y = 1}};
    EXPECT_TRUE(says(run_scenario(silent), "no direct path"));
}

TEST(SimJudge, SeesANodeThatDoesWhatNoNodeMay) {
    struct Row {
        Sabotage what;
        const char* said;
    };
    for (const Row& r : {Row{Sabotage::kClear, "in clear"}, Row{Sabotage::kTwice, "arrived twice"}, Row{Sabotage::kChanged, "arrived changed"},
                         Row{Sabotage::kOpenFilter, "the filter forbids"}, Row{Sabotage::kAnySource, "under the address of"},
                         Row{Sabotage::kCrossedPeers, "for another"}}) {
        Scenario s = pair(kEasy, kEasy);
        s.nodes.push_back({.site = 0, .join = milliseconds(50)});
        s.flows.push_back({.from = 1, .to = 2, .start = seconds(4)});
        s.flows.push_back({.from = 2, .to = 1, .start = seconds(4), .as = 0});
        s.flows.push_back({.from = 2, .to = 1, .start = seconds(4)});
        s.forbidden = {{2, 1}};
        const Outcome good = run_scenario(s);
        EXPECT_TRUE(good.failures.empty()) << good.failures[0];
        s.sabotage = r.what;
        const Outcome bad = run_scenario(s);
        EXPECT_TRUE(says(bad, r.said)) << r.said << ", but it said: " << (bad.failures.empty() ? "nothing" : bad.failures[0]);
    }
}

TEST(Sim, AFilterThatControlChangesIsObeyedFromThatMomentOn) {
    Scenario s = pair(kEasy, kEasy);
    s.disturbances = {{.kind = Disturbance::Kind::kDenied, .at = seconds(10), .length = seconds(5), .x = 0, .y = 1}};
    const Outcome denied = run_scenario(s);
    EXPECT_TRUE(denied.failures.empty()) << denied.failures[0];
    EXPECT_LT(denied.answers + 15, denied.pings);
}

TEST(Sim, NobodyFeelsThatControlIsGone) {
    for (const int who : {0, 1}) {
        Scenario s = pair(kEasy, kEasyRandomPort);
        s.disturbances = {{.kind = Disturbance::Kind::kPollBreaks, .at = seconds(8), .length = seconds(7), .x = who}};
        expect_good(s);
    }
}

TEST(Sim, TwentyNodesAllTalk) {
    Scenario s;
    for (int i = 0; i < 8; ++i) s.sites.push_back({.v4 = kAll[static_cast<size_t>(i)], .link = {.delay = milliseconds(5 + 4 * i)}});
    for (int i = 0; i < 20; ++i) s.nodes.push_back({.site = i % 8, .join = milliseconds(150 * i)});
    s.roll_call = true;
    s.length = seconds(30);
    expect_good(s);
}

TEST(Sim, EveryMappingWithEveryFilteringEndsAsPredicted) {
    std::vector<NatType> grid;
    for (const Depends mapping : {Depends::kNothing, Depends::kAddress, Depends::kAddressAndPort})
        for (const Depends filtering : {Depends::kNothing, Depends::kAddress, Depends::kAddressAndPort})
            grid.push_back({.name = "grid", .translates = true, .mapping = mapping, .filtering = filtering});
    for (const NatType& a : grid)
        for (const NatType& b : grid) {
            const Outcome o = run_scenario(pair(a, b));
            for (const std::string& f : o.failures)
                ADD_FAILURE() << int(a.mapping) << int(a.filtering) << " to " << int(b.mapping) << int(b.filtering) << ": " << f;
        }
}

class Sink final : public Host {
   public:
    explicit Sink(Network& net) : net_(net) {}
    void udp_arrived(Bytes datagram, const Endpoint&) override { got.emplace_back(net_.now(), std::move(datagram)); }
    void derp_arrived(Bytes, int, const NodePublic&) override {}
    void derp_connected(int, bool) override {}
    void derp_peer_gone(int, const NodePublic&) override {}
    std::vector<std::pair<Time, Bytes>> got;

   private:
    Network& net_;
};

// `count` datagrams of `size` bytes at once through one link.
std::vector<std::pair<Time, Bytes>> through(const Link& link, size_t count, size_t size, Network& net) {
    Site& a = net.add_site(kOpen);
    Site& b = net.add_site(kOpen);
    a.link = link;
    b.link = {.delay = {}};
    Sink sender(net), sink(net);
    const Endpoint from{Addr::v4(203, 0, 113, 10), 41641}, to{Addr::v4(203, 0, 114, 10), 41641};
    a.hosts[from.addr] = &sender;
    b.hosts[to.addr] = &sink;
    for (size_t i = 0; i < count; ++i) net.send_udp(a, from, to, Bytes(size, static_cast<uint8_t>(i)));
    while (!net.next_event().is_never()) net.run_next();
    return sink.got;
}

TEST(Link, IsWhatItSays) {
    const auto fresh = [] { return std::make_unique<Network>(7); };
    auto net = fresh();
    const Time start = net->now();
    auto got = through({.delay = milliseconds(10), .kbit_per_s = 1000, .queue = 5000}, 10, 972, *net);
    ASSERT_EQ(got.size(), 5U) << "1000 bytes each: five wait, the others are lost";
    EXPECT_EQ(net->queue_drops(), 5U);
    for (size_t i = 0; i < got.size(); ++i) EXPECT_EQ((got[i].first - start).millis(), static_cast<int64_t>(10 + 8 * (i + 1)));

    net = fresh();
    EXPECT_EQ(through({.mtu = 1360}, 1, 1332, *net).size(), 1U);
    EXPECT_EQ(net->too_long(), 0U);
    net = fresh();
    EXPECT_EQ(through({.mtu = 1360}, 1, 1333, *net).size(), 0U);
    EXPECT_EQ(net->too_long(), 1U);

    net = fresh();
    EXPECT_EQ(through({.duplicate_ppm = 1'000'000}, 10, 100, *net).size(), 20U);
    net = fresh();
    got = through({.replay_ppm = 1'000'000}, 10, 100, *net);
    EXPECT_EQ(got.size(), 20U);
    EXPECT_GE((got.back().first - start).millis(), 1000);
    net = fresh();
    const size_t half = through({.loss_ppm = 500'000}, 1000, 100, *net).size();
    EXPECT_GT(half, 400U);
    EXPECT_LT(half, 600U);
    net = fresh();
    EXPECT_EQ(through({.loss_in_ppm = 1'000'000}, 100, 100, *net).size(), 100U) << "only the way into the site is worse";
    for (const Link& link : {Link{.reorder_ppm = 300'000}, Link{.jitter = milliseconds(5)}}) {
        net = fresh();
        got = through(link, 100, 100, *net);
        EXPECT_EQ(got.size(), 100U);
        EXPECT_FALSE(std::is_sorted(got.begin(), got.end(), [](const auto& x, const auto& y) { return x.second[0] < y.second[0]; }));
    }
}

TEST(Nat, MapsAndFiltersByItsType) {
    const Endpoint inside = *Endpoint::parse("192.168.0.10:41641");
    const Endpoint x = *Endpoint::parse("198.18.0.1:1"), x2 = *Endpoint::parse("198.18.0.1:2"), y = *Endpoint::parse("198.18.0.2:1");
    const Addr wan = Addr::v4(203, 0, 113, 1);
    const Time now{seconds(1000).ns};
    struct Row {
        NatType type;
        bool same_for_port, same_for_addr;       // mapping
        bool lets_other_port, lets_other_addr;   // filtering
    };
    for (const Row& r : {Row{kFullCone, true, true, true, true}, Row{kEasy, true, true, false, false}, Row{kEasyAddress, true, true, true, false},
                         Row{kHard, false, false, false, false}, Row{kHardAddress, true, false, false, false}}) {
        Nat nat(r.type, wan, 1);
        const Endpoint out = *nat.outbound(inside, x, now);
        EXPECT_EQ(out.addr, wan);
        EXPECT_EQ(out.port == inside.port, r.type.preserves_port) << r.type.name;
        EXPECT_EQ(nat.inbound(x, out, now), inside) << r.type.name;
        EXPECT_EQ(nat.inbound(x2, out, now).has_value(), r.lets_other_port) << r.type.name;
        EXPECT_EQ(nat.inbound(y, out, now).has_value(), r.lets_other_addr) << r.type.name;
        EXPECT_EQ(nat.outbound(inside, x2, now) == out, r.same_for_port) << r.type.name;
        EXPECT_EQ(nat.outbound(inside, y, now) == out, r.same_for_addr) << r.type.name;
        const Endpoint other = *nat.outbound(*Endpoint::parse("192.168.0.11:41641"), x, now);
        EXPECT_NE(other, out) << r.type.name;
        EXPECT_FALSE(nat.inbound(x, out, now + r.type.expiry).has_value()) << r.type.name;
        nat.reboot();
        EXPECT_FALSE(nat.inbound(x, out, now).has_value()) << r.type.name;
    }
    Nat blocked(kBlocked, wan, 1);
    EXPECT_FALSE(blocked.outbound(inside, x, now).has_value());
    Nat firewall(kFirewall, wan, 1);
    EXPECT_FALSE(firewall.inbound(x, inside, now).has_value());
    EXPECT_EQ(firewall.outbound(inside, x, now), inside);
    EXPECT_EQ(firewall.inbound(x, inside, now), inside);
    EXPECT_EQ(Nat(kOpen, wan, 1).inbound(x, inside, now), inside);
}

}  // namespace
}  // namespace mesh::sim
