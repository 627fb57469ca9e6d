// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Memory for what is on its way to the kernel, one piece a thread, handed round: a connection that is quiet keeps none, a busy
/// one allocates none.

#include "base/bytes.h"

namespace mesh::platform {

namespace detail {
inline Bytes& spare_buffer() {
    thread_local Bytes spare;
    return spare;
}
}  // namespace detail

/// Gives `empty` the thread's memory if it has none of its own.
inline void borrow_memory(Bytes& empty) {
    if (empty.capacity() == 0) empty.swap(detail::spare_buffer());
}

/// Takes the memory of a buffer whose content is done with.
inline void return_memory(Bytes& done) {
    constexpr size_t kMost = size_t{256} << 10;
    Bytes& spare = detail::spare_buffer();
    done.clear();
    if (done.capacity() > spare.capacity() && done.capacity() <= kMost) spare.swap(done);
    Bytes().swap(done);
}

}  // namespace mesh::platform
