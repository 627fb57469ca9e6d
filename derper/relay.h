// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Who is connected and where packets go. Pure: it works on sessions its owner holds and tells the owner which of them
/// have something to write. A mesh of derpers of one region: watchers hear of every client that comes and goes, and
/// forwarders take packets for clients of the others; a packet is forwarded at most once.
///
/// Rules (tailscale/tailscale derp/derpserver). A key may be connected several times: the newest connection becomes
/// the active one, and any frame from another makes that one active. When a key is gone from the whole region, everyone
/// who ever got a packet from it on a connection that still stands hears PeerGone "disconnected". A disco packet to an
/// unknown key is answered with PeerGone "not here", at most 1 a second with a burst of 3; other packets get no answer.

#include <cstdint>
#include <memory>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/ip.h"
#include "base/keys.h"
#include "base/time.h"
#include "magicsock/derp/server_session.h"

namespace mesh::derper {

using ConnId = uint64_t;

/// The way to a derper of the mesh; lives until it was removed for every key.
class Forwarder {
   public:
    virtual ~Forwarder() = default;
    virtual void forward(const NodePublic& from, const NodePublic& to, ByteSpan packet, Time now) = 0;
};

struct RelayStats {
    uint64_t packets_in = 0, bytes_in = 0;
    uint64_t packets_out = 0, bytes_out = 0;
    derp::ByKind received;
    derp::ByKind dropped_unknown;  ///< destination is not connected here
    uint64_t gone_disconnected = 0;
    uint64_t gone_not_here = 0;
    uint64_t forwarded_out = 0, forwarded_in = 0;
    derp::ByKind dropped_unknown_forward;  ///< forwarded to us for a client that is not here
    uint64_t home_moves_in = 0, home_moves_out = 0;
    uint64_t accepts = 0;
    size_t clients = 0;      ///< distinct keys
    size_t connections = 0;  ///< with duplicates
    size_t home_connections = 0;  ///< that call this relay their home
    size_t not_ideal_connections = 0;
    size_t duplicate_keys = 0;     ///< keys that are connected more than once
    uint64_t duplicates = 0;       ///< connections that were not their key's only one when they came
    size_t watchers = 0;
    size_t remote_clients = 0;  ///< known from the mesh
};

class Relay {
   public:
    /// A client that has logged in and was accepted. `session` lives until remove(id).
    /// `not_ideal`: it would rather be at another node of the region.
    void add(ConnId id, derp::ServerSession& session, const Endpoint& remote, Time now, bool not_ideal = false);
    void remove(ConnId id, Time now);
    /// The whole relay goes: departures are told to nobody any more.
    void fall_silent() { silent_ = true; }
    /// A packet that `from` sent. Returns the connection that has a full record to write now; 0 = none.
    ConnId packet(ConnId from, const NodePublic& to, ByteSpan packet, Time now);
    /// Any other frame of a client: decides among duplicates.
    void activity(ConnId id);
    void note_preferred(ConnId id, bool preferred);

    /// A mesh peer that wants to know who is here: everybody now, changes later.
    void watch(ConnId id, Time now);
    /// A packet that a mesh peer took from its client `source` for one of ours. Returns as packet().
    ConnId forwarded(const NodePublic& source, const NodePublic& to, ByteSpan packet, Time now);
    /// Connections of a key, for a mesh peer's wish to close them.
    [[nodiscard]] std::vector<ConnId> connections_of(const NodePublic& key) const;
    /// `by` reaches that key; of several the first one added is used.
    void add_forwarder(const NodePublic& key, Forwarder& by);
    void remove_forwarder(const NodePublic& key, Forwarder& by, Time now);

    /// Connections whose sessions got something to write since the last call.
    [[nodiscard]] std::vector<ConnId> take_dirty();
    [[nodiscard]] const RelayStats& stats() const { return stats_; }
    [[nodiscard]] bool is_connected(const NodePublic& key) const { return peers_.contains(key); }

   private:
    struct Peer;
    struct Conn {
        ConnId id = 0;
        Peer* peer = nullptr;
        derp::ServerSession* session = nullptr;
        Endpoint remote;
        NodePublic key;
        bool preferred = false;
        bool not_ideal = false;
        bool watcher = false;
        double gone_tokens = 3;
        Time gone_tokens_at;
        std::unordered_set<NodePublic> heard_from;  // keys whose departure this connection must hear of
    };
    struct Peer {
        std::vector<Conn*> conns;  // oldest first
        Conn* active = nullptr;
    };

    [[nodiscard]] Conn* active(const NodePublic& key) const;
    ConnId deliver(Conn& to, const NodePublic& source, ByteSpan packet, Time now);
    void tell_gone(const NodePublic& key, Time now);
    void gone_from_region(const NodePublic& key, Time now);
    static void tell_present(Conn& watcher, const Conn& who, Time now);
    void refresh_counts();
    void answer_not_here(Conn& from, const NodePublic& to, Time now);
    void mark_dirty(ConnId id);

    std::unordered_map<ConnId, std::unique_ptr<Conn>> conns_;
    std::unordered_map<NodePublic, Peer> peers_;
    std::unordered_map<NodePublic, std::vector<Forwarder*>> forwarders_;
    std::unordered_map<NodePublic, std::set<ConnId>> reached_;  // who got a packet from that key
    std::set<ConnId> watchers_;
    std::vector<ConnId> dirty_;
    bool silent_ = false;
    RelayStats stats_;
};

}  // namespace mesh::derper
