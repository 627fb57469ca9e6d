// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/dns_service.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "platform/linux/netlink.h"
#include "platform/linux/router_plan.h"

namespace mesh::daemon {

DnsService::DnsService(platform::Loop& loop, platform::Resolver& resolver, platform::Dialer& dialer, platform::HttpClient& http, Random& random,
                       Engine& engine, Options options)
    : loop_(loop), resolver_(resolver), engine_(engine), options_(std::move(options)), forwarder_(loop, dialer, http, random) {
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
    const auto plan_now = [&] {
        return make_dns_plan(*w.map, *w.prefs, w.exit_node, {manager_ && manager_->can_split(), w.v6, host_config()});
    };
    DnsPlan plan = plan_now();
    foreign_ = !manager_ && !plan.os.is_empty() && foreign_dns_owner(options_.tun_name);
    if (!manager_ && !plan.os.is_empty() && !foreign_) {
        // Who manages the host's resolver is found out only when it is to be changed.
        platform::DnsManagerOptions options;
        options.etc = options_.etc;
        options.tun_name = options_.tun_name;
        options.tun_index = engine_.tun_index();
        options.on_change = options_.on_change;
        manager_ = platform::open_dns_manager(loop_, std::move(options));
        plan = plan_now();
    }
    notes_ = std::move(plan.notes);
    forwarder_.set_routes(std::move(plan.routes), w.in_tunnel);
    set_host(plan.os);
}

void DnsService::set_host(const platform::OsDnsConfig& config) {
    if (manager_ && (config != os_ || config.is_empty())) {
        if (const Status s = manager_->set(config); !s) log::info("dns: {}", s.error().message());
        os_ = config;
    }
    follow_host();
    if (config.is_empty()) manager_.reset();
}

void DnsService::take_down() {
    names_.reset();
    engine_.set_names(nullptr);
    forwarder_.set_routes({}, nullptr);
    notes_.clear();
    foreign_ = false;
    set_host({});
}

void DnsService::look() {
    if (manager_) manager_->look();
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
    return manager_ ? manager_->base() : platform::system_resolver_config(options_.etc);
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
    if (manager_) {
        const auto problems = manager_->problems();
        out.insert(out.end(), problems.begin(), problems.end());
    }
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
