// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/derp/derp_map.h"

#include "magicsock/derp/frame.h"

namespace mesh::derp {
namespace {

constexpr std::string_view kMetaPrefix = "derpkey";

bool is_port(int p) { return p > 0 && p <= 65535; }

Reach reach(const std::string& field, Addr::Family family) {
    if (field.empty()) return Reach::kByName;
    const auto a = Addr::parse(field);
    if (!a) return Reach::kNever;
    return (family == Addr::Family::kV4 ? a->is_v4() : a->is_v6()) ? Reach::kLiteral : Reach::kNever;
}

Addr literal(const std::string& field, const std::string& host, Addr::Family family) {
    const Reach r = reach(field, family);
    if (r == Reach::kNever) return {};
    const auto a = Addr::parse(r == Reach::kLiteral ? field : host);
    if (!a || (family == Addr::Family::kV4 ? !a->is_v4() : !a->is_v6())) return {};
    return *a;
}

}  // namespace

uint16_t DerpNode::effective_derp_port() const { return is_port(derp_port) ? static_cast<uint16_t>(derp_port) : 443; }

std::optional<uint16_t> DerpNode::effective_stun_port() const {
    if (stun_port == 0) return uint16_t{3478};
    if (!is_port(stun_port)) return std::nullopt;
    return static_cast<uint16_t>(stun_port);
}

Reach DerpNode::reach_v4() const { return reach(ipv4, Addr::Family::kV4); }
Reach DerpNode::reach_v6() const { return reach(ipv6, Addr::Family::kV6); }
Addr DerpNode::literal_v4() const { return literal(ipv4, host_name, Addr::Family::kV4); }
Addr DerpNode::literal_v6() const { return literal(ipv6, host_name, Addr::Family::kV6); }

bool DerpNode::needs_name() const {
    if (host_name.empty() || Addr::parse(host_name)) return false;
    return reach_v4() == Reach::kByName || reach_v6() == Reach::kByName;
}

std::string DerpNode::http_host() const {
    std::string host = host_name;
    if (host.find(':') != std::string::npos) host = "[" + host + "]";
    if (is_port(derp_port) && derp_port != 443) host += ":" + std::to_string(derp_port);
    return host;
}

std::optional<std::array<uint8_t, 32>> DerpNode::cert_pin() const {
    if (!std::string_view(cert_name).starts_with(kCertPinPrefix)) return std::nullopt;
    std::array<uint8_t, 32> hash;
    if (!hex_decode(std::string_view(cert_name).substr(kCertPinPrefix.size()), hash)) return std::nullopt;
    return hash;
}

const DerpRegion* DerpMap::region(int id) const {
    const auto it = regions.find(id);
    return it == regions.end() ? nullptr : &it->second;
}

double DerpMap::score(int id) const {
    const auto it = region_score.find(id);
    return it == region_score.end() || !(it->second > 0) ? 1.0 : it->second;
}

std::optional<NodePublic> parse_meta_cert(std::string_view common_name, uint64_t serial) {
    if (serial != kProtocolVersion || !common_name.starts_with(kMetaPrefix)) return std::nullopt;
    NodePublic key;
    if (!hex_decode(common_name.substr(kMetaPrefix.size()), key.raw) || key.is_zero()) return std::nullopt;
    return key;
}

std::string meta_cert_name(const NodePublic& server_key) {
    return std::string(kMetaPrefix) + hex_encode(server_key.bytes());
}

}  // namespace mesh::derp
