// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/filter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>

#include "base/random.h"
#include "netstack/test_packets.h"

namespace mesh::netstack {
namespace {

using test::build;
using test::parsed;
using test::Spec;

Prefix pfx(std::string_view text) { return *Prefix::parse(text); }

FilterRule allow(std::string_view src, std::string_view dst, PortRange ports = {}, std::vector<uint8_t> protos = {}) {
    FilterRule r;
    EXPECT_TRUE(parse_source(src, r));
    std::vector<Prefix> d;
    EXPECT_TRUE(parse_ip_set(dst, d));
    for (const Prefix& p : d) r.dst.push_back({p, ports});
    r.protos = std::move(protos);
    return r;
}

const LocalSet kOwn{{pfx("100.64.0.1/32"), pfx("fd7a:115c:a1e0::1/128"), pfx("192.168.5.0/24")}, {}};

FilterTable table(const std::vector<FilterRule>& rules, const LocalSet& local = kOwn, bool shields_up = false,
                  const FilterTable::CapLookup& caps = {}) {
    return FilterTable(rules, local, shields_up, caps);
}

Verdict in(Filter& f, const FilterTable& t, const Spec& s, Trust trust = Trust::kNormal) {
    return f.check_in(t, parsed(build(s)), trust);
}
Verdict in(const FilterTable& t, const Spec& s, Trust trust = Trust::kNormal) {
    Filter f(1);
    return in(f, t, s, trust);
}

Spec syn() { return {.flags = kTcpSyn}; }
Spec udp() { return {.proto = kProtoUdp, .dport = 53}; }
Spec reversed(Spec s) {
    std::swap(s.src, s.dst);
    std::swap(s.sport, s.dport);
    return s;
}

TEST(IpSet, ReadsTheFormsOfControl) {
    std::vector<Prefix> out;
    EXPECT_TRUE(parse_ip_set("*", out));
    EXPECT_EQ(out, (std::vector<Prefix>{pfx("0.0.0.0/0"), pfx("::/0")}));
    out.clear();
    EXPECT_TRUE(parse_ip_set("10.1.0.0/16", out));
    EXPECT_TRUE(parse_ip_set("fd7a::1", out));
    EXPECT_EQ(out, (std::vector<Prefix>{pfx("10.1.0.0/16"), pfx("fd7a::1/128")}));
    for (const char* bad : {"", "x", "10.0.0.1/16", "10.0.0.0/33", "10.0.0.2-10.0.0.1", "10.0.0.1-::1", "10.0.0.1-", "cap:x", "-"}) {
        const size_t before = out.size();
        EXPECT_FALSE(parse_ip_set(bad, out)) << bad;
        EXPECT_EQ(out.size(), before);
    }
    FilterRule r;
    EXPECT_TRUE(parse_source("cap:example.com/x", r));
    EXPECT_EQ(r.src_caps, std::vector<std::string>{"example.com/x"});
    EXPECT_FALSE(parse_source("cap:", r));
}

TEST(IpSet, RangesBecomeExactlyTheirAddresses) {
    std::vector<Prefix> out;
    EXPECT_TRUE(parse_ip_set("10.0.0.1-10.0.0.6", out));
    EXPECT_EQ(out, (std::vector<Prefix>{pfx("10.0.0.1/32"), pfx("10.0.0.2/31"), pfx("10.0.0.4/31"), pfx("10.0.0.6/32")}));
    out.clear();
    EXPECT_TRUE(parse_ip_set("0.0.0.0-255.255.255.255", out));
    EXPECT_EQ(out, std::vector<Prefix>{pfx("0.0.0.0/0")});
    out.clear();
    EXPECT_TRUE(parse_ip_set("::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", out));
    EXPECT_EQ(out.size(), 254U);
    SeededRandom random(3);
    for (int round = 0; round < 300; ++round) {
        uint32_t a = random.u32() % 4096, b = random.u32() % 4096;
        if (a > b) std::swap(a, b);
        out.clear();
        ASSERT_TRUE(parse_ip_set(Addr::v4(a).str() + "-" + Addr::v4(b).str(), out));
        for (uint32_t x = 0; x < 4200; x += 7) {
            const bool inside = std::any_of(out.begin(), out.end(), [&](const Prefix& p) { return p.contains(Addr::v4(x)); });
            ASSERT_EQ(inside, a <= x && x <= b) << a << " " << b << " " << x;
        }
    }
}

TEST(Filter, DeniesByDefault) {
    EXPECT_EQ(in(FilterTable{}, syn()), Verdict::kNotLocal);
    EXPECT_EQ(in(table({}), syn()), Verdict::kNoRule);
    EXPECT_EQ(in(table({}), udp()), Verdict::kNoRule);
}

TEST(Filter, RulesMatchSourceDestinationPortAndProtocol) {
    const FilterTable t = table({allow("100.64.0.2", "100.64.0.1", {80, 90}, {6})});
    EXPECT_EQ(in(t, syn()), Verdict::kAccept);
    Spec s = syn();
    s.dport = 79;
    EXPECT_EQ(in(t, s), Verdict::kNoRule);
    s.dport = 90;
    EXPECT_EQ(in(t, s), Verdict::kAccept);
    s.src = "100.64.0.3";
    EXPECT_EQ(in(t, s), Verdict::kNoRule);
    s = syn();
    s.dst = "192.168.5.7";
    EXPECT_EQ(in(t, s), Verdict::kNoRule);
    s = udp();
    s.dport = 80;
    EXPECT_EQ(in(t, s), Verdict::kNoRule);
}

TEST(Filter, TheDestinationMustBeOurs) {
    const FilterTable t = table({allow("*", "*")});
    Spec s = syn();
    s.dst = "192.168.6.1";
    EXPECT_EQ(in(t, s), Verdict::kNotLocal);
    s.dst = "192.168.5.1";
    EXPECT_EQ(in(t, s), Verdict::kAccept);
}

TEST(Filter, AnExitNodeOpensTheInternetButNotItsNeighbourhood) {
    LocalSet local = kOwn;
    local.prefixes.push_back(pfx("0.0.0.0/0"));
    local.prefixes.push_back(pfx("203.0.113.5/32"));  // the host's own public address
    local.except = exit_node_exceptions();
    local.except.push_back(pfx("203.0.113.0/24"));
    const FilterTable t = table({allow("*", "*")}, local);
    const auto verdict = [&](std::string_view dst) {
        Spec s = syn();
        s.dst = dst;
        return in(t, s);
    };
    EXPECT_EQ(verdict("8.8.8.8"), Verdict::kAccept);
    EXPECT_EQ(verdict("203.0.113.5"), Verdict::kAccept);
    EXPECT_EQ(verdict("192.168.5.9"), Verdict::kAccept);
    for (const char* dst : {"10.0.0.1", "192.168.6.1", "172.16.0.1", "100.64.0.9", "203.0.113.6"})
        EXPECT_EQ(verdict(dst), Verdict::kNotLocal) << dst;
    Spec s = test::tcp6();
    s.dst = "2001:db8::1";
    EXPECT_EQ(in(t, s), Verdict::kNotLocal) << "only IPv4 is an exit here";
}

TEST(Filter, TcpOfAnExistingConnectionNeedsNoRule) {
    const FilterTable t = table({});
    Spec s;
    for (const uint8_t flags : {kTcpAck, uint8_t{kTcpSyn | kTcpAck}, kTcpRst, kTcpFin, uint8_t{0}}) {
        s.flags = flags;
        EXPECT_EQ(in(t, s), Verdict::kAccept) << int{flags};
    }
    s.flags = kTcpSyn | kTcpPsh;
    EXPECT_EQ(in(t, s), Verdict::kNoRule);
}

TEST(Filter, UdpAndSctpAnswersPassOnlyToTheirQuestions) {
    for (const uint8_t proto : {kProtoUdp, kProtoSctp}) {
        Filter f(1);
        const FilterTable t = table({});
        Spec question = reversed(udp());
        question.proto = proto;
        const Spec answer = reversed(question);
        EXPECT_EQ(in(f, t, answer), Verdict::kNoRule);
        EXPECT_EQ(f.check_out(parsed(build(question)), Trust::kNormal), Verdict::kAccept);
        EXPECT_EQ(in(f, t, answer), Verdict::kAccept);
        EXPECT_EQ(in(f, t, answer), Verdict::kAccept);
        Spec other = answer;
        other.sport++;
        EXPECT_EQ(in(f, t, other), Verdict::kNoRule);
        other = answer;
        other.proto = proto == kProtoUdp ? kProtoSctp : kProtoUdp;
        EXPECT_EQ(in(f, t, other), Verdict::kNoRule);
    }
}

TEST(Filter, IcmpNeedsReachabilityOnly) {
    const FilterTable t = table({allow("100.64.0.2", "100.64.0.1", {22, 22}, {6})});
    Spec s{.proto = kProtoIcmp4, .icmp_type = 8};
    EXPECT_EQ(in(t, s), Verdict::kAccept) << "ports and protocols of the rule do not matter";
    s.src = "100.64.0.3";
    EXPECT_EQ(in(t, s), Verdict::kNoRule);
    for (const uint8_t type : Bytes{0, 3, 11, 12}) {
        s.icmp_type = type;
        EXPECT_EQ(in(table({}), s), Verdict::kAccept) << int{type};
    }
    for (const uint8_t type : Bytes{5, 13}) {
        s.icmp_type = type;
        EXPECT_EQ(in(table({}), s), Verdict::kNoRule) << int{type};
    }
    Spec six = test::tcp6();
    six.proto = kProtoIcmp6;
    for (const uint8_t type : Bytes{1, 2, 3, 4, 129}) {
        six.icmp_type = type;
        EXPECT_EQ(in(table({}), six), Verdict::kAccept) << int{type};
    }
    six.icmp_type = 128;
    EXPECT_EQ(in(table({}), six), Verdict::kNoRule);
}

TEST(Filter, OtherProtocolsNeedARuleThatNamesThemAndOpensAllPorts) {
    const Spec gre{.proto = 47, .payload = test::bytes_of_length(8)};
    EXPECT_EQ(in(table({allow("*", "*")}), gre), Verdict::kNoRule);
    EXPECT_EQ(in(table({allow("*", "*", {}, {47})}), gre), Verdict::kAccept);
    EXPECT_EQ(in(table({allow("*", "*", {1, 65535}, {47})}), gre), Verdict::kNoRule);
    EXPECT_EQ(in(table({}), Spec{.proto = kProtoTsmp, .payload = test::bytes_of_length(9)}), Verdict::kAccept);
}

TEST(Filter, MulticastLinkLocalAndUnknownAreDroppedBothWays) {
    const FilterTable t = table({allow("*", "*")}, {{pfx("0.0.0.0/1"), pfx("128.0.0.0/1")}, {}});
    const auto both = [&](Spec s, Verdict want) {
        EXPECT_EQ(in(t, s), want) << s.dst;
        Filter f(1);
        EXPECT_EQ(f.check_out(parsed(build(s)), Trust::kNormal), want) << s.dst;
    };
    Spec s = udp();
    s.dst = "224.0.0.251";
    both(s, Verdict::kMulticast);
    s.dst = "169.254.3.4";
    both(s, Verdict::kLinkLocal);
    s.dst = "169.254.169.254";
    both(s, Verdict::kAccept);
    both(Spec{.df = false, .fragment_offset = 3}, Verdict::kUnknownProto);
    both(Spec{.dst = "1.2.3.4", .df = false, .fragment_offset = 100}, Verdict::kAccept);
}

TEST(Filter, ShieldsUpLetsOnlyAnswersThrough) {
    const FilterTable open = table({allow("*", "*")});
    const FilterTable shut = table({allow("*", "*")}, kOwn, true);
    Filter f(1);
    ASSERT_EQ(f.check_out(parsed(build(reversed(udp()))), Trust::kNormal), Verdict::kAccept);
    EXPECT_EQ(in(f, open, udp()), Verdict::kAccept);
    f.table_changed(open, shut);
    EXPECT_EQ(in(f, shut, udp()), Verdict::kNoRule) << "flows from before do not count";
    EXPECT_EQ(in(f, shut, syn()), Verdict::kNoRule);
    EXPECT_EQ(in(f, shut, Spec{}), Verdict::kAccept);
    ASSERT_EQ(f.check_out(parsed(build(reversed(udp()))), Trust::kNormal), Verdict::kAccept);
    EXPECT_EQ(in(f, shut, udp()), Verdict::kAccept);
    f.table_changed(shut, open);
    EXPECT_EQ(in(f, table({}), udp()), Verdict::kAccept) << "flows live through other changes";
}

TEST(Filter, JailedPeersMayOnlyAnswer) {
    Filter f(1);
    const FilterTable t = table({allow("*", "*")});
    EXPECT_EQ(in(f, t, syn(), Trust::kJailed), Verdict::kNoRule);
    EXPECT_EQ(in(f, t, udp(), Trust::kJailed), Verdict::kNoRule);
    EXPECT_EQ(in(f, t, Spec{}, Trust::kJailed), Verdict::kAccept);
    ASSERT_EQ(f.check_out(parsed(build(reversed(udp()))), Trust::kJailed), Verdict::kAccept);
    EXPECT_EQ(in(f, t, udp(), Trust::kJailed), Verdict::kAccept);
    EXPECT_EQ(in(f, table({}), udp()), Verdict::kNoRule) << "their flows are nobody else's";
}

TEST(Filter, CapSourcesAreThePeersThatHoldTheCapability) {
    const auto caps = [](std::string_view cap) {
        return cap == "printer" ? std::vector<Prefix>{pfx("100.64.0.2/32")} : std::vector<Prefix>{};
    };
    FilterRule r = allow("cap:printer", "100.64.0.1", {80, 80});
    EXPECT_EQ(in(table({r}, kOwn, false, caps), syn()), Verdict::kAccept);
    EXPECT_EQ(in(table({r}), syn()), Verdict::kNoRule) << "nobody to ask";
    Spec s{.dst = "192.168.5.1", .proto = kProtoIcmp4};
    EXPECT_EQ(in(table({r}, kOwn, false, caps), s), Verdict::kNoRule) << "destination counts for ICMP too";
    EXPECT_EQ(in(table({allow("cap:other", "*")}, kOwn, false, caps), syn()), Verdict::kNoRule);
}

TEST(Filter, ManySourcesAreFound) {
    FilterRule r = allow("10.0.0.1", "100.64.0.1");
    for (uint32_t i = 0; i < 3000; ++i) r.src.push_back(Prefix::single(Addr::v4(0x0B000000U + i * 3)));
    const FilterTable t = table({r});
    Spec s = syn();
    s.src = "11.0.0.6";
    EXPECT_EQ(in(t, s), Verdict::kAccept);
    s.src = "11.0.0.7";
    EXPECT_EQ(in(t, s), Verdict::kNoRule);
}

FlowTable::Key key(uint32_t n) { return {Addr::v4(n), Addr::v4(1), 1, 2, 17}; }

TEST(FlowTable, TheLeastRecentlyUsedMakesRoom) {
    FlowTable t(4, 1);
    for (uint32_t i = 0; i < 4; ++i) t.insert(key(i));
    EXPECT_TRUE(t.touch(key(0)));
    t.insert(key(4));
    EXPECT_EQ(t.size(), 4U);
    EXPECT_FALSE(t.touch(key(1)));
    for (const uint32_t i : {0U, 2U, 3U, 4U}) EXPECT_TRUE(t.touch(key(i))) << i;
    t.clear();
    EXPECT_FALSE(t.touch(key(0)));
    t.insert(key(9));
    EXPECT_TRUE(t.touch(key(9)));
}

TEST(FlowTable, AgreesWithAPlainListUnderRandomUse) {
    SeededRandom random(5);
    FlowTable t(64, 9);
    std::deque<uint32_t> model;  // newest first
    for (int step = 0; step < 50000; ++step) {
        const uint32_t n = random.below(120);
        const auto it = std::find(model.begin(), model.end(), n);
        const bool present = it != model.end();
        if (random.below(2) == 0) {
            ASSERT_EQ(t.touch(key(n)), present) << step;
            if (!present) continue;
        } else {
            t.insert(key(n));
        }
        if (present) model.erase(it);
        model.push_front(n);
        if (model.size() > 64) model.pop_back();
    }
}

}  // namespace
}  // namespace mesh::netstack
