// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Internet checksum (RFC 1071), eight bytes at a time: one's complement sums may be taken in any word size and in the
/// machine's byte order, and folded at the end.

#include <bit>
#include <cstdint>

#include "base/bytes.h"

namespace mesh::netstack {

/// A running sum in machine byte order. Every piece but the last must have even length.
using Sum = uint64_t;

[[nodiscard]] inline Sum sum_add(Sum a, uint64_t b) {
    a += b;
    return a + (a < b ? 1 : 0);
}
/// Adds a value that stands in a packet as 16 bits in network order.
[[nodiscard]] inline Sum sum_be16(Sum a, uint16_t v) {
    if constexpr (std::endian::native == std::endian::little) v = static_cast<uint16_t>((v << 8) | (v >> 8));
    return sum_add(a, v);
}
[[nodiscard]] Sum sum_bytes(ByteSpan b, Sum start = 0);
/// 16-bit one's complement sum, ready for store_be16; the checksum field is its complement.
[[nodiscard]] uint16_t sum_fold(Sum s);
/// Pseudo header of TCP, UDP and ICMPv6: addresses from an IP header, protocol, transport length.
[[nodiscard]] Sum pseudo_sum(const uint8_t* ip, uint8_t version, uint8_t proto, uint32_t l4_bytes);
/// Checksum field value of `b` when its field holds zero.
[[nodiscard]] inline uint16_t checksum(ByteSpan b, Sum start = 0) {
    return static_cast<uint16_t>(~sum_fold(sum_bytes(b, start)));
}
/// Recomputes the header checksum of an IPv4 header of `ip_len` bytes.
void fix_ipv4_checksum(uint8_t* ip, size_t ip_len);
/// True if the TCP or UDP checksum of a whole packet is right. A UDP checksum of zero counts as wrong here: it protects nothing.
[[nodiscard]] bool l4_checksum_ok(ByteSpan packet, uint8_t version, size_t ip_len, uint8_t proto);

}  // namespace mesh::netstack
