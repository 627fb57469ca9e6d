// SPDX-License-Identifier: BSD-3-Clause
// LocalBackend, the part that steers packet loop, router and relays.

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "base/json.h"
#include "base/log.h"
#include "magicsock/derp/derp_map_json.h"
#include "platform/file.h"
#include "platform/linux/net_state.h"
#include "tailscaled/local_backend.h"

namespace mesh::daemon {

using api::State;

namespace {

constexpr size_t kSlice = 64;  // peers per message to the packet loop
constexpr Duration kRelayRetry = seconds(5);

}  // namespace

void LocalBackend::apply_keys() {
    if (!engine_) return;
    const auto& persist = profiles_.prefs().persist;
    const NodePrivate key = persist ? persist->private_node_key : NodePrivate{};
    if (timestamp_floor_ == 0) {
        // Once per run, and on disk before the first use: after a second crash a run must not start at the same stamp again.
        timestamp_floor_ = profiles_.timestamp_floor(loop_.wall());
        if (timestamp_floor_ > 0) on_timestamp(timestamp_floor_ + 1);
    }
    engine_->set_keys(key, profiles_.disco_key(), timestamp_floor_);
    derp_dialer_->set_node_key(key);
    engine_->set_running(!key.is_zero() && profiles_.prefs().want_running);
}

void LocalBackend::on_net_event(const platform::NetEvent& event) {
    net_ = *event.state;
    if (event.router_touched && !repair_timer_.armed()) {
        const Time now = loop_.now();
        repair_timer_.set_after(std::max(Duration{}, repair_limit_.next(now) - now));
    }
    if (event.change == platform::NetChange::kNone) return;
    log::info("monitor: the network changed ({})", event.change == platform::NetChange::kMajor ? "major" : "minor");
    resolver_.set_config(dns_ ? dns_->host_config() : platform::system_resolver_config());
    if (dns_) dns_->look();
    apply_local_addrs();
    if (!engine_) return;
    if (event.change == platform::NetChange::kMajor) {
        engine_->rebind();
        derp_dialer_->retry_now();
        if (control_) control_->network_changed();
    } else {
        engine_->restun();
    }
    apply_port_mapping();
    if (port_mapping_) port_mapping_->look_again();
    if (applied_) apply_map(nullptr);
}

void LocalBackend::apply_local_addrs() {
    if (!engine_) return;
    engine_->set_local_addrs(platform::local_endpoint_addrs(net_, tun_name_), net_.have_v4(tun_name_),
                             net_.have_v6(tun_name_));
}

/// A port of the router is ours while we are up, and as long as the way out is an IPv4 gateway.
void LocalBackend::apply_port_mapping() {
    if (!port_mapping_ || !engine_) return;
    const auto gateway = std::find_if(net_.gateways.begin(), net_.gateways.end(), [](const Addr& a) { return a.is_v4(); });
    const char* no_upnp = std::getenv("TS_DISABLE_UPNP");
    const bool upnp = (no_upnp == nullptr || *no_upnp == '\0') && !(map_ && map_->has_cap("debug-disable-upnp"));
    port_mapping_->set(applied_ && gateway != net_.gateways.end() ? *gateway : Addr(), engine_->port_v4(), upnp);
}

void LocalBackend::on_port_mapping() {
    const PortMapping::State& s = port_mapping_->state();
    engine_->set_port_mapping(s.endpoint, s.upnp, s.pmp, s.pcp);
    publish_health();
    if (!net_info_) return;
    net_info_->have_port_map = s.endpoint.has_value();
    net_info_->upnp = s.upnp;
    net_info_->pmp = s.pmp;
    net_info_->pcp = s.pcp;
    send_update();
}

void LocalBackend::queue_peers(PeerSlice slice) {
    // Removals first, so that an id can be given to somebody else in the same round.
    while (!slice.removed.empty() || !slice.upserted.empty() || !slice.greet_early.empty()) {
        PeerSlice part;
        const auto take = [](auto& from, auto& to) {
            const size_t n = std::min(kSlice, from.size());
            to.assign(std::make_move_iterator(from.begin()), std::make_move_iterator(from.begin() + static_cast<std::ptrdiff_t>(n)));
            from.erase(from.begin(), from.begin() + static_cast<std::ptrdiff_t>(n));
        };
        if (!slice.removed.empty())
            take(slice.removed, part.removed);
        else if (!slice.upserted.empty())
            take(slice.upserted, part.upserted);
        else
            take(slice.greet_early, part.greet_early);
        engine_->apply_peers(std::move(part));
    }
}

void LocalBackend::apply_map(const netmap::PeerChanges* changes) {
    if (!map_ || !engine_) return;
    const WallTime wall = loop_.wall();
    const bool first = !applied_;
    applied_ = true;
    bool regranted = false;
    if (changes == nullptr || changes->filter || changes->self) {
        RelayGrants grants = relay_grants(*map_);
        regranted = !(grants == relay_grants_);
        relay_grants_ = std::move(grants);
    }
    PeerPlan plan = plan_peers(*map_, changes, ids_, wall, relay_grants_);
    if (regranted && changes != nullptr) plan.slice.upserted = plan_peers(*map_, nullptr, ids_, wall, relay_grants_).slice.upserted;
    // A walk over thousands of peers, so not for each that comes or goes.
    if (plan.policy || changes->other) next_expiry_ = map_->next_expiry(wall);
    if (plan.policy) peers_offer_routes_ = offer_routes(*map_);
    if (first) {
        engine_->set_running(true);
        apply_port_mapping();
        heap_timer_.set_after(kHeapRest);
    }
    if (!greeted_ && !map_->peers.empty()) {
        // Peers that still hold sessions with the process before this one would send into a void for up to 15 s.
        greeted_ = true;
        plan.slice.greet_early = peers_to_greet(*map_, ids_);
    }
    if (plan.policy) {
        serve_peers();
        tables_ = make_tables(*map_, profiles_.prefs(), ids_, net_, wall, peer_api_port());
        engine_->set_tables(tables_);
    }
    queue_peers(std::move(plan.slice));
    if (plan.policy) {
        apply_relay();
        apply_router();
    }
    if (plan.policy || touches_dns(changes, exit_node(*map_, profiles_.prefs()))) apply_dns();
}

OutgoingDialer::Hooks LocalBackend::outgoing_hooks() {
    OutgoingDialer::Hooks hooks;
    hooks.names = [this](const std::string& host) { return dns_->known(host); };
    hooks.way = [this](const Addr& a) {
        if (!userspace() || !applied_ || !tables_) return OutgoingDialer::Way::kHost;
        if (std::find(tables_->self.begin(), tables_->self.end(), a) != tables_->self.end()) return OutgoingDialer::Way::kSelf;
        return tables_->routes.find(a) != nullptr ? OutgoingDialer::Way::kTunnel : OutgoingDialer::Way::kHost;
    };
    hooks.tunnel = [this](Outgoing what) { engine_->dial(std::move(what)); };
    return hooks;
}

void LocalBackend::apply_router() {
    if (!router_) return;
    route_notes_.clear();
    platform::RouterConfig config = make_router_config(*map_, profiles_.prefs(), net_, tun_name_, engine_->port_v4(),
                                                             engine_->port_v6(), loop_.wall(), &route_notes_);
    config.relay_port = relay_port_;
    if (const auto r = router_->set(config); !r) log::info("router: {}", r.error().message());
    engine_->link_up();
}

/// Our UDP relay for others, and whether we use theirs.
void LocalBackend::apply_relay() {
    if (!engine_) return;
    const api::Prefs& p = profiles_.prefs();
    const bool up = applied_ && map_;
    if (relay_static_ != p.relay_server_static_endpoints) {
        relay_static_ = p.relay_server_static_endpoints;
        engine_->set_relay_static_endpoints(relay_static_);
    }
    const std::optional<uint16_t> wanted = up && !map_->has_cap("disable-relay-server") ? p.relay_server_port : std::nullopt;
    if (wanted != relay_wanted_ || (wanted && relay_port_ == 0)) {
        relay_wanted_ = wanted;
        const bool ran = std::exchange(relay_port_, uint16_t{0}) != 0;
        const std::string problem = std::exchange(relay_problem_, "");
        auto sockets = wanted ? RelayService::open(*wanted) : Result<RelayService::Sockets>(RelayService::Sockets{});
        if (sockets && sockets->v4) relay_port_ = sockets->v4->local_port();
        if (!sockets) {
            relay_problem_ = sockets.error().message();
            if (relay_problem_ != problem) log::info("{}", relay_problem_);
            relay_timer_.set_after(kRelayRetry);
        }
        if (ran || relay_port_ != 0) engine_->set_relay_server(sockets ? std::move(*sockets) : RelayService::Sockets{});
        publish_health();
    }
    const std::pair client{up && !map_->has_cap("disable-relay-client"), up && relay_port_ != 0 && holds(relay_grants_.servers, *map_->self)};
    if (client == relay_client_) return;
    relay_client_ = client;
    engine_->set_relay_client(client.first, client.second);
}

void LocalBackend::apply_dns() {
    if (!dns_ || !map_ || !tables_) return;
    DnsService::Wanted wanted;
    wanted.map = map_.get();
    wanted.prefs = &profiles_.prefs();
    wanted.exit_node = exit_node(*map_, profiles_.prefs());
    wanted.v6 = router_ && router_->capabilities().v6;
    // As the router routes: through the tunnel, unless the host is itself connected to that network.
    wanted.in_tunnel = [tables = tables_, connected = connected_networks(net_, tun_name_)](const Addr& a) {
        return tables->routes.find(a) != nullptr && std::none_of(connected.begin(), connected.end(), [&](const Prefix& p) { return p.contains(a); });
    };
    dns_->apply(wanted);
}

void LocalBackend::when_host_ready(std::function<void()> done) {
    if (!dns_) return done();
    dns_->when_settled(std::move(done));
}

void LocalBackend::on_dns_query(const DnsClient& client, Bytes query) {
    if (dns_) dns_->on_query(client, query);
}

void LocalBackend::repair_router() {
    if (!router_ || !applied_) return;
    const bool fought = repair_limit_.fighting();
    const auto mended = router_->resync();
    if (!mended) log::info("router: {}", mended.error().message());
    repair_limit_.looked(loop_.now(), !mended || *mended > 0);
    if (repair_limit_.fighting() && !fought)
        log::info("router: another program undoes these settings again and again; from now on they are restored twice a minute");
    publish_health();
}

void LocalBackend::take_down() {
    if (!applied_ || !engine_) {
        if (engine_ && !profiles_.prefs().want_running) engine_->set_running(false);
        return;
    }
    applied_ = false;
    apply_port_mapping();
    apply_relay();
    peer_api_.reset();
    if (dns_) dns_->take_down();
    any_session_ = false;
    starting_since_ = {};
    PeerSlice slice;
    if (map_)
        for (const auto& n : map_->peers)
            if (const PeerId id = ids_.find(n->id); id != kNoPeer) slice.removed.push_back(id);
    ids_ = {};
    engine_->set_tables(std::make_shared<const dataplane::Tables>());
    queue_peers(std::move(slice));
    engine_->set_running(false);
    derp_dialer_->forget_all();
    live_derps_.clear();
    derp_problems_.clear();
    greeted_ = false;
    if (router_) {
        platform::RouterConfig down;
        down.netfilter = platform::NetfilterMode::kOff;
        if (const auto r = router_->set(down); !r) log::info("router: {}", r.error().message());
    }
}

// ---- relays ----------------------------------------------------------------------------------------------------------

void LocalBackend::load_cached_derp_map() {
    if (options_.state_dir.empty()) return;
    const auto text = platform::read_file(options_.state_dir + "/derpmap.cached.json", 4U << 20);
    if (!text) return;
    const auto j = json::parse(*text);
    if (!j) return;
    if (auto map = derp::parse_derp_map(*j)) set_derp_map(std::make_shared<const derp::DerpMap>(std::move(*map)));
}

void LocalBackend::set_derp_map(std::shared_ptr<const derp::DerpMap> map) {
    const bool same = derp_map_ && *derp_map_ == *map;
    derp_map_ = std::move(map);
    if (same) return;
    derp_dialer_->set_map(derp_map_);
    engine_->set_derp_map(derp_map_);
    if (!options_.state_dir.empty()) {
        const std::string text = json::dump(derp::derp_map_json(*derp_map_));
        const auto r = platform::replace_file(options_.state_dir + "/derpmap.cached.json", text, 0600);
        if (!r) log::info("derp map: could not be kept for the next start: {}", r.error().message());
    }
}

void LocalBackend::on_netcheck(const netcheck::Report& report) {
    control::NetInfo info;
    info.mapping_varies_by_dest_ip = report.mapping_varies_by_dest_ip;
    info.working_ipv6 = report.ipv6;
    info.os_has_ipv6 = report.os_has_ipv6;
    info.working_udp = report.udp;
    info.working_icmpv4 = report.icmpv4;
    info.upnp = report.upnp;
    info.pmp = report.pmp;
    info.pcp = report.pcp;
    info.have_port_map = port_mapping_ && port_mapping_->state().endpoint;
    if (port_mapping_) port_mapping_->set_seen(report.global_v4.addr);
    info.preferred_derp = home_derp_ != 0 ? home_derp_ : report.preferred_derp;
    for (const auto& [region, latency] : report.region_v4_latency) info.derp_latency[fmt::format("{}-v4", region)] = latency.seconds();
    for (const auto& [region, latency] : report.region_v6_latency) info.derp_latency[fmt::format("{}-v6", region)] = latency.seconds();
    info.firewall_mode = router_ ? router_->firewall_mode() : "";
    if (report.udp && std::exchange(captive_portal_, std::nullopt)) publish_health();
    const bool changed = !net_info_ || !net_info_->basically_equal(info);
    net_info_ = std::move(info);
    if (!map_started_ && logged_in_)
        start_map();
    else if (changed)
        send_update();
    report_ = report;
    answer_doctors();
}

void LocalBackend::on_endpoints(const std::vector<magicsock::LocalEndpoint>& endpoints) {
    if (endpoints == endpoints_) return;
    endpoints_ = endpoints;
    std::string text;
    for (const auto& e : endpoints) text += fmt::format("{}{} ({})", text.empty() ? "" : ", ", e.ep.str(), magicsock::endpoint_type_name(e.type));
    log::info("magicsock: endpoints changed: {}", text);
    send_update();
}

void LocalBackend::on_home_derp(int region) {
    if (region == home_derp_) return;
    home_derp_ = region;
    log::info("magicsock: home is now derp-{} ({})", region, log::printable(derp_code(map_.get(), region)));
    if (net_info_ && net_info_->preferred_derp != region) {
        net_info_->preferred_derp = region;
        send_update();
    }
}

void LocalBackend::on_derp_wanted(int region) { derp_dialer_->want(region); }

void LocalBackend::on_derp_link(DerpLink link) {
    const int region = link.region;
    log::info("magicsock: derp-{} connected: {}", region, log::printable(link.where));
    live_derps_.insert(region);
    derp_problems_.erase(region);
    engine_->adopt_derp(std::move(link));
    update_state();
    publish_health();
}

void LocalBackend::on_derp_failure(int region, const std::string& why) {
    if (derp_problems_[region] != why) log::info("magicsock: derp-{}: {}", region, log::printable(why, 1024));
    derp_problems_[region] = why;
    engine_->derp_failed(region);
    publish_health();
}

void LocalBackend::on_derp_lost(int region, const std::string& why) {
    live_derps_.erase(region);
    if (!why.empty()) log::info("magicsock: derp-{} lost: {}", region, log::printable(why, 1024));
    if (region != home_derp_) {
        if (why.empty()) derp_dialer_->forget(region);  // not wanted any more
        derp_problems_.erase(region);
    }
    publish_health();
}

void LocalBackend::on_names_wanted(const std::vector<std::string>& hosts) {
    for (const std::string& host : hosts) {
        if (lookups_.size() > 256) return;
        lookups_[host] = resolver_.resolve(host, {}, [this, host](Result<std::vector<Addr>> r) {
            if (!r) log::info("derp: {} cannot be resolved: {}", log::printable(host), r.error().message());
            if (engine_) engine_->give_names(host, r ? std::move(*r) : std::vector<Addr>{});
            loop_.post([old = std::shared_ptr<platform::Resolver::Lookup>(std::move(lookups_[host]))] {});
            lookups_.erase(host);
        });
    }
}

void LocalBackend::on_https_wanted(const std::vector<int>& regions) {
    for (const int region : regions) measure_https(region);
    if (captive_probe_ || !derp_map_) return;
    captive_probe_ = std::make_unique<CaptivePortalProbe>(loop_, http_, *derp_map_, [this](std::optional<bool> found) {
        captive_portal_ = found;
        engine_->give_captive_portal(found);
        publish_health();
        loop_.post([old = std::shared_ptr<CaptivePortalProbe>(std::move(captive_probe_))] {});
    });
}

void LocalBackend::measure_https(int region) {
    const derp::DerpRegion* r = derp_map_ ? derp_map_->region(region) : nullptr;
    const derp::DerpNode* node = nullptr;
    if (r)
        for (const auto& n : r->nodes)
            if (!n.stun_only && !node) node = &n;
    if (!node) return engine_->give_https_latency(region, false, {}, Addr::Family::kV4);
    platform::HttpRequest request;
    request.url = "https://" + node->http_host() + "/derp/latency-check";
    request.timeout = seconds(5);
    for (const Addr& a : {node->literal_v4(), node->literal_v6()})
        if (a.is_valid()) request.addresses.push_back(a);
    auto tls = platform::derp_tls_options(node->host_name, node->cert_name, node->insecure_for_tests);
    if (!tls) return engine_->give_https_latency(region, false, {}, Addr::Family::kV4);
    request.tls = std::move(*tls);
    https_[region] = http_.send(std::move(request), [this, region](Result<platform::HttpResponse> answer) {
        const bool ok = answer.has_value();
        engine_->give_https_latency(region, ok, ok ? answer->first_byte - answer->tls : Duration{},
                                    ok && answer->remote.is_v6() ? Addr::Family::kV6 : Addr::Family::kV4);
        loop_.post([old = std::shared_ptr<platform::HttpClient::Call>(std::move(https_[region]))] {});
        https_.erase(region);
    });
}

// ---- other events ----------------------------------------------------------------------------------------------------

void LocalBackend::on_session() {
    if (any_session_) return;
    any_session_ = true;
    update_state();
}

void LocalBackend::on_path(PeerId peer, const magicsock::Path& path) {
    if (!map_) return;
    for (const auto& n : map_->peers)
        if (ids_.find(n->id) == peer)
            log::info("magicsock: disco: node {} ({}) now using {}", short_key(n->key), log::printable(n->host_label()),
                      path.vni != 0 ? magicsock::via_text(path.udp, path.vni) : path.udp.str());
}

void LocalBackend::on_timestamp(int64_t unix_ns) {
    if (profiles_.note_timestamp(unix_ns, false)) save();
}

void LocalBackend::on_datagram(uint64_t association, const Endpoint& from, const Bytes& payload) {
    if (datagrams_) datagrams_->answer(association, from, payload);
}

void LocalBackend::on_fatal(const std::string& why) { fatal_(why); }

}  // namespace mesh::daemon
