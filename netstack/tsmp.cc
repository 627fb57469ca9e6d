// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/tsmp.h"

#include <algorithm>

#include "netstack/checksum.h"

namespace mesh::netstack {

namespace {

constexpr size_t kMinMessage = 7;
constexpr uint8_t kMaybeBroken = 1;

size_t encode_message(const Tsmp& message, uint8_t* o) {
    if (const auto* r = std::get_if<TsmpReject>(&message)) {
        o[0] = '!';
        o[1] = r->proto;
        o[2] = r->reason;
        store_be16(o + 3, r->src_port);
        store_be16(o + 5, r->dst_port);
        o[7] = r->maybe_broken ? kMaybeBroken : 0;
        return r->maybe_broken ? 8 : 7;
    }
    if (const auto* ping = std::get_if<TsmpPing>(&message)) {
        o[0] = 'p';
        std::copy(ping->data.begin(), ping->data.end(), o + 1);
        return 9;
    }
    if (const auto* pong = std::get_if<TsmpPong>(&message)) {
        o[0] = 'o';
        std::copy(pong->data.begin(), pong->data.end(), o + 1);
        store_be16(o + 9, pong->peerapi_port);
        return 11;
    }
    if (const auto* key = std::get_if<TsmpDiscoKey>(&message)) {
        o[0] = 'a';
        std::copy(key->key.raw.begin(), key->key.raw.end(), o + 1);
        return 33;
    }
    return 0;
}

}  // namespace

Tsmp decode_tsmp(ByteSpan b) {
    if (b.size() < kMinMessage) return {};
    switch (b[0]) {
        case '!': {
            TsmpReject r{b[1], b[2], load_be16(b.data() + 3), load_be16(b.data() + 5), false};
            if (b.size() > 7) r.maybe_broken = (b[7] & kMaybeBroken) != 0;
            return r;
        }
        case 'p': {
            if (b.size() < 9) return {};
            TsmpPing ping;
            std::copy_n(b.data() + 1, 8, ping.data.begin());
            return ping;
        }
        case 'o': {
            if (b.size() < 9) return {};
            TsmpPong pong;
            std::copy_n(b.data() + 1, 8, pong.data.begin());
            // Old nodes leave the port out.
            if (b.size() >= 11) pong.peerapi_port = load_be16(b.data() + 9);
            return pong;
        }
        case 'a': {
            if (b.size() < 33) return {};
            return TsmpDiscoKey{DiscoPublic::from(b.subspan(1, 32))};
        }
        default:
            return {};
    }
}

size_t encode_tsmp(const Tsmp& message, const Addr& src, const Addr& dst, MutByteSpan out) {
    const bool v4 = src.is_v4() && dst.is_v4();
    if (!v4 && !(src.is_v6() && dst.is_v6())) return 0;
    if (out.size() < kMaxTsmpPacket) return 0;
    const size_t ip_len = v4 ? 20 : 40;
    uint8_t* ip = out.data();
    std::fill_n(ip, ip_len, uint8_t{0});
    const size_t n = encode_message(message, ip + ip_len);
    if (n == 0) return 0;
    if (v4) {
        ip[0] = 0x45;
        store_be16(ip + 2, static_cast<uint16_t>(ip_len + n));
        ip[8] = 64;
        ip[9] = kProtoTsmp;
        std::copy_n(src.bytes().data(), 4, ip + 12);
        std::copy_n(dst.bytes().data(), 4, ip + 16);
        fix_ipv4_checksum(ip, ip_len);
    } else {
        ip[0] = 0x60;
        store_be16(ip + 4, static_cast<uint16_t>(n));
        ip[6] = kProtoTsmp;
        ip[7] = 64;
        std::copy_n(src.bytes().data(), 16, ip + 8);
        std::copy_n(dst.bytes().data(), 16, ip + 24);
    }
    return ip_len + n;
}

}  // namespace mesh::netstack
