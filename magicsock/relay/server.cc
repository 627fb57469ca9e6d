// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/relay/server.h"

#include <algorithm>

#include "base/crypto/crypto.h"

namespace mesh::relay {

using disco::RelayBind;

Server::Server(Random& random, const DiscoPrivate& key) : random_(random), private_(key), public_(key.public_key()) {}

void Server::set_addrs(std::vector<Endpoint> addrs) {
    if (addrs.size() > disco::kMaxEndpoints) addrs.resize(disco::kMaxEndpoints);
    addrs_ = std::move(addrs);
}

// ---- endpoints

std::optional<disco::RelayEndpoint> Server::allocate(const DiscoPublic& a, const DiscoPublic& b, Time now) {
    const auto refuse = [this]() -> std::optional<disco::RelayEndpoint> {
        ++counters_.refused;
        return std::nullopt;
    };
    if (addrs_.empty() || a == b || a == public_ || b == public_) return refuse();
    const disco::DiscoPair pair = disco::sorted_pair(a, b);
    if (const auto mine = by_client_.find(pair[0]); mine != by_client_.end()) {
        for (const uint32_t vni : mine->second) {
            Entry& e = by_vni_.at(vni);
            if (e.legs[1].disco != pair[1] && e.legs[0].disco != pair[1]) continue;
            if (expired(e, now)) {
                erase(vni);
                break;
            }
            if (!e.bound()) e.allocated = now;  // its clients begin only now
            return describe(e);
        }
    }
    for (const DiscoPublic& k : pair)
        if (const auto it = by_client_.find(k); it != by_client_.end() && it->second.size() >= kMaxPerClient) return refuse();
    if (by_vni_.size() >= kMaxEndpoints) return refuse();
    auto first = disco::SharedKey::derive(private_, pair[0]);
    auto second = disco::SharedKey::derive(private_, pair[1]);
    if (!first || !second) return refuse();
    const uint32_t vni = next_vni();
    Entry e{{Leg{pair[0], std::move(*first), {}, 0, {}, 0, 0}, Leg{pair[1], std::move(*second), {}, 0, {}, 0, 0}}, vni, ++lamport_, now};
    const auto [it, fresh] = by_vni_.emplace(vni, std::move(e));
    for (const DiscoPublic& k : pair) by_client_[k].push_back(vni);
    collect_at_ = min(collect_at_, now + kCollectInterval);
    return describe(it->second);
}

disco::RelayEndpoint Server::describe(const Entry& e) const {
    return {public_, {e.legs[0].disco, e.legs[1].disco}, e.lamport, e.vni, kBindLifetime, kSteadyLifetime, addrs_};
}

// Round robin, so that a number is used again as late as possible. There are far more of them than endpoints.
uint32_t Server::next_vni() {
    for (;;) {
        const uint32_t vni = next_vni_;
        next_vni_ = vni == kMaxVni ? 1 : vni + 1;
        if (!by_vni_.contains(vni)) return vni;
    }
}

bool Server::expired(const Entry& e, Time now) const {
    if (!e.bound()) return now - e.allocated > kBindLifetime;
    return now - e.legs[0].last_seen > kSteadyLifetime || now - e.legs[1].last_seen > kSteadyLifetime;
}

void Server::erase(uint32_t vni) {
    const auto it = by_vni_.find(vni);
    if (it->second.bound()) --open_;
    for (const Leg& leg : it->second.legs) {
        const auto c = by_client_.find(leg.disco);
        std::erase(c->second, vni);
        if (c->second.empty()) by_client_.erase(c);
    }
    by_vni_.erase(it);
}

Time Server::next_timeout() const { return collect_at_; }

void Server::handle_timeout(Time now) {
    if (now < collect_at_) return;
    std::vector<uint32_t> over;
    for (const auto& [vni, e] : by_vni_)
        if (expired(e, now)) over.push_back(vni);
    for (const uint32_t vni : over) erase(vni);
    collect_at_ = by_vni_.empty() ? Time::never() : now + kCollectInterval;
}

// ---- datagrams

Server::Received Server::receive(ByteSpan datagram, const Endpoint& from, Time now) {
    const auto header = Geneve::parse(datagram);
    if (!header) {
        ++counters_.foreign;
        return {};
    }
    const auto it = by_vni_.find(header->vni);
    if (it == by_vni_.end()) {
        ++counters_.unknown_vni;
        return {};
    }
    Entry& e = it->second;
    if (header->control) return control(e, datagram.subspan(kGeneveLen), from, now);
    if (!e.bound()) {
        ++counters_.unbound;
        return {};
    }
    for (size_t i = 0; i < 2; ++i) {
        Leg& leg = e.legs[i];
        if (leg.addr != from) continue;
        leg.last_seen = now;
        ++leg.packets;
        leg.bytes += datagram.size();
        return {Verdict::kForward, e.legs[1 - i].addr};
    }
    ++counters_.wrong_source;
    return {};
}

Server::Received Server::control(Entry& e, ByteSpan sealed, const Endpoint& from, Time now) {
    const auto refuse = [this] {
        ++counters_.bad_control;
        return Received{};
    };
    if (!disco::looks_like_disco(sealed)) return refuse();
    const DiscoPublic sender = disco::sender_of(sealed);
    const size_t mine = sender == e.legs[0].disco ? 0 : 1;
    Leg& leg = e.legs[mine];
    if (leg.disco != sender) return refuse();
    const auto payload = leg.shared.open(sealed);
    const auto message = payload ? disco::parse(*payload) : std::nullopt;
    const RelayBind* m = message ? std::get_if<RelayBind>(&*message) : nullptr;
    if (m == nullptr || m->vni != e.vni || m->remote != e.legs[1 - mine].disco || m->generation == 0) return refuse();
    rotate(now);
    if (m->step == RelayBind::Step::kBind) {
        leg.generation = m->generation;
        RelayBind challenge = *m;
        challenge.step = RelayBind::Step::kChallenge;
        challenge.challenge = mac(secrets_[0], *m, from);
        reply_ = Geneve{Geneve::kDisco, true, e.vni}.around(leg.shared.seal(public_, disco::encode(challenge), random_));
        ++counters_.challenges;
        return {Verdict::kReply, from};
    }
    if (m->step != RelayBind::Step::kAnswer || m->generation != leg.generation) return refuse();
    const bool valid = std::any_of(secrets_.begin(), secrets_.end(), [&](const LockedKey& secret) {
        return !secret.is_zero() && crypto::equal_constant_time(mac(secret, *m, from), m->challenge);
    });
    if (!valid) return refuse();
    const bool was_open = e.bound();
    leg.addr = from;
    leg.last_seen = now;
    leg.generation = 0;
    if (!was_open && e.bound()) {
        ++open_;
        e.legs[1 - mine].last_seen = now;  // the five minutes begin when there is somebody to talk to
    }
    ++counters_.bound;
    return {};
}

void Server::rotate(Time now) {
    if (!secrets_[0].is_zero() && now - rotated_ < kMacSecretLifetime) return;
    // After a long rest the newest is too old even for the second place.
    if (!secrets_[0].is_zero() && now - rotated_ < kMacSecretLifetime * 2)
        secrets_[1] = secrets_[0];
    else
        secrets_[1].wipe();
    random_.fill(secrets_[0].bytes());
    rotated_ = now;
}

std::array<uint8_t, 32> Server::mac(const LockedKey& secret, const RelayBind& m, const Endpoint& from) {
    std::array<uint8_t, 4 + 4 + 32 + 16 + 2> data;
    store_be32(data.data(), m.vni);
    store_be32(data.data() + 4, m.generation);
    std::copy(m.remote.raw.begin(), m.remote.raw.end(), data.begin() + 8);
    const auto ip = from.addr.mapped16();
    std::copy(ip.begin(), ip.end(), data.begin() + 40);
    store_be16(data.data() + 56, from.port);
    return crypto::blake2s_mac32(secret.bytes(), data);
}

std::vector<Server::Session> Server::sessions() const {
    std::vector<Session> out;
    for (const auto& [vni, e] : by_vni_) {
        Session s{vni, {}};
        for (size_t i = 0; i < 2; ++i) s.clients[i] = {e.legs[i].disco, e.legs[i].addr, e.legs[i].packets, e.legs[i].bytes};
        out.push_back(s);
    }
    std::sort(out.begin(), out.end(), [](const Session& a, const Session& b) { return a.vni < b.vni; });
    return out;
}

}  // namespace mesh::relay
