// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/user/tcp_packets.h"

#include <cstring>

#include "netstack/checksum.h"
#include "netstack/packet.h"

namespace mesh::netstack {

void finish_tcp(uint8_t* at, const Endpoint& src, const Endpoint& dst, size_t l4) {
    const bool v4 = src.addr.is_v4();
    const size_t ip_len = v4 ? kV4 : kV6;
    std::memset(at, 0, ip_len);
    if (v4) {
        at[0] = 0x45;
        store_be16(at + 2, static_cast<uint16_t>(kV4 + l4));
        at[6] = 0x40;  // do not fragment
        at[8] = 64;
        at[9] = kProtoTcp;
    } else {
        at[0] = 0x60;
        store_be16(at + 4, static_cast<uint16_t>(l4));
        at[6] = kProtoTcp;
        at[7] = 64;
    }
    const size_t n = src.addr.bytes().size();
    std::memcpy(at + ip_len - 2 * n, src.addr.bytes().data(), n);
    std::memcpy(at + ip_len - n, dst.addr.bytes().data(), n);
    if (v4) fix_ipv4_checksum(at, kV4);
    uint8_t* t = at + ip_len;
    store_be16(t, src.port);
    store_be16(t + 2, dst.port);
    store_be16(t + 16, 0);
    store_be16(t + 16, checksum({t, l4}, pseudo_sum(at, v4 ? 4 : 6, kProtoTcp, static_cast<uint32_t>(l4))));
}

bool tcp_options_ok(ByteSpan header) {
    for (size_t at = kTcpHeader; at < header.size();) {
        if (header[at] == 0) return true;  // the end of the list
        const size_t length = header[at] == 1 ? 1 : at + 1 < header.size() ? header[at + 1] : 0;
        if (length == 0 || (length == 1 && header[at] != 1) || at + length > header.size()) return false;
        at += length;
    }
    return true;
}

size_t build_reset(ByteSpan packet, MutByteSpan out) {
    Parsed p;
    if (!parse(packet, p) || (p.tcp_flags & kTcpRst) != 0) return 0;
    const uint8_t* t = packet.data() + p.ip_len;
    const size_t ip_len = p.version == 4 ? kV4 : kV6;
    uint8_t* r = out.data() + ip_len;
    std::memset(r, 0, kTcpHeader);
    r[12] = 0x50;
    if ((p.tcp_flags & kTcpAck) != 0) {
        std::memcpy(r + 4, t + 8, 4);
        r[13] = kTcpRst;
    } else {
        const uint32_t length = p.payload_len() + ((p.tcp_flags & kTcpSyn) != 0 ? 1 : 0) + ((p.tcp_flags & kTcpFin) != 0 ? 1 : 0);
        store_be32(r + 8, load_be32(t + 4) + length);
        r[13] = kTcpRst | kTcpAck;
    }
    finish_tcp(out.data(), {p.dst, p.dst_port}, {p.src, p.src_port}, kTcpHeader);
    return ip_len + kTcpHeader;
}

}  // namespace mesh::netstack
