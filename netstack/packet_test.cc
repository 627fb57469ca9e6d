// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/packet.h"

#include <gtest/gtest.h>

#include "base/random.h"
#include "netstack/checksum.h"
#include "netstack/icmp.h"
#include "netstack/test_packets.h"
#include "netstack/tsmp.h"

namespace mesh::netstack {
namespace {

using test::build;
using test::parsed;
using test::Spec;

Addr addr(std::string_view text) { return *Addr::parse(text); }

TEST(Parse, ReadsTcpOverBothFamilies) {
    for (const Spec& base : {Spec{}, test::tcp6()}) {
        Spec s = base;
        s.payload = test::bytes_of_length(5);
        s.tcp_options = {1, 1, 1, 0};
        const Bytes b = build(s);
        const Parsed p = parsed(b);
        EXPECT_EQ(p.src, addr(s.src));
        EXPECT_EQ(p.dst, addr(s.dst));
        EXPECT_EQ(p.proto, kProtoTcp);
        EXPECT_EQ(p.src_port, 40000);
        EXPECT_EQ(p.dst_port, 80);
        EXPECT_EQ(p.l4_len, 24);
        EXPECT_EQ(p.payload_len(), 5U);
        EXPECT_EQ(p.total, b.size());
        EXPECT_FALSE(p.is_tcp_syn());
    }
}

TEST(Parse, PaddingBehindTheIpLengthIsNotPartOfThePacket) {
    Bytes b = build({.payload = test::bytes_of_length(3)});
    const size_t n = b.size();
    b.resize(n + 13);
    EXPECT_EQ(parsed(b).total, n);
}

TEST(Parse, LengthsThatLieAreRefused) {
    Bytes b = build({.payload = test::bytes_of_length(3)});
    Parsed p;
    EXPECT_FALSE(parse(ByteSpan(b).first(b.size() - 1), p));
    Bytes short_total = b;
    store_be16(short_total.data() + 2, 19);
    EXPECT_FALSE(parse(short_total, p));
    Bytes bad_ihl = b;
    bad_ihl[0] = 0x44;
    EXPECT_FALSE(parse(bad_ihl, p));
    Bytes version5 = b;
    version5[0] = 0x55;
    EXPECT_FALSE(parse(version5, p));
    EXPECT_FALSE(parse({}, p));
    Spec six = test::tcp6();
    const Bytes b6 = build(six);
    EXPECT_FALSE(parse(ByteSpan(b6).first(b6.size() - 1), p));
    EXPECT_FALSE(parse(ByteSpan(b6).first(39), p));
}

TEST(Parse, CutOffTransportHeadersBecomeUnknown) {
    struct Case {
        uint8_t proto;
        size_t header;
    };
    for (const Case c : {Case{kProtoTcp, 20}, Case{kProtoUdp, 8}, Case{kProtoSctp, 12}, Case{kProtoIcmp4, 4}}) {
        for (size_t n = 0; n <= c.header; ++n) {
            Bytes b = build({.proto = c.proto});
            b.resize(20 + n);
            store_be16(b.data() + 2, static_cast<uint16_t>(b.size()));
            EXPECT_EQ(parsed(b).proto, n < c.header ? kProtoUnknown : c.proto) << int{c.proto} << " " << n;
        }
    }
}

TEST(Parse, FragmentsFollowTheRules) {
    // The first one holds the whole transport header.
    const Bytes first = build({.payload = test::bytes_of_length(60), .df = false, .mf = true});
    EXPECT_EQ(parsed(first).fragment, Fragment::kFirst);
    EXPECT_EQ(parsed(first).dst_port, 80);
    Bytes tiny = build({.proto = kProtoUdp, .df = false, .mf = true});
    tiny.resize(27);
    store_be16(tiny.data() + 2, 27);
    EXPECT_EQ(parsed(tiny).proto, kProtoUnknown);
    // Later ones start at 80 bytes or behind.
    const Bytes overlap = build({.df = false, .fragment_offset = 9});
    EXPECT_EQ(parsed(overlap).proto, kProtoUnknown);
    const Bytes later = build({.df = false, .fragment_offset = 10});
    EXPECT_EQ(parsed(later).proto, kProtoTcp);
    EXPECT_EQ(parsed(later).fragment, Fragment::kLater);
    EXPECT_EQ(parsed(later).dst_port, 0);
}

Bytes with_extension(uint8_t next, ByteSpan extension, ByteSpan l4) {
    Bytes b = build(test::tcp6());
    b.resize(40);
    b[6] = next;
    b.insert(b.end(), extension.begin(), extension.end());
    b.insert(b.end(), l4.begin(), l4.end());
    store_be16(b.data() + 4, static_cast<uint16_t>(b.size() - 40));
    return b;
}

TEST(Parse, OfIpv6ExtensionHeadersOnlyADirectFragmentHeaderIsUnderstood) {
    const Bytes whole = build(test::tcp6());
    const ByteSpan tcp = ByteSpan(whole).subspan(40);
    const Bytes fragment{kProtoTcp, 0, 0, 1, 0, 0, 0, 9};
    const Parsed p = parsed(with_extension(44, fragment, tcp));
    EXPECT_EQ(p.fragment, Fragment::kFirst);
    EXPECT_EQ(p.ip_len, 48);
    EXPECT_EQ(p.dst_port, 80);
    const Bytes later{kProtoTcp, 0, 0, 80, 0, 0, 0, 9};
    EXPECT_EQ(parsed(with_extension(44, later, tcp)).fragment, Fragment::kLater);
    const Bytes overlap{kProtoTcp, 0, 0, 72, 0, 0, 0, 9};
    EXPECT_EQ(parsed(with_extension(44, overlap, tcp)).proto, kProtoUnknown);
    for (const uint8_t next : Bytes{0, 43, 51, 60, 135}) {
        const Bytes options{kProtoTcp, 0, 0, 0, 0, 0, 0, 0};
        EXPECT_EQ(parsed(with_extension(next, options, tcp)).proto, kProtoUnknown) << int{next};
        const Bytes nested{next, 0, 0, 1, 0, 0, 0, 9};
        EXPECT_EQ(parsed(with_extension(44, nested, tcp)).proto, kProtoUnknown) << int{next};
    }
}

TEST(Parse, SurvivesEveryTruncationAndRandomBytes) {
    SeededRandom random(1);
    for (int round = 0; round < 20000; ++round) {
        Bytes b(random.below(120));
        random.fill(b);
        if (!b.empty()) b[0] = static_cast<uint8_t>((round % 2 == 0 ? 0x40 : 0x60) | (b[0] & 0x0F));
        if (b.size() > 6 && round % 3 == 0) store_be16(b.data() + (round % 2 == 0 ? 2 : 4), static_cast<uint16_t>(random.below(120)));
        Parsed p;
        if (!parse(b, p)) continue;
        EXPECT_LE(p.total, b.size());
        EXPECT_LE(p.header_len(), p.total);
    }
}

TEST(Checksum, EqualsTheNaiveOneForEveryLengthAndAlignment) {
    SeededRandom random(2);
    Bytes b(2048);
    random.fill(b);
    for (size_t n = 0; n < 300; ++n)
        for (size_t at = 0; at < 9; ++at) {
            const ByteSpan part = ByteSpan(b).subspan(at, n);
            ASSERT_EQ(checksum(part), test::naive_checksum(part)) << n << " " << at;
        }
    Bytes ones(65535, 0xFF);
    EXPECT_EQ(checksum(ones), test::naive_checksum(ones));
    EXPECT_EQ(checksum({}), 0xFFFF);
}

TEST(Checksum, SumsInPiecesAndWithPseudoHeaders) {
    Bytes b = test::bytes_of_length(401);
    const ByteSpan s = b;
    EXPECT_EQ(sum_fold(sum_bytes(s.subspan(202), sum_bytes(s.subspan(64, 138), sum_bytes(s.first(64))))),
              static_cast<uint16_t>(~test::naive_checksum(s)));
    for (const Spec& base : {Spec{}, test::tcp6()}) {
        for (const uint8_t proto : {kProtoTcp, kProtoUdp}) {
            Spec spec = base;
            spec.proto = proto;
            spec.payload = test::bytes_of_length(33);
            Bytes good = build(spec);
            const Parsed p = parsed(good);
            EXPECT_TRUE(l4_checksum_ok(good, p.version, p.ip_len, proto));
            good.back() = static_cast<uint8_t>(good.back() ^ 1);
            EXPECT_FALSE(l4_checksum_ok(good, p.version, p.ip_len, proto));
        }
    }
}

TEST(Icmp, EchoRequestBecomesItsReply) {
    for (const bool v4 : {true, false}) {
        Spec s = v4 ? Spec{} : test::tcp6();
        s.proto = v4 ? kProtoIcmp4 : kProtoIcmp6;
        s.icmp_type = v4 ? 8 : 128;
        s.payload = test::bytes_of_length(21);
        Bytes b = build(s);
        const Parsed p = parsed(b);
        ASSERT_TRUE(p.is_echo_request());
        make_echo_reply(b, p);
        Spec want = s;
        want.src = s.dst;
        want.dst = s.src;
        want.icmp_type = v4 ? 0 : 129;
        EXPECT_EQ(b, build(want));
        EXPECT_TRUE(parsed(b).is_echo_reply());
        EXPECT_EQ(echo_id_seq(b, parsed(b)), 0x12340001U);
    }
}

TEST(Icmp, BuildsEchoRequestsOfOneFamilyOnly) {
    std::array<uint8_t, 48> out{};
    for (const bool v4 : {true, false}) {
        const Spec s = v4 ? Spec{} : test::tcp6();
        const size_t n = build_echo_request(addr(s.src), addr(s.dst), 0x12340001, out);
        Spec want = s;
        want.id = 0;
        want.df = false;
        want.proto = v4 ? kProtoIcmp4 : kProtoIcmp6;
        want.icmp_type = v4 ? 8 : 128;
        EXPECT_EQ(Bytes(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(n)), build(want));
    }
    EXPECT_EQ(build_echo_request(addr("1.2.3.4"), addr("::1"), 1, out), 0U);
    EXPECT_EQ(build_echo_request(addr("1.2.3.4"), {}, 1, out), 0U);
    EXPECT_EQ(build_echo_request(addr("1.2.3.4"), addr("1.2.3.5"), 1, MutByteSpan(out).first(27)), 0U);
}

TEST(Tsmp, MessagesSurviveTheRoundTrip) {
    TsmpDiscoKey key;
    key.key.raw.fill(0x5A);
    const Tsmp all[] = {TsmpReject{6, TsmpReject::kAcl, 1234, 80, false}, TsmpReject{17, TsmpReject::kShields, 1, 2, true},
                        TsmpPing{{1, 2, 3, 4, 5, 6, 7, 8}}, TsmpPong{{8, 7, 6, 5, 4, 3, 2, 1}, 58436}, key};
    for (const Tsmp& m : all) {
        for (const bool v4 : {true, false}) {
            std::array<uint8_t, kMaxTsmpPacket> out;
            const Spec s = v4 ? Spec{} : test::tcp6();
            const size_t n = encode_tsmp(m, addr(s.src), addr(s.dst), out);
            ASSERT_GT(n, 0U);
            const Parsed p = parsed(ByteSpan(out).first(n));
            EXPECT_EQ(p.proto, kProtoTsmp);
            EXPECT_EQ(p.total, n);
            EXPECT_EQ(decode_tsmp(ByteSpan(out).first(n).subspan(p.ip_len)), m);
        }
    }
}

TEST(Tsmp, BytesAreThoseOfTheProtocol) {
    std::array<uint8_t, kMaxTsmpPacket> out;
    size_t n = encode_tsmp(TsmpReject{6, TsmpReject::kAcl, 0x0102, 0x0304, false}, addr("1.2.3.4"), addr("5.6.7.8"), out);
    EXPECT_EQ(hex_encode(ByteSpan(out).first(n).subspan(20)), "21064101020304");
    n = encode_tsmp(TsmpPong{{1, 2, 3, 4, 5, 6, 7, 8}, 0xE444}, addr("1.2.3.4"), addr("5.6.7.8"), out);
    EXPECT_EQ(hex_encode(ByteSpan(out).first(n).subspan(20)), "6f0102030405060708e444");
}

TEST(Tsmp, MalformedMessagesAreNone) {
    const auto none = [](ByteSpan b) { return std::holds_alternative<std::monostate>(decode_tsmp(b)); };
    for (const char kind : {'!', 'p', 'o', 'a', 'x'}) {
        Bytes b(6, 0);
        b[0] = static_cast<uint8_t>(kind);
        EXPECT_TRUE(none(b)) << kind;
    }
    EXPECT_TRUE(none({}));
    EXPECT_TRUE(none(Bytes(8, 'p')));
    EXPECT_TRUE(none(Bytes(32, 'a')));
    EXPECT_TRUE(none(Bytes(40, 'x')));
    std::array<uint8_t, kMaxTsmpPacket> out;
    EXPECT_EQ(encode_tsmp({}, addr("1.2.3.4"), addr("5.6.7.8"), out), 0U);
    EXPECT_EQ(encode_tsmp(TsmpPing{}, addr("1.2.3.4"), addr("::1"), out), 0U);
}

}  // namespace
}  // namespace mesh::netstack
