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
///
/// Several loops: one Relay on each, joined by Siblings. A client is at its home loop with all its connections; there it is
/// decided where packets for it go and when it is gone. Mesh peers and what they forward are the front's.

#include <cstdint>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/ip.h"
#include "base/keys.h"
#include "base/time.h"
#include "derper/siblings.h"
#include "magicsock/derp/server_session.h"

namespace mesh::derper {

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
    derp::ByKind dropped_between;  ///< its loop had too much to do
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
    RelayStats& operator+=(const RelayStats& more);
};

class Relay {
   public:
    Relay() = default;  ///< alone
    /// The one on loop `self` of several. `siblings` must outlive it; nullptr = alone.
    Relay(Siblings* siblings, size_t self) : siblings_(siblings), self_(self) {}
    Relay(const Relay&) = delete;
    Relay& operator=(const Relay&) = delete;

    /// A client that has logged in and was accepted. `session` lives until remove(id).
    /// `not_ideal`: it would rather be at another node of the region.
    void add(ConnId id, derp::ServerSession& session, const Endpoint& remote, Time now, bool not_ideal = false);
    void remove(ConnId id, Time now);
    /// The whole relay goes: departures are told to nobody any more, and siblings hear nothing.
    void fall_silent() { silent_ = true; }
    /// A packet that `from` sent. Returns the connection that has a full record to write now; 0 = none.
    ConnId packet(ConnId from, const NodePublic& to, ByteSpan packet, Time now);
    /// Any other frame of a client: decides among duplicates.
    void activity(ConnId id);
    void note_preferred(ConnId id, bool preferred);

    /// What the relay of loop `from` said. Returns as packet().
    ConnId hear(size_t from, const Note& note, ByteSpan packet, Time now);

    /// A mesh peer (on the front) that wants to know who is here: everybody now, changes later.
    void watch(ConnId id, Time now);
    /// A packet that a mesh peer took from its client `source` for one of ours. Returns as packet().
    ConnId forwarded(const NodePublic& source, const NodePublic& to, ByteSpan packet, Time now);
    /// Connections of a key, for a mesh peer's wish to close them.
    [[nodiscard]] std::vector<ConnId> connections_of(const NodePublic& key) const;
    /// On the front: `by` reaches that key; of several the first one added is used.
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
        bool preferred = false;
        bool not_ideal = false;
        double gone_tokens = 3;
        Time gone_tokens_at;
        std::unordered_set<NodePublic> heard_from;  // keys whose departure this connection must hear of
        [[nodiscard]] const NodePublic& key() const { return session->key(); }
    };
    struct Peer {
        std::vector<Conn*> conns;  // oldest first
        Conn* active = nullptr;
    };
    /// The connection that a packet came in by.
    struct Origin {
        size_t loop = 0;
        ConnId conn = 0;
    };

    [[nodiscard]] bool is_front() const { return self_ == kFront; }
    [[nodiscard]] size_t home_of(const NodePublic& key) const { return siblings_ ? siblings_->home(key) : self_; }
    [[nodiscard]] Conn* active(const NodePublic& key) const;
    bool say(size_t loop, const Note& note, ByteSpan packet = {});
    void say_packet(size_t loop, const Note& note, ByteSpan packet);
    ConnId deliver(Conn& to, const NodePublic& source, ByteSpan packet, Time now);
    /// At the home of `to`, or at the front for whom only the front reaches.
    ConnId route(const NodePublic& source, Origin origin, const NodePublic& to, ByteSpan packet, Time now);
    ConnId route_forwarded(const NodePublic& source, const NodePublic& to, ByteSpan packet, Time now);
    void not_here(Origin origin, const NodePublic& to, Time now);
    void answer_not_here(Conn& from, const NodePublic& to, Time now);

    void arrived(const Conn& who, Time now);
    void departed(const NodePublic& key, Time now);
    [[nodiscard]] static Note present(const Conn& who, ConnId watcher);
    void tell_watchers(size_t from, const Note& note, Time now);
    void list_for(ConnId watcher);
    /// The home of `key`, another loop, hears whether the front reaches it, if that changed.
    void note_reach(const NodePublic& key, bool before);
    [[nodiscard]] bool front_reaches(const NodePublic& key) const;
    void gone_from_region(const NodePublic& key, Time now);
    void tell_gone(const NodePublic& key, Time now);
    void refresh_counts();
    void mark_dirty(ConnId id);

    Siblings* siblings_ = nullptr;
    size_t self_ = kFront;
    std::unordered_map<ConnId, Conn> conns_;
    std::unordered_map<NodePublic, Peer> peers_;
    std::unordered_map<NodePublic, std::vector<Forwarder*>> forwarders_;  // the front's
    std::unordered_set<NodePublic> elsewhere_;  // of those at home here: whom the front reaches, if this is not the front
    std::unordered_map<NodePublic, std::set<ConnId>> reached_;  // who got a packet from that key
    std::map<ConnId, uint64_t> watchers_;  // the front's; a bit for every loop whose clients they have heard of
    bool watched_ = false;                 // the front has had watchers
    std::vector<ConnId> dirty_;
    bool silent_ = false;
    RelayStats stats_;
};

}  // namespace mesh::derper
