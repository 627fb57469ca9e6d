// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Which peer wants attention when: an indexed binary heap, one entry per peer at most. Deadlines only move forward
/// here (to earlier); a deadline that was put off fires early and its peer is armed again, which keeps the data path
/// cheap. Ties go by PeerId, so runs are repeatable.

#include <cstdint>
#include <vector>

#include "base/keys.h"
#include "base/time.h"

namespace mesh::wg {

class TimerQueue {
   public:
    [[nodiscard]] Time next() const { return heap_.empty() ? Time::never() : heap_.front().at; }

    /// Has `peer` fire at `at` or earlier. Allocates only when more peers are armed than ever before.
    void arm(PeerId peer, Time at) {
        if (at.is_never()) return;
        if (peer >= place_.size()) place_.resize(peer + 1, kNowhere);
        uint32_t i = place_[peer];
        if (i == kNowhere) {
            i = static_cast<uint32_t>(heap_.size());
            heap_.push_back({at, peer});
            place_[peer] = i;
        } else if (at < heap_[i].at) {
            heap_[i].at = at;
        } else {
            return;
        }
        up(i);
    }
    /// Removes and returns the first. Not on an empty queue.
    PeerId pop() {
        const PeerId peer = heap_.front().peer;
        remove(peer);
        return peer;
    }
    void remove(PeerId peer) {
        if (peer >= place_.size() || place_[peer] == kNowhere) return;
        const uint32_t i = place_[peer];
        place_[peer] = kNowhere;
        const Entry last = heap_.back();
        heap_.pop_back();
        if (i == heap_.size()) return;
        put(i, last);
        up(i);
        down(place_[last.peer]);
    }

   private:
    static constexpr uint32_t kNowhere = UINT32_MAX;
    struct Entry {
        Time at;
        PeerId peer;
        auto operator<=>(const Entry&) const = default;
    };
    void put(uint32_t i, const Entry& e) {
        heap_[i] = e;
        place_[e.peer] = i;
    }
    void up(uint32_t i) {
        const Entry e = heap_[i];
        while (i > 0 && e < heap_[(i - 1) / 2]) {
            put(i, heap_[(i - 1) / 2]);
            i = (i - 1) / 2;
        }
        put(i, e);
    }
    void down(uint32_t i) {
        const Entry e = heap_[i];
        const auto n = static_cast<uint32_t>(heap_.size());
        for (;;) {
            uint32_t child = 2 * i + 1;
            if (child >= n) break;
            if (child + 1 < n && heap_[child + 1] < heap_[child]) ++child;
            if (!(heap_[child] < e)) break;
            put(i, heap_[child]);
            i = child;
        }
        put(i, e);
    }

    std::vector<Entry> heap_;
    std::vector<uint32_t> place_;  // by PeerId
};

}  // namespace mesh::wg
