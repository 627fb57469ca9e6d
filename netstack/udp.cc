// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/udp.h"

#include <algorithm>

#include "netstack/checksum.h"
#include "netstack/packet.h"

namespace mesh::netstack {

Bytes build_udp(const Endpoint& src, const Endpoint& dst, ByteSpan payload) {
    constexpr uint8_t kHops = 64;
    const bool v4 = src.addr.is_v4() && dst.addr.is_v4();
    if (!v4 && !(src.addr.is_v6() && dst.addr.is_v6())) return {};
    const size_t ip_len = v4 ? 20 : 40, udp_len = 8 + payload.size(), total = ip_len + udp_len;
    if (total > 65'535) return {};
    Bytes out(total);
    uint8_t* ip = out.data();
    const size_t addr_len = v4 ? 4 : 16;
    if (v4) {
        ip[0] = 0x45;
        store_be16(ip + 2, static_cast<uint16_t>(total));
        ip[8] = kHops;
        ip[9] = kProtoUdp;
    } else {
        ip[0] = 0x60;
        store_be16(ip + 4, static_cast<uint16_t>(udp_len));
        ip[6] = kProtoUdp;
        ip[7] = kHops;
    }
    std::copy_n(src.addr.bytes().data(), addr_len, ip + (v4 ? 12 : 8));
    std::copy_n(dst.addr.bytes().data(), addr_len, ip + (v4 ? 16 : 24));
    if (v4) fix_ipv4_checksum(ip, ip_len);
    uint8_t* udp = ip + ip_len;
    store_be16(udp, src.port);
    store_be16(udp + 2, dst.port);
    store_be16(udp + 4, static_cast<uint16_t>(udp_len));
    std::copy(payload.begin(), payload.end(), udp + 8);
    const uint16_t sum = checksum({udp, udp_len}, pseudo_sum(ip, v4 ? 4 : 6, kProtoUdp, static_cast<uint32_t>(udp_len)));
    store_be16(udp + 6, sum == 0 ? 0xFFFF : sum);  // zero means "none" (RFC 768)
    return out;
}

}  // namespace mesh::netstack
