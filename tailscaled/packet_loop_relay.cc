// SPDX-License-Identifier: BSD-3-Clause
// The packet loop and this node's own UDP relay.
#include "tailscaled/packet_loop.h"

namespace mesh::daemon {

namespace {
constexpr size_t kRelayRequestsPerTurn = 64;
}  // namespace

void PacketLoop::set_relay_client(bool allowed, bool own_server) { plane_.sock().set_relay_client(allowed, own_server); }

void PacketLoop::set_relay_server(RelayService::Sockets sockets) {
    relay_.reset();  // first: the new one may have its port
    if (!sockets.v4) return;
    relay_ = std::make_unique<RelayService>(loop_, random_, std::move(sockets), [this](const std::vector<std::string>& hosts) { resolve_names(hosts); });
    relay_->set_static_endpoints(relay_static_);
    relay_->set_derp_map(derp_map_);
    relay_->set_local_addrs(local_addrs_, have_v4_, have_v6_);
}

void PacketLoop::set_relay_static_endpoints(const std::vector<Endpoint>& endpoints) {
    relay_static_ = endpoints;
    if (relay_) relay_->set_static_endpoints(endpoints);
}

// Magicsock tells it in the middle of its work and may not be called back there.
void PacketLoop::relay_requested(PeerId by, const disco::AllocateRequest& request) {
    if (relay_ && relay_requests_.size() < kRelayRequestsPerTurn) relay_requests_.emplace_back(by, request);
}

void PacketLoop::answer_relay_requests() {
    const Time now = loop_.now();
    for (const auto& [by, request] : std::exchange(relay_requests_, {}))
        if (const auto endpoint = relay_ ? relay_->allocate(request.clients) : std::nullopt)
            plane_.sock().relay_allocated(by, {request.generation, *endpoint}, now);
    plane_.settle(now);
}

}  // namespace mesh::daemon
