// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/localapi/server.h"

#include <algorithm>
#include <functional>

#include "tailscaled/localapi/peer_auth.h"

namespace mesh::localapi {

/// A stream and its session. Every callback ends by asking whether the connection is over; then it is its last act.
class Server::Connection final : public Wire, platform::ByteStream::Listener {
   public:
    Connection(Server& server, uint64_t id, platform::ByteStream stream, uid_t uid, pid_t pid)
        : server_(server), id_(id), stream_(std::move(stream)), session_(server.context_, *this, uid, pid) {
        stream_.attach(server_.loop_, *this);
    }

    bool write(std::string_view bytes, size_t limit) override {
        const size_t queued = stream_.queued_bytes();
        if (queued > limit || bytes.size() > limit - queued) return false;
        // An answer may be larger than any fixed limit; the session allows one at a time.
        stream_.set_queue_limit(queued + bytes.size());
        return stream_.write(bytes);
    }
    [[nodiscard]] size_t queued_bytes() const override { return stream_.queued_bytes(); }
    [[nodiscard]] platform::ByteStream release() override {
        stream_.detach();
        stream_.set_queue_limit(platform::ByteStream::kDefaultQueueLimit);  // not that of the last answer
        return std::move(stream_);
    }
    void session_finished() override { server_.sweep_soon(); }

    [[nodiscard]] Session& session() { return session_; }

   private:
    void on_bytes(MutByteSpan bytes) override {
        last_used_ = server_.loop_.now();
        session_.handle_bytes(bytes);
        if (stream_.queued_bytes() > 0) server_.trim_queues();
        settle();
    }
    void on_closed(const Status& why) override {
        if (!why) return server_.remove(id_);
        session_.handle_eof();
        settle();
    }
    void on_drained() override {
        session_.handle_drained();
        settle();
    }
    void settle() {
        if (session_.finished()) server_.remove(id_);
    }

    Server& server_;
    const uint64_t id_;
    Time last_used_;
    platform::ByteStream stream_;
    Session session_;

    friend class Server;
};

Server::Server(platform::Loop& loop, Backend& backend, Random& random, ServerOptions options)
    : loop_(loop),
      context_{backend, options.version_header, [&loop] { return loop.wall(); },
               [this](uid_t uid) {
                   return may_write(uid, options_.daemon_uid, context_.backend.prefs().operator_user);
               },
               random},
      options_(std::move(options)),
      self_(std::make_shared<Server*>(this)) {}

Server::~Server() { *self_ = nullptr; }

Status Server::listen(const std::string& path) {
    TRY_ASSIGN(listener_, platform::Listener::unix_socket(loop_, path, [this](platform::ByteStream stream) {
                   adopt(std::move(stream));
               }));
    return {};
}

void Server::adopt(platform::ByteStream stream) {
    const auto peer = stream.peer_credentials();
    if (!peer || !make_room(peer->uid)) return;  // closes it
    const uint64_t id = next_id_++;
    auto connection = std::make_unique<Connection>(*this, id, std::move(stream), peer->uid, peer->pid);
    connection->last_used_ = loop_.now();
    connections_.emplace(id, std::move(connection));
}

bool Server::make_room(uid_t uid) {
    // For each limit that is reached: the longest idle connection among those it counts goes.
    const auto limit = [&](size_t max, const std::function<bool(uid_t)>& counts) {
        size_t n = 0;
        auto oldest = connections_.end();
        for (auto it = connections_.begin(); it != connections_.end(); ++it) {
            if (!counts(it->second->session().uid())) continue;
            ++n;
            if (!it->second->session().idle()) continue;
            if (oldest == connections_.end() || it->second->last_used_ < oldest->second->last_used_) oldest = it;
        }
        if (n < max) return true;
        if (oldest == connections_.end()) return false;
        connections_.erase(oldest);
        return true;
    };
    if (!privileged(uid)) {
        if (!limit(kMaxPerUser, [&](uid_t other) { return other == uid; })) return false;
        if (!limit(kMaxUnprivileged, [&](uid_t other) { return !privileged(other); })) return false;
    }
    return limit(kMaxConnections, [](uid_t) { return true; });
}

void Server::trim_queues() {
    size_t total = 0;
    Connection* slowest = nullptr;
    for (const auto& [id, c] : connections_) {
        total += c->queued_bytes();
        if (!slowest || c->queued_bytes() > slowest->queued_bytes()) slowest = c.get();
    }
    if (total <= kMaxQueued || !slowest) return;
    slowest->session_.cut();
    sweep_soon();
}

void Server::publish(const api::Notify& notify) {
    const bool anybody = std::any_of(connections_.begin(), connections_.end(),
                                     [](const auto& c) { return c.second->session().watching(); });
    if (!anybody) return;
    const BusMessage message(notify);
    for (const auto& [id, c] : connections_) c->session().publish(message);
}

void Server::sweep_soon() {
    if (sweep_posted_) return;
    sweep_posted_ = loop_.post([self = self_] {
        if (*self) (*self)->sweep();
    });
}

void Server::sweep() {
    sweep_posted_ = false;
    for (auto it = connections_.begin(); it != connections_.end();)
        it = it->second->session().finished() ? connections_.erase(it) : std::next(it);
}

void Server::remove(uint64_t id) { connections_.erase(id); }

}  // namespace mesh::localapi
