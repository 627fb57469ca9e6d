// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/user_datagrams.h"

#include <utility>

#include "netstack/udp.h"

namespace mesh::daemon {

namespace {
constexpr Duration kSweep = seconds(10);
}  // namespace

UserDatagrams::UserDatagrams(platform::Loop& loop, size_t mtu, Emit emit)
    : loop_(loop), mtu_(mtu), emit_(std::move(emit)), sweep_(loop, [this] { sweep(); }) {}

void UserDatagrams::send(const Endpoint& remote, const Endpoint& local, const Endpoint& target, ByteSpan payload) {
    if (const auto it = by_key_.find({remote, local}); it != by_key_.end()) {
        use(it->second);
        return it->second->socket->send(payload);
    }
    if (flows_.size() >= kMaxFlows) drop(std::prev(flows_.end()));
    flows_.push_front({remote, local, loop_.now(), nullptr});
    const Flows::iterator flow = flows_.begin();
    by_key_[{remote, local}] = flow;
    auto socket = platform::DatagramSocket::connect(loop_, target, remote.port, [this, flow](ByteSpan bytes) { answer(flow, bytes); });
    if (!socket) return drop(flow);  // as if nobody were there
    flow->socket = std::move(*socket);
    flow->socket->send(payload);
    if (!sweep_.armed()) sweep_.set_after(kSweep);
}

void UserDatagrams::answer(Flows::iterator flow, ByteSpan payload) {
    use(flow);
    const Bytes packet = netstack::build_udp(flow->local, flow->remote, payload);
    if (!packet.empty() && packet.size() <= mtu_) emit_(packet);
}

void UserDatagrams::use(Flows::iterator flow) {
    flow->used = loop_.now();
    flows_.splice(flows_.begin(), flows_, flow);
}

void UserDatagrams::drop(Flows::iterator flow) {
    by_key_.erase({flow->remote, flow->local});
    flows_.erase(flow);
}

void UserDatagrams::sweep() {
    const Time now = loop_.now();
    for (auto it = flows_.begin(); it != flows_.end();) {
        const auto flow = it++;
        if (now - flow->used > (flow->local.port == 53 ? kIdleDns : kIdle)) drop(flow);
    }
    if (!flows_.empty()) sweep_.set_after(kSweep);
}

void UserDatagrams::clear() {
    by_key_.clear();
    flows_.clear();
}

const Endpoint* UserDatagrams::client_of(const Endpoint& backend) const {
    for (const Flow& f : flows_)
        if (f.socket && f.socket->local_endpoint() == backend) return &f.remote;
    return nullptr;
}

}  // namespace mesh::daemon
