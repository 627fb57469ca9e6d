// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/net_monitor.h"
#include "platform/linux/net_state.h"

#include <gtest/gtest.h>

namespace mesh::platform {
namespace {

NetInterface interface(int index, const char* name, std::initializer_list<const char*> addrs, bool up = true) {
    NetInterface i;
    i.link = {index, name, "", up, up, std::string_view(name) == "lo", 1500};
    for (const char* a : addrs) i.addrs.push_back({index, *Prefix::parse(a), false, false, false});
    return i;
}

NetState laptop() {
    NetState s;
    s.interfaces = {interface(1, "lo", {"127.0.0.1/8", "::1/128"}),
                    interface(2, "eth0", {"192.168.1.10/24", "2001:db8::10/64", "fe80::1/64"}),
                    interface(5, "tailscale0", {"100.64.0.1/32", "fd7a:115c:a1e0::1/128"})};
    s.default_interface_v4 = s.default_interface_v6 = "eth0";
    return s;
}

std::vector<std::string> endpoints(const NetState& s) {
    std::vector<std::string> out;
    for (const Addr& a : local_endpoint_addrs(s, "tailscale0")) out.push_back(a.str());
    return out;
}

TEST(NetState, SameStateIsNoChange) {
    EXPECT_EQ(judge_change(laptop(), laptop(), "tailscale0"), NetChange::kNone);
    EXPECT_TRUE(laptop().have_v4("tailscale0"));
    EXPECT_TRUE(laptop().have_v6("tailscale0"));
}

TEST(NetState, OurOwnTunNeverCounts) {
    NetState now = laptop();
    now.interfaces.back().addrs.clear();
    now.interfaces.back().link.mtu = 1400;
    EXPECT_EQ(judge_change(laptop(), now, "tailscale0"), NetChange::kNone);
}

TEST(NetState, AnotherDefaultInterfaceOrAddressIsMajor) {
    NetState now = laptop();
    now.interfaces.push_back(interface(9, "wlan0", {"10.0.0.7/24"}));
    now.default_interface_v4 = "wlan0";
    EXPECT_EQ(judge_change(laptop(), now, "tailscale0"), NetChange::kMajor);
    now = laptop();
    now.interfaces[1].addrs[0].prefix = *Prefix::parse("192.168.1.11/24");
    EXPECT_EQ(judge_change(laptop(), now, "tailscale0"), NetChange::kMajor);
}

TEST(NetState, LosingTheDefaultRouteIsMinorUntilThereIsAUsableOne) {
    NetState now = laptop();
    now.default_interface_v4 = now.default_interface_v6 = "";
    EXPECT_EQ(judge_change(laptop(), now, "tailscale0"), NetChange::kMinor);
    EXPECT_EQ(judge_change(now, laptop(), "tailscale0"), NetChange::kMajor);
}

TEST(NetState, AnotherGatewayByTheSameInterfaceIsMinor) {
    NetState now = laptop();
    now.gateways = {Addr::v4(192, 168, 1, 254)};
    EXPECT_EQ(judge_change(laptop(), now, "tailscale0"), NetChange::kMinor);
}

TEST(NetState, AHostWithoutAnyDefaultRouteHasChangesTooThatMatter) {
    NetState before = laptop();
    before.default_interface_v4 = before.default_interface_v6 = "";
    NetState now = before;
    now.interfaces[1].addrs[0].prefix = *Prefix::parse("192.168.1.11/24");
    EXPECT_EQ(judge_change(before, now, "tailscale0"), NetChange::kMajor);
    now.interfaces[1].addrs.clear();
    EXPECT_EQ(judge_change(before, now, "tailscale0"), NetChange::kMinor) << "nothing left to use";
}

TEST(NetState, AnInterfaceWithoutAddressesIsMinor) {
    NetState now = laptop();
    now.interfaces.push_back(interface(12, "veth12", {"fe80::5/64"}));
    EXPECT_EQ(judge_change(laptop(), now, "tailscale0"), NetChange::kMinor);
}

TEST(Clocks, SleepAndLongJumpsAreTimeAway) {
    const Clocks before{seconds(1000), seconds(900), {1'700'000'000'000'000'000}};
    const auto later = [&](int64_t boot, int64_t awake, int64_t wall) {
        return time_away(before, {before.boot + seconds(boot), before.awake + seconds(awake), before.wall + seconds(wall)});
    };
    EXPECT_EQ(later(60, 60, 60), Duration{}) << "a quiet minute";
    EXPECT_EQ(later(3600, 10, 3600), seconds(3590)) << "asleep";
    EXPECT_EQ(later(12, 10, 12), Duration{}) << "a blink";
    EXPECT_EQ(later(10, 10, 3610), seconds(3600)) << "a virtual machine that was held";
    EXPECT_EQ(later(10, 10, 310), Duration{}) << "a clock that is put right";
    EXPECT_EQ(later(10, 10, -7200), Duration{}) << "and back";
}

TEST(LocalEndpoints, OrdinaryAddressesOnly) {
    EXPECT_EQ(endpoints(laptop()), (std::vector<std::string>{"192.168.1.10", "2001:db8::10"}));
}

TEST(LocalEndpoints, WeakAddressesOnlyIfThereIsNothingElse) {
    NetState s = laptop();
    s.interfaces[1] = interface(2, "eth0", {"169.254.3.4/16", "fd00::9/64", "100.70.0.1/24", "fe80::1/64"});
    EXPECT_EQ(endpoints(s), (std::vector<std::string>{"169.254.3.4", "fd00::9"}));
    s.interfaces[1] = interface(2, "eth0", {"100.70.0.1/24"});
    EXPECT_EQ(endpoints(s), (std::vector<std::string>{"127.0.0.1", "::1"}));
}

TEST(LocalEndpoints, OtherOverlaysAndDownInterfacesAreLeftOut) {
    NetState s = laptop();
    s.interfaces.push_back(interface(20, "zt0abc", {"10.147.1.1/24"}));
    s.interfaces.push_back(interface(21, "wt0", {"10.148.1.1/24"}));
    s.interfaces.push_back(interface(22, "eth1", {"10.149.1.1/24"}, false));
    s.interfaces.push_back(interface(23, "eth2", {"100.115.92.2/23"}));
    EXPECT_EQ(endpoints(s), (std::vector<std::string>{"100.115.92.2", "192.168.1.10", "2001:db8::10"}));
}

TEST(LocalEndpoints, AtMostTwoIpv6AddressesPerSubnet) {
    NetState s = laptop();
    s.interfaces[1] = interface(2, "eth0", {"2001:db8::1/64", "2001:db8::2/64", "2001:db8::3/64", "2001:db8:0:1::1/64"});
    EXPECT_EQ(endpoints(s), (std::vector<std::string>{"2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"}));
}

}  // namespace
}  // namespace mesh::platform
