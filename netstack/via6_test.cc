// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/via6.h"

#include <gtest/gtest.h>

#include "netstack/test_packets.h"

namespace mesh::netstack {
namespace {

using test::build;
using test::bytes_of_length;
using test::naive_checksum;
using test::naive_l4_checksum;
using test::parsed;
using test::Spec;

constexpr Time kNow{1'000'000'000};
constexpr const char* kClient6 = "fd7a:115c:a1e0::2";
constexpr const char* kTarget6 = "fd7a:115c:a1e0:b1a:0:7:a01:105";  // site 7, 10.1.1.5

Addr addr(const char* text) { return *Addr::parse(text); }
const Addr kClient4 = Addr::v4(100, 64, 0, 2);

class Via6Test : public ::testing::Test {
   protected:
    Via6Test() { via.set_routes({*Prefix::parse("fd7a:115c:a1e0:b1a:0:7:a01:100/120")}); }
    Bytes in(Spec s, Time now = kNow) {
        s.src = s.src == Spec{}.src ? kClient6 : s.src;
        s.dst = s.dst == Spec{}.dst ? kTarget6 : s.dst;
        packet = build(s);
        const MutByteSpan out = via.to_v4(packet, parsed(packet), kClient4, now);
        return {out.begin(), out.end()};
    }
    Bytes back(const Bytes& v4) {
        const Parsed p = parsed(v4);
        if (!via.is_answer(v4, p)) return {};
        Bytes out(v4.size() + Via6::kGrowth);
        out.resize(via.to_v6(v4, p, out, kNow));
        return out;
    }
    static void expect_good(const Bytes& b, const char* src, const char* dst) {
        const Parsed p = parsed(b);
        ASSERT_NE(p.version, 0);
        EXPECT_EQ(p.src, addr(src));
        EXPECT_EQ(p.dst, addr(dst));
        EXPECT_EQ(p.total, b.size());
        if (p.version == 4) {
            EXPECT_EQ(naive_checksum(ByteSpan(b).first(20)), 0);
        }
        EXPECT_EQ(p.proto == kProtoIcmp4 ? naive_checksum(ByteSpan(b).subspan(20)) : naive_l4_checksum(b, p.ip_len, p.proto), 0);
    }
    Via6 via{42};
    Bytes packet;
};

TEST_F(Via6Test, PrefixesAreRecognised) {
    EXPECT_TRUE(is_via6(*Prefix::parse("fd7a:115c:a1e0:b1a:0:7:a01:0/112")));
    EXPECT_EQ(via6_target(*Prefix::parse("fd7a:115c:a1e0:b1a:0:7:a01:0/112")), *Prefix::parse("10.1.0.0/16"));
    EXPECT_FALSE(is_via6(*Prefix::parse("fd7a:115c:a1e0:b1a::/64")));
    EXPECT_FALSE(is_via6(*Prefix::parse("fd7a:115c:a1e0:b1b:0:7:a01:0/112")));
    EXPECT_FALSE(is_via6(*Prefix::parse("10.1.0.0/16")));
    EXPECT_TRUE(via.matches(addr(kTarget6)));
    EXPECT_FALSE(via.matches(addr("fd7a:115c:a1e0:b1a:0:8:a01:105")));
}

TEST_F(Via6Test, TcpAndUdpThereAndBack) {
    for (const uint8_t proto : {kProtoTcp, kProtoUdp}) {
        for (const size_t n : {0U, 1U, 2U, 1199U}) {
            const Bytes v4 = in({.proto = proto, .sport = 40000, .dport = 443, .payload = bytes_of_length(n), .tos = 8});
            expect_good(v4, "100.64.0.2", "10.1.1.5");
            const Parsed p = parsed(v4);
            EXPECT_EQ(p.src_port, 40000);
            EXPECT_EQ(p.dst_port, 443);
            EXPECT_EQ(v4[1], 8) << "traffic class";
            const Bytes v6 = back(build({.src = "10.1.1.5", .dst = "100.64.0.2", .proto = proto, .sport = 443, .dport = 40000, .payload = bytes_of_length(n)}));
            expect_good(v6, kTarget6, kClient6);
            EXPECT_TRUE(std::equal(v6.end() - static_cast<long>(n), v6.end(), bytes_of_length(n).begin()));
        }
    }
}

TEST_F(Via6Test, ADamagedPacketStaysDamaged) {
    const Bytes v4 = in({.payload = bytes_of_length(9), .bad_checksum = true});
    EXPECT_NE(naive_l4_checksum(v4, 20, kProtoTcp), 0);
}

TEST_F(Via6Test, EchoThereAndBack) {
    const Bytes v4 = in({.proto = kProtoIcmp6, .payload = bytes_of_length(56), .icmp_type = 128});
    expect_good(v4, "100.64.0.2", "10.1.1.5");
    EXPECT_EQ(v4[20], 8);
    const Bytes v6 = back(build({.src = "10.1.1.5", .dst = "100.64.0.2", .proto = kProtoIcmp4, .payload = bytes_of_length(56), .icmp_type = 0}));
    expect_good(v6, kTarget6, kClient6);
    EXPECT_EQ(v6[40], 129);
}

TEST_F(Via6Test, UdpWithoutChecksumGetsOne) {
    in({.proto = kProtoUdp, .sport = 5, .dport = 53});
    Bytes v4 = build({.src = "10.1.1.5", .dst = "100.64.0.2", .proto = kProtoUdp, .sport = 53, .dport = 5, .payload = bytes_of_length(11)});
    store_be16(v4.data() + 26, 0);
    expect_good(back(v4), kTarget6, kClient6);
}

TEST_F(Via6Test, ErrorsOfTheSiteAreTold) {
    const Bytes sent = in({.proto = kProtoUdp, .sport = 5, .dport = 53, .payload = bytes_of_length(30)});
    const auto error = [&](uint8_t type, uint8_t code) {
        Bytes quote(sent.begin(), sent.begin() + 28);
        // Behind the four bytes that build() writes as the message's second word.
        Bytes e = build({.src = "10.1.0.1", .dst = "100.64.0.2", .proto = kProtoIcmp4, .payload = quote, .icmp_type = type, .icmp_code = code});
        store_be32(e.data() + 24, 1400);
        store_be16(e.data() + 22, 0);
        store_be16(e.data() + 22, naive_checksum(ByteSpan(e).subspan(20)));
        return back(e);
    };
    const Bytes port = error(3, 3);
    expect_good(port, kTarget6, kClient6);
    EXPECT_EQ(port[40], 1);
    EXPECT_EQ(port[41], 4);
    const Parsed quoted = parsed(Bytes(port.begin() + 48, port.end()));
    EXPECT_EQ(addr(kClient6), Addr::v6_bytes(port.data() + 48 + 8));
    EXPECT_EQ(addr(kTarget6), Addr::v6_bytes(port.data() + 48 + 24));
    static_cast<void>(quoted);
    const Bytes big = error(3, 4);
    EXPECT_EQ(big[40], 2);
    EXPECT_EQ(load_be32(big.data() + 44), 1420U);
    EXPECT_TRUE(error(5, 0).empty()) << "redirects are the site's own business";
}

TEST_F(Via6Test, WhatIsNotAnAnswerIsLeftAlone) {
    in({.sport = 40000, .dport = 443});
    EXPECT_TRUE(back(build({.src = "10.1.1.5", .dst = "100.64.0.2", .sport = 443, .dport = 40001})).empty());
    EXPECT_TRUE(back(build({.src = "10.1.1.6", .dst = "100.64.0.2", .sport = 443, .dport = 40000})).empty());
    EXPECT_TRUE(back(build({.src = "10.1.1.5", .dst = "100.64.0.2", .proto = kProtoUdp, .sport = 443, .dport = 40000})).empty());
    EXPECT_TRUE(back(build({.src = kTarget6, .dst = kClient6, .sport = 443, .dport = 40000})).empty());
}

TEST_F(Via6Test, ForbiddenTargetsFragmentsAndOtherProtocols) {
    via.set_routes({*Prefix::parse("fd7a:115c:a1e0:b1a:0:7::/96")});
    for (const char* dst : {"fd7a:115c:a1e0:b1a:0:7:7f00:1", "fd7a:115c:a1e0:b1a:0:7:e000:1", "fd7a:115c:a1e0:b1a:0:7:0:0",
                            "fd7a:115c:a1e0:b1a:0:7:a9fe:1", "fd7a:115c:a1e0:b1a:0:7:6440:1", "fd7a:115c:a1e0:b1a:0:7:ffff:ffff"})
        EXPECT_TRUE(in({.dst = dst}).empty()) << dst;
    EXPECT_TRUE(in({.proto = kProtoSctp}).empty());
    EXPECT_TRUE(in({.proto = kProtoIcmp6, .icmp_type = 1}).empty());
    packet = build({.src = kClient6, .dst = kTarget6});
    Parsed p = parsed(packet);
    p.fragment = Fragment::kFirst;
    EXPECT_TRUE(via.to_v4(packet, p, kClient4, kNow).empty());
    EXPECT_TRUE(via.to_v4(packet, parsed(packet), Addr{}, kNow).empty());
}

TEST_F(Via6Test, TwoSitesOnOneRouterDoNotMixAFlow) {
    via.set_routes({*Prefix::parse("fd7a:115c:a1e0:b1a:0:7::/96"), *Prefix::parse("fd7a:115c:a1e0:b1a:0:8::/96")});
    EXPECT_FALSE(in({}).empty());
    EXPECT_TRUE(in({.dst = "fd7a:115c:a1e0:b1a:0:8:a01:105"}).empty());
    EXPECT_FALSE(in({.dst = "fd7a:115c:a1e0:b1a:0:8:a01:105"}, kNow + Via6::kIdle).empty());
}

TEST_F(Via6Test, AFloodOfFlowsStaysWithinBounds) {
    for (unsigned i = 0; i < 100'000; ++i)
        EXPECT_FALSE(in({.sport = static_cast<uint16_t>(i), .dport = static_cast<uint16_t>(i >> 16)}, kNow + nanoseconds(i)).empty());
    EXPECT_FALSE(back(build({.src = "10.1.1.5", .dst = "100.64.0.2", .sport = 99'999 >> 16, .dport = 99'999 & 0xFFFF})).empty());
}

TEST_F(Via6Test, SurvivesAnyBytes) {
    in({});
    uint64_t x = 1;
    for (int round = 0; round < 20'000; ++round) {
        Bytes b = build({.src = "10.1.1.5", .dst = "100.64.0.2", .proto = kProtoIcmp4, .payload = bytes_of_length(40), .icmp_type = 3});
        for (int k = 0; k < 4; ++k) {
            x = x * 6364136223846793005ULL + 1442695040888963407ULL;
            b[static_cast<size_t>(x >> 33) % b.size()] = static_cast<uint8_t>(x >> 20);
        }
        b.resize(b.size() - (x >> 60));
        Parsed p;
        if (!parse(b, p)) continue;
        Bytes out(b.size() + Via6::kGrowth);
        EXPECT_LE(via.to_v6(ByteSpan(b).first(p.total), p, out, kNow), out.size());
    }
}

}  // namespace
}  // namespace mesh::netstack
