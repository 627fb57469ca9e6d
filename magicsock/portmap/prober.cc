// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/portmap/prober.h"

#include <algorithm>
#include <utility>

#include "magicsock/portmap/natpmp.h"
#include "magicsock/portmap/pcp.h"

namespace mesh::portmap {

void Prober::start(const Network& network, Time now) {
    network_ = network;
    found_ = {};
    out_.clear();
    again_ = next_ = Time::never();
    end_ = now;
    if (!network.usable()) return;
    end_ = now + kPatience;
    next_ = again_ = now + kAgain;
    ask();
}

/// Whoever has not answered yet.
void Prober::ask() {
    const Endpoint pxp{network_.gateway, kPxpPort};
    if (!found_.natpmp) out_.push_back({pxp, to_bytes(natpmp::encode_address_request())});
    if (!found_.pcp) out_.push_back({pxp, pcp::encode_announce(network_.self)});
    if (!network_.upnp || found_.upnp()) return;
    // Firewalls of hosts let the answer to a datagram for the gateway in, but not answers to multicast; some gateways hear only the latter.
    const Endpoint gateway{network_.gateway, ssdp::kPort};
    out_.push_back({gateway, to_bytes(as_bytes(ssdp::search(ssdp::kAll)))});
    out_.push_back({ssdp::multicast(), to_bytes(as_bytes(ssdp::search(ssdp::kAll)))});
    out_.push_back({ssdp::multicast(), to_bytes(as_bytes(ssdp::search(ssdp::kGateway)))});
}

std::optional<Datagram> Prober::next_send() {
    if (out_.empty()) return std::nullopt;
    Datagram d = std::move(out_.front());
    out_.erase(out_.begin());
    return d;
}

bool Prober::handle(ByteSpan datagram, const Endpoint& from) {
    if (!network_.usable()) return false;
    if (from == Endpoint{network_.gateway, kPxpPort}) {
        if (const auto answer = natpmp::decode(datagram)) {
            const auto* address = std::get_if<natpmp::AddressAnswer>(&*answer);
            if (address == nullptr || address->result != 0) return false;
            found_.external = address->external;
            return !std::exchange(found_.natpmp, true);
        }
        const auto answer = pcp::decode(datagram);
        if (!answer || answer->result != 0) return false;
        return !std::exchange(found_.pcp, true);
    }
    if (!network_.upnp) return false;
    const auto answer = ssdp::parse(datagram);
    if (!answer) return false;
    const bool own = from.addr == network_.gateway;
    if (!own && std::find(found_.strangers.begin(), found_.strangers.end(), from.addr) == found_.strangers.end() &&
        found_.strangers.size() < kMaxStrangers)
        found_.strangers.push_back(from.addr);
    auto& igds = found_.igds;
    const auto known = std::find(igds.begin(), igds.end(), *answer);
    if (known != igds.end() || igds.size() >= kMaxIgds) return false;
    igds.insert(own ? igds.begin() : igds.end(), *answer);
    return true;
}

void Prober::handle_timeout(Time now) {
    if (now >= again_) {
        again_ = Time::never();
        ask();
    }
    next_ = now < end_ ? min(again_, end_) : Time::never();
}

}  // namespace mesh::portmap
