// SPDX-License-Identifier: BSD-3-Clause
#include "platform/net/datagram_socket.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <utility>

#include "platform/net/sockaddr.h"

namespace mesh::platform {
namespace {

constexpr int kDatagramsPerTurn = 64;

}  // namespace

Result<std::unique_ptr<DatagramSocket>> DatagramSocket::connect(Loop& loop, const Endpoint& to, uint16_t port, OnDatagram on_datagram) {
    UniqueFd fd(::socket(to.addr.is_v4() ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd.valid()) return fail_errno("open socket", errno);
    sockaddr_storage at{};
    if (port != 0) {
        // A port that is taken, or that only root may have, is no reason to fail.
        const socklen_t len = to_sockaddr({to.addr.is_loopback() ? to.addr : Addr(), port}, to.addr.is_v4() ? Addr::Family::kV4 : Addr::Family::kV6, at);
        static_cast<void>(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), len));
    }
    const socklen_t len = to_sockaddr(to, Addr::Family::kNone, at);
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&at), len) != 0) return fail_errno("connect to " + to.str(), errno);
    return std::unique_ptr<DatagramSocket>(new DatagramSocket(loop, std::move(fd), std::move(on_datagram)));
}

DatagramSocket::DatagramSocket(Loop& loop, UniqueFd fd, OnDatagram on_datagram)
    : fd_(std::move(fd)), on_datagram_(std::move(on_datagram)), poll_(loop, fd_.get(), [this](FdPoll::Events) { on_readable(); }) {
    poll_.set_interest(true, false);
}

void DatagramSocket::send(ByteSpan datagram) {
    // An error that an earlier datagram brought (nobody listens there) is told first, and is not about this one.
    for (int i = 0; i < 2; ++i)
        if (::send(fd_.get(), datagram.data(), datagram.size(), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 || errno != ECONNREFUSED) return;
}

Endpoint DatagramSocket::local_endpoint() const {
    sockaddr_storage at{};
    socklen_t len = sizeof at;
    return ::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&at), &len) == 0 ? from_sockaddr(at) : Endpoint{};
}

void DatagramSocket::on_readable() {
    std::array<uint8_t, 65536> bytes;
    for (int i = 0; i < kDatagramsPerTurn; ++i) {
        const ssize_t n = ::recv(fd_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
        if (n < 0) continue;  // an ICMP error of an earlier one
        bool gone = false;
        gone_ = &gone;
        on_datagram_(ByteSpan(bytes).first(static_cast<size_t>(n)));
        if (gone) return;
        gone_ = nullptr;
    }
}

}  // namespace mesh::platform
