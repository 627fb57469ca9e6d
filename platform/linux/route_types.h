// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Values of the kernel's routing, as far as this program cares.

#include <compare>
#include <cstdint>
#include <string>

#include "base/ip.h"

namespace mesh::platform {

/// `ip rule`.
struct IpRule {
    enum class Action : uint8_t { kLookup, kUnreachable, kOther };
    Addr::Family family = Addr::Family::kV4;
    uint32_t priority = 0;
    uint32_t mark = 0;
    uint32_t mask = 0;
    uint32_t table = 0;  ///< with kLookup
    Action action = Action::kLookup;
    bool plain = true;   ///< false: it has selectors (from, to, iif ...) that this struct does not tell
    auto operator<=>(const IpRule&) const = default;
};

/// `ip route`, without metrics of no interest.
struct IpRoute {
    enum class Type : uint8_t { kUnicast, kThrow, kOther };
    Prefix dst;          ///< masked; a default route is 0.0.0.0/0 or ::/0
    Type type = Type::kUnicast;
    int oif = 0;         ///< interface index; 0 for kThrow
    uint32_t table = 0;
    Addr gateway;        ///< none for routes through the TUN
    uint32_t metric = 0; ///< 0: the kernel's choice (1024 for IPv6)
    auto operator<=>(const IpRoute&) const = default;
};

struct LinkInfo {
    int index = 0;
    std::string name;
    std::string kind;         ///< "tun", "bridge", "veth" ...; empty for hardware
    bool up = false;          ///< administratively
    bool running = false;     ///< carrier, or unknown
    bool loopback = false;
    unsigned mtu = 0;
    auto operator<=>(const LinkInfo&) const = default;
};

struct LinkAddr {
    int index = 0;            ///< interface
    Prefix prefix;
    bool deprecated = false;  ///< IPv6: not for new flows
    bool tentative = false;   ///< IPv6: duplicate detection still runs or failed
    bool temporary = false;   ///< IPv6 privacy address
    auto operator<=>(const LinkAddr&) const = default;
};

}  // namespace mesh::platform
