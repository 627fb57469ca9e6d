// SPDX-License-Identifier: BSD-3-Clause
// LocalBackend, the part that answers questions.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>

#include "base/json.h"
#include "base/log.h"
#include "magicsock/derp/derp_map_json.h"
#include "netstack/via6.h"
#include "platform/linux/forwarding.h"
#include "platform/net/socket_mark.h"
#include "tailscaled/doctor.h"
#include "tailscaled/local_backend.h"
#include "tailscaled/netmap/codec.h"
#include "tailscaled/paths_view.h"

namespace mesh::daemon {

using api::Notify;
using api::State;

namespace {

constexpr size_t kMaxDoctors = 16;
/// A netcheck ends after 5 s at the latest.
constexpr Duration kDoctorPatience = seconds(7);

/// What the kernel forwards for these routes: sites of 4via6 get IPv4.
std::vector<Prefix> forwarded(std::vector<Prefix> routes) {
    for (Prefix& p : routes)
        if (netstack::is_via6(p)) p = netstack::via6_target(p);
    return routes;
}

}  // namespace

StatusInputs LocalBackend::inputs(const EngineSnapshot& engine) {
    StatusInputs in;
    in.map = map_.get();
    in.prefs = &profiles_.prefs();
    in.engine = &engine;
    in.peer_id = [this](netmap::NodeId id) { return ids_.find(id); };
    in.state = state_;
    in.has_node_key = profiles_.has_node_key();
    in.auth_url = auth_url_;
    in.hostname = profiles_.prefs().hostname.empty() ? hostname_ : profiles_.prefs().hostname;
    in.health = health();
    in.endpoints = endpoints_;
    in.home_derp = home_derp_;
    in.peer_api_port = peer_api_port();
    in.tun = !userspace();
    in.wall = loop_.wall();
    in.now = platform::read_clock();
    return in;
}

const EngineSnapshot& LocalBackend::engine_snapshot(bool wanted) {
    static const EngineSnapshot none;
    return wanted && engine_ ? engine_->snapshot() : none;
}

api::DaemonStatus LocalBackend::status(localapi::WithPeers peers) {
    const bool with_peers = peers == localapi::WithPeers::kYes;
    const EngineSnapshot& engine = engine_snapshot(with_peers && applied_);
    // Thousands of peers in words are megabytes for a moment.
    if (with_peers && map_ && map_->peers.size() >= kManyPeers && !heap_timer_.armed()) heap_timer_.set_after(kHeapRest);
    return build_status(inputs(engine), with_peers);
}

std::optional<api::WhoIsResult> LocalBackend::whois(const Addr& ip, uint16_t port, std::string_view /*proto*/) {
    if (!map_) return std::nullopt;
    auto node = map_->node_by_addr(ip);
    // With userspace networking programs of this host see a port of our own.
    if (!node && port != 0 && userspace())
        if (const auto client = engine_->client_of({ip, port})) node = map_->node_by_addr(client->addr);
    if (!node) return std::nullopt;
    return whois_of(*map_, *node);
}

std::optional<api::WhoIsResult> LocalBackend::whois(const NodePublic& key) {
    if (!map_) return std::nullopt;
    const auto node = map_->node_by_key(key);
    if (!node) return std::nullopt;
    return whois_of(*map_, *node);
}

std::string LocalBackend::derp_map_json() { return derp_map_ ? json::dump(derp::derp_map_json(*derp_map_)) : ""; }

std::optional<std::string> LocalBackend::dns_config_json() {
    if (!map_) return std::nullopt;
    return json::dump(netmap::to_json(*map_->dns));
}

std::string LocalBackend::dns_os_config_json() {
    const platform::ResolverConfig host = dns_ ? dns_->host_config() : platform::system_resolver_config();
    api::JsonText out;
    out.open_object().key("Nameservers").open_array();
    for (const Endpoint& e : host.servers) out.text(e.addr.str());
    out.close_array().key("SearchDomains").open_array();
    for (const std::string& d : host.search) out.text(d);
    out.close_array().key("MatchDomains").open_array();
    out.close_array().close_object();
    return out.take();
}

void LocalBackend::dns_query(const std::string& name, uint16_t type, DnsDone done) {
    if (!dns_) return done(fail(Code::kUnavailable, "the daemon is not ready"));
    dns_->ask(name, type, [done = std::move(done)](Result<DnsService::Answer> answer) {
        if (!answer) return done(tl::unexpected(std::move(answer.error())));
        api::JsonText out;
        out.open_object().field("Bytes", base64_encode(answer->message)).key("Resolvers").open_array();
        for (const std::string& r : answer->resolvers) out.open_object().field("Addr", r).close_object();
        out.close_array().close_object();
        done(out.take());
    });
}

std::string LocalBackend::net_map_json() {
    if (!map_) return "";
    api::JsonText out;
    out.open_object();
    out.raw_field("SelfNode", api::node_json(api_node(*map_->self)));
    out.key("Peers").open_array();
    for (const auto& n : map_->peers) out.raw(api::node_json(api_node(*n)));
    out.close_array();
    out.raw_field("DERPMap", derp_map_json());
    out.raw_field("DNS", json::dump(netmap::to_json(*map_->dns)));
    out.field("Domain", map_->domain);
    out.close_object();
    return out.take();
}

std::string LocalBackend::user_metrics() {
    const EngineSnapshot& engine = engine_snapshot();
    return metrics_text(inputs(engine));
}

std::string LocalBackend::bug_report(const std::string& note, bool diagnose) {
    const std::time_t now = loop_.wall().unix_ns / 1'000'000'000;
    std::tm tm{};
    gmtime_r(&now, &tm);
    std::array<uint8_t, 8> id{};
    random_.fill(id);
    std::string mark = fmt::format("BUG-{}-{:04}{:02}{:02}{:02}{:02}{:02}Z-{}", log_id_, tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min,
                                   tm.tm_sec, hex_encode(id));
    log::info("user bugreport: {}", mark);
    if (!note.empty()) log::info("user bugreport note: {}", log::printable(note, 2000));
    if (diagnose) log::info("user bugreport doctor: {}", log::printable(doctor_report(std::nullopt), 100'000));
    return mark;
}

std::string LocalBackend::drops_json() { return daemon::drops_json(engine_snapshot()); }

std::string LocalBackend::paths_json(const std::optional<Addr>& peer) {
    const EngineSnapshot& engine = engine_snapshot();
    return daemon::paths_json(inputs(engine), peer ? peer_for(*peer).get() : nullptr, !peer);
}

void LocalBackend::doctor(const std::optional<Addr>& peer, bool measure, DoctorDone done) {
    if (!measure || !engine_ || !applied_ || doctors_.size() >= kMaxDoctors) return done(doctor_report(peer));
    if (doctors_.empty()) {
        engine_->measure();
        doctor_timer_.set_after(kDoctorPatience);
    }
    doctors_.emplace_back(peer, std::move(done));
}

void LocalBackend::answer_doctors() {
    doctor_timer_.cancel();
    const auto waiting = std::exchange(doctors_, {});
    for (const auto& [peer, done] : waiting) done(doctor_report(peer));
}

std::string LocalBackend::doctor_report(const std::optional<Addr>& peer) {
    const EngineSnapshot& engine = engine_snapshot(applied_);
    const StatusInputs status = inputs(engine);
    DoctorInputs in;
    in.status = &status;
    in.control_url = control_url();
    in.control_error = control_error_;
    in.report = report_ ? &*report_ : nullptr;
    in.derp_map = derp_map_.get();
    in.live_derps = &live_derps_;
    in.derp_problems = &derp_problems_;
    const PortMapping::State port = port_mapping_ ? port_mapping_->state() : PortMapping::State{};
    in.port_mapping = port.notes;
    if (engine_) in.port = engine_->port_v4();
    in.default_route = !net_.default_interface_v4.empty() || !net_.default_interface_v6.empty();
    in.have_network = net_.have_v4(tun_name_) || net_.have_v6(tun_name_);
    netmap::NodePtr node = peer ? peer_for(*peer) : nullptr;
    if (!node && peer && map_) node = map_->node_by_addr(*peer);  // one that takes no part, because its key expired
    if (node && node == map_->self) node = nullptr;
    return doctor_json(in, node, peer);
}

std::string LocalBackend::ip_forwarding_warning() {
    if (userspace()) return "";
    std::vector<Prefix> routes = profiles_.prefs().advertise_routes.value_or(std::vector<Prefix>{});
    if (routes.empty()) routes.push_back(Prefix{Addr::v4(0, 0, 0, 0), 0});
    return platform::check_forwarding(forwarded(std::move(routes)), platform::this_host()).text;
}

void LocalBackend::dial(const std::string& host, uint16_t port, platform::ByteStream client) {
    Outgoing what;
    what.client = std::move(client);
    what.to.port = port;
    what.greeting = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ts-dial\r\n\r\n";
    what.refusal = [](const Error& why) {
        http1::Response r = http1::plain_text(502, "dial failure: " + log::printable(why.message(), 1000));
        r.keep_alive = false;
        return http1::serialize(r);
    };
    if (!outgoing_) {
        what.client.write(what.refusal({Code::kUnavailable, 0, "the daemon is not ready"}));
        return;
    }
    outgoing_->dial(host, std::move(what));
}

bool LocalBackend::uses_so_mark() { return platform::socket_mark_works(); }

Notify LocalBackend::initial_notify(uint64_t mask) {
    Notify n;
    if (mask & api::kWatchInitialState) {
        n.state = state_;
        if (!auth_url_.empty()) n.browse_to_url = auth_url_;
    }
    if (mask & api::kWatchInitialPrefs) n.prefs = profiles_.prefs();
    if ((mask & api::kWatchInitialOutgoingFiles) && sends_) n.outgoing_files = sends_->files();
    if ((mask & api::kWatchInitialState) && taildrop_) n.files_waiting = taildrop_->has_files();
    if ((mask & api::kWatchInitialNetMap) && map_) {
        n.self_change_json = api::node_json(api_node(*map_->self));
        if (!(mask & api::kWatchNoNetMap)) n.net_map_json = net_map_json();
    }
    if (mask & api::kWatchInitialHealth) {
        n.health.emplace();
        for (const std::string& text : health()) {
            api::HealthWarning w;
            w.code = "health";
            w.severity = "medium";
            w.text = text;
            n.health->push_back(std::move(w));
        }
    }
    if (mask & api::kWatchInitialStatus) n.initial_status_json = api::status_json(status(localapi::WithPeers::kYes));
    return n;
}

std::vector<std::string> LocalBackend::health() const {
    std::vector<std::string> out;
    const api::Prefs& p = profiles_.prefs();
    if (!save_error_.empty()) out.push_back("The state could not be saved (" + save_error_ + "). A restart would lose the login.");
    if (state_ == State::kStopped || (state_ == State::kNeedsLogin && !p.want_running)) {
        out.emplace_back("Tailscale is stopped.");
        return out;
    }
    if (!control_error_.empty()) out.push_back("Unable to connect to the Tailscale coordination server to synchronize the state of your tailnet. " + control_error_);
    if (state_ == State::kNeedsLogin) {
        out.emplace_back("You are logged out. Run 'tailscale up' to log in.");
        return out;
    }
    if (state_ == State::kStarting) out.emplace_back("Tailscale is starting. Please wait.");
    if (home_derp_ != 0 && !live_derps_.contains(home_derp_)) {
        if (const auto it = derp_problems_.find(home_derp_); it != derp_problems_.end()) {
            const derp::DerpRegion* r = derp_map_ ? derp_map_->region(home_derp_) : nullptr;
            out.push_back(fmt::format("Tailscale could not connect to the '{}' relay server. Your Internet connection might be down, or the "
                                      "server might be temporarily unavailable. ({})", r ? r->name : "", it->second));
        }
    }
    if (engine_ && options_.wanted_port != 0 && engine_->port_v4() != options_.wanted_port)
        out.push_back(fmt::format("UDP port {} is taken by another program; using port {}.", options_.wanted_port, engine_->port_v4()));
    if (!relay_problem_.empty())
        out.push_back(fmt::format("This node cannot be a peer relay: {}. Choose another port by 'tailscale set --relay-server-port'.", relay_problem_));
    if (map_) {
        if (!p.route_all && peers_offer_routes_) out.emplace_back("Some peers are advertising routes but --accept-routes is false");
        if (router_ && !p.subnet_routes().empty() && platform::check_forwarding(forwarded(p.subnet_routes()), platform::this_host()).broken)
            out.emplace_back("Subnet routing is enabled, but IP forwarding is disabled. Check that IP forwarding is enabled on your machine.");
        out.insert(out.end(), map_->health.begin(), map_->health.end());
        for (const auto& [id, m] : map_->display_messages) out.push_back(m.text);
    }
    out.insert(out.end(), route_notes_.begin(), route_notes_.end());
    if (captive_portal_.value_or(false))
        out.emplace_back("This network wants you to log in by a web browser before it lets anything through.");
    if (port_mapping_)
        for (const portmap::Note& n : port_mapping_->state().notes)
            if (n.kind == portmap::Note::Kind::kWrongGateway) out.push_back(n.text);
    if (repair_limit_.fighting())
        out.emplace_back("Another program on this host keeps removing routes or firewall rules of this one, so the tunnel is interrupted now "
                         "and then. Look which one it is (journalctl, nft monitor, ip monitor).");
    if (router_) out.insert(out.end(), router_->problems().begin(), router_->problems().end());
    if (dns_) {
        const auto problems = dns_->health();
        out.insert(out.end(), problems.begin(), problems.end());
    }
    for (std::string& text : out) text = log::printable(text, 1000);
    return out;
}

void LocalBackend::publish_health() {
    std::vector<std::string> now = health();
    if (now == last_health_) return;
    last_health_ = std::move(now);
    publish_(initial_notify(api::kWatchInitialHealth));
}

// ---- ping ------------------------------------------------------------------------------------------------------------

netmap::NodePtr LocalBackend::peer_for(const Addr& ip) const {
    netmap::NodePtr target;
    if (!map_) return target;
    int best = -1;
    const auto chosen = exit_node(*map_, profiles_.prefs());
    for (const auto& n : map_->peers) {
        if (ids_.find(n->id) == kNoPeer) continue;
        for (const Prefix& p : accepted_prefixes(*map_, *n, profiles_.prefs(), n == chosen))
            if (p.contains(ip) && p.len > best) {
                best = p.len;
                target = n;
            }
    }
    return target;
}

void LocalBackend::ping(const api::PingRequest& request, PingDone done) {
    api::PingResult result;
    result.ip = request.ip.str();
    const auto refuse = [&](std::string why) {
        result.err = std::move(why);
        done(result);
    };
    if (!map_ || !applied_) return refuse(fmt::format("not connected; state: {}", api::state_name(state_)));
    for (const Prefix& p : map_->self->addresses) {
        if (p.addr != request.ip) continue;
        result.is_local_ip = true;
        return refuse(request.ip.str() + " is local Tailscale IP");
    }
    const netmap::NodePtr target = peer_for(request.ip);
    if (!target) return refuse("no matching peer");
    const Addr node_ip = [&] {
        const Addr same = target->address(request.ip.is_v4() ? Addr::Family::kV4 : Addr::Family::kV6);
        return same.is_valid() ? same : target->addresses.empty() ? Addr{} : target->addresses.front().addr;
    }();
    result.node_ip = node_ip.str();
    result.node_name = std::string(target->host_label());
    if (request.type == api::PingType::kPeerApi && (!peer_api(*target).is_valid() || !outgoing_))
        return refuse(fmt::format("no PeerAPI base found for peer {} ({})", target->id, request.ip.str()));
    if (pings_.size() >= 256) return refuse("too many pings at once");
    const uint64_t id = next_ping_++;
    const PeerId peer = ids_.find(target->id);
    pings_[id] = {std::move(done), std::move(result), loop_.now() + seconds(15), nullptr};
    switch (request.type) {
        case api::PingType::kTsmp: engine_->ping_tunnel(id, peer, node_ip, dataplane::PingKind::kTsmp); break;
        case api::PingType::kIcmp: engine_->ping_tunnel(id, peer, request.ip, dataplane::PingKind::kIcmp); break;
        case api::PingType::kPeerApi: ping_peer_api(id, *target); break;
        default: engine_->ping(id, peer, request.size); break;
    }
    housekeeping_.set_after(seconds(1));
}

void LocalBackend::on_ping(uint64_t id, const magicsock::PingResult& r) {
    const auto it = pings_.find(id);
    if (it == pings_.end()) return;
    PendingPing p = std::move(it->second);
    pings_.erase(it);
    if (!r.error.empty()) return;  // silence: the client says "timed out" by its own clock, as with the original
    p.result.latency_seconds = r.latency.seconds();
    if (r.vni != 0) {
        p.result.peer_relay = magicsock::via_text(r.udp, r.vni);
    } else if (r.udp.is_valid()) {
        p.result.endpoint = r.udp.str();
    } else {
        p.result.derp_region_id = r.derp_region;
        p.result.derp_region_code = derp_code(map_.get(), r.derp_region);
    }
    p.done(p.result);
}

void LocalBackend::on_tunnel_ping(uint64_t id, const dataplane::TunnelPong& pong) {
    const auto it = pings_.find(id);
    if (it == pings_.end()) return;
    PendingPing p = std::move(it->second);
    pings_.erase(it);
    if (!pong.answered) return;
    p.result.latency_seconds = pong.latency.seconds();
    p.result.peer_api_port = pong.peerapi_port;
    p.done(p.result);
}

void LocalBackend::expire_pings() {
    const Time now = loop_.now();
    std::erase_if(pings_, [&](const auto& e) { return now > e.second.until; });
}

void LocalBackend::check_relays(RelaysDone done) {
    if (!relay_checks_) relay_checks_ = std::make_unique<RelayChecks>(dialer_, http_, random_);
    if (!relay_checks_->run(derp_map_, plain_control(), done)) done(R"({"Relays":[],"CaptivePortal":null})");
}

std::string LocalBackend::port_mapping_json() {
    const PortMapping::State s = port_mapping_ ? port_mapping_->state() : PortMapping::State{};
    api::JsonText out;
    out.open_object().field("Endpoint", s.endpoint ? s.endpoint->str() : "").field("Protocol", s.protocol);
    std::vector<std::string> notes;
    for (const portmap::Note& n : s.notes) notes.push_back(n.text);
    out.list("Notes", notes, api::JsonText::Empty::kArray).close_object();
    return out.take();
}

std::string LocalBackend::peer_relay_sessions_json() {
    const EngineSnapshot& engine = engine_snapshot();
    return relay_sessions_json(engine.relay ? &*engine.relay : nullptr, profiles_.prefs().relay_server_port);
}

std::optional<Result<localapi::Reply>> LocalBackend::debug_action(std::string_view action) {
    localapi::Reply ok;
    ok.body = "{}";
    if (action == "restun") {
        if (engine_) engine_->restun();
        if (port_mapping_) port_mapping_->look_again();
    } else if (action == "rebind") {
        if (engine_) engine_->rebind();
    } else if (action == "break-derp-conns") {
        if (engine_) engine_->close_derp();
    } else if (action == "statedir") {
        ok.body = json::dump(Json(options_.state_dir));
    } else if (action == "current-netmap") {
        ok.body = map_ ? net_map_json() : "null";
    } else {
        return std::nullopt;
    }
    return Result<localapi::Reply>(std::move(ok));
}

}  // namespace mesh::daemon
