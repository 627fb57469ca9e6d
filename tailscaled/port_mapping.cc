// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/port_mapping.h"

#include <fmt/format.h>

#include "base/log.h"
#include "magicsock/portmap/natpmp.h"
#include "platform/net/source_address.h"

namespace mesh::daemon {

namespace {
constexpr Duration kHttpTimeout = seconds(2);
constexpr Duration kClosePatience = seconds(1);
}  // namespace

PortMapping::PortMapping(platform::Loop& loop, platform::HttpClient& http, Random& random, OnChange on_change)
    : loop_(loop), http_(http), on_change_(std::move(on_change)), mapper_(random), timer_(loop, [this] {
          mapper_.handle_timeout(loop_.now());
          settle();
      }) {}

void PortMapping::set(const Addr& gateway, uint16_t local_port, bool upnp) {
    const Addr self = gateway.is_v4() && local_port != 0 ? platform::source_address(gateway, platform::Protect::kYes) : Addr();
    if (gateway == gateway_ && self == self_ && local_port == port_ && upnp == upnp_) return;
    const bool moved = self != self_;
    gateway_ = gateway;
    self_ = self;
    port_ = local_port;
    upnp_ = upnp;
    seen_ = {};
    mapper_.release(loop_.now());
    settle();  // by the old socket
    if (moved) open_socket(self);
    hear_announcements();
    if (socket_) mapper_.set({gateway, self, upnp}, local_port, loop_.now());
    settle();
}

void PortMapping::open_socket(const Addr& self) {
    socket_.reset();
    if (!self.is_v4()) return;
    platform::UdpSocket::Options options;
    options.bind_addr = self;
    options.bulk = false;
    auto socket = platform::UdpSocket::open(options);
    if (!socket) {
        log::info("portmap: {}", socket.error().message());
        self_ = {};  // tried again with the next change
        return;
    }
    socket_ = std::move(*socket);
    socket_->attach(loop_, *this);
}

// Without it a router that starts anew is noticed after some minutes.
void PortMapping::hear_announcements() {
    if (!socket_ || port_ == 0) return announcements_.socket.reset();
    if (announcements_.socket) return;
    platform::UdpSocket::Options options;
    options.bind_addr = Addr::v4(224, 0, 0, 1);  // every host is in this group; nothing else arrives here
    options.port = portmap::kAnnouncePort;
    options.exact_port = options.shared = true;
    options.protect = platform::Protect::kNo;  // nothing is sent
    options.bulk = false;
    auto socket = platform::UdpSocket::open(options);
    if (!socket) return log::debug(1, "portmap: announcements of routers are not heard: {}", socket.error().message());
    announcements_.socket = std::move(*socket);
    announcements_.socket->attach(loop_, announcements_);
}

void PortMapping::Announcements::on_datagrams(std::span<UdpReceive> batch) {
    for (const UdpReceive& r : batch) owner.mapper_.handle_announcement(r.bytes, r.from, owner.loop_.now());
    owner.settle();
}

void PortMapping::look_again() {
    mapper_.look_again(loop_.now());
    settle();
}

void PortMapping::set_seen(const Addr& seen) {
    if (seen == seen_ || !seen.is_v4()) return;
    const bool moved = seen_.is_valid();
    seen_ = seen;
    if (moved) mapper_.look_again(loop_.now());  // a line that was dialled anew; the router may have forgotten everything
    settle();
}

void PortMapping::close() {
    mapper_.release(loop_.now());
    settle();
    const Time until = loop_.now() + kClosePatience;
    platform::Timer limit(loop_, [] {});
    limit.set(until);
    while (mapper_.releasing() && loop_.now() < until) loop_.run_once(true);
}

void PortMapping::on_datagrams(std::span<UdpReceive> batch) {
    for (const UdpReceive& r : batch) mapper_.handle_datagram(r.bytes, r.from, loop_.now());
    settle();
}

void PortMapping::settle() {
    while (auto d = mapper_.next_send())
        if (socket_) socket_->send(d->to, d->bytes);
    while (auto ask = mapper_.next_http()) {
        platform::HttpRequest request;
        request.url = ask->url;
        request.timeout = kHttpTimeout;
        request.max_body_bytes = portmap::upnp::kMaxXml;
        if (ask->call) {
            request.method = platform::HttpRequest::Method::kPost;
            request.headers = {{"Content-Type", "text/xml; charset=\"utf-8\""}, {"SOAPAction", ask->call->soap_action}};
            request.body = std::move(ask->call->body);
        }
        calls_[ask->id] = http_.send(std::move(request), [this, id = ask->id](Result<platform::HttpResponse> answer) {
            if (!answer) log::debug(1, "portmap: {}", answer.error().message());
            calls_.erase(id);
            mapper_.http_answer(id, answer ? answer->body : "", loop_.now());
            settle();
        });
    }
    timer_.set(mapper_.next_timeout());

    State now;
    now.endpoint = mapper_.mapping();
    if (const auto by = mapper_.protocol()) now.protocol = portmap::name(*by);
    if (const portmap::Found* found = mapper_.services()) {
        now.upnp = found->upnp();
        now.pmp = found->natpmp;
        now.pcp = found->pcp;
    }
    now.notes = mapper_.notes();
    if (now.endpoint && seen_.is_valid() && now.notes.empty() && now.endpoint->addr != seen_)
        now.notes.push_back({portmap::Note::Kind::kPrivateAddress,
                             fmt::format("The router {} opened a port at {}, but this host is seen from the Internet as {}: the port is open at "
                                         "another way out, and may not help.", gateway_.str(), now.endpoint->addr.str(), seen_.str())});
    if (now == state_) return;
    if (now.endpoint != state_.endpoint)
        log::info("portmap: {}", now.endpoint ? fmt::format("{} by {} of {} leads to port {}", now.endpoint->str(), now.protocol, gateway_.str(), port_)
                                              : "no port of the router leads here now");
    if (now.notes != state_.notes)
        for (const portmap::Note& n : now.notes) log::info("portmap: {}", n.text);
    state_ = std::move(now);
    on_change_();
}

}  // namespace mesh::daemon
