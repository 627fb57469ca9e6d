// SPDX-License-Identifier: BSD-3-Clause
#include "platform/net/send_lane.h"

#include <algorithm>
#include <atomic>
#include <cerrno>

#include "platform/test_support.h"

namespace mesh::platform {
namespace {

using testing::turn_until;

std::atomic<int> held_calls{0};  // so many sendmmsg() may go on; < 0: all

int held_sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
    for (int n; (n = held_calls.load()) == 0;) held_calls.wait(n);
    if (held_calls.load() > 0) held_calls.fetch_sub(1);
    return ::sendmmsg(fd, messages, count, flags);
}
int refusing_sendmmsg(int, mmsghdr*, unsigned, int) {
    errno = ENETUNREACH;
    return -1;
}

std::unique_ptr<UdpSocket> open_local(int (*sendmmsg)(int, mmsghdr*, unsigned, int) = nullptr, Addr::Family family = Addr::Family::kV4) {
    UdpSocket::Options o;
    o.family = family;
    o.bind_addr = family == Addr::Family::kV4 ? Addr::v4(127, 0, 0, 1) : *Addr::parse("::1");
    o.protect = Protect::kNo;
    o.sendmmsg = sendmmsg;
    auto s = UdpSocket::open(o);
    EXPECT_TRUE(s.has_value()) << (s ? "" : s.error().message());
    return s ? std::move(*s) : nullptr;
}

struct Sink : UdpSocket::Listener {
    std::vector<Bytes> datagrams;
    void on_datagrams(std::span<UdpReceive> batch) override {
        for (const UdpReceive& r : batch) r.each([&](ByteSpan d) { datagrams.push_back(to_bytes(d)); });
    }
    void on_send_error(const Endpoint&, int) override { ADD_FAILURE() << "the receiver sends nothing"; }
};

constexpr Time kNow{1'000'000'000};
constexpr size_t kMemory = 64 << 10;

/// One buffer, as a batch has it: filled, given away, filled again.
struct Batch {
    /// `count` datagrams of `size` bytes that begin with their number, from `first` on.
    UdpBatch fill(const Endpoint& to, uint32_t first, size_t count, size_t size) {
        if (!memory) memory = std::make_unique<uint8_t[]>(kMemory);
        for (size_t i = 0; i < count; ++i) {
            uint8_t* const at = memory.get() + i * size;
            std::fill_n(at, size, uint8_t{0});
            store_be32(at, first + static_cast<uint32_t>(i));
        }
        send = {to, {memory.get(), count * size}, static_cast<uint32_t>(size)};
        return {{&send, 1}, {&memory, 1}, {}};
    }
    UdpBatch::Memory memory;
    UdpSend send;
};

class SendLaneTest : public ::testing::Test {
   protected:
    SendLaneTest() { held_calls = -1; }
    void open(LaneMode mode, int (*sendmmsg)(int, mmsghdr*, unsigned, int) = nullptr) {
        from = open_local(sendmmsg);
        to = open_local();
        to->attach(loop, sink);
        lane.emplace(loop, from.get(), nullptr, mode,
                     SendLane::Hooks{[this](const Endpoint& e, int err) { errors.emplace_back(e, err); }, [this] {
                                         ++news;
                                         lane->reap();
                                     }});
    }
    [[nodiscard]] std::vector<uint32_t> numbers() const {
        std::vector<uint32_t> out;
        for (const Bytes& d : sink.datagrams) out.push_back(load_be32(d.data()));
        return out;
    }
    void expect_in_order(size_t count) {
        ASSERT_TRUE(turn_until(loop, [&] { return sink.datagrams.size() >= count; }));
        std::vector<uint32_t> want(count);
        for (uint32_t i = 0; i < count; ++i) want[i] = i;
        EXPECT_EQ(numbers(), want);
    }
    Loop loop;
    Sink sink;
    std::unique_ptr<UdpSocket> from, to;
    std::vector<std::pair<Endpoint, int>> errors;
    int news = 0;
    std::optional<SendLane> lane;
};

TEST_F(SendLaneTest, KeepsTheOrderAcrossBatchesAndSinglesAndNeverWritesToMemoryUnderWay) {
    open(LaneMode::kAlways);
    Batch batch;
    uint32_t n = 0;
    for (int round = 0; round < 40; ++round) {
        UdpBatch b = batch.fill(to->local_endpoint(), n, 20, 1000);
        n += 20;
        const uint8_t* const given = batch.memory.get();
        lane->send(b, kNow);
        EXPECT_NE(batch.memory.get(), given);
        uint8_t one[4];
        store_be32(one, n++);
        const UdpSend single{to->local_endpoint(), one, 4};
        if (round % 3 == 0) {
            lane->send(std::span(&single, 1));
        } else {
            --n;
        }
        turn_until(loop, [&] { return sink.datagrams.size() + 60 > n; });  // the receiver's buffer is not what is tested
    }
    expect_in_order(n);
    EXPECT_EQ(lane->handed_over(), 40U);
}

TEST_F(SendLaneTest, HasTwoBatchesUnderWayAndOneToFill) {
    open(LaneMode::kAlways, held_sendmmsg);
    held_calls = 0;
    Batch batch;
    std::vector<const uint8_t*> seen;
    const auto give = [&](uint32_t first) {
        UdpBatch b = batch.fill(to->local_endpoint(), first, 1, 100);
        seen.push_back(batch.memory.get());
        lane->send(b, kNow);
    };
    give(0);
    give(1);
    held_calls.store(1);
    held_calls.notify_all();
    give(2);  // waits for the first
    held_calls.store(-1);
    held_calls.notify_all();
    for (uint32_t i = 3; i < 30; ++i) give(i);
    expect_in_order(30);
    std::sort(seen.begin(), seen.end());
    EXPECT_LE(std::unique(seen.begin(), seen.end()) - seen.begin(), 3);
}

TEST_F(SendLaneTest, FailuresComeBackOnTheLoopWithTheirEndpoint) {
    open(LaneMode::kAlways, refusing_sendmmsg);
    Batch batch;
    UdpBatch b = batch.fill(to->local_endpoint(), 0, 1, 100);
    lane->send(b, kNow);
    ASSERT_TRUE(turn_until(loop, [&] { return news > 0; }));  // nobody calls, the lane does
    ASSERT_EQ(errors.size(), 1U);
    EXPECT_EQ(errors[0].first, to->local_endpoint());
    EXPECT_EQ(errors[0].second, ENETUNREACH);
    const UdpSend single{to->local_endpoint(), {batch.fill(to->local_endpoint(), 0, 1, 100).sends[0].bytes}, 100};
    lane->send(std::span(&single, 1));
    EXPECT_EQ(errors.size(), 2U);
}

TEST_F(SendLaneTest, TellsNoMoreFailuresOfABatchThanItHasRoomFor) {
    open(LaneMode::kAlways, refusing_sendmmsg);
    Batch batch;
    UdpBatch b = batch.fill(to->local_endpoint(), 0, 1, 100);
    std::vector<UdpSend> many;
    for (uint16_t i = 0; i < 100; ++i) many.push_back({{Addr::v4(127, 0, 0, 1), static_cast<uint16_t>(1000 + i)}, b.sends[0].bytes, 100});
    UdpBatch all{many, b.memory, {}};
    lane->send(all, kNow);
    lane->drain();
    EXPECT_EQ(errors.size(), SendLane::kMaxErrors);
}

TEST_F(SendLaneTest, SendsWhatIsUnderWayBeforeItDiesAlsoWhenTheSocketIsChangedMeanwhile) {
    open(LaneMode::kAlways, held_sendmmsg);
    held_calls = 0;
    Batch batch;
    for (uint32_t i = 0; i < 2; ++i) {
        UdpBatch b = batch.fill(to->local_endpoint(), i * 10, 10, 500);
        lane->send(b, kNow);
    }
    from->protect_again();  // what the loop does to it after a change of the network
    held_calls = -1;
    held_calls.notify_all();
    lane.reset();
    from.reset();
    expect_in_order(20);
}

TEST_F(SendLaneTest, IsUsedForFullBatchesOfABusyThreadOnlyAndWhatFollowsOneGoesTheSameWay) {
    open(LaneMode::kBusy, held_sendmmsg);
    Batch batch;
    Time now = kNow;
    uint32_t n = 0;
    const auto give = [&](size_t count) {
        UdpBatch b = batch.fill(to->local_endpoint(), n, count, 1200);
        n += static_cast<uint32_t>(count);
        lane->send(b, now);
        return lane->handed_over();
    };
    // By the clock it is given this thread rests nearly all the time.
    for (int i = 0; i < 10; ++i) {
        now = now + seconds(1);
        EXPECT_EQ(give(48), 0U);
    }
    EXPECT_FALSE(lane->in_use());
    // Now it has worked longer than the clock says.
    const auto work = [&] {
        const Duration begin = thread_cpu_time();
        while (thread_cpu_time() - begin < milliseconds(12)) continue;
        now = now + milliseconds(10);
    };
    work();
    held_calls = 0;
    EXPECT_EQ(give(48), 1U);
    EXPECT_TRUE(lane->in_use());
    EXPECT_EQ(give(1), 2U);
    held_calls = -1;
    held_calls.notify_all();
    lane->drain();
    EXPECT_EQ(give(1), 2U);  // alone it is sent at once
    expect_in_order(n);
}

TEST_F(SendLaneTest, OffIsOff) {
    open(LaneMode::kOff);
    Batch batch;
    UdpBatch b = batch.fill(to->local_endpoint(), 0, 48, 1200);
    const uint8_t* const given = batch.memory.get();
    lane->send(b, kNow);
    EXPECT_EQ(batch.memory.get(), given);
    EXPECT_EQ(lane->handed_over(), 0U);
    EXPECT_FALSE(lane->in_use());
    expect_in_order(48);
}

TEST_F(SendLaneTest, SealsWhatWasLeftToItBeforeItSends) {
    for (const LaneMode mode : {LaneMode::kAlways, LaneMode::kOff}) {
        lane.reset();
        if (to) to->detach();
        sink.datagrams.clear();
        open(mode);
        crypto::Key32 key{};
        key[0] = 7;
        auto stream = std::make_shared<const crypto::AeadStream>(key);
        Batch batch;
        constexpr size_t kLen = 100, kSealed = kLen + crypto::kTagLen;
        UdpBatch b = batch.fill(to->local_endpoint(), 0, 3, kSealed);
        LateSeals seals{stream, {}, 0};
        for (size_t i = 0; i < 3; ++i) {
            uint8_t* const at = batch.memory.get() + i * kSealed;
            seals.jobs[seals.count++] = {at, at, kLen, i, false};
        }
        b.seals = {&seals, 1};
        lane->send(b, kNow);
        lane->drain();
        ASSERT_TRUE(turn_until(loop, [&] { return sink.datagrams.size() == 3; }));
        for (size_t i = 0; i < 3; ++i) {
            Bytes& d = sink.datagrams[i];
            ASSERT_TRUE(stream->open(d.data(), d, i));
            EXPECT_EQ(load_be32(d.data()), i);
        }
        seals.key.reset();
        EXPECT_EQ(stream.use_count(), 1) << "a key is kept no longer than its batch";
    }
}

}  // namespace
}  // namespace mesh::platform
