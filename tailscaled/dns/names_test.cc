// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/dns/names.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace mesh::dns {
namespace {

/// The network of the recorded answers.
NameTable recorded() {
    NameTable t;
    t.set_suffix("tail.example");
    t.add_zone("tail.example.");
    t.add_zone("64.100.in-addr.arpa");
    t.add_host("a.tail.example.", Addr::v4(100, 64, 0, 1));
    t.add_host("b.tail.example.", Addr::v4(100, 64, 0, 2));
    t.add_reverse(Addr::v4(100, 64, 0, 2), "b.tail.example.");
    t.set_host("grafana.tail.example", {Addr::v4(100, 64, 0, 2)});
    return t;
}

/// As the recording writes it: flags, rcode, aa, tc, ra, counts and the last 16 bytes of an answer.
std::string ask(const NameTable& t, std::string_view name, uint16_t type) {
    Bytes q = make_query(7, name, type);
    q.resize(q.size() - 11);  // without EDNS, as recorded
    store_be16(q.data() + 10, 0);
    Bytes r;
    switch (answer(t, q, r)) {
        case Outcome::kForward: return "forward";
        case Outcome::kIgnore: return "ignore";
        case Outcome::kAnswered: break;
    }
    EXPECT_TRUE(parse_message(r)) << name;
    const Header h = *parse_header(r);
    EXPECT_EQ(h.id, 7);
    const std::string tail = h.answers > 0 ? hex_encode(ByteSpan(r).last(16)) : "";
    return fmt::format("flags={:04x} rcode={} aa={:d} tc={:d} ra={:d} an={} ns={} ar={} tail={}", load_be16(r.data() + 2), h.rcode,
                       h.authoritative, h.truncated, h.recursion_available, h.answers, h.authorities, h.additionals, tail);
}

TEST(Names, AnswersAsRecorded) {
    const NameTable t = recorded();
    const struct {
        std::string_view name;
        uint16_t type;
        std::string_view expected;
    } kRows[] = {
        {"a.tail.example", 1, "flags=8580 rcode=0 aa=1 tc=0 ra=1 an=1 ns=0 ar=0 tail=65000001000100000005000464400001"},
        {"b.tail.example", 1, "flags=8580 rcode=0 aa=1 tc=0 ra=1 an=1 ns=0 ar=0 tail=65000001000100000005000464400002"},
        {"b.tail.example", 28, "flags=8580 rcode=0 aa=1 tc=0 ra=1 an=0 ns=1 ar=0 tail="},
        {"b.tail.example", 16, "flags=8580 rcode=0 aa=1 tc=0 ra=1 an=0 ns=0 ar=0 tail="},
        {"b.tail.example", 2, "flags=8584 rcode=4 aa=1 tc=0 ra=1 an=0 ns=0 ar=0 tail="},
        {"b.tail.example", 255, "flags=8580 rcode=0 aa=1 tc=0 ra=1 an=1 ns=0 ar=0 tail=65000001000100000005000464400002"},
        {"nope.tail.example", 1, "flags=8583 rcode=3 aa=1 tc=0 ra=1 an=0 ns=1 ar=0 tail="},
        {"x.b.tail.example", 1, "flags=8583 rcode=3 aa=1 tc=0 ra=1 an=0 ns=1 ar=0 tail="},
        {"tail.example", 1, "flags=8583 rcode=3 aa=1 tc=0 ra=1 an=0 ns=1 ar=0 tail="},
        {"grafana.tail.example", 1, "flags=8580 rcode=0 aa=1 tc=0 ra=1 an=1 ns=0 ar=0 tail=65000001000100000005000464400002"},
        {"2.0.64.100.in-addr.arpa", 12, "flags=8580 rcode=0 aa=1 tc=0 ra=1 an=1 ns=0 ar=0 tail=6e61047461696c076578616d706c6500"},
        {"9.0.64.100.in-addr.arpa", 12, "flags=8583 rcode=3 aa=1 tc=0 ra=1 an=0 ns=1 ar=0 tail="},
        {"100.100.100.100.in-addr.arpa", 12, "flags=8580 rcode=0 aa=1 tc=0 ra=1 an=1 ns=0 ar=0 tail=61696c7363616c652d6461656d6f6e00"},
        {"magicdns.localhost-tailscale-daemon", 1, "flags=8580 rcode=0 aa=1 tc=0 ra=1 an=1 ns=0 ar=0 tail=6e000001000100000005000464646464"},
        {"10-1-2-3-via-7", 28, "flags=8580 rcode=0 aa=1 tc=0 ra=1 an=1 ns=0 ar=0 tail=fd7a115ca1e00b1a000000070a010203"},
        {"10-1-2-3-via-7.foo.ts.net", 28, "flags=8580 rcode=0 aa=1 tc=0 ra=1 an=1 ns=0 ar=0 tail=fd7a115ca1e00b1a000000070a010203"},
        {"10-1-2-3-via-7.foo.ts.net", 1, "flags=8580 rcode=0 aa=1 tc=0 ra=1 an=0 ns=0 ar=0 tail="},
        {"foo.onion", 1, "flags=8583 rcode=3 aa=1 tc=0 ra=1 an=0 ns=0 ar=0 tail="},
        {"b._dns-sd._udp.0.1.168.192.in-addr.arpa", 12, "flags=8183 rcode=3 aa=0 tc=0 ra=1 an=0 ns=0 ar=0 tail="},
        {"b._dns-sd._udp.0.1.168.192.in-addr.arpa", 1, "flags=8183 rcode=3 aa=0 tc=0 ra=1 an=0 ns=0 ar=0 tail="},
        {"b", 28, "flags=8580 rcode=0 aa=1 tc=0 ra=1 an=0 ns=0 ar=0 tail="},
        {"b", 1, "flags=8580 rcode=0 aa=1 tc=0 ra=1 an=1 ns=0 ar=0 tail=62000001000100000005000464400002"},
    };
    for (const auto& row : kRows) {
        // The recording's network called that address "grafana" as well, and there either name may come back.
        std::string expected(row.expected);
        if (row.name == "2.0.64.100.in-addr.arpa") expected = expected.substr(0, expected.find("tail=") + 5);
        const std::string got = ask(t, row.name, row.type);
        EXPECT_EQ(got.substr(0, expected.size()), expected) << row.name;
    }
    EXPECT_EQ(ask(t, "host.corp.example", 1), "forward");
    EXPECT_EQ(ask(t, "www.example.org", 1), "forward");
    EXPECT_EQ(ask(t, "nas", 1), "forward") << "a short name of the own LAN";
}

TEST(Names, CaseDoesNotMatterAndTheQuestionComesBackAsAsked) {
    const NameTable t = recorded();
    const Bytes q = make_query(9, "B.tAIL.Example", kTypeA);
    Bytes r;
    ASSERT_EQ(answer(t, q, r), Outcome::kAnswered);
    EXPECT_TRUE(std::equal(q.begin() + 12, q.begin() + 12 + 20, r.begin() + 12)) << "0x20 clients compare the case";
    EXPECT_EQ(data_text(r, parse_message(r)->answers.at(0)), "100.64.0.2");
}

TEST(Names, EdnsIsAnsweredWithEdns) {
    Bytes r;
    ASSERT_EQ(answer(recorded(), make_query(9, "b.tail.example", kTypeA), r), Outcome::kAnswered);
    EXPECT_EQ(parse_header(r)->additionals, 1);
}

TEST(Names, OtherPrefixesAndNoIpv6) {
    NameTable t;
    t.set_suffix("home.lan");
    t.add_zone("home.lan");
    t.add_zone("1.10.in-addr.arpa");
    t.add_host("nas.home.lan", Addr::v4(10, 1, 0, 2));
    t.add_reverse(Addr::v4(10, 1, 0, 2), "nas.home.lan");
    EXPECT_NE(ask(t, "nas.home.lan", 1).find("an=1"), std::string::npos);
    EXPECT_NE(ask(t, "nas.home.lan", 28).find("rcode=0 aa=1 tc=0 ra=1 an=0 ns=1"), std::string::npos);
    EXPECT_NE(ask(t, "2.0.1.10.in-addr.arpa", 12).find("an=1"), std::string::npos);
    EXPECT_NE(ask(t, "3.0.1.10.in-addr.arpa", 12).find("rcode=3"), std::string::npos);
    EXPECT_EQ(ask(t, "2.0.64.100.in-addr.arpa", 12), "forward") << "somebody else's carrier";
}

TEST(Names, ExtraRecordsMayLieOutsideTheTailnet) {
    NameTable t = recorded();
    t.add_host("wiki.corp.example", *Addr::parse("fd7a:115c:a1e0::9"));
    EXPECT_NE(ask(t, "wiki.corp.example", 28).find("an=1"), std::string::npos);
    EXPECT_NE(ask(t, "wiki.corp.example", 1).find("rcode=0 aa=1 tc=0 ra=1 an=0 ns=0"), std::string::npos) << "not our zone to speak for";
    EXPECT_EQ(ask(t, "other.corp.example", 1), "forward");
}

TEST(Names, NamesBelowAHostOnlyWhenItMayHaveThem) {
    NameTable t = recorded();
    t.add_wildcard("b.tail.example");
    EXPECT_NE(ask(t, "x.y.b.tail.example", 1).find("an=1"), std::string::npos);
    EXPECT_NE(ask(t, "x.a.tail.example", 1).find("rcode=3"), std::string::npos);
}

TEST(Names, BrokenQueriesGetAnErrorAndResponsesSilence) {
    Bytes r;
    Bytes q = make_query(3, "b.tail.example", kTypeA);
    q.resize(20);
    ASSERT_EQ(answer(recorded(), q, r), Outcome::kAnswered);
    EXPECT_EQ(parse_header(r)->rcode, kFormErr);
    q = make_query(3, "b.tail.example", kTypeA);
    q[2] = 0x28;  // UPDATE
    ASSERT_EQ(answer(recorded(), q, r), Outcome::kAnswered);
    EXPECT_EQ(parse_header(r)->rcode, kNotImp);
    q[2] = 0x80;
    EXPECT_EQ(answer(recorded(), q, r), Outcome::kIgnore);
    EXPECT_EQ(answer(recorded(), ByteSpan(q).first(5), r), Outcome::kIgnore);
}

TEST(Names, LongAnswersSendUdpClientsToTcp) {
    NameTable t;
    std::vector<Addr> many;
    for (uint8_t i = 0; i < 20; ++i) many.push_back(Addr::v4(10, 0, 0, i));
    t.set_host("many.example.with.a.rather.long.name.to.fill.the.space", many);
    Bytes q = make_query(3, "many.example.with.a.rather.long.name.to.fill.the.space", kTypeA);
    Bytes full;
    ASSERT_EQ(answer(t, q, full), Outcome::kAnswered);
    EXPECT_EQ(parse_header(full)->answers, 16) << "bounded";
    ASSERT_GT(full.size(), kPlainUdpBytes);
    EXPECT_EQ(fit_udp(q, full), full) << "EDNS takes it";
    q.resize(q.size() - 11);
    store_be16(q.data() + 10, 0);
    const Bytes cut = fit_udp(q, full);
    EXPECT_TRUE(parse_header(cut)->truncated);
    EXPECT_EQ(parse_header(cut)->answers, 0);
    EXPECT_LE(cut.size(), kPlainUdpBytes);
    EXPECT_TRUE(parse_message(cut));
}

}  // namespace
}  // namespace mesh::dns
