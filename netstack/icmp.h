// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// ICMP and ICMPv6 echo (RFC 792, RFC 4443): answering for the service address, and pings of our own through the tunnel.

#include "netstack/packet.h"

namespace mesh::netstack {

/// Turns an echo request into its reply in place, all checksums recomputed. `p.is_echo_request()` must hold and
/// `packet` be p.total bytes, unfragmented.
void make_echo_reply(MutByteSpan packet, const Parsed& p);
/// Identifier and sequence number of an echo message as one number; 0 if the packet is too short.
[[nodiscard]] uint32_t echo_id_seq(ByteSpan packet, const Parsed& p);
/// Writes an echo request without payload. Returns its length, 0 if `out` is too small or the families differ.
[[nodiscard]] size_t build_echo_request(const Addr& src, const Addr& dst, uint32_t id_seq, MutByteSpan out);

}  // namespace mesh::netstack
