// SPDX-License-Identifier: BSD-3-Clause
#include "tests/sim/predict.h"

namespace mesh::sim {
namespace {

// What STUN shows is where peers can reach it, too.
bool address_known(const NatType& n) { return n.mapping == Depends::kNothing; }

// x is behind a NAT with an unknown address; y is at a known one.
bool known_with_unknown(const NatType& known) {
    // The unknown side sends from a new port. The known side has probed the right address, but another port.
    return known.filtering != Depends::kAddressAndPort;
}

bool v4_possible(const NatType& a, const NatType& b) {
    if (a.udp_blocked || b.udp_blocked) return false;
    const bool ka = address_known(a), kb = address_known(b);
    if (ka && kb) return true;  // both probe the very endpoint that the other probes from
    if (ka) return known_with_unknown(a);
    if (kb) return known_with_unknown(b);
    return false;  // no such NAT here has an unknown address and lets strangers in
}

}  // namespace

bool direct_path_possible(const Place& a, const Place& b) {
    if (a.site == b.site) return true;
    // IPv6 is never translated here, so both addresses are known, and both sides probe.
    if (a.has_v6 && b.has_v6) return true;
    return v4_possible(a.v4, b.v4);
}

}  // namespace mesh::sim
