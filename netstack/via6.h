// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// 4via6: sites with equal IPv4 networks are told apart by IPv6 addresses fd7a:115c:a1e0:b1a:0:SITE:a.b.c.d. The router of a
/// site turns packets to such an address into IPv4 ones for a.b.c.d, from the client's own IPv4 address, hands them to
/// its kernel, and turns the answers back (header translation as in RFC 7915). Whole TCP, UDP and echo packets, and
/// ICMP errors about them; fragments are refused.
///
/// Which site an answer belongs to is remembered per flow in a table of fixed size. Pure; no allocation per packet.

#include <vector>

#include "base/time.h"
#include "netstack/packet.h"

namespace mesh::netstack {

/// Is that prefix one of 4via6 (…:b1a::/64 with a site and part of an IPv4 address)?
[[nodiscard]] bool is_via6(const Prefix& p);
/// The IPv4 part: fd7a:115c:a1e0:b1a:0:7:10.1.0.0/112 → 10.1.0.0/16. is_via6(p) must hold.
[[nodiscard]] Prefix via6_target(const Prefix& p);

class Via6 {
   public:
    static constexpr size_t kFlows = 8192;
    static constexpr Duration kIdle = minutes(10);  ///< a flow of another site may take its place then
    /// Room that to_v6() needs beyond the IPv4 packet's length.
    static constexpr size_t kGrowth = 20 + 20;

    /// `hash_seed`: secret.
    explicit Via6(uint64_t hash_seed) : seed_(hash_seed) {}

    /// Prefixes of 4via6 that this node routes. Flows stay.
    void set_routes(std::vector<Prefix> routes);
    [[nodiscard]] bool active() const { return !routes_.empty(); }
    [[nodiscard]] bool matches(const Addr& dst) const;

    /// Turns a packet to a matching address into one from `client` in place; the result lies in `packet`. Empty: refused
    /// (a fragment, another protocol, a forbidden target, a flow that is taken).
    [[nodiscard]] MutByteSpan to_v4(MutByteSpan packet, const Parsed& p, const Addr& client, Time now);
    /// Is this an answer to a translated flow, or an error about one? `bytes` from the IP header on.
    [[nodiscard]] bool is_answer(ByteSpan bytes, const Parsed& p) const;
    /// Writes such an answer as IPv6 to `out` (packet.size() + kGrowth bytes). Returns its length, 0 if it cannot be.
    [[nodiscard]] size_t to_v6(ByteSpan packet, const Parsed& p, MutByteSpan out, Time now);

   private:
    struct Key {
        uint32_t client = 0, target = 0;
        uint16_t client_port = 0, target_port = 0;  // echo: the identifier, 0
        uint8_t proto = 0;
        bool operator==(const Key&) const = default;
    };
    struct Flow {
        Key key;
        Addr client6, target6;
        Time used;  // zero: free
    };
    static constexpr size_t kWays = 8;

    [[nodiscard]] size_t bucket(const Key& key) const;
    [[nodiscard]] const Flow* find(const Key& key) const;
    [[nodiscard]] static bool answer_key(ByteSpan bytes, const Parsed& p, Key& key);
    [[nodiscard]] bool remember(const Key& key, const Parsed& p, Time now);

    uint64_t seed_;
    std::vector<Prefix> routes_;
    std::vector<Flow> flows_;  // kFlows once there are routes
};

}  // namespace mesh::netstack
