// SPDX-License-Identifier: BSD-3-Clause
#include "platform/net/answering_socket.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "platform/net/sockaddr.h"

namespace mesh::platform {
namespace {

constexpr int kAnswersPerTurn = 64;

union Control {
    cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(in6_pktinfo))];
};

/// Leaves of what came with a question what has to go with its answer: the address, and the interface only where the address
/// says nothing without it. Returns the length; 0 = the kernel may choose.
size_t keep_address(msghdr& h) {
    for (cmsghdr* c = CMSG_FIRSTHDR(&h); c != nullptr; c = CMSG_NXTHDR(&h, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            in_pktinfo info;
            std::memcpy(&info, CMSG_DATA(c), sizeof info);
            info.ipi_ifindex = 0;
            std::memcpy(CMSG_DATA(c), &info, sizeof info);
            return CMSG_SPACE(sizeof info);
        }
        if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            in6_pktinfo info;
            std::memcpy(&info, CMSG_DATA(c), sizeof info);
            if (IN6_IS_ADDR_MULTICAST(&info.ipi6_addr)) return 0;
            if (!IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr)) info.ipi6_ifindex = 0;
            std::memcpy(CMSG_DATA(c), &info, sizeof info);
            return CMSG_SPACE(sizeof info);
        }
    }
    return 0;
}

}  // namespace

Result<std::unique_ptr<AnsweringSocket>> AnsweringSocket::open(Loop& loop, Addr::Family family, const Addr& addr, uint16_t port,
                                                               Answer answer) {
    const bool v4 = family == Addr::Family::kV4;
    const std::string name = v4 ? "udp4" : "udp6";
    UniqueFd fd(::socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_UDP));
    if (!fd.valid()) return fail_errno(name + ": open socket", errno);
    const int on = 1;
    const bool set = v4 ? ::setsockopt(fd.get(), IPPROTO_IP, IP_PKTINFO, &on, sizeof on) == 0
                        : ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) == 0 &&
                              ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on) == 0;
    if (!set) return fail_errno(name + ": packet information", errno);
    sockaddr_storage at{};
    socklen_t len = to_sockaddr({addr, port}, family, at);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), len) != 0)
        return fail_errno(name + ": bind to port " + std::to_string(port), errno);
    len = sizeof at;
    if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&at), &len) != 0) return fail_errno(name + ": getsockname", errno);
    return std::unique_ptr<AnsweringSocket>(new AnsweringSocket(loop, std::move(fd), from_sockaddr(at).port, std::move(answer)));
}

AnsweringSocket::AnsweringSocket(Loop& loop, UniqueFd fd, uint16_t port, Answer answer)
    : fd_(std::move(fd)), port_(port), answer_(std::move(answer)), poll_(loop, fd_.get(), [this](FdPoll::Events) { on_readable(); }) {
    poll_.set_interest(true, false);
}

void AnsweringSocket::on_readable() {
    std::array<uint8_t, kMaxDatagram> in, out;
    for (int i = 0; i < kAnswersPerTurn; ++i) {
        sockaddr_storage from{};
        Control control;
        iovec piece{in.data(), in.size()};
        msghdr h{};
        h.msg_name = &from;
        h.msg_namelen = sizeof from;
        h.msg_iov = &piece;
        h.msg_iovlen = 1;
        h.msg_control = control.bytes;
        h.msg_controllen = sizeof control.bytes;
        const ssize_t n = ::recvmsg(fd_.get(), &h, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
        if (n < 0) continue;  // an ICMP error of an earlier answer; a turn has an end anyway
        const size_t length = answer_(from_sockaddr(from), ByteSpan(in.data(), static_cast<size_t>(n)), out);
        if (length == 0) continue;
        piece = {out.data(), length};
        h.msg_controllen = keep_address(h);
        if (h.msg_controllen == 0) h.msg_control = nullptr;
        (void)::sendmsg(fd_.get(), &h, MSG_DONTWAIT | MSG_NOSIGNAL);  // what the kernel does not take is lost, as on any network
    }
}

}  // namespace mesh::platform
