// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Asks the kernel which way datagrams would go, without sending any.

#include "base/ip.h"
#include "platform/net/socket_mark.h"

namespace mesh::platform {

/// Which address of ours a datagram to `to` would carry; none if there is no route.
[[nodiscard]] Addr source_address(const Addr& to, Protect protect);

}  // namespace mesh::platform
