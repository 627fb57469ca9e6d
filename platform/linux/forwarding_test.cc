// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/forwarding.h"

#include <gtest/gtest.h>

#include <map>

namespace mesh::platform {
namespace {

std::vector<Prefix> routes(std::initializer_list<const char*> texts) {
    std::vector<Prefix> out;
    for (const char* t : texts) out.push_back(*Prefix::parse(t));
    return out;
}

ForwardingHost host(std::map<std::string, std::string> sysctls) {
    ForwardingHost h;
    h.read_sysctl = [sysctls](const std::string& key) -> std::optional<std::string> {
        const auto it = sysctls.find(key);
        if (it == sysctls.end()) return std::nullopt;
        return it->second;
    };
    h.interfaces = {"lo", "eth0", "lan.5"};
    h.own_addrs = {*Addr::parse("192.168.1.10")};
    return h;
}

std::map<std::string, std::string> values(const char* v4, const char* v6, const char* eth0, const char* lan) {
    return {{"net/ipv4/ip_forward", v4},
            {"net/ipv6/conf/all/forwarding", v6},
            {"net/ipv4/conf/lo/forwarding", "0"},
            {"net/ipv4/conf/eth0/forwarding", eth0},
            {"net/ipv4/conf/lan.5/forwarding", lan}};
}

TEST(Forwarding, NothingAdvertisedNeedsNothing) {
    EXPECT_EQ(check_forwarding({}, host(values("0", "0", "0", "0"))).text, "");
}

TEST(Forwarding, ARouteToTheHostItselfNeedsNothing) {
    EXPECT_EQ(check_forwarding(routes({"192.168.1.10/32"}), host(values("0", "0", "0", "0"))).text, "");
}

TEST(Forwarding, AllOffIsOneSentence) {
    const auto c = check_forwarding(routes({"192.168.1.0/24"}), host(values("0", "0", "0", "0")));
    EXPECT_EQ(c.text,
              "IP forwarding is disabled, subnet routing/exit nodes will not work.\n"
              "See https://tailscale.com/s/ip-forwarding");
    EXPECT_TRUE(c.broken);
}

TEST(Forwarding, AllOnIsSilent) {
    EXPECT_EQ(check_forwarding(routes({"0.0.0.0/0", "::/0"}), host(values("1", "2", "1", "1"))).text, "");
    EXPECT_EQ(check_forwarding(routes({"10.0.0.0/8"}), host(values("1", "0", "1", "1"))).text, "");
}

TEST(Forwarding, PartlyOnNamesTheInterfacesAndFamilies) {
    const auto c = check_forwarding(routes({"10.0.0.0/8", "fd00::/64"}), host(values("0", "0", "1", "0")));
    EXPECT_EQ(c.text,
              "IPv6 forwarding is disabled.\n"
              "Traffic received on lan.5 won't be forwarded (net.ipv4.conf.lan/5.forwarding disabled)\n"
              "Subnet routes and exit nodes may not work correctly.\n"
              "See https://tailscale.com/s/ip-forwarding");
    EXPECT_FALSE(c.broken);
}

TEST(Forwarding, Ipv6OnlyAsksOnlyForIpv6) {
    EXPECT_EQ(check_forwarding(routes({"fd00::/64"}), host(values("0", "0", "0", "0"))).text,
              "IPv6 forwarding is disabled, subnet routing/exit nodes may not work.\n"
              "See https://tailscale.com/s/ip-forwarding");
    EXPECT_EQ(check_forwarding(routes({"fd00::/64"}), host(values("0", "1", "0", "0"))).text, "");
}

TEST(Forwarding, UnreadableSysctlsSaySo) {
    EXPECT_NE(check_forwarding(routes({"10.0.0.0/8"}), host({})).text.find("Couldn't check"), std::string::npos);
}

}  // namespace
}  // namespace mesh::platform
