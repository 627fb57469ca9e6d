// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/via6.h"

#include <algorithm>
#include <cstring>

#include "netstack/checksum.h"

namespace mesh::netstack {
namespace {

constexpr size_t kV4 = 20, kV6 = 40;
constexpr uint8_t kEcho4 = 8, kEchoReply4 = 0, kEcho6 = 128, kEchoReply6 = 129;
constexpr uint8_t kUnreachable4 = 3, kTimeExceeded4 = 11, kUnreachable6 = 1, kTooBig6 = 2, kTimeExceeded6 = 3;
constexpr uint32_t kMinMtu6 = 1280;
constexpr size_t kMaxErrorBody = kMinMtu6 - kV6 - 8;

const Prefix& via6_range() {
    static const Prefix p = *Prefix::parse("fd7a:115c:a1e0:b1a::/64");
    return p;
}

/// Targets that a packet from the network must not reach on this host or its links.
bool forbidden(const Addr& a) {
    return a.is_loopback() || a.is_multicast() || a.is_unspecified() || a.is_link_local() || is_tailscale_range(a) ||
           a.v4_host_order() == 0xFFFFFFFFU;
}

/// RFC 1624: a checksum after `old_sum` was replaced by `new_sum` in what it covers.
uint16_t update(uint16_t field, uint16_t old_sum, uint16_t new_sum) {
    Sum s = sum_be16(0, static_cast<uint16_t>(~field));
    s = sum_be16(s, static_cast<uint16_t>(~old_sum));
    s = sum_be16(s, new_sum);
    return static_cast<uint16_t>(~sum_fold(s));
}

size_t checksum_at(uint8_t proto) { return proto == kProtoTcp ? 16 : proto == kProtoUdp ? 6 : 2; }

void write_v4_header(uint8_t* ip, uint8_t tos, size_t total, uint8_t ttl, uint8_t proto, const Addr& src, const Addr& dst) {
    ip[0] = 0x45;
    ip[1] = tos;
    store_be16(ip + 2, static_cast<uint16_t>(total));
    store_be32(ip + 4, 0x4000);  // id 0, DF: IPv6 is not cut on its way either
    ip[8] = ttl;
    ip[9] = proto;
    std::memcpy(ip + 12, src.bytes().data(), 4);
    std::memcpy(ip + 16, dst.bytes().data(), 4);
    fix_ipv4_checksum(ip, kV4);
}

void write_v6_header(uint8_t* ip, uint8_t tos, size_t payload, uint8_t hops, uint8_t proto, const Addr& src, const Addr& dst) {
    store_be32(ip, 0x60000000U | uint32_t{tos} << 20);
    store_be16(ip + 4, static_cast<uint16_t>(payload));
    ip[6] = proto;
    ip[7] = hops;
    std::memcpy(ip + 8, src.bytes().data(), 16);
    std::memcpy(ip + 24, dst.bytes().data(), 16);
}

void fix_icmp6(uint8_t* ip, size_t l4_bytes) {
    store_be16(ip + kV6 + 2, 0);
    store_be16(ip + kV6 + 2,
               checksum({ip + kV6, l4_bytes}, pseudo_sum(ip, 6, kProtoIcmp6, static_cast<uint32_t>(l4_bytes))));
}

/// Type and code of RFC 7915, 4.2; type 0: not to be told. `info` is the second word.
struct Icmp6 {
    uint8_t type = 0, code = 0;
    uint32_t info = 0;
};
Icmp6 icmp6_of(const uint8_t* icmp) {
    const uint8_t code = icmp[1];
    if (icmp[0] == kTimeExceeded4) return {kTimeExceeded6, code, 0};
    if (icmp[0] != kUnreachable4) return {};
    if (code == 4) return {kTooBig6, 0, std::max(kMinMtu6, uint32_t{load_be16(icmp + 6)} + 20)};
    if (code == 3) return {kUnreachable6, 4, 0};
    if (code == 9 || code == 10 || code == 13) return {kUnreachable6, 1, 0};
    return {kUnreachable6, 0, 0};
}

}  // namespace

bool is_via6(const Prefix& p) {
    return p.is_valid() && p.addr.is_v6() && p.len >= 96 && via6_range().contains(p.addr);
}

Prefix via6_target(const Prefix& p) {
    return {Addr::v4_bytes(p.addr.bytes().data() + 12), static_cast<uint8_t>(p.len - 96)};
}

void Via6::set_routes(std::vector<Prefix> routes) {
    routes_ = std::move(routes);
    if (active() && flows_.empty()) flows_.resize(kFlows);
}

bool Via6::matches(const Addr& dst) const {
    return std::any_of(routes_.begin(), routes_.end(), [&](const Prefix& p) { return p.contains(dst); });
}

size_t Via6::bucket(const Key& k) const {
    uint64_t h = seed_;
    const auto mix = [&](uint64_t v) {
        h = (h ^ v) * 0x9E3779B97F4A7C15ULL;
        h ^= h >> 29;
    };
    mix(uint64_t{k.client} << 32 | k.target);
    mix(uint64_t{k.client_port} << 32 | uint64_t{k.target_port} << 16 | k.proto);
    return static_cast<size_t>(h % (kFlows / kWays)) * kWays;
}

const Via6::Flow* Via6::find(const Key& key) const {
    if (flows_.empty()) return nullptr;
    const Flow* first = flows_.data() + bucket(key);
    for (size_t i = 0; i < kWays; ++i)
        if (!first[i].used.is_zero() && first[i].key == key) return first + i;
    return nullptr;
}

bool Via6::remember(const Key& key, const Parsed& p, Time now) {
    Flow* first = flows_.data() + bucket(key);
    Flow* place = first;
    for (size_t i = 0; i < kWays; ++i) {
        Flow& f = first[i];
        if (!f.used.is_zero() && f.key == key) {
            if (f.target6 != p.dst && now - f.used < kIdle) return false;
            place = &f;
            break;
        }
        if (f.used < place->used) place = &f;
    }
    *place = {key, p.src, p.dst, now};
    return true;
}

MutByteSpan Via6::to_v4(MutByteSpan packet, const Parsed& p, const Addr& client, Time now) {
    if (p.fragment != Fragment::kWhole || p.ip_len != kV6 || !client.is_v4()) return {};
    const Addr target = Addr::v4_bytes(p.dst.bytes().data() + 12);
    if (forbidden(target)) return {};
    uint8_t* const l4 = packet.data() + kV6;
    const size_t l4_bytes = packet.size() - kV6;
    Key key{client.v4_host_order(), target.v4_host_order(), p.src_port, p.dst_port, p.proto};
    if (p.proto == kProtoIcmp6) {
        if (p.icmp_type != kEcho6 || l4_bytes < 8) return {};
        key.client_port = load_be16(l4 + 4);
        key.proto = kProtoIcmp4;
    } else if (p.proto != kProtoTcp && p.proto != kProtoUdp) {
        return {};
    }
    if (!remember(key, p, now)) return {};

    const auto bytes32 = static_cast<uint32_t>(l4_bytes);
    const uint16_t old_sum = sum_fold(pseudo_sum(packet.data(), 6, p.proto, bytes32));
    const auto tos = static_cast<uint8_t>(load_be16(packet.data()) >> 4);
    const uint8_t hops = packet[7];
    uint8_t* const ip = packet.data() + kV6 - kV4;
    write_v4_header(ip, tos, kV4 + l4_bytes, hops, key.proto, client, target);
    uint8_t* const field = l4 + checksum_at(p.proto);
    if (p.proto == kProtoIcmp6) {
        l4[0] = kEcho4;
        // No pseudo header in ICMP of IPv4; the type changes too.
        const uint16_t sum = update(load_be16(field), old_sum, 0);
        store_be16(field, update(sum, uint16_t{kEcho6} << 8, uint16_t{kEcho4} << 8));
    } else {
        uint16_t sum = update(load_be16(field), old_sum, sum_fold(pseudo_sum(ip, 4, p.proto, bytes32)));
        if (p.proto == kProtoUdp && sum == 0) sum = 0xFFFF;
        store_be16(field, sum);
    }
    return packet.subspan(kV6 - kV4);
}

/// The flow that an IPv4 packet of the target's side belongs to.
bool Via6::answer_key(ByteSpan bytes, const Parsed& p, Key& key) {
    if (p.version != 4) return false;
    if (p.proto == kProtoTcp || p.proto == kProtoUdp) {
        key = {p.dst.v4_host_order(), p.src.v4_host_order(), p.dst_port, p.src_port, p.proto};
        return true;
    }
    if (p.proto != kProtoIcmp4 || bytes.size() < p.ip_len + 8U) return false;
    const ByteSpan icmp = bytes.subspan(p.ip_len);
    if (p.icmp_type == kEchoReply4) {
        key = {p.dst.v4_host_order(), p.src.v4_host_order(), load_be16(icmp.data() + 4), 0, kProtoIcmp4};
        return true;
    }
    // An error tells of a packet that went from the client to the target.
    if (icmp6_of(icmp.data()).type == 0 || icmp.size() < 8 + kV4 + 8) return false;
    const uint8_t* inner = icmp.data() + 8;
    const size_t inner_ip = size_t{inner[0] & 0x0FU} * 4;
    if (inner[0] >> 4 != 4 || inner_ip < kV4 || icmp.size() < 8 + inner_ip + 8) return false;
    const uint8_t* l4 = inner + inner_ip;
    const uint8_t proto = inner[9];
    key = {load_be32(inner + 12), load_be32(inner + 16), load_be16(l4), load_be16(l4 + 2), proto};
    if (proto == kProtoIcmp4) {
        if (l4[0] != kEcho4) return false;
        key.client_port = load_be16(l4 + 4);
        key.target_port = 0;
    } else if (proto != kProtoTcp && proto != kProtoUdp) {
        return false;
    }
    return key.client == p.dst.v4_host_order();
}

bool Via6::is_answer(ByteSpan bytes, const Parsed& p) const {
    Key key;
    return answer_key(bytes, p, key) && find(key) != nullptr;
}

size_t Via6::to_v6(ByteSpan packet, const Parsed& p, MutByteSpan out, Time now) {
    Key key;
    if (p.fragment != Fragment::kWhole || !answer_key(packet, p, key)) return 0;
    const Flow* found = find(key);
    if (found == nullptr) return 0;
    Flow& flow = flows_[static_cast<size_t>(found - flows_.data())];
    flow.used = now;
    const ByteSpan l4 = packet.subspan(p.ip_len);
    uint8_t* const ip = out.data();
    uint8_t* const to = ip + kV6;
    const uint8_t tos = packet[1];
    const uint8_t hops = packet[8];
    if (out.size() < kV6 + l4.size() + (kV6 - kV4)) return 0;

    if (p.proto != kProtoIcmp4) {
        std::memcpy(to, l4.data(), l4.size());
        write_v6_header(ip, tos, l4.size(), hops, p.proto, flow.target6, flow.client6);
        const auto bytes32 = static_cast<uint32_t>(l4.size());
        const Sum pseudo = pseudo_sum(ip, 6, p.proto, bytes32);
        uint8_t* const field = to + checksum_at(p.proto);
        uint16_t sum = load_be16(field);
        // IPv4 may leave it out, IPv6 may not.
        sum = p.proto == kProtoUdp && sum == 0
                  ? checksum({to, l4.size()}, pseudo)
                  : update(sum, sum_fold(pseudo_sum(packet.data(), 4, p.proto, bytes32)), sum_fold(pseudo));
        if (p.proto == kProtoUdp && sum == 0) sum = 0xFFFF;
        store_be16(field, sum);
        return kV6 + l4.size();
    }
    if (p.icmp_type == kEchoReply4) {
        std::memcpy(to, l4.data(), l4.size());
        to[0] = kEchoReply6;
        write_v6_header(ip, tos, l4.size(), hops, kProtoIcmp6, flow.target6, flow.client6);
        const uint16_t sum = update(load_be16(to + 2), uint16_t{kEchoReply4} << 8, uint16_t{kEchoReply6} << 8);
        store_be16(to + 2, update(sum, 0, sum_fold(pseudo_sum(ip, 6, kProtoIcmp6, static_cast<uint32_t>(l4.size())))));
        return kV6 + l4.size();
    }

    // An error: the packet that it quotes is translated as well. Its source is shown as the target, who else it may be has
    // no address on the other side.
    const Icmp6 kind = icmp6_of(l4.data());
    const uint8_t* inner = l4.data() + 8;
    const size_t inner_ip = size_t{inner[0] & 0x0FU} * 4;
    const size_t quoted = std::min(l4.size() - 8 - inner_ip, kMaxErrorBody - kV6);
    const size_t body = 8 + kV6 + quoted;
    to[0] = kind.type;
    to[1] = kind.code;
    store_be32(to + 4, kind.info);
    uint8_t* const copy = to + 8;
    std::memcpy(copy + kV6, inner + inner_ip, quoted);
    const uint8_t proto = inner[9] == kProtoIcmp4 ? kProtoIcmp6 : inner[9];
    if (proto == kProtoIcmp6) copy[kV6] = kEcho6;
    const size_t inner_payload = load_be16(inner + 2) - std::min<size_t>(inner_ip, load_be16(inner + 2));
    write_v6_header(copy, inner[1], inner_payload, inner[8], proto, flow.client6, flow.target6);
    write_v6_header(ip, tos, body, hops, kProtoIcmp6, flow.target6, flow.client6);
    fix_icmp6(ip, body);
    return kV6 + body;
}

}  // namespace mesh::netstack
