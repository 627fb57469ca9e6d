// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// A thread for what blocks (reading, writing and syncing files), so that a slow disk holds no loop up.

#include <atomic>
#include <functional>
#include <memory>
#include <thread>

#include "platform/loop/loop.h"

namespace mesh::platform {

/// One thread, begun with the first job. Lives on the loop that asks.
class Worker {
   public:
    explicit Worker(Loop& home) : home_(home) {}
    /// Waits for the job under way; those behind it are dropped, and no `done` comes any more.
    ~Worker();
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    /// `job` on the thread, one after the other in the order of the calls; then `done` on the home loop. What both share must not be
    /// touched by anybody else in between. The loops' queues bound how many may wait (65,536).
    void run(std::function<void()> job, std::function<void()> done);

   private:
    Loop& home_;
    std::unique_ptr<Loop> there_;
    std::thread thread_;
    std::atomic<bool> ending_{false};
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // read and written on the home loop only
};

}  // namespace mesh::platform
