// SPDX-License-Identifier: BSD-3-Clause
// What the packet loop tells about itself.
#include <fmt/format.h>

#include <map>

#include "tailscaled/packet_loop.h"

namespace mesh::daemon {

void PacketLoop::path_changed(PeerId peer, const magicsock::Path& path, Time /*now*/) {
    if (!path.udp_trusted) return;
    Endpoint& told = told_path_[peer];
    if (told == path.udp) return;
    told = path.udp;
    tell([peer, path](Engine::Listener& l) { l.on_path(peer, path); });
}

void PacketLoop::endpoints_changed(std::span<const magicsock::LocalEndpoint> endpoints) {
    tell([e = std::vector<magicsock::LocalEndpoint>(endpoints.begin(), endpoints.end())](Engine::Listener& l) { l.on_endpoints(e); });
}

void PacketLoop::netcheck_done(const netcheck::Report& report) {
    tell([report](Engine::Listener& l) { l.on_netcheck(report); });
}

void PacketLoop::resolve_names(const std::vector<std::string>& hosts) {
    tell([hosts](Engine::Listener& l) { l.on_names_wanted(hosts); });
}

void PacketLoop::https_latency_wanted(const std::vector<int>& regions) {
    tell([regions](Engine::Listener& l) { l.on_https_wanted(regions); });
}

void PacketLoop::ping_done(uint64_t id, const magicsock::PingResult& result) {
    tell([id, result](Engine::Listener& l) { l.on_ping(id, result); });
}

void PacketLoop::tunnel_ping_done(uint64_t id, const dataplane::TunnelPong& pong) {
    tell([id, pong](Engine::Listener& l) { l.on_tunnel_ping(id, pong); });
}

EngineSnapshot PacketLoop::snapshot() {
    const Time now = loop_.now();
    send_lane_.drain();  // the sockets' counters
    EngineSnapshot s;
    s.live_derps = static_cast<int>(derps_.size());
    if (relay_) s.relay = relay_->snapshot();
    for (const PeerId id : peers_) {
        const wg::PeerStats stats = plane_.wg().stats(id, now);
        PeerSnapshot p;
        p.rx_bytes = static_cast<int64_t>(stats.rx_bytes);
        p.tx_bytes = static_cast<int64_t>(stats.tx_bytes);
        p.last_handshake = stats.last_handshake;
        p.has_session = stats.has_session;
        p.path = plane_.sock().status(id, now);
        s.peers.emplace(id, std::move(p));
    }
    const dataplane::Counters& c = plane_.counters();
    std::map<std::string, uint64_t> metric;
    for (size_t i = 0; i < static_cast<size_t>(dataplane::Drop::kCount); ++i) {
        const auto d = static_cast<dataplane::Drop>(i);
        s.drops.emplace_back(fmt::format("in_{}", dataplane::name(d)), c.dropped_in[i]);
        metric[fmt::format("in_{}", dataplane::metric_reason(d))] += c.dropped_in[i];
        metric[fmt::format("out_{}", dataplane::metric_reason(d))] += c.dropped_out[i];
    }
    for (size_t i = 0; i < static_cast<size_t>(dataplane::Drop::kCount); ++i)
        s.drops.emplace_back(fmt::format("out_{}", dataplane::name(static_cast<dataplane::Drop>(i))), c.dropped_out[i]);
    for (size_t i = 1; i < static_cast<size_t>(wg::DropReason::kCount); ++i)
        s.drops.emplace_back(fmt::format("wg_{}", wg::name(static_cast<wg::DropReason>(i))), c.dropped_wg[i]);
    s.drops.emplace_back("out_not_running", tun_drops_);
    s.drops.emplace_back("out_socket_full", v4_->counters().tx_full + (v6_ ? v6_->counters().tx_full : 0));
    s.drops.emplace_back("in_socket_full", v4_->counters().rx_kernel_drops + (v6_ ? v6_->counters().rx_kernel_drops : 0));
    if (user_)
        for (auto& d : user_->drops()) s.drops.push_back(std::move(d));
    s.metric_drops.assign(metric.begin(), metric.end());
    for (size_t i = 0; i < static_cast<size_t>(dataplane::PathKind::kCount); ++i) {
        const auto kind = dataplane::name(static_cast<dataplane::PathKind>(i));
        s.traffic.emplace_back(fmt::format("inbound_bytes/{}", kind), static_cast<int64_t>(c.in[i].bytes));
        s.traffic.emplace_back(fmt::format("inbound_packets/{}", kind), static_cast<int64_t>(c.in[i].packets));
        s.traffic.emplace_back(fmt::format("outbound_bytes/{}", kind), static_cast<int64_t>(c.out[i].bytes));
        s.traffic.emplace_back(fmt::format("outbound_packets/{}", kind), static_cast<int64_t>(c.out[i].packets));
    }
    return s;
}

}  // namespace mesh::daemon
