// SPDX-License-Identifier: BSD-3-Clause
#include "derper/map_entry.h"

#include <fmt/format.h>

#include "magicsock/derp/derp_map_json.h"

namespace mesh::derper {
namespace {

constexpr int kRegion = 900;
constexpr const char* kNodeName = "900a";
constexpr const char* kRegionCode = "custom";
constexpr const char* kRegionName = "My relay";

derp::DerpNode node_of(const MapEntry& e, Trust trust) {
    derp::DerpNode n;
    n.name = kNodeName;
    n.region_id = kRegion;
    n.host_name = e.hostname;
    if (!e.addrs.empty()) {
        n.ipv4 = n.ipv6 = "none";
        for (const Addr& a : e.addrs) {
            std::string& field = a.is_v4() ? n.ipv4 : n.ipv6;
            if (field == "none") field = a.str();
        }
    }
    if (e.stun_port != 3478) n.stun_port = e.stun_port;
    if (e.derp_port != 443) n.derp_port = e.derp_port;
    if (!e.pin.empty()) {
        if (trust == Trust::kPin)
            n.cert_name = e.pin;
        else
            n.insecure_for_tests = true;
    }
    return n;
}

/// Double-quoted YAML is a superset of JSON's strings.
std::string quoted(const std::string& s) { return json::dump(Json(s)); }

}  // namespace

std::string node_json(const MapEntry& entry, Trust trust) { return json::dump(derp::derp_node_json(node_of(entry, trust))); }

std::string map_json(const MapEntry& entry, Trust trust) {
    derp::DerpMap map;
    derp::DerpRegion region;
    region.id = kRegion;
    region.code = kRegionCode;
    region.name = kRegionName;
    region.nodes = {node_of(entry, trust)};
    map.regions.emplace(kRegion, std::move(region));
    return json::dump(derp::derp_map_json(map));
}

std::string map_yaml(const MapEntry& entry, Trust trust) {
    const derp::DerpNode n = node_of(entry, trust);
    std::string out = fmt::format(
        "regions:\n"
        "  {0}:\n"
        "    regionid: {0}\n"
        "    regioncode: {1}\n"
        "    regionname: {2}\n"
        "    nodes:\n"
        "      - name: {3}\n"
        "        regionid: {0}\n"
        "        hostname: {4}\n",
        kRegion, kRegionCode, kRegionName, quoted(n.name), quoted(n.host_name));
    const auto line = [&out](const char* key, const std::string& value) { out += fmt::format("        {}: {}\n", key, value); };
    if (!n.ipv4.empty()) line("ipv4", quoted(n.ipv4));
    if (!n.ipv6.empty()) line("ipv6", quoted(n.ipv6));
    if (n.derp_port != 0) line("derpport", std::to_string(n.derp_port));
    if (n.stun_port != 0) line("stunport", std::to_string(n.stun_port));
    if (!n.cert_name.empty()) line("certname", quoted(n.cert_name));
    if (n.insecure_for_tests) line("insecurefortests", "true");
    return out;
}

}  // namespace mesh::derper
