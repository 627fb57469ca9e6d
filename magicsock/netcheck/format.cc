// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/netcheck/format.h"

#include <fmt/format.h>

#include <algorithm>

namespace mesh::netcheck {
namespace {

Json tri(const std::optional<bool>& v) { return v ? Json(*v) : Json(nullptr); }

std::string endpoint_text(const Endpoint& e) { return e.is_valid() ? e.str() : std::string(); }

/// Keys in the order of their text, as Go writes maps.
Json latencies(const std::map<int, Duration>& map) {
    std::vector<std::pair<std::string, int64_t>> rows;
    for (const auto& [id, d] : map) rows.emplace_back(std::to_string(id), d.ns);
    std::sort(rows.begin(), rows.end());
    Json j = Json::object();
    for (const auto& [key, ns] : rows) j[key] = ns;
    return j;
}

Json counters(const std::map<Endpoint, int>& map) {
    if (map.empty()) return nullptr;
    std::vector<std::pair<std::string, int>> rows;
    for (const auto& [endpoint, n] : map) rows.emplace_back(endpoint.str(), n);
    std::sort(rows.begin(), rows.end());
    Json j = Json::object();
    for (const auto& [key, n] : rows) j[key] = n;
    return j;
}

Json to_json(const Report& r, const Json& extra) {
    Json j = Json::object();
    j["Now"] = json::time_text(r.now);
    j["UDP"] = r.udp;
    j["IPv6"] = r.ipv6;
    j["IPv4"] = r.ipv4;
    j["IPv6CanSend"] = r.ipv6_can_send;
    j["IPv4CanSend"] = r.ipv4_can_send;
    j["OSHasIPv6"] = r.os_has_ipv6;
    j["ICMPv4"] = r.icmpv4;
    j["MappingVariesByDestIP"] = tri(r.mapping_varies_by_dest_ip);
    j["UPnP"] = tri(r.upnp);
    j["PMP"] = tri(r.pmp);
    j["PCP"] = tri(r.pcp);
    j["PreferredDERP"] = r.preferred_derp;
    j["RegionLatency"] = latencies(r.region_latency);
    j["RegionV4Latency"] = latencies(r.region_v4_latency);
    j["RegionV6Latency"] = latencies(r.region_v6_latency);
    j["GlobalV4Counters"] = counters(r.global_v4_counters);
    j["GlobalV6Counters"] = counters(r.global_v6_counters);
    j["GlobalV4"] = endpoint_text(r.global_v4);
    j["GlobalV6"] = endpoint_text(r.global_v6);
    j["CaptivePortal"] = tri(r.captive_portal);
    if (extra.is_object())
        for (const auto& [key, value] : extra.items())
            if (!j.contains(key)) j[key] = value;
    return j;
}

std::string time_line(WallTime t, Duration utc_offset) {
    std::string text = json::time_text(t.is_zero() ? t : t + utc_offset);
    const size_t sep = text.find('T');
    if (sep != std::string::npos) text[sep] = ' ';
    if (t.is_zero() || utc_offset.ns == 0) return text;
    const int64_t offset_minutes = utc_offset.ns / minutes(1).ns;
    const int64_t m = offset_minutes < 0 ? -offset_minutes : offset_minutes;
    text.pop_back();  // Z
    return text + fmt::format("{}{:02}:{:02}", offset_minutes < 0 ? '-' : '+', m / 60, m % 60);
}

std::string portmap_text(const Report& r) {
    if (!r.upnp && !r.pmp && !r.pcp) return "not checked";
    std::string out;
    const auto add = [&](const std::optional<bool>& found, std::string_view name) {
        if (!found.value_or(false)) return;
        if (!out.empty()) out += ", ";
        out += name;
    };
    add(r.upnp, "UPnP");
    add(r.pmp, "NAT-PMP");
    add(r.pcp, "PCP");
    return out;
}

/// fmt counts the width of "µ" as one column, as Go does.
std::string region_line(const derp::DerpRegion& region, const std::string& latency, bool verbose) {
    return fmt::format("\t\t- {:>3}: {:<7} ({}{})\n", region.code, latency,
                       verbose ? fmt::format("derp{}, ", region.id) : "", region.name);
}

}  // namespace

std::string duration_text(Duration d) {
    if (d.ns == 0) return "0s";
    const bool negative = d.ns < 0;
    auto ns = negative ? 0 - static_cast<uint64_t>(d.ns) : static_cast<uint64_t>(d.ns);
    std::string out;
    const auto decimal = [](uint64_t value, uint64_t unit) {
        std::string s = std::to_string(value / unit);
        if (value % unit != 0) {
            std::string frac = std::to_string(unit + value % unit).substr(1);
            while (frac.back() == '0') frac.pop_back();
            s += "." + frac;
        }
        return s;
    };
    if (ns < 1'000) {
        out = std::to_string(ns) + "ns";
    } else if (ns < 1'000'000) {
        out = decimal(ns, 1'000) + "µs";
    } else if (ns < 1'000'000'000) {
        out = decimal(ns, 1'000'000) + "ms";
    } else {
        const uint64_t minute = 60'000'000'000;
        const uint64_t whole_minutes = ns / minute;
        out = decimal(ns % minute, 1'000'000'000) + "s";
        if (whole_minutes > 0) out = std::to_string(whole_minutes % 60) + "m" + out;
        if (whole_minutes >= 60) out = std::to_string(whole_minutes / 60) + "h" + out;
    }
    return negative ? "-" + out : out;
}

std::string format_json(const Report& report, const Json& extra) { return json::dump(to_json(report, extra), "\t"); }
std::string format_json_line(const Report& report, const Json& extra) { return json::dump(to_json(report, extra)); }

std::string format_text(const Report& r, const derp::DerpMap& map, bool verbose, Duration utc_offset) {
    std::string out = "\nReport:\n";
    const auto line = [&](std::string_view name, std::string_view value) {
        out += fmt::format("\t* {}: {}\n", name, value);
    };
    line("Time", time_line(r.now, utc_offset));
    line("UDP", r.udp ? "true" : "false");
    const auto where = [&](std::string_view family, const Endpoint& e, std::string_view otherwise) {
        if (e.is_valid())
            line(family, "yes, " + e.str());
        else
            line(family, otherwise);
    };
    where("IPv4", r.global_v4, "(no addr found)");
    where("IPv6", r.global_v6,
          r.ipv6 ? "(no addr found)" : r.os_has_ipv6 ? "no, but OS has support" : "no, unavailable in OS");
    const auto tri_text = [](const std::optional<bool>& v) { return !v ? "" : *v ? "true" : "false"; };
    line("MappingVariesByDestIP", tri_text(r.mapping_varies_by_dest_ip));
    line("PortMapping", portmap_text(r));
    if (r.captive_portal) line("CaptivePortal", tri_text(r.captive_portal));
    if (r.region_latency.empty()) {
        line("Nearest DERP", "unknown (no response to latency probes)");
        return out;
    }
    const derp::DerpRegion* nearest = map.region(r.preferred_derp);
    if (r.preferred_derp == 0)
        line("Nearest DERP", "[none]");
    else if (nearest)
        line("Nearest DERP", nearest->name);
    else
        line("Nearest DERP", fmt::format("{} (region not found in map)", r.preferred_derp));
    out += "\t* DERP latency:\n";

    std::vector<const derp::DerpRegion*> regions;
    for (const auto& [id, region] : map.regions) regions.push_back(&region);
    const auto latency = [&](const derp::DerpRegion* region) -> std::optional<Duration> {
        const auto it = r.region_latency.find(region->id);
        if (it == r.region_latency.end()) return std::nullopt;
        return it->second;
    };
    std::stable_sort(regions.begin(), regions.end(), [&](const auto* a, const auto* b) {
        const auto la = latency(a);
        const auto lb = latency(b);
        if (!la || !lb) return la.has_value() && !lb.has_value();
        return *la < *lb;
    });
    constexpr int64_t kTenthOfMs = 100'000;
    for (const auto* region : regions) {
        const auto l = latency(region);
        const Duration rounded{l ? (l->ns + kTenthOfMs / 2) / kTenthOfMs * kTenthOfMs : 0};
        out += region_line(*region, l ? duration_text(rounded) : "", verbose);
    }
    return out;
}

}  // namespace mesh::netcheck
