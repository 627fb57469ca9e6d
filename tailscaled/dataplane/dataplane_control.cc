// SPDX-License-Identifier: BSD-3-Clause
// The data plane besides its straight line: what it is told, and what is asked of it.
#include "netstack/icmp.h"
#include "tailscaled/dataplane/dataplane.h"

namespace mesh::dataplane {

// ---- what changes rarely -------------------------------------------------------------------------------------------------

void DataPlane::set_node_key(const NodePrivate& key, Time now) {
    wg_.set_private_key(key, now);
    sock_.set_node_key(key.is_zero() ? NodePublic{} : key.public_key());
    settle(now);
}

void DataPlane::set_tables(std::shared_ptr<const Tables> tables) {
    filter_.table_changed(tables_->filter, tables->filter);
    via6_.set_routes(tables->via6_routes);
    tables_ = std::move(tables);
}

void DataPlane::set_tun_offload(bool tcp, bool udp) {
    coalescer_.enable_tcp(tcp);
    coalescer_.enable_udp(udp);
}

void DataPlane::upsert_peer(PeerId peer, const magicsock::PeerConfig& config, Time now) {
    if (peer == kNoPeer) return;
    if (peers_.size() <= peer) peers_.resize(size_t{peer} + 1);
    Known& known = peers_[peer];
    const bool same_node = known.key == config.key;
    const bool restarted = same_node && !known.disco.is_zero() && known.disco != config.disco;
    known = {config.key, config.disco};
    if (!same_node) wg_.add_peer(peer, config.key);
    sock_.upsert_peer(peer, config, now);
    if (restarted) wg_.peer_restarted(peer, now);
}

void DataPlane::remove_peer(PeerId peer) {
    if (peer >= peers_.size()) return;
    peers_[peer] = {};
    wg_.remove_peer(peer);
    sock_.remove_peer(peer);
}

const NodePublic& DataPlane::key_of(PeerId peer) const {
    static const NodePublic none;
    return peer < peers_.size() ? peers_[peer].key : none;
}

// ---- requests --------------------------------------------------------------------------------------------------------------

void DataPlane::ping_tunnel(uint64_t id, PeerId peer, const Addr& dst, PingKind kind, Time now) {
    const uint64_t token = pings_.start(id, peer, kind, random_, now);
    TunnelPings::Ended ended;
    while (pings_.expire(now, ended)) events_.tunnel_ping_done(ended.id, ended.pong);
    const Addr src = tables_->self_addr(dst.is_v4());
    if (kind == PingKind::kTsmp) {
        netstack::TsmpPing ping;
        store_be64(ping.data.data(), token);
        send_tsmp(peer, ping, src, dst, now);
    } else {
        std::array<uint8_t, 48> packet;
        const size_t n = netstack::build_echo_request(src, dst, static_cast<uint32_t>(token), packet);
        if (n > 0) seal_packet(peer, ByteSpan(packet).first(n), now);
    }
    settle(now);
}

void DataPlane::inject_to_host(ByteSpan packet) {
    const TunWrite write{VnetHdr{}, {&packet, 1}};
    kernel_.write_tun({&write, 1});
}

void DataPlane::inject_to_peer(PeerId peer, ByteSpan packet, Time now) {
    seal_packet(peer, packet, now);
    settle(now);
}

}  // namespace mesh::dataplane
