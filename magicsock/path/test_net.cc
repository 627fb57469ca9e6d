// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/path/test_net.h"

#include <fmt/format.h>

namespace mesh::magicsock::test {

// Node 3 with NAT: 192.168.3.10:41641 behind 203.0.113.3; without: 203.0.113.3:41641.
TestNode::TestNode(TestNet& n, int i, NatKind kind, uint64_t seed)
    : net(n), index(i), nat(kind), random(seed), disco(DiscoPrivate::generate(random)), ms(random, *this) {
    random.fill(key.raw);
    wan = ep(fmt::format("203.0.113.{}:0", index + 1));
    local = kind == NatKind::kNone || kind == NatKind::kBlocked ? Endpoint{wan.addr, 41641}
                                                                : ep(fmt::format("192.168.{}.10:41641", index + 1));
}

void TestNode::send_udp(const Endpoint& to, ByteSpan datagram) { leave_host(to, to_bytes(datagram)); }

void TestNode::leave_host(const Endpoint& to, Bytes datagram) {
    ++udp_out;
    if (nat == NatKind::kBlocked || to.addr.is_private()) return;
    if (nat == NatKind::kNone) return net.route(local, to, std::move(datagram));
    Mapping& m = mappings[nat == NatKind::kHard ? to : Endpoint{}];
    if (m.port == 0) m.port = nat == NatKind::kHard ? next_port++ : local.port;
    m.sent_to.insert(to);
    net.route({wan.addr, m.port}, to, std::move(datagram));
}

bool TestNode::send_derp(int region, const NodePublic& to, ByteSpan datagram) {
    ++derp_out;
    if (!derp_up) return false;
    net.relay(*this, region, to, to_bytes(datagram));
    return true;
}

bool TestNode::send_data(PeerId peer) {
    const Path path = ms.path_for_send(peer, net.now);
    sent.emplace_back(net.now, path);
    Bytes d(64);
    d[0] = 4;
    d[4] = static_cast<uint8_t>(index);
    if (path.udp.is_valid()) leave_host(path.udp, path.vni != 0 ? mesh::relay::Geneve{mesh::relay::Geneve::kWireGuard, false, path.vni}.around(d) : d);
    if (path.derp_region != 0) send_derp(path.derp_region, net.nodes[peer]->key, d);
    return !path.empty();
}

void TestNode::take(Bytes d, const Endpoint& from) {
    const auto kind = ms.receive_udp(d, from, net.now);
    if (kind == Magicsock::Kind::kConsumed) return;
    const uint32_t vni = kind == Magicsock::Kind::kRelayed ? mesh::relay::Geneve::parse(d)->vni : 0;
    data.push_back({net.now, false, vni});
    ms.wg_received(d[vni != 0 ? 12 : 4], {.udp = from, .derp_region = 0, .derp_key = {}, .vni = vni}, net.now);
}

void TestNode::serve_relay(uint16_t port) {
    relay = std::make_unique<mesh::relay::Server>(random, DiscoPrivate::generate(random));
    relay_addr = {wan.addr, port};
    relay->set_addrs({relay_addr});
}

void TestNode::relay_requested(PeerId by, const disco::AllocateRequest& r) {
    if (!relay) return;
    if (const auto e = relay->allocate(r.clients[0], r.clients[1], net.now)) ms.relay_allocated(by, {r.generation, *e}, net.now);
}

void TestNode::take_at_relay(Bytes d, const Endpoint& from) {
    const auto r = relay->receive(d, from, net.now);
    if (r.verdict == mesh::relay::Server::Verdict::kForward) net.route(relay_addr, r.to, std::move(d));
    if (r.verdict == mesh::relay::Server::Verdict::kReply) net.route(relay_addr, r.to, to_bytes(relay->reply()));
}

void TestNode::take_derp(Bytes d, int region, const NodePublic& from) {
    if (ms.receive_derp(d, region, from, net.now) == Magicsock::Kind::kConsumed) return;
    data.push_back({net.now, true, 0});
    ms.wg_received(d[4], {.udp = {}, .derp_region = region, .derp_key = from}, net.now);
}

bool TestNode::direct(PeerId peer) { return ms.peek_path(peer, net.now).udp_trusted; }

void TestNet::route(const Endpoint& from, const Endpoint& to, Bytes datagram) {
    at(now + udp_delay, [this, from, to, d = std::move(datagram)] {
        const auto tx = stun::decode_request(d);
        if (tx && to.port == stun::kDefaultPort) {
            uint8_t out[stun::kMaxResponseLen];
            const size_t n = stun::encode_response(*tx, from, out);
            return route(to, from, Bytes(out, out + n));
        }
        const bool from_server = from.port == stun::kDefaultPort;
        if (udp_cut && !from_server) return;
        for (auto& n : nodes) {
            if (n->wan.addr != to.addr || n->nat == NatKind::kBlocked) continue;
            if (n->relay && to == n->relay_addr) return n->take_at_relay(d, from);
            if (n->nat == NatKind::kNone) {
                if (to.port == n->local.port) n->take(d, from);
                return;
            }
            for (const auto& [key, m] : n->mappings)
                if (m.port == to.port && m.sent_to.contains(from)) return n->take(d, from);
        }
    });
}

void TestNet::relay(TestNode& from, int region, const NodePublic& to, Bytes datagram) {
    at(now + derp_delay, [this, key = from.key, region, to, d = std::move(datagram)] {
        for (auto& n : nodes)
            if (n->key == to && n->derp_up) n->take_derp(d, region, key);
    });
}

}  // namespace mesh::magicsock::test
