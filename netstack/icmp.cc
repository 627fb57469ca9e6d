// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/icmp.h"

#include <algorithm>

#include "netstack/checksum.h"

namespace mesh::netstack {

namespace {

constexpr uint8_t kHops = 64;

void fix_icmp_checksum(MutByteSpan packet, uint8_t version, size_t ip_len) {
    uint8_t* l4 = packet.data() + ip_len;
    const size_t n = packet.size() - ip_len;
    store_be16(l4 + 2, 0);
    const Sum pseudo = version == 4 ? 0 : pseudo_sum(packet.data(), 6, kProtoIcmp6, static_cast<uint32_t>(n));
    store_be16(l4 + 2, checksum({l4, n}, pseudo));
}

}  // namespace

void make_echo_reply(MutByteSpan packet, const Parsed& p) {
    uint8_t* ip = packet.data();
    if (p.version == 4) {
        std::swap_ranges(ip + 12, ip + 16, ip + 16);
        ip[8] = kHops;
        fix_ipv4_checksum(ip, p.ip_len);
        ip[p.ip_len] = 0;
    } else {
        std::swap_ranges(ip + 8, ip + 24, ip + 24);
        ip[7] = kHops;
        ip[p.ip_len] = 129;
    }
    fix_icmp_checksum(packet, p.version, p.ip_len);
}

uint32_t echo_id_seq(ByteSpan packet, const Parsed& p) {
    if (packet.size() < p.ip_len + 8U) return 0;
    return load_be32(packet.data() + p.ip_len + 4);
}

size_t build_echo_request(const Addr& src, const Addr& dst, uint32_t id_seq, MutByteSpan out) {
    const bool v4 = src.is_v4() && dst.is_v4();
    if (!v4 && !(src.is_v6() && dst.is_v6())) return 0;
    const size_t ip_len = v4 ? 20 : 40;
    const size_t len = ip_len + 8;
    if (out.size() < len) return 0;
    uint8_t* ip = out.data();
    std::fill_n(ip, len, uint8_t{0});
    if (v4) {
        ip[0] = 0x45;
        store_be16(ip + 2, static_cast<uint16_t>(len));
        ip[8] = kHops;
        ip[9] = kProtoIcmp4;
        std::copy_n(src.bytes().data(), 4, ip + 12);
        std::copy_n(dst.bytes().data(), 4, ip + 16);
        fix_ipv4_checksum(ip, ip_len);
        ip[ip_len] = 8;
    } else {
        ip[0] = 0x60;
        store_be16(ip + 4, 8);
        ip[6] = kProtoIcmp6;
        ip[7] = kHops;
        std::copy_n(src.bytes().data(), 16, ip + 8);
        std::copy_n(dst.bytes().data(), 16, ip + 24);
        ip[ip_len] = 128;
    }
    store_be32(ip + ip_len + 4, id_seq);
    fix_icmp_checksum(out.first(len), v4 ? 4 : 6, ip_len);
    return len;
}

}  // namespace mesh::netstack
