// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Endpoint to the kernel's sockaddr and back.

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>

#include "base/ip.h"

namespace mesh::platform {

/// An invalid address becomes 0.0.0.0 or :: of `family`. Returns the length to pass along.
inline socklen_t to_sockaddr(const Endpoint& e, Addr::Family family, sockaddr_storage& out) {
    if ((e.is_valid() && e.addr.is_v4()) || (!e.is_valid() && family == Addr::Family::kV4)) {
        auto& v4 = reinterpret_cast<sockaddr_in&>(out);
        std::memset(&v4, 0, sizeof v4);
        v4.sin_family = AF_INET;
        v4.sin_port = htons(e.port);
        if (e.is_valid()) std::memcpy(&v4.sin_addr, e.addr.bytes().data(), 4);
        return sizeof v4;
    }
    auto& v6 = reinterpret_cast<sockaddr_in6&>(out);
    std::memset(&v6, 0, sizeof v6);
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(e.port);
    if (e.is_valid()) std::memcpy(&v6.sin6_addr, e.addr.bytes().data(), 16);
    return sizeof v6;
}

/// Invalid for other families. v4-mapped addresses become IPv4.
inline Endpoint from_sockaddr(const sockaddr_storage& in) {
    if (in.ss_family == AF_INET) {
        const auto& v4 = reinterpret_cast<const sockaddr_in&>(in);
        return {Addr::v4_bytes(reinterpret_cast<const uint8_t*>(&v4.sin_addr)), ntohs(v4.sin_port)};
    }
    if (in.ss_family == AF_INET6) {
        const auto& v6 = reinterpret_cast<const sockaddr_in6&>(in);
        return {Addr::v6_bytes(reinterpret_cast<const uint8_t*>(&v6.sin6_addr)), ntohs(v6.sin6_port)};
    }
    return {};
}

}  // namespace mesh::platform
