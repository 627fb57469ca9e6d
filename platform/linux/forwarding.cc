// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/forwarding.h"

#include <fmt/format.h>

#include <algorithm>

#include "platform/linux/netlink.h"
#include "platform/linux/sysctl.h"

namespace mesh::platform {
namespace {

constexpr const char* kReadMore = "\nSee https://tailscale.com/s/ip-forwarding";

std::optional<bool> enabled(const ForwardingHost& host, const std::string& key) {
    const auto value = host.read_sysctl(key);
    if (!value) return std::nullopt;
    return *value == "1" || *value == "2";
}

}  // namespace

ForwardingHost this_host() {
    ForwardingHost host;
    host.read_sysctl = [](const std::string& key) { return read_sysctl(key); };
    auto netlink = Netlink::open();
    if (!netlink) return host;
    if (auto links = netlink->links())
        for (const LinkInfo& l : *links) host.interfaces.push_back(l.name);
    if (auto addrs = netlink->addresses())
        for (const LinkAddr& a : *addrs) host.own_addrs.push_back(a.prefix.addr);
    return host;
}

ForwardingCheck check_forwarding(const std::vector<Prefix>& advertised, const ForwardingHost& host) {
    bool want_v4 = false;
    bool want_v6 = false;
    for (const Prefix& p : advertised) {
        // To reach the host itself nothing is forwarded.
        if (p.is_single() && std::find(host.own_addrs.begin(), host.own_addrs.end(), p.addr) != host.own_addrs.end())
            continue;
        (p.addr.is_v4() ? want_v4 : want_v6) = true;
    }
    if (!want_v4 && !want_v6) return {};
    const auto v4 = enabled(host, "net/ipv4/ip_forward");
    // A kernel without IPv6 forwards none.
    const bool v6 = enabled(host, "net/ipv6/conf/all/forwarding").value_or(false);
    if (!v4)
        return {fmt::format("Couldn't check system's IP forwarding configuration, subnet routing/exit nodes may not work: "
                            "cannot read net.ipv4.ip_forward{}",
                            kReadMore),
                true};
    if (*v4 && v6) return {};
    if (!want_v4) {
        if (v6) return {};
        return {fmt::format("IPv6 forwarding is disabled, subnet routing/exit nodes may not work.{}", kReadMore), true};
    }

    std::string warnings;
    if (want_v6 && !v6) warnings = "IPv6 forwarding is disabled.\n";
    bool any = false;
    for (const std::string& name : host.interfaces) {
        if (name == "lo") continue;
        const auto on = enabled(host, "net/ipv4/conf/" + name + "/forwarding");
        if (!on) continue;  // it has gone meanwhile
        if (*on) {
            any = true;
            continue;
        }
        // A dot separates in sysctl's notation, so one inside a name is a slash (sysctl.d(5)).
        std::string dotted = name;
        std::replace(dotted.begin(), dotted.end(), '.', '/');
        warnings += fmt::format("Traffic received on {} won't be forwarded (net.ipv4.conf.{}.forwarding disabled)\n", name,
                                dotted);
    }
    if (!any)
        return {fmt::format("IP forwarding is disabled, subnet routing/exit nodes will not work.{}", kReadMore), true};
    if (warnings.empty()) return {};
    return {fmt::format("{}Subnet routes and exit nodes may not work correctly.{}", warnings, kReadMore), false};
}

}  // namespace mesh::platform
