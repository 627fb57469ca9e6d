// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/dataplane/service_tcp.h"

#include <algorithm>

#include "netstack/checksum.h"

namespace mesh::dataplane {

using netstack::Parsed;

namespace {

constexpr uint16_t kFirstPort = 1024;

void set_ends(MutByteSpan packet, const Parsed& p, const Endpoint& src, const Endpoint& dst) {
    uint8_t* ip = packet.data();
    const size_t n = p.version == 4 ? 4 : 16;
    std::copy_n(src.addr.bytes().data(), n, ip + (p.version == 4 ? 12 : 8));
    std::copy_n(dst.addr.bytes().data(), n, ip + (p.version == 4 ? 16 : 24));
    uint8_t* tcp = ip + p.ip_len;
    store_be16(tcp, src.port);
    store_be16(tcp + 2, dst.port);
}

void fix_checksums(MutByteSpan packet, const Parsed& p) {
    uint8_t* tcp = packet.data() + p.ip_len;
    const size_t n = packet.size() - p.ip_len;
    if (p.version == 4) netstack::fix_ipv4_checksum(packet.data(), p.ip_len);
    store_be16(tcp + 16, 0);
    store_be16(tcp + 16, netstack::checksum({tcp, n}, netstack::pseudo_sum(packet.data(), p.version, netstack::kProtoTcp,
                                                                          static_cast<uint32_t>(n))));
}

/// Turns a SYN into the refusal of it (RFC 9293 section 3.10.7.1).
MutByteSpan refuse(MutByteSpan packet, const Parsed& p) {
    constexpr size_t kTcpHeader = 20;
    uint8_t* tcp = packet.data() + p.ip_len;
    const uint32_t seq = load_be32(tcp + 4);
    set_ends(packet, p, {p.dst, p.dst_port}, {p.src, p.src_port});
    const MutByteSpan out = packet.first(p.ip_len + kTcpHeader);
    if (p.version == 4)
        store_be16(packet.data() + 2, static_cast<uint16_t>(out.size()));
    else
        store_be16(packet.data() + 4, static_cast<uint16_t>(out.size() - 40));
    store_be32(tcp + 4, 0);
    store_be32(tcp + 8, seq + 1 + p.payload_len());
    tcp[12] = kTcpHeader / 4 << 4;
    tcp[13] = netstack::kTcpRst | netstack::kTcpAck;
    store_be16(tcp + 14, 0);
    store_be16(tcp + 18, 0);
    fix_checksums(out, p);
    return out;
}

}  // namespace

MutByteSpan ServiceTcp::rewrite(MutByteSpan packet, const Parsed& p, const Addr& self) {
    if (p.proto != netstack::kProtoTcp || p.fragment != netstack::Fragment::kWhole || !self.is_valid() || packet.size() != p.total) return {};
    if (listener_ != 0 && p.src == self && p.src_port == listener_) {
        const auto it = by_port_.find(key(p.dst_port, p.version == 6));
        if (it == by_port_.end()) return {};
        set_ends(packet, p, {p.dst, kDnsPort}, it->second->client);
    } else if (listener_ != 0 && p.dst_port == kDnsPort) {
        const uint16_t port = flow_of({p.src, p.src_port}).port;
        set_ends(packet, p, {p.dst, port}, {self, listener_});
    } else {
        return p.is_tcp_syn() ? refuse(packet, p) : MutByteSpan{};
    }
    fix_checksums(packet, p);
    return packet;
}

ServiceTcp::Flow& ServiceTcp::flow_of(const Endpoint& client) {
    if (const auto it = by_client_.find(client); it != by_client_.end()) {
        flows_.splice(flows_.begin(), flows_, it->second);
        return flows_.front();
    }
    const bool v6 = client.addr.is_v6();
    if (flows_.size() >= kMaxFlows) {
        const Flow& old = flows_.back();
        by_port_.erase(key(old.port, old.client.addr.is_v6()));
        by_client_.erase(old.client);
        flows_.pop_back();
    }
    uint16_t port = std::max(client.port, kFirstPort);
    // At most kMaxFlows ports are taken, so this ends.
    while (by_port_.contains(key(port, v6))) port = port == 0xFFFF ? kFirstPort : static_cast<uint16_t>(port + 1);
    flows_.push_front({client, port});
    by_client_.emplace(client, flows_.begin());
    by_port_.emplace(key(port, v6), flows_.begin());
    return flows_.front();
}

}  // namespace mesh::dataplane
