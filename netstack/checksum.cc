// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/checksum.h"

namespace mesh::netstack {

namespace {

// What the vector registers of every target hold.
using Pair __attribute__((vector_size(16))) = uint64_t;
constexpr size_t kWide = 4 * sizeof(Pair);

/// `n` is a multiple of kWide. Halves of words in separate 64-bit accumulators cannot overflow within 2^32 bytes, so there
/// are no carries.
Sum sum_wide(const uint8_t* p, size_t n, Sum s) {
    Pair low0 = {}, low1 = {}, high0 = {}, high1 = {};
    for (const uint8_t* const end = p + n; p != end; p += kWide) {
        Pair v[4];
        std::memcpy(v, p, kWide);
        low0 += v[0] & 0xFFFFFFFFU;
        high0 += v[0] >> 32;
        low1 += v[1] & 0xFFFFFFFFU;
        high1 += v[1] >> 32;
        low0 += v[2] & 0xFFFFFFFFU;
        high0 += v[2] >> 32;
        low1 += v[3] & 0xFFFFFFFFU;
        high1 += v[3] >> 32;
    }
    low0 += low1 + high0 + high1;
    return sum_add(sum_add(s, low0[0]), low0[1]);
}

uint64_t load64(const uint8_t* p) {
    uint64_t v;
    std::memcpy(&v, p, 8);
    return v;
}

uint16_t swap_if_little(uint16_t v) {
    if constexpr (std::endian::native == std::endian::little) return static_cast<uint16_t>((v << 8) | (v >> 8));
    return v;
}

}  // namespace

Sum sum_bytes(ByteSpan b, Sum start) {
    const uint8_t* p = b.data();
    size_t n = b.size();
    Sum s = start;
    if (const size_t wide = n - n % kWide; wide > 0) {
        s = sum_wide(p, wide, s);
        p += wide;
        n -= wide;
    }
    for (; n >= 8; p += 8, n -= 8) s = sum_add(s, load64(p));
    if (n > 0) {
        uint8_t tail[8] = {};
        std::memcpy(tail, p, n);
        s = sum_add(s, load64(tail));
    }
    return s;
}

uint16_t sum_fold(Sum s) {
    s = (s & 0xFFFFFFFFU) + (s >> 32);
    s = (s & 0xFFFFFFFFU) + (s >> 32);
    s = (s & 0xFFFFU) + (s >> 16);
    s = (s & 0xFFFFU) + (s >> 16);
    return swap_if_little(static_cast<uint16_t>(s));
}

Sum pseudo_sum(const uint8_t* ip, uint8_t version, uint8_t proto, uint32_t l4_bytes) {
    Sum s = version == 4 ? sum_bytes({ip + 12, 8}) : sum_bytes({ip + 8, 32});
    s = sum_be16(s, proto);
    s = sum_be16(s, static_cast<uint16_t>(l4_bytes >> 16));
    return sum_be16(s, static_cast<uint16_t>(l4_bytes));
}

void fix_ipv4_checksum(uint8_t* ip, size_t ip_len) {
    store_be16(ip + 10, 0);
    store_be16(ip + 10, checksum({ip, ip_len}));
}

bool l4_checksum_ok(ByteSpan packet, uint8_t version, size_t ip_len, uint8_t proto) {
    if (packet.size() < ip_len + 8) return false;
    const ByteSpan l4 = packet.subspan(ip_len);
    if (proto == 17 && load_be16(l4.data() + 6) == 0) return false;
    const Sum pseudo = pseudo_sum(packet.data(), version, proto, static_cast<uint32_t>(l4.size()));
    return sum_fold(sum_bytes(l4, pseudo)) == 0xFFFF;
}

}  // namespace mesh::netstack
