// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// A node as the control server describes it (tailcfg.Node), immutable once it is inside a NetMap. Everything a
/// status page or `whois` shows again is kept; what this program never looks into stays as JSON text.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ip.h"
#include "base/keys.h"
#include "base/time.h"

namespace mesh::netmap {

/// > 0, unique per control server; the key of every delta.
using NodeId = int64_t;
using UserId = int64_t;

/// Capability name → JSON texts of its values (often none: presence is the flag). Sorted by name.
struct CapMap {
    std::vector<std::pair<std::string, std::vector<std::string>>> entries;

    [[nodiscard]] bool has(std::string_view name) const { return values(name) != nullptr; }
    /// nullptr if the capability is absent.
    [[nodiscard]] const std::vector<std::string>* values(std::string_view name) const;
    void set(std::string_view name, std::vector<std::string> json_values);
    bool operator==(const CapMap&) const = default;
};

struct Service {
    std::string proto;  ///< "tcp", "udp", "peerapi4", "peerapi6", "peerapi-dns-proxy"
    uint16_t port = 0;
    std::string description;
    bool operator==(const Service&) const = default;
};

/// What a node says about itself, as the server passes it on. `json` is the whole object as received, in one line.
struct PeerHostinfo {
    std::string json;
    std::string hostname;
    std::string os;
    std::string app;
    std::string exit_node_id;
    std::vector<Service> services;
    std::vector<Prefix> routable_ips;
    std::vector<std::string> ssh_host_keys;
    bool shields_up = false;
    bool sharee_node = false;
    bool peer_relay = false;
    /// TCP port of the PeerAPI on the node's IPv4 or IPv6 address; 0 = none.
    [[nodiscard]] uint16_t peerapi_port(Addr::Family family) const;
    [[nodiscard]] bool peerapi_dns_proxy() const;
    bool operator==(const PeerHostinfo&) const = default;
};

struct Resolver {
    std::string addr;  ///< IP, IP:port, https:// (DoH) or http:// (DoH of a peer)
    std::vector<Addr> bootstrap;
    bool use_with_exit_node = false;
    bool operator==(const Resolver&) const = default;
};

struct Node {
    NodeId id = 0;
    std::string stable_id;
    std::string name;  ///< FQDN with trailing dot
    UserId user = 0;
    UserId sharer = 0;
    NodePublic key;
    WallTime key_expiry;  ///< zero = never
    bool expired = false;  ///< as told by the server; see NetMap::is_expired
    Bytes key_signature;
    MachinePublic machine;
    DiscoPublic disco_key;  ///< zero = does not speak disco now
    std::vector<Prefix> addresses;
    std::vector<Prefix> allowed_ips;
    std::vector<Prefix> primary_routes;
    std::vector<Endpoint> endpoints;
    int home_derp = 0;  ///< 0 = unknown
    std::shared_ptr<const PeerHostinfo> hostinfo;  ///< never null in a parsed node
    WallTime created;
    int cap = 0;  ///< do not infer abilities from it: Headscale writes the version of the one who asks
    std::vector<std::string> tags;
    std::optional<WallTime> last_seen;
    std::optional<bool> online;
    bool machine_authorized = false;
    CapMap cap_map;
    bool unsigned_peerapi_only = false;
    std::string data_plane_audit_log_id;
    Addr masq_v4, masq_v6;  ///< the peer knows this node under these addresses
    bool wireguard_only = false;
    bool jailed = false;
    std::vector<Resolver> exit_node_resolvers;

    /// First label of the name: "laptop" of "laptop.mesh.test.".
    [[nodiscard]] std::string_view host_label() const;
    /// Everything after the first label, without trailing dot.
    [[nodiscard]] std::string_view domain_suffix() const;
    /// First own address of that family, or none.
    [[nodiscard]] Addr address(Addr::Family family) const;
    /// Prefixes in allowed_ips that are not its own addresses.
    [[nodiscard]] std::vector<Prefix> routes() const;
    [[nodiscard]] bool offers_exit() const;  ///< both default routes are allowed, as by the original
    [[nodiscard]] bool is_tagged() const { return !tags.empty(); }
    bool operator==(const Node&) const;
};
using NodePtr = std::shared_ptr<const Node>;

}  // namespace mesh::netmap
