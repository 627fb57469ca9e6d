// SPDX-License-Identifier: BSD-3-Clause
#include "derper/server.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace mesh::derper {

Server::Server(platform::Loop& loop, Random& random, Config config)
    : loop_(loop),
      random_(random),
      config_(std::move(config)),
      accepts_(std::min(config_.accept_rate, 1e12), std::min(config_.accept_burst, 1e12), loop.now()),
      bury_(loop, [this] { graveyard_.clear(); }) {
    counts_.started = loop.wall().unix_ns / 1'000'000'000;
    counts_.version = config_.version;
}

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
    ++counts_.tcp_accepted;
    if (connections_.size() >= config_.max_connections) {
        ++counts_.tcp_refused_full;
        return;
    }
    if (service == Service::kDerp && !accepts_.try_take(1, loop_.now())) {
        ++counts_.tcp_refused_rate;
        return;
    }
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
    peak_ = std::max(peak_, connections_.size());
}

void Server::flush() {
    // pump() may close a connection, which queues PeerGone at others: go on until nothing is left, but not recursively.
    if (std::exchange(flushing_, true)) return;
    for (auto dirty = relay_.take_dirty(); !dirty.empty(); dirty = relay_.take_dirty())
        for (const ConnId id : dirty)
            if (const auto it = connections_.find(id); it != connections_.end()) it->second->pump();
    if (after_flush_) after_flush_();
    flushing_ = false;
}

void Server::closed(ConnId id) {
    const auto it = connections_.find(id);
    if (it == connections_.end()) return;
    graveyard_.push_back(std::move(it->second));
    connections_.erase(it);
    bury_.set(loop_.now());
}

http1::Response Server::page(const http1::Request& request, const Asker& who) {
    const std::string_view path = path_of(request);
    const bool is_debug = path == "/debug" || path.starts_with("/debug/");
    if (!is_debug && path != "/metrics") return answer_page(request, config_.home);
    const bool allowed =
        who.certain && (is_debug ? who.addr.is_loopback()
                                 : std::any_of(config_.metrics_from.begin(), config_.metrics_from.end(),
                                               [&who](const Prefix& p) { return p.contains(who.addr); }));
    if (!allowed) return text_page(403, is_debug ? "for loopback only\n" : "not for this address; see -metrics-from\n");
    if (request.method != "GET" && request.method != "HEAD") return text_page(405, "method not allowed\n");
    http1::Response r;
    if (path == "/metrics" || path == "/debug/varz")
        r = text_page(200, metrics_text(metrics()));
    else if (path == "/debug" || path == "/debug/")
        r = text_page(200, "/debug/varz\n");
    else
        r = text_page(404, "404 page not found\n");
    if (request.method == "HEAD") r.body.clear();
    return r;
}

void Server::count_session(const derp::ServerSessionStats& stats) { counts_.sessions.dropped_full += stats.dropped_full; }

Metrics Server::metrics() const {
    Metrics m = counts_;
    m.relay = relay_.stats();
    m.tcp_open = connections_.size();
    for (const auto& [id, connection] : connections_)
        if (const auto* session = connection->session()) m.sessions.dropped_full += session->stats().dropped_full;
    if (add_metrics_) add_metrics_(m);
    return m;
}

void Server::close_peer(const NodePublic& key) {
    for (const ConnId id : relay_.connections_of(key))
        if (const auto it = connections_.find(id); it != connections_.end()) it->second->close("a mesh peer asked for it");
}

void Server::set_allowed(std::shared_ptr<const KeySet> keys) {
    config_.admission.allowed = std::move(keys);
    if (!config_.admission.allowed) return;
    std::vector<ConnId> out;
    for (const auto& [id, connection] : connections_) {
        const derp::ServerSession* s = connection->session();
        if (s && s->logged_in() && !s->is_mesh_peer() && !config_.admission.allowed->contains(s->key())) out.push_back(id);
    }
    for (const ConnId id : out)
        if (const auto it = connections_.find(id); it != connections_.end()) it->second->close("no longer in the list of keys");
}

void Server::set_rate(const RateConfig& rate) {
    config_.rate = rate;
    for (const auto& [id, connection] : connections_) connection->rate_changed();
}

}  // namespace mesh::derper
