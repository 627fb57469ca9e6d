// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/path/via_paths.h"

#include <algorithm>

#include "magicsock/relay/geneve.h"

namespace mesh::magicsock {

ViaPaths::ViaPaths(Random& random, const DiscoPublic& mine, const DiscoPublic& theirs, Time now)
    : theirs_(theirs), pair_(disco::sorted_pair(mine, theirs)), paths_(random, now), generation_(random.u32()) {}

// Never 0, and not from the start again after a restart: servers hold the last one of a handshake that was not finished.
uint32_t ViaPaths::next_generation() {
    if (++generation_ == 0) ++generation_;
    return generation_;
}

// ---- finding

bool ViaPaths::discovery_due(Time now) const {
    return discovered_.is_zero() || now - discovered_ >= (trusted(now) ? kViaUpgrade : kViaDiscovery);
}

void ViaPaths::discover(std::span<const NodePublic> servers, Time now, ViaTodo& todo) {
    discovered_ = now;
    asked_.clear();
    for (const NodePublic& server : servers.first(std::min(servers.size(), kMaxRelayServers))) {
        asked_.push_back({server, next_generation(), now});
        todo.requests.push_back({server, {pair_, asked_.back().generation}});
    }
}

void ViaPaths::heard_response(const NodePublic& server, const disco::AllocateResponse& m, Time now, ViaTodo& todo) {
    const auto it = std::find_if(asked_.begin(), asked_.end(),
                                 [&](const Asked& a) { return a.server == server && a.generation == m.generation; });
    if (it == asked_.end() || m.relay.clients != pair_) return;
    asked_.erase(it);
    begin(m.relay, Whose::kOurs, now, todo);
}

void ViaPaths::heard_offer(const disco::RelayEndpoint& relay, Time now, ViaTodo& todo) {
    if (relay.clients == pair_) begin(relay, Whose::kTheirs, now, todo);
}

void ViaPaths::begin(const disco::RelayEndpoint& relay, Whose whose, Time now, ViaTodo& todo) {
    if (relay.vni == 0 || relay.vni > relay::kMaxVni || relay.addrs.empty()) return;
    const auto offer = [&] {
        if (whose == Whose::kOurs) todo.offers.push_back(relay);
    };
    const auto same = std::find_if(leases_.begin(), leases_.end(),
                                   [&](const Lease& l) { return l.handshake.relay().server == relay.server; });
    if (same != leases_.end()) {
        const disco::RelayEndpoint& known = same->handshake.relay();
        if (relay.lamport < known.lamport) return;
        if (relay.lamport == known.lamport) {
            const bool in_use = trusted(now) && same->leg.addr == paths_.best();
            if (in_use || (!same->handshake.is_proved() && !same->handshake.failed(now))) return offer();
        }
    }
    // A peer that offers endpoints without end costs no more than this.
    if (window_binds_ >= kMaxBindsPerSecond && now - window_ < seconds(1)) return;
    const bool known = same != leases_.end();
    if (!known && !make_room(now, todo)) return;
    offer();
    std::vector<relay::Handshake::Out> out;
    relay::Handshake handshake(relay, theirs_, next_generation(), now, out);
    if (known) {
        same->handshake = std::move(handshake);
        same->started = now;
    } else {
        leases_.push_back({std::move(handshake), now, {}});
    }
    queue(relay.server, out, now, todo);
}

// The oldest goes, but one that is only being tried before one that works, and never the best.
bool ViaPaths::make_room(Time now, ViaTodo& todo) {
    if (leases_.size() < kMaxViaEndpoints) return true;
    auto victim = leases_.end();
    for (auto it = leases_.begin(); it != leases_.end(); ++it) {
        if (it->leg.vni != 0 && it->leg.addr == paths_.best()) continue;
        const auto rank = [](const Lease& l) { return std::pair(l.handshake.is_proved(), l.started); };
        if (victim == leases_.end() || rank(*it) < rank(*victim)) victim = it;
    }
    if (victim == leases_.end()) return false;
    drop_leg(*victim, now, todo);
    leases_.erase(victim);
    legs_changed(now, todo);
    return true;
}

void ViaPaths::queue(const DiscoPublic& server, std::vector<relay::Handshake::Out>& out, Time now, ViaTodo& todo) {
    if (window_.is_zero() || now - window_ >= seconds(1)) {
        window_ = now;
        window_binds_ = 0;
    }
    for (relay::Handshake::Out& o : out) {
        if (window_binds_ >= kMaxBindsPerSecond) return;  // repeated later
        ++window_binds_;
        todo.binds.push_back({server, std::move(o)});
    }
}

void ViaPaths::heard_challenge(const DiscoPublic& server, const disco::RelayBind& m, const Leg& from, Time now, ViaTodo& todo) {
    const auto it = std::find_if(leases_.begin(), leases_.end(), [&](const Lease& l) { return l.handshake.relay().server == server; });
    std::vector<relay::Handshake::Out> out;
    if (it == leases_.end() || !it->handshake.heard_challenge(m, from.addr, from.vni, now, out)) return;
    queue(server, out, now, todo);
    if (it->leg != from) {
        // What stood there before, or the server before a restart, is gone.
        for (Lease& l : leases_)
            if (l.leg.addr == from.addr || &l == &*it) drop_leg(l, now, todo);
        it->leg = from;
        legs_changed(now, todo);
    }
    paths_.propose(from.addr, now, todo.paths);
}

void ViaPaths::drop_leg(Lease& lease, Time now, ViaTodo& todo) {
    if (lease.leg.vni == 0) return;
    paths_.forget(lease.leg.addr, now, todo.paths);
    lease.leg = {};
}

void ViaPaths::legs_changed(Time now, ViaTodo& todo) {
    std::vector<Endpoint> list;
    for (const Leg& leg : legs()) list.push_back(leg.addr);
    paths_.set_netmap(list, now, todo.paths);
    todo.legs_changed = true;
}

// ---- the paths

uint32_t ViaPaths::vni_of(const Endpoint& addr) const {
    for (const Lease& l : leases_)
        if (l.leg.vni != 0 && l.leg.addr == addr) return l.leg.vni;
    return 0;
}

std::vector<ViaPaths::Leg> ViaPaths::legs() const {
    std::vector<Leg> out;
    for (const Lease& l : leases_)
        if (l.leg.vni != 0) out.push_back(l.leg);
    return out;
}

bool ViaPaths::note_sent(Time now, ViaTodo& todo) {
    return std::any_of(leases_.begin(), leases_.end(), [](const Lease& l) { return l.leg.vni != 0; }) && paths_.note_sent(now, todo.paths);
}

bool ViaPaths::heard_ping(const Leg& from, const disco::TxId& tx, size_t padding, Time now, ViaTodo& todo) {
    // One through a leg of before a restart of ours: answered, so that the peer need not wait for what it will be told.
    if (vni_of(from.addr) != from.vni) return true;
    return paths_.heard_ping(from.addr, tx, padding, now, todo.paths);
}

std::optional<Duration> ViaPaths::heard_pong(const disco::TxId& tx, Time now, ViaTodo& todo) {
    const auto target = paths_.target_of(tx);
    const auto latency = paths_.heard_pong(tx, now, todo.paths);
    if (!latency) return std::nullopt;
    for (Lease& l : leases_)
        if (l.leg.vni != 0 && l.leg.addr == *target && l.handshake.addr() == *target) l.handshake.proved();
    return latency;
}

// ---- time

Time ViaPaths::next_timeout() const {
    Time t = paths_.next_timeout();
    for (const Asked& a : asked_) t = min(t, a.sent + (a.repeated ? kAllocateTimeout : kAllocateAgain));
    for (const Lease& l : leases_) t = min(t, l.handshake.next_timeout());
    return t;
}

void ViaPaths::handle_timeout(Time now, ViaTodo& todo) {
    std::erase_if(asked_, [&](const Asked& a) { return now - a.sent >= kAllocateTimeout; });
    for (Asked& a : asked_) {
        if (a.repeated || now - a.sent < kAllocateAgain) continue;
        a.repeated = true;
        todo.requests.push_back({a.server, {pair_, a.generation}});
    }
    bool dropped = false;
    for (Lease& l : leases_) {
        if (l.handshake.failed(now)) {
            dropped = dropped || l.leg.vni != 0;
            drop_leg(l, now, todo);
            continue;
        }
        std::vector<relay::Handshake::Out> out;
        l.handshake.handle_timeout(now, out);
        // An answer that was lost took its ping's sense with it.
        if (!out.empty() && l.handshake.addr().is_valid()) paths_.propose(l.handshake.addr(), now, todo.paths);
        queue(l.handshake.relay().server, out, now, todo);
    }
    std::erase_if(leases_, [&](const Lease& l) { return l.handshake.failed(now); });
    if (dropped) legs_changed(now, todo);
    if (paths_.next_timeout() <= now) paths_.handle_timeout(now, todo.paths);
}

void ViaPaths::fill(PeerPathStatus& status, Time now) const {
    PeerPathStatus of_paths;
    paths_.fill(of_paths, now);
    if (trusted(now)) {
        status.via_addr = paths_.best();
        status.via_vni = vni_of(paths_.best());
        status.via_latency = of_paths.latency;
    }
    for (const Lease& l : leases_) {
        ViaStatus s;
        s.server = l.handshake.relay().server;
        s.addr = l.leg.addr;
        s.vni = l.handshake.relay().vni;
        s.bound = l.handshake.is_proved();
        for (const CandidateStatus& c : of_paths.candidates)
            if (l.leg.vni != 0 && c.ep == l.leg.addr) s.path = c;
        status.via.push_back(s);
    }
}

}  // namespace mesh::magicsock
