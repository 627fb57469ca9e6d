// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Which addresses a relay without a domain name is known by. Pure but for read_addresses().

#include <string>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "platform/linux/net_state.h"

namespace mesh::derper {

struct OwnAddresses {
    std::vector<Addr> addrs;   ///< IPv4 first, at most kMaxAddresses
    bool only_private = false;  ///< none of them is reachable from the Internet
};
inline constexpr size_t kMaxAddresses = 16;

/// Public addresses of interfaces that are up; where a host has none, the private ones of its default interface, then of
/// all. Never loopback, link-local, temporary or deprecated ones, nor the ranges of the mesh itself.
[[nodiscard]] OwnAddresses pick_addresses(const platform::NetState& state);
/// Of this host; with a valid `listen` only that one.
[[nodiscard]] Result<OwnAddresses> read_addresses(const Addr& listen);

}  // namespace mesh::derper
