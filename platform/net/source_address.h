// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Asks the kernel which way datagrams would go, without sending any.

#include "base/ip.h"
#include "platform/net/byte_stream.h"
#include "platform/net/socket_mark.h"

namespace mesh::platform {

/// Which address of ours a datagram to `to` would carry; none if there is no route.
[[nodiscard]] Addr source_address(const Addr& to, Protect protect);

/// After the network changed: would this stream's connection be made from another address now? Then it is dead, though the
/// kernel says so only after minutes. Without any way the answer is no: nothing is better.
[[nodiscard]] bool route_moved(const ByteStream& stream);

}  // namespace mesh::platform
