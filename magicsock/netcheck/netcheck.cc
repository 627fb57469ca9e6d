// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/netcheck/netcheck.h"

#include <algorithm>
#include <array>
#include <utility>

namespace mesh::netcheck {
namespace {

using derp::DerpMap;
using derp::DerpNode;
using derp::DerpRegion;
using derp::Reach;

constexpr Duration kReportLimit = seconds(5);
constexpr Duration kStunLimit = seconds(3);
constexpr Duration kFullEvery = minutes(5);
constexpr Duration kProbeSpacing = milliseconds(100);
constexpr Duration kUnknownLatency = milliseconds(200);
constexpr Duration kNameLifetime = minutes(10);
constexpr int kEnoughRegions = 3;
constexpr int kIncrementalRegions = 3;
constexpr size_t kMaxSent = 4096;
// HTTPS is measured beside STUN once STUN has been silent for this long; its results count only if it stays silent.
constexpr Duration kHttpsAfter = milliseconds(500);
constexpr Duration kNoUdpAfter = milliseconds(1500);
constexpr Duration kOtherFamilyGrace = milliseconds(50);
// Home hysteresis.
constexpr Duration kHistory = seconds(5 * 60 + 5);
constexpr size_t kMaxHistory = 64;
constexpr Duration kHomeGain = milliseconds(10);
constexpr Duration kHeardRecently = seconds(8);
constexpr Duration kHeardLongAgo = seconds(120);
constexpr Duration kUnreachableFor = minutes(5);

/// The node can be asked by STUN over that family, as far as the map says.
bool may_probe(const DerpNode& n, bool v6) {
    if (!n.effective_stun_port()) return false;
    if (!n.stun_test_ip.empty()) {
        const auto a = Addr::parse(n.stun_test_ip);
        return a && a->is_v6() == v6;
    }
    if ((v6 ? n.literal_v6() : n.literal_v4()).is_valid()) return true;
    return (v6 ? n.reach_v6() : n.reach_v4()) == Reach::kByName && n.needs_name();
}

std::vector<int> region_ids(const DerpMap& map) {
    std::vector<int> out;
    for (const auto& [id, region] : map.regions) out.push_back(id);
    return out;
}

void keep_min(std::map<int, Duration>& latencies, int region, Duration d) {
    const auto [it, fresh] = latencies.try_emplace(region, d);
    if (!fresh && d < it->second) it->second = d;
}

}  // namespace

struct Probe {
    const DerpNode* node = nullptr;
    Time at;
    bool done = false;  // sent, or not possible after all
};

/// All tries at one region over one family. Over at the first answer.
struct ProbeSet {
    int region = 0;
    bool v6 = false;
    bool answered = false;
    std::vector<Probe> probes;
    size_t in_flight = 0;
};

struct Netcheck::Run {
    uint64_t number = 0;
    StartOptions options;
    Time started;
    bool full = false;
    std::vector<ProbeSet> sets;
    Report report;

    size_t answered_regions = 0;
    Time enough_at;
    Time last_answer;
    Duration max_latency;
    Endpoint first_v4_destination;
    int sent_v4 = 0, sent_v6 = 0;

    bool https_asked = false;
    std::vector<int> https_wanted;   // not yet taken by the shell
    std::vector<int> https_pending;  // no result yet
    std::map<int, Duration> fallback_latency;
    bool fallback_v4 = false, fallback_v6 = false;

    void add(int region, bool v6, const std::vector<Duration>& delays) {
        const DerpRegion& r = options.map->regions.at(region);
        std::vector<const DerpNode*> nodes;
        for (const DerpNode& n : r.nodes)
            if (may_probe(n, v6)) nodes.push_back(&n);
        if (nodes.empty() || delays.empty()) return;
        ProbeSet set;
        set.region = region;
        set.v6 = v6;
        for (size_t i = 0; i < delays.size(); ++i)
            set.probes.push_back({.node = nodes[i % nodes.size()], .at = started + delays[i]});
        sets.push_back(std::move(set));
    }
};

Netcheck::Netcheck(Random& random) : random_(random) {}
Netcheck::~Netcheck() = default;

bool Netcheck::wants_full(const StartOptions& o, Time now) const {
    if (o.full || !last_ || last_full_.is_zero() || now - last_full_ >= kFullEvery) return true;
    if (!last_->udp && last_->captive_portal.value_or(false)) return true;
    return last_->region_latency.empty() || region_ids(*o.map) != last_regions_;
}

void Netcheck::start(const StartOptions& options, Time now) {
    run_ = std::make_unique<Run>();
    Run& run = *run_;
    run.number = ++run_number_;
    run.options = options;
    if (!run.options.map) run.options.map = std::make_shared<DerpMap>();
    run.started = now;
    run.full = wants_full(run.options, now);
    run.https_asked = options.udp_only && last_ && !run.full;
    run.report.now = options.wall;
    run.report.os_has_ipv6 = options.os_has_ipv6;
    finished_.reset();

    std::erase_if(sent_, [&](const auto& e) { return e.second.run + 1 < run.number; });
    std::erase_if(names_, [&](const auto& e) { return now - e.second.at >= kNameLifetime || e.second.addrs.empty(); });
    if (run.full) {
        last_full_ = now;
        plan_full(run);
    } else {
        plan_incremental(run);
    }
    last_regions_ = region_ids(*run.options.map);
    settle(now);
}

void Netcheck::stop() { run_.reset(); }

void Netcheck::plan_full(Run& run) const {
    const std::vector<Duration> delays = {{}, kProbeSpacing, kProbeSpacing * 2};
    for (const auto& [id, region] : run.options.map->regions) {
        if (region.no_measure_no_home) continue;
        if (run.options.have_v4) run.add(id, false, delays);
        if (run.options.have_v6) run.add(id, true, delays);
    }
}

void Netcheck::plan_incremental(Run& run) const {
    const DerpMap& map = *run.options.map;
    const bool had_v4 = !last_->region_v4_latency.empty();
    const bool had_v6 = !last_->region_v6_latency.empty();
    if (!had_v4 && !had_v6) return plan_full(run);
    std::vector<int> order;
    for (const auto& [id, region] : map.regions)
        if (!region.no_measure_no_home && (!region.avoid || id == home_)) order.push_back(id);
    const auto latency = [&](int id) {
        const auto it = last_->region_latency.find(id);
        return it == last_->region_latency.end() ? seconds(1000) : it->second;
    };
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return latency(a) < latency(b); });
    for (size_t i = 0; i < order.size(); ++i) {
        const int id = order[i];
        const bool home = id == home_;
        const bool fastest_two = i < 2;
        if (i >= kIncrementalRegions && !home) continue;
        bool v4 = run.options.have_v4;
        bool v6 = run.options.have_v6;
        if (!fastest_two && had_v4 && had_v6) (i % 2 == 0 ? v6 : v4) = false;
        if (!fastest_two && !home && !had_v6) v6 = false;
        const int tries = home ? 4 : fastest_two ? 2 : 1;
        const auto known = last_->region_latency.find(id);
        const Duration step = known == last_->region_latency.end() ? kUnknownLatency : known->second * 12 / 10;
        std::vector<Duration> delays;
        for (int n = 0; n < tries; ++n) {
            Duration d = step * n;
            if (n > 1) d = d + milliseconds(50) * n;
            delays.push_back(d);
        }
        if (v4) run.add(id, false, delays);
        if (v6) run.add(id, true, had_v6 ? delays : std::vector<Duration>{Duration{}});
    }
}

Addr Netcheck::stun_addr(const DerpNode& node, bool v6) const {
    if (!node.stun_test_ip.empty()) return Addr::parse(node.stun_test_ip).value_or(Addr{});
    const Addr literal = v6 ? node.literal_v6() : node.literal_v4();
    if (literal.is_valid()) return literal;
    if ((v6 ? node.reach_v6() : node.reach_v4()) != Reach::kByName) return {};
    const auto it = names_.find(node.host_name);
    if (it == names_.end()) return {};
    for (const Addr& a : it->second.addrs)
        if (a.is_v6() == v6) return a;
    return {};
}

bool Netcheck::waits_for_name(const DerpNode& node) const {
    return node.stun_test_ip.empty() && node.needs_name() && !names_.contains(node.host_name);
}

std::vector<std::string> Netcheck::names_needed() const {
    std::vector<std::string> out;
    if (!run_) return out;
    for (const ProbeSet& set : run_->sets)
        for (const Probe& p : set.probes)
            if (!p.done && !stun_addr(*p.node, set.v6).is_valid() && waits_for_name(*p.node) &&
                std::find(out.begin(), out.end(), p.node->host_name) == out.end())
                out.push_back(p.node->host_name);
    return out;
}

void Netcheck::addresses(const std::string& host, const std::vector<Addr>& addrs, Time now) {
    names_[host] = {addrs, now};
    if (run_) settle(now);
}

/// Nothing more can come of it: answered, or every try is spent and none is under way.
bool Netcheck::set_over(size_t index) const {
    const ProbeSet& set = run_->sets[index];
    if (set.answered) return true;
    if (set.in_flight > 0) return false;
    return std::all_of(set.probes.begin(), set.probes.end(), [](const Probe& p) { return p.done; });
}

bool Netcheck::all_sets_over() const {
    for (size_t i = 0; i < run_->sets.size(); ++i)
        if (!set_over(i)) return false;
    return true;
}

std::optional<Send> Netcheck::next_send(Time now) {
    if (!run_) return std::nullopt;
    Run& run = *run_;
    for (size_t i = 0; i < run.sets.size(); ++i) {
        ProbeSet& set = run.sets[i];
        if (set.answered) continue;
        for (Probe& p : set.probes) {
            if (p.done || now < p.at) continue;
            const Addr addr = stun_addr(*p.node, set.v6);
            if (!addr.is_valid()) continue;
            p.done = true;
            const auto& report = run.report;
            const bool helps = !report.region_latency.contains(set.region) ||
                               (set.v6 ? report.region_v6_latency.empty() : !report.mapping_varies_by_dest_ip);
            if (!helps || sent_.size() >= kMaxSent) continue;
            stun::TxId tx;
            random_.fill(tx);
            Send out{{addr, *p.node->effective_stun_port()}, stun::encode_request(tx)};
            sent_[tx] = {run.number, i, out.to, now};
            ++set.in_flight;
            ++(set.v6 ? run.sent_v6 : run.sent_v4);
            return out;
        }
    }
    settle(now);
    return std::nullopt;
}

void Netcheck::send_failed(const Endpoint& to, Time now) {
    if (!run_) return;
    auto it = sent_.end();
    for (auto i = sent_.begin(); i != sent_.end(); ++i)
        if (i->second.run == run_->number && i->second.to == to && (it == sent_.end() || it->second.at < i->second.at))
            it = i;
    if (it == sent_.end()) return;
    --run_->sets[it->second.set].in_flight;
    --(to.addr.is_v6() ? run_->sent_v6 : run_->sent_v4);
    sent_.erase(it);
    settle(now);
}

bool Netcheck::handle_stun(ByteSpan datagram, const Endpoint&, Time now) {
    const auto answer = stun::decode_response(datagram);
    if (!answer) return false;
    const auto it = sent_.find(answer->tx);
    if (it == sent_.end()) return false;
    const Sent sent = it->second;
    sent_.erase(it);
    if (!run_ || sent.run != run_->number) return true;

    Run& run = *run_;
    Report& r = run.report;
    ProbeSet& set = run.sets[sent.set];
    --set.in_flight;
    set.answered = true;
    const Duration latency = std::max(now - sent.at, nanoseconds(1));
    run.max_latency = std::max(run.max_latency, latency);
    run.last_answer = now;
    r.udp = true;
    if (!r.region_latency.contains(set.region) && ++run.answered_regions == kEnoughRegions) run.enough_at = now;
    keep_min(r.region_latency, set.region, latency);
    // An address of the other family (a translator on the way, or a lie) says nothing about where this socket is seen.
    const bool plausible = answer->mapped.addr.is_v6() == set.v6;
    if (set.v6) {
        r.ipv6 = true;
        keep_min(r.region_v6_latency, set.region, latency);
    } else {
        r.ipv4 = true;
        keep_min(r.region_v4_latency, set.region, latency);
    }
    if (plausible && set.v6) {
        if (r.global_v6_counters.size() < 64) ++r.global_v6_counters[answer->mapped];
        if (!r.global_v6.is_valid()) r.global_v6 = answer->mapped;
    } else if (plausible) {
        if (r.global_v4_counters.size() < 64) ++r.global_v4_counters[answer->mapped];
        if (!r.global_v4.is_valid()) {
            r.global_v4 = answer->mapped;
            run.first_v4_destination = sent.to;
        } else if (answer->mapped != r.global_v4) {
            r.mapping_varies_by_dest_ip = true;
        } else if (!r.mapping_varies_by_dest_ip && sent.to != run.first_v4_destination) {
            r.mapping_varies_by_dest_ip = false;  // the same answer by the same server would say nothing
        }
    }
    settle(now);
    return true;
}

std::vector<int> Netcheck::take_https_wanted() {
    return run_ ? std::exchange(run_->https_wanted, {}) : std::vector<int>{};
}

void Netcheck::https_latency(int region, Duration latency, Addr::Family family, Time now) {
    if (!run_ || std::erase(run_->https_pending, region) == 0) return;
    keep_min(run_->fallback_latency, region, latency);
    (family == Addr::Family::kV6 ? run_->fallback_v6 : run_->fallback_v4) = true;
    settle(now);
}

void Netcheck::https_failed(int region, Time now) {
    if (!run_ || std::erase(run_->https_pending, region) == 0) return;
    settle(now);
}

void Netcheck::icmp_latency(int region, Duration latency, Time) {
    if (!run_ || !run_->options.map->region(region)) return;
    keep_min(run_->fallback_latency, region, latency);
    run_->report.icmpv4 = true;
    run_->fallback_v4 = true;
}

void Netcheck::set_portmap(std::optional<bool> upnp, std::optional<bool> pmp, std::optional<bool> pcp) {
    upnp_ = upnp;
    pmp_ = pmp;
    pcp_ = pcp;
}

void Netcheck::set_captive_portal(std::optional<bool> found) { captive_ = found; }

void Netcheck::heard_derp(int region, Time now) {
    if (heard_.size() < 4096 || heard_.contains(region)) heard_[region] = now;
    unreachable_.erase(region);
}

void Netcheck::doubt_derp(int region) { heard_.erase(region); }

void Netcheck::derp_unreachable(int region, Time now) {
    doubt_derp(region);
    if (unreachable_.size() < 4096 || unreachable_.contains(region)) unreachable_[region] = now;
}

std::optional<Report> Netcheck::take_report() { return std::exchange(finished_, std::nullopt); }

Time Netcheck::next_probe() const {
    Time t = Time::never();
    for (const ProbeSet& set : run_->sets) {
        if (set.answered) continue;
        for (const Probe& p : set.probes)
            if (!p.done && !waits_for_name(*p.node)) t = min(t, p.at);
    }
    return t;
}

/// When the wait for STUN answers is over, as things stand.
Time Netcheck::stun_end() const {
    const Run& run = *run_;
    if (all_sets_over()) return run.started;
    Time end = run.started + kStunLimit;
    if (!run.report.udp) return end;
    if (!run.enough_at.is_zero()) end = min(end, run.enough_at + run.max_latency * (run.full ? 2 : 1));
    Time last_probe = run.started;
    bool only_other_family = true;
    for (size_t i = 0; i < run.sets.size(); ++i) {
        if (set_over(i)) continue;
        const ProbeSet& set = run.sets[i];
        if (!set.v6 || !run.report.region_latency.contains(set.region)) only_other_family = false;
        last_probe = max(last_probe, set.probes.back().at);
    }
    end = min(end, max(run.started + run.options.patience, last_probe + run.max_latency * 3));
    // Every region is known by IPv4; IPv6 was asked at the same time and would have answered by now.
    if (only_other_family) end = min(end, run.last_answer + std::max(kOtherFamilyGrace, run.max_latency * 2));
    return end;
}

Time Netcheck::https_at() const {
    if (run_->https_asked || run_->report.udp) return Time::never();
    return all_sets_over() ? run_->started : run_->started + kHttpsAfter;
}

Time Netcheck::report_end() const {
    const Run& run = *run_;
    if (run.report.udp) return stun_end();
    if (!run.https_asked) return run.started + kReportLimit;
    if (!run.https_pending.empty()) return run.started + kReportLimit;
    return all_sets_over() ? run.started : run.started + kNoUdpAfter;
}

void Netcheck::settle(Time now) {
    if (!run_) return;
    Run& run = *run_;
    // Tries at servers that have no address of the family do not hold up the report.
    for (ProbeSet& set : run.sets)
        for (Probe& p : set.probes)
            if (!p.done && !waits_for_name(*p.node) && !stun_addr(*p.node, set.v6).is_valid()) p.done = true;
    if (now >= https_at()) {
        run.https_asked = true;
        for (const auto& [id, region] : run.options.map->regions) {
            const bool has_relay = std::any_of(region.nodes.begin(), region.nodes.end(),
                                               [](const DerpNode& n) { return !n.stun_only; });
            if (!region.no_measure_no_home && !region.avoid && has_relay) run.https_wanted.push_back(id);
        }
        run.https_pending = run.https_wanted;
    }
    if (now >= report_end()) finish(now);
}

Time Netcheck::next_timeout() const {
    if (!run_) return Time::never();
    return min(min(next_probe(), https_at()), report_end());
}

void Netcheck::handle_timeout(Time now) {
    if (!run_ || now < next_timeout()) return;
    settle(now);
}

int Netcheck::choose_home(const Report& report, Time started, Time now) const {
    const DerpMap& map = *run_->options.map;
    const auto allowed = [&](int id) {
        const DerpRegion* r = map.region(id);
        return r && !r->no_measure_no_home;
    };
    const auto reachable = [&](int id) {
        const auto it = unreachable_.find(id);
        return it == unreachable_.end() || now - it->second >= kUnreachableFor;
    };
    const bool any_reachable = std::any_of(report.region_latency.begin(), report.region_latency.end(),
                                           [&](const auto& e) { return allowed(e.first) && reachable(e.first); });
    const auto usable = [&](int id) { return allowed(id) && (reachable(id) || !any_reachable); };
    const auto heard_since = [&](int id, Time since) {
        const auto it = heard_.find(id);
        return it != heard_.end() && it->second >= since;
    };
    const auto measured = [&](int id) { return report.region_latency.contains(id); };
    const int forced = run_->options.force_preferred;
    const bool home_heard = heard_since(home_, started) || heard_since(home_, now - kHeardRecently);
    if (map.region(forced) && (measured(forced) || heard_since(forced, started) || heard_since(forced, now - kHeardRecently)))
        return forced;
    if (report.region_latency.empty())
        return home_ != 0 && usable(home_) && heard_since(home_, now - kHeardLongAgo) ? home_ : 0;

    // The best of the last minutes counts, so that one slow answer does not move us.
    int best = 0;
    Duration best_latency;
    for (const auto& [id, latency] : report.region_latency) {
        if (!usable(id)) continue;
        Duration d = latency;
        for (const History& h : history_) {
            const auto it = h.latency.find(id);
            if (it != h.latency.end() && now - h.at <= kHistory) d = std::min(d, it->second);
        }
        d.ns = static_cast<int64_t>(static_cast<double>(d.ns) * map.score(id));
        if (best == 0 || d < best_latency) {
            best = id;
            best_latency = d;
        }
    }
    if (best == home_ || home_ == 0 || !usable(home_)) return best;
    const auto old = report.region_latency.find(home_);
    if (old == report.region_latency.end()) return home_heard ? home_ : best;
    const bool keep = old->second - best_latency < kHomeGain || best_latency > old->second / 3 * 2;
    return keep ? home_ : best;
}

void Netcheck::finish(Time now) {
    Run& run = *run_;
    Report& r = run.report;
    if (run.options.udp_only && !run.full && !r.udp && last_) {
        const WallTime wall = r.now;
        r = *last_;
        r.now = wall;
        r.preferred_derp = home_;
        finished_ = std::move(r);
        run_.reset();
        return;
    }
    r.ipv4_can_send = run.sent_v4 > 0;
    r.ipv6_can_send = run.sent_v6 > 0;
    if (!r.udp) {
        r.region_latency = run.fallback_latency;
        r.ipv4 = r.ipv4 || run.fallback_v4;
        r.ipv6 = r.ipv6 || run.fallback_v6;
    }
    r.upnp = upnp_;
    r.pmp = pmp_;
    r.pcp = pcp_;
    r.captive_portal = r.udp ? std::nullopt : captive_;
    history_.push_back({now, r.region_latency});
    while (history_.size() > kMaxHistory || now - history_.front().at > kHistory) history_.pop_front();
    r.preferred_derp = choose_home(r, run.started, now);
    if (r.preferred_derp != 0) home_ = r.preferred_derp;
    last_ = r;
    finished_ = std::move(r);
    run_.reset();
}

}  // namespace mesh::netcheck
