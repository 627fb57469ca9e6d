// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/dataplane/seal_queue.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace mesh::dataplane {
namespace {

constexpr Time kNow{1'000'000'000};

struct Recorder : SendBatch::Sink {
    void send_udp(std::span<const UdpSend> sends) override {
        for (const UdpSend& s : sends)
            for (size_t at = 0; at < s.bytes.size(); at += s.segment)
                datagrams.push_back(to_bytes(s.bytes.subspan(at, std::min<size_t>(s.segment, s.bytes.size() - at))));
    }
    std::vector<Bytes> datagrams;
};

struct Ends {
    explicit Ends(uint64_t seed) {
        crypto::init();
        SeededRandom random(seed);
        wg::TransportKeys k;
        random.fill(k.send.bytes());
        random.fill(k.receive.bytes());
        wg::TransportKeys mirrored;
        mirrored.send = k.receive;
        mirrored.receive = k.send;
        here = std::make_unique<wg::Session>(k, wg::Role::kInitiator, 1, 2, 0, kNow);
        there = std::make_unique<wg::Session>(mirrored, wg::Role::kResponder, 2, 1, 0, kNow);
    }
    std::unique_ptr<wg::Session> here, there;
};

// Two sessions in turn, more packets than fit a queue or a lane of memory: whatever goes out is sealed, in order.
TEST(SealQueue, NothingLeavesUnsealedWhenBatchesFlushByThemselves) {
    Recorder kernel;
    SealQueue queue(kernel);
    SendBatch batch(queue);
    Ends one(1), two(2);
    const Endpoint to{Addr::v4(0x01020304), 5};
    constexpr size_t kPackets = 700, kLen = 1264;
    for (size_t i = 0; i < kPackets; ++i) {
        uint8_t* const slot = batch.reserve(to, kLen + wg::kDataOverhead + wg::kPadding);
        std::memset(slot + wg::kDataHeader, static_cast<int>(i), kLen);
        batch.commit(queue.add(i / 5 % 2 == 0 ? *one.here : *two.here, slot, kLen, 1280));
    }
    EXPECT_FALSE(kernel.datagrams.empty());
    batch.flush();
    ASSERT_EQ(kernel.datagrams.size(), kPackets);
    for (size_t i = 0; i < kPackets; ++i) {
        Bytes& d = kernel.datagrams[i];
        ASSERT_EQ((i / 5 % 2 == 0 ? one : two).there->open(d, kNow), wg::DropReason::kNone) << i;
        ASSERT_EQ(d[wg::kDataHeader + 7], static_cast<uint8_t>(i));
    }
}

/// Keeps batches, as a lane does, and does what is left of them later.
struct LateKernel final : Recorder {
    struct Kept {
        std::vector<UdpSend> sends;
        std::vector<UdpBatch::Memory> memory;
        std::vector<LateSeals> seals;
    };
    void send_batch(UdpBatch& batch) override {
        Kept& k = kept.emplace_back();
        k.sends.assign(batch.sends.begin(), batch.sends.end());
        for (UdpBatch::Memory& m : batch.memory) k.memory.push_back(std::move(m));
        for (LateSeals& s : batch.seals) k.seals.push_back(std::move(s));
    }
    bool seals_too() const override { return true; }
    void finish() {
        for (Kept& k : kept) {
            for (LateSeals& s : k.seals) {
                late += s.count;
                s.run();
            }
            send_udp(k.sends);
        }
        kept.clear();
    }
    std::vector<Kept> kept;
    size_t late = 0;
};

// What waits is sealed with the right key although its session is gone, and whatever another way needs does not wait.
TEST(SealQueue, LeavesAboutHalfToASinkThatSealsTooAlsoBeyondTheEndOfASession) {
    LateKernel kernel;
    SealQueue queue(kernel);
    SendBatch batch(queue);
    Ends one(4), two(5);
    const Endpoint to{Addr::v4(0x01020304), 5};
    constexpr size_t kPackets = 600, kLen = 1264, kFirst = 200;
    size_t sealed_now = 0;
    for (size_t i = 0; i < kPackets; ++i) {
        const bool may_wait = i < 400;
        uint8_t* const slot = batch.reserve(to, kLen + wg::kDataOverhead + wg::kPadding);
        std::memset(slot + wg::kDataHeader, static_cast<int>(i), kLen);
        batch.commit(queue.add(i < kFirst ? *one.here : *two.here, slot, kLen, 1280, may_wait));
        if (i + 1 == kFirst) {
            queue.finish();
            one.here.reset();
        }
        if (!may_wait) {
            queue.finish();  // as for what goes by relay too
            Bytes copy(slot, slot + kLen + wg::kDataOverhead);
            sealed_now += copy[wg::kDataHeader + 7] != static_cast<uint8_t>(i);
        }
    }
    batch.flush();
    EXPECT_GE(sealed_now, 190U);  // a byte may be what it was
    kernel.finish();
    EXPECT_GE(kernel.late, 100U);
    EXPECT_LE(kernel.late, 200U);
    ASSERT_EQ(kernel.datagrams.size(), kPackets);
    for (size_t i = 0; i < kPackets; ++i) {
        Bytes& d = kernel.datagrams[i];
        ASSERT_EQ((i < kFirst ? one : two).there->open(d, kNow), wg::DropReason::kNone) << i;
        ASSERT_EQ(d[wg::kDataHeader + 7], static_cast<uint8_t>(i));
    }
}

TEST(SealQueue, AWornOutSessionTakesNothing) {
    Recorder kernel;
    SealQueue queue(kernel);
    Ends ends(3);
    ends.here->skip_to_counter(wg::kRejectAfterMessages - 1);
    Bytes slot(200);
    EXPECT_GT(queue.add(*ends.here, slot.data(), 64, 1280), 0U);
    Bytes more(200);
    EXPECT_EQ(queue.add(*ends.here, more.data(), 64, 1280), 0U);
    queue.finish();
    slot.resize(64 + wg::kDataOverhead);
    EXPECT_EQ(ends.there->open(slot, kNow), wg::DropReason::kNone);
}

}  // namespace
}  // namespace mesh::dataplane
