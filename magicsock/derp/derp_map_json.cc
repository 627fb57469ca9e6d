// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/derp/derp_map_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <climits>

namespace mesh::derp {
namespace {

constexpr size_t kMaxRegions = 1024;
constexpr size_t kMaxNodes = 64;

int to_int(const Json& j, const char* key) {
    const int64_t v = json::integer(j, key);
    return v < INT_MIN || v > INT_MAX ? 0 : static_cast<int>(v);
}

std::optional<int> region_key(std::string_view text) {
    int id = 0;
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), id);
    if (ec != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return id;
}

DerpNode parse_node(const Json& j) {
    DerpNode n;
    n.name = json::str(j, "Name");
    n.region_id = to_int(j, "RegionID");
    n.host_name = json::str(j, "HostName");
    n.cert_name = json::str(j, "CertName");
    n.ipv4 = json::str(j, "IPv4");
    n.ipv6 = json::str(j, "IPv6");
    n.stun_port = to_int(j, "STUNPort");
    n.stun_only = json::boolean(j, "STUNOnly");
    n.derp_port = to_int(j, "DERPPort");
    n.insecure_for_tests = json::boolean(j, "InsecureForTests");
    n.stun_test_ip = json::str(j, "STUNTestIP");
    n.can_port_80 = json::boolean(j, "CanPort80");
    return n;
}

Result<std::map<int, DerpRegion>> parse_regions(const Json& j) {
    std::map<int, DerpRegion> out;
    if (!j.is_object()) return fail(Code::kInvalid, "DERP map: Regions is no object");
    if (j.size() > kMaxRegions) return fail(Code::kLimit, fmt::format("DERP map: {} regions are too many", j.size()));
    for (const auto& [key, value] : j.items()) {
        const auto id = region_key(key);
        if (!id || *id <= 0 || !value.is_object()) continue;
        DerpRegion r;
        r.id = *id;
        r.code = json::str(value, "RegionCode");
        r.name = json::str(value, "RegionName");
        r.latitude = json::number(value, "Latitude");
        r.longitude = json::number(value, "Longitude");
        r.avoid = json::boolean(value, "Avoid");
        r.no_measure_no_home = json::boolean(value, "NoMeasureNoHome");
        const Json* nodes = json::find(value, "Nodes");
        if (nodes && nodes->is_array()) {
            if (nodes->size() > kMaxNodes)
                return fail(Code::kLimit, fmt::format("DERP map: region {} has {} nodes", *id, nodes->size()));
            for (const Json& n : *nodes)
                if (n.is_object()) r.nodes.push_back(parse_node(n));
        }
        out[*id] = std::move(r);
    }
    return out;
}

/// nullopt: keep the old scores.
std::optional<std::map<int, double>> parse_scores(const Json& j) {
    const Json* home = json::find(j, "HomeParams");
    const Json* scores = home ? json::find(*home, "RegionScore") : nullptr;
    if (!scores || !scores->is_object()) return std::nullopt;
    std::map<int, double> out;
    for (const auto& [key, value] : scores->items()) {
        const auto id = region_key(key);
        if (id && value.is_number() && out.size() < kMaxRegions) out[*id] = value.get<double>();
    }
    return out;
}

template <class T>
void put_unless_zero(Json& j, const char* key, const T& value) {
    if (value != T{}) j[key] = value;
}

/// Go writes the keys of integer maps as strings in the order of the strings.
template <class Map>
std::vector<std::pair<std::string, typename Map::const_iterator>> by_text(const Map& map) {
    std::vector<std::pair<std::string, typename Map::const_iterator>> out;
    for (auto it = map.begin(); it != map.end(); ++it) out.emplace_back(std::to_string(it->first), it);
    std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    return out;
}

}  // namespace

Result<DerpMap> parse_derp_map(const Json& j) { return apply_derp_map_delta({}, j); }

Result<DerpMap> apply_derp_map_delta(const DerpMap& current, const Json& delta) {
    if (!delta.is_object()) return fail(Code::kInvalid, "DERP map is no JSON object");
    DerpMap out = current;
    if (const Json* regions = json::find(delta, "Regions")) {
        TRY_ASSIGN(out.regions, parse_regions(*regions));
        out.omit_default_regions = json::boolean(delta, "omitDefaultRegions");
    }
    if (auto scores = parse_scores(delta)) out.region_score = std::move(*scores);
    return out;
}

Json derp_node_json(const DerpNode& n) {
    Json j = Json::object();
    j["Name"] = n.name;
    j["RegionID"] = n.region_id;
    j["HostName"] = n.host_name;
    put_unless_zero(j, "CertName", n.cert_name);
    put_unless_zero(j, "IPv4", n.ipv4);
    put_unless_zero(j, "IPv6", n.ipv6);
    put_unless_zero(j, "STUNPort", n.stun_port);
    put_unless_zero(j, "STUNOnly", n.stun_only);
    put_unless_zero(j, "DERPPort", n.derp_port);
    put_unless_zero(j, "InsecureForTests", n.insecure_for_tests);
    put_unless_zero(j, "STUNTestIP", n.stun_test_ip);
    put_unless_zero(j, "CanPort80", n.can_port_80);
    return j;
}

Json derp_map_json(const DerpMap& map) {
    Json j = Json::object();
    if (!map.region_score.empty()) {
        Json scores = Json::object();
        for (const auto& [key, it] : by_text(map.region_score)) scores[key] = it->second;
        j["HomeParams"] = Json::object({{"RegionScore", std::move(scores)}});
    }
    Json regions = Json::object();
    for (const auto& [key, it] : by_text(map.regions)) {
        const DerpRegion& region = it->second;
        Json r = Json::object();
        r["RegionID"] = region.id;
        r["RegionCode"] = region.code;
        r["RegionName"] = region.name;
        if (std::abs(region.latitude) > 0) r["Latitude"] = region.latitude;
        if (std::abs(region.longitude) > 0) r["Longitude"] = region.longitude;
        put_unless_zero(r, "Avoid", region.avoid);
        put_unless_zero(r, "NoMeasureNoHome", region.no_measure_no_home);
        Json nodes = Json::array();
        for (const DerpNode& n : region.nodes) nodes.push_back(derp_node_json(n));
        r["Nodes"] = std::move(nodes);
        regions[key] = std::move(r);
    }
    j["Regions"] = std::move(regions);
    put_unless_zero(j, "omitDefaultRegions", map.omit_default_regions);
    return j;
}

}  // namespace mesh::derp
