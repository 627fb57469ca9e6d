// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// A second thread beside a loop, for system calls that take long and must keep their order: a ring of jobs, filled by the
/// loop and worked off by the thread. The slots are fixed, so nothing is allocated per job; who fills waits while all are
/// under way, which is back-pressure. The thread sleeps (futex) while there is nothing to do.
///
/// Owners keep the order of all that goes one way: what does not go by the lane waits until the lane is idle.

#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <system_error>
#include <thread>
#include <utility>

#include "base/time.h"

namespace mesh::platform {

enum class LaneMode : uint8_t {
    kOff,
    kBusy,    ///< while one thread is not enough
    kAlways,  ///< every batch: for tests
};
/// Environment TAILMESH_LANES: "off", "on" (kBusy on any machine), "always". Else kBusy from kLaneCores usable_cores() on.
[[nodiscard]] LaneMode lane_mode();
/// A core for the loop, one for the lane, one for the programs whose data it is, one for the kernel. With fewer a lane takes from
/// its neighbours what it gives.
inline constexpr size_t kLaneCores = 4;

/// Whether the calling thread is what holds the traffic up: for a hundredth of a second it did not rest. Below that a second
/// thread would cost and bring nothing.
class BusyGauge {
   public:
    static constexpr Duration kWindow = milliseconds(10);
    /// Shares of the window in which the thread ran. The lane takes work away, so less keeps it in use.
    static constexpr int64_t kBeginPercent = 90, kKeepPercent = 50;

    /// `cpu`: what this thread has used so far; to be read once a window, when due().
    void note(Time now, Duration cpu) {
        const Duration wall = now - since_, used = cpu - cpu_;
        // After a pause the share is that of the pause.
        busy_ = used.ns * 100 >= wall.ns * (busy_ ? kKeepPercent : kBeginPercent);
        since_ = now;
        cpu_ = cpu;
    }
    [[nodiscard]] bool due(Time now) const { return now - since_ >= kWindow; }
    [[nodiscard]] bool busy() const { return busy_; }

   private:
    Time since_;
    Duration cpu_;
    bool busy_ = false;
};
/// What the calling thread has used of the processor.
[[nodiscard]] Duration thread_cpu_time();

/// All but `work` is called on one thread, the owner's. What `work` touches belongs to the lane from publish() until
/// idle() or drain() has said that nothing is under way.
template <class Job, uint32_t kSlots>
class Lane {
    static_assert(std::has_single_bit(kSlots));

   public:
    /// `work` runs on the lane's thread, `finished` on the owner's from inside claim(), reap(), idle(), drain() and rest(),
    /// once per job; both in the order of publish().
    Lane(std::function<void(Job&)> work, std::function<void(Job&)> finished)
        : work_(std::move(work)), finished_(std::move(finished)) {}
    /// Works off what is under way.
    ~Lane() { rest(); }
    Lane(const Lane&) = delete;
    Lane& operator=(const Lane&) = delete;

    /// Starts the thread unless it runs. False: the system gives no more threads.
    [[nodiscard]] bool start() {
        if (thread_.joinable()) return true;
        try {
            thread_ = std::thread([this] { run(); });
        } catch (const std::system_error&) {
            return false;
        }
        return true;
    }
    /// The next slot, as its last job left it; waits for one. Fill it, then publish(). Needs start().
    [[nodiscard]] Job& claim() {
        wait_until([this] { return published_ - reaped_ < kSlots; });
        return slots_[published_ % kSlots];
    }
    void publish() {
        ++published_;
        used_ = true;
        news_.fetch_add(kOneJob, std::memory_order_release);
        news_.notify_one();
    }

    void reap() {
        for (const uint32_t done = done_.load(std::memory_order_acquire); reaped_ != done;) finished_(slots_[reaped_++ % kSlots]);
    }
    [[nodiscard]] bool idle() {
        if (reaped_ != published_) reap();
        return reaped_ == published_;
    }
    void drain() {
        wait_until([this] { return reaped_ == published_; });
    }
    /// Drains, ends the thread and gives the slots' memory back. It goes on with start().
    void rest() {
        drain();
        if (!thread_.joinable()) return;
        news_.fetch_or(kEnd, std::memory_order_release);
        news_.notify_one();
        thread_.join();
        news_.fetch_and(~kEnd, std::memory_order_relaxed);
        slots_ = {};
    }
    /// rest() if there was no job since the last call. For a timer of some seconds.
    void rest_if_unused() {
        if (!std::exchange(used_, false)) rest();
    }

   private:
    // news_: the number of published jobs in steps of two, and whether to end.
    static constexpr uint32_t kEnd = 1, kOneJob = 2;
    /// Somewhat longer than the loop needs for a full batch, so that under full load nobody sleeps.
    static constexpr auto kLook = std::chrono::microseconds(100);

    /// Looks for a while before it sleeps: being woken costs more than that, on both sides.
    static bool changes_soon(const std::atomic<uint32_t>& value, uint32_t from) {
        const auto end = std::chrono::steady_clock::now() + kLook;
        do {
            for (int i = 0; i < 64; ++i) {
                if (value.load(std::memory_order_acquire) != from) return true;
#if defined(__x86_64__)
                __builtin_ia32_pause();
#endif
            }
        } while (std::chrono::steady_clock::now() < end);
        return false;
    }

    template <class Enough>
    void wait_until(Enough enough) {
        for (;;) {
            reap();
            if (enough()) return;
            if (!changes_soon(done_, reaped_)) done_.wait(reaped_, std::memory_order_acquire);
        }
    }
    void run() {
        uint32_t done = done_.load(std::memory_order_relaxed);
        for (;;) {
            const uint32_t news = news_.load(std::memory_order_acquire);
            if (news / kOneJob != done % (1U << 31)) {
                work_(slots_[done % kSlots]);
                done_.store(++done, std::memory_order_release);
                done_.notify_one();
            } else if ((news & kEnd) != 0) {
                return;
            } else if (!changes_soon(news_, news)) {
                news_.wait(news, std::memory_order_acquire);
            }
        }
    }

    const std::function<void(Job&)> work_, finished_;
    std::array<Job, kSlots> slots_;
    uint32_t published_ = 0, reaped_ = 0;  // the owner's
    bool used_ = false;
    alignas(64) std::atomic<uint32_t> news_{0};
    alignas(64) std::atomic<uint32_t> done_{0};
    std::thread thread_;
};

}  // namespace mesh::platform
