// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/dataplane/tunnel_ping.h"

#include <algorithm>

namespace mesh::dataplane {

uint64_t TunnelPings::start(uint64_t id, PeerId peer, PingKind kind, Random& random, Time now) {
    uint64_t token = random.u64();
    if (kind == PingKind::kIcmp) token = token & 0xFFFFFFFFU;
    open_.push_back({id, token, peer, kind, now});
    return token;
}

bool TunnelPings::answer(PeerId peer, PingKind kind, uint64_t token, uint16_t peerapi_port, Time now, Ended& out) {
    const auto it = std::find_if(open_.begin(), open_.end(), [&](const Open& o) {
        return o.peer == peer && o.kind == kind && o.token == token;
    });
    if (it == open_.end()) return false;
    out = {it->id, {peer, kind, true, now - it->sent, peerapi_port}};
    open_.erase(it);
    return true;
}

bool TunnelPings::expire(Time now, Ended& out) {
    if (open_.empty() || (open_.size() <= kMax && now < next_timeout())) return false;
    const Open& o = open_.front();
    out = {o.id, {o.peer, o.kind, false, now - o.sent, 0}};
    open_.erase(open_.begin());
    return true;
}

}  // namespace mesh::dataplane
