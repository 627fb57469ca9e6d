// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The paths to one peer through UDP relay servers, which are nodes of the tailnet ("peer relays"): which servers are asked,
/// the handshakes with them, and which bound leg carries data. Pure; what has to be sent is left in a ViaTodo.
///
/// The rules:
///
///  1. Any trusted direct path is better than one of these, and a trusted one of these better than DERP; Magicsock decides that.
///  2. Servers are asked for an endpoint when something is to be sent without a trusted direct path, or the peer says
///     CallMeMaybe: at most every 30 s, while a path here is trusted every 60 s. A request goes by DERP, is repeated once after 3 s
///     and forgotten after 10 s.
///  3. An endpoint that we got is offered to the peer by DERP (CallMeMaybeVia). Ours and the peer's alike start a handshake
///     (relay/handshake.h), unless it is the one under way, an older one of that server, or the one that is trusted.
///  4. An address that answered is a candidate of a PeerPaths like a direct one: its rules give trust, heartbeat, doubt and the
///     end after two silent seconds.
///  5. At most 20 messages of handshakes leave per second, and there are at most four endpoints. The trusted one stays.
///
/// Source: tailscale/tailscale wgengine/magicsock/relaymanager.go.

#include <optional>
#include <span>
#include <vector>

#include "magicsock/path/peer_paths.h"
#include "magicsock/relay/handshake.h"

namespace mesh::magicsock {

inline constexpr Duration kViaDiscovery = seconds(30);
inline constexpr Duration kViaUpgrade = seconds(60);
inline constexpr Duration kAllocateAgain = seconds(3);
inline constexpr Duration kAllocateTimeout = seconds(10);
inline constexpr size_t kMaxRelayServers = 8;  ///< asked per peer
inline constexpr size_t kMaxViaEndpoints = 4;
inline constexpr size_t kMaxBindsPerSecond = 20;

/// What the owner has to do after a call, in this order.
struct ViaTodo {
    struct Request {
        NodePublic server;
        disco::AllocateRequest message;
    };
    struct Bind {
        DiscoPublic server;
        relay::Handshake::Out out;
    };
    std::vector<Request> requests;
    std::vector<disco::RelayEndpoint> offers;  ///< for a CallMeMaybeVia each
    std::vector<Bind> binds;
    Todo paths;                ///< probes go through vni_of(to); call_me_maybe and check_network mean nothing here
    bool legs_changed = false; ///< legs() is another list
};

class ViaPaths {
   public:
    /// Address and VNI of a bound leg.
    struct Leg {
        Endpoint addr;
        uint32_t vni = 0;
        bool operator==(const Leg&) const = default;
    };

    /// `mine`, `theirs`: disco keys; with another one, this object is void.
    ViaPaths(Random& random, const DiscoPublic& mine, const DiscoPublic& theirs, Time now);

    // ---- finding
    [[nodiscard]] bool discovery_due(Time now) const;
    void discover(std::span<const NodePublic> servers, Time now, ViaTodo& todo);
    /// An answer of that server, addresses already filtered.
    void heard_response(const NodePublic& server, const disco::AllocateResponse& m, Time now, ViaTodo& todo);
    /// A CallMeMaybeVia of the peer, addresses already filtered.
    void heard_offer(const disco::RelayEndpoint& relay, Time now, ViaTodo& todo);
    /// Sealed by that server.
    void heard_challenge(const DiscoPublic& server, const disco::RelayBind& m, const Leg& from, Time now, ViaTodo& todo);

    // ---- the paths; as in PeerPaths
    [[nodiscard]] bool trusted(Time now) const { return paths_.trusted(now) && vni_of(paths_.best()) != 0; }
    [[nodiscard]] bool in_doubt(Time now) const { return paths_.in_doubt(now); }
    /// Best proven leg; vni 0 if none.
    [[nodiscard]] Leg best() const { return {paths_.best(), vni_of(paths_.best())}; }
    [[nodiscard]] uint32_t vni_of(const Endpoint& addr) const;
    [[nodiscard]] std::vector<Leg> legs() const;
    bool note_sent(Time now, ViaTodo& todo);
    bool note_received(const Endpoint& from, Time now) { return paths_.note_received(from, now); }
    /// A valid ping of the peer through that leg. False: not to be answered again.
    bool heard_ping(const Leg& from, const disco::TxId& tx, size_t padding, Time now, ViaTodo& todo);
    std::optional<Duration> heard_pong(const disco::TxId& tx, Time now, ViaTodo& todo);
    [[nodiscard]] std::optional<Endpoint> target_of(const disco::TxId& tx) const { return paths_.target_of(tx); }
    void cli_probe(size_t size, Time now, ViaTodo& todo) { paths_.cli_probe(size, now, todo.paths); }
    void set_full_datagram(size_t bytes) { paths_.set_full_datagram(bytes); }  ///< the header included
    [[nodiscard]] bool too_small(const Endpoint& addr) const { return paths_.too_small(addr); }
    void send_failed(const Endpoint& to, Time now, ViaTodo& todo) { paths_.send_failed(to, now, todo.paths); }

    [[nodiscard]] Time next_timeout() const;
    void handle_timeout(Time now, ViaTodo& todo);
    /// For `status` and `debug paths`.
    void fill(PeerPathStatus& status, Time now) const;

   private:
    struct Asked {
        NodePublic server;
        uint32_t generation;
        Time sent;
        bool repeated = false;
    };
    struct Lease {
        relay::Handshake handshake;
        Time started;
        Leg leg;  // of the last answered challenge; vni 0: none yet
    };
    enum class Whose : uint8_t { kOurs, kTheirs };

    void begin(const disco::RelayEndpoint& relay, Whose whose, Time now, ViaTodo& todo);
    bool make_room(Time now, ViaTodo& todo);
    void drop_leg(Lease& lease, Time now, ViaTodo& todo);
    void legs_changed(Time now, ViaTodo& todo);
    void queue(const DiscoPublic& server, std::vector<relay::Handshake::Out>& out, Time now, ViaTodo& todo);
    [[nodiscard]] uint32_t next_generation();

    DiscoPublic theirs_;
    disco::DiscoPair pair_;
    PeerPaths paths_;
    std::vector<Asked> asked_;
    std::vector<Lease> leases_;
    Time discovered_;
    uint32_t generation_;
    Time window_;  // rule 5
    size_t window_binds_ = 0;
};

}  // namespace mesh::magicsock
