// SPDX-License-Identifier: BSD-3-Clause
#include "tests/sim/nat.h"

namespace mesh::sim {

Endpoint Nat::part(const Endpoint& e, Depends d) {
    switch (d) {
        case Depends::kNothing: return {};
        case Depends::kAddress: return {e.addr, 0};
        case Depends::kAddressAndPort: break;
    }
    return e;
}

uint16_t Nat::free_port(uint16_t wanted) {
    std::set<uint16_t> used;
    for (const auto& [key, m] : mappings_) used.insert(m.outside.port);
    if (type_.preserves_port && !used.contains(wanted)) return wanted;
    for (;;) {
        const auto port = static_cast<uint16_t>(1024 + random_.below(60000));
        if (port != wanted && !used.contains(port)) return port;
    }
}

std::optional<Endpoint> Nat::outbound(const Endpoint& inside, const Endpoint& to, Time now) {
    if (type_.udp_blocked) return std::nullopt;
    const Key key{inside, part(to, type_.mapping)};
    auto it = mappings_.find(key);
    if (it != mappings_.end() && now - it->second.last >= type_.expiry) {
        mappings_.erase(it);
        it = mappings_.end();
    }
    if (it == mappings_.end()) {
        const Endpoint outside = type_.translates ? Endpoint{wan_, free_port(inside.port)} : inside;
        it = mappings_.emplace(key, Mapping{outside, now, {}}).first;
    }
    it->second.last = now;
    it->second.allowed[part(to, type_.filtering)] = now;
    return it->second.outside;
}

std::optional<Endpoint> Nat::inbound(const Endpoint& from, const Endpoint& at, Time now) const {
    if (type_.udp_blocked) return std::nullopt;
    if (!type_.translates && type_.filtering == Depends::kNothing) return at;
    for (const auto& [key, m] : mappings_) {
        if (m.outside != at || now - m.last >= type_.expiry) continue;
        const auto it = m.allowed.find(part(from, type_.filtering));
        if (it != m.allowed.end() && now - it->second < type_.expiry) return key.inside;
    }
    return std::nullopt;
}

}  // namespace mesh::sim
