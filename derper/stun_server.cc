// SPDX-License-Identifier: BSD-3-Clause
#include "derper/stun_server.h"

#include <utility>

#include "magicsock/stun/stun.h"

namespace mesh::derper {

Result<std::unique_ptr<StunServer>> StunServer::open(platform::Loop& loop, const Addr& addr, uint16_t port) {
    auto server = std::make_unique<StunServer>();
    Status last;
    for (const auto family : {Addr::Family::kV4, Addr::Family::kV6}) {
        if (addr.is_valid() && addr.is_v4() != (family == Addr::Family::kV4)) continue;
        auto socket = platform::AnsweringSocket::open(
            loop, family, addr, server->sockets_.empty() ? port : server->port(),
            [s = server.get()](const Endpoint& from, ByteSpan question, MutByteSpan out) { return s->answer(from, question, out); });
        if (socket)
            server->sockets_.push_back(std::move(*socket));
        else
            last = tl::unexpected(std::move(socket.error()));
    }
    if (server->sockets_.empty()) return tl::unexpected(std::move(last.error()).with("STUN"));
    return server;
}

size_t StunServer::answer(const Endpoint& from, ByteSpan question, MutByteSpan out) {
    static_assert(stun::kMaxResponseLen <= platform::AnsweringSocket::kMaxDatagram);
    const auto tx = stun::decode_request(question);
    if (!tx) {
        ++ignored_;
        return 0;
    }
    ++(from.addr.is_v4() ? answered_v4_ : answered_v6_);
    return stun::encode_response(*tx, from, out.data());
}

}  // namespace mesh::derper
