// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// TCP packets as the user stack sends them.

#include "base/bytes.h"
#include "base/ip.h"

namespace mesh::netstack {

inline constexpr size_t kV4 = 20, kV6 = 40;  ///< IP headers
inline constexpr size_t kTcpHeader = 20;

/// `at`: room for an IP header of that family, then a TCP segment of `l4` bytes. Writes the IP header, the ports and the checksums.
void finish_tcp(uint8_t* at, const Endpoint& src, const Endpoint& dst, size_t l4);
/// `header`: a whole TCP header. Does each option lie in it, with its length? lwIP reads on behind one that does not.
[[nodiscard]] bool tcp_options_ok(ByteSpan header);
/// The answer to a segment of no connection (RFC 9293 section 3.10.7.1). Returns its length; 0: none is due. `out`: kV6 + kTcpHeader.
[[nodiscard]] size_t build_reset(ByteSpan packet, MutByteSpan out);

}  // namespace mesh::netstack
