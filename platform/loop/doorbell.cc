// SPDX-License-Identifier: BSD-3-Clause
#include "platform/loop/doorbell.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <utility>

#include "base/check.h"

namespace mesh::platform {

Doorbell::Doorbell(Loop& loop, std::function<void()> on_ring)
    : fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      poll_(loop, fd_.get(), [fd = fd_.get(), heard = std::move(on_ring)](FdPoll::Events) {
          uint64_t rings = 0;
          [[maybe_unused]] const ssize_t n = ::read(fd, &rings, sizeof rings);  // first: who rings from now on is heard again
          heard();
      }) {
    CHECK(fd_.valid());
    poll_.set_interest(true, false);
}

void Doorbell::ring() const {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(fd_.get(), &one, sizeof one);
}

}  // namespace mesh::platform
