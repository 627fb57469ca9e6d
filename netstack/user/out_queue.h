// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Packets on their way to the tunnel, side by side in memory.

#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/packet.h"

namespace mesh::netstack {

class OutQueue {
   public:
    /// At most `max_bytes` wait.
    explicit OutQueue(size_t max_bytes) : max_bytes_(max_bytes) {}

    [[nodiscard]] bool empty() const { return waiting_.ends.empty(); }
    /// Room for one packet, valid until the next call; null if the queue is full.
    [[nodiscard]] uint8_t* reserve(size_t bytes);
    /// All of them, in order; valid until the next call of take().
    [[nodiscard]] std::span<TunRead> take();

   private:
    struct Packets {
        Bytes bytes;
        std::vector<size_t> ends;
    };
    const size_t max_bytes_;
    Packets waiting_, taken_;
    std::vector<TunRead> reads_;
};

}  // namespace mesh::netstack
