// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The first routers on the way to an address, as traceroute finds them, without rights: datagrams that may pass few hops,
/// and the ICMP errors that come back in the socket's error queue.

#include <vector>

#include "base/ip.h"
#include "base/time.h"

namespace mesh::platform {

/// Asks for hops 1 … `count` (at most 16) towards an IPv4 address and waits for at most `patience` in all. An invalid Addr
/// stands for a hop that kept silent; the list ends before the destination. Empty: no socket, no route, or not IPv4. Blocks.
[[nodiscard]] std::vector<Addr> first_hops(const Addr& towards, int count, Duration patience);

}  // namespace mesh::platform
