// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Which of NAT-PMP, PCP and UPnP the default gateway speaks: all are asked at once, again after 100 ms, and those that have not
/// answered after 250 ms are taken as absent (an answer that comes later still counts). IPv4 only; asks nothing of the router.

#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/ip.h"
#include "base/time.h"
#include "magicsock/portmap/ssdp.h"

namespace mesh::portmap {

/// The way out of this host.
struct Network {
    Addr gateway;  ///< of the default route; IPv4 or none
    Addr self;     ///< ours, as the gateway sees it
    bool upnp = true;  ///< false: NAT-PMP and PCP only
    bool operator==(const Network&) const = default;
    [[nodiscard]] bool usable() const { return gateway.is_v4() && self.is_v4() && gateway != self; }
};

struct Datagram {
    Endpoint to;
    Bytes bytes;
};

/// What answered.
struct Found {
    bool natpmp = false, pcp = false;
    std::vector<ssdp::Answer> igds;  ///< gateway's own first; `at` is as they say, not proven
    std::vector<Addr> strangers;     ///< Internet gateways by UPnP that are not our gateway
    Addr external;                   ///< of the gateway, by NAT-PMP
    [[nodiscard]] bool upnp() const { return !igds.empty(); }
    [[nodiscard]] bool all() const { return natpmp && pcp && upnp(); }
};

class Prober {
   public:
    static constexpr Duration kPatience = milliseconds(250);
    static constexpr Duration kAgain = milliseconds(100);
    static constexpr size_t kMaxIgds = 10;
    static constexpr size_t kMaxStrangers = 4;

    /// A network that is not usable: done at once, nothing found.
    void start(const Network& network, Time now);
    /// The next datagram to send, from one socket bound to `self`; drain after start() and handle_timeout().
    [[nodiscard]] std::optional<Datagram> next_send();
    /// True if something was found that was not known before.
    bool handle(ByteSpan datagram, const Endpoint& from);
    [[nodiscard]] const Found& found() const { return found_; }
    [[nodiscard]] bool done(Time now) const { return now >= end_; }
    [[nodiscard]] Time next_timeout() const { return next_; }
    void handle_timeout(Time now);

   private:
    void ask();

    Network network_;
    Found found_;
    std::vector<Datagram> out_;
    Time next_ = Time::never(), again_ = Time::never(), end_;
};

}  // namespace mesh::portmap
