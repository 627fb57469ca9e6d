// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// iptables-legacy tells nobody when its tables change, unlike nftables. What can be asked cheaply is how much is in them
/// (IPT_SO_GET_INFO, linux/netfilter_ipv4/ip_tables.h): one system call per table, no program started.

#include <cstdint>
#include <string>
#include <vector>

namespace mesh::platform {

struct LegacyTable {
    bool v6 = false;
    std::string name;
    uint32_t entries = 0;
    uint32_t bytes = 0;
    bool operator==(const LegacyTable&) const = default;
};

/// Tables that exist in this network namespace; none are brought into being by asking.
[[nodiscard]] std::vector<LegacyTable> read_legacy_tables();

}  // namespace mesh::platform
