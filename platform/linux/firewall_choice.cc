// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/firewall_choice.h"

namespace mesh::platform {

FirewallChoice choose_firewall(const FirewallFacts& f) {
    using enum FirewallKind;
    const auto nft = [&](const char* mode) -> FirewallChoice {
        if (f.nft_works) return {kNft, mode};
        if (f.iptables_works) return {kIptables, "ipt-fb"};
        return {};
    };
    if (f.wish == "nftables") return nft("nft-forced");
    if (f.wish == "iptables") {
        if (f.iptables_found) return {kIptables, "ipt-forced"};
        return {};
    }
    if (f.wish == "auto") {
        if (f.nft_rules > 0 && f.iptables_rules == 0) return nft("nft-inuse");
        if (f.iptables_rules > 0 && f.nft_rules == 0) return {kIptables, "ipt-inuse"};
        return nft("nft");
    }
    if (!f.iptables_found) return nft("nft-noipt");
    // iptables that cannot read its own tables would add our rules again and again.
    if (!f.iptables_works && f.nft_works) return {kNft, "nft-inuse"};
    return {kIptables, "ipt-default"};
}

}  // namespace mesh::platform
