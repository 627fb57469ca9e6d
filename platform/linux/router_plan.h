// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What the host's routing and firewall shall look like, and the ordered operations that lead there. Pure: the kernel's
/// state comes in as a value, operations go out as values (platform/linux/router.h reads and executes).
///
/// The names, numbers and rules are those of the original client, so that scripts and administrators find what they
/// know:
///   ip rules   5210 fwmark 0x80000/0xff0000 lookup main      own sockets never enter the tunnel
///              5230 fwmark 0x80000/0xff0000 lookup default
///              5250 fwmark 0x80000/0xff0000 unreachable
///              5270 lookup 52
///   table 52   routes through the TUN
///   iptables   filter ts-input, ts-forward; nat ts-postrouting; two connmark rules in mangle. Forwarded packets from
///              the TUN carry mark 0x40000/0xff0000.
///   nftables   the same chains and rules in the tables of the same names (platform/linux/nft_plan.h)
/// Where mwan3 steers by marks from priority 2001 on, the rules are 1310 to 1370. A kernel without policy routing gets the
/// routes in its main table. Nothing here decides by address who is a member of the tailnet.
///
/// Beside another client on the same host ("foreign": chains, routes of table 52 or a TUN named tailscale* that belong
/// to another living interface): our chains get the TUN's name as a suffix (ts-input-tailmesh0 ...), rules and connmark
/// rules that exist already are shared and stay at exit, routes of table 52 are touched only through our own TUN, and a
/// destination that the other one routes already stays with it.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "platform/linux/firewall_rules.h"
#include "platform/linux/nft_plan.h"
#include "platform/linux/route_types.h"
#include "platform/net/socket_mark.h"  // kBypassMark

namespace mesh::platform {

inline constexpr uint32_t kRouteTable = 52;
inline constexpr uint32_t kMainTable = 254;
inline constexpr uint32_t kRuleBase = 5200;
inline constexpr uint32_t kMwan3RuleBase = 1300;
inline constexpr uint32_t kMarkMask = 0xff0000;
inline constexpr uint32_t kForwardMark = 0x40000;  ///< forwarded from the TUN

enum class NetfilterMode : uint8_t { kOff, kNoDivert, kOn };

/// What the rest of the program wants. Order and duplicates do not matter.
struct RouterConfig {
    std::string tun_name = "tailscale0";
    std::vector<Prefix> local_addrs;      ///< own addresses, /32 and /128; empty: `down`
    std::vector<Prefix> peer_routes;      ///< peers' single addresses
    std::vector<Prefix> accepted_routes;  ///< peers' subnets, with accept-routes
    std::vector<Prefix> throw_routes;     ///< own LAN prefixes that stay outside (exit nodes)
    NetfilterMode netfilter = NetfilterMode::kOn;
    bool snat_subnet_routes = true;
    bool stateful_filtering = false;
    bool cgnat_drop = true;               ///< false: node attribute disable-linux-cgnat-drop-rule
    uint16_t port_v4 = 0;                 ///< WireGuard's UDP port; 0: none
    uint16_t port_v6 = 0;
    uint16_t relay_port = 0;              ///< of our UDP relay, both families; 0: none
    bool forwards = false;                     ///< routes are advertised: others' packets pass through this host
    std::vector<OutsideRange> outside_ranges;  ///< where 100.64.0.0/10 is in use outside the tunnel: the drop spares it
};

/// What this host can do.
struct RouterCapabilities {
    bool v6 = false;         ///< addresses, routes and rules of IPv6
    bool iptables = false;   ///< iptables-save and -restore run
    bool ip6tables = false;
    bool nft = false;        ///< firewall by nftables; then not by iptables
    bool policy_routing = true;
    uint32_t rule_base = kRuleBase;
};

/// One family's iptables as iptables-save prints it, reduced to what concerns us: table -> chain -> rules (text after
/// "-A CHAIN "), holding our chains (any ts-* chain) completely and of other chains the rules that jump to ts-* chains
/// or mention the connmark mask.
struct Iptables {
    std::map<std::string, std::map<std::string, std::vector<std::string>>> tables;
    [[nodiscard]] const std::vector<std::string>* chain(const std::string& table, const std::string& name) const;
    bool operator==(const Iptables&) const = default;
};
[[nodiscard]] Iptables parse_iptables_save(std::string_view text);

/// The part of the kernel's state that we may change.
struct HostState {
    int tun_index = 0;                 ///< 0: our TUN does not exist
    bool link_up = false;
    std::vector<Prefix> addrs;         ///< of the TUN, without link-local ones
    std::vector<IpRule> rules;         ///< priorities 5200..5299 and 1300..1399 of both families
    std::vector<IpRoute> routes;       ///< table 52, both families; without policy routing those of main through the TUN
    std::optional<Iptables> iptables;  ///< none: not available
    std::optional<Iptables> ip6tables;
    std::optional<NftHost> nft;        ///< none: not asked for
    std::vector<LinkInfo> links;       ///< all of the host
    bool operator==(const HostState&) const = default;
};

[[nodiscard]] ChainNames suffixed_chains(const std::string& tun_name);

/// Does a living client with another TUN share this host?
[[nodiscard]] bool has_foreign_owner(const HostState& host, const std::string& tun_name);
/// The standard names, unless those chains belong to a living foreigner.
[[nodiscard]] ChainNames choose_chains(const HostState& host, const std::string& tun_name);

/// Jumps from INPUT, FORWARD and POSTROUTING to our chains.
enum class Hooks : uint8_t {
    kInstall,  ///< each exactly once; missing ones go to position 1
    kLeave,    ///< an administrator's business (nodivert)
    kRemove,
};

/// The state to reach.
struct WantedState {
    bool link_up = false;
    std::vector<Prefix> addrs;
    std::vector<IpRule> rules;
    std::vector<IpRoute> routes;       ///< through our TUN, and throw routes
    /// table -> chain -> rules; chains that are absent here are removed if ours.
    std::optional<Iptables> iptables;
    std::optional<Iptables> ip6tables;
    std::optional<NftWanted> nft_v4;
    std::optional<NftWanted> nft_v6;
    Hooks hooks = Hooks::kRemove;
    bool connmark = false;             ///< the two rules in mangle
    bool foreign = false;              ///< see has_foreign_owner()
    ChainNames chains;
    /// Addresses that may be deleted besides those in Tailscale's ranges: the ones this process added earlier. Others on
    /// the TUN are an administrator's.
    std::vector<Prefix> own_addrs;
};

/// Routes through the TUN for this configuration: peers' addresses, with those in fd7a:115c:a1e0::/48 as the one /48,
/// the service addresses for the families we have, accepted routes. Sorted, unique.
[[nodiscard]] std::vector<Prefix> tun_routes(const RouterConfig& config);
/// The four rules of one family.
[[nodiscard]] std::vector<IpRule> policy_rules(Addr::Family family, uint32_t base = kRuleBase);
/// `own_addrs` and a kRemove in place of kLeave are for the caller to fill in.
[[nodiscard]] WantedState wanted_state(const RouterConfig& config, const RouterCapabilities& can, const HostState& host);
/// Nothing of ours, but what a foreigner shares: `keep_rules` and, with `keep_connmark`, the connmark rules.
[[nodiscard]] WantedState nothing_wanted(const HostState& host, const std::string& tun_name,
                                         std::vector<IpRule> keep_rules = {}, bool keep_connmark = false);
/// Are both connmark rules there?
[[nodiscard]] bool has_connmark_rules(const Iptables& tables);

struct Operation {
    enum class Kind : uint8_t {
        kLinkUp, kLinkDown, kAddAddress, kDeleteAddress, kAddRule, kDeleteRule, kAddRoute, kDeleteRoute,
        kIptables, kIp6tables,  ///< `script` goes to iptables-restore --noflush as it stands
        kNft,                   ///< `script` goes to nft -f - as it stands
    };
    Kind kind;
    Prefix address;
    IpRule rule;
    IpRoute route;
    std::string script;
    [[nodiscard]] std::string str() const;
};

/// Ordered operations from `host` to `wanted`; none if it is already so. The undo is the plan from the state reached
/// back to nothing_wanted(): the same function, so what was added is what is taken away.
[[nodiscard]] std::vector<Operation> plan(const HostState& host, const WantedState& wanted, const std::string& tun_name);

}  // namespace mesh::platform
