// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Answers STUN binding requests of mesh clients, and nothing else.

#include <memory>
#include <vector>

#include "base/result.h"
#include "platform/loop/loop.h"
#include "platform/net/answering_socket.h"

namespace mesh::derper {

class StunServer {
   public:
    /// `addr` invalid: all addresses of both families; one family may be missing on the host.
    [[nodiscard]] static Result<std::unique_ptr<StunServer>> open(platform::Loop& loop, const Addr& addr,
                                                                  uint16_t port);
    [[nodiscard]] uint16_t port() const { return sockets_.front()->port(); }
    [[nodiscard]] uint64_t answered_v4() const { return answered_v4_; }
    [[nodiscard]] uint64_t answered_v6() const { return answered_v6_; }
    [[nodiscard]] uint64_t ignored() const { return ignored_; }

   private:
    size_t answer(const Endpoint& from, ByteSpan question, MutByteSpan out);

    uint64_t answered_v4_ = 0, answered_v6_ = 0;
    uint64_t ignored_ = 0;
    std::vector<std::unique_ptr<platform::AnsweringSocket>> sockets_;
};

}  // namespace mesh::derper
