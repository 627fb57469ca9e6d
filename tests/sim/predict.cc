// SPDX-License-Identifier: BSD-3-Clause
#include "tests/sim/predict.h"

#include <algorithm>

namespace mesh::sim {
namespace {

// What STUN shows is where peers can reach it, too.
bool address_known(const NatType& n) { return n.mapping == Depends::kNothing; }

// The first probe of x, to the endpoint that y advertises, gets in, and y's answer comes back to x.
bool reaches(const NatType& x, const NatType& y) {
    const bool in = y.filtering == Depends::kNothing ||
                    // y's own probes open the way, but only in the mapping that it advertises ...
                    (address_known(y) && (y.filtering == Depends::kAddress || address_known(x)));
    // ... and y answers from the endpoint that x probed only if its mapping does not depend on whom it talks to.
    return in && (x.filtering != Depends::kAddressAndPort || address_known(y));
}

bool v4_possible(const NatType& a, const NatType& b) {
    if (a.udp_blocked || b.udp_blocked) return false;
    return reaches(a, b) || reaches(b, a);
}

}  // namespace

bool direct_path_possible(const Place& a, const Place& b) {
    if (a.site == b.site) return true;
    const size_t mtu = std::min(a.mtu, b.mtu);
    // IPv6 is never translated here, so both addresses are known, and both sides probe.
    if (a.has_v6 && b.has_v6 && mtu >= kFullPacketV6) return true;
    return mtu >= kFullPacketV4 && v4_possible(a.v4, b.v4);
}

bool direct_path_may_lapse(const Place& a, const Place& b) {
    const auto apart = [](const NatType& n) { return !address_known(n) && n.filtering == Depends::kNothing; };
    return a.site != b.site && (apart(a.v4) || apart(b.v4));
}

}  // namespace mesh::sim
