// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/path/own_endpoints.h"

#include <algorithm>

namespace mesh::magicsock {

void OwnEndpoints::begin_report() { fresh_v4_ = fresh_v6_ = false; }

void OwnEndpoints::mapped(const Endpoint& e, Time now) {
    if (!e.is_valid()) return;
    bool& fresh = e.addr.is_v4() ? fresh_v4_ : fresh_v6_;
    if (fresh) return;
    fresh = true;
    const auto same_family = [&](const LocalEndpoint& l) { return l.ep.addr.is_v4() == e.addr.is_v4(); };
    const auto known = [&](const LocalEndpoint& l) { return l.ep == e; };
    // Still what the last report said (all of it): nothing moved.
    if (std::any_of(learnt_.begin(), learnt_.end(), known)) return;
    std::erase_if(learnt_, same_family);
    const LocalEndpoint l{e, EndpointType::kStun};
    learnt_.insert(e.addr.is_v4() ? learnt_.begin() : learnt_.end(), l);
    remember(e, EndpointType::kStun, now);
}

void OwnEndpoints::end_report(const netcheck::Report& report, Time now) {
    if (!report.udp) return;  // nothing learnt; the cache decides how long the old ones live
    std::vector<LocalEndpoint> learnt;
    const auto add = [&](const Endpoint& first, const std::map<Endpoint, int>& counters) {
        if (first.is_valid()) learnt.push_back({first, EndpointType::kStun});
        for (const auto& [e, count] : counters)
            if (count > 1 && e != first) learnt.push_back({e, EndpointType::kStun});
    };
    add(report.global_v4, report.global_v4_counters);
    add(report.global_v6, report.global_v6_counters);
    const uint16_t port = local_port();
    if (report.mapping_varies_by_dest_ip.value_or(false) && report.global_v4.is_valid() && port != 0)
        learnt.push_back({Endpoint{report.global_v4.addr, port}, EndpointType::kStun4LocalPort});
    learnt_ = std::move(learnt);
    for (const LocalEndpoint& l : learnt_) remember(l.ep, l.type, now);
}

void OwnEndpoints::forget_learnt() {
    learnt_.clear();
    cache_.clear();
    begin_report();
}

void OwnEndpoints::remember(const Endpoint& e, EndpointType type, Time now) {
    std::erase_if(cache_, [&](const Cached& c) { return c.until <= now || c.ep == e; });
    const auto same_addr = [&](const Cached& c) { return c.ep.addr == e.addr; };
    if (static_cast<size_t>(std::count_if(cache_.begin(), cache_.end(), same_addr)) >= kCachePerAddr)
        cache_.erase(std::find_if(cache_.begin(), cache_.end(), same_addr));
    if (cache_.size() >= kMaxCache) cache_.erase(cache_.begin());
    cache_.push_back({e, type, now + kCacheLifetime});
}

uint16_t OwnEndpoints::local_port() const {
    for (const Endpoint& e : local_)
        if (e.addr.is_v4()) return e.port;
    return local_.empty() ? uint16_t{0} : local_.front().port;
}

std::vector<LocalEndpoint> OwnEndpoints::list(Time now) const {
    std::vector<LocalEndpoint> out;
    const auto add = [&](const Endpoint& e, EndpointType type) {
        if (!e.is_valid() || out.size() >= kMaxAdvertised) return;
        if (std::any_of(out.begin(), out.end(), [&](const LocalEndpoint& l) { return l.ep == e; })) return;
        out.push_back({e, type});
    };
    if (portmapped_) add(*portmapped_, EndpointType::kPortmapped);
    for (const LocalEndpoint& l : learnt_) add(l.ep, l.type);
    for (const Cached& c : cache_)
        if (c.until > now) add(c.ep, c.type);
    for (const Endpoint& e : static_) add(e, EndpointType::kExplicit);
    for (const Endpoint& e : local_) add(e, EndpointType::kLocal);
    return out;
}

Time OwnEndpoints::next_expiry(Time now) const {
    Time t = Time::never();
    for (const Cached& c : cache_)
        if (c.until > now) t = min(t, c.until);
    return t;
}

}  // namespace mesh::magicsock
