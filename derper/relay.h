// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Who is connected and where packets go. Pure: it works on sessions its owner holds and tells the owner which of them
/// have something to write. Local clients only; a mesh adds forwarders in find() and watchers in add() and remove().
///
/// Rules (tailscale/tailscale derp/derpserver). A key may be connected several times: the newest connection becomes
/// the active one, and any frame from another makes that one active. When the last connection of a key goes, everyone
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

struct RelayStats {
    uint64_t packets_in = 0, bytes_in = 0;
    uint64_t packets_out = 0, bytes_out = 0;
    uint64_t dropped_unknown = 0;  ///< destination is not connected here
    uint64_t gone_disconnected = 0;
    uint64_t gone_not_here = 0;
    uint64_t accepts = 0;
    size_t clients = 0;      ///< distinct keys
    size_t connections = 0;  ///< with duplicates
};

class Relay {
   public:
    /// A client that has logged in and was accepted. `session` lives until remove(id).
    void add(ConnId id, derp::ServerSession& session, const Endpoint& remote, Time now);
    void remove(ConnId id, Time now);
    /// A packet that `from` sent.
    void packet(ConnId from, const NodePublic& to, ByteSpan packet, Time now);
    /// Any frame of a client: decides among duplicates.
    void activity(ConnId id);
    void note_preferred(ConnId id, bool preferred);

    /// Connections whose sessions got something to write since the last call.
    [[nodiscard]] std::vector<ConnId> take_dirty();
    [[nodiscard]] const RelayStats& stats() const { return stats_; }
    [[nodiscard]] bool is_connected(const NodePublic& key) const { return peers_.contains(key); }

   private:
    struct Conn {
        ConnId id = 0;
        derp::ServerSession* session = nullptr;
        Endpoint remote;
        NodePublic key;
        bool preferred = false;
        double gone_tokens = 3;
        Time gone_tokens_at;
        std::unordered_set<NodePublic> heard_from;  // keys whose departure this connection must hear of
    };
    struct Peer {
        std::vector<Conn*> conns;  // oldest first
        Conn* active = nullptr;
        std::set<ConnId> reached;  // connections that got a packet from this key
    };

    [[nodiscard]] Conn* find(const NodePublic& key) const;
    void answer_not_here(Conn& from, const NodePublic& to, Time now);
    void mark_dirty(ConnId id);

    std::unordered_map<ConnId, std::unique_ptr<Conn>> conns_;
    std::unordered_map<NodePublic, Peer> peers_;
    std::vector<ConnId> dirty_;
    RelayStats stats_;
};

}  // namespace mesh::derper
