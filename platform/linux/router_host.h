// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The two hands of the router: reading the host into a HostState, and carrying out operations. Shared by Router and
/// cleanup().

#include <string>
#include <vector>

#include "platform/linux/firewall_choice.h"
#include "platform/linux/netlink.h"
#include "platform/linux/router_plan.h"

namespace mesh::platform {

/// What read_host() shall read besides links, addresses, rules and routes.
struct HostRead {
    bool iptables = true;
    bool nft = false;
    bool policy_routing = true;  ///< false: our routes are in the main table
};

/// Reads what the kernel has. A missing or failing iptables leaves that family's member empty and a sentence in
/// `problems`.
[[nodiscard]] Result<HostState> read_host(Netlink& netlink, const std::string& tun_name, const HostRead& what,
                                          std::vector<std::string>& problems);
/// Carries out in order and goes on after failures; returns the first error.
Status execute(Netlink& netlink, int tun_index, const std::vector<Operation>& operations);

/// What choose_firewall() decides by, from this host.
[[nodiscard]] FirewallFacts firewall_facts(const std::string& wish);

/// Deletes empty tables and base chains of iptables-nft in which `host` had something of ours. What was empty before we
/// came cannot be told any more, and an empty chain with policy accept does nothing.
Status delete_tables_we_used(const HostState& host);

/// Removes what is ours of an earlier run, except what a living foreigner shares. Empty tables that our chains had
/// caused go as well. Returns the number of operations.
Result<size_t> remove_leftovers(Netlink& netlink, const std::string& tun_name);

}  // namespace mesh::platform
