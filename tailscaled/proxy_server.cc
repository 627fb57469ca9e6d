// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/proxy_server.h"

#include "base/log.h"
#include "netstack/proxy_handshake.h"

namespace mesh::daemon {

using netstack::ProxyHandshake;

class ProxyServer::Connection final : public platform::ByteStream::Listener {
   public:
    Connection(ProxyServer& owner, platform::ByteStream stream, bool socks, bool http)
        : owner_(owner), handshake_(std::make_shared<ProxyHandshake>(socks, http)), patience_(owner.loop_, [this] { owner_.connections_.drop(this); }),
          stream_(std::move(stream)) {}

    void begin() {
        stream_.attach(owner_.loop_, *this);
        patience_.set_after(kPatience);
    }
    void close() {
        patience_.cancel();
        stream_.close();
    }

    void on_bytes(MutByteSpan bytes) override {
        const ProxyHandshake::Step step = handshake_->feed(bytes);
        if (const std::string reply = handshake_->take_reply(); !reply.empty()) stream_.write(reply);
        if (step == ProxyHandshake::Step::kMore) return;
        if (step == ProxyHandshake::Step::kRefused) {
            stream_.finish_writing();
            return owner_.connections_.drop(this);
        }
        stream_.detach();
        if (step == ProxyHandshake::Step::kAssociate) {
            owner_.associate_(std::move(stream_));
            return owner_.connections_.drop(this);
        }
        Outgoing what;
        what.client = std::move(stream_);
        what.to.port = handshake_->port();
        what.first = handshake_->take_first();
        what.greeting = handshake_->greeting();
        what.refusal = [h = handshake_](const Error& why) { return h->refusal(why); };
        owner_.open_(handshake_->host(), std::move(what));
        owner_.connections_.drop(this);
    }
    void on_closed(const Status&) override { owner_.connections_.drop(this); }

   private:
    ProxyServer& owner_;
    std::shared_ptr<ProxyHandshake> handshake_;
    platform::Timer patience_;
    platform::ByteStream stream_;
};

ProxyServer::~ProxyServer() {
    listeners_.clear();
    for (const auto& c : connections_) c->close();
}

Status ProxyServer::listen(const Endpoint& at, bool socks, bool http) {
    const auto accept = [this, socks, http](platform::ByteStream stream) {
        if (connections_.size() < kMaxUnheard) connections_.add(std::make_shared<Connection>(*this, std::move(stream), socks, http));
    };
    const bool any = at.addr.is_v6() && at.addr.is_unspecified();
    auto listener = any ? listen_by_tun(loop_, "", {at.port}, accept) : platform::Listener::tcp(loop_, at, accept);
    if (!listener) return tl::unexpected(std::move(listener.error()));
    log::info("{} listening on {}", socks && http ? "SOCKS5 and HTTP proxy" : socks ? "SOCKS5" : "HTTP proxy", Endpoint{at.addr, (*listener)->port()}.str());
    listeners_.push_back(std::move(*listener));
    return {};
}

Result<std::unique_ptr<ProxyServer>> ProxyServer::start(platform::Loop& loop, const std::optional<Endpoint>& socks,
                                                        const std::optional<Endpoint>& http, Open open,
                                                        Associate associate) {
    std::unique_ptr<ProxyServer> server(new ProxyServer(loop, std::move(open), std::move(associate)));
    if (socks) TRY(server->listen(*socks, true, socks == http));
    if (http && socks != http) TRY(server->listen(*http, false, true));
    return server;
}

}  // namespace mesh::daemon
