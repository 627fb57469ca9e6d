// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Datagrams for relays in the order they were sealed, kept until the batch ends: so they are sealed together like those
/// for UDP (SealQueue), each in a slot of its own.

#include <array>
#include <cstdint>
#include <memory>

#include "base/bytes.h"
#include "magicsock/path/types.h"
#include "tailscaled/dataplane/seal_queue.h"

namespace mesh::dataplane {

class RelayQueue {
   public:
    static constexpr size_t kBytes = 128 * 1024;  ///< at least one datagram of the largest size

    struct Entry {
        int region = 0;
        PeerId peer = kNoPeer;
        ByteSpan datagram;
    };

    /// False: flush first.
    [[nodiscard]] bool fits(size_t max_bytes) const { return count_ < entries_.size() && used_ + max_bytes <= kBytes; }
    /// Room for a datagram of at most `max_bytes`, which must fit. Follow with add(), or leave it.
    [[nodiscard]] uint8_t* reserve() {
        if (!memory_) memory_ = std::make_unique_for_overwrite<uint8_t[]>(kBytes);
        return memory_.get() + used_;
    }
    /// The datagram at the last reserve() has `bytes` bytes; they may be sealed until the flush.
    void add(int region, PeerId peer, size_t bytes) {
        entries_[count_++] = {region, peer, {memory_.get() + used_, bytes}};
        used_ += bytes;
    }
    [[nodiscard]] bool empty() const { return count_ == 0; }
    /// Calls `send(entry)` for each in order. All must be sealed.
    template <class Send>
    void flush(Send send) {
        const size_t n = count_;
        count_ = used_ = 0;
        for (size_t i = 0; i < n; ++i) send(entries_[i]);
    }

   private:
    std::unique_ptr<uint8_t[]> memory_;  // on first use: many nodes never need it
    std::array<Entry, SealQueue::kMax> entries_{};
    size_t count_ = 0, used_ = 0;
};

}  // namespace mesh::dataplane
