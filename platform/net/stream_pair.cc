// SPDX-License-Identifier: BSD-3-Clause
#include "platform/net/stream_pair.h"

#include <sys/socket.h>

#include <cerrno>

namespace mesh::platform {

Result<std::pair<ByteStream, ByteStream>> stream_pair() {
    int fds[2] = {-1, -1};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0) return fail_errno("make a pair of sockets", errno);
    return std::pair(ByteStream(UniqueFd(fds[0])), ByteStream(UniqueFd(fds[1])));
}

}  // namespace mesh::platform
