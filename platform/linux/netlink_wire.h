// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// From rtnetlink messages (without nlmsghdr) to values. Shared by requests and the monitor. Nullopt for other types,
/// short messages and families we do not know.

#include <cstddef>
#include <cstdint>
#include <optional>

#include "platform/linux/route_types.h"

namespace mesh::platform {

/// RTM_NEWLINK, RTM_DELLINK.
[[nodiscard]] std::optional<LinkInfo> parse_link(uint16_t type, const uint8_t* body, size_t len);
/// RTM_NEWADDR, RTM_DELADDR.
[[nodiscard]] std::optional<LinkAddr> parse_address(uint16_t type, const uint8_t* body, size_t len);
/// RTM_NEWROUTE, RTM_DELROUTE; no cache entries.
[[nodiscard]] std::optional<IpRoute> parse_route(uint16_t type, const uint8_t* body, size_t len);
/// RTM_NEWRULE, RTM_DELRULE.
[[nodiscard]] std::optional<IpRule> parse_rule(uint16_t type, const uint8_t* body, size_t len);

}  // namespace mesh::platform
