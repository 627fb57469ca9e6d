// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/relay/handshake.h"

#include <algorithm>
#include <array>

namespace mesh::relay {
namespace {

constexpr std::array<Duration, 4> kRepeat{milliseconds(500), milliseconds(500), seconds(1), seconds(2)};

}  // namespace

Handshake::Handshake(disco::RelayEndpoint relay, const DiscoPublic& remote, uint32_t generation, Time now, std::vector<Out>& out)
    : relay_(std::move(relay)), deadline_(now + std::min(relay_.bind_lifetime, kMaxHandshake)) {
    if (relay_.addrs.size() > kMaxBindAddrs) relay_.addrs.resize(kMaxBindAddrs);
    message_ = {disco::RelayBind::Step::kBind, relay_.vni, generation, remote, {}};
    send(now, out);
}

void Handshake::send(Time now, std::vector<Out>& out) {
    if (addr_.is_valid()) {
        out.push_back({addr_, message_});
    } else {
        for (const Endpoint& a : relay_.addrs) out.push_back({a, message_});
    }
    again_ = sent_ < kRepeat.size() ? now + kRepeat[sent_] : Time::never();
    ++sent_;
}

bool Handshake::heard_challenge(const disco::RelayBind& m, const Endpoint& from, uint32_t header_vni, Time now, std::vector<Out>& out) {
    if (m.step != disco::RelayBind::Step::kChallenge || addr_.is_valid() || failed(now)) return false;
    if (m.vni != relay_.vni || header_vni != relay_.vni || m.remote != message_.remote || m.generation != message_.generation) return false;
    addr_ = from;
    message_.step = disco::RelayBind::Step::kAnswer;
    message_.challenge = m.challenge;
    sent_ = 0;
    send(now, out);
    return true;
}

Time Handshake::next_timeout() const { return proved_ ? Time::never() : min(again_, deadline_); }

void Handshake::handle_timeout(Time now, std::vector<Out>& out) {
    if (!proved_ && now >= again_ && now < deadline_) send(now, out);
}

}  // namespace mesh::relay
