// SPDX-License-Identifier: BSD-3-Clause
#include <signal.h>
#include <sys/socket.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "platform/leak_check.h"
#include "platform/loop/channel.h"
#include "platform/loop/doorbell.h"
#include "platform/loop/loop.h"
#include "platform/test_support.h"

namespace mesh::platform {
namespace {

using testing::LoopThread;
using testing::socket_pair;
using testing::turn_until;

TEST(Loop, ReadsTheClockOnceInATurn) {
    Loop loop;
    int calls = 0;
    Time first, second, later;
    Timer a(loop, [&] {
        first = loop.now();
        const Time begin = read_clock();
        while (read_clock() - begin < milliseconds(3)) {
        }
        second = loop.now();
        ++calls;
    });
    Timer b(loop, [&] {
        later = loop.now();
        ++calls;
    });
    a.set_after(milliseconds(1));
    ASSERT_TRUE(turn_until(loop, [&] { return calls == 1; }));
    EXPECT_EQ(first, second);
    b.set_after(milliseconds(1));
    ASSERT_TRUE(turn_until(loop, [&] { return calls == 2; }));
    EXPECT_GE(later - first, milliseconds(3));
}

TEST(Timer, NeverFiresEarlyAndFiresInOrderOfTime) {
    Loop loop;
    std::vector<int> order;
    const Time start = loop.now();
    Time at_two{};
    Timer two(loop, [&] {
        order.push_back(2);
        at_two = loop.now();
    });
    Timer one(loop, [&] { order.push_back(1); });
    two.set(start + microseconds(5300));
    one.set(start + milliseconds(2));
    EXPECT_EQ(two.deadline(), start + microseconds(5300));
    ASSERT_TRUE(turn_until(loop, [&] { return order.size() == 2; }));
    EXPECT_EQ(order, (std::vector<int>{1, 2}));
    EXPECT_GE(at_two - start, microseconds(5300));
    EXPECT_FALSE(two.armed());
    EXPECT_TRUE(two.deadline().is_never());
}

TEST(Timer, CancelAndNeverKeepItQuiet) {
    Loop loop;
    bool fired = false;
    bool end = false;
    Timer a(loop, [&] { fired = true; });
    Timer b(loop, [&] { fired = true; });
    Timer last(loop, [&] { end = true; });
    a.set_after(milliseconds(1));
    a.cancel();
    b.set_after(milliseconds(1));
    b.set(Time::never());
    last.set_after(milliseconds(5));
    ASSERT_TRUE(turn_until(loop, [&] { return end; }));
    EXPECT_FALSE(fired);
}

TEST(Timer, MayBeDestroyedInItsOwnCallback) {
    Loop loop;
    std::unique_ptr<Timer> t;
    std::string captured = "a string too long for the small buffer of std::string";
    size_t seen = 0;
    t = std::make_unique<Timer>(loop, [&seen, &t, captured] {
        t.reset();
        seen = captured.size();  // the callable outlives the wrapper
    });
    t->set_after({});
    ASSERT_TRUE(turn_until(loop, [&] { return seen > 0; }));
    EXPECT_EQ(seen, captured.size());
}

TEST(Timer, MayBeSetAgainInItsOwnCallback) {
    Loop loop;
    int n = 0;
    std::unique_ptr<Timer> t;
    t = std::make_unique<Timer>(loop, [&] {
        if (++n < 3) t->set(loop.now());
    });
    t->set(loop.now());
    ASSERT_TRUE(turn_until(loop, [&] { return n == 3; }));
}

TEST(Soon, ComesOnceATurnInOrderAndNotOnceItIsGone) {
    Loop loop;
    struct One {
        std::string name;
        std::string& log;
        std::unique_ptr<Soon> soon{};
        int again = 0;
        One* kills = nullptr;
    };
    const auto call = [](void* self) {
        auto& one = *static_cast<One*>(self);
        one.log += one.name;
        if (one.kills) one.kills->soon.reset();
        if (one.again-- > 0) one.soon->want();
    };
    std::string log;
    One a{"a", log}, b{"b", log}, c{"c", log};
    for (One* one : {&a, &b, &c}) one->soon = std::make_unique<Soon>(loop, call, one);
    a.again = 1;
    a.kills = &c;
    for (One* one : {&b, &a, &b, &c}) one->soon->want();
    loop.run_once(true);
    EXPECT_EQ(log, "ba");
    b.kills = &b;  // itself
    b.soon->want();
    loop.run_once(true);
    EXPECT_EQ(log, "baab");
    loop.run_once(false);
    EXPECT_EQ(log, "baab");
}

TEST(FdPoll, TellsReadableAndWritableAndMayDieInside) {
    Loop loop;
    const auto pair = socket_pair();
    const auto& a = std::get<0>(pair);
    const auto& other = std::get<1>(pair);  // no structured binding: not every Clang lets a lambda capture one
    bool writable = false;
    std::unique_ptr<FdPoll> poll;
    poll = std::make_unique<FdPoll>(loop, a.get(), [&](FdPoll::Events e) {
        if (e.writable && !e.readable) {
            writable = true;
            poll->set_interest(true, false);
            ASSERT_EQ(::send(other.get(), "x", 1, 0), 1);
        } else if (e.readable) {
            poll.reset();
        }
    });
    poll->set_interest(false, true);
    ASSERT_TRUE(turn_until(loop, [&] { return !poll; }));
    EXPECT_TRUE(writable);
}

TEST(FdPoll, WithoutInterestStaysQuiet) {
    Loop loop;
    auto [a, b] = socket_pair();
    int calls = 0;
    FdPoll poll(loop, a.get(), [&](FdPoll::Events) { ++calls; });
    poll.set_interest(true, true);
    poll.set_interest(false, false);
    ASSERT_EQ(::send(b.get(), "x", 1, 0), 1);
    for (int i = 0; i < 3; ++i) loop.run_once(false);
    EXPECT_EQ(calls, 0);
}

TEST(Loop, PostedTasksRunInOrderAndOutsideThePoster) {
    Loop loop;
    std::vector<int> order;
    loop.post([&] {
        order.push_back(1);
        loop.post([&] { order.push_back(3); });
    });
    loop.post([&] { order.push_back(2); });
    EXPECT_TRUE(order.empty());
    ASSERT_TRUE(turn_until(loop, [&] { return order.size() == 3; }));
    EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

TEST(Loop, DropsTasksItNeverRan) {
    const auto witness = std::make_shared<int>(1);
    {
        Loop loop;
        loop.post([witness] { ADD_FAILURE(); });
        EXPECT_EQ(witness.use_count(), 2);
    }
    EXPECT_EQ(witness.use_count(), 1);
}

TEST(Loop, StopFromAnotherThreadEndsRun) {
    Loop loop;
    std::thread other([&] { loop.stop(); });
    loop.run();
    other.join();
    loop.stop();
    loop.run();  // a stop before run ends it at once
}

TEST(TurnEnd, ComesOnceAfterTheEventsAndTimersOfATurnAndMayBeWantedAgain) {
    Loop loop;
    std::string order;
    std::unique_ptr<TurnEnd> end;
    Timer again(loop, [&] { order += "t"; end->want(); });
    end = std::make_unique<TurnEnd>(loop, [&] {
        order += "e";
        if (order == "ppe") end->want();
        if (order == "ppee") again.set(loop.now());
        if (order == "ppeete") end.reset();  // in its own callback
    });
    for (int i = 0; i < 2; ++i)
        EXPECT_TRUE(loop.post([&] {
            order += "p";
            end->want();
        }));
    Timer wake(loop, [] {});
    for (int i = 0; i < 50 && end; ++i) {
        wake.set_after(milliseconds(5));
        loop.run_once(true);
    }
    EXPECT_EQ(order, "ppeete");
}

TEST(Async, WakesFromAnotherThreadAndMayDieInside) {
    Loop loop;
    std::unique_ptr<Async> async;
    async = std::make_unique<Async>(loop, [&] { async.reset(); });
    Async* raw = async.get();
    std::thread other([raw] { raw->send(); });
    other.join();
    ASSERT_TRUE(turn_until(loop, [&] { return !async; }));
}

TEST(Doorbell, IsHeardOnceForAllRingsBeforeAndAgainAfterThem) {
    Loop loop;
    int heard = 0;
    std::unique_ptr<Doorbell> bell = std::make_unique<Doorbell>(loop, [&] {
        if (++heard == 2) bell.reset();  // may die inside
    });
    std::thread other([&] {
        for (int i = 0; i < 3; ++i) bell->ring();
    });
    other.join();
    ASSERT_TRUE(turn_until(loop, [&] { return heard > 0; }));
    loop.run_once(false);
    EXPECT_EQ(heard, 1);
    bell->ring();
    ASSERT_TRUE(turn_until(loop, [&] { return heard == 2; }));
    EXPECT_FALSE(bell);
}

TEST(Signal, ArrivesAsAnEvent) {
    Loop loop;
    int seen = 0;
    Signal s(loop, SIGUSR1, [&] { ++seen; });
    ::raise(SIGUSR1);
    ASSERT_TRUE(turn_until(loop, [&] { return seen == 1; }));
}

// What leak_check.cc holds against every test of a loop.
TEST(LeakCheck, SeesALoopThatIsNotDestroyedAndWhatAWatchLeavesOpen) {
    const auto before = testing::open_descriptors();
    auto loop = std::make_unique<Loop>();
    EXPECT_GE(testing::left_open(before, testing::open_descriptors()).size(), 3U);
    loop.reset();
    EXPECT_TRUE(testing::left_open(before, testing::open_descriptors()).empty());
    auto pair = socket_pair();
    EXPECT_EQ(testing::left_open(before, testing::open_descriptors()).size(), 2U);
}

TEST(LoopDeathTest, AHandleThatOutlivesItsLoopEndsTheProgram) {
    EXPECT_DEATH(
        {
            auto loop = std::make_unique<Loop>();
            new Timer(*loop, [] {});
            loop.reset();
        },
        "");
}

TEST(Channel, DeliversInOrderAndRefusesWhatDoesNotFit) {
    Loop loop;
    std::vector<int> got;
    Channel<int> channel(loop, 3, [&](int&& v) { got.push_back(v); });
    EXPECT_TRUE(channel.push(1));
    EXPECT_TRUE(channel.push(2));
    EXPECT_TRUE(channel.push(3));
    EXPECT_FALSE(channel.push(4));
    ASSERT_TRUE(turn_until(loop, [&] { return got.size() == 3; }));
    EXPECT_EQ(got, (std::vector<int>{1, 2, 3}));
    EXPECT_TRUE(channel.push(5));
    ASSERT_TRUE(turn_until(loop, [&] { return got.size() == 4; }));
}

TEST(Channel, KeepsToItsBudgetPerTurnAndForgetsNothing) {
    Loop loop;
    size_t got = 0;
    Channel<int> channel(loop, 1000, [&](int&&) { ++got; }, 10);
    for (int i = 0; i < 95; ++i) ASSERT_TRUE(channel.push(int{i}));
    size_t most = 0;
    while (got < 95) {
        const size_t before = got;
        loop.run_once(true);
        most = std::max(most, got - before);
    }
    EXPECT_LE(most, 10U);
}

TEST(Channel, MayBeDestroyedByItsOwnItemAndTurnsSendersAway) {
    Loop loop;
    int got = 0;
    std::unique_ptr<Channel<std::unique_ptr<int>>> channel;
    channel = std::make_unique<Channel<std::unique_ptr<int>>>(loop, 10, [&](std::unique_ptr<int>&& v) {
        got += *v;
        channel.reset();
    });
    const auto sender = channel->sender();
    EXPECT_TRUE(sender.push(std::make_unique<int>(7)));
    EXPECT_TRUE(sender.push(std::make_unique<int>(8)));
    ASSERT_TRUE(turn_until(loop, [&] { return !channel; }));
    EXPECT_EQ(got, 7);
    EXPECT_FALSE(sender.push(std::make_unique<int>(9)));
}

TEST(Channel, CarriesFromManyThreads) {
    Loop loop;
    size_t got = 0;
    int64_t sum = 0;
    Channel<int> channel(loop, 100000, [&](int&& v) {
        ++got;
        sum += v;
    });
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
        threads.emplace_back([sender = channel.sender()] {
            for (int i = 1; i <= 1000; ++i) EXPECT_TRUE(sender.push(int{i}));
        });
    ASSERT_TRUE(turn_until(loop, [&] { return got == 4000; }));
    for (auto& t : threads) t.join();
    EXPECT_EQ(sum, 4 * 500500);
}

}  // namespace
}  // namespace mesh::platform
