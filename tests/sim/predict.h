// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What must come out, from the kind of the two networks alone.

#include "tests/sim/nat.h"

namespace mesh::sim {

/// Where a node sits, as far as it matters for reaching it.
struct Place {
    int site = 0;                      ///< nodes of one site reach each other inside
    NatType v4 = kOpen;
    bool has_v6 = false;
    Depends v6_filter = Depends::kNothing;
    size_t mtu = 1500;                 ///< of IP packets on the way out of the site; longer ones are lost, and nobody says so
};

/// What a full packet of the tunnel (1280 bytes) is on the wire.
inline constexpr size_t kFullPacketV4 = 1340, kFullPacketV6 = 1360;

/// True if two peers that probe all advertised addresses of each other, answer each probe, and probe back whatever
/// probed them, must find a path that works in both directions and carries full packets; false if none can exist.
[[nodiscard]] bool direct_path_possible(const Place& a, const Place& b);
/// True if such a path may run by another mapping of a NAT in each direction: behind a NAT that maps per destination and
/// lets everybody in, a node is reached by one mapping and answers by another. Nothing the node sends refreshes the first,
/// so the path dies when that expires, and another must be found.
[[nodiscard]] bool direct_path_may_lapse(const Place& a, const Place& b);

}  // namespace mesh::sim
