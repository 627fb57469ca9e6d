// SPDX-License-Identifier: BSD-3-Clause
#include "tests/sim/node.h"

#include <fmt/format.h>

#include <algorithm>

#include "netstack/checksum.h"
#include "netstack/icmp.h"

namespace mesh::sim {
namespace {

constexpr uint16_t kPort = 41641;
constexpr size_t kIcmpHeader = 28;

// Every byte behind the header follows from the id, so that a mixed-up packet shows; the first eight are the same in all.
uint8_t filler(uint32_t id, size_t i) {
    return i < kIcmpHeader + kInTheClear.size() ? static_cast<uint8_t>(kInTheClear[i - kIcmpHeader]) : static_cast<uint8_t>(id * 31 + i * 7);
}

Bytes echo_request(const Addr& src, const Addr& dst, uint32_t id, size_t size) {
    Bytes p(std::max(size, Node::kMinPing));
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

Node::Node(Network& net, Listener& listener, int number, const Addr& addr, Site& site, uint64_t seed)
    : net_(net), listener_(listener), number_(number), tunnel_addr_(addr), site_(&site), random_(seed) {
    machine_ = MachinePrivate::generate(random_).public_key();
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
    session_.reset();
    map_.reset();
    ids_ = {};
    addrs_.clear();
    greeted_ = false;
    plane_ = std::make_unique<dataplane::DataPlane>(random_, *this, *this);
    plane_->wg().set_wall_clock(wall(now), now);
    plane_->sock().set_wall_clock(wall(now), now);
    plane_->wg().set_timestamp_floor(timestamp_);
    plane_->sock().set_disco_key(disco_key_);
    plane_->set_node_key(node_key_, now);
    plane_->sock().set_network({.up = true, .have_v4 = true, .have_v6 = addr6_.is_valid(), .os_has_ipv6 = addr6_.is_valid()}, now);
    set_local_endpoints();
    plane_->settle(now);
    request(Request::kRegister);
    poll_again();
}

void Node::kill() {
    timestamp_ = plane_->wg().last_timestamp();
    for (size_t i = 0; i < dropped_in_.size(); ++i) dropped_in_[i] += plane_->counters().dropped_in[i];
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

uint64_t Node::dropped_in(dataplane::Drop why) const {
    return dropped_in_[static_cast<size_t>(why)] + (plane_ ? plane_->counters().in_dropped(why) : 0);
}

// ---- control

void Node::request(Request kind) {
    control::Hostinfo host;
    host.hostname = fmt::format("n{}", number_);
    if (record_.home_derp != 0) host.net_info.emplace().preferred_derp = record_.home_derp;
    if (kind == Request::kRegister) {
        control::RegisterRequest r;
        r.node_key = record_.key;
        r.hostinfo = host;
        return listener_.control_request(*this, kind, control::to_text(r));
    }
    control::MapRequest r;
    r.node_key = record_.key;
    r.disco_key = record_.disco;
    r.stream = kind == Request::kPoll;
    r.omit_peers = !r.stream;
    r.hostinfo = host;
    for (const Endpoint& e : record_.endpoints) r.endpoints.push_back({e, control::EndpointType::kUnknown});
    listener_.control_request(*this, kind, control::to_text(r));
}

void Node::poll_again() {
    session_.begin_poll(net_.now());
    request(Request::kPoll);
}

// As LocalBackend does.
void Node::control_says(const std::string& json) {
    const Time now = net_.now();
    auto update = session_.handle_message(json, wall(now), now);
    if (!update) return listener_.control_error(*this, update.error().message());
    if (!update->map) return;
    const bool first = map_ == nullptr;
    map_ = update->map;
    const netmap::PeerChanges& changes = update->changes;
    if (map_->derp_map && (first || changes.derp_map)) plane_->sock().set_derp_map(map_->derp_map, now);
    const daemon::PeerPlan plan = daemon::plan_peers(*map_, first ? nullptr : &changes, ids_, wall(now));
    if (plan.policy) set_tables();
    for (const PeerId id : plan.slice.removed) {
        plane_->remove_peer(id);
        addrs_.erase(id);
    }
    for (const daemon::EnginePeer& p : plan.slice.upserted) plane_->upsert_peer(p.id, p.config, now);
    for (const auto& n : map_->peers)
        if (const PeerId id = ids_.find(n->id); id != kNoPeer) addrs_[id] = n->addresses.at(0).addr;
    if (!greeted_ && !map_->peers.empty()) {
        greeted_ = true;
        for (const PeerId id : daemon::peers_to_greet(*map_, ids_)) plane_->wg().initiate_early(id, now);
    }
    plane_->settle(now);
    if (net_.tracing())
        net_.trace(fmt::format("n{} map: {} peers, +{} ~{} -{}{}", number_, map_->peers.size(), changes.added.size(), changes.changed.size(),
                               changes.removed.size(), changes.filter ? ", filter" : ""));
}

void Node::set_tables() {
    auto tables = daemon::make_tables(*map_, {}, ids_, {}, wall(net_.now()));
    if (tables->self != std::vector<Addr>{tunnel_addr_}) listener_.control_error(*this, "control gave another address");
    std::vector<Prefix> own;
    for (const Addr& a : tables->self) own.push_back(Prefix::single(a));
    plane_->sock().set_tunnel_prefixes(own);
    if (sabotage_ == Sabotage::kOpenFilter || sabotage_ == Sabotage::kAnySource || sabotage_ == Sabotage::kCrossedPeers) {
        auto broken = std::make_shared<dataplane::Tables>(*tables);
        const Prefix everything{Addr::v4(0, 0, 0, 0), 0};
        const netstack::FilterRule all{.src = {everything}, .src_caps = {}, .dst = {{everything, {}}}, .protos = {}, .grants = {}};
        if (sabotage_ == Sabotage::kOpenFilter) broken->filter = netstack::FilterTable({&all, 1}, {own, {}});
        if (sabotage_ == Sabotage::kAnySource)
            for (dataplane::PeerRow& row : broken->peers) row.allowed = netstack::PrefixSet({everything});
        if (sabotage_ == Sabotage::kCrossedPeers && map_->peers.size() > 1) {
            std::vector<netmap::NodePtr> nodes(map_->peers.begin(), map_->peers.end());
            for (size_t i = 0; i < nodes.size(); ++i)
                broken->routes.insert(nodes[i]->addresses.at(0), ids_.find(nodes[(i + 1) % nodes.size()]->id));
        }
        tables = broken;
    }
    plane_->set_tables(tables);
}

Record Node::knows(const Addr& peer) const {
    const netmap::NodePtr n = plane_ && map_ ? map_->node_by_addr(peer) : nullptr;
    return n ? Record{n->key, n->disco_key, n->endpoints, n->home_derp} : Record{};
}

Time Node::next_timeout() const { return plane_ ? plane_->next_timeout() : Time::never(); }

void Node::handle_timeout() {
    plane_->handle_timeout(net_.now());
    timestamp_ = plane_->wg().last_timestamp();
}

// ---- the host above

void Node::ping(const Addr& to, uint32_t id, size_t size, const Addr& as) {
    if (plane_) host_sends(echo_request(as.is_valid() ? as : tunnel_addr_, to, id, size));
}

void Node::host_sends(Bytes packet) {
    if (sabotage_ == Sabotage::kClear) net_.send_udp(*site_, {lan4_, kPort}, {Addr::v4(8, 8, 8, 8), kPort}, packet);
    TunRead read{.vnet = {}, .bytes = packet};
    plane_->send({&read, 1}, net_.now());
}

void Node::write_tun(std::span<const TunWrite> writes) {
    for (const TunWrite& w : writes) {
        Bytes packet;
        for (const ByteSpan piece : w.pieces) packet.insert(packet.end(), piece.begin(), piece.end());
        if (sabotage_ == Sabotage::kChanged) packet.back() ^= 1;
        for (int copies = sabotage_ == Sabotage::kTwice ? 2 : 1; copies > 0; --copies)
            later([this, p = packet] { host_received(p); });
    }
}

void Node::host_received(ByteSpan packet) {
    netstack::Parsed p;
    if (!netstack::parse(packet, p) || p.dst != tunnel_addr_ || p.total != packet.size()) return;
    const uint32_t id = netstack::echo_id_seq(packet, p);
    if (p.is_echo_request()) {
        listener_.ping_arrived(*this, p.src, id, intact(packet, id));
        Bytes answer = to_bytes(packet);
        netstack::make_echo_reply(answer, p);
        host_sends(std::move(answer));
    } else if (p.is_echo_reply()) {
        listener_.pong_arrived(*this, p.src, id, intact(packet, id));
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
    if (!connected) dial_home_again(region);
}

void Node::derp_failed(int region) {
    if (!plane_) return;
    plane_->sock().derp_unreachable(region, net_.now());
    plane_->settle(net_.now());
    dial_home_again(region);
}

void Node::dial_home_again(int region) {
    if (region != plane_->sock().home_derp()) return;
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
        net_.trace(fmt::format("n{} path to {}: {}{}{}", number_, addrs_.contains(peer) ? addrs_[peer].str() : "nobody", path.udp.str(), path.udp_trusted ? " trusted" : "",
                               path.derp_region ? fmt::format(" relay {}", path.derp_region) : ""));
    if (const auto it = addrs_.find(peer); it != addrs_.end()) listener_.path_changed(*this, it->second, path);
}

void Node::endpoints_changed(std::span<const magicsock::LocalEndpoint> endpoints) {
    record_.endpoints.clear();
    for (const magicsock::LocalEndpoint& e : endpoints) record_.endpoints.push_back(e.ep);
    request(Request::kUpdate);
}

void Node::home_derp_changed(int region) {
    record_.home_derp = region;
    if (net_.tracing()) net_.trace(fmt::format("n{} home is {}", number_, region));
    if (region != 0) net_.derp_connect(*this, *site_, region, record_.key);
    request(Request::kUpdate);
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
