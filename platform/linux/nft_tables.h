// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The tables that iptables-nft makes as a side effect: `ip filter`, `ip nat`, `ip mangle` and the same of ip6, with
/// empty base chains. "As before" includes them, so what was not there before and holds nothing is deleted again.
/// Talks nf_tables netlink (linux/netfilter/nf_tables.h): works without the nft binary.

#include <string>
#include <vector>

#include "base/result.h"
#include "platform/linux/nft_plan.h"

namespace mesh::platform {

struct NftTable {
    bool v6 = false;
    std::string name;
    std::vector<std::string> chains;  ///< all, sorted
    auto operator<=>(const NftTable&) const = default;
};

/// Those of the six tables that exist. Empty where the kernel has no nf_tables.
[[nodiscard]] Result<std::vector<NftTable>> list_iptables_nft_tables();
/// Deletes base chains that are not in `before`, hold no rules and have policy accept, and tables not in `before` that
/// are then empty. The kernel refuses whatever is in use, so nobody's rules can be lost.
Status delete_new_empty_tables(const std::vector<NftTable>& before);

/// What of the six tables concerns us. Empty where the kernel has no nf_tables.
[[nodiscard]] Result<NftHost> read_nft_host();
/// All rules of all tables: is nftables in use on this host? Rules that iptables-nft made count as well.
[[nodiscard]] Result<size_t> count_nft_rules();
/// Base chains of the hook forward outside the six tables that drop by default and have no rule for that interface, as
/// "inet fw4 forward": an accept of ours is not the last word for them.
[[nodiscard]] Result<std::vector<std::string>> dropping_forward_chains(const std::string& tun_name);

}  // namespace mesh::platform
