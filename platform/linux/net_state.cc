// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/net_state.h"

#include <algorithm>
#include <map>

namespace mesh::platform {
namespace {

/// Other overlays: their addresses lead back into a tunnel.
bool other_overlay(const std::string& name) { return name.starts_with("zt") || name == "wt0"; }

bool interesting(const NetInterface& i, std::string_view own_tun) { return !i.link.loopback && i.link.name != own_tun; }

/// Addresses by which this interface could be reached from elsewhere.
std::vector<Addr> routable(const NetInterface& i) {
    std::vector<Addr> out;
    for (const LinkAddr& a : i.addrs)
        if (!a.prefix.addr.is_link_local() && !a.prefix.addr.is_loopback() && !a.prefix.addr.is_multicast() && !a.tentative)
            out.push_back(a.prefix.addr);
    std::sort(out.begin(), out.end());
    return out;
}

bool have_family(const NetState& s, std::string_view own_tun, bool v4) {
    for (const NetInterface& i : s.interfaces) {
        if (!i.link.up || !interesting(i, own_tun)) continue;
        for (const Addr& a : routable(i))
            if (a.is_v4() == v4) return true;
    }
    return false;
}

struct Facts {
    bool up = false;
    std::vector<Addr> addrs;
    bool operator==(const Facts&) const = default;
};
/// By name: an interface that vanishes and comes back with another index is the same to us. Interfaces without routable
/// addresses do not count (containers come and go).
std::map<std::string, Facts> facts(const NetState& s, std::string_view own_tun) {
    std::map<std::string, Facts> out;
    for (const NetInterface& i : s.interfaces) {
        if (!interesting(i, own_tun)) continue;
        Facts f{i.link.up && i.link.running, routable(i)};
        if (!f.addrs.empty()) out.emplace(i.link.name, std::move(f));
    }
    return out;
}

bool default_interface_usable(const NetState& s, std::string_view own_tun) {
    const std::string& name = s.default_interface_v4.empty() ? s.default_interface_v6 : s.default_interface_v4;
    if (name.empty() || name == own_tun) return false;
    return std::any_of(s.interfaces.begin(), s.interfaces.end(),
                       [&](const NetInterface& i) { return i.link.name == name && i.link.up; });
}

bool is_unique_local(const Addr& a) { return a.is_v6() && (a.bytes()[0] & 0xfe) == 0xfc; }

}  // namespace

bool NetState::have_v4(std::string_view own_tun) const { return have_family(*this, own_tun, true); }
bool NetState::have_v6(std::string_view own_tun) const { return have_family(*this, own_tun, false); }
bool NetState::any_up(std::string_view own_tun) const {
    return std::any_of(interfaces.begin(), interfaces.end(),
                       [&](const NetInterface& i) { return i.link.up && interesting(i, own_tun); });
}

std::vector<OutsideRange> outside_ranges(const std::vector<NetInterface>& interfaces,
                                         const std::vector<std::pair<int, Prefix>>& routes) {
    const Prefix range{Addr::v4(100, 64, 0, 0), 10};
    const Prefix chromeos{Addr::v4(100, 115, 92, 0), 23};
    std::vector<OutsideRange> out;
    for (const NetInterface& i : interfaces) {
        if (!i.link.up || i.link.loopback || i.link.kind == "tun" || i.link.kind == "wireguard") continue;
        OutsideRange o{i.link.name, {}};
        bool here = false;
        const auto add = [&](const Prefix& p) {
            if (!range.contains(p.addr) || chromeos.contains(p.addr) || p.addr == service_addr_v4()) return;
            here = true;
            // A wider prefix than the range itself (a default route) says nothing about the range.
            if (p.len >= range.len && !p.is_single()) o.networks.push_back(p.masked());
        };
        for (const LinkAddr& a : i.addrs) add(a.prefix);
        for (const auto& [index, prefix] : routes)
            if (index == i.link.index && prefix.len >= range.len) add(prefix);
        std::sort(o.networks.begin(), o.networks.end());
        o.networks.erase(std::unique(o.networks.begin(), o.networks.end()), o.networks.end());
        if (here) out.push_back(std::move(o));
    }
    return out;
}

NetChange judge_change(const NetState& before, const NetState& now, std::string_view own_tun) {
    const bool routes = before.default_interface_v4 != now.default_interface_v4 ||
                        before.default_interface_v6 != now.default_interface_v6;
    const bool families = before.have_v4(own_tun) != now.have_v4(own_tun) || before.have_v6(own_tun) != now.have_v6(own_tun);
    if (routes || families || facts(before, own_tun) != facts(now, own_tun)) {
        // A host that never had a default route uses whatever is up.
        const auto routeless = [](const NetState& s) { return s.default_interface_v4.empty() && s.default_interface_v6.empty(); };
        const bool usable = routeless(before) && routeless(now) ? now.have_v4(own_tun) || now.have_v6(own_tun) : default_interface_usable(now, own_tun);
        return usable ? NetChange::kMajor : NetChange::kMinor;
    }
    const auto others = [&](const NetState& s) {
        std::vector<NetInterface> v = s.interfaces;
        std::erase_if(v, [&](const NetInterface& i) { return i.link.name == own_tun; });
        return v;
    };
    // Another gateway is another NAT, also by the same interface.
    return others(before) == others(now) && before.gateways == now.gateways ? NetChange::kNone : NetChange::kMinor;
}

std::vector<Addr> local_endpoint_addrs(const NetState& state, std::string_view own_tun) {
    const Prefix chromeos{Addr::v4(100, 115, 92, 0), 23};
    std::vector<Addr> usual;
    std::vector<Addr> weak;  // 169.254/16, unique-local
    std::vector<Addr> loopback;
    for (const NetInterface& i : state.interfaces) {
        if (!i.link.up || i.link.name == own_tun || other_overlay(i.link.name)) continue;
        std::map<Prefix, int> per_subnet;
        for (const LinkAddr& l : i.addrs) {
            const Addr& a = l.prefix.addr;
            if (a.is_multicast() || a.is_unspecified() || l.tentative || l.deprecated) continue;
            if (a.is_loopback() || i.link.loopback) {
                if (a.is_loopback()) loopback.push_back(a);
                continue;
            }
            if (is_tailscale_range(a) && !chromeos.contains(a)) continue;
            if (a.is_v6()) {
                if (a.is_link_local() || ++per_subnet[Prefix{a, 64}.masked()] > 2) continue;
            }
            (a.is_link_local() || is_unique_local(a) ? weak : usual).push_back(a);
        }
    }
    std::vector<Addr>& out = !usual.empty() ? usual : !weak.empty() ? weak : loopback;
    std::sort(out.begin(), out.end());
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return out;
}

}  // namespace mesh::platform
