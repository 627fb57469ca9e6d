// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Keeps our own traffic out of our own tunnel: SO_MARK 0x80000 (ip rules send marked packets to the main table), or,
/// without CAP_NET_ADMIN, SO_BINDTODEVICE to the interface of the default route. Loopback destinations are exempt.

#include <cstdint>
#include <string>

#include "base/ip.h"
#include "base/result.h"

namespace mesh::platform {

inline constexpr uint32_t kBypassMark = 0x80000;

/// Whether a socket's packets must bypass the tunnel. The CLI and tests use kNo.
enum class Protect : uint8_t { kYes, kNo };

/// Probed once per process. False: SO_BINDTODEVICE is used (also with TS_FORCE_LINUX_BIND_TO_DEVICE=1).
[[nodiscard]] bool socket_mark_works();
/// Before connect, or after bind. `to` may be invalid (unconnected socket). An error without root rights is ignored, as
/// such a process has no tunnel either.
Status protect_socket(int fd, const Addr& to);
/// This process has no tunnel (userspace networking): from now on protect_socket() changes nothing.
void protect_no_sockets();
/// Name of the interface of the best IPv4 default route in the main table (/proc/net/route), else of the IPv6 one;
/// "" if there is none.
[[nodiscard]] std::string default_route_interface();

}  // namespace mesh::platform
