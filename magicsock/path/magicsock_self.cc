// SPDX-License-Identifier: BSD-3-Clause
// Ourselves: netcheck over the daemon's sockets, our endpoints, our home relay.
#include <algorithm>

#include "magicsock/path/magicsock.h"
#include "magicsock/path/magicsock_peer.h"

namespace mesh::magicsock {
namespace {

constexpr Duration kRestunMin = seconds(20);
constexpr uint32_t kRestunSpreadMs = 6000;
// While UDP does not work: three STUN requests per region, so that a firewall that opens is noticed.
constexpr Duration kUdpCheckMin = milliseconds(2500);
constexpr uint32_t kUdpCheckSpreadMs = 1000;
// Between net checks because the home relay cannot be reached.
constexpr Duration kHomeCheckGap = seconds(5);
// A net check by names that have to be resolved, over a network that has just come up.
constexpr Duration kMoveLasts = seconds(10);

}  // namespace

void Magicsock::set_wall_clock(WallTime wall, Time now) {
    wall_ = wall;
    wall_at_ = now;
}

void Magicsock::set_derp_map(std::shared_ptr<const derp::DerpMap> map, Time now) {
    if (map && derp_map_ && *map == *derp_map_) return;
    derp_map_ = std::move(map);
    if (!derp_map_) {
        netcheck_.stop();
        asked_.clear();
        restun_at_ = Time::never();
        set_home(0);
        return;
    }
    if (home_ != 0 && derp_map_->region(home_) == nullptr) set_home(0);
    start_netcheck(true, now);
}

void Magicsock::set_local_endpoints(std::vector<Endpoint> endpoints, Time now) {
    own_.set_local(std::move(endpoints));
    refresh_endpoints(now);
}

void Magicsock::set_portmapped(std::optional<Endpoint> endpoint, Time now) {
    own_.set_portmapped(endpoint);
    refresh_endpoints(now);
}

void Magicsock::set_static_endpoints(std::vector<Endpoint> endpoints, Time now) {
    own_.set_static(std::move(endpoints));
    refresh_endpoints(now);
}

void Magicsock::set_network(const NetworkFacts& facts, Time now) {
    if (facts == network_) return;
    const bool came_up = facts.up && !network_.up;
    network_ = facts;
    if (!network_.up) {
        netcheck_.stop();
        restun_at_ = Time::never();
    } else if (came_up) {
        restun(now);
    }
}

void Magicsock::rebind(Time now) {
    own_.forget_learnt();
    moved_until_ = now + kMoveLasts;
    const std::vector<PeerId> ids(active_.begin(), active_.end());
    for (const PeerId id : ids) {
        Peer& p = *find(id);
        Todo todo;
        p.paths->reset(now, todo);
        drop_via(p);  // servers know our old addresses
        carry_out(p, todo, now);
    }
    full_pending_ = true;
    restun(now);
}

void Magicsock::restun(Time now) {
    if (netcheck_.running()) {
        restun_pending_ = true;
        return;
    }
    start_netcheck(full_pending_, now);
}

void Magicsock::measure(Time now) { start_netcheck(true, now); }

bool Magicsock::recently_active(Time now) const {
    return !last_any_send_.is_zero() && now - last_any_send_ < kSessionActive;
}

// The first send after a rest.
void Magicsock::resume_restun(Time now) {
    if (!derp_map_ || !network_.up) return;
    restun_at_ = max(now, last_netcheck_ + (udp_blocked() ? kUdpCheckMin : kRestunMin));
}

bool Magicsock::udp_blocked() const {
    const netcheck::Report* last = netcheck_.last_report();
    return last != nullptr && !last->udp && (last->ipv4_can_send || last->ipv6_can_send);
}

void Magicsock::derp_in_doubt(int region, Time now) {
    netcheck_.doubt_derp(region);
    if (region == home_) restun(now);
}

void Magicsock::derp_unreachable(int region, Time now) {
    netcheck_.derp_unreachable(region, now);
    if (region != home_ || (!home_checked_.is_zero() && now - home_checked_ < kHomeCheckGap)) return;
    // It may be gone for good: look for another now, not when the next regular check is due.
    home_checked_ = now;
    restun(now);
}

// `udp_only`: everything else was asked lately.
void Magicsock::start_netcheck(bool full, Time now, bool udp_only) {
    if (!derp_map_ || !network_.up) {
        full_pending_ = full_pending_ || full;
        return;
    }
    restun_pending_ = full_pending_ = false;
    restun_at_ = Time::never();
    if (!udp_only) last_whole_netcheck_ = now;
    asked_.clear();
    own_.begin_report();
    netcheck_.start({.map = derp_map_,
                     .wall = wall_.is_zero() ? WallTime{} : wall_ + (now - wall_at_),
                     .have_v4 = network_.have_v4,
                     .have_v6 = network_.have_v6,
                     .os_has_ipv6 = network_.os_has_ipv6,
                     .full = full,
                     .udp_only = udp_only},
                    now);
    pump_netcheck(now);
}

void Magicsock::pump_netcheck(Time now) {
    std::vector<std::string> unknown;
    for (const std::string& host : netcheck_.names_needed())
        if (asked_.insert(host).second) unknown.push_back(host);
    if (!unknown.empty()) out_.resolve_names(unknown);
    while (const auto send = netcheck_.next_send(now)) out_.send_udp(send->to, send->datagram);
    const std::vector<int> https = netcheck_.take_https_wanted();
    if (!https.empty()) out_.https_latency_wanted(https);
    if (const auto report = netcheck_.take_report()) finish_netcheck(*report, now);
}

void Magicsock::set_resolved(const std::string& host, const std::vector<Addr>& addrs, Time now) {
    if (!asked_.contains(host)) return;
    netcheck_.addresses(host, addrs, now);
    pump_netcheck(now);
}

void Magicsock::https_latency(int region, Duration latency, Addr::Family family, Time now) {
    netcheck_.https_latency(region, latency, family, now);
    pump_netcheck(now);
}

void Magicsock::https_failed(int region, Time now) {
    netcheck_.https_failed(region, now);
    pump_netcheck(now);
}

void Magicsock::set_portmap_services(std::optional<bool> upnp, std::optional<bool> pmp, std::optional<bool> pcp) {
    netcheck_.set_portmap(upnp, pmp, pcp);
}

void Magicsock::set_captive_portal(std::optional<bool> found) { netcheck_.set_captive_portal(found); }

void Magicsock::finish_netcheck(const netcheck::Report& report, Time now) {
    last_netcheck_ = now;
    own_.end_report(report, now);
    refresh_endpoints(now);
    int home = report.preferred_derp != 0 ? report.preferred_derp : home_;
    if (home == 0 && derp_map_) {
        // Nothing could be measured: any relay is better than none.
        std::vector<int> ids;
        for (const auto& [id, region] : derp_map_->regions)
            if (!region.no_measure_no_home) ids.push_back(id);
        if (!ids.empty()) home = ids[random_.below(static_cast<uint32_t>(ids.size()))];
    }
    set_home(home);
    out_.netcheck_done(report);
    if (restun_pending_) {
        start_netcheck(full_pending_, now);
    } else if (recently_active(now)) {
        restun_at_ = now + (udp_blocked() ? kUdpCheckMin + milliseconds(random_.below(kUdpCheckSpreadMs))
                                          : kRestunMin + milliseconds(random_.below(kRestunSpreadMs)));
    }
}

void Magicsock::set_home(int region) {
    if (region == home_) return;
    home_ = region;
    netcheck_.set_home(region);
    out_.home_derp_changed(region);
}

void Magicsock::refresh_endpoints(Time now) {
    endpoints_expire_ = own_.next_expiry(now);
    std::vector<LocalEndpoint> list = own_.list(now);
    if (list == advertised_) return;
    advertised_ = std::move(list);
    out_.endpoints_changed(advertised_);
    // Whoever is trying to reach us now should not wait for the next round; and who sends to where we were a moment ago
    // should not find that out by silence.
    const bool moved = now < moved_until_;
    const std::vector<PeerId> ids(active_.begin(), active_.end());
    for (const PeerId id : ids) {
        Peer& p = *find(id);
        if (!p.paths->active(now) || (p.paths->trusted(now) && !moved)) continue;
        send_call_me_maybe(p, now);
        rearm(p);
    }
}

}  // namespace mesh::magicsock
