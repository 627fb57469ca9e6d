// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Values that magicsock exchanges with the rest of the daemon.

#include <cstdint>
#include <string>
#include <vector>

#include "base/ip.h"
#include "base/keys.h"
#include "base/time.h"
#include "magicsock/path/path_size.h"

namespace mesh::magicsock {

/// What the network map says about a peer's reachability.
struct PeerConfig {
    NodePublic key;
    DiscoPublic disco;                ///< zero: does not speak disco, reached by DERP alone
    std::vector<Endpoint> endpoints;  ///< in the order advertised; unusable ones are ignored
    int home_derp = 0;                ///< 0: not known yet
    bool wireguard_only = false;      ///< foreign WireGuard: endpoints as they are, no disco, no DERP
    bool relay_server = false;        ///< we may use it as UDP relay (capability relay-target)
    bool relay_announced = false;     ///< and it says that it is one
    bool may_relay = false;           ///< it may use us as UDP relay (capability relay)
    bool operator==(const PeerConfig&) const = default;
};

/// Where the next datagram to a peer goes. Both set: send the same datagram on both. Neither: there is no path yet, and
/// path_changed() will tell when there is one.
struct Path {
    Endpoint udp;             ///< valid or not
    int derp_region = 0;      ///< > 0: by this region's relay
    bool udp_trusted = false; ///< a pong proved `udp` a moment ago; then derp_region is 0, or `udp` in doubt
    uint32_t vni = 0;         ///< > 0: `udp` is a UDP relay, and this the number that it knows the peer under

    [[nodiscard]] bool empty() const { return !udp.is_valid() && derp_region == 0; }
    bool operator==(const Path&) const = default;
};

/// tailcfg.EndpointType: the number goes to control.
enum class EndpointType : uint8_t {
    kUnknown = 0,
    kLocal = 1,
    kStun = 2,
    kPortmapped = 3,
    kStun4LocalPort = 4,  ///< STUN address with our own port: right behind a hard NAT with a forwarded port
    kExplicit = 5,
};
/// "local", "stun", "portmap", "stun4localport", "explicit"
[[nodiscard]] const char* endpoint_type_name(EndpointType t);

/// An endpoint of ours, as advertised.
struct LocalEndpoint {
    Endpoint ep;
    EndpointType type = EndpointType::kUnknown;
    bool operator==(const LocalEndpoint&) const = default;
};

/// The answer to Magicsock::ping.
struct PingResult {
    PeerId peer = kNoPeer;
    std::string error;    ///< empty: a pong came
    Duration latency;
    Endpoint udp;         ///< valid: the pong came back over this UDP path
    int derp_region = 0;  ///< > 0: over this region
    uint32_t vni = 0;     ///< > 0: `udp` is a UDP relay
};

/// "ip:port:vni:N", as `status` and `ping` name a path through a UDP relay.
[[nodiscard]] std::string via_text(const Endpoint& relay, uint32_t vni);

/// Something that happened to a peer's paths, for `tailscale debug paths`.
struct PathEvent {
    enum class Kind : uint8_t {
        kDiscovery,        ///< a round of pings started
        kPingReceived,
        kPong,             ///< latency set
        kCallMeMaybeSent,
        kCallMeMaybeReceived,
        kNowUsing,         ///< the best path is now `ep`
        kSilent,           ///< traffic went unanswered: path no longer trusted
        kTrustExpired,
        kBestLost,         ///< no pong for so long that `ep` is no longer used
        kNoAnswer,         ///< the first ping to `ep` that nothing came back for, or the first after answers
        kSendFailed,
        kReset,            ///< our network changed
        kRestarted,        ///< the peer has a new disco key
        kWholeSize,        ///< a full packet arrived there; `size` is its length
        kTooSmall,         ///< full packets get lost there; `size` does arrive
    };
    Time at;
    Kind kind = Kind::kDiscovery;
    Endpoint ep;
    Duration latency;
    size_t size = 0;  ///< bytes of an IP packet
};
[[nodiscard]] const char* path_event_name(PathEvent::Kind k);

struct CandidateStatus {
    Endpoint ep;
    bool from_netmap = false;
    bool from_call_me_maybe = false;
    bool learned = false;  ///< a ping came from there
    Time last_probe, last_pong;
    Duration latency;      ///< of the last pong; zero if none
    Duration best_latency; ///< of all pongs; zero if none
    uint32_t pings = 0;    ///< sent since the peer became active
    uint32_t pongs = 0;
    unsigned recent = 0;   ///< how many of the last pings have an outcome by now, 16 at most
    unsigned recent_lost = 0;
    PathSize::Verdict size = PathSize::Verdict::kUnknown;
    size_t carries = 0;    ///< longest IP packet known to arrive, in bytes; 0: not known
    size_t full = 0;       ///< the longest that the tunnel sends there
};

/// An endpoint at a UDP relay server.
struct ViaStatus {
    DiscoPublic server;
    Endpoint addr;         ///< invalid: it has not answered yet
    uint32_t vni = 0;
    bool bound = false;    ///< the peer was heard through it
    CandidateStatus path;  ///< `ep` invalid: nothing known
};

/// A peer's paths as `status` and `debug paths` show them.
struct PeerPathStatus {
    Endpoint cur_addr;     ///< valid only while trusted (`direct ip:port`)
    int relay = 0;         ///< home region, or the one it reaches us by; 0 unknown
    Endpoint via_addr;     ///< valid while a path through a UDP relay is trusted; used only without cur_addr
    uint32_t via_vni = 0;
    Duration via_latency;
    std::vector<ViaStatus> via;
    Endpoint best;         ///< also while untrusted
    Duration latency;      ///< of best
    Time last_send, last_receive;
    Time relay_heard;      ///< something of it came by a relay, be it only a pong
    Time relay_gone;       ///< when its relay said that it is not connected there; zero: not since it was last heard by relay
    std::vector<CandidateStatus> candidates;
    std::vector<PathEvent> events;  ///< oldest first
};

}  // namespace mesh::magicsock
