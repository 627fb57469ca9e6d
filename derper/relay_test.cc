// SPDX-License-Identifier: BSD-3-Clause
#include "derper/relay.h"

#include <gtest/gtest.h>

#include "derper/relay_net.h"

namespace mesh::derper {
namespace {

TEST(Relay, PacketsReachTheirDestinationWithTheSendersKey) {
    Net n;
    const auto ka = n.key(), kb = n.key();
    const ConnId a = n.connect(ka), b = n.connect(kb);
    (void)n.relay.take_dirty();
    n.relay.packet(a, kb.public_key(), Bytes(10, 7), n.now);
    EXPECT_EQ(n.relay.take_dirty(), std::vector<ConnId>{b});
    const auto got = n.take(b);
    ASSERT_EQ(got.size(), 1U);
    EXPECT_EQ(got[0].type, derp::FrameType::kRecvPacket);
    EXPECT_EQ(NodePublic::from(ByteSpan(got[0].payload).first(32)), ka.public_key());
    EXPECT_EQ(to_bytes(ByteSpan(got[0].payload).subspan(32)), Bytes(10, 7));
}

TEST(Relay, OnlyDiscoToAnUnknownKeyIsAnsweredAndNotTooOften) {
    Net n;
    const ConnId a = n.connect(n.key());
    const NodePublic nobody = n.key().public_key();
    n.relay.packet(a, nobody, Bytes(100, 1), n.now);
    EXPECT_TRUE(n.take(a).empty());
    for (int i = 0; i < 10; ++i) n.relay.packet(a, nobody, disco_packet(), n.now);
    auto got = n.take(a);
    ASSERT_EQ(got.size(), 3U) << "burst of three";
    EXPECT_EQ(got[0].type, derp::FrameType::kPeerGone);
    EXPECT_EQ(got[0].payload.back(), 1) << "not here";
    n.now = n.now + seconds(1);
    for (int i = 0; i < 10; ++i) n.relay.packet(a, nobody, disco_packet(), n.now);
    EXPECT_EQ(n.take(a).size(), 1U) << "then one a second";
    EXPECT_EQ(n.relay.stats().dropped_unknown.total(), 21U);
}

TEST(Relay, WhoeverHeardFromAKeyHearsOfItsDeparture) {
    Net n;
    const auto ka = n.key(), kb = n.key(), kc = n.key();
    const ConnId a = n.connect(ka), b = n.connect(kb), c = n.connect(kc);
    n.relay.packet(a, kb.public_key(), Bytes(10, 7), n.now);
    (void)n.take(b);
    n.disconnect(a);
    const auto got = n.take(b);
    ASSERT_EQ(got.size(), 1U);
    EXPECT_EQ(got[0].type, derp::FrameType::kPeerGone);
    EXPECT_EQ(NodePublic::from(ByteSpan(got[0].payload).first(32)), ka.public_key());
    EXPECT_EQ(got[0].payload.back(), 0) << "disconnected";
    EXPECT_TRUE(n.take(c).empty()) << "never heard from it";
    n.disconnect(b);
    n.disconnect(c);
    EXPECT_EQ(n.relay.stats().clients, 0U);
}

TEST(Relay, AConnectionMadeAfterThePacketDoesNotHearOfTheDeparture) {
    Net n;
    const auto ka = n.key(), kb = n.key();
    const ConnId a = n.connect(ka);
    ConnId b = n.connect(kb);
    n.relay.packet(a, kb.public_key(), Bytes(10, 7), n.now);
    n.disconnect(b);
    b = n.connect(kb);
    n.disconnect(a);
    EXPECT_TRUE(n.take(b).empty());
}

TEST(Relay, DuplicatesLastWriterIsActive) {
    Net n;
    const auto ka = n.key(), kb = n.key();
    const ConnId a = n.connect(ka), b1 = n.connect(kb), b2 = n.connect(kb);
    EXPECT_EQ(n.relay.stats().clients, 2U);
    EXPECT_EQ(n.relay.stats().connections, 3U);
    EXPECT_EQ(n.relay.stats().duplicate_keys, 1U);
    EXPECT_EQ(n.relay.stats().duplicates, 1U);
    n.relay.packet(a, kb.public_key(), Bytes(1, 1), n.now);
    EXPECT_EQ(n.take(b1).size(), 0U);
    EXPECT_EQ(n.take(b2).size(), 1U) << "the newest";
    n.relay.activity(b1);
    n.relay.packet(a, kb.public_key(), Bytes(1, 1), n.now);
    EXPECT_EQ(n.take(b1).size(), 1U) << "it wrote last";
    EXPECT_EQ(n.take(b2).size(), 0U);
    n.relay.packet(b1, ka.public_key(), Bytes(1, 1), n.now);
    (void)n.take(a);
    n.disconnect(b1);
    EXPECT_EQ(n.relay.stats().duplicate_keys, 0U);
    EXPECT_TRUE(n.take(a).empty()) << "the key is still here";
    n.relay.packet(a, kb.public_key(), Bytes(1, 1), n.now);
    EXPECT_EQ(n.take(b2).size(), 1U);
    n.disconnect(b2);
    EXPECT_EQ(n.take(a).size(), 1U) << "now it is gone";
}

TEST(Relay, ANodeMayTalkToItself) {
    Net n;
    const auto ka = n.key();
    const ConnId a = n.connect(ka);
    n.relay.packet(a, ka.public_key(), Bytes(1, 1), n.now);
    EXPECT_EQ(n.take(a).size(), 1U);
    n.disconnect(a);
    EXPECT_FALSE(n.relay.is_connected(ka.public_key()));
}

}  // namespace
}  // namespace mesh::derper
