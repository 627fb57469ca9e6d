// SPDX-License-Identifier: BSD-3-Clause
#include "derper/server.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "derper/bootstrap_dns.h"

namespace mesh::derper {
namespace {
/// Connections that are no client's (yet) may be this part of all.
constexpr size_t kStrangersShare = 4;
constexpr size_t kMinStrangers = 64;
/// After a restart one client a millisecond returns.
constexpr size_t kLeastSpreadMs = 100;
constexpr size_t kMostSpreadMs = 10'000;
constexpr Duration kTryFor = seconds(60);
}  // namespace

Server::Server(platform::Loop& loop, Random& random, Config config)
    : loop_(loop),
      random_(random),
      config_(std::move(config)),
      gate_(random, config_.accept_rate, config_.accept_burst, loop.now()),
      bury_(loop, [this] { graveyard_.clear(); }),
      turn_end_(loop, [this] { flush(); }) {
    counts_.started = loop.wall().unix_ns / 1'000'000'000;
    counts_.version = config_.version;
    set_rate(config_.rate);
}

Server::~Server() = default;

platform::Listener::OnAccept Server::acceptor(Service service) {
    return [this, service](platform::ByteStream stream) { accept(service, std::move(stream)); };
}

Status Server::adopt(platform::UniqueFd listening, Service service) {
    TRY_ASSIGN(auto listener, platform::Listener::adopt(loop_, std::move(listening), acceptor(service)));
    listeners_.push_back(std::move(listener));
    return {};
}

Status Server::listen(const ListenAddress& at, Service service) {
    const auto on_accept = acceptor(service);
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
    if (service == Service::kDerp && !lets_in(stream.remote_endpoint().addr)) return;
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
    strangers_.insert(id);
    if (strangers_.size() <= std::max<size_t>(config_.max_connections / kStrangersShare, kMinStrangers)) return;
    // Whoever holds connections without logging in loses the oldest; who logs in is in long before.
    ++counts_.tcp_refused_full;
    connections_.at(*strangers_.begin())->close("too many connections that did not log in");
}

bool Server::lets_in(const Addr& source) {
    const bool is_proxy = source.is_loopback() || std::any_of(config_.trusted_proxies.begin(), config_.trusted_proxies.end(),
                                                              [&source](const Prefix& p) { return p.contains(source); });
    switch (gate_.ask(is_proxy ? Addr() : source, loop_.now())) {
        case Gate::Verdict::kOpen: return true;
        case Gate::Verdict::kTooManyOfSource: ++counts_.tcp_refused_source; break;
        case Gate::Verdict::kTooMany: ++counts_.tcp_refused_rate; break;
    }
    return false;
}

void Server::leave() {
    listeners_.clear();
    relay_.fall_silent();
    std::vector<Connection*> all;
    for (const auto& [id, connection] : connections_) all.push_back(connection.get());
    // All at once would be a stampede.
    const auto spread = static_cast<uint32_t>(std::clamp<size_t>(all.size(), kLeastSpreadMs, kMostSpreadMs));
    for (Connection* c : all) c->leave(milliseconds(random_.below(spread)), kTryFor);
    flush();
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

void Server::write_now(ConnId id) {
    if (const auto it = connections_.find(id); it != connections_.end()) it->second->pump();
}

void Server::closed(ConnId id) {
    const auto it = connections_.find(id);
    if (it == connections_.end()) return;
    strangers_.erase(id);
    graveyard_.push_back(std::move(it->second));
    connections_.erase(it);
    bury_.set(loop_.now());
}

http1::Response Server::page(const http1::Request& request, const Asker& who) {
    const std::string_view path = path_of(request);
    if (path == "/bootstrap-dns") return bootstrap_ ? bootstrap_(request) : answer_bootstrap(request, {}, {});
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

void Server::count_session(const derp::ServerSessionStats& stats) { counts_.sessions += stats; }

Metrics Server::metrics() const {
    Metrics m = counts_;
    m.relay = relay_.stats();
    m.tcp_open = connections_.size();
    for (const auto& [id, connection] : connections_)
        if (const auto* session = connection->session()) m.sessions += session->stats();
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
    const RateLimit& all = rate.all;
    if (all.bytes_per_second <= 0)
        shared_.reset();
    else if (shared_)
        shared_->set(all.bytes_per_second, all.burst_bytes, loop_.now());
    else
        shared_.emplace(all.bytes_per_second, all.burst_bytes, loop_.now());
    for (const auto& [id, connection] : connections_) connection->rate_changed();
}

}  // namespace mesh::derper
