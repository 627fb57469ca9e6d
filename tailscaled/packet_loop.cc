// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/packet_loop.h"

#include <fmt/format.h>

#include <array>

#include "base/check.h"
#include "base/log.h"
#include "netstack/udp.h"
#include "platform/net/source_address.h"

namespace mesh::daemon {

namespace {
constexpr Duration kDerpIdle = seconds(60);       // non-home connections close after this long without a send
constexpr Duration kDialPatience = seconds(20);   // packets for a relay that does not answer are dropped then
constexpr size_t kWaitingBytes = 64 << 10;
constexpr int kTunBatchesPerTurn = 4;
constexpr int kUserBatchesPerTurn = 16;  // more than one only if packets answer themselves, as pings to the service do
constexpr size_t kDerpBatch = 64;
}  // namespace

/// An established connection to one region.
class PacketLoop::DerpConn final : public platform::ByteStream::Listener {
   public:
    DerpConn(PacketLoop& owner, DerpLink link)
        : owner_(owner),
          region_(link.region),
          where_(std::move(link.where)),
          session_(std::move(link.session)),
          timer_(owner.loop_, [this] { on_timer(); }),
          stream_(std::move(link.stream)) {
        stream_.attach(owner_.loop_, *this);
        last_send_ = owner_.loop_.now();
    }

    /// What the login left in the session comes first.
    void begin() { owner_.derp_bytes(*this); }

    void on_bytes(MutByteSpan bytes) override {
        session_->feed(bytes, owner_.loop_.now());
        owner_.plane_.sock().derp_heard(region_, owner_.loop_.now());
        owner_.derp_bytes(*this);
        owner_.finish_turn();
    }
    void on_closed(const Status& why) override {
        owner_.derp_closed(region_, why ? where_ + " closed the connection" : why.error().message());
        owner_.finish_turn();
    }
    void on_drained() override { pump(); }
    void on_timer() {
        const bool was_silent = session_->silent();
        session_->handle_timeout(owner_.loop_.now());
        if (!was_silent && session_->silent()) owner_.plane_.sock().derp_in_doubt(region_, owner_.loop_.now());
        owner_.derp_bytes(*this);
        owner_.finish_turn();
    }

    bool send(const NodePublic& to, ByteSpan packet, Time now) {
        last_send_ = now;
        const uint64_t before = session_->stats().dropped_full;
        const bool taken = session_->send(to, packet, now);
        owner_.plane_.relay_gave_up(session_->stats().dropped_full - before);
        return taken;
    }

    /// One write at a time is in the stream, so that disco never waits behind more than that.
    void pump() {
        const Time now = owner_.loop_.now();
        while (stream_.queued_bytes() == 0) {
            const ByteSpan out = session_->writable(now);
            if (out.empty() || !stream_.write(out)) break;
            session_->wrote(out.size(), now);
        }
        timer_.set(session_->next_timeout());
    }

    PacketLoop& owner_;
    const int region_;
    const std::string where_;
    std::unique_ptr<derp::ClientSession> session_;
    Time last_send_;
    platform::Timer timer_;
    platform::ByteStream stream_;
};

Result<PacketLoop::Parts> PacketLoop::open(const Engine::Options& options) {
    std::optional<platform::TunDevice> tun;
    if (options.userspace) {
        TRY(UserNet::available());
    } else {
        TRY_ASSIGN(tun, platform::TunDevice::open(options.tun_name, options.mtu));
    }
    platform::UdpSocket::Options udp;
    udp.port = options.port;
    auto v4 = platform::UdpSocket::open(udp);
    if (!v4) return tl::unexpected(std::move(v4.error()).with("UDP socket"));
    udp.family = Addr::Family::kV6;
    udp.port = (*v4)->local_port();
    auto v6 = platform::UdpSocket::open(udp);
    if (!v6) log::info("no IPv6 socket: {}", v6.error().message());
    return Parts{std::move(tun), std::move(*v4), v6 ? std::move(*v6) : nullptr, options.mtu, options.static_endpoints};
}

PacketLoop::PacketLoop(platform::Loop& loop, Parts parts, Engine::Thread& shared)
    : loop_(loop),
      tun_(std::move(parts.tun)),
      v4_(std::move(parts.v4)),
      v6_(std::move(parts.v6)),
      shared_(shared),
      plane_(random_, *this, *this, {.mtu = parts.mtu, .magicsock = {}}),
      timer_(loop, [this] { on_timer(); }),
      sweep_(loop, [this] { on_sweep(); }),
      send_lane_(loop, v4_.get(), v6_.get(), platform::lane_mode(),
                 {.failed = [this](const Endpoint& to, int err) { on_send_error(to, err); }, .news = [this] { finish_turn(); }}) {
    if (tun_) {
        tun_poll_.emplace(loop, tun_->fd(), [this](platform::FdPoll::Events) { on_tun(); });
        plane_.set_tun_offload(tun_->offloads().tcp_coalescing, tun_->offloads().udp_coalescing);
        tun_poll_->set_interest(true, false);
    } else {
        plane_.set_tun_offload(false, false);
        user_turn_.emplace(loop, [this] { send_from_user(); });
        UserNet::Hooks hooks;
        hooks.output = [this] { user_turn_->want(); };
        hooks.datagram = [this](uint64_t association, const Endpoint& from, ByteSpan payload) {
            tell([association, from, p = to_bytes(payload)](Engine::Listener& l) { l.on_datagram(association, from, p); });
        };
        auto user = UserNet::open(loop, random_, parts.mtu, std::move(hooks));
        CHECK(user);  // open() has asked
        user_ = std::move(*user);
    }
    read_wall_clock();
    v4_->attach(loop_, *this);
    if (v6_) v6_->attach(loop_, *this);
    plane_.sock().set_static_endpoints(std::move(parts.static_endpoints), loop_.now());
    sweep_.set_after(seconds(15));
}

PacketLoop::~PacketLoop() = default;

// ---- configuration ---------------------------------------------------------------------------------------------------

void PacketLoop::set_keys(const NodePrivate& node, const DiscoPrivate& disco, int64_t timestamp_floor_ns) {
    const Time now = loop_.now();
    if (timestamp_floor_ns > 0) plane_.wg().set_timestamp_floor(static_cast<uint64_t>(timestamp_floor_ns));
    plane_.sock().set_disco_key(disco);
    plane_.set_node_key(node, now);
    if (const NodePublic key = node.is_zero() ? NodePublic{} : node.public_key(); key != node_) {
        node_ = key;
        close_derp();  // those are logged in under the old key
        want_home();
    }
    finish_turn();
}

void PacketLoop::set_tables(std::shared_ptr<const dataplane::Tables> tables) {
    plane_.sock().set_tunnel_prefixes([&] {
        std::vector<Prefix> own;
        for (const Addr& a : tables->self) own.push_back(Prefix::single(a));
        return own;
    }());
    if (user_) user_->set_self(tables->self);
    plane_.set_tables(std::move(tables));
}

void PacketLoop::apply_peers(const PeerSlice& slice) {
    const Time now = loop_.now();
    for (const PeerId id : slice.removed) {
        plane_.remove_peer(id);
        peers_.erase(id);
        told_path_.erase(id);
    }
    for (const EnginePeer& p : slice.upserted) {
        plane_.upsert_peer(p.id, p.config, now);
        peers_.insert(p.id);
    }
    for (const PeerId id : slice.greet_early) plane_.wg().initiate_early(id, now);
    finish_turn();
}

void PacketLoop::set_derp_map(std::shared_ptr<const derp::DerpMap> map) {
    // A region that is gone or described anew is dialled afresh.
    std::vector<int> gone;
    for (const auto& [region, conn] : derps_)
        if (!map || !map->region(region)) gone.push_back(region);
    for (const int region : gone) derp_closed(region, "the region is gone from the map");
    derp_map_ = map;
    if (relay_) relay_->set_derp_map(map);
    plane_.sock().set_derp_map(std::move(map), loop_.now());
    waiting_.clear();
    want_home();
    finish_turn();
}

void PacketLoop::set_network() {
    plane_.sock().set_network({.up = running_ && (have_v4_ || have_v6_), .have_v4 = have_v4_, .have_v6 = have_v6_ && v6_ != nullptr,
                               .os_has_ipv6 = v6_ != nullptr}, loop_.now());
}

void PacketLoop::set_local_addrs(const std::vector<Addr>& addrs, bool have_v4, bool have_v6) {
    have_v4_ = have_v4;
    have_v6_ = have_v6;
    set_network();
    std::vector<Endpoint> endpoints;
    for (const Addr& a : addrs) {
        if (a.is_v4()) endpoints.push_back({a, v4_->local_port()});
        if (a.is_v6() && v6_) endpoints.push_back({a, v6_->local_port()});
    }
    plane_.sock().set_local_endpoints(std::move(endpoints), loop_.now());
    local_addrs_ = addrs;
    if (relay_) relay_->set_local_addrs(addrs, have_v4, have_v6);
    finish_turn();
}

void PacketLoop::set_running(bool running) {
    running_ = running;
    set_network();
    if (running)
        want_home();
    else
        close_derp();
    if (user_ && !running) user_->clear();
    finish_turn();
}

void PacketLoop::give_names(const std::string& host, const std::vector<Addr>& addrs) {
    plane_.sock().set_resolved(host, addrs, loop_.now());
    if (relay_) relay_->give_names(host, addrs);
    finish_turn();
}

void PacketLoop::give_https_latency(int region, bool ok, Duration latency, Addr::Family family) {
    if (ok)
        plane_.sock().https_latency(region, latency, family, loop_.now());
    else
        plane_.sock().https_failed(region, loop_.now());
    finish_turn();
}

void PacketLoop::set_port_mapping(const std::optional<Endpoint>& endpoint, std::optional<bool> upnp, std::optional<bool> pmp,
                                  std::optional<bool> pcp) {
    plane_.sock().set_portmap_services(upnp, pmp, pcp);
    plane_.sock().set_portmapped(endpoint, loop_.now());
    finish_turn();
}

void PacketLoop::restun() {
    plane_.sock().restun(loop_.now());
    finish_turn();
}

void PacketLoop::measure() {
    plane_.sock().measure(loop_.now());
    finish_turn();
}

void PacketLoop::rebind() {
    v4_->protect_again();
    if (v6_) v6_->protect_again();
    // Connections that hang on an address of before are dead; the others show it by a ping now instead of minutes of silence.
    std::vector<int> moved;
    for (auto& [region, conn] : derps_) {
        if (platform::route_moved(conn->stream_)) moved.push_back(region);
        conn->session_->ping(loop_.now());
        dirty_derps_.insert(region);
    }
    for (const int region : moved) derp_closed(region, "");
    plane_.sock().rebind(loop_.now());
    if (relay_) relay_->network_changed();
    finish_turn();
}

void PacketLoop::ping(uint64_t id, PeerId peer, size_t size) {
    plane_.sock().ping(id, peer, size, loop_.now());
    finish_turn();
}

void PacketLoop::ping_tunnel(uint64_t id, PeerId peer, const Addr& dst, dataplane::PingKind kind) {
    plane_.ping_tunnel(id, peer, dst, kind, loop_.now());
    finish_turn();
}

void PacketLoop::link_up() {
    if (!tun_) return;
    tun_->probe_coalescing();
    plane_.set_tun_offload(tun_->offloads().tcp_coalescing, tun_->offloads().udp_coalescing);
}

void PacketLoop::dial(Outgoing what) {
    if (user_) user_->dial(std::move(what));
}

void PacketLoop::send_datagram(uint64_t association, const Endpoint& to, ByteSpan payload) {
    if (user_) user_->send_datagram(association, to, payload);
}

void PacketLoop::end_association(uint64_t association) {
    if (user_) user_->end_association(association);
}

/// At the end of a turn, so that what belongs together leaves together.
void PacketLoop::send_from_user() {
    for (int i = 0; i < kUserBatchesPerTurn; ++i) {
        const std::span<TunRead> batch = user_->take();
        if (batch.empty()) break;
        send(batch);
    }
    finish_turn();
}

void PacketLoop::read_wall_clock() {
    const Time now = loop_.now();
    if (!wall_read_.is_zero() && now - wall_read_ < seconds(10)) return;
    wall_read_ = now;
    plane_.wg().set_wall_clock(loop_.wall(), now);
    plane_.sock().set_wall_clock(loop_.wall(), now);
}

// ---- the loop --------------------------------------------------------------------------------------------------------

void PacketLoop::on_tun() {
    for (int i = 0; i < kTunBatchesPerTurn; ++i) {
        const std::span<TunRead> batch = tun_->read();
        if (batch.empty()) break;
        send(batch);
        pump_relays();  // else one turn could be more than their queues hold
    }
    if (const int err = tun_->failed()) {
        tun_poll_->set_interest(false, false);
        const std::string why = fmt::format("the interface {} is gone ({}); somebody removed it", tun_->name(), std::strerror(err));
        tell([why](Engine::Listener& l) { l.on_fatal(why); });
    }
    finish_turn();
}

void PacketLoop::on_datagrams(std::span<UdpReceive> batch) { plane_.receive(batch, loop_.now()); }
void PacketLoop::on_batch_end() { finish_turn(); }

void PacketLoop::on_send_error(const Endpoint& to, int err) {
    if (send_errors_.size() < 64) send_errors_.emplace_back(to, err);
}

void PacketLoop::on_timer() {
    read_wall_clock();
    plane_.handle_timeout(loop_.now());
    finish_turn();
}

void PacketLoop::pump_relays() {
    for (const int region : dirty_derps_)
        if (const auto it = derps_.find(region); it != derps_.end()) it->second->pump();
    dirty_derps_.clear();
}

void PacketLoop::finish_turn() {
    const Time now = loop_.now();
    send_lane_.reap();
    plane_.settle(now);
    if (!relay_requests_.empty()) answer_relay_requests();
    for (size_t i = 0; i < send_errors_.size(); ++i) {
        const auto [to, err] = send_errors_[i];
        plane_.sock().udp_send_failed(to, err, now);
    }
    if (!send_errors_.empty()) {
        send_errors_.clear();
        plane_.settle(now);
    }
    pump_relays();
    if (!dead_derps_.empty())
        loop_.post([old = std::make_shared<std::vector<std::unique_ptr<DerpConn>>>(std::move(dead_derps_))] {});
    dead_derps_.clear();

    if (const uint64_t sessions = plane_.wg().counters().sessions; sessions != sessions_told_) {
        sessions_told_ = sessions;
        tell([](Engine::Listener& l) { l.on_session(); });
    }
    const auto stamp = static_cast<int64_t>(plane_.wg().last_timestamp());
    note_timestamp(stamp);
    if (stamp - timestamp_told_ > minutes(1).ns) {
        timestamp_told_ = stamp;
        tell([stamp](Engine::Listener& l) { l.on_timestamp(stamp); });
    }
    timer_.set(plane_.next_timeout());
}

// ---- dataplane::Kernel -----------------------------------------------------------------------------------------------

void PacketLoop::write_tun(std::span<const TunWrite> writes) {
    if (!tun_) return user_->input(writes);
    const bool tcp = tun_->offloads().tcp_coalescing, udp = tun_->offloads().udp_coalescing;
    tun_->write(writes);
    if (tcp != tun_->offloads().tcp_coalescing || udp != tun_->offloads().udp_coalescing)
        plane_.set_tun_offload(tun_->offloads().tcp_coalescing, tun_->offloads().udp_coalescing);
}

bool PacketLoop::send_derp(int region, const NodePublic& to, ByteSpan datagram) {
    if (!running_) return false;
    if (const auto it = derps_.find(region); it != derps_.end()) {
        dirty_derps_.insert(region);
        return it->second->send(to, datagram, loop_.now());
    }
    want_derp(region);
    Waiting& w = waiting_[region];
    while (!w.packets.empty() && w.bytes + datagram.size() > kWaitingBytes) {
        w.bytes -= w.packets.front().second.size();
        w.packets.erase(w.packets.begin());
        plane_.relay_gave_up(1);
    }
    w.bytes += datagram.size();
    w.packets.emplace_back(to, to_bytes(datagram));
    return true;
}

// ---- relays ----------------------------------------------------------------------------------------------------------

void PacketLoop::want_derp(int region) {
    auto [it, fresh] = waiting_.try_emplace(region);
    if (!fresh) return;
    it->second.since = loop_.now();
    tell([region](Engine::Listener& l) { l.on_derp_wanted(region); });
}

void PacketLoop::want_home() {
    if (running_ && home_derp_ != 0 && !node_.is_zero() && !derps_.contains(home_derp_)) want_derp(home_derp_);
}

void PacketLoop::adopt_derp(DerpLink link) {
    const int region = link.region;
    if (!running_) return;
    if (const auto it = derps_.find(region); it != derps_.end()) dead_derps_.push_back(std::move(it->second));
    const Time now = loop_.now();
    auto& conn = derps_[region] = std::make_unique<DerpConn>(*this, std::move(link));
    conn->session_->note_preferred(region == home_derp_);
    plane_.sock().derp_state(region, true, now);
    if (const auto it = waiting_.find(region); it != waiting_.end()) {
        for (const auto& [to, packet] : it->second.packets) conn->send(to, packet, now);
        waiting_.erase(it);
    }
    dirty_derps_.insert(region);
    conn->begin();
    finish_turn();
}

void PacketLoop::derp_failed(int region) {
    const Time now = loop_.now();
    plane_.sock().derp_state(region, false, now);
    plane_.sock().derp_unreachable(region, now);
    const auto it = waiting_.find(region);
    if (it == waiting_.end()) return finish_turn();
    // The dialer goes on trying for as long as somebody has something to send, or it is home.
    if (region != home_derp_ && loop_.now() - it->second.since > kDialPatience) {
        waiting_.erase(it);
        tell([region](Engine::Listener& l) { l.on_derp_lost(region, ""); });
    }
    finish_turn();
}

void PacketLoop::close_derp() {
    while (!derps_.empty()) derp_closed(derps_.begin()->first, "");
    waiting_.clear();
}

void PacketLoop::derp_bytes(DerpConn& conn) {
    const Time now = loop_.now();
    const int region = conn.region_;
    // What came together is opened and written to the TUN together; packets stay where they lie until the next feed().
    std::array<dataplane::DataPlane::DerpReceive, kDerpBatch> batch;
    size_t n = 0;
    const auto take = [&] {
        if (n > 0) plane_.receive_derp(region, std::span(batch).first(n), now);
        n = 0;
    };
    while (const derp::Event* e = conn.session_->next_event(now)) {
        if (e->kind == derp::Event::Kind::kPacket) {
            batch[n++] = {e->key, e->packet};
            if (n == batch.size()) take();
            continue;
        }
        take();  // in the order of the relay
        switch (e->kind) {
            case derp::Event::Kind::kPeerGone:
                plane_.sock().derp_peer_gone(region, e->key, static_cast<int>(e->reason), now);
                break;
            case derp::Event::Kind::kError:
                derp_closed(region, e->error.message());
                return;
            case derp::Event::Kind::kHealth:
                log::info("derp-{}: the relay says: {}", region, log::printable(e->text));
                break;
            default:
                break;
        }
    }
    take();
    dirty_derps_.insert(region);
}

void PacketLoop::derp_closed(int region, const std::string& why) {
    const auto it = derps_.find(region);
    if (it == derps_.end()) return;
    it->second->stream_.close();
    dead_derps_.push_back(std::move(it->second));
    derps_.erase(it);
    dirty_derps_.erase(region);
    plane_.sock().derp_state(region, false, loop_.now());
    if (!why.empty()) plane_.sock().derp_in_doubt(region, loop_.now());
    tell([region, why](Engine::Listener& l) { l.on_derp_lost(region, why); });
    if (region == home_derp_) want_home();
}

void PacketLoop::on_sweep() {
    sweep_.set_after(seconds(15));
    const Time now = loop_.now();
    std::vector<int> idle;
    for (const auto& [region, conn] : derps_)
        if (region != home_derp_ && now - conn->last_send_ > kDerpIdle) idle.push_back(region);
    for (const int region : idle) derp_closed(region, "");
    send_lane_.rest_if_unused();
    finish_turn();
}

// ---- dataplane::Events -----------------------------------------------------------------------------------------------

void PacketLoop::home_derp_changed(int region) {
    if (const auto it = derps_.find(home_derp_); it != derps_.end()) it->second->session_->note_preferred(false);
    home_derp_ = region;
    if (const auto it = derps_.find(region); it != derps_.end()) {
        it->second->session_->note_preferred(true);
        dirty_derps_.insert(region);
    } else {
        want_home();
    }
    tell([region](Engine::Listener& l) { l.on_home_derp(region); });
}

bool PacketLoop::service_packet(MutByteSpan packet, const netstack::Parsed& p, Time /*now*/) {
    if (!names_ || p.fragment != netstack::Fragment::kWhole) return false;
    if (p.proto == netstack::kProtoTcp) {
        if (user_) return false;  // there is no kernel to end it
        const MutByteSpan out = service_tcp_.rewrite(packet, p, plane_.tables().self_addr(p.version == 4));
        if (!out.empty()) plane_.inject_to_host(out);
        return !out.empty();
    }
    if (p.proto != netstack::kProtoUdp || p.dst_port != dataplane::ServiceTcp::kDnsPort) return false;
    const ByteSpan query = ByteSpan(packet).subspan(p.header_len(), p.payload_len());
    const DnsClient client{{p.src, p.src_port}, {p.dst, p.dst_port}};
    Bytes reply;
    switch (dns::answer(*names_, query, reply)) {
        case dns::Outcome::kIgnore: return false;
        case dns::Outcome::kAnswered: break;
        case dns::Outcome::kForward:
            if (dns_asked_ < Engine::kMaxDnsQueries) {
                ++dns_asked_;
                tell([client, q = to_bytes(query)](Engine::Listener& l) { l.on_dns_query(client, q); });
                return true;
            }
            reply = dns::failure(query, dns::kServFail);  // an answer at once: the asker may have another server
            break;
    }
    plane_.inject_to_host(netstack::build_udp(client.service, client.client, dns::fit_udp(query, std::move(reply))));
    return true;
}

void PacketLoop::give_dns_reply(const DnsClient& client, const Bytes& reply) {
    if (dns_asked_ > 0) --dns_asked_;
    const Bytes packet = netstack::build_udp(client.service, client.client, reply);
    if (!packet.empty() && running_) plane_.inject_to_host(packet);
}

}  // namespace mesh::daemon
