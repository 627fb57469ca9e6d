// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Packet filter rules as values: what control sends (tailcfg.FilterRule), already parsed. Both wire forms
/// (PacketFilter and PacketFilters) end up as a plain list of these. Rules only allow; the default is deny.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ip.h"

namespace mesh::netstack {

/// Inclusive range of destination ports.
struct PortRange {
    uint16_t first = 0;
    uint16_t last = 65535;
    [[nodiscard]] bool contains(uint16_t port) const { return first <= port && port <= last; }
    [[nodiscard]] bool is_all() const { return first == 0 && last == 65535; }
    auto operator<=>(const PortRange&) const = default;
};

/// One destination: a prefix and the ports open on it.
struct DstMatch {
    Prefix prefix;
    PortRange ports;
    auto operator<=>(const DstMatch&) const = default;
};

/// Application grants of a rule's sources towards `dsts` (CapGrant). Never opens packets.
struct CapGrant {
    std::vector<Prefix> dsts;
    std::vector<std::pair<std::string, std::string>> caps;  ///< name → JSON text of the value list, "[]" if none
    auto operator<=>(const CapGrant&) const = default;
};

struct FilterRule {
    std::vector<Prefix> src;            ///< prefixes; ranges are expanded, "*" is 0.0.0.0/0 and ::/0
    std::vector<std::string> src_caps;  ///< from "cap:NAME": peers that hold this node capability
    std::vector<DstMatch> dst;
    std::vector<uint8_t> protos;  ///< IP protocols; empty = TCP, UDP, ICMP, ICMPv6
    std::vector<CapGrant> grants;
    auto operator<=>(const FilterRule&) const = default;
};

/// Appends the prefixes of one address expression: "IP", "CIDR" (no host bits), "a-b" (inclusive, one family) or "*".
/// False and nothing appended if malformed. A range becomes at most 254 prefixes.
[[nodiscard]] bool parse_ip_set(std::string_view text, std::vector<Prefix>& out);
/// The same, and also "cap:NAME", into a rule's sources.
[[nodiscard]] bool parse_source(std::string_view text, FilterRule& rule);

}  // namespace mesh::netstack
