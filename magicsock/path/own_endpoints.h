// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Our own endpoints, from all that we know of them, in the order in which they are advertised:
///   portmapped · STUN v4, then v6 (the first answer, then every other address seen more than once) · STUN v4 address
///   with our own port if the mapping varies by destination · STUN results of the last five minutes (a NAT may still
///   hold them) · static ones · interface addresses. Duplicates: the first type wins.
/// Source: tailscale/tailscale wgengine/magicsock/magicsock.go (determineEndpoints), endpoint_tracker.go.

#include <optional>
#include <vector>

#include "base/ip.h"
#include "base/time.h"
#include "magicsock/netcheck/netcheck.h"
#include "magicsock/path/types.h"

namespace mesh::magicsock {

class OwnEndpoints {
   public:
    static constexpr Duration kCacheLifetime = seconds(310);
    static constexpr size_t kCachePerAddr = 6;
    static constexpr size_t kMaxCache = 24;
    static constexpr size_t kMaxAdvertised = 48;

    void set_local(std::vector<Endpoint> local) { local_ = std::move(local); }
    void set_portmapped(std::optional<Endpoint> e) { portmapped_ = e; }
    void set_static(std::vector<Endpoint> e) { static_ = std::move(e); }
    /// A netcheck starts: the next mapped() of each family is its first answer.
    void begin_report();
    /// A STUN answer that shows this mapped endpoint. Only the first of a report and family counts here, so that a fresh
    /// address is known before the report ends.
    void mapped(const Endpoint& e, Time now);
    void end_report(const netcheck::Report& report, Time now);
    /// The network changed: everything learnt from outside is void.
    void forget_learnt();

    [[nodiscard]] std::vector<LocalEndpoint> list(Time now) const;
    /// When the next cached endpoint expires, after `now`; never if none is left.
    [[nodiscard]] Time next_expiry(Time now) const;

   private:
    struct Cached {
        Endpoint ep;
        EndpointType type;
        Time until;
    };
    void remember(const Endpoint& e, EndpointType type, Time now);
    [[nodiscard]] uint16_t local_port() const;

    std::vector<Endpoint> local_, static_;
    std::optional<Endpoint> portmapped_;
    std::vector<LocalEndpoint> learnt_;  // of the newest report
    std::vector<Cached> cache_;          // oldest first
    bool fresh_v4_ = false, fresh_v6_ = false;
};

}  // namespace mesh::magicsock
