// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/dataplane/send_batch.h"

#include <algorithm>

namespace mesh::dataplane {

namespace {
constexpr size_t kMaxSends = 1024;  // one sendmmsg takes no more
}

SendBatch::SendBatch(Sink& sink) : sink_(sink) { sends_.reserve(kMaxSends); }

SendBatch::Lane& SendBatch::lane_for(const Endpoint& to, size_t max_bytes) {
    if (sends_.size() >= kMaxSends) flush();
    size_t found = kLanes;
    if (lanes_[current_].in_use && lanes_[current_].to == to) {
        found = current_;
    } else {
        for (size_t i = kLanes; i-- > 0;) {
            if (lanes_[i].in_use && lanes_[i].to == to) {
                found = i;
                break;
            }
            if (!lanes_[i].in_use) found = i;
        }
    }
    if (found == kLanes || lanes_[found].used + max_bytes > kLaneBytes) {
        flush();
        found = 0;
    }
    current_ = found;
    Lane& lane = lanes_[found];
    if (!lane.in_use) {
        lane.in_use = true;
        lane.to = to;
        if (!memory_[found]) memory_[found] = std::make_unique_for_overwrite<uint8_t[]>(kLaneBytes);
    }
    return lane;
}

uint8_t* SendBatch::reserve(const Endpoint& to, size_t max_bytes) {
    const Lane& lane = lane_for(to, max_bytes);
    return memory_[current_].get() + lane.used;
}

void SendBatch::commit(size_t bytes) {
    if (bytes == 0) return;
    Lane& lane = lanes_[current_];
    const uint8_t* at = memory_[current_].get() + lane.used;
    lane.used += bytes;
    if (lane.send != SIZE_MAX) {
        UdpSend& s = sends_[lane.send];
        const bool full_so_far = s.bytes.size() == lane.segments * s.segment;
        if (full_so_far && bytes <= s.segment && lane.segments < kMaxSegments && s.bytes.size() + bytes <= kMaxSendBytes) {
            s.bytes = {s.bytes.data(), s.bytes.size() + bytes};
            ++lane.segments;
            return;
        }
    }
    lane.send = sends_.size();
    lane.segments = 1;
    sends_.push_back({lane.to, {at, bytes}, static_cast<uint32_t>(bytes)});
}

void SendBatch::flush() {
    const auto in_use = static_cast<size_t>(std::count_if(lanes_.begin(), lanes_.end(), [](const Lane& l) { return l.in_use; }));
    UdpBatch batch{sends_, std::span(memory_).first(in_use), {}};  // lanes are taken from the first on
    if (!sends_.empty()) sink_.send_batch(batch);
    sends_.clear();
    for (Lane& lane : lanes_) {
        lane.used = 0;
        lane.send = SIZE_MAX;
        lane.segments = 0;
        lane.in_use = false;
    }
}

}  // namespace mesh::dataplane
