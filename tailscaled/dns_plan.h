// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// From the network map and the prefs to the names this node answers, the servers other names are forwarded to, and what
/// the host's resolver shall use. Functions of values.

#include <memory>
#include <string>
#include <vector>

#include "platform/linux/dns_plan.h"
#include "platform/net/resolver.h"
#include "tailscaled/api/prefs.h"
#include "tailscaled/dns/names.h"
#include "tailscaled/dns/routes.h"
#include "tailscaled/netmap/netmap.h"

namespace mesh::daemon {

/// What the plan needs to know about the host.
struct DnsHost {
    bool can_split = false;          ///< its resolver sends us single domains
    bool v6 = true;                  ///< our IPv6 service address is reachable on it
    platform::ResolverConfig base;   ///< what it uses without us
};

struct DnsPlan {
    dns::Routes routes;
    platform::OsDnsConfig os;        ///< empty: leave the host alone
    std::vector<std::string> notes;  ///< what could not be done as told, for people
};

/// Does this change concern names or who is asked for them? `changes` null: everything is new.
[[nodiscard]] bool touches_dns(const netmap::PeerChanges* changes, const netmap::NodePtr& exit_node);

/// Independent of --accept-dns: 100.100.100.100 answers for those who ask it themselves.
[[nodiscard]] std::shared_ptr<const dns::NameTable> make_names(const netmap::NetMap& map);

/// Without --accept-dns nothing is forwarded and the host stays as it is. `exit_node`: the chosen one, or nullptr; names are
/// then asked of it if it offers that, or of resolvers meant for use with exit nodes.
[[nodiscard]] DnsPlan make_dns_plan(const netmap::NetMap& map, const api::Prefs& prefs, const netmap::NodePtr& exit_node, const DnsHost& host);

/// Whom this node asks for peers that use it as exit node: as for itself, and where that says nothing, the host's own
/// servers `base`.
[[nodiscard]] dns::Routes routes_for_peers(const DnsPlan& plan, const platform::ResolverConfig& base);
/// Is this canonical name one that exit nodes do not resolve for others? `set` as the control server writes it: a name, or
/// ".suffix" for everything below.
[[nodiscard]] bool refused_to_peers(const std::vector<std::string>& set, std::string_view name);

}  // namespace mesh::daemon
