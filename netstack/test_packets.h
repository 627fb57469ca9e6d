// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Packets for tests: built plainly, byte by byte, with checksums from a loop that has nothing in common with
/// checksum.cc.

#include <string_view>

#include "base/bytes.h"
#include "base/ip.h"
#include "netstack/packet.h"

namespace mesh::netstack::test {

inline uint16_t naive_checksum(ByteSpan b, uint32_t start = 0) {
    uint64_t s = start;
    for (size_t i = 0; i < b.size(); ++i) s += i % 2 == 0 ? uint64_t{b[i]} << 8 : uint64_t{b[i]};
    while ((s >> 16) != 0) s = (s & 0xFFFF) + (s >> 16);
    return static_cast<uint16_t>(~s);
}

inline uint16_t naive_l4_checksum(ByteSpan packet, size_t ip_len, uint8_t proto) {
    const bool v4 = packet[0] >> 4 == 4;
    const ByteSpan l4 = packet.subspan(ip_len);
    Bytes all(packet.begin() + (v4 ? 12 : 8), packet.begin() + (v4 ? 20 : 40));
    for (int shift = 24; shift >= 0; shift -= 8) all.push_back(static_cast<uint8_t>(l4.size() >> shift));
    for (const uint8_t b : {uint8_t{0}, uint8_t{0}, uint8_t{0}, proto}) all.push_back(b);
    all.insert(all.end(), l4.begin(), l4.end());
    return naive_checksum(all);
}

/// What a packet shall look like; everything has a sensible default.
struct Spec {
    std::string_view src = "100.64.0.2", dst = "100.64.0.1";
    uint8_t proto = kProtoTcp;
    uint16_t sport = 40000, dport = 80;
    Bytes payload = {};
    // IP
    uint8_t tos = 0, ttl = 64;
    uint16_t id = 7;
    bool df = true, mf = false;
    uint16_t fragment_offset = 0;  // in 8-byte blocks
    Bytes ip_options = {};              // IPv4, multiple of 4
    // TCP
    uint32_t seq = 1000, ack = 5000;
    uint8_t flags = kTcpAck;
    uint16_t window = 501;
    Bytes tcp_options = {};  // multiple of 4
    // ICMP
    uint8_t icmp_type = 8, icmp_code = 0;
    // Corruption
    bool bad_checksum = false;
};

inline Bytes bytes_of_length(size_t n, uint8_t first = 1) {
    Bytes b(n);
    for (size_t i = 0; i < n; ++i) b[i] = static_cast<uint8_t>(first + i * 7);
    return b;
}

inline Bytes build(const Spec& s) {
    const Addr src = *Addr::parse(s.src), dst = *Addr::parse(s.dst);
    Bytes l4;
    WireWriter w(l4);
    size_t field = SIZE_MAX;
    if (s.proto == kProtoTcp) {
        w.be16(s.sport);
        w.be16(s.dport);
        w.be32(s.seq);
        w.be32(s.ack);
        w.u8(static_cast<uint8_t>((20 + s.tcp_options.size()) / 4 * 16));
        w.u8(s.flags);
        w.be16(s.window);
        w.be32(0);
        w.bytes(s.tcp_options);
        field = 16;
    } else if (s.proto == kProtoUdp) {
        w.be16(s.sport);
        w.be16(s.dport);
        w.be16(static_cast<uint16_t>(8 + s.payload.size()));
        w.be16(0);
        field = 6;
    } else if (s.proto == kProtoSctp) {
        w.be16(s.sport);
        w.be16(s.dport);
        w.zeros(8);
    } else if (s.proto == kProtoIcmp4 || s.proto == kProtoIcmp6) {
        w.u8(s.icmp_type);
        w.u8(s.icmp_code);
        w.be16(0);
        w.be32(0x12340001);
        field = 2;
    }
    w.bytes(s.payload);

    Bytes out;
    WireWriter ip(out);
    const size_t ip_len = src.is_v4() ? 20 + s.ip_options.size() : 40;
    if (src.is_v4()) {
        ip.u8(static_cast<uint8_t>(0x40 | (ip_len / 4)));
        ip.u8(s.tos);
        ip.be16(static_cast<uint16_t>(ip_len + l4.size()));
        ip.be16(s.id);
        ip.be16(static_cast<uint16_t>((s.df ? 0x4000 : 0) | (s.mf ? 0x2000 : 0) | s.fragment_offset));
        ip.u8(s.ttl);
        ip.u8(s.proto);
        ip.be16(0);
        ip.bytes(src.bytes());
        ip.bytes(dst.bytes());
        ip.bytes(s.ip_options);
        store_be16(out.data() + 10, naive_checksum(ByteSpan(out).first(ip_len)));
    } else {
        ip.be32(0x60000000U | uint32_t{s.tos} << 20);
        ip.be16(static_cast<uint16_t>(l4.size()));
        ip.u8(s.proto);
        ip.u8(s.ttl);
        ip.bytes(src.bytes());
        ip.bytes(dst.bytes());
    }
    ip.bytes(l4);
    if (field != SIZE_MAX) {
        uint16_t sum = s.proto == kProtoIcmp4 ? naive_checksum(ByteSpan(out).subspan(ip_len))
                                               : naive_l4_checksum(out, ip_len, s.proto);
        if (s.proto == kProtoUdp && sum == 0) sum = 0xFFFF;
        if (s.bad_checksum) sum = static_cast<uint16_t>(sum ^ 0x0101);
        store_be16(out.data() + ip_len + field, sum);
    }
    return out;
}

inline Spec tcp6() { return {.src = "fd7a:115c:a1e0::2", .dst = "fd7a:115c:a1e0::1"}; }

inline Parsed parsed(ByteSpan b) {
    Parsed p;
    if (!parse(b, p)) p.version = 0;
    return p;
}

}  // namespace mesh::netstack::test
