// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// A FIFO of frames bounded in bytes: the oldest frames are dropped to make room. One growing ring, no allocation
/// per frame.

#include <cstddef>
#include <cstdint>

#include "base/bytes.h"

namespace mesh::derp {

class SendQueue {
   public:
    /// `limit_bytes` covers the frames and 4 bytes of length each. Beyond it the oldest go, but none of the newest
    /// `keep_frames`, however large they are.
    explicit SendQueue(size_t limit_bytes, size_t keep_frames = 0)
        : limit_bytes_(limit_bytes), keep_frames_(keep_frames) {}

    struct Dropped {
        size_t frames = 0;
        size_t bytes = 0;  ///< of these frames, heads included
    };
    /// Appends one frame given in up to three parts. Returns which old frames were dropped for it; a frame that
    /// can never fit is dropped itself and counted.
    Dropped push(ByteSpan a, ByteSpan b = {}, ByteSpan c = {});
    [[nodiscard]] bool empty() const { return frames_ == 0; }
    [[nodiscard]] size_t frames() const { return frames_; }
    [[nodiscard]] size_t bytes() const { return used_; }
    /// What waits, as if it were dropped now.
    [[nodiscard]] Dropped waiting() const { return {frames_, used_ - frames_ * kLenBytes}; }
    /// Length of the oldest frame; 0 if empty.
    [[nodiscard]] size_t front_len() const;
    /// Appends the oldest frame to `out` and removes it.
    void pop_into(Bytes& out);
    void drop_front();
    void clear();
    /// Gives memory back when nothing is queued.
    void release_idle();

   private:
    static constexpr size_t kLenBytes = 4;
    void put(ByteSpan bytes);
    void get(size_t offset, MutByteSpan out) const;
    void grow(size_t need);

    size_t limit_bytes_;
    size_t keep_frames_;
    Bytes ring_;
    size_t head_ = 0;
    size_t used_ = 0;
    size_t frames_ = 0;
};

}  // namespace mesh::derp
