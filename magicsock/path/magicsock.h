// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Which path reaches which peer. Takes every datagram from the UDP sockets and the relays, keeps disco and STUN for
/// itself and hands WireGuard on; answers, for every datagram to a peer, "by this endpoint, by that relay, or both".
///
/// Pure: the owner has the sockets, the clock and the relay connections. Inputs carry `now`; outputs go to Output at
/// once, during the call (Output must not call back into Magicsock from inside, except for const functions).
/// An idle peer costs a table row: path state exists only from the first packet to some minutes after the last.
///
/// Parts: peer_paths.h decides about one peer, own_endpoints.h collects our own addresses, score.h compares two paths,
/// netcheck measures the relays; this class is the table of peers, the demultiplexer, and who does what they ask.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "base/ip.h"
#include "base/keys.h"
#include "base/packet.h"
#include "base/random.h"
#include "base/time.h"
#include "magicsock/derp/derp_map.h"
#include "magicsock/disco/disco.h"
#include "magicsock/netcheck/netcheck.h"
#include "magicsock/path/own_endpoints.h"
#include "magicsock/path/peer_paths.h"
#include "magicsock/path/types.h"

namespace mesh::magicsock {

class ViaPaths;
struct ViaTodo;

/// What Magicsock asks of its owner. Every call is made from inside an input call, with that call's `now`.
class Output {
   public:
    virtual ~Output() = default;
    /// A datagram of ours (disco, STUN). Errors come back by udp_send_failed() after the input call has returned.
    virtual void send_udp(const Endpoint& to, ByteSpan datagram) = 0;
    /// Disco by relay, connecting to it if need be. False if that cannot be tried (unknown region, queue full).
    virtual bool send_derp(int region, const NodePublic& to, ByteSpan datagram) = 0;
    /// The path of a peer in use appeared, moved, or won or lost trust. `path` as the next path_for_send would give it.
    virtual void path_changed(PeerId peer, const Path& path, Time now) = 0;
    /// The peer proved to be alive under its current disco key for the first time since that key was set.
    virtual void disco_alive(PeerId /*peer*/, Time /*now*/) {}
    /// Our own endpoints, in the order to advertise.
    virtual void endpoints_changed(std::span<const LocalEndpoint> endpoints) = 0;
    virtual void home_derp_changed(int region) = 0;
    virtual void netcheck_done(const netcheck::Report& report) = 0;
    virtual void ping_done(uint64_t id, const PingResult& result) = 0;
    /// A peer that may do so asks for an endpoint at our UDP relay, or kNoPeer: we do. relay_allocated() answers, at once or never.
    virtual void relay_requested(PeerId /*by*/, const disco::AllocateRequest& /*request*/) {}
    /// Look these names up and answer each by set_resolved(), also when nothing was found.
    virtual void resolve_names(const std::vector<std::string>& hosts) = 0;
    /// Measure these regions by HTTPS and answer by https_latency() or https_failed(): STUN is silent.
    virtual void https_latency_wanted(const std::vector<int>& regions) = 0;
};

struct Config {
    bool allow_loopback = false;  ///< tests on one machine: 127.0.0.0/8 and ::1 may be probed
};

/// What the host's interfaces allow.
struct NetworkFacts {
    bool up = true;  ///< false: send no probes
    bool have_v4 = true;
    bool have_v6 = false;
    bool os_has_ipv6 = false;
    bool operator==(const NetworkFacts&) const = default;
};

/// Datagrams that ended here, by reason.
struct Counters {
    uint64_t disco_in = 0, disco_unknown_sender = 0, disco_bad = 0, disco_ignored = 0;
    uint64_t stun_in = 0, stun_unknown = 0, geneve = 0, geneve_bad = 0;
    uint64_t relay_requests_out = 0, relay_offers_out = 0, relay_binds_out = 0;
    uint64_t pings_out = 0, pongs_out = 0, call_me_maybe_out = 0, derp_send_failed = 0;
};

class Magicsock {
   public:
    Magicsock(Random& random, Output& output, Config config = {});
    ~Magicsock();
    Magicsock(const Magicsock&) = delete;
    Magicsock& operator=(const Magicsock&) = delete;

    // ---- what we are
    /// Zero: logged out; nothing is probed.
    void set_node_key(const NodePublic& key);
    /// Ours; the daemon keeps it over restarts, so that peers know our pings at once (facts: 10.1 c).
    void set_disco_key(const DiscoPrivate& key);
    [[nodiscard]] DiscoPublic disco_public() const { return disco_public_; }
    void set_wall_clock(WallTime wall, Time now);
    /// Starts the first netcheck. nullptr: none.
    void set_derp_map(std::shared_ptr<const derp::DerpMap> map, Time now);
    /// Interface addresses with the bound port, sorted, already without loopback and tunnel addresses.
    void set_local_endpoints(std::vector<Endpoint> endpoints, Time now);
    /// The endpoint that the router forwards to us; nullopt: none.
    void set_portmapped(std::optional<Endpoint> endpoint, Time now);
    void set_static_endpoints(std::vector<Endpoint> endpoints, Time now);
    void set_network(const NetworkFacts& facts, Time now);
    /// Addresses of the tailnet besides the well-known ranges: never probed.
    void set_tunnel_prefixes(std::vector<Prefix> prefixes) { tunnel_prefixes_ = std::move(prefixes); }

    /// Length of the datagram around a full packet of the tunnel; paths that lose those carry no data if there are others. 0,
    /// as in the beginning: not looked at.
    void set_full_datagram(size_t bytes) { full_datagram_ = bytes; }

    /// Whether paths through UDP relays are looked for and taken part in, and whether our own relay may be one of them.
    void set_relay_client(bool allowed, bool own_server);

    // ---- peers
    void upsert_peer(PeerId peer, const PeerConfig& config, Time now);
    void remove_peer(PeerId peer);
    /// A new disco key learnt inside the tunnel (TSMP advertisement). Zero or equal: nothing happens.
    void set_peer_disco(PeerId peer, const DiscoPublic& disco, Time now);

    // ---- straight line
    /// Where a datagram to this peer goes now. Notes the send: starts discovery and the heartbeat, watches for silence.
    Path path_for_send(PeerId peer, Time now);
    /// kRelayed: WireGuard behind a Geneve header of 8 bytes.
    enum class Kind : uint8_t { kWireGuard, kConsumed, kRelayed };
    /// One datagram. WireGuard is recognised by four bytes, without a call.
    Kind receive_udp(MutByteSpan datagram, const Endpoint& from, Time now) {
        if (datagram.size() >= 4) {
            const uint32_t type = load_le32(datagram.data());
            if (type >= 1 && type <= 4) return Kind::kWireGuard;
        }
        return receive_other(datagram, from, now);
    }
    Kind receive_derp(MutByteSpan datagram, int region, const NodePublic& from, Time now);
    /// The peer last seen behind that source; kNoPeer if none.
    [[nodiscard]] PeerId peer_of(const Source& source) const;
    [[nodiscard]] PeerId peer_of(const NodePublic& key) const;

    // ---- facts from elsewhere
    /// A valid handshake message of the peer came from there.
    void wg_authenticated(PeerId peer, const Source& source, Time now);
    /// Authenticated data came from there. Once per batch.
    void wg_received(PeerId peer, const Source& source, Time now);
    void derp_state(int region, bool connected, Time now);
    /// The connection broke or fell silent. Home is looked for anew.
    void derp_in_doubt(int region, Time now);
    /// An attempt to connect failed. Home moves elsewhere if there is another region.
    void derp_unreachable(int region, Time now);
    void derp_peer_gone(int region, const NodePublic& peer, int reason, Time now);
    /// Any frame of that relay, also keepalives: it is alive. receive_derp() implies it.
    void derp_heard(int region, Time now);
    /// A send to that endpoint failed with this errno. Unreachable destinations lose their path at once; where a datagram was too
    /// long, it is asked what fits.
    void udp_send_failed(const Endpoint& to, int err, Time now);
    void set_resolved(const std::string& host, const std::vector<Addr>& addrs, Time now);
    void https_latency(int region, Duration latency, Addr::Family family, Time now);
    void https_failed(int region, Time now);
    void set_portmap_services(std::optional<bool> upnp, std::optional<bool> pmp, std::optional<bool> pcp);
    void set_captive_portal(std::optional<bool> found);

    /// The answer to Output::relay_requested.
    void relay_allocated(PeerId by, const disco::AllocateResponse& response, Time now);

    // ---- requests
    /// `tailscale ping`. ping_done(id) follows exactly once, after 5 s at the latest. `size` in bytes of the IP packet,
    /// 0 = smallest.
    void ping(uint64_t id, PeerId peer, size_t size, Time now);
    /// Sockets were opened anew or the host moved: what was learnt about paths is void. Includes restun().
    void rebind(Time now);
    /// A new netcheck soon (at once, unless one is running).
    void restun(Time now);
    /// A netcheck of all regions, at once; one under way ends without result.
    void measure(Time now);

    // ---- questions
    [[nodiscard]] int home_derp() const { return home_; }
    [[nodiscard]] const std::vector<LocalEndpoint>& endpoints() const { return advertised_; }
    [[nodiscard]] const netcheck::Report* last_report() const { return netcheck_.last_report(); }
    [[nodiscard]] PeerPathStatus status(PeerId peer, Time now) const;
    /// Like path_for_send, without noting a send.
    [[nodiscard]] Path peek_path(PeerId peer, Time now) const;
    [[nodiscard]] const Counters& counters() const { return counters_; }
    /// Peers that have path state now.
    [[nodiscard]] size_t active_peers() const { return active_.size(); }

    [[nodiscard]] Time next_timeout() const;
    void handle_timeout(Time now);

   private:
    struct Peer;
    struct CliPing {
        struct Sent {
            disco::TxId tx;
            Time at;
            bool by_derp;
        };
        uint64_t id = 0;
        PeerId peer = kNoPeer;
        size_t size = 0;
        bool proven = false;  ///< there was a trusted path when it began
        Time started;
        Time repeat_at;
        std::vector<Sent> sent;
    };

    [[nodiscard]] Peer* find(PeerId peer);
    [[nodiscard]] const Peer* find(PeerId peer) const;
    Peer* find_by_node(const NodePublic& key);
    [[nodiscard]] PeerPaths& paths_of(Peer& p, Time now);
    void drop_paths(Peer& p);
    [[nodiscard]] const disco::SharedKey* shared_key(Peer& p);
    void set_disco(Peer& p, const DiscoPublic& disco, Time now);
    [[nodiscard]] bool usable(const Endpoint& e) const;
    void set_candidates(Peer& p, Time now);
    [[nodiscard]] int derp_region_of(const Peer& p) const;
    [[nodiscard]] bool speaks_disco(const Peer& p) const;
    [[nodiscard]] Path path_now(const Peer& p, Time now) const;
    void learn_route(Peer& p, int region, Time now);
    Path wireguard_only_path(Peer& p, Time now);
    void learn_source(Peer& p, const Endpoint& from);
    void unlearn_sources(Peer& p);
    void too_long(const Endpoint& to, Time now);

    Kind receive_other(MutByteSpan datagram, const Endpoint& from, Time now);
    Kind receive_geneve(ByteSpan datagram, const Endpoint& from, Time now);
    void receive_disco_udp(ByteSpan datagram, const Source& source, Time now);
    void receive_disco_derp(ByteSpan datagram, int region, const NodePublic& from, Time now);
    void handle_ping(Peer& p, const disco::Ping& m, const Source& source, bool sure_who, Time now);
    void handle_pong(Peer& p, const disco::Pong& m, const Source& source, Time now);
    void note_disco_alive(Peer& p, Time now);

    // UDP relays (magicsock_via.cc)
    [[nodiscard]] ViaPaths* via_of(Peer& p, Time now);
    void drop_via(Peer& p);
    void send_without_direct(Peer& p, Time now);
    void note_relay_server(PeerId peer, bool usable, bool announced);
    void look_for_relays(Peer& p, Time now);
    [[nodiscard]] disco::RelayEndpoint usable_part(const disco::RelayEndpoint& relay) const;
    [[nodiscard]] const disco::SharedKey* relay_key(const DiscoPublic& server);
    void receive_relay_control(ByteSpan sealed, const Source& source, Time now);
    void take_allocation(const NodePublic& server, const disco::AllocateResponse& response, Time now);
    void handle_relay_message(Peer& p, const disco::Message& m, Time now);
    void handle_via_ping(Peer& p, const disco::Ping& m, const Source& source, Time now);
    void carry_out_via(Peer& p, ViaTodo& todo, Time now);
    void set_legs(Peer& p);

    void carry_out(Peer& p, Todo& todo, Time now);
    bool send_disco(Peer& p, const disco::Message& m, const Source& to);
    void send_call_me_maybe(Peer& p, Time now);
    void arm(Peer& p, Time at);
    void rearm(Peer& p);
    void send_cli_ping(CliPing& c, Peer& p, Time now);
    void finish_ping(size_t index, PingResult result);
    void drop_pings_of(PeerId peer);
    void repeat_or_expire_pings(Time now);

    void start_netcheck(bool full, Time now, bool udp_only = false);
    [[nodiscard]] bool udp_blocked() const;
    void pump_netcheck(Time now);
    void finish_netcheck(const netcheck::Report& report, Time now);
    void set_home(int region);
    void resume_restun(Time now);
    void refresh_endpoints(Time now);
    [[nodiscard]] bool recently_active(Time now) const;

    Random& random_;
    Output& out_;
    Config config_;
    NodePublic node_key_;
    DiscoPrivate disco_private_;
    DiscoPublic disco_public_;
    std::vector<Prefix> tunnel_prefixes_;
    size_t full_datagram_ = 0;

    std::vector<std::unique_ptr<Peer>> peers_;  // index: PeerId
    std::unordered_map<NodePublic, PeerId> by_node_;
    std::unordered_map<DiscoPublic, std::vector<PeerId>> by_disco_;
    std::unordered_map<Endpoint, PeerId> by_endpoint_;
    std::set<PeerId> active_;                      // peers that have PeerPaths
    std::set<std::pair<Time, PeerId>> deadlines_;  // one entry per armed peer
    std::vector<CliPing> cli_pings_;
    std::set<int> connected_;  // regions with a relay connection

    // UDP relays
    bool relay_client_ = false, own_relay_ = false;
    std::set<PeerId> relay_servers_, relay_announced_;  // the second is part of the first
    PeerId relay_next_ = 0;  // the next round begins there
    std::map<DiscoPublic, disco::SharedKey> relay_keys_;  // of servers that we shake hands with
    std::map<std::pair<Endpoint, uint32_t>, PeerId> by_leg_;

    // own endpoints, netcheck, home
    netcheck::Netcheck netcheck_;
    std::shared_ptr<const derp::DerpMap> derp_map_;
    OwnEndpoints own_;
    std::vector<LocalEndpoint> advertised_;
    NetworkFacts network_;
    WallTime wall_;
    Time wall_at_;
    std::set<std::string> asked_;  // names asked for in this report
    int home_ = 0;
    bool restun_pending_ = false;
    bool full_pending_ = false;
    Time moved_until_;  ///< after a rebind: new addresses are told to every active peer
    Time last_netcheck_;           // when the last one ended
    Time last_whole_netcheck_;     // when the last one began that was not about UDP only
    Time home_checked_;            // last net check because the home relay could not be reached
    Time restun_at_ = Time::never();
    Time endpoints_expire_ = Time::never();
    Time last_any_send_;
    Todo todo_;  // scratch of the straight line
    Counters counters_;
};

}  // namespace mesh::magicsock
