// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/derp/send_queue.h"

#include <algorithm>
#include <cstring>

namespace mesh::derp {
namespace {
constexpr size_t kFirstRing = 4096;
}  // namespace

SendQueue::Dropped SendQueue::push(ByteSpan a, ByteSpan b, ByteSpan c) {
    const size_t len = a.size() + b.size() + c.size();
    const size_t need = len + kLenBytes;
    if (need > limit_bytes_ && keep_frames_ == 0) return {1, len};
    Dropped dropped;
    while (used_ + need > limit_bytes_ && frames_ > 0 && frames_ >= keep_frames_) {
        ++dropped.frames;
        dropped.bytes += front_len();
        drop_front();
    }
    if (used_ + need > ring_.size()) grow(used_ + need);
    uint8_t head[kLenBytes];
    store_le32(head, static_cast<uint32_t>(len));
    put(head);
    put(a);
    put(b);
    put(c);
    ++frames_;
    return dropped;
}

size_t SendQueue::front_len() const {
    if (frames_ == 0) return 0;
    uint8_t head[kLenBytes];
    get(0, head);
    return load_le32(head);
}

void SendQueue::pop_into(Bytes& out) {
    if (frames_ == 0) return;
    const size_t len = front_len();
    const size_t at = out.size();
    out.resize(at + len);
    get(kLenBytes, MutByteSpan(out).subspan(at));
    drop_front();
}

void SendQueue::drop_front() {
    if (frames_ == 0) return;
    const size_t n = front_len() + kLenBytes;
    head_ = (head_ + n) % ring_.size();
    used_ -= n;
    if (--frames_ == 0) head_ = 0;
}

void SendQueue::clear() {
    head_ = used_ = frames_ = 0;
}

void SendQueue::release_idle() {
    if (frames_ == 0) Bytes().swap(ring_);
}

void SendQueue::put(ByteSpan bytes) {
    if (bytes.empty()) return;
    const size_t at = (head_ + used_) % ring_.size();
    const size_t first = std::min(bytes.size(), ring_.size() - at);
    std::memcpy(ring_.data() + at, bytes.data(), first);
    if (first < bytes.size()) std::memcpy(ring_.data(), bytes.data() + first, bytes.size() - first);
    used_ += bytes.size();
}

void SendQueue::get(size_t offset, MutByteSpan out) const {
    if (out.empty()) return;
    const size_t at = (head_ + offset) % ring_.size();
    const size_t first = std::min(out.size(), ring_.size() - at);
    std::memcpy(out.data(), ring_.data() + at, first);
    if (first < out.size()) std::memcpy(out.data() + first, ring_.data(), out.size() - first);
}

void SendQueue::grow(size_t need) {
    size_t size = std::max(kFirstRing, ring_.size());
    while (size < need) size *= 2;
    Bytes bigger(std::min(size, std::max(need, limit_bytes_)));
    if (used_ > 0) get(0, MutByteSpan(bigger).first(used_));
    ring_.swap(bigger);
    head_ = 0;
}

}  // namespace mesh::derp
