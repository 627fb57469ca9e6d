// SPDX-License-Identifier: BSD-3-Clause
#include "platform/loop/lane.h"

#include <gtest/gtest.h>

#include <sched.h>

#include <cstdlib>
#include <memory>
#include <vector>

#include "platform/system.h"

namespace mesh::platform {
namespace {

struct Job {
    int number = 0;
    std::unique_ptr<int> memory;  // what a slot keeps
};

/// Lets the thread go on job by job.
class Gate {
   public:
    void open(uint32_t jobs) {
        tickets_.fetch_add(jobs);
        tickets_.notify_all();
    }
    void pass() {
        for (uint32_t t; (t = tickets_.load()) == passed_;) tickets_.wait(t);
        ++passed_;
    }

   private:
    std::atomic<uint32_t> tickets_{0};
    uint32_t passed_ = 0;  // the lane's thread only
};

TEST(Lane, WorksOffEveryJobInOrderAndTellsOfEachOnce) {
    std::vector<int> worked, finished;
    Lane<Job, 4> lane([&](Job& j) { worked.push_back(j.number); }, [&](Job& j) { finished.push_back(j.number); });
    ASSERT_TRUE(lane.start());
    std::vector<int> given;
    for (int i = 0; i < 5000; ++i) {
        lane.claim().number = i;
        lane.publish();
        given.push_back(i);
    }
    lane.drain();
    EXPECT_TRUE(lane.idle());
    EXPECT_EQ(worked, given);
    EXPECT_EQ(finished, given);
}

TEST(Lane, HasNoMoreUnderWayThanSlotsAndKeepsWhatIsInThem) {
    Gate gate;
    int finished = 0;
    Lane<Job, 2> lane([&](Job&) { gate.pass(); }, [&](Job&) { ++finished; });
    ASSERT_TRUE(lane.start());
    for (int i = 0; i < 2; ++i) {
        Job& j = lane.claim();
        j.memory = std::make_unique<int>(i);
        lane.publish();
    }
    lane.reap();
    EXPECT_EQ(finished, 0);
    EXPECT_FALSE(lane.idle());
    gate.open(1);
    Job& again = lane.claim();  // waits for the first
    EXPECT_EQ(finished, 1);
    ASSERT_NE(again.memory, nullptr);
    EXPECT_EQ(*again.memory, 0);
    lane.publish();
    gate.open(2);
}

TEST(Lane, WorksOffWhatIsUnderWayBeforeItDies) {
    Gate gate;
    int worked = 0, finished = 0;
    {
        Lane<Job, 4> lane([&](Job&) { gate.pass(), ++worked; }, [&](Job&) { ++finished; });
        ASSERT_TRUE(lane.start());
        for (int i = 0; i < 4; ++i) {
            static_cast<void>(lane.claim());
            lane.publish();
        }
        gate.open(4);
    }
    EXPECT_EQ(worked, 4);
    EXPECT_EQ(finished, 4);
}

TEST(Lane, GivesThreadAndMemoryBackWhenUnusedAndStartsAgain) {
    std::thread::id before, now;
    Lane<Job, 2> lane([&](Job&) { now = std::this_thread::get_id(); }, [](Job&) {});
    const auto once = [&] {
        ASSERT_TRUE(lane.start());
        Job& j = lane.claim();
        if (!j.memory) j.memory = std::make_unique<int>(7);
        lane.publish();
        lane.drain();
    };
    once();
    before = now;
    lane.rest_if_unused();  // there was something since the last call
    once();
    EXPECT_EQ(now, before);
    lane.rest_if_unused();
    lane.rest_if_unused();
    ASSERT_TRUE(lane.start());
    EXPECT_EQ(lane.claim().memory, nullptr);
    once();
    for (int i = 0; i < 100; ++i) {
        lane.rest();
        once();
    }
}

TEST(BusyGauge, IsForAThreadThatDoesNotRest) {
    BusyGauge gauge;
    Time now{seconds(5).ns};
    Duration cpu = milliseconds(700);
    const auto after = [&](int wall, int used) {
        now = now + milliseconds(wall);
        cpu = cpu + milliseconds(used);
        EXPECT_EQ(gauge.due(now), wall >= 10);
        gauge.note(now, cpu);
        return gauge.busy();
    };
    EXPECT_TRUE(gauge.due(now));
    gauge.note(now, cpu);
    EXPECT_FALSE(gauge.busy());
    EXPECT_FALSE(after(10, 8));
    EXPECT_TRUE(after(10, 9));
    EXPECT_TRUE(after(11, 6));   // the lane has taken some of it
    EXPECT_FALSE(after(10, 4));
    EXPECT_FALSE(after(10, 8));
    EXPECT_TRUE(after(20, 20));
    EXPECT_FALSE(after(5000, 10));  // a pause
}

TEST(BusyGauge, MeasuresThisThread) {
    const Duration begin = thread_cpu_time();
    EXPECT_GT(begin.ns, 0);
    std::thread([] {
        const Duration own = thread_cpu_time();
        while (thread_cpu_time() - own < milliseconds(50)) continue;
    }).join();
    EXPECT_LT(thread_cpu_time() - begin, milliseconds(50));
}

TEST(LaneMode, IsWhatTheEnvironmentSaysOrWhatTheMachineHas) {
    const auto with = [](const char* value) {
        ::setenv("TAILMESH_LANES", value, 1);
        const LaneMode mode = lane_mode();
        ::unsetenv("TAILMESH_LANES");
        return mode;
    };
    EXPECT_EQ(with("off"), LaneMode::kOff);
    EXPECT_EQ(with("on"), LaneMode::kBusy);
    EXPECT_EQ(with("always"), LaneMode::kAlways);
    const LaneMode own = lane_mode();
    EXPECT_EQ(with("yes"), own);
    EXPECT_EQ(own, usable_cores() >= kLaneCores ? LaneMode::kBusy : LaneMode::kOff);

    cpu_set_t before, one;
    ASSERT_EQ(::sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&one);
    for (size_t i = 0; CPU_COUNT(&one) == 0; ++i)
        if (CPU_ISSET(i, &before)) CPU_SET(i, &one);
    ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
    EXPECT_EQ(usable_cores(), 1U);
    EXPECT_EQ(lane_mode(), LaneMode::kOff);
    EXPECT_EQ(::sched_setaffinity(0, sizeof before, &before), 0);
}

}  // namespace
}  // namespace mesh::platform
