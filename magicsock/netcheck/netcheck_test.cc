// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/netcheck/netcheck.h"

#include <gtest/gtest.h>

#include <functional>

#include "base/json.h"
#include "magicsock/netcheck/format.h"

namespace mesh::netcheck {
namespace {

using derp::DerpMap;

/// Regions 1..n, each with one node at 192.0.2.<id> (and 2001:db8::<id>).
DerpMap regions(int n, bool v6 = false) {
    DerpMap m;
    for (int id = 1; id <= n; ++id) {
        derp::DerpRegion r;
        r.id = id;
        r.code = "r" + std::to_string(id);
        r.name = "Region " + std::to_string(id);
        derp::DerpNode node;
        node.name = std::to_string(id) + "a";
        node.region_id = id;
        node.host_name = "derp" + std::to_string(id) + ".example";
        node.ipv4 = "192.0.2." + std::to_string(id);
        node.ipv6 = v6 ? "2001:db8::" + std::to_string(id) : "none";
        r.nodes.push_back(node);
        m.regions[id] = r;
    }
    return m;
}

/// A network in which STUN servers answer after a latency given by address; time moves by events only.
struct Lab {
    SeededRandom random{1};
    Netcheck check{random};
    Time now{seconds(1000).ns};
    Time started;
    std::function<std::optional<Duration>(const Endpoint&)> latency = [](const Endpoint&) { return milliseconds(10); };
    std::function<Endpoint(const Endpoint&)> mapped = [](const Endpoint& to) {
        return *Endpoint::parse(to.addr.is_v4() ? "198.51.100.1:41641" : "[2001:db8::99]:41641");
    };
    std::function<bool(const Endpoint&)> can_send = [](const Endpoint&) { return true; };
    std::multimap<Time, std::pair<Bytes, Endpoint>> in_flight;
    std::vector<Endpoint> sent;
    std::vector<int> https;
    std::function<void()> on_turn = [] {};

    void turn() {
        while (const auto s = check.next_send(now)) {
            sent.push_back(s->to);
            if (!can_send(s->to)) {
                check.send_failed(s->to, now);
                continue;
            }
            const auto d = latency(s->to);
            if (!d) continue;
            uint8_t out[stun::kMaxResponseLen];
            const size_t n = stun::encode_response(*stun::decode_request(s->datagram), mapped(s->to), out);
            in_flight.emplace(now + *d, std::pair(Bytes(out, out + n), s->to));
        }
        for (const int r : check.take_https_wanted()) https.push_back(r);
        on_turn();
    }
    std::optional<Report> run(const DerpMap& map, StartOptions o = {}) {
        o.map = std::make_shared<const DerpMap>(map);
        started = now;
        sent.clear();
        https.clear();
        check.start(o, now);
        for (int i = 0; i < 10000 && check.running(); ++i) {
            turn();
            if (!check.running()) break;
            const Time timer = check.next_timeout();
            const Time packet = in_flight.empty() ? Time::never() : in_flight.begin()->first;
            EXPECT_FALSE(timer.is_never() && packet.is_never()) << "stuck";
            if (timer.is_never() && packet.is_never()) break;
            now = max(now, min(timer, packet));
            if (packet <= now) {
                const auto [bytes, from] = in_flight.begin()->second;
                in_flight.erase(in_flight.begin());
                check.handle_stun(bytes, from, now);
            } else {
                check.handle_timeout(now);
            }
        }
        return check.take_report();
    }
    [[nodiscard]] Duration took() const { return now - started; }
};

TEST(Netcheck, EndsAsSoonAsEveryRegionHasAnswered) {
    Lab lab;
    lab.latency = [](const Endpoint& to) { return milliseconds(to.addr.bytes()[3] * 10); };
    const auto r = lab.run(regions(2));
    ASSERT_TRUE(r);
    EXPECT_EQ(lab.took(), milliseconds(20));
    EXPECT_TRUE(r->udp);
    EXPECT_TRUE(r->ipv4);
    EXPECT_TRUE(r->ipv4_can_send);
    EXPECT_FALSE(r->ipv6);
    EXPECT_EQ(r->preferred_derp, 1);
    EXPECT_EQ(r->region_latency.at(2), milliseconds(20));
    EXPECT_EQ(r->mapping_varies_by_dest_ip, false);
    EXPECT_EQ(r->global_v4.str(), "198.51.100.1:41641");
    EXPECT_EQ(lab.sent.size(), 2U) << "no tries beyond the first answer";
}

TEST(Netcheck, DifferentMappingsPerDestinationAreSeen) {
    Lab lab;
    lab.mapped = [](const Endpoint& to) { return Endpoint{Addr::v4(198, 51, 100, 1), to.addr.bytes()[3]}; };
    EXPECT_EQ(lab.run(regions(2))->mapping_varies_by_dest_ip, true);
}

TEST(Netcheck, OneServerSaysNothingAboutTheMapping) {
    Lab lab;
    EXPECT_FALSE(lab.run(regions(1))->mapping_varies_by_dest_ip.has_value());
    EXPECT_FALSE(lab.run(regions(1))->mapping_varies_by_dest_ip.has_value());
}

TEST(Netcheck, EnoughRegionsEndTheWaitForTheRest) {
    Lab lab;
    lab.latency = [](const Endpoint& to) -> std::optional<Duration> {
        if (to.addr.bytes()[3] > 3) return std::nullopt;
        return milliseconds(30);
    };
    const auto r = lab.run(regions(6));
    ASSERT_TRUE(r);
    EXPECT_EQ(lab.took(), milliseconds(90)) << "latency, then twice the latency in a full report";
    EXPECT_EQ(r->region_latency.size(), 3U);
}

TEST(Netcheck, ASilentRegionCostsAtMostThePatience) {
    Lab lab;
    lab.latency = [](const Endpoint& to) -> std::optional<Duration> {
        if (to.addr.bytes()[3] == 2) return std::nullopt;
        return milliseconds(5);
    };
    StartOptions o;
    o.patience = milliseconds(400);
    const auto r = lab.run(regions(2), o);
    ASSERT_TRUE(r);
    EXPECT_EQ(lab.took(), milliseconds(400));
    EXPECT_EQ(lab.sent.size(), 4U) << "one try at the first, three at the second";
    EXPECT_TRUE(lab.https.empty());
}

TEST(Netcheck, LostProbesAreRepeatedAfter100And200Milliseconds) {
    Lab lab;
    int lost = 2;
    lab.latency = [&](const Endpoint&) -> std::optional<Duration> {
        if (lost-- > 0) return std::nullopt;
        return milliseconds(10);
    };
    const auto r = lab.run(regions(1));
    ASSERT_TRUE(r);
    EXPECT_EQ(lab.took(), milliseconds(210));
    EXPECT_EQ(r->region_latency.at(1), milliseconds(10)) << "counted from the answered try";
}

TEST(Netcheck, BothFamiliesAreMeasured) {
    Lab lab;
    StartOptions o;
    o.have_v6 = o.os_has_ipv6 = true;
    lab.latency = [](const Endpoint& to) { return milliseconds(to.addr.is_v6() ? 8 : 10); };
    const auto r = lab.run(regions(2, true), o);
    ASSERT_TRUE(r);
    EXPECT_EQ(lab.took(), milliseconds(10));
    EXPECT_TRUE(r->ipv6);
    EXPECT_EQ(r->global_v6.str(), "[2001:db8::99]:41641");
    EXPECT_EQ(r->region_latency.at(1), milliseconds(8));
    EXPECT_EQ(r->region_v4_latency.at(1), milliseconds(10));
}

TEST(Netcheck, DeadIpv6DoesNotHoldUpTheReport) {
    Lab lab;
    StartOptions o;
    o.have_v6 = o.os_has_ipv6 = true;
    lab.latency = [](const Endpoint& to) -> std::optional<Duration> {
        if (to.addr.is_v6()) return std::nullopt;
        return milliseconds(10);
    };
    const auto r = lab.run(regions(2, true), o);
    ASSERT_TRUE(r);
    EXPECT_LE(lab.took(), milliseconds(100));
    EXPECT_FALSE(r->ipv6);
    EXPECT_TRUE(r->ipv6_can_send);
}

TEST(Netcheck, NamesAreAskedForAndUsedWhenTheyArrive) {
    Lab lab;
    DerpMap m = regions(1);
    m.regions[1].nodes[0].ipv4 = "";
    bool asked = false;
    lab.on_turn = [&] {
        for (const std::string& name : lab.check.names_needed()) {
            EXPECT_EQ(name, "derp1.example");
            asked = true;
            lab.now = lab.now + milliseconds(30);
            lab.check.addresses(name, {Addr::v4(192, 0, 2, 77)}, lab.now);
        }
    };
    const auto r = lab.run(m);
    ASSERT_TRUE(r);
    EXPECT_TRUE(asked);
    ASSERT_EQ(lab.sent.size(), 1U);
    EXPECT_EQ(lab.sent[0].str(), "192.0.2.77:3478");
    EXPECT_EQ(r->region_latency.at(1), milliseconds(10));
}

TEST(Netcheck, NamesThatDoNotExistEndInTheFallback) {
    Lab lab;
    DerpMap m = regions(1);
    m.regions[1].nodes[0].ipv4 = "";
    lab.on_turn = [&] {
        for (const std::string& name : lab.check.names_needed()) lab.check.addresses(name, {}, lab.now);
        for (const int region : lab.check.take_https_wanted()) lab.check.https_failed(region, lab.now);
    };
    const auto r = lab.run(m);
    ASSERT_TRUE(r);
    EXPECT_FALSE(r->udp);
    EXPECT_EQ(lab.took(), Duration{});
    EXPECT_EQ(r->preferred_derp, 0);
}

TEST(Netcheck, BlockedUdpIsMeasuredByHttps) {
    Lab lab;
    lab.latency = [](const Endpoint&) { return std::nullopt; };
    bool fed = false;
    lab.on_turn = [&] {
        if (lab.https.empty() || std::exchange(fed, true)) return;
        lab.check.https_latency(1, milliseconds(40), Addr::Family::kV4, lab.now);
        lab.check.https_latency(2, milliseconds(20), Addr::Family::kV4, lab.now);
    };
    lab.check.set_captive_portal(false);
    const auto r = lab.run(regions(2));
    ASSERT_TRUE(r);
    EXPECT_EQ(lab.https, (std::vector<int>{1, 2}));
    EXPECT_FALSE(r->udp);
    EXPECT_TRUE(r->ipv4);
    EXPECT_FALSE(r->global_v4.is_valid());
    EXPECT_EQ(r->preferred_derp, 2);
    EXPECT_EQ(r->captive_portal, false);
    EXPECT_EQ(lab.took(), milliseconds(1500));
}

TEST(Netcheck, LateStunAnswersWinOverHttps) {
    Lab lab;
    lab.latency = [](const Endpoint&) { return milliseconds(700); };
    const auto r = lab.run(regions(1));
    ASSERT_TRUE(r);
    EXPECT_TRUE(r->udp);
    EXPECT_EQ(r->region_latency.at(1), milliseconds(700));
    EXPECT_EQ(lab.took(), milliseconds(700));
}

TEST(Netcheck, NothingAtAllEndsAfterFiveSeconds) {
    Lab lab;
    lab.latency = [](const Endpoint&) { return std::nullopt; };
    const auto r = lab.run(regions(2));
    ASSERT_TRUE(r);
    EXPECT_EQ(lab.took(), seconds(5));
    EXPECT_TRUE(r->region_latency.empty());
}

TEST(Netcheck, AHostWithoutNetworkIsNoticedAtOnce) {
    Lab lab;
    lab.can_send = [](const Endpoint&) { return false; };
    lab.on_turn = [&] {
        if (!lab.https.empty() && lab.check.running()) lab.check.https_failed(1, lab.now);
    };
    const auto r = lab.run(regions(1));
    ASSERT_TRUE(r);
    EXPECT_FALSE(r->ipv4_can_send);
    EXPECT_LE(lab.took(), milliseconds(200));
}

TEST(Netcheck, AnEmptyMapGivesAnEmptyReportAtOnce) {
    Lab lab;
    const auto r = lab.run(DerpMap{});
    ASSERT_TRUE(r);
    EXPECT_EQ(lab.took(), Duration{});
}

TEST(Netcheck, RegionsNotToBeMeasuredAreLeftAlone) {
    Lab lab;
    DerpMap m = regions(3);
    m.regions[1].no_measure_no_home = true;
    m.regions[2].nodes[0].stun_port = -1;
    const auto r = lab.run(m);
    ASSERT_TRUE(r);
    EXPECT_EQ(lab.sent.size(), 1U);
    EXPECT_EQ(r->preferred_derp, 3);
}

TEST(Netcheck, IncrementalReportsAskTheFastestAndHome) {
    Lab lab;
    lab.latency = [](const Endpoint& to) { return milliseconds(to.addr.bytes()[3] * 10); };
    ASSERT_TRUE(lab.run(regions(6)));
    lab.check.set_home(5);
    lab.now = lab.now + seconds(30);
    ASSERT_TRUE(lab.run(regions(6)));
    std::map<int, int> asked;
    for (const Endpoint& e : lab.sent) ++asked[e.addr.bytes()[3]];
    EXPECT_EQ(asked.size(), 4U);
    EXPECT_TRUE(asked.contains(1) && asked.contains(2) && asked.contains(3) && asked.contains(5));
    lab.now = lab.now + minutes(5);
    ASSERT_TRUE(lab.run(regions(6)));
    EXPECT_EQ(lab.sent.size(), 6U) << "full again after five minutes";
}

TEST(Netcheck, AChangedMapIsMeasuredInFull) {
    Lab lab;
    ASSERT_TRUE(lab.run(regions(2)));
    lab.now = lab.now + seconds(30);
    ASSERT_TRUE(lab.run(regions(6)));
    EXPECT_EQ(lab.sent.size(), 6U);
}

TEST(Netcheck, HomeMovesOnlyForARealGain) {
    struct Case {
        int64_t home_ms, other_ms;
        int want;
    };
    for (const Case c : {Case{30, 25, 1},     // gain below 10 ms
                         Case{100, 80, 1},    // more than two thirds of the old latency
                         Case{100, 50, 2}, Case{30, 15, 2}}) {
        Lab lab;
        lab.check.set_home(1);
        lab.latency = [&](const Endpoint& to) {
            return milliseconds(to.addr.bytes()[3] == 1 ? c.home_ms : c.other_ms);
        };
        EXPECT_EQ(lab.run(regions(2))->preferred_derp, c.want) << c.home_ms << " " << c.other_ms;
    }
}

TEST(Netcheck, OneSlowAnswerDoesNotMoveHome) {
    Lab lab;
    lab.latency = [](const Endpoint& to) { return milliseconds(to.addr.bytes()[3] == 1 ? 20 : 40); };
    ASSERT_EQ(lab.run(regions(2))->preferred_derp, 1);
    lab.latency = [](const Endpoint& to) { return milliseconds(to.addr.bytes()[3] == 1 ? 200 : 40); };
    lab.now = lab.now + seconds(25);
    EXPECT_EQ(lab.run(regions(2))->preferred_derp, 1) << "the best of five minutes counts";
    lab.now = lab.now + seconds(400);
    EXPECT_EQ(lab.run(regions(2))->preferred_derp, 2);
}

TEST(Netcheck, AHomeThatIsHeardIsKept) {
    Lab lab;
    lab.check.set_home(1);
    lab.latency = [](const Endpoint& to) -> std::optional<Duration> {
        if (to.addr.bytes()[3] == 1) return std::nullopt;
        return milliseconds(1);
    };
    lab.check.heard_derp(1, lab.now - seconds(5));
    EXPECT_EQ(lab.run(regions(2))->preferred_derp, 1);
    lab.now = lab.now + seconds(60);
    EXPECT_EQ(lab.run(regions(2))->preferred_derp, 2) << "silent for a minute";
}

TEST(Netcheck, AHomeThatCannotBeConnectedToIsLeftThoughItsStunAnswers) {
    Lab lab;
    lab.latency = [](const Endpoint& to) { return milliseconds(to.addr.bytes()[3] * 40); };
    ASSERT_EQ(lab.run(regions(2))->preferred_derp, 1);
    lab.check.heard_derp(1, lab.now);
    lab.check.derp_unreachable(1, lab.now);
    EXPECT_EQ(lab.run(regions(2))->preferred_derp, 2);
    lab.check.derp_unreachable(2, lab.now);
    EXPECT_EQ(lab.run(regions(2))->preferred_derp, 1) << "both: the faster one";
    lab.check.heard_derp(2, lab.now);
    EXPECT_EQ(lab.run(regions(2))->preferred_derp, 2);
    lab.now = lab.now + minutes(6);
    EXPECT_EQ(lab.run(regions(2))->preferred_derp, 1) << "forgotten";
}

TEST(Netcheck, AHomeInDoubtWhoseStunIsSilentIsLeftThoughItWasHeardLately) {
    Lab lab;
    lab.latency = [](const Endpoint& to) { return milliseconds(to.addr.bytes()[3] * 10); };
    ASSERT_EQ(lab.run(regions(2))->preferred_derp, 1);
    lab.latency = [](const Endpoint& to) { return to.addr.bytes()[3] == 1 ? std::nullopt : std::optional(milliseconds(20)); };
    lab.check.heard_derp(1, lab.now);
    EXPECT_EQ(lab.run(regions(2))->preferred_derp, 1);
    lab.check.doubt_derp(1);
    EXPECT_EQ(lab.run(regions(2))->preferred_derp, 2);
}

TEST(Netcheck, AskingOnlyForUdpKeepsTheReportAndNeverAsksByHttps) {
    Lab lab;
    lab.latency = [](const Endpoint&) { return std::nullopt; };
    lab.on_turn = [&] {
        for (const int r : std::exchange(lab.https, {})) lab.check.https_latency(r, milliseconds(30 * r), Addr::Family::kV4, lab.now);
    };
    const auto before = lab.run(regions(2));
    ASSERT_EQ(before->preferred_derp, 1);
    size_t asked = 0;
    lab.on_turn = [&] { asked += lab.https.size(); };
    const auto still = lab.run(regions(2), {.map = {}, .wall = {}, .udp_only = true});
    EXPECT_EQ(asked, 0U);
    EXPECT_FALSE(still->udp);
    EXPECT_EQ(still->region_latency, before->region_latency);
    EXPECT_EQ(still->preferred_derp, 1);
    EXPECT_LE(lab.took(), milliseconds(1500));
    lab.latency = [](const Endpoint&) { return milliseconds(10); };
    const auto open = lab.run(regions(2), {.map = {}, .wall = {}, .udp_only = true});
    EXPECT_TRUE(open->udp);
    EXPECT_TRUE(open->global_v4.is_valid());
}

TEST(Netcheck, WithoutAnyAnswerHomeIsKeptIfHeardWithinTwoMinutes) {
    Lab lab;
    lab.check.set_home(2);
    lab.latency = [](const Endpoint&) { return std::nullopt; };
    lab.check.heard_derp(2, lab.now - seconds(100));
    EXPECT_EQ(lab.run(regions(2))->preferred_derp, 2);
    lab.now = lab.now + seconds(60);
    EXPECT_EQ(lab.run(regions(2))->preferred_derp, 0);
}

TEST(Netcheck, ScoresAndForcedPreference) {
    Lab lab;
    DerpMap m = regions(2);
    m.region_score[2] = 0.1;
    lab.latency = [](const Endpoint& to) { return milliseconds(to.addr.bytes()[3] * 10); };
    EXPECT_EQ(lab.run(m)->preferred_derp, 2);
    Lab other;
    StartOptions o;
    o.force_preferred = 2;
    EXPECT_EQ(other.run(regions(2), o)->preferred_derp, 2);
}

TEST(Netcheck, AnswersThatNobodyAskedForAreNotOurs) {
    Lab lab;
    uint8_t out[stun::kMaxResponseLen];
    const Endpoint from = *Endpoint::parse("192.0.2.1:3478");
    const size_t n = stun::encode_response({}, from, out);
    EXPECT_FALSE(lab.check.handle_stun(ByteSpan(out, n), from, lab.now));
    EXPECT_FALSE(lab.check.handle_stun({}, from, lab.now));
}

Report sample_report() {
    Report r;
    r.now = *json::parse_time("2026-11-21T01:20:54.897896751Z");
    r.udp = r.ipv4 = r.ipv4_can_send = r.os_has_ipv6 = true;
    r.upnp = r.pmp = r.pcp = false;
    r.preferred_derp = 900;
    r.region_latency[900] = r.region_v4_latency[900] = nanoseconds(225042);
    r.global_v4 = *Endpoint::parse("10.211.0.2:36378");
    r.global_v4_counters[r.global_v4] = 1;
    return r;
}

TEST(NetcheckFormat, JsonEqualsTheSample) {
    EXPECT_EQ(format_json(sample_report()), R"({
	"Now": "2026-11-21T01:20:54.897896751Z",
	"UDP": true,
	"IPv6": false,
	"IPv4": true,
	"IPv6CanSend": false,
	"IPv4CanSend": true,
	"OSHasIPv6": true,
	"ICMPv4": false,
	"MappingVariesByDestIP": null,
	"UPnP": false,
	"PMP": false,
	"PCP": false,
	"PreferredDERP": 900,
	"RegionLatency": {
		"900": 225042
	},
	"RegionV4Latency": {
		"900": 225042
	},
	"RegionV6Latency": {},
	"GlobalV4Counters": {
		"10.211.0.2:36378": 1
	},
	"GlobalV6Counters": null,
	"GlobalV4": "10.211.0.2:36378",
	"GlobalV6": "",
	"CaptivePortal": null
})");
    EXPECT_TRUE(format_json_line(sample_report())
                    .starts_with(R"({"Now":"2026-11-21T01:20:54.897896751Z","UDP":true,"IPv6":false,)"));
}

TEST(NetcheckFormat, TextEqualsTheSample) {
    Report r = sample_report();
    r.now = *json::parse_time("2026-11-21T01:20:54.621836778Z");
    r.global_v4 = *Endpoint::parse("10.211.0.2:36594");
    r.region_latency[900] = microseconds(812);
    DerpMap m;
    m.regions[900] = {.id = 900, .code = "lab", .name = "Lab DERP"};
    EXPECT_EQ(format_text(r, m),
              "\nReport:\n"
              "\t* Time: 2026-11-21 01:20:54.621836778Z\n"
              "\t* UDP: true\n"
              "\t* IPv4: yes, 10.211.0.2:36594\n"
              "\t* IPv6: no, but OS has support\n"
              "\t* MappingVariesByDestIP: \n"
              "\t* PortMapping: \n"
              "\t* Nearest DERP: Lab DERP\n"
              "\t* DERP latency:\n"
              "\t\t- lab: 800µs   (Lab DERP)\n");
}

TEST(NetcheckFormat, RegionsAreSortedAndUnmeasuredOnesComeLast) {
    Report r = sample_report();
    r.region_latency = {{1, milliseconds(30)}, {3, microseconds(12345)}};
    r.preferred_derp = 3;
    r.upnp = r.pcp = true;
    r.captive_portal = true;
    DerpMap m = regions(3);
    const std::string text = format_text(r, m, true, minutes(90));
    EXPECT_NE(text.find("* Time: 2026-11-21 02:50:54.897896751+01:30\n"), std::string::npos) << text;
    EXPECT_NE(text.find("* PortMapping: UPnP, PCP\n\t* CaptivePortal: true\n"), std::string::npos);
    EXPECT_NE(text.find("\t\t-  r3: 12.3ms  (derp3, Region 3)\n"
                        "\t\t-  r1: 30ms    (derp1, Region 1)\n"
                        "\t\t-  r2:         (derp2, Region 2)\n"),
              std::string::npos)
        << text;
    Report none;
    EXPECT_NE(format_text(none, m).find("* Nearest DERP: unknown (no response to latency probes)\n"),
              std::string::npos);
    EXPECT_NE(format_text(none, m).find("* PortMapping: not checked\n"), std::string::npos);
}

TEST(NetcheckFormat, DurationsReadAsInGo) {
    EXPECT_EQ(duration_text({}), "0s");
    EXPECT_EQ(duration_text(nanoseconds(999)), "999ns");
    EXPECT_EQ(duration_text(microseconds(100)), "100µs");
    EXPECT_EQ(duration_text(microseconds(1200)), "1.2ms");
    EXPECT_EQ(duration_text(milliseconds(1234)), "1.234s");
    EXPECT_EQ(duration_text(seconds(3661)), "1h1m1s");
    EXPECT_EQ(duration_text(seconds(-90)), "-1m30s");
}

}  // namespace
}  // namespace mesh::netcheck
