// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The two hands of the router: reading the host into a HostState, and carrying out operations. Shared by Router and
/// cleanup().

#include <string>
#include <vector>

#include "platform/linux/netlink.h"
#include "platform/linux/router_plan.h"

namespace mesh::platform {

/// Reads what the kernel has. A missing or failing iptables leaves that family's member empty and a sentence in
/// `problems`.
[[nodiscard]] Result<HostState> read_host(Netlink& netlink, const std::string& tun_name,
                                          std::vector<std::string>& problems);
/// Carries out in order and goes on after failures; returns the first error.
Status execute(Netlink& netlink, int tun_index, const std::vector<Operation>& operations);

/// Deletes empty tables and base chains of iptables-nft in which `host` had something of ours, or that are named in
/// `also` ("ip filter"). What was empty before we
/// came cannot be told any more, and an empty chain with policy accept does nothing.
Status delete_tables_we_used(const HostState& host, const std::vector<std::string>& also = {});

/// Removes what is ours of an earlier run, except what a living foreigner shares. Empty tables that our chains had
/// caused go as well. Returns the number of operations.
Result<size_t> remove_leftovers(Netlink& netlink, const std::string& tun_name);

}  // namespace mesh::platform
