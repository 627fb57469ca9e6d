// SPDX-License-Identifier: BSD-3-Clause
#include "platform/net/inherited.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

#include "platform/net/sockaddr.h"

namespace mesh::platform {
namespace {

constexpr int kFirst = 3;
constexpr int kMost = 64;

/// The value of a variable, which is removed.
std::string take_variable(const char* name) {
    const char* value = std::getenv(name);
    std::string out = value != nullptr ? value : "";
    ::unsetenv(name);
    return out;
}

int option(int fd, int name) {
    int value = -1;
    socklen_t len = sizeof value;
    return ::getsockopt(fd, SOL_SOCKET, name, &value, &len) == 0 ? value : -1;
}

}  // namespace

Result<std::vector<InheritedListener>> take_inherited_listeners() {
    const std::string pid = take_variable("LISTEN_PID"), count = take_variable("LISTEN_FDS");
    std::string names = take_variable("LISTEN_FDNAMES");
    std::vector<InheritedListener> out;
    if (pid != std::to_string(::getpid())) return out;
    const int n = std::atoi(count.c_str());
    if (n > kMost) return fail(Code::kLimit, "more than " + std::to_string(kMost) + " sockets were passed to this service");
    for (int i = 0; i < n; ++i) {
        InheritedListener s;
        s.fd = UniqueFd(kFirst + i);
        const size_t colon = names.find(':');
        s.name = names.substr(0, colon);
        names = colon == std::string::npos ? "" : names.substr(colon + 1);
        sockaddr_storage at{};
        socklen_t len = sizeof at;
        if (::getsockname(s.fd.get(), reinterpret_cast<sockaddr*>(&at), &len) == 0) s.at = from_sockaddr(at);
        if (option(s.fd.get(), SO_TYPE) != SOCK_STREAM || option(s.fd.get(), SO_ACCEPTCONN) != 1 || !s.at.is_valid())
            return fail(Code::kInvalid, "socket " + std::to_string(i + 1) + " passed to this service (" + s.name +
                                            ") is no listening TCP socket: only ListenStream= with a port is understood");
        ::fcntl(s.fd.get(), F_SETFD, FD_CLOEXEC);
        ::fcntl(s.fd.get(), F_SETFL, ::fcntl(s.fd.get(), F_GETFL) | O_NONBLOCK);
        out.push_back(std::move(s));
    }
    return out;
}

}  // namespace mesh::platform
