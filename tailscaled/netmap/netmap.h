// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The network as the control server last described it: one immutable value, replaced as a whole, sharing with its
/// predecessor what did not change. control::MapSession makes it; everybody else only reads it.

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/time.h"
#include "magicsock/derp/derp_map.h"
#include "netstack/filter_rule.h"
#include "tailscaled/netmap/node.h"
#include "tailscaled/netmap/peer_table.h"

namespace mesh::netmap {

struct UserProfile {
    UserId id = 0;
    std::string login_name;
    std::string display_name;
    std::string profile_pic_url;
    std::vector<std::string> groups;
    bool operator==(const UserProfile&) const = default;
};

struct DnsRecord {
    std::string name;
    std::string type;  ///< "" = A or AAAA by value
    std::string value;
    bool operator==(const DnsRecord&) const = default;
};

/// tailcfg.DNSConfig.
struct DnsConfig {
    std::vector<Resolver> resolvers;
    /// Suffix without trailing dot → resolvers; an empty list means: answer from the names of this map.
    std::map<std::string, std::vector<Resolver>> routes;
    std::vector<Resolver> fallback_resolvers;
    std::vector<std::string> domains;  ///< search list
    bool proxied = false;              ///< MagicDNS is on
    std::vector<Addr> nameservers;     ///< deprecated form of resolvers
    std::vector<std::string> cert_domains;
    std::vector<DnsRecord> extra_records;
    std::vector<std::string> exit_node_filtered_set;
    bool operator==(const DnsConfig&) const = default;
};

/// All chunks of the packet filter together, application grants included. No rule: everything from outside is blocked.
struct PacketFilter {
    std::vector<netstack::FilterRule> rules;
    bool operator==(const PacketFilter&) const = default;
};

struct DisplayMessage {
    std::string title;
    std::string text;
    std::string severity;  ///< "high", "medium", "low"
    bool impacts_connectivity = false;
    std::string action_url;
    std::string action_label;
    bool operator==(const DisplayMessage&) const = default;
};

struct ClientVersion {
    bool running_latest = false;
    std::string latest_version;
    bool urgent_security_update = false;
    bool notify = false;
    std::string notify_url;
    std::string notify_text;
    bool operator==(const ClientVersion&) const = default;
};

struct NetMap {
    NodePtr self;  ///< never null
    PeerTable peers;
    std::shared_ptr<const derp::DerpMap> derp_map;     ///< null until the server sent one
    std::shared_ptr<const DnsConfig> dns;              ///< never null
    std::shared_ptr<const PacketFilter> filter;        ///< never null
    std::shared_ptr<const std::map<UserId, UserProfile>> users;  ///< never null
    std::string domain;  ///< tailnet name
    bool collect_services = false;
    std::vector<std::string> health;
    std::map<std::string, DisplayMessage> display_messages;
    std::shared_ptr<const std::string> ssh_policy_json;  ///< null = none
    std::optional<ClientVersion> client_version;
    std::string tka_head;  ///< "" = tailnet lock is off
    /// Add to the local wall clock to get the server's; zero unless they differ by more than a minute.
    Duration clock_offset;

    [[nodiscard]] bool has_cap(std::string_view name) const { return self && self->cap_map.has(name); }
    [[nodiscard]] const UserProfile* user(UserId id) const;
    /// Self or peer that owns this address; nullptr if none. Linear: for look-ups by people, not by packets.
    [[nodiscard]] NodePtr node_by_addr(const Addr& addr) const;
    [[nodiscard]] NodePtr node_by_key(const NodePublic& key) const;
    /// Told so by the server, or its key expired by the server's clock.
    [[nodiscard]] bool is_expired(const Node& node, WallTime local_now) const;
    /// Local time at which the next key of self or a peer expires; zero if none will.
    [[nodiscard]] WallTime next_expiry(WallTime local_now) const;
    /// DNS suffix of the tailnet: the self name without its first label, "" if it has none.
    [[nodiscard]] std::string magic_dns_suffix() const;
};

struct PeerChanges {
    struct Changed {
        NodePtr before;
        NodePtr after;
    };
    std::vector<NodePtr> added;    ///< by ID, ascending, as the other two
    std::vector<Changed> changed;  ///< same ID; the key may differ
    std::vector<NodePtr> removed;
    bool self = false;
    bool derp_map = false;
    bool dns = false;
    bool filter = false;
    bool users = false;
    bool other = false;  ///< domain, health, messages, SSH policy, client version, clock …

    [[nodiscard]] bool peers_empty() const { return added.empty() && changed.empty() && removed.empty(); }
    [[nodiscard]] bool empty() const {
        return peers_empty() && !self && !derp_map && !dns && !filter && !users && !other;
    }
};

/// From `before` (null = nothing) to `after` (null = nothing). Shared parts are skipped by pointer, so the price is that
/// of walking the two tables.
[[nodiscard]] PeerChanges diff(const NetMap* before, const NetMap* after);

}  // namespace mesh::netmap
