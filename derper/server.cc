// SPDX-License-Identifier: BSD-3-Clause
#include "derper/server.h"

#include <utility>

#include "base/log.h"

namespace mesh::derper {

Server::Server(platform::Loop& loop, Random& random, Config config)
    : loop_(loop), random_(random), config_(std::move(config)), bury_(loop, [this] { graveyard_.clear(); }) {}

Server::~Server() = default;

Status Server::listen(const ListenAddress& at, Service service) {
    const auto on_accept = [this, service](platform::ByteStream stream) { accept(service, std::move(stream)); };
    if (at.addr.is_valid()) {
        TRY_ASSIGN(auto listener, platform::Listener::tcp(loop_, {at.addr, at.port}, on_accept));
        listeners_.push_back(std::move(listener));
        return {};
    }
    const uint8_t any6[16] = {};
    auto both = platform::Listener::tcp(loop_, {Addr::v6_bytes(any6), at.port}, on_accept,
                                        platform::Listener::TcpOptions{.v6_only = false});
    if (!both) both = platform::Listener::tcp(loop_, {Addr::v4(0), at.port}, on_accept);
    if (!both) return tl::unexpected(std::move(both.error()));
    listeners_.push_back(std::move(*both));
    return {};
}

uint16_t Server::port() const { return listeners_.front()->port(); }

void Server::accept(Service service, platform::ByteStream stream) {
    // Refusing is better than running out of descriptors, which would hurt those who are in.
    if (connections_.size() >= config_.max_connections) return;
    if (service == Service::kDerp && tls_) {
        auto tls = platform::TlsSession::server(tls_);
        if (!tls) {
            log::info("derper: TLS: {}", tls.error().message());
            return;
        }
        stream.start_tls(std::move(*tls));
    }
    const ConnId id = next_id_++;
    ConnectionHost& host = *this;  // make_unique has no access to the private base
    connections_.emplace(id, std::make_unique<Connection>(host, id, service, std::move(stream)));
}

void Server::flush() {
    // pump() may close a connection, which queues PeerGone at others: go on until nothing is left, but not recursively.
    if (std::exchange(flushing_, true)) return;
    for (auto dirty = relay_.take_dirty(); !dirty.empty(); dirty = relay_.take_dirty())
        for (const ConnId id : dirty)
            if (const auto it = connections_.find(id); it != connections_.end()) it->second->pump();
    flushing_ = false;
}

void Server::closed(ConnId id) {
    const auto it = connections_.find(id);
    if (it == connections_.end()) return;
    graveyard_.push_back(std::move(it->second));
    connections_.erase(it);
    bury_.set(loop_.now());
}

}  // namespace mesh::derper
