// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// A UDP socket for questions that have one short answer each (STUN). An answer leaves from the very address its question came
/// to, whichever of the host's it was: a NAT in between, or the one who asked, takes no other.

#include <cstdint>
#include <functional>
#include <memory>

#include "base/ip.h"
#include "base/result.h"
#include "platform/fd.h"
#include "platform/loop/loop.h"

namespace mesh::platform {

class AnsweringSocket {
   public:
    static constexpr size_t kMaxDatagram = 1500;  ///< longer questions are cut
    /// Writes the answer to `question` into `out` (kMaxDatagram bytes) and returns its length; 0 = none.
    using Answer = std::function<size_t(const Endpoint& from, ByteSpan question, MutByteSpan out)>;

    /// `addr` invalid = all addresses of `family`; port 0 = any.
    [[nodiscard]] static Result<std::unique_ptr<AnsweringSocket>> open(Loop& loop, Addr::Family family, const Addr& addr,
                                                                       uint16_t port, Answer answer);
    [[nodiscard]] uint16_t port() const { return port_; }

   private:
    AnsweringSocket(Loop& loop, UniqueFd fd, uint16_t port, Answer answer);
    void on_readable();

    UniqueFd fd_;
    uint16_t port_;
    Answer answer_;
    FdPoll poll_;
};

}  // namespace mesh::platform
