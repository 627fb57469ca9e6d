// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/firewall_rules.h"

#include <fmt/format.h>

#include <algorithm>

#include "platform/linux/router_plan.h"

namespace mesh::platform {
namespace {

using Rule = FirewallRule;

const Prefix& cgnat() {
    static const Prefix p{Addr::v4(100, 64, 0, 0), 10};
    return p;
}
const Prefix& chromeos() {
    static const Prefix p{Addr::v4(100, 115, 92, 0), 23};
    return p;
}

/// A tailnet with another prefix has no claim on the range.
bool claims_range(const RouterConfig& c) {
    return c.local_addrs.empty() || std::any_of(c.local_addrs.begin(), c.local_addrs.end(),
                                                [](const Prefix& p) { return cgnat().contains(p.addr); });
}

/// A name that both languages take literally.
bool plain_name(const std::string& name) {
    return !name.empty() && name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.@:") ==
                                std::string::npos;
}

/// Nobody but the tunnel may claim to be of the tailnet; but where the range is in use outside as well, its answers,
/// leases and neighbours come in.
void guard_range(const RouterConfig& c, std::vector<Rule>& input) {
    using V = Rule::Verdict;
    if (!c.cgnat_drop) {
        input.push_back({.in = c.tun_name, .not_in = true, .src = cgnat(), .verdict = V::kReturn});
        return;
    }
    for (const OutsideRange& o : c.outside_ranges) {
        if (!plain_name(o.interface)) continue;
        input.push_back({.in = o.interface, .src = cgnat(), .state = Rule::State::kEstablished, .verdict = V::kReturn});
        input.push_back({.in = o.interface, .src = cgnat(), .udp_sport = 67, .udp_dport = 68, .verdict = V::kReturn});
        for (const Prefix& n : o.networks) input.push_back({.in = o.interface, .src = n, .verdict = V::kReturn});
    }
    input.push_back({.in = c.tun_name, .not_in = true, .src = chromeos(), .verdict = V::kReturn});
    input.push_back({.in = c.tun_name, .not_in = true, .src = cgnat(), .verdict = V::kDrop});
}

}  // namespace

FirewallRules firewall_rules(const RouterConfig& c, Addr::Family family, bool beside_another) {
    using V = Rule::Verdict;
    const bool v4 = family == Addr::Family::kV4;
    FirewallRules out;
    std::vector<Prefix> own = c.local_addrs;
    std::sort(own.begin(), own.end());
    own.erase(std::unique(own.begin(), own.end()), own.end());
    for (const Prefix& p : own)
        if (p.addr.is_v4() == v4) out.input.push_back({.in = "lo", .src = Prefix::single(p.addr)});
    out.input.push_back({.in = c.tun_name});
    if (const uint16_t port = v4 ? c.port_v4 : c.port_v6; port != 0) out.input.push_back({.udp_dport = port});
    if (c.relay_port != 0) out.input.push_back({.udp_dport = c.relay_port});
    // Beside another client its tunnel carries those addresses rightly, and our chain is asked before its own.
    if (v4 && !beside_another && claims_range(c)) guard_range(c, out.input);

    out.forward.push_back({.in = c.tun_name, .verdict = V::kMarkForwarded});
    out.forward.push_back({.forwarded = true});
    if (v4 && claims_range(c)) out.forward.push_back({.out = c.tun_name, .src = cgnat(), .verdict = V::kDrop});
    if (c.stateful_filtering)
        out.forward.push_back({.out = c.tun_name, .state = Rule::State::kNotEstablished, .verdict = V::kDrop});
    out.forward.push_back({.out = c.tun_name});

    if (c.snat_subnet_routes) out.postrouting.push_back({.forwarded = true, .verdict = V::kMasquerade});
    return out;
}

std::string FirewallRule::iptables() const {
    std::string t;
    // In the order of iptables-save, so that wanted and real can be compared as text.
    if (src) t += fmt::format("-s {}/{} ", src->addr.str(), src->len);
    if (!in.empty()) t += fmt::format("{}-i {} ", not_in ? "! " : "", in);
    if (!out.empty()) t += fmt::format("-o {} ", out);
    if (udp_sport != 0 || udp_dport != 0) {
        t += "-p udp -m udp ";
        if (udp_sport != 0) t += fmt::format("--sport {} ", udp_sport);
        if (udp_dport != 0) t += fmt::format("--dport {} ", udp_dport);
    }
    if (forwarded) t += "-m mark --mark 0x40000/0xff0000 ";
    if (state != State::kAny)
        t += fmt::format("-m conntrack {}--ctstate RELATED,ESTABLISHED ", state == State::kNotEstablished ? "! " : "");
    switch (verdict) {
        case Verdict::kAccept: return t + "-j ACCEPT";
        case Verdict::kDrop: return t + "-j DROP";
        case Verdict::kReturn: return t + "-j RETURN";
        case Verdict::kMarkForwarded: return t + "-j MARK --set-xmark 0x40000/0xff0000";
        case Verdict::kMasquerade: return t + "-j MASQUERADE";
    }
    return t;
}

std::string FirewallRule::nft() const {
    std::string t;
    // A quoted name without "*" is compared whole.
    if (!in.empty()) t += fmt::format("iifname {}\"{}\" ", not_in ? "!= " : "", in);
    if (!out.empty()) t += fmt::format("oifname \"{}\" ", out);
    if (src) t += fmt::format("{} saddr {} ", src->addr.is_v4() ? "ip" : "ip6", src->is_single() ? src->addr.str() : src->str());
    if (udp_sport != 0) t += fmt::format("udp sport {} ", udp_sport);
    if (udp_dport != 0) t += fmt::format("udp dport {} ", udp_dport);
    if (forwarded) t += "meta mark & 0x00ff0000 == 0x00040000 ";
    if (state == State::kEstablished) t += "ct state established,related ";
    if (state == State::kNotEstablished) t += "ct state & (established | related) == 0 ";
    t += "counter ";
    switch (verdict) {
        case Verdict::kAccept: return t + "accept";
        case Verdict::kDrop: return t + "drop";
        case Verdict::kReturn: return t + "return";
        case Verdict::kMarkForwarded: return t + "meta mark set meta mark & 0xff00ffff | 0x00040000";
        case Verdict::kMasquerade: return t + "masquerade";
    }
    return t;
}

}  // namespace mesh::platform
