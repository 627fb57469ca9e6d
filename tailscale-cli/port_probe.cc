// SPDX-License-Identifier: BSD-3-Clause
#include "tailscale-cli/port_probe.h"

#include <algorithm>

#include "platform/linux/net_monitor.h"
#include "platform/net/source_address.h"

namespace mesh::cli {

PortProbe::PortProbe(platform::Loop& loop)
    : loop_(loop), timer_(loop, [this] {
          prober_.handle_timeout(loop_.now());
          drive();
      }) {
    portmap::Network network;
    if (const auto net = platform::read_net_state()) {
        const auto gateway = std::find_if(net->gateways.begin(), net->gateways.end(), [](const Addr& a) { return a.is_v4(); });
        if (gateway != net->gateways.end()) network = {*gateway, platform::source_address(*gateway, platform::Protect::kNo)};
    }
    if (network.usable()) {
        platform::UdpSocket::Options options;
        options.bind_addr = network.self;
        options.protect = platform::Protect::kNo;
        options.bulk = false;
        if (auto socket = platform::UdpSocket::open(options)) socket_ = std::move(*socket);
    }
    if (socket_) socket_->attach(loop_, *this);
    prober_.start(socket_ ? network : portmap::Network{}, loop_.now());
    drive();
}

void PortProbe::drive() {
    while (const auto d = prober_.next_send())
        if (socket_) socket_->send(d->to, d->bytes);
    timer_.set(prober_.next_timeout());
}

void PortProbe::on_datagrams(std::span<UdpReceive> batch) {
    for (const UdpReceive& r : batch) (void)prober_.handle(r.bytes, r.from);
}

}  // namespace mesh::cli
