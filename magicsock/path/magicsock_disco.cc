// SPDX-License-Identifier: BSD-3-Clause
// Inbound datagrams that are not WireGuard, disco messages, and `tailscale ping`.
#include <algorithm>

#include "magicsock/path/magicsock.h"
#include "magicsock/path/magicsock_peer.h"

namespace mesh::magicsock {
namespace {

constexpr size_t kMaxCliPings = 64;
constexpr Duration kCliPingRepeat = seconds(1);

// How pongs name the path over a relay: a made-up address with the region as port.
Endpoint derp_as_endpoint(int region) { return {Addr::v4(127, 3, 3, 40), static_cast<uint16_t>(region)}; }

}  // namespace

Magicsock::Kind Magicsock::receive_other(MutByteSpan datagram, const Endpoint& from, Time now) {
    if (stun::looks_like_stun(datagram) && datagram[1] == 0x01) {
        if (netcheck_.running()) {
            if (const auto r = stun::decode_response(datagram)) {
                if (netcheck_.handle_stun(datagram, from, now)) {
                    ++counters_.stun_in;
                    own_.mapped(r->mapped, now);
                    refresh_endpoints(now);
                    pump_netcheck(now);
                    return Kind::kConsumed;
                }
            }
        }
        ++counters_.stun_unknown;
        return Kind::kConsumed;
    }
    if (relay::Geneve::parse(datagram)) return receive_geneve(datagram, from, now);
    if (!disco::looks_like_disco(datagram)) return Kind::kWireGuard;
    receive_disco_udp(datagram, Source{.udp = from, .derp_region = 0, .derp_key = {}}, now);
    return Kind::kConsumed;
}

void Magicsock::receive_disco_udp(ByteSpan datagram, const Source& source, Time now) {
    ++counters_.disco_in;
    const auto it = by_disco_.find(disco::sender_of(datagram));
    if (it == by_disco_.end()) {
        ++counters_.disco_unknown_sender;
        return;
    }
    const std::vector<PeerId> ids = it->second;  // usually one; sorted
    Peer* p = find(ids.front());
    const disco::SharedKey* key = shared_key(*p);
    const auto payload = key == nullptr ? std::nullopt : key->open(datagram);
    if (!payload) {
        ++counters_.disco_bad;
        return;
    }
    const auto m = disco::parse(*payload);
    if (!m || !speaks_disco(*p)) {
        ++counters_.disco_ignored;
    } else if (const auto* ping = std::get_if<disco::Ping>(&*m)) {
        // The node key is a hint: good only if that node has the sender's disco key.
        Peer* named = find_by_node(ping->node);
        const bool fits = named != nullptr && std::find(ids.begin(), ids.end(), named->id) != ids.end();
        if (fits) p = named;
        note_disco_alive(*p, now);
        handle_ping(*p, *ping, source, fits || ids.size() == 1, now);
    } else if (const auto* pong = std::get_if<disco::Pong>(&*m)) {
        for (const PeerId id : ids) handle_pong(*find(id), *pong, source, now);
    } else {
        ++counters_.disco_ignored;  // CallMeMaybe comes by relay only
    }
}

Magicsock::Kind Magicsock::receive_derp(MutByteSpan datagram, int region, const NodePublic& from, Time now) {
    derp_heard(region, now);
    Peer* p = find_by_node(from);
    if (p != nullptr) {
        p->relay_heard = now;
        p->relay_gone = {};
        learn_route(*p, region, now);
    }
    if (!disco::looks_like_disco(datagram)) return Kind::kWireGuard;
    receive_disco_derp(datagram, region, from, now);
    return Kind::kConsumed;
}

void Magicsock::receive_disco_derp(ByteSpan datagram, int region, const NodePublic& from, Time now) {
    ++counters_.disco_in;
    Peer* p = find_by_node(from);
    if (p == nullptr || !speaks_disco(*p) || disco::sender_of(datagram) != p->config.disco) {
        ++counters_.disco_unknown_sender;
        return;
    }
    const disco::SharedKey* key = shared_key(*p);
    const auto payload = key == nullptr ? std::nullopt : key->open(datagram);
    if (!payload) {
        ++counters_.disco_bad;
        return;
    }
    const auto m = disco::parse(*payload);
    const Source source{.udp = {}, .derp_region = region, .derp_key = from};
    if (!m) {
        ++counters_.disco_ignored;
        return;
    }
    note_disco_alive(*p, now);
    if (const auto* ping = std::get_if<disco::Ping>(&*m)) {
        handle_ping(*p, *ping, source, true, now);
    } else if (const auto* pong = std::get_if<disco::Pong>(&*m)) {
        handle_pong(*p, *pong, source, now);
    } else if (const auto* call = std::get_if<disco::CallMeMaybe>(&*m)) {
        std::vector<Endpoint> list;
        for (const Endpoint& e : call->endpoints)
            if (usable(e)) list.push_back(e);
        Todo todo;
        paths_of(*p, now).heard_call_me_maybe(list, now, todo);
        carry_out(*p, todo, now);
        look_for_relays(*p, now);  // the peer may know none
    } else {
        handle_relay_message(*p, *m, now);
    }
}

void Magicsock::note_disco_alive(Peer& p, Time now) {
    if (p.alive_told) return;
    p.alive_told = true;
    out_.disco_alive(p.id, now);
}

void Magicsock::handle_ping(Peer& p, const disco::Ping& m, const Source& source, bool sure_who, Time now) {
    const disco::Pong pong{.tx = m.tx, .source = source.by_derp() ? derp_as_endpoint(source.derp_region) : source.udp};
    if (source.by_derp()) {
        if (p.last_derp_tx == m.tx) return;
        p.last_derp_tx = m.tx;
        if (send_disco(p, pong, source)) ++counters_.pongs_out;
        return;
    }
    if (source.vni != 0) return handle_via_ping(p, m, source, now);
    if (!usable(source.udp)) {
        // Through our own tunnel it would prove a path that eats itself; elsewhere it costs nothing to answer.
        if (!source.udp.addr.is_link_local()) return;
        if (send_disco(p, pong, source)) ++counters_.pongs_out;
        return;
    }
    if (!sure_who) {
        if (send_disco(p, pong, source)) ++counters_.pongs_out;
        return;
    }
    Todo todo;
    learn_source(p, source.udp);
    // The pong leaves first: it is what the peer waits for, and it opens our NAT for what follows.
    if (paths_of(p, now).heard_ping(source.udp, m.tx, m.padding, now, todo))
        if (send_disco(p, pong, source)) ++counters_.pongs_out;
    carry_out(p, todo, now);
}

void Magicsock::handle_pong(Peer& p, const disco::Pong& m, const Source& source, Time now) {
    for (size_t i = 0; i < cli_pings_.size(); ++i) {
        const CliPing& c = cli_pings_[i];
        if (c.peer != p.id) continue;
        const auto asked = std::find_if(c.sent.begin(), c.sent.end(), [&](const CliPing::Sent& s) { return s.tx == m.tx; });
        if (asked == c.sent.end() || asked->by_derp != source.by_derp()) continue;
        PingResult result{.peer = p.id, .error = {}, .latency = now - asked->at, .udp = {}, .derp_region = 0};
        if (source.by_derp()) {
            result.derp_region = source.derp_region;
        } else {
            if (!p.paths) continue;
            auto target = p.paths->target_of(m.tx);
            if (!target && p.via) {
                target = p.via->target_of(m.tx);
                if (target) result.vni = p.via->vni_of(*target);
            }
            if (!target) continue;
            // Nothing but pings goes there: the answer by the relay says how the peer is reached.
            const bool by_relay_too = std::any_of(c.sent.begin(), c.sent.end(), [](const CliPing::Sent& s) { return s.by_derp; });
            if (result.vni == 0 && by_relay_too && p.paths->too_small(*target)) continue;
            result.udp = *target;
        }
        finish_ping(i, std::move(result));
        break;
    }
    if (source.by_derp() || !p.paths) return;
    if (source.vni != 0) {
        if (!p.via) return;
        ViaTodo todo;
        if (p.via->heard_pong(m.tx, now, todo)) note_disco_alive(p, now);
        carry_out_via(p, todo, now);
        return;
    }
    Todo todo;
    if (p.paths->heard_pong(m.tx, now, todo)) note_disco_alive(p, now);
    carry_out(p, todo, now);
}

// ---- tailscale ping

void Magicsock::ping(uint64_t id, PeerId peer, size_t size, Time now) {
    Peer* p = find(peer);
    const char* error = nullptr;
    if (p == nullptr)
        error = "no matching peer";
    else if (!speaks_disco(*p))
        error = "the peer does not speak disco";
    else if (cli_pings_.size() >= kMaxCliPings)
        error = "too many pings at once";
    if (error != nullptr) {
        out_.ping_done(id, {.peer = peer, .error = error, .latency = {}, .udp = {}, .derp_region = 0});
        return;
    }
    last_any_send_ = now;
    if (restun_at_.is_never() && !netcheck_.running()) resume_restun(now);
    const bool proven = paths_of(*p, now).trusted(now) || (p->via && p->via->trusted(now));
    CliPing c{.id = id, .peer = peer, .size = size, .proven = proven, .started = now, .repeat_at = {}, .sent = {}};
    send_cli_ping(c, *p, now);
    cli_pings_.push_back(std::move(c));
}

void Magicsock::send_cli_ping(CliPing& c, Peer& p, Time now) {
    PeerPaths& paths = paths_of(p, now);
    const int region = derp_region_of(p);
    const bool direct = paths.trusted(now);
    if (!direct) look_for_relays(p, now);
    if (!direct && !(p.via && p.via->trusted(now)) && region != 0) {
        disco::Ping m{.tx = {}, .node = node_key_, .padding = 0};
        random_.fill(m.tx);
        const size_t smallest = disco::kOverhead + disco::kPingPayloadLen + 28;
        if (c.size > smallest) m.padding = c.size - smallest;
        if (send_disco(p, m, Source{.udp = {}, .derp_region = region, .derp_key = {}})) c.sent.push_back({m.tx, now, true});
    }
    Todo todo;
    paths.cli_probe(c.size, now, todo);
    for (const Todo::Probe& probe : todo.probes) c.sent.push_back({probe.tx, now, false});
    ViaTodo via;
    if (!direct && p.via) p.via->cli_probe(c.size, now, via);
    for (const Todo::Probe& probe : via.paths.probes) c.sent.push_back({probe.tx, now, false});
    // A proven path that loses a ping shall show it. Without one the peer may just not know us yet.
    c.repeat_at = c.proven ? Time::never() : now + kCliPingRepeat;
    carry_out(p, todo, now);
    if (p.via) carry_out_via(p, via, now);
}

void Magicsock::finish_ping(size_t index, PingResult result) {
    const uint64_t id = cli_pings_[index].id;
    cli_pings_.erase(cli_pings_.begin() + static_cast<std::ptrdiff_t>(index));
    out_.ping_done(id, result);
}

void Magicsock::drop_pings_of(PeerId peer) {
    for (size_t i = cli_pings_.size(); i-- > 0;)
        if (cli_pings_[i].peer == peer)
            finish_ping(i, {.peer = peer, .error = "peer removed", .latency = {}, .udp = {}, .derp_region = 0});
}

void Magicsock::repeat_or_expire_pings(Time now) {
    while (!cli_pings_.empty() && now - cli_pings_.front().started >= kPingTimeout) {
        const PeerId peer = cli_pings_.front().peer;
        finish_ping(0, {.peer = peer, .error = "timed out", .latency = {}, .udp = {}, .derp_region = 0});
    }
    for (CliPing& c : cli_pings_) {
        if (c.repeat_at > now) continue;
        Peer* const p = find(c.peer);
        if (p != nullptr)
            send_cli_ping(c, *p, now);
        else
            c.repeat_at = Time::never();
    }
}

}  // namespace mesh::magicsock
