// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/legacy_tables.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>
#include <sstream>

#include "platform/fd.h"
#include "platform/file.h"

namespace mesh::platform {
namespace {

constexpr int kGetInfo = 64;  // IPT_SO_GET_INFO, IP6T_SO_GET_INFO

// struct ipt_getinfo and struct ip6t_getinfo; the kernel's headers do not agree with those of the C library.
struct Info {
    char name[32];
    uint32_t valid_hooks;
    uint32_t hook_entry[5];
    uint32_t underflow[5];
    uint32_t entries;
    uint32_t bytes;
};

void read_family(bool v6, std::vector<LegacyTable>& out) {
    const auto names = read_file(v6 ? "/proc/net/ip6_tables_names" : "/proc/net/ip_tables_names", 4096);
    if (!names || names->empty()) return;
    const UniqueFd fd(::socket(v6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
    if (!fd.valid()) return;
    std::istringstream lines(*names);
    for (std::string name; lines >> name;) {
        Info info{};
        if (name.size() >= sizeof info.name) continue;
        std::memcpy(info.name, name.c_str(), name.size() + 1);
        socklen_t size = sizeof info;
        if (::getsockopt(fd.get(), v6 ? IPPROTO_IPV6 : IPPROTO_IP, kGetInfo, &info, &size) == 0)
            out.push_back({v6, name, info.entries, info.bytes});
    }
}

}  // namespace

std::vector<LegacyTable> read_legacy_tables() {
    std::vector<LegacyTable> out;
    read_family(false, out);
    read_family(true, out);
    return out;
}

}  // namespace mesh::platform
