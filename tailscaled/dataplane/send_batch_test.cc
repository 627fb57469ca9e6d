// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/dataplane/send_batch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "base/random.h"
#include "tailscaled/dataplane/tunnel_ping.h"

namespace mesh::dataplane {
namespace {

struct Sink final : SendBatch::Sink {
    struct Sent {
        Endpoint to;
        Bytes bytes;
        size_t segment;
    };
    void send_udp(std::span<const UdpSend> sends) override {
        ++flushes;
        for (const UdpSend& s : sends) sent.push_back({s.to, to_bytes(s.bytes), s.segment});
    }
    std::vector<Sent> sent;
    int flushes = 0;
};

Endpoint ep(uint8_t n) { return {Addr::v4(192, 0, 2, n), 41641}; }

void put(SendBatch& b, const Endpoint& to, size_t n, uint8_t fill = 0) {
    std::fill_n(b.reserve(to, n + 50), n, fill);
    b.commit(n);
}

std::string shapes(const Sink& s) {
    std::string out;
    for (const auto& x : s.sent) out += std::to_string(x.bytes.size()) + "/" + std::to_string(x.segment) + " ";
    return out;
}

TEST(SendBatch, EqualDatagramsAndAShorterTailAreOneSend) {
    Sink sink;
    SendBatch b(sink);
    for (const size_t n : {100U, 100U, 60U, 60U, 60U, 100U, 100U}) put(b, ep(1), n);
    EXPECT_FALSE(b.empty());
    b.flush();
    EXPECT_EQ(shapes(sink), "260/100 120/60 200/100 ");
    b.flush();
    EXPECT_EQ(sink.flushes, 1) << "nothing left";
}

TEST(SendBatch, AtMost64SegmentsAndOneUdpPayload) {
    Sink sink;
    SendBatch b(sink);
    for (int i = 0; i < 70; ++i) put(b, ep(1), 100);
    b.flush();
    EXPECT_EQ(shapes(sink), "6400/100 600/100 ");
    sink.sent.clear();
    for (int i = 0; i < 60; ++i) put(b, ep(1), 1312);
    b.flush();
    EXPECT_EQ(shapes(sink), "64288/1312 14432/1312 ");
}

TEST(SendBatch, InterleavedEndpointsHaveTheirOwnLanes) {
    Sink sink;
    SendBatch b(sink);
    for (int i = 0; i < 10; ++i)
        for (uint8_t e = 1; e <= 8; ++e) put(b, ep(e), 100);
    b.flush();
    EXPECT_EQ(sink.flushes, 1);
    EXPECT_EQ(sink.sent.size(), 8U);
    put(b, ep(1), 100);
    for (uint8_t e = 2; e <= 9; ++e) put(b, ep(e), 100);
    EXPECT_EQ(sink.flushes, 2) << "the ninth flushes";
    b.flush();
    EXPECT_EQ(sink.sent.size(), 17U);
}

TEST(SendBatch, AGivenBackReservationLeavesNoTrace) {
    Sink sink;
    SendBatch b(sink);
    put(b, ep(1), 100);
    (void)b.reserve(ep(1), 100);
    b.commit(0);
    put(b, ep(1), 100);
    b.flush();
    EXPECT_EQ(shapes(sink), "200/100 ");
}

TEST(SendBatch, KeepsEveryByteAndTheOrderPerEndpoint) {
    SeededRandom random(4);
    Sink sink;
    SendBatch b(sink);
    std::map<Endpoint, Bytes> want, got;
    for (int i = 0; i < 20000; ++i) {
        const Endpoint to = ep(static_cast<uint8_t>(random.below(12)));
        const size_t n = random.below(10) == 0 ? 32 + random.below(9000) : 1312;
        const auto fill = static_cast<uint8_t>(i);
        put(b, to, n, fill);
        want[to].insert(want[to].end(), n, fill);
    }
    b.flush();
    for (const auto& s : sink.sent) {
        EXPECT_LE(s.bytes.size(), SendBatch::kMaxSendBytes);
        EXPECT_LE((s.bytes.size() + s.segment - 1) / s.segment, SendBatch::kMaxSegments);
        got[s.to].insert(got[s.to].end(), s.bytes.begin(), s.bytes.end());
    }
    EXPECT_EQ(got, want);
}

TEST(TunnelPings, EndExactlyOnceEachAndAreBounded) {
    SeededRandom random(1);
    TunnelPings pings;
    TunnelPings::Ended e;
    const Time t0{seconds(100).ns};
    const uint64_t token = pings.start(1, 5, PingKind::kTsmp, random, t0);
    EXPECT_FALSE(pings.answer(6, PingKind::kTsmp, token, 0, t0, e)) << "another peer";
    EXPECT_FALSE(pings.answer(5, PingKind::kIcmp, token, 0, t0, e)) << "another kind";
    EXPECT_TRUE(pings.answer(5, PingKind::kTsmp, token, 80, t0 + milliseconds(3), e));
    EXPECT_EQ(e.pong.latency.millis(), 3);
    EXPECT_FALSE(pings.answer(5, PingKind::kTsmp, token, 80, t0, e)) << "twice";
    for (uint64_t i = 0; i <= TunnelPings::kMax; ++i) pings.start(100 + i, 5, PingKind::kIcmp, random, t0);
    EXPECT_TRUE(pings.expire(t0, e)) << "one too many";
    EXPECT_EQ(e.id, 100U);
    EXPECT_FALSE(pings.expire(t0, e));
    EXPECT_EQ(pings.next_timeout(), t0 + TunnelPings::kTimeout);
    size_t n = 0;
    while (pings.expire(t0 + TunnelPings::kTimeout, e)) ++n;
    EXPECT_EQ(n, TunnelPings::kMax);
    EXPECT_TRUE(pings.next_timeout().is_never());
}

}  // namespace
}  // namespace mesh::dataplane
