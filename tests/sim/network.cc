// SPDX-License-Identifier: BSD-3-Clause
#include "tests/sim/network.h"

#include <fmt/format.h>

#include <algorithm>

#include "magicsock/stun/stun.h"

namespace mesh::sim {
namespace {

constexpr Duration kLanDelay = microseconds(300);
constexpr Duration kRelayDelay = milliseconds(2);  // between the core and a relay, unless told otherwise
constexpr Duration kDialTimeout = seconds(1);
constexpr size_t kDerpWaiting = 64;
constexpr size_t kDerpFraming = 37 + 62;  // frame header and key; TCP, IP and TLS record
constexpr int kStunOnly = -1;

// What a datagram is, for people.
const char* kind_of(ByteSpan d) {
    if (d.size() >= 6 && d[0] == 'T' && d[1] == 'S') {
        switch (d.size()) {
            case 124: return "disco ping";
            case 110: return "disco pong";
            default: return "disco";
        }
    }
    if (stun::looks_like_stun(d)) return "stun";
    if (d.size() < 4) return "short";
    switch (d[0]) {
        case 1: return "wg initiation";
        case 2: return "wg response";
        case 3: return "wg cookie";
        case 4: return d.size() == 32 ? "wg keepalive" : "wg data";
        default: return "unknown";
    }
}

size_t ip_size(const Endpoint& to, ByteSpan datagram) { return datagram.size() + (to.addr.is_v4() ? 28 : 48); }

}  // namespace

void Network::run_next() {
    Event e = queue_.top();
    queue_.pop();
    now_ = max(now_, e.at);
    e.run();
}

Site& Network::add_site(NatType v4) {
    const int n = static_cast<int>(sites_.size());
    const Addr wan = Addr::v4(203, 0, static_cast<uint8_t>(113 + n), 1);
    sites_.push_back(std::make_unique<Site>(n, v4, wan, random_.u64()));
    return *sites_.back();
}

void Network::add_regions(int n) {
    auto map = std::make_shared<derp::DerpMap>();
    for (int id = 1; id <= n; ++id) {
        derp::DerpNode node;
        node.name = fmt::format("{}a", id);
        node.region_id = id;
        node.host_name = fmt::format("198.51.100.{}", id);
        node.ipv4 = node.host_name;
        node.ipv6 = "none";
        derp::DerpRegion region;
        region.id = id;
        region.code = fmt::format("r{}", id);
        region.name = region.code;
        region.nodes = {node};
        map->regions[id] = region;
    }
    map_ = map;
}

Duration Network::relay_delay(int region) const {
    const auto it = far_.find(region);
    return it == far_.end() ? kRelayDelay : it->second;
}

bool Network::is_server(const Addr& a) const { return a.is_v4() && Prefix{Addr::v4(198, 51, 100, 0), 24}.contains(a); }

// ---- UDP

bool Network::send_udp(Site& site, const Endpoint& inside, const Endpoint& to, ByteSpan datagram) {
    ++datagrams_;
    record("udp", inside.str(), to.str(), datagram);
    if (const auto it = site.hosts.find(to.addr); it != site.hosts.end()) {
        at(now_ + kLanDelay, [this, &site, inside, to, d = to_bytes(datagram)] {
            // The host may be gone, and somebody else may have the address.
            const auto host = site.hosts.find(to.addr);
            if (host != site.hosts.end() && to.port == 41641) host->second->udp_arrived(d, inside);
        });
        return true;
    }
    if (to.addr.is_private()) return true;  // some other LAN's address: nobody there
    Nat* nat = to.addr.is_v4() ? &site.v4 : site.v6.get();
    if (nat == nullptr) return false;
    if (const auto outside = nat->outbound(inside, to, now_)) transit(&site, *outside, to, to_bytes(datagram));
    return true;
}

void Network::cut(int a, int b, bool dead) {
    const std::pair<int, int> key = std::minmax(a, b);
    if (dead)
        cut_.insert(key);
    else
        cut_.erase(key);
}

std::optional<Duration> Network::pass(const Link& link, uint32_t loss_ppm, Lane& lane, size_t size) {
    const Lane::Passage p = lane.pass(link, loss_ppm, size, now_, random_);
    if (p.fate == Lane::Fate::kTooLong) ++too_long_;
    if (p.fate == Lane::Fate::kQueueFull) ++queue_drops_;
    return p.fate == Lane::Fate::kThrough ? std::optional(p.delay) : std::nullopt;
}

// Through the core: the sender's link, then, on arrival, the receiver's.
void Network::transit(Site* from_site, const Endpoint& from, const Endpoint& to, Bytes datagram) {
    if (from_site == nullptr)
        return at(now_ + relay_delay(from.addr.bytes()[3]), [this, from, to, datagram] { arrive(kStunOnly, from, to, datagram); });
    const Link& l = from_site->link;
    const int copies = random_.below(1'000'000) < l.duplicate_ppm ? 2 : 1;
    bool through = false;
    for (int i = 0; i < copies; ++i) {
        const auto d = pass(l, l.loss_ppm, from_site->up, ip_size(to, datagram));
        if (!d) continue;
        through = true;
        at(now_ + *d, [this, number = from_site->number, from, to, datagram] { arrive(number, from, to, datagram); });
    }
    if (random_.below(1'000'000) >= l.replay_ppm || !through) return;  // what was lost nobody saw
    at(now_ + milliseconds(1000 + random_.below(29'000)), [this, number = from_site->number, from, to, datagram] {
        if (trace_) trace(fmt::format("replay {} > {} {}", from.str(), to.str(), kind_of(datagram)));
        arrive(number, from, to, datagram);
    });
}

void Network::arrive(int from_site, const Endpoint& from, const Endpoint& to, Bytes datagram) {
    if (is_server(to.addr)) return answer_stun(from, to, datagram);
    for (const auto& s : sites_) {
        Nat* nat = to.addr.is_v4() ? &s->v4 : s->v6.get();
        if (nat == nullptr) continue;
        const bool here = nat->type().translates ? nat->wan() == to.addr : s->hosts.contains(to.addr);
        if (!here) continue;
        if (from_site >= 0 && cut_.contains(std::minmax(from_site, s->number))) return;
        if (from_site == s->number) return;  // no hairpinning
        const auto d = pass(s->link, s->link.loss_ppm + s->link.loss_in_ppm, s->down, ip_size(to, datagram));
        if (!d) return;
        Site* site = s.get();
        at(now_ + *d, [this, site, nat, from, to, datagram] {
            const auto inside = nat->inbound(from, to, now_);
            if (!inside || inside->port != 41641) return;
            const auto it = site->hosts.find(inside->addr);
            if (it != site->hosts.end()) it->second->udp_arrived(datagram, from);
        });
        return;
    }
}

void Network::answer_stun(const Endpoint& from, const Endpoint& to, ByteSpan datagram) {
    const auto tx = stun::decode_request(datagram);
    if (!tx || to.port != stun::kDefaultPort || dead_.contains(to.addr.bytes()[3])) return;
    uint8_t out[stun::kMaxResponseLen];
    const size_t n = stun::encode_response(*tx, from, out);
    transit(nullptr, to, from, Bytes(out, out + n));
}

// ---- relays

Network::DerpConn* Network::conn(Host& host, int region) {
    for (const auto& c : relays_[region])
        if (c->host == &host) return c.get();
    return nullptr;
}

void Network::derp_connect(Host& host, Site& site, int region, const NodePublic& key) {
    if (map_->region(region) == nullptr || conn(host, region) != nullptr) return;
    auto c = std::make_unique<DerpConn>();
    c->host = &host;
    c->site = &site;
    c->key = key;
    c->generation = ++generation_;
    const uint64_t generation = c->generation;
    const Time ready = now_ + (site.link.delay + relay_delay(region)) * 4;
    if (dead_.contains(region)) return at(now_ + kDialTimeout, [&host, region] { host.derp_failed(region); });
    relays_[region].push_back(std::move(c));
    at(ready, [this, &host, region, generation] {
        DerpConn* up = conn(host, region);
        if (up == nullptr || up->generation != generation) return;
        up->up = true;
        auto waiting = std::move(up->waiting);
        up->waiting.clear();
        for (auto& [to, d] : waiting) relay(*up, region, to, std::move(d));
        host.derp_connected(region, true);
    });
}

void Network::derp_disconnect(Host& host, int region) {
    std::erase_if(relays_[region], [&](const auto& c) { return c->host == &host; });
}

bool Network::derp_send(Host& host, int region, const NodePublic& to, ByteSpan datagram) {
    DerpConn* c = conn(host, region);
    if (c == nullptr) return false;
    ++datagrams_;
    record("derp", short_key(c->key), fmt::format("{} {}", region, short_key(to)), datagram);
    if (c->up) {
        relay(*c, region, to, to_bytes(datagram));
        return true;
    }
    if (c->waiting.size() >= kDerpWaiting) return false;
    c->waiting.emplace_back(to, to_bytes(datagram));
    return true;
}

void Network::relay(DerpConn& c, int region, const NodePublic& to, Bytes datagram) {
    const size_t framed = datagram.size() + kDerpFraming;
    c.last_out = max(c.last_out, now_ + c.site->link.delay + relay_delay(region) + c.site->up.stream(c.site->link, framed, now_));
    at(c.last_out, [this, region, to, host = c.host, generation = c.generation, d = std::move(datagram)] {
        DerpConn* sender = conn(*host, region);
        if (sender == nullptr || sender->generation != generation) return;  // broken meanwhile
        const NodePublic from = sender->key;
        for (const auto& r : relays_[region]) {
            if (r->key != to || !r->up) continue;
            hand_over(*r, region, r->site->down.stream(r->site->link, d.size() + kDerpFraming, now_),
                      [region, from, d](Host& receiver) { receiver.derp_arrived(d, region, from); });
            if (region == liar_) lie(region, *sender, *r, d);
            return;
        }
        hand_over(*sender, region, {}, [region, to](Host& back) { back.derp_peer_gone(region, to); });
    });
}

void Network::hand_over(DerpConn& to, int region, Duration more, std::function<void(Host&)> what) {
    to.last_in = max(to.last_in, now_ + to.site->link.delay + relay_delay(region) + more);
    at(to.last_in, [this, region, host = to.host, generation = to.generation, what = std::move(what)] {
        DerpConn* c = conn(*host, region);
        if (c != nullptr && c->generation == generation) what(*host);
    });
}

void Network::lie(int region, DerpConn& sender, DerpConn& receiver, ByteSpan datagram) {
    const auto& all = relays_[region];
    DerpConn& other = *all[lies_.below(static_cast<uint32_t>(all.size()))];
    Bytes d = to_bytes(datagram);
    NodePublic from = sender.key;
    DerpConn* to = &receiver;
    switch (lies_.below(8)) {
        case 0: from = other.key; break;
        case 1: to = &other; break;
        case 2: d[lies_.below(static_cast<uint32_t>(d.size()))] ^= static_cast<uint8_t>(1U << lies_.below(8)); break;
        case 3:
            trace("lie: the receiver has gone");
            return hand_over(sender, region, {}, [region, gone = receiver.key](Host& host) { host.derp_peer_gone(region, gone); });
        default: return;
    }
    if (!to->up) return;
    trace("lie: a copy under another key, to another host or with a broken bit");
    hand_over(*to, region, {}, [region, from, d](Host& host) { host.derp_arrived(d, region, from); });
}

void Network::derp_restart(int region) {
    auto gone = std::move(relays_[region]);
    relays_[region].clear();
    for (const auto& c : gone) c->host->derp_connected(region, false);
}

void Network::kill_region(int region, bool dead) {
    if (!dead) {
        dead_.erase(region);
        return;
    }
    dead_.insert(region);
    derp_restart(region);
}

void Network::forget(Host& host) {
    for (auto& [region, list] : relays_) std::erase_if(list, [&](const auto& c) { return c->host == &host; });
    for (const auto& s : sites_) std::erase_if(s->hosts, [&](const auto& h) { return h.second == &host; });
}

// ---- trace

void Network::mix(ByteSpan b) {
    for (const uint8_t x : b) hash_ = (hash_ ^ x) * 1099511628211ULL;
}

void Network::record(const char* how, const std::string& from, const std::string& to, ByteSpan datagram) {
    uint8_t when[8];
    store_be64(when, static_cast<uint64_t>(now_.ns));
    if (tap_) tap_(datagram);
    mix(when);
    mix(as_bytes(from));
    mix(as_bytes(to));
    mix(datagram);
    if (trace_) trace(fmt::format("{} {} > {} {} {}", how, from, to, datagram.size(), kind_of(datagram)));
}

void Network::trace(const std::string& line) {
    if (trace_) trace_(fmt::format("{:.6f} {}", Duration{now_.ns - seconds(100'000).ns}.seconds(), line));
}

}  // namespace mesh::sim
