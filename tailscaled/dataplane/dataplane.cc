// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/dataplane/dataplane.h"

#include <algorithm>

#include "magicsock/relay/geneve.h"
#include "netstack/icmp.h"
#include "wg/messages.h"

namespace mesh::dataplane {

using netstack::Fragment;
using netstack::Parsed;
using netstack::Trust;
using netstack::Verdict;

namespace {

// Room a packet needs around it in a slot: header, padding, tag.
constexpr size_t kSlotOverhead = relay::kGeneveLen + wg::kDataOverhead + wg::kPadding - 1;
constexpr size_t kMaxPlain = SendBatch::kMaxSendBytes - kSlotOverhead;
constexpr size_t kScratchBytes = 65536 + kSlotOverhead;
// A denied flood must not make us send as much.
constexpr unsigned kRejectsPerBatch = 8;
constexpr int kSettleRounds = 8;
constexpr size_t kOpenTogether = 16;

Drop drop_of(Verdict v) {
    switch (v) {
        case Verdict::kUnknownProto: return Drop::kUnknownProto;
        case Verdict::kMulticast: return Drop::kMulticast;
        case Verdict::kLinkLocal: return Drop::kLinkLocal;
        case Verdict::kNotLocal: return Drop::kNotLocal;
        case Verdict::kAccept:
        case Verdict::kNoRule: break;
    }
    return Drop::kNoRule;
}

bool is_service(const Addr& a) {
    static const Addr v4 = service_addr_v4(), v6 = service_addr_v6();
    return a == v4 || a == v6;
}

/// Who may do what there is decided above TCP, not by the filter.
bool is_to_peer_api(const Tables& t, const Parsed& p) {
    const uint16_t port = p.version == 4 ? t.peerapi_port4 : t.peerapi_port6;
    return port != 0 && p.dst_port == port && p.is_tcp_syn() && std::find(t.self.begin(), t.self.end(), p.dst) != t.self.end();
}

void count(std::array<Traffic, static_cast<size_t>(PathKind::kCount)>& t, PathKind k, size_t bytes) {
    Traffic& row = t[static_cast<size_t>(k)];
    ++row.packets;
    row.bytes += bytes;
}

PathKind kind_of(const Endpoint& e, uint32_t vni) {
    if (vni != 0) return e.addr.is_v4() ? PathKind::kPeerRelay4 : PathKind::kPeerRelay6;
    return e.addr.is_v4() ? PathKind::kDirect4 : PathKind::kDirect6;
}

}  // namespace

DataPlane::DataPlane(Random& random, Kernel& kernel, Events& events, Config config)
    : random_(random),
      kernel_(kernel),
      events_(events),
      config_(config),
      wg_(random, *this),
      sock_(random, *this, config.magicsock),
      tables_(std::make_shared<const Tables>()),
      filter_(random.u64()),
      via6_(random.u64()),
      coalescer_(random.u64()),
      seals_(kernel),
      batch_(seals_),
      scratch_(std::make_unique_for_overwrite<uint8_t[]>(kScratchBytes)) {
    set_mtu(config.mtu);
    static_cast<void>(crypto::aead_engine());  // chosen now, not in the middle of the first handshake
}

DataPlane::~DataPlane() = default;

// ---- TUN → wire --------------------------------------------------------------------------------------------------------

void DataPlane::send(std::span<TunRead> reads, Time now) {
    for (TunRead& read : reads) {
        Parsed p;
        const PeerId peer = route_out(read, p, now);
        if (peer == kNoPeer) continue;
        if (segmenter_.begin(read, p)) {
            seal_segments(peer, now);
        } else {
            drop_out(Drop::kBadOffload);
        }
    }
    seals_.finish();
    settle(now);
}

PeerId DataPlane::route_out(TunRead& read, Parsed& p, Time now) {
    const auto refuse = [this](Drop d) {
        drop_out(d);
        return kNoPeer;
    };
    if (!netstack::parse(read.bytes, p)) return refuse(Drop::kMalformed);
    if (p.proto == netstack::kProtoTsmp) return refuse(Drop::kTsmp);
    if (is_service(p.dst)) {
        serve_host(read, p, now);
        return kNoPeer;
    }
    if (via6_.active() && via6_.is_answer(read.bytes, p)) {
        answer_via6(read, p, now);
        return kNoPeer;
    }
    // Multicast and link-local are the host's chatter; say so instead of "no route".
    const PeerId* peer = tables_->routes.find(p.dst);
    const PeerRow* row = peer != nullptr ? tables_->row(*peer) : nullptr;
    const Verdict v = filter_.check_out(p, row != nullptr && row->jailed ? Trust::kJailed : Trust::kNormal);
    if (v != Verdict::kAccept) return refuse(drop_of(v));
    return row != nullptr ? *peer : refuse(Drop::kNoRoute);
}

void DataPlane::serve_host(TunRead& read, const Parsed& p, Time now) {
    if (p.is_echo_request()) {
        const MutByteSpan packet = read.bytes.first(p.total);
        netstack::make_echo_reply(packet, p);
        inject_to_host(packet);
        return;
    }
    if (!segmenter_.begin(read, p)) return drop_out(Drop::kBadOffload);
    for (size_t i = 0; i < segmenter_.count(); ++i) {
        const MutByteSpan packet{scratch_.get(), segmenter_.length(i)};
        segmenter_.write(i, scratch_.get());
        Parsed one;
        if (!netstack::parse(packet, one) || !events_.service_packet(packet, one, now)) drop_out(Drop::kService);
    }
}

/// A site's answer, back in the client's own family.
void DataPlane::answer_via6(TunRead& read, const Parsed& p, Time now) {
    if (!segmenter_.begin(read, p)) return drop_out(Drop::kBadOffload);
    for (size_t i = 0; i < segmenter_.count(); ++i) {
        const ByteSpan packet{scratch_.get(), segmenter_.length(i)};
        segmenter_.write(i, scratch_.get());
        Parsed one, translated;
        if (via6_packet_.size() < packet.size() + netstack::Via6::kGrowth) via6_packet_.resize(packet.size() + netstack::Via6::kGrowth);
        const size_t n = netstack::parse(packet, one) ? via6_.to_v6(packet, one, via6_packet_, now) : 0;
        const ByteSpan out = ByteSpan(via6_packet_).first(n);
        const PeerId* peer = n > 0 && netstack::parse(out, translated) ? tables_->routes.find(translated.dst) : nullptr;
        if (peer == nullptr || tables_->row(*peer) == nullptr)
            drop_out(Drop::kNoRoute);
        else
            seal_packet(*peer, out, now);
    }
}

void DataPlane::seal_segments(PeerId peer, Time now) {
    Account& to = account_out(peer, now);
    wg::Session* session = wg_.send_session(peer, now);
    const size_t n = segmenter_.count();
    for (size_t i = 0; i < n; ++i) {
        const size_t len = segmenter_.length(i);
        if (len > kMaxPlain) {
            drop_out(Drop::kTooBig);
        } else if (session != nullptr) {
            to.bytes += seal_one(to, *session, len, [&](uint8_t* at) { segmenter_.write(i, at); });
        } else {
            segmenter_.write(i, scratch_.get());
            wg_.stage(peer, {scratch_.get(), len}, now);
            ++counters_.staged;
        }
    }
}

void DataPlane::seal_packet(PeerId peer, ByteSpan packet, Time now) {
    if (packet.size() > kMaxPlain) return drop_out(Drop::kTooBig);
    Account& to = account_out(peer, now);
    wg::Session* session = wg_.send_session(peer, now);
    if (session == nullptr) {
        wg_.stage(peer, packet, now);
        ++counters_.staged;
        return;
    }
    to.bytes += seal_one(to, *session, packet.size(), [&](uint8_t* at) { std::memcpy(at, packet.data(), packet.size()); });
    seals_.finish();
}

template <class Fill>
size_t DataPlane::seal_one(const Account& to, wg::Session& session, size_t len, Fill fill) {
    const bool udp = to.path.udp.is_valid();
    if (!udp && to.path.derp_region <= 0) {
        drop_out(Drop::kNoPath);
        return 0;
    }
    if (!udp && !relays_.fits(len + kSlotOverhead)) flush_relays();
    uint8_t* slot = udp ? batch_.reserve(to.path.udp, len + kSlotOverhead) : relays_.reserve();
    if (to.path.vni != 0) {
        relay::Geneve{relay::Geneve::kWireGuard, false, to.path.vni}.write(slot);
        slot += relay::kGeneveLen;
    }
    fill(slot + wg::kDataHeader);
    const size_t n = seals_.add(session, slot, len, config_.mtu, udp);
    if (n == 0) {
        drop_out(Drop::kNoSession);
        return 0;
    }
    if (!udp) {
        relays_.add(to.path.derp_region, to.peer, n);
        return n;
    }
    const size_t wire = to.path.vni != 0 ? n + relay::kGeneveLen : n;
    batch_.commit(wire);
    count(counters_.out, kind_of(to.path.udp, to.path.vni), wire);
    if (to.path.derp_region > 0) {  // both ways while unsure
        seals_.finish();
        send_relay({to.path.derp_region, to.peer, {slot, n}});
    }
    return n;
}

void DataPlane::send_relay(const RelayQueue::Entry& e) {
    if (kernel_.send_derp(e.region, key_of(e.peer), e.datagram))
        count(counters_.out, PathKind::kDerp, e.datagram.size());
    else
        drop_out(Drop::kRelayQueue);
}

void DataPlane::flush_relays() {
    if (relays_.empty()) return;
    seals_.finish();
    relays_.flush([this](const RelayQueue::Entry& e) { send_relay(e); });
}

DataPlane::Account& DataPlane::account_out(PeerId peer, Time now) {
    if (Account* a = out_.find(peer)) return *a;
    if (out_.used == out_.rows.size()) flush_accounts_out(now);
    Account& a = out_.rows[out_.used++];
    a.peer = peer;
    a.bytes = 0;
    a.path = sock_.path_for_send(peer, now);
    return a;
}

void DataPlane::flush_accounts_out(Time now) {
    for (size_t i = 0; i < out_.used; ++i)
        if (out_.rows[i].bytes > 0) wg_.sent_data(out_.rows[i].peer, out_.rows[i].bytes, now);
    out_.used = 0;
}

// ---- wire → TUN --------------------------------------------------------------------------------------------------------

void DataPlane::receive(std::span<UdpReceive> batch, Time now) {
    for (const UdpReceive& r : batch) {
        Source from{r.from, 0, {}};
        std::array<MutByteSpan, kOpenTogether> found;
        size_t n = 0;
        r.each([&](MutByteSpan datagram) {
            const auto kind = sock_.receive_udp(datagram, r.from, now);
            if (kind == magicsock::Magicsock::Kind::kConsumed) return;
            const bool relayed = kind == magicsock::Magicsock::Kind::kRelayed;
            if (const uint32_t vni = relayed ? relay::Geneve::parse(datagram)->vni : 0; vni != from.vni) {
                open(std::span(found).first(n), from, now);
                n = 0;
                from.vni = vni;
            }
            found[n++] = relayed ? datagram.subspan(relay::kGeneveLen) : datagram;
            if (n == found.size()) {
                open(found, from, now);
                n = 0;
            }
        });
        open(std::span(found).first(n), from, now);
    }
    settle(now);
}

void DataPlane::receive_derp(int region, std::span<DerpReceive> batch, Time now) {
    std::array<MutByteSpan, kOpenTogether> found;
    size_t n = 0;
    const auto open_found = [&](const NodePublic& from) {
        open(std::span(found).first(n), Source{{}, region, from}, now);
        n = 0;
    };
    for (size_t i = 0; i < batch.size(); ++i) {
        const DerpReceive& r = batch[i];
        if (n > 0 && (n == found.size() || !(r.from == batch[i - 1].from))) open_found(batch[i - 1].from);
        if (sock_.receive_derp(r.bytes, region, r.from, now) == magicsock::Magicsock::Kind::kWireGuard) found[n++] = r.bytes;
    }
    if (n > 0) open_found(batch.back().from);
    settle(now);
}

void DataPlane::receive_derp(int region, const NodePublic& from, MutByteSpan datagram, Time now) {
    DerpReceive one{from, datagram};
    receive_derp(region, {&one, 1}, now);
}

/// At most kOpenTogether.
void DataPlane::open(std::span<const MutByteSpan> datagrams, const Source& from, Time now) {
    std::array<wg::Device::Opened, kOpenTogether> opened;
    wg_.receive(datagrams, from, now, opened);
    for (size_t i = 0; i < datagrams.size(); ++i) take(opened[i], datagrams[i].size(), from, now);
}

void DataPlane::take(const wg::Device::Opened& o, size_t size, const Source& from, Time now) {
    if (o.kind != wg::Device::Opened::kDropped)
        count(counters_.in, from.by_derp() ? PathKind::kDerp : kind_of(from.udp, from.vni), from.vni != 0 ? size + relay::kGeneveLen : size);
    switch (o.kind) {
        case wg::Device::Opened::kData:
            account_in(o.peer, size, from, now);
            deliver(o.peer, o.plain, now);
            break;
        case wg::Device::Opened::kKeepalive:
            account_in(o.peer, 0, from, now);
            break;
        case wg::Device::Opened::kHandshake:
            break;
        case wg::Device::Opened::kDropped:
            ++counters_.dropped_wg[static_cast<size_t>(o.drop)];
            if (o.drop == wg::DropReason::kUnknownIndex) {
                if (const PeerId peer = sock_.peer_of(from); peer != kNoPeer) wg_.unknown_index_from(peer, now);
            }
            break;
    }
}

void DataPlane::deliver(PeerId peer, MutByteSpan plain, Time now) {
    Parsed p;
    if (!netstack::parse(plain, p)) return drop_in(Drop::kMalformed);
    const PeerRow* row = tables_->row(peer);
    if (row == nullptr || !row->allowed.contains(p.src)) return drop_in(Drop::kSource);
    const MutByteSpan packet = plain.first(p.total);
    if (p.proto == netstack::kProtoTsmp) return handle_tsmp(peer, packet, p, now);
    const Verdict v = filter_.check_in(tables_->filter, p, row->jailed ? Trust::kJailed : Trust::kNormal);
    if (v != Verdict::kAccept && !(is_to_peer_api(*tables_, p) && !row->jailed)) return deny(peer, *row, p, v, now);
    if (!pings_.empty() && p.is_echo_reply()) {
        TunnelPings::Ended ended;
        if (pings_.answer(peer, PingKind::kIcmp, netstack::echo_id_seq(packet, p), 0, now, ended))
            return events_.tunnel_ping_done(ended.id, ended.pong);
    }
    if (coalescer_.full()) write_tun();
    if (p.version == 6 && via6_.active() && via6_.matches(p.dst)) {
        const MutByteSpan v4 = via6_.to_v4(packet, p, row->v4, now);
        if (v4.empty() || !netstack::parse(v4, p)) return drop_in(Drop::kUnknownProto);
        coalescer_.add(v4, p);
    } else {
        coalescer_.add(packet, p);
    }
    ++counters_.tun_packets;
}

void DataPlane::deny(PeerId peer, const PeerRow& row, const Parsed& p, Verdict why, Time now) {
    drop_in(drop_of(why));
    if (why != Verdict::kNoRule || p.version != 4 || !p.is_tcp_syn() || rejects_left_ == 0) return;
    --rejects_left_;
    const bool shields = row.jailed || tables_->filter.shields_up();
    const netstack::TsmpReject reject{p.proto, shields ? netstack::TsmpReject::kShields : netstack::TsmpReject::kAcl,
                                      p.src_port, p.dst_port, false};
    send_tsmp(peer, reject, p.dst, p.src, now);
}

void DataPlane::handle_tsmp(PeerId peer, ByteSpan packet, const Parsed& p, Time now) {
    if (p.fragment != Fragment::kWhole) return drop_in(Drop::kTsmp);
    const netstack::Tsmp message = netstack::decode_tsmp(packet.subspan(p.ip_len));
    if (const auto* ping = std::get_if<netstack::TsmpPing>(&message)) {
        // Answer only as somebody we are: the asker would refuse another source anyway.
        if (!tables_->filter.is_local(p.dst)) return drop_in(Drop::kNotLocal);
        const uint16_t port = p.version == 4 ? tables_->peerapi_port4 : tables_->peerapi_port6;
        send_tsmp(peer, netstack::TsmpPong{ping->data, port}, p.dst, p.src, now);
    } else if (const auto* pong = std::get_if<netstack::TsmpPong>(&message)) {
        TunnelPings::Ended ended;
        if (pings_.answer(peer, PingKind::kTsmp, load_be64(pong->data.data()), pong->peerapi_port, now, ended))
            events_.tunnel_ping_done(ended.id, ended.pong);
    } else if (const auto* advert = std::get_if<netstack::TsmpDiscoKey>(&message)) {
        if (advert->key.is_zero() || peer >= peers_.size() || peers_[peer].disco == advert->key) return;
        peers_[peer].disco = advert->key;
        sock_.set_peer_disco(peer, advert->key, now);
    } else if (const auto* reject = std::get_if<netstack::TsmpReject>(&message)) {
        events_.flow_rejected(peer, *reject);
    } else {
        drop_in(Drop::kTsmp);
    }
}

void DataPlane::send_tsmp(PeerId peer, const netstack::Tsmp& message, const Addr& src, const Addr& dst, Time now) {
    std::array<uint8_t, netstack::kMaxTsmpPacket> packet;
    const size_t n = netstack::encode_tsmp(message, src, dst, packet);
    if (n > 0) seal_packet(peer, ByteSpan(packet).first(n), now);
}

void DataPlane::account_in(PeerId peer, size_t bytes, const Source& from, Time now) {
    Account* a = in_.find(peer);
    if (a == nullptr) {
        if (in_.used == in_.rows.size()) flush_accounts_in(now);
        a = &in_.rows[in_.used++];
        a->peer = peer;
        a->bytes = 0;
        a->from = from;
    }
    a->bytes += bytes;
}

void DataPlane::flush_accounts_in(Time now) {
    for (size_t i = 0; i < in_.used; ++i) {
        const Account& a = in_.rows[i];
        if (a.bytes > 0) wg_.received_data(a.peer, a.bytes, now);
        sock_.wg_received(a.peer, a.from, now);
    }
    in_.used = 0;
}

void DataPlane::write_tun() {
    const std::span<const TunWrite> writes = coalescer_.take();
    if (writes.empty()) return;
    counters_.tun_writes += writes.size();
    kernel_.write_tun(writes);
}

// ---- time and the end of a batch -----------------------------------------------------------------------------------------

void DataPlane::settle(Time now) {
    write_tun();
    flush_accounts_in(now);
    // The engines report these in the middle of their work and may not be called back there. Each round may cause new
    // ones; what is left after some rounds waits for the next turn, see next_timeout().
    for (int round = 0; round < kSettleRounds && !appeared_.empty(); ++round) {
        appeared_now_.swap(appeared_);
        for (const PeerId peer : appeared_now_) {
            wg_.path_appeared(peer, now);
            // Packets that met a session without a path. Without any the peer stays idle: asking for its path is a send.
            if (wg_.has_staged(peer) && wg_.send_session(peer, now) != nullptr) flush_staged(account_out(peer, now), now);
        }
        appeared_now_.clear();
    }
    flush_accounts_out(now);
    flush_relays();
    batch_.flush();
    rejects_left_ = kRejectsPerBatch;
}

Time DataPlane::next_timeout() const {
    if (!appeared_.empty()) return Time{1};
    return min(min(wg_.next_timeout(), sock_.next_timeout()), pings_.next_timeout());
}

void DataPlane::handle_timeout(Time now) {
    if (wg_.next_timeout() <= now) wg_.handle_timeout(now);
    if (sock_.next_timeout() <= now) sock_.handle_timeout(now);
    TunnelPings::Ended ended;
    while (pings_.expire(now, ended)) events_.tunnel_ping_done(ended.id, ended.pong);
    settle(now);
}

// ---- what the engines ask for ----------------------------------------------------------------------------------------------

bool DataPlane::send_to_peer(PeerId peer, ByteSpan datagram, Time now) {
    const magicsock::Path path = sock_.path_for_send(peer, now);
    bool sent = false;
    if (path.udp.is_valid()) {
        send_wg(path.udp, path.vni, datagram);
        sent = true;
    }
    if (path.derp_region > 0 && kernel_.send_derp(path.derp_region, key_of(peer), datagram)) {
        count(counters_.out, PathKind::kDerp, datagram.size());
        sent = true;
    }
    return sent;
}

void DataPlane::reply(const Source& to, ByteSpan datagram, Time /*now*/) {
    if (to.by_derp()) {
        if (!kernel_.send_derp(to.derp_region, to.derp_key, datagram)) return drop_out(Drop::kRelayQueue);
        count(counters_.out, PathKind::kDerp, datagram.size());
    } else {
        send_wg(to.udp, to.vni, datagram);
    }
}

// Handshakes and keepalives; data has room for the header where it lies.
void DataPlane::send_wg(const Endpoint& to, uint32_t vni, ByteSpan datagram) {
    count(counters_.out, kind_of(to, vni), vni != 0 ? datagram.size() + relay::kGeneveLen : datagram.size());
    if (vni == 0) return send_udp(to, datagram);
    send_udp(to, relay::Geneve{relay::Geneve::kWireGuard, false, vni}.around(datagram));
}

bool DataPlane::knows(const Source& source) const { return sock_.peer_of(source) != kNoPeer; }

void DataPlane::session_ready(PeerId peer, Time now) {
    // The message that made the session may have taught magicsock a path, so what the batch knew before is void.
    Account& to = account_out(peer, now);
    to.path = sock_.path_for_send(peer, now);
    flush_staged(to, now);
    // At once, not at the end of the batch: otherwise the engine confirms the session with a keepalive as well.
    if (to.bytes > 0) wg_.sent_data(peer, to.bytes, now);
    to.bytes = 0;
}

void DataPlane::flush_staged(Account& to, Time now) {
    if (to.path.empty()) return;
    wg::Session* session = wg_.send_session(to.peer, now);
    while (session != nullptr && wg_.take_staged(to.peer, staged_)) {
        session = wg_.send_session(to.peer, now);
        if (session == nullptr) break;
        to.bytes += seal_one(to, *session, staged_.size(),
                             [&](uint8_t* at) { std::memcpy(at, staged_.data(), staged_.size()); });
    }
    seals_.finish();
}

void DataPlane::authenticated(PeerId peer, const Source& from, Time now) { sock_.wg_authenticated(peer, from, now); }

void DataPlane::send_udp(const Endpoint& to, ByteSpan datagram) {
    const UdpSend one{to, datagram, static_cast<uint32_t>(datagram.size())};
    kernel_.send_udp({&one, 1});
}

bool DataPlane::send_derp(int region, const NodePublic& to, ByteSpan datagram) {
    return kernel_.send_derp(region, to, datagram);
}

void DataPlane::path_changed(PeerId peer, const magicsock::Path& path, Time now) {
    if (Account* a = out_.find(peer)) a->path = path;
    if (!path.empty() && (appeared_.empty() || appeared_.back() != peer)) appeared_.push_back(peer);
    events_.path_changed(peer, path, now);
}

void DataPlane::disco_alive(PeerId peer, Time /*now*/) { appeared_.push_back(peer); }

void DataPlane::endpoints_changed(std::span<const magicsock::LocalEndpoint> endpoints) {
    events_.endpoints_changed(endpoints);
}
void DataPlane::home_derp_changed(int region) { events_.home_derp_changed(region); }
void DataPlane::netcheck_done(const netcheck::Report& report) { events_.netcheck_done(report); }
void DataPlane::ping_done(uint64_t id, const magicsock::PingResult& result) { events_.ping_done(id, result); }
void DataPlane::relay_requested(PeerId by, const disco::AllocateRequest& request) { events_.relay_requested(by, request); }
void DataPlane::resolve_names(const std::vector<std::string>& hosts) { events_.resolve_names(hosts); }
void DataPlane::https_latency_wanted(const std::vector<int>& regions) { events_.https_latency_wanted(regions); }

}  // namespace mesh::dataplane
