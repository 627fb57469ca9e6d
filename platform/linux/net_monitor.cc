// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/net_monitor.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <limits>
#include <map>

#include "base/log.h"
#include "platform/fd.h"
#include "platform/linux/legacy_tables.h"
#include "platform/linux/netlink.h"
#include "platform/linux/netlink_wire.h"
#include "platform/linux/router_plan.h"
#include "platform/loop/loop.h"
#include "platform/net/resolver.h"

namespace mesh::platform {
namespace {

constexpr Duration kDebounce = milliseconds(250);
constexpr Duration kRouterDebounce = milliseconds(250);
constexpr Duration kSleepWorthTelling = seconds(5);
constexpr Duration kJumpWorthTelling = minutes(10);
constexpr Duration kLegacyEvery = seconds(1);
constexpr Duration kPollEvery = seconds(10);
constexpr int kDatagramsPerTurn = 64;
constexpr const char* kFarV4 = "198.41.0.4";
constexpr const char* kFarV6 = "2001:503:ba3e::2:30";

Result<UniqueFd> subscribe() {
    UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
    if (!fd.valid()) return fail_errno("netlink socket", errno);
    sockaddr_nl self{};
    self.nl_family = AF_NETLINK;
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&self), sizeof self) < 0) return fail_errno("bind netlink", errno);
    for (const int group : {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE,
                            RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE})
        if (::setsockopt(fd.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) < 0)
            return fail_errno("subscribe to network changes", errno);
    return fd;
}

/// Changes of nftables, iptables-nft's among them. A kernel without them has nothing to tell.
UniqueFd subscribe_firewall() {
    UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER));
    sockaddr_nl self{};
    self.nl_family = AF_NETLINK;
    const int group = NFNLGRP_NFTABLES;
    if (!fd.valid() || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&self), sizeof self) < 0 ||
        ::setsockopt(fd.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) < 0)
        return {};
    return fd;
}

/// Readable when the wall clock jumps, which a wake-up from sleep is as well (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET).
UniqueFd watch_clock() {
    UniqueFd fd(::timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK));
    itimerspec far{};
    far.it_value.tv_sec = std::numeric_limits<time_t>::max() / 2;
    if (fd.valid() && ::timerfd_settime(fd.get(), TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &far, nullptr) < 0) fd.reset();
    return fd;
}

Duration read(clockid_t clock) {
    timespec t{};
    ::clock_gettime(clock, &t);
    return seconds(t.tv_sec) + nanoseconds(t.tv_nsec);
}

}  // namespace

Clocks read_clocks() { return {read(CLOCK_BOOTTIME), read(CLOCK_MONOTONIC), read_wall_clock()}; }

Duration time_away(const Clocks& before, const Clocks& now) {
    const Duration passed = now.boot - before.boot;
    const Duration slept = passed - (now.awake - before.awake);
    if (slept >= kSleepWorthTelling) return slept;
    const Duration held = now.wall - before.wall - passed;
    return held >= kJumpWorthTelling ? held : Duration{};
}

Result<NetState> read_net_state() {
    TRY_ASSIGN(Netlink netlink, Netlink::open());
    NetState out;
    TRY_ASSIGN(const std::vector<LinkInfo> links, netlink.links());
    TRY_ASSIGN(const std::vector<LinkAddr> addrs, netlink.addresses());
    for (const LinkInfo& l : links) out.interfaces.push_back({l, {}});
    for (NetInterface& i : out.interfaces)
        for (const LinkAddr& a : addrs)
            if (a.index == i.link.index) i.addrs.push_back(a);
    // Asked as our own sockets would go, by an address far outside. Nothing is sent; one look-up even on a host with a
    // full routing table.
    const auto default_interface = [&](const char* far) -> std::string {
        const auto index = netlink.route_interface(*Addr::parse(far), kBypassMark);
        if (!index) return {};
        for (const LinkInfo& l : links)
            if (l.index == *index && !l.loopback) return l.name;
        return {};
    };
    for (const char* far : {kFarV4, kFarV6})
        if (const auto r = netlink.route_entry(*Addr::parse(far), kBypassMark); r && r->gateway.is_valid())
            out.gateways.push_back(r->gateway);
    out.default_interface_v4 = default_interface(kFarV4);
    out.default_interface_v6 = default_interface(kFarV6);
    // Aliyun's name servers: its hosts have private addresses and a route of their own for the range.
    std::vector<std::pair<int, Prefix>> into_range;
    for (const Addr& server : {Addr::v4(100, 100, 2, 136), Addr::v4(100, 100, 2, 138)})
        if (const auto r = netlink.route_entry(server, kBypassMark); r && r->oif != 0) into_range.emplace_back(r->oif, r->dst);
    for (const Endpoint& server : system_resolver_config().servers)
        if (const auto r = netlink.route_entry(server.addr, kBypassMark); r && r->oif != 0 && server.addr.is_v4())
            into_range.emplace_back(r->oif, Prefix::single(server.addr));
    out.outside_ranges = outside_ranges(out.interfaces, into_range);
    return out;
}

struct NetMonitor::State {
    State(Loop& l, std::string tun, Callback cb)
        : loop(l),
          own_tun(std::move(tun)),
          on_event(std::move(cb)),
          change_timer(l, [this] { judge(); }),
          router_timer(l, [this] { tell_router(); }),
          legacy_timer(l, [this] { look_at_legacy_tables(); }) {}

    Loop& loop;
    std::string own_tun;
    Callback on_event;
    NetState now;
    int own_index = 0;
    UniqueFd fd;
    bool polling = false;
    bool overflowed = false;
    Timer change_timer;
    Timer router_timer;
    Timer legacy_timer;
    std::vector<LegacyTable> legacy;
    UniqueFd firewall_fd;
    UniqueFd clock_fd;
    Clocks clocks;
    std::unique_ptr<FdPoll> poll;  // last: die first
    std::unique_ptr<FdPoll> firewall_poll;
    std::unique_ptr<FdPoll> clock_poll;

    void changed() {
        if (!change_timer.armed() || polling) change_timer.set_after(kDebounce);
    }
    void router_touched() {
        if (!router_timer.armed()) router_timer.set_after(kRouterDebounce);
    }

    /// The callback comes last: it may destroy us.
    void call(const NetEvent& event) {
        const Callback cb = on_event;
        cb(event);
    }

    void tell_router() {
        const NetState copy = now;
        call({.change = NetChange::kNone, .router_touched = true, .state = &copy});
    }

    void judge() {
        if (polling) change_timer.set_after(kPollEvery);
        auto fresh = read_net_state();
        if (!fresh) {
            log::info("monitor: {}", fresh.error().message());
            return;
        }
        const NetState before = std::exchange(now, std::move(*fresh));
        note_own_index();
        const NetChange change = judge_change(before, now, own_tun);
        const bool lost = std::exchange(overflowed, false) || polling;
        if (change == NetChange::kNone && !lost) return;
        const NetState copy = now;
        call({.change = change, .router_touched = lost, .state = &copy});
    }

    void look_at_legacy_tables() {
        legacy_timer.set_after(kLegacyEvery);
        std::vector<LegacyTable> fresh = read_legacy_tables();
        if (fresh == legacy) return;
        legacy = std::move(fresh);
        router_touched();
    }

    void note_own_index() {
        own_index = 0;
        for (const NetInterface& i : now.interfaces)
            if (i.link.name == own_tun) own_index = i.link.index;
    }

    void readable() {
        alignas(nlmsghdr) uint8_t buffer[16384];
        for (int i = 0; i < kDatagramsPerTurn; ++i) {
            const ssize_t n = ::recv(fd.get(), buffer, sizeof buffer, 0);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0 && errno == ENOBUFS) {
                // Too much at once: read everything anew and let the router look.
                overflowed = true;
                changed();
                continue;
            }
            if (n <= 0) return;
            each_message(buffer, static_cast<size_t>(n));
        }
    }

    void clock_jumped() {
        uint64_t count = 0;
        static_cast<void>(!::read(clock_fd.get(), &count, sizeof count));  // ECANCELED: that is the news
        look_at_clocks(read_clocks());
    }
    /// After a sleep paths, relays and leases are stale, whatever the addresses look like.
    void look_at_clocks(const Clocks& fresh) {
        const Duration away = time_away(std::exchange(clocks, fresh), fresh);
        if (away == Duration{}) return;
        log::info("monitor: the machine slept, or its clock was set, for {} s", away.millis() / 1000);
        const NetState copy = now;
        changed();
        call({.change = NetChange::kMajor, .router_touched = true, .state = &copy});
    }

    /// What changed does not matter, nor that some of it was lost: the router looks itself.
    void firewall_readable() {
        uint8_t buffer[16384];
        for (int i = 0; i < kDatagramsPerTurn; ++i) {
            const ssize_t n = ::recv(firewall_fd.get(), buffer, sizeof buffer, 0);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0 && errno != ENOBUFS) return;
            router_touched();
        }
    }

    void each_message(const uint8_t* at, size_t rest) {
        while (rest >= sizeof(nlmsghdr)) {
            nlmsghdr h{};
            std::memcpy(&h, at, sizeof h);
            if (h.nlmsg_len < NLMSG_HDRLEN || h.nlmsg_len > rest) return;
            message(h.nlmsg_type, at + NLMSG_HDRLEN, h.nlmsg_len - NLMSG_HDRLEN);
            const size_t step = std::min(rest, size_t{NLMSG_ALIGN(h.nlmsg_len)});
            at += step;
            rest -= step;
        }
    }

    void message(uint16_t type, const uint8_t* body, size_t len) {
        if (const auto link = parse_link(type, body, len)) {
            if (link->name == own_tun) {
                own_index = link->index;
                router_touched();  // down and up again costs routes and addresses
            } else {
                changed();
            }
        } else if (const auto addr = parse_address(type, body, len)) {
            if (addr->index == own_index) {
                if (type == RTM_DELADDR) router_touched();
            } else {
                changed();
            }
        } else if (const auto route = parse_route(type, body, len)) {
            // Without policy routing ours are in main.
            if (route->table == kRouteTable || route->oif == own_index) {
                if (type == RTM_DELROUTE) router_touched();
            } else if (!route->dst.addr.is_multicast() && !route->dst.addr.is_link_local()) {
                changed();
            }
        } else if (const auto rule = parse_rule(type, body, len)) {
            const auto in = [&](uint32_t base) { return rule->priority >= base && rule->priority < base + 100; };
            if (type == RTM_DELRULE && (in(kRuleBase) || in(kMwan3RuleBase))) router_touched();
        }
    }
};

Result<std::unique_ptr<NetMonitor>> NetMonitor::create(Loop& loop, std::string own_tun, Callback on_event) {
    auto state = std::make_unique<State>(loop, std::move(own_tun), std::move(on_event));
    State* const s = state.get();
    // Subscribe first, so that nothing changes unseen between reading and watching.
    auto fd = subscribe();
    if (fd) {
        s->fd = std::move(*fd);
        s->poll = std::make_unique<FdPoll>(loop, s->fd.get(), [s](FdPoll::Events) { s->readable(); });
        s->poll->set_interest(true, false);
    } else {
        log::info("monitor: {}; polling every 10 s", fd.error().message());
        s->polling = true;
        s->change_timer.set_after(kPollEvery);
    }
    s->clocks = read_clocks();
    s->clock_fd = watch_clock();
    if (s->clock_fd.valid()) {
        s->clock_poll = std::make_unique<FdPoll>(loop, s->clock_fd.get(), [s](FdPoll::Events) { s->clock_jumped(); });
        s->clock_poll->set_interest(true, false);
    }
    s->firewall_fd = subscribe_firewall();
    if (s->firewall_fd.valid()) {
        s->firewall_poll = std::make_unique<FdPoll>(loop, s->firewall_fd.get(), [s](FdPoll::Events) { s->firewall_readable(); });
        s->firewall_poll->set_interest(true, false);
    }
    TRY_ASSIGN(s->now, read_net_state());
    s->note_own_index();
    return std::unique_ptr<NetMonitor>(new NetMonitor(std::move(state)));
}

NetMonitor::NetMonitor(std::unique_ptr<State> state) : state_(std::move(state)) {}
NetMonitor::~NetMonitor() = default;
const NetState& NetMonitor::state() const { return state_->now; }
void NetMonitor::watch_legacy_tables() { state_->look_at_legacy_tables(); }
void NetMonitor::look_at_clocks(const Clocks& now) { state_->look_at_clocks(now); }

}  // namespace mesh::platform
