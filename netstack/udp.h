// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// UDP datagrams of our own.

#include "base/bytes.h"
#include "base/ip.h"

namespace mesh::netstack {

/// A whole IP packet with checksums. Empty if the families differ or it would be longer than 65,535 bytes.
[[nodiscard]] Bytes build_udp(const Endpoint& src, const Endpoint& dst, ByteSpan payload);

}  // namespace mesh::netstack
