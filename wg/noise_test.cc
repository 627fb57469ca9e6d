// SPDX-License-Identifier: BSD-3-Clause
#include "wg/noise.h"

#include <gtest/gtest.h>

#include "wg/cookie.h"
#include "wg/stamp.h"
#include "wg/timer_queue.h"

namespace mesh::wg {
namespace {

Identity identity(uint64_t seed) {
    crypto::init();
    SeededRandom r(seed);
    const NodePrivate k = NodePrivate::generate(r);
    Identity id;
    id.secret.bytes() = k.secret();
    id.key = k.public_key();
    return id;
}

struct Handshake {
    Identity a = identity(1), b = identity(2);
    SeededRandom random{3};
    Secret shared_a, shared_b;
    InitiatorHandshake state;
    Initiation initiation;
    OpenedInitiation opened;
    Response response;
    TransportKeys keys_a, keys_b;
    Stamp stamp = tai64n(1'700'000'000'123'456'789);

    Handshake() {
        EXPECT_TRUE(static_shared(shared_a, a, b.key));
        EXPECT_TRUE(static_shared(shared_b, b, a.key));
        EXPECT_TRUE(create_initiation(initiation, state, random, a, b.key, shared_a, 0x11223344, stamp));
        EXPECT_TRUE(open_static(opened, initiation, b));
        EXPECT_TRUE(open_stamp(opened, initiation, shared_b));
        EXPECT_TRUE(create_response(response, keys_b, random, opened, 0x55667788));
    }
};

TEST(Noise, ConstantsAreTheHashesOfTheirStrings) {
    EXPECT_EQ(kInitialChain, crypto::blake2s(as_bytes("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")));
    EXPECT_EQ(kInitialHash, crypto::blake2s(kInitialChain, as_bytes("WireGuard v1 zx2c4 Jason@zx2c4.com")));
    EXPECT_EQ(hex_encode(mac1_key(NodePublic{})), "d84d593e94aac535d9107d24b9e4576f12a1d0c96b630c2961edee4259e3e3c5");
    EXPECT_EQ(hex_encode(cookie_key(NodePublic{})), "87f35004059542a9f1ef9f1492c5bbbdbb453fab54f3cb189278c839c77de6ff");
}

TEST(Noise, BothSidesDeriveTheSameKeysAndTheResponderLearnsWhoAndWhen) {
    Handshake h;
    EXPECT_EQ(h.opened.remote_static, h.a.key);
    EXPECT_EQ(h.opened.stamp, h.stamp);
    EXPECT_EQ(h.opened.remote_index, 0x11223344U);
    EXPECT_EQ(load_le32(h.response.receiver), 0x11223344U);
    ASSERT_TRUE(consume_response(h.keys_a, h.response, h.state, h.a));
    EXPECT_EQ(h.keys_a.send.bytes(), h.keys_b.receive.bytes());
    EXPECT_EQ(h.keys_a.receive.bytes(), h.keys_b.send.bytes());
    EXPECT_NE(h.keys_a.receive.bytes(), h.keys_a.send.bytes());
}

TEST(Noise, AcceptsNoInitiationWithAFlippedBit) {
    Handshake h;
    for (size_t bit = 8 * offsetof(Initiation, ephemeral); bit < 8 * offsetof(Initiation, mac1); ++bit) {
        Initiation bad = h.initiation;
        reinterpret_cast<uint8_t*>(&bad)[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
        OpenedInitiation o;
        ASSERT_FALSE(open_static(o, bad, h.b) && o.remote_static == h.a.key && open_stamp(o, bad, h.shared_b)) << bit;
    }
}

TEST(Noise, AcceptsNoResponseWithAFlippedBitAndTheHandshakeSurvivesIt) {
    Handshake h;
    for (size_t bit = 8 * offsetof(Response, ephemeral); bit < 8 * offsetof(Response, mac1); ++bit) {
        Response bad = h.response;
        reinterpret_cast<uint8_t*>(&bad)[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
        TransportKeys k;
        ASSERT_FALSE(consume_response(k, bad, h.state, h.a)) << bit;
    }
    EXPECT_TRUE(consume_response(h.keys_a, h.response, h.state, h.a));
}

TEST(Noise, RefusesWeakPoints) {
    const Identity a = identity(1);
    Secret s;
    EXPECT_FALSE(static_shared(s, a, NodePublic{}));
    NodePublic one;
    one.raw[0] = 1;
    EXPECT_FALSE(static_shared(s, a, one));
    Handshake h;
    std::memset(h.initiation.ephemeral, 0, 32);
    OpenedInitiation o;
    EXPECT_FALSE(open_static(o, h.initiation, h.b));
    std::memset(h.response.ephemeral, 0, 32);
    EXPECT_FALSE(consume_response(h.keys_a, h.response, h.state, h.a));
}

TEST(Noise, WipedHandshakeHoldsNoSecret) {
    Handshake h;
    h.state.wipe();
    EXPECT_EQ(h.state.ephemeral.bytes(), Key32{});
    EXPECT_EQ(h.state.chain.bytes(), Key32{});
    EXPECT_EQ(h.state.hash, Hash32{});
    EXPECT_FALSE(h.state.active);
}

TEST(Stamp, IsTai64nCutToSixteenMilliseconds) {
    EXPECT_EQ(hex_encode(tai64n(0)), "400000000000000a00000000");
    EXPECT_EQ(hex_encode(tai64n(1'700'000'000'999'999'999)), "400000006553f10a3b000000");
    EXPECT_EQ(hex_encode(tai64n(1'700'000'000'016'777'215)), "400000006553f10a00000000");
    EXPECT_EQ(hex_encode(tai64n(1'700'000'000'016'777'216)), "400000006553f10a01000000");
}

TEST(Stamp, GrowsStrictlyWhateverTheClockDoes) {
    StampClock c;
    const Time now{1'000'000'000};
    c.set_wall(WallTime{1'700'000'000'000'000'000}, now);
    uint64_t last = 0;
    const auto grows = [&](Time t) {
        const uint64_t s = c.next(last, t);
        EXPECT_GT(tai64n(s), tai64n(last));
        last = s;
    };
    for (int i = 0; i < 200; ++i) grows(now);  // all in one instant, past the end of a second
    EXPECT_LT(last, 1'700'000'005'000'000'000U);
    c.set_wall(WallTime{2'900'000'000'000'000'000}, now);  // years ahead
    grows(now);
    EXPECT_GE(last, 2'899'999'999'000'000'000U);
    c.set_wall(WallTime{1'700'000'100'000'000'000}, now + seconds(100));  // and back
    for (int i = 0; i < 100; ++i) grows(now + seconds(100) + milliseconds(i));
    c.set_wall(WallTime{-5}, now);  // before the epoch
    grows(now);
    EXPECT_EQ(c.latest(), last);
    // A peer that never saw the stamps from the wrong future gets ones of the present.
    c.set_wall(WallTime{1'700'000'200'000'000'000}, now + seconds(200));
    EXPECT_EQ(c.next(0, now + seconds(200)), granule_of(1'700'000'200'000'000'000));
}

TEST(Stamp, StartsAboveTheFloorOfAFormerRun) {
    StampClock c;
    c.set_wall(WallTime{1'600'000'000'000'000'000}, Time{1});
    c.raise_floor(1'700'000'000'000'000'000);
    c.raise_floor(1'650'000'000'000'000'000);  // never lowers
    EXPECT_EQ(c.latest(), 1'700'000'000'000'000'000U);
    EXPECT_EQ(c.next(0, Time{1}), 1'700'000'000'016'777'216U);
    c.raise_floor(UINT64_MAX);  // damage
    EXPECT_EQ(c.next(0, Time{1}), 1'700'000'000'016'777'216U);
}

TEST(TimerQueue, FiresInOrderAndOnlyMovesForward) {
    SeededRandom r(5);
    TimerQueue q;
    std::vector<Time> want(500, Time::never());
    for (int i = 0; i < 5000; ++i) {
        const PeerId p = r.below(500);
        const Time t{1 + static_cast<int64_t>(r.below(100'000))};
        q.arm(p, t);
        want[p] = min(want[p], t);
        if (i % 7 == 0) {
            const PeerId gone = r.below(500);
            q.remove(gone);
            want[gone] = Time::never();
        }
    }
    Time last{0};
    size_t n = 0;
    while (!q.next().is_never()) {
        const Time t = q.next();
        const PeerId p = q.pop();
        EXPECT_EQ(want[p], t);
        want[p] = Time::never();
        EXPECT_LE(last, t);
        last = t;
        ++n;
    }
    for (const Time t : want) EXPECT_TRUE(t.is_never());
    EXPECT_GT(n, 300U);
}

}  // namespace
}  // namespace mesh::wg
