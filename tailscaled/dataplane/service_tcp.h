// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// TCP to port 53 of 100.100.100.100 and fd7a:115c:a1e0::53 without a TCP stack of our own: the packets are given other
/// addresses and written back to the TUN, so that the kernel ends the connection at a listener of this daemon; what the
/// listener sends comes by the TUN again and is turned back.
///
///   client C:p  → service:53     becomes   service:f → self:listener
///   self:listener → service:f    becomes   service:53 → C:p
///
/// f is the client's own port where it is free. A connection to another port of the service is refused (RST). Nobody but
/// the host reaches the listener this way: it takes connections from the service address only, and no peer may send from
/// there. Pure, one thread.

#include <list>
#include <unordered_map>

#include "base/bytes.h"
#include "base/ip.h"
#include "netstack/packet.h"

namespace mesh::dataplane {

class ServiceTcp {
   public:
    static constexpr size_t kMaxFlows = 512;  ///< the one longest unused goes
    static constexpr uint16_t kDnsPort = 53;

    /// Port 0: no listener, every connection is refused.
    void set_listener(uint16_t port) { listener_ = port; }
    /// Rewrites a whole TCP packet for the service in place. Returns the bytes to write to the TUN: `packet`, or a RST
    /// in its place; empty: drop it. `self`: this node's address of that family.
    [[nodiscard]] MutByteSpan rewrite(MutByteSpan packet, const netstack::Parsed& p, const Addr& self);
    [[nodiscard]] size_t flows() const { return by_client_.size(); }

   private:
    struct Flow {
        Endpoint client;
        uint16_t port;  ///< f
    };
    using Flows = std::list<Flow>;  // used last comes first
    [[nodiscard]] Flow& flow_of(const Endpoint& client);
    [[nodiscard]] static uint32_t key(uint16_t port, bool v6) { return uint32_t{port} | (v6 ? 0x10000U : 0U); }

    uint16_t listener_ = 0;
    Flows flows_;
    std::unordered_map<Endpoint, Flows::iterator> by_client_;
    std::unordered_map<uint32_t, Flows::iterator> by_port_;
};

}  // namespace mesh::dataplane
