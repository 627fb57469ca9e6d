// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// One look at an IP packet, shared by everything behind it: routing, filter, segmentation, coalescing, TSMP.

#include <cstdint>

#include "base/bytes.h"
#include "base/ip.h"

namespace mesh::netstack {

inline constexpr uint8_t kProtoUnknown = 0;  ///< also what an undecodable transport header becomes
inline constexpr uint8_t kProtoIcmp4 = 1;
inline constexpr uint8_t kProtoIgmp = 2;
inline constexpr uint8_t kProtoTcp = 6;
inline constexpr uint8_t kProtoUdp = 17;
inline constexpr uint8_t kProtoFragment6 = 44;
inline constexpr uint8_t kProtoIcmp6 = 58;
inline constexpr uint8_t kProtoTsmp = 99;  ///< messages between nodes inside the tunnel, see tsmp.h
inline constexpr uint8_t kProtoSctp = 132;

inline constexpr uint8_t kTcpFin = 0x01, kTcpSyn = 0x02, kTcpRst = 0x04, kTcpPsh = 0x08, kTcpAck = 0x10;

enum class Fragment : uint8_t { kWhole, kFirst, kLater };

/// Flat view of a packet; offsets count from its first byte.
struct Parsed {
    uint8_t version = 0;  ///< 4 or 6
    uint8_t proto = kProtoUnknown;
    Fragment fragment = Fragment::kWhole;
    uint8_t tcp_flags = 0;
    uint8_t icmp_type = 0;
    uint8_t icmp_code = 0;
    uint8_t ip_len = 0;     ///< IP header: 20..60 (IPv4), 40 or 48 (IPv6, with a Fragment header)
    uint8_t l4_len = 0;     ///< transport header: TCP 20..60, UDP 8, SCTP 12, ICMP 4, else 0
    uint32_t total = 0;     ///< length by the IP header, ≤ the bytes given
    uint16_t src_port = 0;  ///< TCP, UDP, SCTP; 0 otherwise
    uint16_t dst_port = 0;
    Addr src, dst;

    [[nodiscard]] uint32_t header_len() const { return uint32_t{ip_len} + l4_len; }
    [[nodiscard]] uint32_t payload_len() const { return total - header_len(); }
    [[nodiscard]] bool is_tcp_syn() const {
        return proto == kProtoTcp && (tcp_flags & (kTcpSyn | kTcpAck)) == kTcpSyn;
    }
    [[nodiscard]] bool is_echo_request() const;
    [[nodiscard]] bool is_echo_reply() const;
    [[nodiscard]] bool is_icmp_error() const;
};

/// False: no IP packet, or its length fields exceed the bytes (RFC 791, RFC 8200). True with proto = kProtoUnknown: the
/// IP header is good but what follows is not understood: a cut-off transport header, a first fragment without its whole
/// transport header, a later fragment that starts below 80 bytes (it could overwrite headers), or an IPv6 extension
/// header other than one directly following Fragment header.
[[nodiscard]] bool parse(ByteSpan bytes, Parsed& out);

}  // namespace mesh::netstack
