// SPDX-License-Identifier: BSD-3-Clause
#include "platform/net/source_address.h"

#include "platform/fd.h"
#include "platform/net/sockaddr.h"

namespace mesh::platform {

Addr source_address(const Addr& to, Protect protect) {
    sockaddr_storage there{};
    const socklen_t size = to_sockaddr({to, 9}, Addr::Family::kV4, there);
    const UniqueFd fd(::socket(there.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!to.is_valid() || !fd.valid()) return {};
    if (protect == Protect::kYes && !protect_socket(fd.get(), to)) return {};
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&there), size) != 0) return {};
    sockaddr_storage self{};
    socklen_t self_size = sizeof self;
    if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&self), &self_size) != 0) return {};
    return from_sockaddr(self).addr;
}

bool route_moved(const ByteStream& stream) {
    const Endpoint to = stream.remote_endpoint(), from = stream.local_endpoint();
    if (!to.is_valid() || !from.is_valid()) return false;
    const Addr now = source_address(to.addr, Protect::kYes);
    return now.is_valid() && now != from.addr;
}

}  // namespace mesh::platform
