// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/relay_service.h"

#include <algorithm>

#include "base/log.h"
#include "magicsock/stun/stun.h"

namespace mesh::daemon {
namespace {

constexpr Duration kAskMin = seconds(20);
constexpr uint32_t kAskSpreadMs = 6000;
constexpr size_t kMaxMerged = 65'000;

size_t family(const Endpoint& e) { return e.addr.is_v4() ? 0 : 1; }

}  // namespace

Result<RelayService::Sockets> RelayService::open(uint16_t port) {
    platform::UdpSocket::Options options;
    options.port = port;
    options.exact_port = port != 0;
    auto v4 = platform::UdpSocket::open(options);
    if (!v4) return tl::unexpected(std::move(v4.error()).with("relay server"));
    options.family = Addr::Family::kV6;
    options.port = (*v4)->local_port();
    auto v6 = platform::UdpSocket::open(options);
    if (!v6) log::info("relay server: no IPv6 socket: {}", v6.error().message());
    return Sockets{std::move(*v4), v6 ? std::move(*v6) : nullptr};
}

RelayService::RelayService(platform::Loop& loop, Random& random, Sockets sockets, std::function<void(const std::vector<std::string>&)> names_wanted)
    : loop_(loop),
      random_(random),
      sockets_(std::move(sockets)),
      names_wanted_(std::move(names_wanted)),
      server_(random, DiscoPrivate::generate(random)),
      netcheck_(random),
      timer_(loop, [this] { on_timer(); }) {
    sockets_.v4->attach(loop_, *this);
    if (sockets_.v6) sockets_.v6->attach(loop_, *this);
    log::info("relay server: listening on UDP port {}", sockets_.v4->local_port());
}

RelayService::~RelayService() = default;

// ---- what it is told

void RelayService::set_static_endpoints(std::vector<Endpoint> endpoints) {
    static_ = endpoints;
    own_.set_static(std::move(endpoints));
    refresh(loop_.now());
}

void RelayService::set_local_addrs(const std::vector<Addr>& addrs, bool have_v4, bool have_v6) {
    const bool other = have_v4 != have_v4_ || (have_v6 && sockets_.v6) != have_v6_;
    have_v4_ = have_v4;
    have_v6_ = have_v6 && sockets_.v6;
    std::vector<Endpoint> local;
    for (const Addr& a : addrs)
        if (a.is_v4() || sockets_.v6) local.push_back({a, sockets_.v4->local_port()});
    own_.set_local(std::move(local));
    if (other) return ask_stun(loop_.now());
    refresh(loop_.now());
}

void RelayService::set_derp_map(std::shared_ptr<const derp::DerpMap> map) {
    derp_map_ = std::move(map);
    if (!derp_map_) netcheck_.stop();
    ask_stun(loop_.now());
}

void RelayService::give_names(const std::string& host, const std::vector<Addr>& addrs) {
    if (!asked_.contains(host)) return;
    netcheck_.addresses(host, addrs, loop_.now());
    pump(loop_.now());
}

void RelayService::network_changed() {
    sockets_.v4->protect_again();
    if (sockets_.v6) sockets_.v6->protect_again();
    own_.forget_learnt();
    ask_stun(loop_.now());
}

std::optional<disco::RelayEndpoint> RelayService::allocate(const disco::DiscoPair& clients) {
    auto endpoint = server_.allocate(clients[0], clients[1], loop_.now());
    on_timer();
    return endpoint;
}

// ---- our addresses

void RelayService::ask_stun(Time now) {
    if (!derp_map_) return refresh(now);
    asked_.clear();
    own_.begin_report();
    netcheck_.start({.map = derp_map_, .wall = {}, .have_v4 = have_v4_, .have_v6 = have_v6_, .os_has_ipv6 = have_v6_, .full = false, .udp_only = true}, now);
    ask_at_ = Time::never();
    pump(now);
}

void RelayService::pump(Time now) {
    std::vector<std::string> unknown;
    for (const std::string& host : netcheck_.names_needed())
        if (asked_.insert(host).second) unknown.push_back(host);
    if (!unknown.empty()) names_wanted_(unknown);
    while (const auto request = netcheck_.next_send(now)) send(request->to, request->datagram);
    for (const int region : netcheck_.take_https_wanted()) netcheck_.https_failed(region, now);  // only UDP matters here
    if (const auto report = netcheck_.take_report()) {
        own_.end_report(*report, now);
        looked_ = true;
        ask_at_ = now + kAskMin + milliseconds(random_.below(kAskSpreadMs));
    }
    refresh(now);
}

void RelayService::refresh(Time now) {
    std::vector<Endpoint> addrs = static_;
    if (looked_ || !derp_map_) {
        addrs.clear();
        for (const magicsock::LocalEndpoint& e : own_.list(now)) addrs.push_back(e.ep);
    }
    if (addrs != server_.addrs()) {
        std::string text;
        for (const Endpoint& e : addrs) text += (text.empty() ? "" : ", ") + e.str();
        log::info("relay server: reachable at {}", text.empty() ? "no address" : text);
        server_.set_addrs(std::move(addrs));
    }
    timer_.set(min(min(server_.next_timeout(), netcheck_.next_timeout()), min(ask_at_, own_.next_expiry(now))));
}

void RelayService::on_timer() {
    const Time now = loop_.now();
    server_.handle_timeout(now);
    if (now >= netcheck_.next_timeout()) netcheck_.handle_timeout(now);
    if (now >= ask_at_) return ask_stun(now);
    pump(now);
}

void RelayService::take_stun(ByteSpan datagram, const Endpoint& from, Time now) {
    const auto r = stun::decode_response(datagram);
    if (!r || !netcheck_.handle_stun(datagram, from, now)) return;
    own_.mapped(r->mapped, now);
    pump(now);
}

// ---- the straight line

void RelayService::on_datagrams(std::span<UdpReceive> batch) {
    const Time now = loop_.now();
    for (const UdpReceive& r : batch) r.each([&](MutByteSpan datagram) { take(datagram, r.step(), r.from, now); });
    if (!out_[0].empty()) sockets_.v4->send(out_[0]);
    if (!out_[1].empty() && sockets_.v6) sockets_.v6->send(out_[1]);
    for (auto& list : out_) list.clear();
}

void RelayService::take(MutByteSpan datagram, size_t stride, const Endpoint& from, Time now) {
    const relay::Server::Received r = server_.receive(datagram, from, now);
    if (r.verdict == relay::Server::Verdict::kReply) return send(r.to, server_.reply());
    if (r.verdict == relay::Server::Verdict::kDrop) {
        if (stun::looks_like_stun(datagram)) take_stun(datagram, from, now);
        return;
    }
    RelaySnapshot::Forwarded& count = forwarded_[family(from)][family(r.to)];
    ++count.packets;
    count.bytes += datagram.size();
    std::vector<UdpSend>& out = out_[family(r.to)];
    if (!out.empty()) {
        // The next of the same read: one send, unless a shorter one ended it.
        UdpSend& last = out.back();
        if (last.to == r.to && last.segment == stride && last.bytes.data() + last.bytes.size() == datagram.data() &&
            last.bytes.size() % stride == 0 && last.bytes.size() + datagram.size() <= kMaxMerged) {
            last.bytes = {last.bytes.data(), last.bytes.size() + datagram.size()};
            return;
        }
    }
    out.push_back({r.to, datagram, static_cast<uint32_t>(stride)});
}

void RelayService::send(const Endpoint& to, ByteSpan datagram) {
    platform::UdpSocket* socket = to.addr.is_v4() ? sockets_.v4.get() : sockets_.v6.get();
    if (socket != nullptr) socket->send(to, datagram);
}

void RelayService::on_send_error(const Endpoint& /*to*/, int /*err*/) {}

RelaySnapshot RelayService::snapshot() const {
    return {forwarded_, server_.open(), server_.connecting(), sockets_.v4->local_port(), server_.sessions(), server_.addrs(), server_.counters()};
}

}  // namespace mesh::daemon
