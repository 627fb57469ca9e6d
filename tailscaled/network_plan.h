// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// From the network map and the prefs to what the packet loop and the router shall do. Functions of values, and the
/// table that gives each node its PeerId.

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "platform/linux/net_state.h"
#include "platform/linux/router_plan.h"
#include "tailscaled/api/prefs.h"
#include "tailscaled/api/state.h"
#include "tailscaled/engine.h"
#include "tailscaled/netmap/netmap.h"

namespace mesh::daemon {

/// Node → PeerId. A node whose key changed is another peer to the packet loop and gets another id.
class PeerIds {
   public:
    /// The id of that node under that key; a new one if need be.
    PeerId assign(netmap::NodeId node, const NodePublic& key);
    [[nodiscard]] PeerId find(netmap::NodeId node) const;
    void release(netmap::NodeId node);

   private:
    struct Entry {
        PeerId id;
        NodePublic key;
    };
    std::map<netmap::NodeId, Entry> by_node_;
    std::vector<PeerId> free_;
    PeerId next_ = 0;
};

/// A peer that takes part: not expired, has a key.
[[nodiscard]] bool takes_part(const netmap::NetMap& map, const netmap::Node& node, WallTime wall);
/// The chosen exit node, or nullptr.
[[nodiscard]] netmap::NodePtr exit_node(const netmap::NetMap& map, const api::Prefs& prefs);
/// Routes beyond the peers' own addresses that are used at most; the rest is left out, and said.
inline constexpr size_t kMaxRoutes = 16'384;

/// Prefixes for which packets may come from and go to this peer: its addresses; its subnets with --accept-routes; default
/// routes only from the chosen exit node. Never one of our own addresses, a loopback, multicast or link-local one (but
/// 169.254.169.254), nor a prefix with host bits.
[[nodiscard]] std::vector<Prefix> accepted_prefixes(const netmap::NetMap& map, const netmap::Node& node, const api::Prefs& prefs,
                                                    bool is_exit_node);

/// Sources that the filter grants an application capability towards this node.
[[nodiscard]] std::vector<Prefix> granted(const netmap::NetMap& map, std::string_view capability);

/// The tailnet lets this node send and take files.
inline constexpr const char* kFileSharing = "https://tailscale.com/cap/file-sharing";
/// The stable id of the peer at this address if it may send this node files; else why not. As the original: a node of the same
/// user, neither of them tagged, or one with the capability.
[[nodiscard]] Result<std::string> file_sender(const netmap::NetMap& map, const Addr& peer);
/// As the status numbers them.
enum class TaildropTarget : uint8_t {
    kUnknown, kAvailable, kNoNetmap, kNotRunning, kMissingCap, kOffline, kNoPeerInfo, kUnsupportedOs, kNoPeerApi, kOtherOwner,
};
/// To whom this node may send files.
class FileTargets {
   public:
    explicit FileTargets(const netmap::NetMap& map);
    [[nodiscard]] TaildropTarget of(const netmap::Node& node, api::State state) const;
    /// Leaving aside whether it is there.
    [[nodiscard]] bool takes(const netmap::Node& node) const;
    [[nodiscard]] bool enabled() const { return enabled_; }

   private:
    [[nodiscard]] static bool is_tv(const netmap::Node& node);
    const bool enabled_;
    const netmap::UserId user_;
    const netstack::PrefixSet others_;
};
/// Where a node's PeerAPI is; IPv4 first. Invalid: it has none.
[[nodiscard]] Endpoint peer_api(const netmap::Node& node);

/// Who may relay for whom by UDP, from the application grants of the filter: tailscale.com/cap/relay and .../relay-target.
struct RelayGrants {
    netstack::PrefixSet clients;  ///< nodes that may use this one
    netstack::PrefixSet servers;  ///< nodes that this one may use
    std::vector<Prefix> client_list, server_list;  ///< the same, for comparison
    bool operator==(const RelayGrants& o) const { return client_list == o.client_list && server_list == o.server_list; }
};
[[nodiscard]] RelayGrants relay_grants(const netmap::NetMap& map);
/// Does a node hold what one of the two sets stands for? Never one that has no signature of the tailnet lock.
[[nodiscard]] bool holds(const netstack::PrefixSet& set, const netmap::Node& node);

/// What the packet loop must be told after a change of the map.
struct PeerPlan {
    PeerSlice slice;      ///< of any length; removals come first, for an id may be given anew in the same round
    bool policy = false;  ///< routes, source checks or the filter changed, too: make_tables()
};
/// `changes`: since the map that was planned last; null: all of it, anew (also when the grants changed). Assigns and releases ids.
[[nodiscard]] PeerPlan plan_peers(const netmap::NetMap& map, const netmap::PeerChanges* changes, PeerIds& ids, WallTime wall,
                                  const RelayGrants& grants = {});
/// Peers to initiate to before there is traffic: those that still hold sessions with the process before this one would
/// send into a void for up to 15 s. At most 16.
[[nodiscard]] std::vector<PeerId> peers_to_greet(const netmap::NetMap& map, const PeerIds& ids);

/// Does any peer offer a network of its own (exit routes and single addresses of the tailnet do not count)?
[[nodiscard]] bool offer_routes(const netmap::NetMap& map);

/// Networks that this host reaches without a router: those of its interfaces but `tun`, and gateways outside of them.
[[nodiscard]] std::vector<Prefix> connected_networks(const platform::NetState& net, const std::string& tun);

/// Where two peers claim the same prefix, its owner by address gets the packets, else the one with the lower node ID.
[[nodiscard]] std::shared_ptr<const dataplane::Tables> make_tables(const netmap::NetMap& map, const api::Prefs& prefs, const PeerIds& ids,
                                                                   const platform::NetState& net, WallTime wall,
                                                                   uint16_t peer_api_port = 0);
/// May the peer of this address use the internet through this node, and so ask it for names? Its own user always may.
[[nodiscard]] bool may_use_internet(const netmap::NetMap& map, const dataplane::Tables& tables, const Addr& peer);
/// `notes`: sentences about routes that were left out to keep the host reachable, are claimed twice or are too many.
[[nodiscard]] platform::RouterConfig make_router_config(const netmap::NetMap& map, const api::Prefs& prefs, const platform::NetState& net,
                                                        const std::string& tun, uint16_t port_v4, uint16_t port_v6, WallTime wall,
                                                        std::vector<std::string>* notes);

}  // namespace mesh::daemon
