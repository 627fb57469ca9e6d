// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The host's network as one value, what changed between two of them, and which of its addresses peers may try. Pure.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ip.h"
#include "platform/linux/firewall_rules.h"
#include "platform/linux/route_types.h"

namespace mesh::platform {

struct NetInterface {
    LinkInfo link;
    std::vector<LinkAddr> addrs;  ///< sorted
    auto operator<=>(const NetInterface&) const = default;
};

struct NetState {
    std::vector<NetInterface> interfaces;  ///< sorted by index
    std::string default_interface_v4;      ///< by which unmarked-by-the-tunnel traffic leaves; empty: none
    std::string default_interface_v6;
    std::vector<Addr> gateways;            ///< of the default routes
    /// Where 100.64.0.0/10 lies outside of any tunnel: carriers (WAN addresses), clouds (name servers), small networks.
    std::vector<OutsideRange> outside_ranges;
    bool operator==(const NetState&) const = default;

    /// An interface other than loopback and `own_tun` is up with a global address of that family.
    [[nodiscard]] bool have_v4(std::string_view own_tun) const;
    [[nodiscard]] bool have_v6(std::string_view own_tun) const;
    [[nodiscard]] bool any_up(std::string_view own_tun) const;
};

/// Of the interfaces' addresses and of routes that lead into the range, as (interface, prefix); TUN interfaces are left out.
[[nodiscard]] std::vector<OutsideRange> outside_ranges(const std::vector<NetInterface>& interfaces,
                                                       const std::vector<std::pair<int, Prefix>>& routes);

/// kMajor: sockets should be bound anew (default route's interface, addresses or state of an interesting interface, or
/// the families changed, and the default interface is usable). kMinor: measure again (another gateway, for one).
enum class NetChange : uint8_t { kNone, kMinor, kMajor };
[[nodiscard]] NetChange judge_change(const NetState& before, const NetState& now, std::string_view own_tun);

/// Addresses to offer to peers, sorted: of interfaces that are up and neither our TUN nor another overlay's (zt*, wt0);
/// no link-local, and the ranges of Tailscale only for ChromeOS's virtual machines (100.115.92.0/23); loopback,
/// 169.254/16 and unique-local addresses only if there is nothing else; at most two IPv6 addresses per /64.
[[nodiscard]] std::vector<Addr> local_endpoint_addrs(const NetState& state, std::string_view own_tun);

}  // namespace mesh::platform
