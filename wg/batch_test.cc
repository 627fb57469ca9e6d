// SPDX-License-Identifier: BSD-3-Clause
// Several datagrams in one call are treated as one after the other would be.
#include <gtest/gtest.h>

#include "wg/testing.h"

namespace mesh::wg {
namespace {

using testing::Pair;
using testing::source_of;

/// `n` transport messages from b to a; texts "0", "1", …
std::vector<Bytes> messages(Pair& p, size_t n) {
    std::vector<Bytes> out;
    for (size_t i = 0; i < n; ++i) {
        p.b.transmit(0, std::to_string(i), p.now);
        out.push_back(p.b.take());
    }
    return out;
}

std::vector<Device::Opened> receive(Pair& p, std::vector<Bytes>& datagrams) {
    std::vector<MutByteSpan> spans(datagrams.begin(), datagrams.end());
    std::vector<Device::Opened> out(spans.size());
    p.a.device.receive(spans, source_of(0x0a000001), p.now, out);
    return out;
}

std::string text(const Device::Opened& o) {
    std::string t(as_text(o.plain));
    while (!t.empty() && t.back() == '\0') t.pop_back();
    return t;
}

TEST(Batch, OpensMoreThanOneRunInOrder) {
    Pair p;
    p.connect();
    std::vector<Bytes> in = messages(p, 50);
    const auto out = receive(p, in);
    for (size_t i = 0; i < out.size(); ++i) {
        ASSERT_EQ(out[i].kind, Device::Opened::kData) << i;
        ASSERT_EQ(out[i].peer, PeerId{0});
        ASSERT_EQ(text(out[i]), std::to_string(i));
    }
}

TEST(Batch, EachDatagramIsJudgedByItself) {
    Pair p;
    p.connect();
    std::vector<Bytes> in = messages(p, 6);
    in[1].back() ^= 1;                       // forged
    in.insert(in.begin() + 3, in[2]);        // twice in the same batch
    in.insert(in.begin() + 5, Bytes{4, 0});  // too short
    in.push_back(in[4]);
    in.back()[5] ^= 1;  // another session
    Bytes replayed = in[0];
    ASSERT_EQ(p.a.device.receive(replayed, source_of(0x0a000001), p.now).kind, Device::Opened::kData);
    const auto out = receive(p, in);
    using enum DropReason;
    const DropReason want[] = {kReplayed, kBadTag, kNone, kReplayed, kNone, kMalformed, kNone, kNone, kUnknownIndex};
    ASSERT_EQ(out.size(), std::size(want));
    for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(name(out[i].drop), name(want[i])) << i;
    EXPECT_EQ(text(out[4]), "3");
    EXPECT_EQ(text(out[7]), "5");
}

TEST(Batch, TheFirstDataConfirmsTheSessionAndTheRestOfTheBatchFollows) {
    Pair p;
    // b asks, a answers; a may send with that session once b has used it.
    p.b.transmit(0, "hello", p.now);
    ASSERT_EQ(p.a.deliver(p.b.take(), p.now).kind, Device::Opened::kHandshake);
    ASSERT_EQ(p.b.deliver(p.a.take(), p.now).kind, Device::Opened::kHandshake);
    ASSERT_FALSE(p.a.has_session(0, p.now));
    std::vector<Bytes> in;
    while (!p.b.sent.empty()) in.push_back(p.b.take());
    for (Bytes& m : messages(p, 3)) in.push_back(std::move(m));
    p.a.authenticated_from.clear();
    const auto out = receive(p, in);
    for (const auto& o : out) EXPECT_EQ(o.drop, DropReason::kNone);
    EXPECT_EQ(text(out.front()), "hello");
    EXPECT_EQ(text(out.back()), "2");
    EXPECT_TRUE(p.a.has_session(0, p.now));
    EXPECT_EQ(p.a.authenticated_from.size(), 1U);
}

TEST(Batch, AHandshakeInTheMiddleIsHandledInItsPlace) {
    Pair p;
    p.connect();
    std::vector<Bytes> in = messages(p, 4);
    p.b.device.set_private_key(NodePrivate{}, p.now);  // b starts over
    p.b.device.set_private_key(p.b.key, p.now);
    p.now = p.now + seconds(1);
    p.b.device.set_wall_clock(testing::kWallStart + seconds(60), p.now);
    p.b.transmit(0, "again", p.now);
    in.insert(in.begin() + 2, p.b.take());
    const auto out = receive(p, in);
    EXPECT_EQ(out[2].kind, Device::Opened::kHandshake);
    for (const size_t i : {0U, 1U, 3U, 4U}) EXPECT_EQ(out[i].kind, Device::Opened::kData) << i;
    ASSERT_FALSE(p.a.sent.empty());
    p.settle();
    EXPECT_EQ(p.a.received.back(), "again");
}

TEST(Batch, SealingInStepsGivesTheSameBytesAsOneByOne) {
    Pair p;
    p.connect();
    Session* const s = p.a.device.send_session(0, p.now);
    ASSERT_NE(s, nullptr);
    constexpr size_t kSlot = 1400;
    std::vector<Bytes> slots(20, Bytes(kSlot, 0x11));
    std::vector<crypto::AeadJob> jobs(slots.size());
    for (size_t i = 0; i < slots.size(); ++i) slots[i].resize(s->prepare(slots[i].data(), 60 * i, 1280, jobs[i]));
    s->seal(jobs);
    for (size_t i = 0; i < slots.size(); ++i) {
        const auto o = p.b.device.receive(slots[i], source_of(0x0a000001), p.now);
        ASSERT_EQ(o.kind, i == 0 ? Device::Opened::kKeepalive : Device::Opened::kData) << i;
        for (size_t k = 0; k < o.plain.size(); ++k) ASSERT_EQ(o.plain[k], k < 60 * i ? 0x11 : 0);
    }
}

}  // namespace
}  // namespace mesh::wg
