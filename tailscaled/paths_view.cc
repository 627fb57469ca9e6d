// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/paths_view.h"

#include "tailscaled/api/json_text.h"

namespace mesh::daemon {
namespace {

const char* size_name(magicsock::PathSize::Verdict v) {
    using Verdict = magicsock::PathSize::Verdict;
    switch (v) {
        case Verdict::kWhole: return "whole";
        case Verdict::kTooSmall: return "too small";
        case Verdict::kUntold: return "not told";
        case Verdict::kUnknown: break;
    }
    return "";
}

void write_paths(api::JsonText& out, const StatusInputs& in, const PeerSnapshot& peer) {
    const auto ago = [&](Time t) { return t.is_zero() ? -1.0 : (in.now - t).seconds(); };
    const magicsock::PeerPathStatus& p = peer.path;
    out.field("Direct", p.cur_addr.is_valid() ? p.cur_addr.str() : "");
    out.field("PeerRelay", p.via_addr.is_valid() ? magicsock::via_text(p.via_addr, p.via_vni) : "");
    out.key("PeerRelayLatencySeconds").number(p.via_latency.seconds());
    out.field("Best", p.best.is_valid() ? p.best.str() : "");
    out.key("LatencySeconds").number(p.latency.seconds());
    out.field("Relay", derp_code(in.map, p.relay));
    out.key("SecondsSinceRelayGone").number(ago(p.relay_gone));
    out.field("HasSession", peer.has_session);
    out.key("SecondsSinceSend").number(ago(p.last_send));
    out.key("SecondsSinceReceive").number(ago(p.last_receive));
    out.key("Candidates").open_array();
    for (const auto& c : p.candidates) {
        out.open_object().field("Endpoint", c.ep.str());
        out.field("Source", c.from_netmap ? "netmap" : c.from_call_me_maybe ? "call-me-maybe" : "ping");
        out.field("Pings", static_cast<int64_t>(c.pings)).field("Pongs", static_cast<int64_t>(c.pongs));
        out.field("Recent", static_cast<int64_t>(c.recent)).field("RecentLost", static_cast<int64_t>(c.recent_lost));
        out.key("SecondsSinceProbe").number(ago(c.last_probe));
        out.key("SecondsSincePong").number(ago(c.last_pong));
        out.key("LatencySeconds").number(c.latency.seconds());
        out.key("BestLatencySeconds").number(c.best_latency.seconds());
        out.field("Size", size_name(c.size)).field("CarriesBytes", static_cast<int64_t>(c.carries));
        out.field("FullBytes", static_cast<int64_t>(c.full)).close_object();
    }
    out.close_array().key("PeerRelays").open_array();
    for (const auto& v : p.via) {
        out.open_object().field("Server", v.server.text()).field("VNI", static_cast<int64_t>(v.vni));
        out.field("Endpoint", v.addr.is_valid() ? v.addr.str() : "").field("Bound", v.bound);
        out.field("Pings", static_cast<int64_t>(v.path.pings)).field("Pongs", static_cast<int64_t>(v.path.pongs));
        out.key("SecondsSincePong").number(ago(v.path.last_pong)).close_object();
    }
    out.close_array().key("Events").open_array();
    for (const auto& e : p.events) {
        out.open_object().field("What", magicsock::path_event_name(e.kind));
        out.key("SecondsAgo").number(ago(e.at)).field("When", in.wall + (e.at - in.now));
        if (e.ep.is_valid()) out.field("Endpoint", e.ep.str());
        if (e.latency.ns > 0) out.key("LatencySeconds").number(e.latency.seconds());
        if (e.size > 0) out.field("Bytes", static_cast<int64_t>(e.size));
        out.close_object();
    }
    out.close_array();
}

}  // namespace

std::string relay_sessions_json(const RelaySnapshot* relay, std::optional<uint16_t> port) {
    api::JsonText out;
    out.open_object();
    if (relay == nullptr) {
        out.key("UDPPort").null();
        out.key("Sessions").null();
        out.close_object();
        return out.take();
    }
    out.field("UDPPort", static_cast<int64_t>(port.value_or(relay->port)));
    out.key("Sessions").open_array();
    for (const relay::Server::Session& s : relay->sessions) {
        out.open_object().field("VNI", static_cast<int64_t>(s.vni));
        for (size_t i = 0; i < 2; ++i) {
            const relay::Server::Client& c = s.clients[i];
            out.key(i == 0 ? "Client1" : "Client2").open_object().field("Endpoint", c.addr.is_valid() ? c.addr.str() : "");
            out.field("ShortDisco", "d:" + hex_encode(c.disco.bytes().first(8)));
            out.field("PacketsTx", static_cast<int64_t>(c.packets)).field("BytesTx", static_cast<int64_t>(c.bytes)).close_object();
        }
        out.close_object();
    }
    out.close_array().close_object();
    return out.take();
}

std::string paths_json(const StatusInputs& in, const netmap::Node* peer, bool all) {
    api::JsonText out;
    out.open_array();
    if (in.map) {
        for (const auto& node : in.map->peers) {
            if (!all && node.get() != peer) continue;
            out.open_object();
            out.field("Peer", std::string_view(node->host_label())).field("Name", node->name).key("Addresses").open_array();
            for (const Prefix& p : node->addresses)
                if (p.is_single()) out.text(p.addr.str());
            out.close_array().field("NodeKey", node->key.text()).field("HomeDERP", derp_code(in.map, node->home_derp));
            const auto it = in.engine->peers.find(in.peer_id(node->id));
            if (it != in.engine->peers.end()) write_paths(out, in, it->second);
            out.close_object();
        }
    }
    out.close_array();
    return out.take();
}

}  // namespace mesh::daemon
