// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// iptables or nftables? Decided once, at start. Pure.

#include <cstddef>
#include <cstdint>
#include <string>

namespace mesh::platform {

enum class FirewallKind : uint8_t { kNone, kIptables, kNft };

struct FirewallFacts {
    std::string wish{};            ///< TS_DEBUG_FIREWALL_MODE: "", "auto", "nftables" or "iptables"
    bool iptables_found = false;   ///< iptables or ip6tables is installed
    bool iptables_works = false;   ///< iptables-save reads the tables; not if nft left rules there that it cannot express
    bool nft_works = false;        ///< nft is installed and the kernel has nf_tables
    size_t iptables_rules = 0;     ///< with "auto"; those of iptables-nft count on both sides
    size_t nft_rules = 0;
};

struct FirewallChoice {
    FirewallKind kind = FirewallKind::kNone;
    std::string mode;  ///< as Hostinfo.FirewallMode tells it: "ipt-default", "nft-noipt" ...
    bool operator==(const FirewallChoice&) const = default;
};

/// As the original chooses: iptables unless it is absent; by use with "auto".
[[nodiscard]] FirewallChoice choose_firewall(const FirewallFacts& facts);

}  // namespace mesh::platform
