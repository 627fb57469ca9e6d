// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>

#include "base/random.h"
#include "netstack/checksum.h"
#include "netstack/coalesce.h"
#include "netstack/segment.h"
#include "netstack/test_packets.h"

namespace mesh::netstack {
namespace {

using test::build;
using test::bytes_of_length;
using test::parsed;
using test::Spec;

struct Written {
    VnetHdr vnet;
    Bytes bytes;
    size_t pieces;
};

/// One batch through a coalescer; each write as one run of bytes.
std::vector<Written> coalesce(std::vector<Bytes>& packets, Coalescer& c) {
    for (Bytes& b : packets) {
        Parsed p;
        if (parse(b, p)) c.add(MutByteSpan(b).first(p.total), p);
    }
    std::vector<Written> out;
    for (const TunWrite& w : c.take()) {
        Written o{w.vnet, {}, w.pieces.size()};
        for (const ByteSpan piece : w.pieces) o.bytes.insert(o.bytes.end(), piece.begin(), piece.end());
        out.push_back(std::move(o));
    }
    return out;
}

std::vector<Written> coalesce(std::vector<Bytes> packets) {
    Coalescer c(1);
    return coalesce(packets, c);
}

std::vector<Bytes> split(const VnetHdr& vnet, Bytes bytes) {
    const Parsed p = parsed(bytes);
    Segmenter s;
    std::vector<Bytes> out;
    if (!s.begin({vnet, bytes}, p)) return out;
    for (size_t i = 0; i < s.count(); ++i) {
        Bytes b(s.length(i));
        s.write(i, b.data());
        out.push_back(std::move(b));
    }
    return out;
}

/// Sizes of the payload of each write, and of its segments, as text: "300/100 50" = one write of three, one alone.
std::string shape(const std::vector<Written>& writes) {
    std::string out;
    for (const Written& w : writes) {
        if (!out.empty()) out += " ";
        const Parsed p = parsed(w.bytes);
        out += std::to_string(p.payload_len());
        if (w.vnet.gso_type != VnetHdr::kNone) out += "/" + std::to_string(w.vnet.gso_size);
    }
    return out;
}

Spec data(uint32_t seq, size_t len, uint8_t flags = kTcpAck) {
    Spec s;
    s.seq = seq;
    s.payload = bytes_of_length(len, static_cast<uint8_t>(seq));
    s.flags = flags;
    return s;
}

Spec datagram(size_t len, uint8_t mark = 1) {
    Spec s;
    s.proto = kProtoUdp;
    s.payload = bytes_of_length(len, mark);
    return s;
}

constexpr uint8_t kPush = kTcpAck | kTcpPsh;

struct Rule {
    const char* what;
    std::vector<Spec> in;
    const char* want;
};

std::ostream& operator<<(std::ostream& o, const Rule& r) { return o << r.what; }

class CoalesceRules : public ::testing::TestWithParam<Rule> {};

Spec with(Spec s, const std::function<void(Spec&)>& change) {
    change(s);
    return s;
}

const Rule kRules[] = {
    {"tcp append", {data(0, 100), data(100, 100), data(200, 50)}, "250/100"},
    {"tcp append stops at a short tail", {data(0, 100), data(100, 50), data(150, 50)}, "150/100 50"},
    {"tcp append not of a larger one", {data(0, 100), data(100, 101)}, "100 101"},
    {"tcp append carries the push", {data(0, 100), data(100, 100, kPush)}, "200/100"},
    {"tcp append not behind a push", {data(0, 100, kPush), data(100, 100)}, "100 100"},
    {"tcp gap", {data(0, 100), data(101, 100)}, "100 100"},
    {"tcp prepend", {data(100, 100), data(0, 100)}, "200/100"},
    {"tcp prepend of a larger one to a single", {data(100, 50), data(0, 100)}, "150/100"},
    {"tcp prepend of a larger one not to several", {data(100, 100), data(200, 100), data(-150U + 100, 150)}, "200/100 150"},
    {"tcp prepend not of a smaller one", {data(50, 100), data(0, 50)}, "100 50"},
    {"tcp prepend not of a push", {data(100, 100), data(0, 100, kPush)}, "100 100"},
    {"tcp sequence numbers wrap", {data(0xFFFFFFF0U, 100), data(0xFFFFFFF0U + 100, 100)}, "200/100"},
    {"tcp pure ack alone", {data(0, 0), data(0, 100), data(100, 100)}, "0 200/100"},
    {"tcp fin alone", {data(0, 100), data(100, 100, kTcpAck | kTcpFin)}, "100 100"},
    {"tcp without ack alone", {data(0, 100, 0), data(100, 100, 0)}, "100 100"},
    {"tcp urgent alone", {data(0, 100, kTcpAck | 0x20), data(100, 100, kTcpAck | 0x20)}, "100 100"},
    {"tcp other ack number", {data(0, 100), with(data(100, 100), [](Spec& s) { s.ack++; })}, "100 100"},
    {"tcp other window", {data(0, 100), with(data(100, 100), [](Spec& s) { s.window++; })}, "100 100"},
    {"tcp other options",
     {with(data(0, 100), [](Spec& s) { s.tcp_options = {1, 1, 1, 1}; }),
      with(data(100, 100), [](Spec& s) { s.tcp_options = {1, 1, 1, 0}; })},
     "100 100"},
    {"tcp same options",
     {with(data(0, 100), [](Spec& s) { s.tcp_options = {1, 1, 1, 1}; }),
      with(data(100, 100), [](Spec& s) { s.tcp_options = {1, 1, 1, 1}; })},
     "200/100"},
    {"tcp other header length", {data(0, 100), with(data(100, 100), [](Spec& s) { s.tcp_options = {1, 1, 1, 1}; })}, "100 100"},
    {"other port", {data(0, 100), with(data(100, 100), [](Spec& s) { s.sport++; })}, "100 100"},
    {"other address", {data(0, 100), with(data(100, 100), [](Spec& s) { s.src = "100.64.0.3"; })}, "100 100"},
    {"other ToS", {data(0, 100), with(data(100, 100), [](Spec& s) { s.tos = 3; })}, "100 100"},
    {"other TTL", {data(0, 100), with(data(100, 100), [](Spec& s) { s.ttl--; })}, "100 100"},
    {"other DF", {data(0, 100), with(data(100, 100), [](Spec& s) { s.df = false; })}, "100 100"},
    {"other id is fine", {data(0, 100), with(data(100, 100), [](Spec& s) { s.id = 99; })}, "200/100"},
    {"fragments alone",
     {with(data(0, 100), [](Spec& s) { s.df = false, s.mf = true; }),
      with(data(100, 100), [](Spec& s) { s.df = false, s.mf = true; })},
     "100 100"},
    {"IPv4 options alone",
     {with(data(0, 100), [](Spec& s) { s.ip_options = {1, 1, 1, 1}; }),
      with(data(100, 100), [](Spec& s) { s.ip_options = {1, 1, 1, 1}; })},
     "100 100"},
    {"a head with a wrong checksum takes nothing",
     {with(data(0, 100), [](Spec& s) { s.bad_checksum = true; }), data(100, 100), data(200, 100)},
     "100 200/100"},
    {"a candidate with a wrong checksum goes alone",
     {data(0, 100), with(data(100, 100), [](Spec& s) { s.bad_checksum = true; }), data(100, 100)},
     "200/100 100"},
    {"two tcp flows interleaved keep the order of their first packets",
     {data(0, 100), with(data(0, 70), [](Spec& s) { s.sport++; }), data(100, 100),
      with(data(70, 70), [](Spec& s) { s.sport++; })},
     "200/100 140/70"},
    {"udp append", {datagram(100), datagram(100), datagram(50)}, "250/100"},
    {"udp short tail closes", {datagram(100), datagram(50), datagram(50), datagram(50)}, "150/100 100/50"},
    {"udp not a larger one", {datagram(100), datagram(101), datagram(101)}, "100 202/101"},
    {"udp only to the last of its flow", {datagram(100), datagram(200), datagram(100), datagram(100)}, "100 300/200 100"},
    {"udp empty datagrams are not overtaken", {datagram(100), datagram(0), datagram(100)}, "100 0 100"},
    {"udp other flow", {datagram(100), with(datagram(100), [](Spec& s) { s.dport++; })}, "100 100"},
    {"udp bad head stays where it is",
     {with(datagram(100), [](Spec& s) { s.bad_checksum = true; }), datagram(100), datagram(100)},
     "100 200/100"},
    {"udp bad candidate closes its flow",
     {datagram(100), with(datagram(100), [](Spec& s) { s.bad_checksum = true; }), datagram(100), datagram(100)},
     "100 100 200/100"},
};

TEST_P(CoalesceRules, HoldForBothFamilies) {
    for (const bool v6 : {false, true}) {
        std::vector<Bytes> packets;
        bool skip = false;
        for (Spec s : GetParam().in) {
            if (v6) {
                skip = skip || s.mf || !s.df || !s.ip_options.empty();
                const bool other = s.src == "100.64.0.3";
                s.src = other ? "fd7a:115c:a1e0::3" : "fd7a:115c:a1e0::2";
                s.dst = "fd7a:115c:a1e0::1";
            }
            packets.push_back(build(s));
        }
        if (skip) continue;
        EXPECT_EQ(shape(coalesce(packets)), GetParam().want) << (v6 ? "IPv6" : "IPv4");
    }
}

INSTANTIATE_TEST_SUITE_P(Rules, CoalesceRules, ::testing::ValuesIn(kRules));

TEST(Coalesce, TheVirtioHeaderAndTheHeadersAreThoseOfASuperPacket) {
    for (const bool v6 : {false, true}) {
        std::vector<Bytes> packets;
        for (const Spec& base : {data(0, 100), data(100, 100, kPush)}) {
            Spec s = base;
            if (v6) s.src = "fd7a:115c:a1e0::2", s.dst = "fd7a:115c:a1e0::1";
            packets.push_back(build(s));
        }
        const auto out = coalesce(packets);
        ASSERT_EQ(out.size(), 1U);
        const VnetHdr& v = out[0].vnet;
        const size_t ip_len = v6 ? 40 : 20;
        EXPECT_EQ(v.flags, VnetHdr::kNeedsCsum);
        EXPECT_EQ(v.gso_type, v6 ? VnetHdr::kTcpV6 : VnetHdr::kTcpV4);
        EXPECT_EQ(v.hdr_len, ip_len + 20);
        EXPECT_EQ(v.csum_start, ip_len);
        EXPECT_EQ(v.csum_offset, 16);
        const Bytes& b = out[0].bytes;
        EXPECT_EQ(parsed(b).total, b.size());
        EXPECT_EQ(parsed(b).tcp_flags, kPush);
        EXPECT_EQ(load_be16(b.data() + ip_len + 16), sum_fold(pseudo_sum(b.data(), v6 ? 6 : 4, 6, static_cast<uint32_t>(b.size() - ip_len))));
        if (!v6) {
            EXPECT_EQ(test::naive_checksum(ByteSpan(b).first(20)), 0);
        }
    }
}

TEST(Coalesce, NeverGrowsBeyondOnePacketLength) {
    std::vector<Bytes> packets;
    for (uint32_t i = 0; i < 60; ++i) packets.push_back(build(data(i * 1200, 1200)));
    const auto out = coalesce(packets);
    ASSERT_EQ(out.size(), 2U);
    EXPECT_LE(out[0].bytes.size(), 65535U);
    EXPECT_EQ(out[0].bytes.size(), 40U + 54 * 1200);
}

TEST(Coalesce, SwitchedOffKindsPassThrough) {
    Coalescer c(1);
    c.enable_tcp(false);
    std::vector<Bytes> tcp{build(data(0, 100)), build(data(100, 100))};
    EXPECT_EQ(shape(coalesce(tcp, c)), "100 100");
    c.enable_udp(false);
    std::vector<Bytes> udp{build(datagram(100)), build(datagram(100))};
    EXPECT_EQ(shape(coalesce(udp, c)), "100 100");
}

TEST(Coalesce, BatchesDoNotMix) {
    Coalescer c(1);
    std::vector<Bytes> first{build(data(0, 100))}, second{build(data(100, 100))};
    EXPECT_EQ(shape(coalesce(first, c)), "100");
    EXPECT_EQ(shape(coalesce(second, c)), "100");
    EXPECT_TRUE(c.take().empty());
}

TEST(Segment, SplitsTcpAsTheKernelWould) {
    Spec s = data(0xFFFFFF00U, 250, kTcpAck | kTcpPsh | kTcpFin);
    s.tcp_options = {1, 1, 1, 0};
    const Bytes b = build(s);
    // A forwarded packet's hdr_len covers the whole first packet: it must not matter.
    const auto out = split({VnetHdr::kNeedsCsum, VnetHdr::kTcpV4, 999, 100, 20, 16}, b);
    ASSERT_EQ(out.size(), 3U);
    for (size_t i = 0; i < 3; ++i) {
        Spec want = s;
        want.seq = s.seq + static_cast<uint32_t>(i * 100);
        want.id = static_cast<uint16_t>(s.id + i);
        want.flags = i == 2 ? s.flags : kTcpAck;
        const auto from = s.payload.begin() + static_cast<std::ptrdiff_t>(i * 100);
        want.payload.assign(from, i == 2 ? s.payload.end() : from + 100);
        EXPECT_EQ(out[i], build(want)) << i;
    }
}

TEST(Segment, CompletesTheChecksumOfASinglePacket) {
    for (const uint8_t proto : {kProtoTcp, kProtoUdp}) {
        Spec s = data(0, 33);
        s.proto = proto;
        const Bytes want = build(s);
        Bytes b = want;
        const uint16_t offset = proto == kProtoTcp ? 16 : 6;
        store_be16(b.data() + 20 + offset, sum_fold(pseudo_sum(b.data(), 4, proto, static_cast<uint32_t>(b.size() - 20))));
        const auto out = split({VnetHdr::kNeedsCsum, VnetHdr::kNone, 0, 0, 20, offset}, b);
        ASSERT_EQ(out.size(), 1U);
        EXPECT_EQ(out[0], want);
        // The same as a super-packet of one segment.
        const auto gso = split({VnetHdr::kNeedsCsum, proto == kProtoTcp ? VnetHdr::kTcpV4 : VnetHdr::kUdpL4, 0, 1000, 20, offset}, b);
        ASSERT_EQ(gso.size(), 1U);
        EXPECT_EQ(gso[0], want);
    }
}

TEST(Segment, OffloadFieldsThatContradictThePacketAreRefused) {
    const Bytes tcp = build(data(0, 250));
    const VnetHdr good{VnetHdr::kNeedsCsum, VnetHdr::kTcpV4, 40, 100, 20, 16};
    EXPECT_EQ(split(good, tcp).size(), 3U);
    const auto refused = [&](const std::function<void(VnetHdr&)>& change) {
        VnetHdr v = good;
        change(v);
        return split(v, tcp).empty();
    };
    EXPECT_TRUE(refused([](VnetHdr& v) { v.gso_type = VnetHdr::kTcpV6; }));
    EXPECT_TRUE(refused([](VnetHdr& v) { v.gso_type = VnetHdr::kUdpL4; }));
    EXPECT_TRUE(refused([](VnetHdr& v) { v.gso_type = VnetHdr::kUdp; }));
    EXPECT_TRUE(refused([](VnetHdr& v) { v.gso_type = 77; }));
    EXPECT_TRUE(refused([](VnetHdr& v) { v.gso_size = 0; }));
    EXPECT_TRUE(refused([](VnetHdr& v) { v.csum_start = 24; }));
    EXPECT_TRUE(refused([](VnetHdr& v) { v.gso_type = VnetHdr::kNone, v.csum_start = 289; }));
    const Bytes large = build(data(0, 5000));
    EXPECT_TRUE(split({VnetHdr::kNeedsCsum, VnetHdr::kTcpV4, 40, 1, 20, 16}, large).empty());
}

/// Equal but for what splitting cannot restore: the IPv4 id, and with it the header checksum.
Bytes canonical(Bytes b) {
    if (b[0] >> 4 == 4) {
        store_be16(b.data() + 4, 0);
        store_be16(b.data() + 10, 0);
    }
    return b;
}

TEST(SplitAfterCoalesce, IsTheIdentityForRandomTraffic) {
    constexpr uint64_t kSeeds = 400;
    for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        SeededRandom random(seed);
        const bool shuffle = seed % 4 == 0;
        std::vector<Bytes> packets;
        std::map<int, uint32_t> seqs;
        const uint32_t n = 1 + random.below(200);
        for (uint32_t i = 0; i < n; ++i) {
            const int flow = static_cast<int>(random.below(4));
            Spec s = flow % 2 == 0 ? Spec{} : test::tcp6();
            s.proto = flow < 2 ? kProtoTcp : kProtoUdp;
            const uint32_t sizes[] = {1200, 1200, 1200, 1200, 700, 64, 1, 0};
            s.payload = bytes_of_length(sizes[random.below(8)], static_cast<uint8_t>(i));
            s.seq = seqs[flow];
            seqs[flow] += static_cast<uint32_t>(s.payload.size());
            s.id = static_cast<uint16_t>(random.u32());
            if (random.below(12) == 0) s.flags = kPush;
            if (random.below(40) == 0) s.flags = kTcpAck | kTcpFin;
            if (random.below(30) == 0) s.tos = 4;
            if (random.below(30) == 0) s.ttl = 12;
            if (random.below(30) == 0) s.window = static_cast<uint16_t>(random.u32());
            if (random.below(30) == 0) s.tcp_options = {1, 1, 1, 1};
            if (random.below(30) == 0) s.bad_checksum = true;
            packets.push_back(build(s));
        }
        if (shuffle)
            for (size_t i = packets.size(); i > 1; --i) std::swap(packets[i - 1], packets[random.below(static_cast<uint32_t>(i))]);

        std::vector<Bytes> in;
        for (const Bytes& b : packets) in.push_back(canonical(b));
        Coalescer c(seed);
        std::vector<Bytes> out;
        size_t writes = 0;
        for (const Written& w : coalesce(packets, c)) {
            ++writes;
            for (Bytes& b : split(w.vnet, w.bytes)) out.push_back(canonical(std::move(b)));
        }
        EXPECT_LE(writes, in.size());

        // Datagrams keep their order flow by flow; for TCP the same segments come out.
        const auto of = [](const std::vector<Bytes>& all, uint8_t proto, uint8_t version) {
            std::vector<Bytes> some;
            for (const Bytes& b : all)
                if (parsed(b).proto == proto && parsed(b).version == version) some.push_back(b);
            return some;
        };
        EXPECT_EQ(of(in, kProtoUdp, 4), of(out, kProtoUdp, 4));
        EXPECT_EQ(of(in, kProtoUdp, 6), of(out, kProtoUdp, 6));
        std::sort(in.begin(), in.end());
        std::sort(out.begin(), out.end());
        ASSERT_EQ(in, out);
    }
}

}  // namespace
}  // namespace mesh::netstack
