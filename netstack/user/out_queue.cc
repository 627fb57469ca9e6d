// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/user/out_queue.h"

#include <utility>

namespace mesh::netstack {
namespace {
constexpr size_t kKeptBytes = size_t{256} << 10;  // of a burst's memory
}  // namespace

uint8_t* OutQueue::reserve(size_t bytes) {
    const size_t from = waiting_.bytes.size();
    if (from + bytes > max_bytes_) return nullptr;
    waiting_.bytes.resize(from + bytes);
    waiting_.ends.push_back(from + bytes);
    return waiting_.bytes.data() + from;
}

std::span<TunRead> OutQueue::take() {
    std::swap(taken_, waiting_);
    waiting_.bytes.clear();
    waiting_.ends.clear();
    if (waiting_.bytes.capacity() > kKeptBytes) Bytes().swap(waiting_.bytes);
    reads_.clear();
    size_t from = 0;
    for (const size_t end : taken_.ends) {
        reads_.push_back({VnetHdr{}, MutByteSpan(taken_.bytes).subspan(from, end - from)});
        from = end;
    }
    return reads_;
}

}  // namespace mesh::netstack
