// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/netlink.h"

#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "platform/linux/netlink_wire.h"

namespace mesh::platform {

// One request: header, fixed part, attributes, in a buffer that has room for all we ever say.
class Netlink::Request {
   public:
    Request(uint16_t type, uint16_t flags) {
        header()->nlmsg_type = type;
        header()->nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
        header()->nlmsg_len = NLMSG_HDRLEN;
    }
    template <class T>
    T& body() {
        static_assert(sizeof(T) <= 64);
        header()->nlmsg_len = NLMSG_LENGTH(sizeof(T));
        return *reinterpret_cast<T*>(buffer_ + NLMSG_HDRLEN);
    }
    void attr(uint16_t type, const void* data, size_t len) {
        const size_t at = NLMSG_ALIGN(header()->nlmsg_len);
        rtattr head{static_cast<uint16_t>(RTA_LENGTH(len)), type};
        std::memcpy(buffer_ + at, &head, sizeof head);
        if (len > 0) std::memcpy(buffer_ + at + RTA_LENGTH(0), data, len);
        header()->nlmsg_len = static_cast<uint32_t>(at + RTA_ALIGN(RTA_LENGTH(len)));
    }
    void attr(uint16_t type, uint32_t value) { attr(type, &value, sizeof value); }
    void attr(uint16_t type, const Addr& a) { attr(type, a.bytes().data(), a.bytes().size()); }
    nlmsghdr* header() { return reinterpret_cast<nlmsghdr*>(buffer_); }

   private:
    alignas(nlmsghdr) uint8_t buffer_[512] = {};
};

namespace {

uint8_t family_of(Addr::Family f) {
    return f == Addr::Family::kV4 ? AF_INET : f == Addr::Family::kV6 ? AF_INET6 : AF_UNSPEC;
}
Addr::Family family_of(const Prefix& p) { return p.addr.is_v4() ? Addr::Family::kV4 : Addr::Family::kV6; }

bool is_errno(const Status& s, int err) { return !s && s.error().sys_errno == err; }
Status ignore(Status s, int err) {
    if (is_errno(s, err)) return {};
    return s;
}

}  // namespace

Result<Netlink> Netlink::open() {
    Netlink nl;
    nl.fd_.reset(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    if (!nl.fd_.valid()) return fail_errno("netlink socket", errno);
    sockaddr_nl self{};
    self.nl_family = AF_NETLINK;
    if (::bind(nl.fd_.get(), reinterpret_cast<const sockaddr*>(&self), sizeof self) < 0)
        return fail_errno("bind netlink socket", errno);
    const int on = 1;
    nl.strict_ = ::setsockopt(nl.fd_.get(), SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof on) == 0;
    // A kernel that never answers is a bug there, but the control loop must not hang on it.
    const timeval limit{.tv_sec = 10, .tv_usec = 0};
    ::setsockopt(nl.fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return nl;
}

Status Netlink::transact(Request& request, const std::string& what, const OnMessage& on_message) {
    nlmsghdr* const h = request.header();
    h->nlmsg_seq = ++seq_;
    const bool dump = (h->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
    if (!dump && !on_message) h->nlmsg_flags |= NLM_F_ACK;
    sockaddr_nl kernel{};
    kernel.nl_family = AF_NETLINK;
    if (::sendto(fd_.get(), h, h->nlmsg_len, 0, reinterpret_cast<const sockaddr*>(&kernel), sizeof kernel) < 0)
        return fail_errno(what, errno);

    alignas(nlmsghdr) static thread_local uint8_t buffer[65536];
    for (;;) {
        const ssize_t n = ::recv(fd_.get(), buffer, sizeof buffer, 0);
        if (n < 0) {
            if (errno == EINTR) continue;
            return fail_errno(what, errno);
        }
        size_t rest = static_cast<size_t>(n);
        const uint8_t* at = buffer;
        while (rest >= sizeof(nlmsghdr)) {
            nlmsghdr m{};
            std::memcpy(&m, at, sizeof m);
            if (m.nlmsg_len < NLMSG_HDRLEN || m.nlmsg_len > rest) return fail(Code::kInternal, what + ": short answer");
            const uint8_t* const body = at + NLMSG_HDRLEN;
            const size_t len = m.nlmsg_len - NLMSG_HDRLEN;
            if (m.nlmsg_seq == seq_) {
                if (m.nlmsg_type == NLMSG_ERROR || m.nlmsg_type == NLMSG_DONE) {
                    int err = 0;
                    if (len >= sizeof err) std::memcpy(&err, body, sizeof err);
                    if (err < 0) return fail_errno(what, -err);
                    return {};
                }
                if (on_message) on_message(m.nlmsg_type, body, len);
                if (!dump) return {};
            }
            const size_t step = NLMSG_ALIGN(m.nlmsg_len);
            at += std::min(step, rest);
            rest -= std::min(step, rest);
        }
    }
}

Result<std::vector<LinkInfo>> Netlink::links() {
    Request request(RTM_GETLINK, NLM_F_DUMP);
    request.body<ifinfomsg>().ifi_family = AF_UNSPEC;
    std::vector<LinkInfo> out;
    TRY(transact(request, "list links", [&](uint16_t type, const uint8_t* body, size_t len) {
        if (auto link = parse_link(type, body, len)) out.push_back(std::move(*link));
    }));
    std::sort(out.begin(), out.end());
    return out;
}

Result<LinkInfo> Netlink::link(const std::string& name) {
    Request request(RTM_GETLINK, 0);
    request.body<ifinfomsg>().ifi_family = AF_UNSPEC;
    request.attr(IFLA_IFNAME, name.c_str(), name.size() + 1);
    LinkInfo out;
    const Status s = transact(request, "link " + name, [&](uint16_t type, const uint8_t* body, size_t len) {
        if (auto link = parse_link(type, body, len)) out = std::move(*link);
    });
    if (is_errno(s, ENODEV)) return fail(Code::kNotFound, "no link " + name);
    TRY(s);
    return out;
}

Status Netlink::set_link_up(int index, bool up) {
    Request request(RTM_NEWLINK, 0);
    auto& body = request.body<ifinfomsg>();
    body.ifi_index = index;
    body.ifi_change = IFF_UP;
    body.ifi_flags = up ? IFF_UP : 0;
    return transact(request, up ? "set link up" : "set link down");
}

Result<std::vector<LinkAddr>> Netlink::addresses(int index) {
    Request request(RTM_GETADDR, NLM_F_DUMP);
    auto& body = request.body<ifaddrmsg>();
    body.ifa_family = AF_UNSPEC;
    if (strict_) body.ifa_index = static_cast<uint32_t>(index);
    std::vector<LinkAddr> out;
    const Status s = transact(request, "list addresses", [&](uint16_t type, const uint8_t* b, size_t len) {
        auto a = parse_address(type, b, len);
        if (a && (index == 0 || a->index == index)) out.push_back(*a);
    });
    if (!is_errno(s, ENODEV)) TRY(s);
    std::sort(out.begin(), out.end());
    return out;
}

Status Netlink::add_address(int index, const Prefix& address) {
    Request request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE);
    auto& body = request.body<ifaddrmsg>();
    body.ifa_family = family_of(family_of(address));
    body.ifa_prefixlen = address.len;
    body.ifa_scope = RT_SCOPE_UNIVERSE;
    body.ifa_index = static_cast<uint32_t>(index);
    // Nobody else can have it: no duplicate detection, usable at once.
    if (address.addr.is_v6()) body.ifa_flags = IFA_F_NODAD;
    request.attr(IFA_LOCAL, address.addr);
    request.attr(IFA_ADDRESS, address.addr);
    return ignore(transact(request, "add address " + address.str()), EEXIST);
}

Status Netlink::delete_address(int index, const Prefix& address) {
    Request request(RTM_DELADDR, 0);
    auto& body = request.body<ifaddrmsg>();
    body.ifa_family = family_of(family_of(address));
    body.ifa_prefixlen = address.len;
    body.ifa_index = static_cast<uint32_t>(index);
    request.attr(IFA_LOCAL, address.addr);
    return ignore(transact(request, "delete address " + address.str()), EADDRNOTAVAIL);
}

Result<std::vector<IpRoute>> Netlink::routes(Addr::Family family, uint32_t table, int oif) {
    Request request(RTM_GETROUTE, NLM_F_DUMP);
    request.body<rtmsg>().rtm_family = family_of(family);
    if (strict_) request.attr(RTA_TABLE, table);
    if (strict_ && oif > 0) request.attr(RTA_OIF, static_cast<uint32_t>(oif));
    std::vector<IpRoute> out;
    const Status s = transact(request, "list routes", [&](uint16_t type, const uint8_t* body, size_t len) {
        auto r = parse_route(type, body, len);
        if (r && r->table == table && (oif == 0 || r->oif == oif)) out.push_back(*r);
    });
    if (!is_errno(s, ENOENT)) TRY(s);  // the table comes into being with its first route
    std::sort(out.begin(), out.end());
    return out;
}

Status Netlink::add_route(const IpRoute& route) {
    Request request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
    auto& body = request.body<rtmsg>();
    body.rtm_family = family_of(family_of(route.dst));
    body.rtm_dst_len = route.dst.len;
    body.rtm_table = route.table < 256 ? static_cast<uint8_t>(route.table) : uint8_t{RT_TABLE_UNSPEC};
    body.rtm_protocol = RTPROT_BOOT;
    body.rtm_scope = RT_SCOPE_UNIVERSE;
    body.rtm_type = route.type == IpRoute::Type::kThrow ? RTN_THROW : RTN_UNICAST;
    request.attr(RTA_TABLE, route.table);
    if (route.dst.len > 0) request.attr(RTA_DST, route.dst.masked().addr);
    if (route.oif > 0) request.attr(RTA_OIF, static_cast<uint32_t>(route.oif));
    if (route.gateway.is_valid()) request.attr(RTA_GATEWAY, route.gateway);
    if (route.metric > 0) request.attr(RTA_PRIORITY, route.metric);
    return transact(request, "add route " + route.dst.str());
}

Status Netlink::delete_route(const IpRoute& route) {
    Request request(RTM_DELROUTE, 0);
    auto& body = request.body<rtmsg>();
    body.rtm_family = family_of(family_of(route.dst));
    body.rtm_dst_len = route.dst.len;
    body.rtm_table = route.table < 256 ? static_cast<uint8_t>(route.table) : uint8_t{RT_TABLE_UNSPEC};
    body.rtm_scope = RT_SCOPE_NOWHERE;
    body.rtm_type = route.type == IpRoute::Type::kThrow     ? RTN_THROW
                    : route.type == IpRoute::Type::kUnicast ? RTN_UNICAST
                                                            : RTN_UNSPEC;
    request.attr(RTA_TABLE, route.table);
    if (route.dst.len > 0) request.attr(RTA_DST, route.dst.masked().addr);
    if (route.oif > 0) request.attr(RTA_OIF, static_cast<uint32_t>(route.oif));
    if (route.metric > 0) request.attr(RTA_PRIORITY, route.metric);
    return ignore(transact(request, "delete route " + route.dst.str()), ESRCH);
}

Result<IpRoute> Netlink::look_up(const Addr& dst, uint32_t mark, unsigned flags) {
    Request request(RTM_GETROUTE, 0);
    auto& body = request.body<rtmsg>();
    body.rtm_family = dst.is_v4() ? AF_INET : AF_INET6;
    body.rtm_dst_len = static_cast<uint8_t>(dst.bits());
    body.rtm_flags = flags;
    request.attr(RTA_DST, dst);
    if (mark != 0) request.attr(RTA_MARK, mark);
    IpRoute out;
    const Status s = transact(request, "route to " + dst.str(), [&](uint16_t type, const uint8_t* b, size_t len) {
        if (auto r = parse_route(type, b, len); r && r->type == IpRoute::Type::kUnicast) out = *r;
    });
    if (!s) {
        const int err = s.error().sys_errno;
        if (err == ENETUNREACH || err == EHOSTUNREACH || err == EACCES || err == EINVAL || err == EAFNOSUPPORT ||
            err == EOPNOTSUPP)
            return IpRoute{};
        return tl::unexpected(s.error());
    }
    return out;
}

Result<int> Netlink::route_interface(const Addr& dst, uint32_t mark) {
    TRY_ASSIGN(const IpRoute route, look_up(dst, mark, 0));
    return route.oif;
}

Result<IpRoute> Netlink::route_entry(const Addr& dst, uint32_t mark) { return look_up(dst, mark, RTM_F_FIB_MATCH); }

Result<std::vector<IpRule>> Netlink::rules(Addr::Family family) {
    Request request(RTM_GETRULE, NLM_F_DUMP);
    request.body<fib_rule_hdr>().family = family_of(family);
    std::vector<IpRule> out;
    TRY(transact(request, "list rules", [&](uint16_t type, const uint8_t* body, size_t len) {
        auto r = parse_rule(type, body, len);
        if (r && r->family == family) out.push_back(*r);
    }));
    std::stable_sort(out.begin(), out.end());
    return out;
}

namespace {

template <class R>
void fill_rule(R& request, const IpRule& rule) {
    auto& body = request.template body<fib_rule_hdr>();
    body.family = family_of(rule.family);
    body.action = rule.action == IpRule::Action::kUnreachable ? uint8_t{FR_ACT_UNREACHABLE} : uint8_t{FR_ACT_TO_TBL};
    body.table = rule.table < 256 ? static_cast<uint8_t>(rule.table) : uint8_t{RT_TABLE_UNSPEC};
    request.attr(FRA_PRIORITY, rule.priority);
    if (rule.table != 0) request.attr(FRA_TABLE, rule.table);
    if (rule.mark != 0 || rule.mask != 0) {
        request.attr(FRA_FWMARK, rule.mark);
        request.attr(FRA_FWMASK, rule.mask);
    }
}

}  // namespace

Status Netlink::add_rule(const IpRule& rule) {
    Request request(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL);
    fill_rule(request, rule);
    return ignore(transact(request, "add rule " + std::to_string(rule.priority)), EEXIST);
}

Status Netlink::delete_rule(const IpRule& rule) {
    Request request(RTM_DELRULE, 0);
    fill_rule(request, rule);
    return ignore(transact(request, "delete rule " + std::to_string(rule.priority)), ENOENT);
}

}  // namespace mesh::platform
