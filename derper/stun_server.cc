// SPDX-License-Identifier: BSD-3-Clause
#include "derper/stun_server.h"

#include <algorithm>
#include <utility>

#include "magicsock/stun/stun.h"

namespace mesh::derper {

Result<std::unique_ptr<StunServer>> StunServer::open(platform::Loop& loop, const Addr& addr, uint16_t port) {
    auto server = std::make_unique<StunServer>();
    Status last;
    for (const auto family : {Addr::Family::kV4, Addr::Family::kV6}) {
        if (addr.is_valid() && addr.is_v4() != (family == Addr::Family::kV4)) continue;
        auto socket = platform::UdpSocket::open({.family = family,
                                                 .port = server->sockets_.empty() ? port : server->port(),
                                                 .exact_port = true,
                                                 .bind_addr = addr,
                                                 .protect = platform::Protect::kNo,
                                                 .bulk = false});
        if (!socket) {
            last = tl::unexpected(std::move(socket.error()));
            continue;
        }
        (*socket)->attach(loop, *server);
        server->sockets_.push_back(std::move(*socket));
    }
    if (server->sockets_.empty()) return tl::unexpected(std::move(last.error()).with("STUN"));
    return server;
}

uint16_t StunServer::port() const { return sockets_.front()->local_port(); }

void StunServer::on_datagrams(std::span<UdpReceive> batch) {
    for (const UdpReceive& r : batch) {
        platform::UdpSocket* socket = nullptr;
        for (const auto& s : sockets_)
            if ((s->family() == Addr::Family::kV4) == r.from.addr.is_v4()) socket = s.get();
        if (!socket) continue;
        const size_t stride = r.stride > 0 ? r.stride : r.bytes.size();
        for (size_t at = 0; at < r.bytes.size(); at += stride) {
            const auto tx = stun::decode_request(r.bytes.subspan(at, std::min(stride, r.bytes.size() - at)));
            if (!tx) {
                ++ignored_;
                continue;
            }
            uint8_t out[stun::kMaxResponseLen];
            const size_t n = stun::encode_response(*tx, r.from, out);
            socket->send(r.from, ByteSpan(out, n));
            ++answered_;
        }
    }
}

}  // namespace mesh::derper
