// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/netlink_wire.h"

#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "base/bytes.h"

namespace mesh::platform {
namespace {

template <class T>
bool take_body(const uint8_t*& body, size_t& len, T& out) {
    if (len < sizeof(T)) return false;
    std::memcpy(&out, body, sizeof(T));
    const size_t step = std::min(len, size_t{NLMSG_ALIGN(sizeof(T))});
    body += step;
    len -= step;
    return true;
}

/// Calls f(type, payload) for each attribute; stops at the first malformed one.
template <class F>
void each_attr(const uint8_t* at, size_t len, F&& f) {
    while (len >= sizeof(rtattr)) {
        rtattr head{};
        std::memcpy(&head, at, sizeof head);
        if (head.rta_len < sizeof(rtattr) || head.rta_len > len) return;
        f(static_cast<uint16_t>(head.rta_type & ~NLA_F_NESTED), ByteSpan(at + RTA_LENGTH(0), head.rta_len - RTA_LENGTH(0)));
        const size_t step = std::min(len, size_t{RTA_ALIGN(head.rta_len)});
        at += step;
        len -= step;
    }
}

uint32_t number(ByteSpan b) {
    uint32_t v = 0;
    if (b.size() >= sizeof v) std::memcpy(&v, b.data(), sizeof v);
    return v;
}

std::string text(ByteSpan b) {
    std::string s(as_text(b));
    if (const size_t nul = s.find('\0'); nul != std::string::npos) s.resize(nul);
    return s;
}

Addr address(uint8_t family, ByteSpan b) {
    if (family == AF_INET && b.size() == 4) return Addr::v4_bytes(b.data());
    if (family == AF_INET6 && b.size() == 16) return Addr::v6_bytes(b.data(), false);
    return {};
}

Addr unspecified(uint8_t family) {
    constexpr uint8_t kZeros[16] = {};
    return family == AF_INET ? Addr::v4_bytes(kZeros) : Addr::v6_bytes(kZeros, false);
}

}  // namespace

std::optional<LinkInfo> parse_link(uint16_t type, const uint8_t* body, size_t len) {
    ifinfomsg info{};
    if ((type != RTM_NEWLINK && type != RTM_DELLINK) || !take_body(body, len, info)) return std::nullopt;
    LinkInfo out;
    out.index = info.ifi_index;
    out.up = (info.ifi_flags & IFF_UP) != 0;
    out.running = (info.ifi_flags & IFF_RUNNING) != 0;
    out.loopback = (info.ifi_flags & IFF_LOOPBACK) != 0;
    each_attr(body, len, [&](uint16_t t, ByteSpan value) {
        if (t == IFLA_IFNAME) out.name = text(value);
        if (t == IFLA_MTU) out.mtu = number(value);
        if (t == IFLA_LINKINFO)
            each_attr(value.data(), value.size(), [&](uint16_t it, ByteSpan iv) {
                if (it == IFLA_INFO_KIND) out.kind = text(iv);
            });
    });
    return out;
}

std::optional<LinkAddr> parse_address(uint16_t type, const uint8_t* body, size_t len) {
    ifaddrmsg info{};
    if ((type != RTM_NEWADDR && type != RTM_DELADDR) || !take_body(body, len, info)) return std::nullopt;
    Addr local;
    Addr other;
    uint32_t flags = info.ifa_flags;
    each_attr(body, len, [&](uint16_t t, ByteSpan value) {
        if (t == IFA_LOCAL) local = address(info.ifa_family, value);
        if (t == IFA_ADDRESS) other = address(info.ifa_family, value);
        if (t == IFA_FLAGS) flags = number(value);
    });
    const Addr a = local.is_valid() ? local : other;  // IPv6 has no IFA_LOCAL unless point-to-point
    if (!a.is_valid() || info.ifa_prefixlen > a.bits()) return std::nullopt;
    LinkAddr out;
    out.index = static_cast<int>(info.ifa_index);
    out.prefix = {a, info.ifa_prefixlen};
    out.deprecated = (flags & IFA_F_DEPRECATED) != 0;
    out.tentative = (flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)) != 0;
    out.temporary = a.is_v6() && (flags & IFA_F_TEMPORARY) != 0;
    return out;
}

std::optional<IpRoute> parse_route(uint16_t type, const uint8_t* body, size_t len) {
    rtmsg info{};
    if ((type != RTM_NEWROUTE && type != RTM_DELROUTE) || !take_body(body, len, info)) return std::nullopt;
    if (info.rtm_family != AF_INET && info.rtm_family != AF_INET6) return std::nullopt;
    IpRoute out;
    out.table = info.rtm_table;
    out.type = info.rtm_type == RTN_UNICAST ? IpRoute::Type::kUnicast
               : info.rtm_type == RTN_THROW ? IpRoute::Type::kThrow
                                            : IpRoute::Type::kOther;
    out.dst = {unspecified(info.rtm_family), info.rtm_dst_len};
    each_attr(body, len, [&](uint16_t t, ByteSpan value) {
        if (t == RTA_DST) out.dst.addr = address(info.rtm_family, value);
        if (t == RTA_OIF) out.oif = static_cast<int>(number(value));
        if (t == RTA_TABLE) out.table = number(value);
        if (t == RTA_GATEWAY) out.gateway = address(info.rtm_family, value);
        if (t == RTA_PRIORITY) out.metric = number(value);
    });
    if (!out.dst.is_valid() || out.dst.len > out.dst.addr.bits()) return std::nullopt;
    // IPv6 binds throw routes to the loopback interface; that says nothing.
    if (out.type == IpRoute::Type::kThrow) out.oif = 0;
    return out;
}

std::optional<IpRule> parse_rule(uint16_t type, const uint8_t* body, size_t len) {
    fib_rule_hdr info{};
    if ((type != RTM_NEWRULE && type != RTM_DELRULE) || !take_body(body, len, info)) return std::nullopt;
    if (info.family != AF_INET && info.family != AF_INET6) return std::nullopt;
    IpRule out;
    out.family = info.family == AF_INET ? Addr::Family::kV4 : Addr::Family::kV6;
    out.table = info.table;
    out.action = info.action == FR_ACT_TO_TBL        ? IpRule::Action::kLookup
                 : info.action == FR_ACT_UNREACHABLE ? IpRule::Action::kUnreachable
                                                     : IpRule::Action::kOther;
    out.plain = info.src_len == 0 && info.dst_len == 0 && info.tos == 0 && (info.flags & FIB_RULE_INVERT) == 0;
    each_attr(body, len, [&](uint16_t t, ByteSpan value) {
        switch (t) {
            case FRA_PRIORITY: out.priority = number(value); break;
            case FRA_FWMARK: out.mark = number(value); break;
            case FRA_FWMASK: out.mask = number(value); break;
            case FRA_TABLE: out.table = number(value); break;
            case FRA_SRC:
            case FRA_DST:
            case FRA_IIFNAME:
            case FRA_OIFNAME:
            case FRA_UID_RANGE:
            case FRA_IP_PROTO:
            case FRA_SPORT_RANGE:
            case FRA_DPORT_RANGE:
            case FRA_L3MDEV: out.plain = false; break;
            default: break;
        }
    });
    if (out.action != IpRule::Action::kLookup) out.table = 0;
    return out;
}

}  // namespace mesh::platform
