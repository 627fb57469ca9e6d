// SPDX-License-Identifier: BSD-3-Clause
#include "tests/sim/node.h"

#include <fmt/format.h>

#include <algorithm>

#include "netstack/checksum.h"
#include "netstack/icmp.h"

namespace mesh::sim {
namespace {

constexpr uint16_t kPort = 41641;
constexpr int64_t kWallOffset = 1'700'000'000LL * 1'000'000'000LL;
constexpr size_t kIcmpHeader = 28;

WallTime wall(Time now) { return {kWallOffset + now.ns}; }

// Every byte behind the header follows from the id, so that a mixed-up packet shows.
uint8_t filler(uint32_t id, size_t i) { return static_cast<uint8_t>(id * 31 + i * 7); }

Bytes echo_request(const Addr& src, const Addr& dst, uint32_t id, size_t size) {
    Bytes p(std::max(size, kIcmpHeader));
    (void)netstack::build_echo_request(src, dst, id, p);
    store_be16(&p[2], static_cast<uint16_t>(p.size()));
    for (size_t i = kIcmpHeader; i < p.size(); ++i) p[i] = filler(id, i);
    netstack::fix_ipv4_checksum(p.data(), 20);
    store_be16(&p[22], 0);
    store_be16(&p[22], netstack::checksum(ByteSpan(p).subspan(20)));
    return p;
}

bool intact(ByteSpan packet, uint32_t id) {
    for (size_t i = kIcmpHeader; i < packet.size(); ++i)
        if (packet[i] != filler(id, i)) return false;
    return netstack::checksum(packet.subspan(20)) == 0;
}

}  // namespace

Node::Node(Network& net, Listener& listener, int number, Site& site, uint64_t seed)
    : net_(net), listener_(listener), number_(number), site_(&site), random_(seed) {
    node_key_ = NodePrivate::generate(random_);
    const auto host = static_cast<uint8_t>(10 + number);
    // Half of the LANs use the same range, as in life.
    lan4_ = site.v4.type().translates ? Addr::v4(192, 168, static_cast<uint8_t>(site.number / 2), host)
                                      : Addr::v4(203, 0, static_cast<uint8_t>(113 + site.number), host);
    site.hosts[lan4_] = this;
    if (site.v6) {
        addr6_ = *Addr::parse(fmt::format("2001:db8:{:x}::{:x}", site.number + 1, number + 1));
        site.hosts[addr6_] = this;
    }
    record_.key = node_key_.public_key();
}

Node::~Node() { net_.forget(*this); }

// ---- life of the program

void Node::start(bool new_disco) {
    const Time now = net_.now();
    ++run_;
    if (new_disco || disco_key_.is_zero()) disco_key_ = DiscoPrivate::generate(random_);
    record_.disco = disco_key_.public_key();
    record_.endpoints.clear();
    record_.home_derp = 0;
    knows_.clear();
    peers_.clear();
    plane_ = std::make_unique<dataplane::DataPlane>(random_, *this, *this);
    plane_->wg().set_wall_clock(wall(now), now);
    plane_->sock().set_wall_clock(wall(now), now);
    plane_->wg().set_timestamp_floor(timestamp_);
    plane_->sock().set_disco_key(disco_key_);
    plane_->set_node_key(node_key_, now);
    plane_->sock().set_network({.up = true, .have_v4 = true, .have_v6 = addr6_.is_valid(), .os_has_ipv6 = addr6_.is_valid()}, now);
    set_local_endpoints();
    plane_->sock().set_derp_map(net_.derp_map(), now);
    plane_->settle(now);
    listener_.record_changed(*this);
}

void Node::kill() {
    timestamp_ = plane_->wg().last_timestamp();
    plane_.reset();
    for (const auto& [id, region] : net_.derp_map()->regions) net_.derp_disconnect(*this, id);
}

void Node::later(std::function<void()> run, Duration delay) {
    net_.at(net_.now() + delay, [this, run = std::move(run), generation = run_] {
        if (plane_ && generation == run_) run();
    });
}

void Node::set_local_endpoints() {
    std::vector<Endpoint> list{{lan4_, kPort}};
    if (addr6_.is_valid()) list.push_back({addr6_, kPort});
    plane_->sock().set_local_endpoints(list, net_.now());
}

void Node::rebind() {
    plane_->sock().rebind(net_.now());
    plane_->settle(net_.now());
}

void Node::learn_peer(int peer, const Record& record) {
    if (!plane_) return;
    const auto it = peers_.find(peer);
    if (it != peers_.end() && it->second == record) return;
    const bool first = it == peers_.end();
    peers_[peer] = record;
    if (first) {
        auto tables = std::make_shared<dataplane::Tables>();
        tables->self = {tunnel_addr()};
        netstack::FilterRule all;
        all.src = {Prefix{Addr::v4(100, 64, 0, 0), 10}};
        all.dst = {{Prefix{Addr::v4(0, 0, 0, 0), 0}, {}}};
        tables->filter = netstack::FilterTable({&all, 1}, {{Prefix::single(tunnel_addr())}, {}});
        for (const auto& [n, r] : peers_) tables->add_peer(static_cast<PeerId>(n), {Prefix::single(tunnel_addr_of(n))});
        plane_->set_tables(tables);
    }
    const Time now = net_.now();
    plane_->upsert_peer(static_cast<PeerId>(peer),
                        {.key = record.key, .disco = record.disco, .endpoints = record.endpoints, .home_derp = record.home_derp}, now);
    if (first) plane_->wg().initiate_early(static_cast<PeerId>(peer), now);
    if (record.home_derp != 0) knows_.try_emplace(peer, now);
    plane_->settle(now);
    if (net_.tracing()) net_.trace(fmt::format("n{} knows n{}, home {}, {} endpoints", number_, peer, record.home_derp, record.endpoints.size()));
}

Time Node::knows_since(int peer) const {
    const auto it = knows_.find(peer);
    return it == knows_.end() ? Time{} : it->second;
}

bool Node::trusts_direct(int peer) const {
    return plane_ && plane_->sock().peek_path(static_cast<PeerId>(peer), net_.now()).udp_trusted;
}

void Node::handle_timeout() {
    plane_->handle_timeout(net_.now());
    timestamp_ = plane_->wg().last_timestamp();
}

// ---- the host above

void Node::ping(int peer, uint32_t id, size_t size) {
    if (plane_) host_sends(echo_request(tunnel_addr(), tunnel_addr_of(peer), id, size));
}

void Node::host_sends(Bytes packet) {
    TunRead read{.vnet = {}, .bytes = packet};
    plane_->send({&read, 1}, net_.now());
}

void Node::write_tun(std::span<const TunWrite> writes) {
    for (const TunWrite& w : writes) {
        Bytes packet;
        for (const ByteSpan piece : w.pieces) packet.insert(packet.end(), piece.begin(), piece.end());
        later([this, p = std::move(packet)] { host_received(p); });
    }
}

void Node::host_received(ByteSpan packet) {
    netstack::Parsed p;
    if (!netstack::parse(packet, p) || p.dst != tunnel_addr() || p.total != packet.size()) return;
    const auto from = static_cast<PeerId>(p.src.v4_host_order() - tunnel_addr_of(0).v4_host_order());
    const uint32_t id = netstack::echo_id_seq(packet, p);
    if (p.is_echo_request()) {
        listener_.ping_arrived(*this, from, id, intact(packet, id));
        Bytes answer = to_bytes(packet);
        netstack::make_echo_reply(answer, p);
        host_sends(std::move(answer));
    } else if (p.is_echo_reply()) {
        listener_.pong_arrived(*this, from, id, intact(packet, id));
    }
}

// ---- the kernel below

void Node::send_udp(std::span<const UdpSend> sends) {
    for (const UdpSend& s : sends) {
        const Endpoint inside{s.to.addr.is_v4() ? lan4_ : addr6_, kPort};
        for (ByteSpan rest = s.bytes; !rest.empty();) {
            const ByteSpan d = rest.first(std::min<size_t>(s.segment, rest.size()));
            rest = rest.subspan(d.size());
            if (inside.addr.is_valid() && net_.send_udp(*site_, inside, s.to, d)) continue;
            later([this, to = s.to] {
                plane_->sock().udp_send_failed(to, 101 /* ENETUNREACH */, net_.now());
                plane_->settle(net_.now());
            });
        }
    }
}

bool Node::send_derp(int region, const NodePublic& to, ByteSpan datagram) {
    net_.derp_connect(*this, *site_, region, record_.key);
    return net_.derp_send(*this, region, to, datagram);
}

void Node::udp_arrived(Bytes datagram, const Endpoint& from) {
    if (!plane_) return;
    UdpReceive r{.from = from, .bytes = datagram, .stride = static_cast<uint32_t>(datagram.size())};
    plane_->receive({&r, 1}, net_.now());
}

void Node::derp_arrived(Bytes datagram, int region, const NodePublic& from) {
    if (plane_) plane_->receive_derp(region, from, datagram, net_.now());
}

void Node::derp_connected(int region, bool connected) {
    if (!plane_) return;
    plane_->sock().derp_state(region, connected, net_.now());
    plane_->settle(net_.now());
    if (connected || region != plane_->sock().home_derp()) return;
    // The home connection comes back by itself.
    later([this, region] { if (plane_->sock().home_derp() == region) net_.derp_connect(*this, *site_, region, record_.key); },
          milliseconds(200 + static_cast<int64_t>(random_.below(300))));
}

void Node::derp_peer_gone(int region, const NodePublic& peer) {
    if (!plane_) return;
    plane_->sock().derp_peer_gone(region, peer, 1, net_.now());
    plane_->settle(net_.now());
}

// ---- facts for control

void Node::path_changed(PeerId peer, const magicsock::Path& path, Time) {
    if (net_.tracing())
        net_.trace(fmt::format("n{} path to n{}: {}{}{}", number_, peer, path.udp.str(), path.udp_trusted ? " trusted" : "",
                               path.derp_region ? fmt::format(" relay {}", path.derp_region) : ""));
    listener_.path_changed(*this, peer, path);
}

void Node::endpoints_changed(std::span<const magicsock::LocalEndpoint> endpoints) {
    record_.endpoints.clear();
    for (const magicsock::LocalEndpoint& e : endpoints) record_.endpoints.push_back(e.ep);
    listener_.record_changed(*this);
}

void Node::home_derp_changed(int region) {
    record_.home_derp = region;
    if (region != 0) net_.derp_connect(*this, *site_, region, record_.key);
    listener_.record_changed(*this);
}

void Node::netcheck_done(const netcheck::Report& report) {
    if (net_.tracing()) net_.trace(fmt::format("n{} netcheck: udp {} home {}", number_, report.udp, report.preferred_derp));
}

void Node::https_latency_wanted(const std::vector<int>& regions) {
    for (const int region : regions)
        later([this, region] {
                  plane_->sock().https_latency(region, site_->link.delay * 2 + milliseconds(4), Addr::Family::kV4, net_.now());
                  plane_->settle(net_.now());
              },
              site_->link.delay * 4);
}

}  // namespace mesh::sim
