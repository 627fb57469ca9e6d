// SPDX-License-Identifier: BSD-3-Clause
#include "platform/net/socket_mark.h"

#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <sstream>

#include "platform/fd.h"
#include "platform/file.h"

namespace mesh::platform {
namespace {

bool set_mark(int fd) {
    const uint32_t mark = kBypassMark;
    return ::setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark) == 0;
}

bool probe() {
    const char* force = std::getenv("TS_FORCE_LINUX_BIND_TO_DEVICE");
    if (force != nullptr && *force != '\0' && std::string_view(force) != "0" && std::string_view(force) != "false")
        return false;
    const UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    return fd.valid() && set_mark(fd.get());
}

std::atomic<bool> no_tunnel{false};

constexpr std::string_view kTunnelPrefix = "tailscale";

std::string default_v4(const std::string& text) {
    std::istringstream lines(text);
    std::string line;
    std::getline(lines, line);  // heading
    std::string best;
    unsigned long best_metric = ~0UL;
    while (std::getline(lines, line)) {
        std::istringstream f(line);
        std::string name, dest, gateway, flags, refcnt, use, metric, mask;
        if (!(f >> name >> dest >> gateway >> flags >> refcnt >> use >> metric >> mask)) continue;
        if (dest != "00000000" || mask != "00000000" || name.starts_with(kTunnelPrefix)) continue;
        const unsigned long m = std::strtoul(metric.c_str(), nullptr, 10);
        if (best.empty() || m < best_metric) {
            best = name;
            best_metric = m;
        }
    }
    return best;
}

std::string default_v6(const std::string& text) {
    std::istringstream lines(text);
    std::string line, best;
    unsigned long best_metric = ~0UL;
    while (std::getline(lines, line)) {
        std::istringstream f(line);
        std::string dest, len, src, slen, gateway, metric, ref, use, flags, name;
        if (!(f >> dest >> len >> src >> slen >> gateway >> metric >> ref >> use >> flags >> name)) continue;
        if (len != "00" || dest.find_first_not_of('0') != std::string::npos) continue;
        if (name == "lo" || name.starts_with(kTunnelPrefix)) continue;
        const unsigned long m = std::strtoul(metric.c_str(), nullptr, 16);
        if (best.empty() || m < best_metric) {
            best = name;
            best_metric = m;
        }
    }
    return best;
}

}  // namespace

bool socket_mark_works() {
    static const bool works = probe();
    return works;
}

std::string default_route_interface() {
    if (const auto v4 = read_file("/proc/net/route", size_t{1} << 20)) {
        std::string name = default_v4(*v4);
        if (!name.empty()) return name;
    }
    if (const auto v6 = read_file("/proc/net/ipv6_route", size_t{4} << 20)) return default_v6(*v6);
    return "";
}

void protect_no_sockets() { no_tunnel = true; }

Status protect_socket(int fd, const Addr& to) {
    if (no_tunnel) return {};
    if (to.is_valid() && to.is_loopback()) return {};
    if (socket_mark_works()) {
        if (set_mark(fd)) return {};
        return fail_errno("mark socket", errno);
    }
    std::string name = default_route_interface();
    if (name.empty()) name = "lo";  // rather nowhere than in a circle through our own tunnel
    if (::setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name.c_str(), static_cast<socklen_t>(name.size())) == 0 ||
        ::getuid() != 0)
        return {};
    return fail_errno("bind socket to " + name, errno);
}

}  // namespace mesh::platform
