// SPDX-License-Identifier: BSD-3-Clause
#include "base/dns_message.h"

#include <gtest/gtest.h>

#include "base/test_vectors.h"

namespace mesh::dns {
namespace {

using mesh::testing::from_hex;

TEST(DnsMessage, QueriesRoundTrip) {
    Query q;
    ASSERT_EQ(parse_query(make_query(0x1234, "WWW.Example.org.", kTypeAaaa), q), QueryError::kNone);
    EXPECT_EQ(q.header.id, 0x1234);
    EXPECT_TRUE(q.header.recursion_desired);
    EXPECT_EQ(q.name, "www.example.org");
    EXPECT_EQ(q.type, kTypeAaaa);
    EXPECT_EQ(q.udp_limit(), 4096U);
    EXPECT_TRUE(make_query(1, std::string(64, 'a'), 1).empty());
    EXPECT_TRUE(make_query(1, "a..b", 1).empty());
    EXPECT_FALSE(make_query(1, "", 2).empty()) << "the root has a name";
}

TEST(DnsMessage, PointersOnlyLeadBack) {
    // A question whose name points at itself, and one that points ahead.
    for (const char* name : {"c00c", "c00e"}) {
        Query q;
        EXPECT_EQ(parse_query(from_hex(std::string("000101000001000000000000") + name + "00010001"), q), QueryError::kFormErr) << name;
    }
    // An answer whose name points at the question.
    const Bytes m = from_hex("00018180000100010000000001610162000001" "0001" "c00c00010001" "0000003c0004" "01020304");
    const auto parsed = parse_message(m);
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->answers.at(0).name, "a.b");
    EXPECT_EQ(data_text(m, parsed->answers[0]), "1.2.3.4");
    for (size_t n = 0; n < m.size(); ++n) EXPECT_FALSE(parse_message(ByteSpan(m).first(n))) << n;
}

TEST(DnsMessage, AnswersMustFitTheQuestion) {
    Query q;
    const Bytes wire = make_query(5, "a.b", kTypeA);
    ASSERT_EQ(parse_query(wire, q), QueryError::kNone);
    Bytes good = error_reply(q, kNoError);
    EXPECT_TRUE(answers(good, q, 5));
    EXPECT_FALSE(answers(good, q, 6));
    EXPECT_FALSE(answers(wire, q, 5)) << "a query is no answer";
    good[13] = 'A';
    EXPECT_TRUE(answers(good, q, 5)) << "case does not matter";
    good[13] = 'x';
    EXPECT_FALSE(answers(good, q, 5));
}

TEST(DnsMessage, OddBytesInLabelsSurviveTheTextForm) {
    Bytes wire;
    ASSERT_TRUE(append_name(wire, "a\\046b.c"));
    EXPECT_EQ(hex_encode(wire), "03612e62016300");
    Bytes message = from_hex("000101000001000000000000");
    message.insert(message.end(), wire.begin(), wire.end());
    message.insert(message.end(), {0, 1, 0, 1});
    Query q;
    ASSERT_EQ(parse_query(message, q), QueryError::kNone);
    EXPECT_EQ(q.name, "a\\046b.c") << "a dot inside a label is not a border";
}

TEST(DnsMessage, ReverseNames) {
    for (const char* text : {"100.64.0.2", "fd7a:115c:a1e0::53"}) EXPECT_EQ(parse_reverse(reverse_name(*Addr::parse(text)))->str(), text);
    EXPECT_EQ(reverse_name(Addr::v4(1, 2, 3, 4)), "4.3.2.1.in-addr.arpa");
    for (const char* bad : {"2.1.in-addr.arpa", "x.3.2.1.in-addr.arpa", "1.2.3.4.5.in-addr.arpa", "0.0.ip6.arpa", "in-addr.arpa"})
        EXPECT_FALSE(parse_reverse(bad)) << bad;
}

TEST(DnsMessage, Zones) {
    EXPECT_TRUE(is_inside("a.b.c", "b.c"));
    EXPECT_TRUE(is_inside("b.c", "b.c"));
    EXPECT_TRUE(is_inside("x", ""));
    EXPECT_FALSE(is_inside("ab.c", "b.c"));
}

TEST(DnsMessage, TypesByNameAndNumber) {
    EXPECT_EQ(parse_type("aaaa"), kTypeAaaa);
    EXPECT_EQ(parse_type("TYPE65"), 65);
    EXPECT_EQ(parse_type("ANY"), kTypeAll);
    EXPECT_EQ(parse_type("FOO"), std::nullopt);
    EXPECT_EQ(parse_type("TYPE70000"), std::nullopt);
    EXPECT_EQ(type_name(28), "AAAA");
    EXPECT_EQ(type_name(999), "TYPE999");
}

}  // namespace
}  // namespace mesh::dns
