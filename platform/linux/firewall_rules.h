// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The firewall that we want, once, and its two languages: iptables (as iptables-save prints it) and nftables. Pure.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"

namespace mesh::platform {

struct RouterConfig;

/// Names of our chains.
struct ChainNames {
    std::string input = "ts-input";
    std::string forward = "ts-forward";
    std::string postrouting = "ts-postrouting";
    bool operator==(const ChainNames&) const = default;
};

/// A jump to one of our chains: from which base chain of which table.
struct FirewallHook {
    const char* table;
    const char* parent;
    std::string ChainNames::* chain;
};
inline constexpr FirewallHook kFirewallHooks[] = {
    {"filter", "INPUT", &ChainNames::input},
    {"filter", "FORWARD", &ChainNames::forward},
    {"nat", "POSTROUTING", &ChainNames::postrouting},
};

/// One rule of ours. All matches must hold.
struct FirewallRule {
    enum class Verdict : uint8_t { kAccept, kDrop, kReturn, kMarkForwarded, kMasquerade };
    enum class State : uint8_t { kAny, kEstablished, kNotEstablished };  ///< established or related
    std::string in{};     ///< input interface, whole name
    bool not_in = false;  ///< any but `in`
    std::string out{};    ///< output interface, whole name
    std::optional<Prefix> src{};
    uint16_t udp_sport = 0;  ///< 0: any
    uint16_t udp_dport = 0;
    State state = State::kAny;
    bool forwarded = false;  ///< carries the mark of packets that came from the TUN
    Verdict verdict = Verdict::kAccept;

    [[nodiscard]] std::string iptables() const;
    [[nodiscard]] std::string nft() const;
};

struct FirewallRules {
    std::vector<FirewallRule> input, forward, postrouting;
};

/// A network of 100.64.0.0/10 that lies outside the tunnel: carriers and clouds use that range too.
struct OutsideRange {
    std::string interface;
    std::vector<Prefix> networks;  ///< those it is connected to or routes to
    bool operator==(const OutsideRange&) const = default;
};

/// `beside_another`: another client lives on this host; the range belongs to its tunnel rightly.
[[nodiscard]] FirewallRules firewall_rules(const RouterConfig& config, Addr::Family family, bool beside_another);

/// Replies to connections of our own marked sockets get the mark before the reverse-path check. Chain of table mangle,
/// and the rule in both languages. Ours saves the mark of any connection that lacks it, the original's only that of new
/// ones: flows that are older than the rules (the relay's, the first pings) would be lost to strict filtering.
struct ConnmarkRule {
    const char* chain;
    const char* iptables;
    /// The original client's form where it differs: of a crash, or of one that lives beside us.
    const char* iptables_original;
    /// Only our own mark, so that nobody else's bits are lost (nftables before Linux 6.14 cannot or two registers).
    const char* nft;
};
inline constexpr ConnmarkRule kConnmark[] = {
    {"PREROUTING",
     "-m conntrack --ctstate RELATED,ESTABLISHED -m connmark ! --mark 0x0/0xff0000 "
     "-j CONNMARK --restore-mark --nfmask 0xff0000 --ctmask 0xff0000",
     nullptr,
     "ct state established,related ct mark & 0x00ff0000 == 0x00080000 counter "
     "meta mark set meta mark & 0xff00ffff | 0x00080000"},
    {"OUTPUT",
     "-m mark ! --mark 0x0/0xff0000 -m connmark --mark 0x0/0xff0000 "
     "-j CONNMARK --save-mark --nfmask 0xff0000 --ctmask 0xff0000",
     "-m conntrack --ctstate NEW -m mark ! --mark 0x0/0xff0000 "
     "-j CONNMARK --save-mark --nfmask 0xff0000 --ctmask 0xff0000",
     "meta mark & 0x00ff0000 == 0x00080000 ct mark & 0x00ff0000 != 0x00080000 counter "
     "ct mark set ct mark & 0xff00ffff | 0x00080000"},
};
}  // namespace mesh::platform
