// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Wakes a loop from another thread. Unlike Async its loop does not spin until the ringing thread is through with its call,
/// and unlike Loop::post() it allocates nothing.

#include <functional>

#include "platform/fd.h"
#include "platform/loop/loop.h"

namespace mesh::platform {

/// Lives on the thread of its loop, as all owners of libuv handles.
class Doorbell {
   public:
    Doorbell(Loop& loop, std::function<void()> on_ring);
    Doorbell(const Doorbell&) = delete;
    Doorbell& operator=(const Doorbell&) = delete;

    /// From any thread. Several before the loop hears it are one.
    void ring() const;

   private:
    UniqueFd fd_;
    FdPoll poll_;  // ends before the descriptor does
};

}  // namespace mesh::platform
