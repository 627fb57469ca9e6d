// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/dns_service.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "platform/linux/netlink.h"
#include "platform/linux/router_plan.h"

namespace mesh::daemon {

namespace {
constexpr Duration kShortWait = milliseconds(100);
}  // namespace

DnsService::DnsService(platform::Loop& loop, platform::Resolver& resolver, platform::Dialer& dialer, platform::HttpClient& http, Random& random,
                       Engine& engine, Options options)
    : loop_(loop),
      resolver_(resolver),
      engine_(engine),
      options_(std::move(options)),
      forwarder_(loop, dialer, http, random),
      peers_forwarder_(loop, dialer, http, random),
      patience_(loop, [this] { tell_waiters(); }) {
    if (options_.userspace) return;
    auto tcp = DnsTcp::start(loop_, options_.tun_name, [this](ByteSpan query, DnsTcp::Reply reply) {
        answer(query, DnsForwarder::Client::kTcp, std::move(reply));
    });
    if (tcp) {
        tcp_ = std::move(*tcp);
        engine_.set_dns_listener(tcp_->port());
    } else {
        log::info("dns: no DNS over TCP: {}", tcp.error().message());
    }
}

DnsService::~DnsService() { take_down(); }

void DnsService::apply(const Wanted& w) {
    names_ = make_names(*w.map);
    engine_.set_names(names_);
    const bool can_split = host_ && host_->state() && host_->state()->can_split;
    DnsPlan plan = make_dns_plan(*w.map, *w.prefs, w.exit_node, {can_split, w.v6, host_config()});
    if (options_.userspace) plan.os = {};
    foreign_ = !host_ && !plan.os.is_empty() && foreign_dns_owner(options_.tun_name);
    if (!host_ && !plan.os.is_empty() && !foreign_) {
        // Who manages the host's resolver is found out only when it is to be changed. The plan may be another one then.
        platform::DnsManagerOptions options;
        options.etc = options_.etc;
        options.tun_name = options_.tun_name;
        options.tun_index = engine_.tun_index();
        const auto open = [options](platform::Loop& own_loop, std::function<void()> on_change) mutable {
            options.on_change = std::move(on_change);
            return platform::open_dns_manager(own_loop, std::move(options));
        };
        host_ = std::make_unique<platform::HostDns>(loop_, open, [this] { on_host_change(); });
    }
    notes_ = std::move(plan.notes);
    peers_refused_ = w.map->dns->exit_node_filtered_set;
    peers_forwarder_.set_routes(routes_for_peers(plan, host_config()), w.in_tunnel);
    forwarder_.set_routes(std::move(plan.routes), w.in_tunnel);
    set_host(plan.os);
}

void DnsService::set_host(const platform::OsDnsConfig& config) {
    if (host_ && host_->state() && config != os_) {
        os_ = config;
        host_->set(config);
    }
    follow_host();
}

void DnsService::on_host_change() {
    options_.on_change();  // what is wanted may be another thing now
    if (!settled()) return;
    if (os_.is_empty() && host_ && host_->state()->problems.empty()) host_.reset();  // it has its own resolver again
    tell_waiters();
}

std::vector<Addr> DnsService::known(const std::string& host) const {
    const std::vector<Addr>* addrs = names_ ? names_->host(dns::canonical(host)) : nullptr;
    return addrs != nullptr ? *addrs : std::vector<Addr>{};
}

void DnsService::when_settled(std::function<void()> done) {
    if (settled()) return done();
    if (waiters_.empty()) patience_.set_after(kPatience);
    waiters_.push_back(std::move(done));
}

void DnsService::tell_waiters() {
    patience_.cancel();
    for (const auto& done : std::exchange(waiters_, {})) done();
}

void DnsService::take_down() {
    names_.reset();
    engine_.set_names(nullptr);
    forwarder_.set_routes({}, nullptr);
    peers_forwarder_.set_routes({}, nullptr);
    notes_.clear();
    foreign_ = false;
    set_host({});
    // Names go where they went before us before the tunnel goes, unless somebody hangs.
    if (host_) static_cast<void>(host_->wait(kShortWait));
}

void DnsService::look() {
    if (host_) host_->look();
    follow_host();
}

void DnsService::follow_host() {
    platform::ResolverConfig now = host_config();
    if (now.servers.empty()) now.servers.push_back({Addr::v4(127, 0, 0, 1), 53});  // as the resolver would
    const platform::ResolverConfig& had = resolver_.config();
    // Look-ups under way would end.
    if (now.servers != had.servers || now.search != had.search || now.ndots != had.ndots) resolver_.set_config(std::move(now));
}

platform::ResolverConfig DnsService::host_config() const {
    return host_ && host_->state() ? host_->state()->base : platform::system_resolver_config(options_.etc);
}

void DnsService::answer(ByteSpan query, DnsForwarder::Client client, DnsForwarder::Done done) {
    if (!names_) return done(dns::failure(query, dns::kServFail));
    Bytes reply;
    switch (dns::answer(*names_, query, reply)) {
        case dns::Outcome::kIgnore: return done({});
        case dns::Outcome::kAnswered: return done(std::move(reply));
        case dns::Outcome::kForward: return forwarder_.ask(query, client, std::move(done));
    }
}

void DnsService::answer_peer(ByteSpan query, DnsForwarder::Done done) {
    static const dns::NameTable none;
    Bytes reply;
    const dns::Outcome outcome = dns::answer(none, query, reply);
    if (outcome != dns::Outcome::kForward) return done(std::move(reply));
    dns::Query q;
    static_cast<void>(dns::parse_query(query, q));
    if (refused_to_peers(peers_refused_, q.name)) return done(dns::error_reply(q, dns::kNxDomain));
    peers_forwarder_.ask(query, DnsForwarder::Client::kTcp, std::move(done));
}

void DnsService::on_query(const DnsClient& client, const Bytes& query) {
    answer(query, DnsForwarder::Client::kUdp, [this, client](Bytes reply) { engine_.give_dns_reply(client, std::move(reply)); });
}

void DnsService::ask(const std::string& name, uint16_t type, std::function<void(Result<Answer>)> done) {
    const Bytes query = dns::make_query(0, name, type);
    if (query.empty()) return done(fail(Code::kInvalid, "not a DNS name: " + log::printable(name)));
    Answer out;
    if (const auto* upstreams = forwarder_.routes().find(dns::canonical(name)))
        for (const dns::Upstream& u : *upstreams) out.resolvers.push_back(u.text);
    answer(query, DnsForwarder::Client::kTcp, [out = std::move(out), done = std::move(done)](Bytes reply) mutable {
        out.message = std::move(reply);
        done(std::move(out));
    });
}

std::vector<std::string> DnsService::health() const {
    std::vector<std::string> out = notes_;
    if (host_ && host_->state()) out.insert(out.end(), host_->state()->problems.begin(), host_->state()->problems.end());
    if (foreign_) out.emplace_back("Another client on this host keeps its DNS settings; names of this tailnet are not resolved by the system.");
    if (forwarder_.failing()) out.emplace_back("Tailscale can't reach the configured DNS servers. Internet connectivity may be affected.");
    return out;
}

bool foreign_dns_owner(const std::string& tun_name) {
    auto netlink = platform::Netlink::open();
    if (!netlink) return false;
    const auto own = netlink->link(tun_name);
    for (const Addr& service : {service_addr_v4(), service_addr_v6()}) {
        const auto routes = netlink->routes(service.is_v4() ? Addr::Family::kV4 : Addr::Family::kV6, platform::kRouteTable);
        if (!routes) continue;
        for (const auto& r : *routes)
            if (r.dst == Prefix::single(service) && r.oif != 0 && (!own || r.oif != own->index)) return true;
    }
    return false;
}

}  // namespace mesh::daemon
