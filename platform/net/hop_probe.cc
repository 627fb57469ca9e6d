// SPDX-License-Identifier: BSD-3-Clause
#include "platform/net/hop_probe.h"

#include <linux/errqueue.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>

#include "platform/fd.h"
#include "platform/net/sockaddr.h"

namespace mesh::platform {
namespace {

using Clock = std::chrono::steady_clock;

// Hop n is asked at port kBase + n, which the error names again. The ports are those of traceroute.
constexpr uint16_t kBase = 33434;
constexpr auto kAskAgain = std::chrono::milliseconds(400);

struct Answer {
    int hop = 0;
    Addr from;
    bool arrived = false;
};

bool read_error(int fd, Answer& out) {
    sockaddr_in to{};
    std::array<char, 512> control{};
    char byte = 0;
    iovec data{&byte, 1};
    msghdr m{};
    m.msg_name = &to;
    m.msg_namelen = sizeof to;
    m.msg_iov = &data;
    m.msg_iovlen = 1;
    m.msg_control = control.data();
    m.msg_controllen = control.size();
    if (::recvmsg(fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) return false;
    out.hop = ntohs(to.sin_port) - kBase;
    for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level != IPPROTO_IP || c->cmsg_type != IP_RECVERR) continue;
        sock_extended_err error{};
        std::memcpy(&error, CMSG_DATA(c), sizeof error);
        if (error.ee_origin != SO_EE_ORIGIN_ICMP) continue;
        sockaddr_in offender{};
        std::memcpy(&offender, CMSG_DATA(c) + sizeof error, sizeof offender);
        if (offender.sin_family == AF_INET) out.from = Addr::v4_bytes(reinterpret_cast<const uint8_t*>(&offender.sin_addr));
        out.arrived = error.ee_type == ICMP_DEST_UNREACH;
    }
    return true;
}

}  // namespace

std::vector<Addr> first_hops(const Addr& towards, int count, Duration patience) {
    if (!towards.is_v4()) return {};
    count = std::clamp(count, 1, 16);
    const UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int on = 1;
    if (!fd.valid() || ::setsockopt(fd.get(), IPPROTO_IP, IP_RECVERR, &on, sizeof on) != 0) return {};
    const auto ask = [&](int hop) {
        sockaddr_storage to{};
        const socklen_t size = to_sockaddr({towards, static_cast<uint16_t>(kBase + hop)}, Addr::Family::kV4, to);
        if (::setsockopt(fd.get(), IPPROTO_IP, IP_TTL, &hop, sizeof hop) != 0) return false;
        // The error of a hop before may be waiting; reporting it clears it.
        for (int i = 0; i < 3; ++i)
            if (::sendto(fd.get(), "", 1, 0, reinterpret_cast<const sockaddr*>(&to), size) == 1) return true;
        return false;
    };
    std::vector<Addr> hops(static_cast<size_t>(count));
    int end = count;  // the first hop that is the destination, less one
    const auto open = [&](int hop) { return hop <= end && !hops[static_cast<size_t>(hop - 1)].is_valid(); };
    const auto any_open = [&] {
        for (int hop = 1; hop <= end; ++hop)
            if (open(hop)) return true;
        return false;
    };
    const auto until = Clock::now() + std::chrono::nanoseconds(patience.ns);
    auto ask_at = Clock::now();
    while (any_open() && Clock::now() < until) {
        // Routers answer so often a second and no more.
        if (Clock::now() >= ask_at) {
            bool asked = false;
            for (int hop = 1; hop <= end; ++hop) asked = (open(hop) && ask(hop)) || asked;
            if (!asked) return {};
            ask_at = Clock::now() + kAskAgain;
        }
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(std::min(until, ask_at) - Clock::now()).count();
        pollfd p{fd.get(), 0, 0};
        if (::poll(&p, 1, static_cast<int>(std::max<int64_t>(left, 0) + 1)) <= 0) continue;
        Answer a;
        if (!read_error(fd.get(), a)) {
            int error = 0;  // asking for it clears it
            socklen_t size = sizeof error;
            ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
            continue;
        }
        if (a.hop < 1 || a.hop > end || !open(a.hop)) continue;
        if (a.arrived)
            end = a.hop - 1;
        else
            hops[static_cast<size_t>(a.hop - 1)] = a.from;
    }
    hops.resize(static_cast<size_t>(end));
    return hops;
}

}  // namespace mesh::platform
