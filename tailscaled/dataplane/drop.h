// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Why a packet ended in the data plane. Counted per direction; nothing is ever logged per packet. What WireGuard
/// refuses has its own reasons (wg/drop.h).

#include <array>
#include <cstdint>
#include <string_view>

#include "wg/drop.h"

namespace mesh::dataplane {

enum class Drop : uint8_t {
    kMalformed,     ///< no IP packet, or length fields that lie
    kUnknownProto,  ///< transport or IPv6 extension header not understood, bad fragment
    kMulticast,     ///< destination multicast
    kLinkLocal,     ///< destination link-local
    kNotLocal,      ///< in: destination neither ours nor advertised
    kNoRule,        ///< in: no rule of the filter allows it
    kSource,        ///< in: source address does not belong to the sending peer
    kNoRoute,       ///< out: no peer has the destination
    kNoPath,        ///< out: neither a UDP path nor a relay
    kNoSession,     ///< out: session worn out while sealing
    kRelayQueue,    ///< out: the relay connection takes no more
    kBadOffload,    ///< out: virtio header contradicts the packet
    kTooBig,        ///< out: does not fit into a datagram
    kTsmp,          ///< out: TSMP from the host; in: malformed TSMP
    kService,       ///< out: to 100.100.100.100, nobody answered
    kCount
};

/// "no_route"; for metrics and bug reports.
[[nodiscard]] std::string_view name(Drop d);
/// Label of tailscaled_{in,out}bound_dropped_packets_total: acl, multicast, link_local_unicast, too_short,
/// unknown_protocol or error.
[[nodiscard]] std::string_view metric_reason(Drop d);

/// Which kind of path a datagram took.
enum class PathKind : uint8_t { kDerp, kDirect4, kDirect6, kPeerRelay4, kPeerRelay6, kCount };
/// Label of tailscaled_{in,out}bound_{bytes,packets}_total: derp, direct_ipv4, direct_ipv6, peer_relay_ipv4, peer_relay_ipv6.
[[nodiscard]] std::string_view name(PathKind k);

struct Traffic {
    uint64_t packets = 0;
    uint64_t bytes = 0;  ///< of WireGuard datagrams, handshakes and keepalives included
};

/// Totals since start.
struct Counters {
    std::array<uint64_t, static_cast<size_t>(Drop::kCount)> dropped_in{}, dropped_out{};
    std::array<uint64_t, static_cast<size_t>(wg::DropReason::kCount)> dropped_wg{};
    std::array<Traffic, static_cast<size_t>(PathKind::kCount)> in{}, out{};
    uint64_t staged = 0;      ///< packets that had to wait for a session
    uint64_t tun_writes = 0;  ///< super-packets count once
    uint64_t tun_packets = 0;

    [[nodiscard]] uint64_t in_dropped(Drop d) const { return dropped_in[static_cast<size_t>(d)]; }
    [[nodiscard]] uint64_t out_dropped(Drop d) const { return dropped_out[static_cast<size_t>(d)]; }
    [[nodiscard]] uint64_t wg_dropped(wg::DropReason r) const { return dropped_wg[static_cast<size_t>(r)]; }
};

}  // namespace mesh::dataplane
