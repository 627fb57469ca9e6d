// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The firewall by nftables, for hosts without iptables: tables `ip` and `ip6` filter, nat and mangle with the base chains
/// that iptables-nft makes, so that an accept of ours is the last word there; in them our chains and jumps. Pure: what
/// the kernel has comes in, one transaction for `nft -f -` goes out.
///
/// Each rule of ours carries a comment with a digest of its text. So rules are compared without knowing how some version
/// of nft prints them.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "platform/linux/firewall_rules.h"

namespace mesh::platform {

struct NftRule {
    uint64_t handle = 0;
    std::string comment;    ///< "ts-rule 0123456789abcdef": ours
    std::string target;     ///< chain that it jumps or goes to
    std::string in;         ///< interface that it compares for being equal, without a wildcard's star
    bool accepts = false;
    bool connmark = false;  ///< the original client's rule in mangle, known by its user data
    auto operator<=>(const NftRule&) const = default;
};

struct NftChain {
    bool v6 = false;
    std::string table;
    std::string name;
    bool base = false;
    std::vector<NftRule> rules;  ///< only those of ours, and jumps to ts-* chains; all of ts-* chains
    auto operator<=>(const NftChain&) const = default;
};

/// The six tables, as far as they concern us.
struct NftHost {
    std::vector<NftChain> chains;
    [[nodiscard]] const NftChain* chain(bool v6, std::string_view table, std::string_view name) const;
    bool operator==(const NftHost&) const = default;
};

/// What one family shall have. Chains that are ours and not wanted go.
struct NftWanted {
    bool chains = false;                                      ///< false: none of ours
    std::map<std::string, std::vector<std::string>> filter;   ///< chain name → rules
    std::map<std::string, std::vector<std::string>> nat;
    bool operator==(const NftWanted&) const = default;
};

[[nodiscard]] NftWanted nft_wanted(const FirewallRules& rules, const ChainNames& names);

struct NftRequest {
    bool v6 = false;
    NftWanted wanted;
    bool install_hooks = false;  ///< each exactly once; missing ones become the first rule
    bool remove_hooks = false;
    bool connmark = false;
    std::vector<ChainNames> managed;  ///< names that may be ours
};
/// The commands from `have` to what is asked for; empty if it is so.
[[nodiscard]] std::string nft_script(const NftHost& have, const NftRequest& request);

/// Comment of a rule with this text.
[[nodiscard]] std::string nft_rule_comment(std::string_view text);
[[nodiscard]] bool is_our_nft_comment(std::string_view comment);
[[nodiscard]] bool has_connmark_rules(const NftHost& host);

}  // namespace mesh::platform
