// SPDX-License-Identifier: BSD-3-Clause
// Choice of the firewall, the rules in both languages, plans for nftables, the limit of repairs.
#include <gtest/gtest.h>

#include "platform/linux/firewall_choice.h"
#include "platform/linux/net_state.h"
#include "platform/linux/nft_plan.h"
#include "platform/linux/repair_limit.h"
#include "platform/linux/router_plan.h"

namespace mesh::platform {
namespace {

Prefix p(const char* text) { return *Prefix::parse(text); }

RouterConfig client() {
    RouterConfig c;
    c.local_addrs = {p("100.64.0.1/32"), p("fd7a:115c:a1e0::1/128")};
    c.port_v4 = c.port_v6 = 41641;
    return c;
}

TEST(FirewallChoice, IsTheOriginals) {
    const auto choice = [](FirewallFacts f) { return choose_firewall(f).mode; };
    const FirewallFacts both{.iptables_found = true, .iptables_works = true, .nft_works = true};
    const auto with = [&](const char* wish, size_t ipt = 0, size_t nft = 0) {
        FirewallFacts f = both;
        f.wish = wish;
        f.iptables_rules = ipt;
        f.nft_rules = nft;
        return choose_firewall(f).mode;
    };
    EXPECT_EQ(with(""), "ipt-default");
    EXPECT_EQ(with("nftables"), "nft-forced");
    EXPECT_EQ(with("iptables"), "ipt-forced");
    EXPECT_EQ(with("auto", 0, 0), "nft");
    EXPECT_EQ(with("auto", 1, 1), "nft");
    EXPECT_EQ(with("auto", 1, 0), "ipt-inuse");
    EXPECT_EQ(with("auto", 0, 1), "nft-inuse");
    EXPECT_EQ(choice({.nft_works = true}), "nft-noipt");
    EXPECT_EQ(choice({}), "");
    // iptables cannot show what nft put into its tables: it would add our rules for ever.
    EXPECT_EQ(choice({.iptables_found = true, .nft_works = true}), "nft-inuse");
    EXPECT_EQ(choice({.wish = "nftables", .iptables_found = true, .iptables_works = true}), "ipt-fb");
}

std::vector<std::string> nft_texts(const std::vector<FirewallRule>& rules) {
    std::vector<std::string> out;
    for (const FirewallRule& r : rules) out.push_back(r.nft());
    return out;
}

TEST(FirewallRules, NftMeansTheSame) {
    RouterConfig c = client();
    c.stateful_filtering = true;
    const FirewallRules rules = firewall_rules(c, Addr::Family::kV4, false);
    EXPECT_EQ(nft_texts(rules.input), (std::vector<std::string>{
                                          "iifname \"lo\" ip saddr 100.64.0.1 counter accept",
                                          "iifname \"tailscale0\" counter accept",
                                          "udp dport 41641 counter accept",
                                          "iifname != \"tailscale0\" ip saddr 100.115.92.0/23 counter return",
                                          "iifname != \"tailscale0\" ip saddr 100.64.0.0/10 counter drop",
                                      }));
    EXPECT_EQ(nft_texts(rules.forward), (std::vector<std::string>{
                                            "iifname \"tailscale0\" counter meta mark set meta mark & 0xff00ffff | 0x00040000",
                                            "meta mark & 0x00ff0000 == 0x00040000 counter accept",
                                            "oifname \"tailscale0\" ip saddr 100.64.0.0/10 counter drop",
                                            "oifname \"tailscale0\" ct state & (established | related) == 0 counter drop",
                                            "oifname \"tailscale0\" counter accept",
                                        }));
    EXPECT_EQ(nft_texts(rules.postrouting),
              (std::vector<std::string>{"meta mark & 0x00ff0000 == 0x00040000 counter masquerade"}));
    EXPECT_EQ(nft_texts(firewall_rules(c, Addr::Family::kV6, false).input),
              (std::vector<std::string>{"iifname \"lo\" ip6 saddr fd7a:115c:a1e0::1 counter accept",
                                        "iifname \"tailscale0\" counter accept", "udp dport 41641 counter accept"}));
}

TEST(FirewallRules, ThePortOfOurUdpRelayIsOpenInBothFamilies) {
    RouterConfig c = client();
    c.relay_port = 40000;
    for (const Addr::Family family : {Addr::Family::kV4, Addr::Family::kV6})
        EXPECT_EQ(nft_texts(firewall_rules(c, family, false).input)[3], "udp dport 40000 counter accept");
}

TEST(FirewallRules, ATailnetOfAnotherPrefixDropsNothingOf100_64) {
    RouterConfig c = client();
    c.local_addrs = {p("10.1.0.1/32")};
    const FirewallRules rules = firewall_rules(c, Addr::Family::kV4, false);
    for (const auto* list : {&rules.input, &rules.forward})
        for (const FirewallRule& r : *list) EXPECT_NE(r.verdict, FirewallRule::Verdict::kDrop) << r.iptables();
}

TEST(FirewallRules, AnOutsideRangeKeepsItsAnswersLeasesAndNeighbours) {
    RouterConfig c = client();
    c.outside_ranges = {{"wan", {p("100.72.0.0/16")}}, {"bad\"name", {}}};
    std::vector<std::string> texts;
    for (const FirewallRule& r : firewall_rules(c, Addr::Family::kV4, false).input) texts.push_back(r.iptables());
    EXPECT_EQ(std::vector<std::string>(texts.begin() + 3, texts.end()),
              (std::vector<std::string>{"-s 100.64.0.0/10 -i wan -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
                                        "-s 100.64.0.0/10 -i wan -p udp -m udp --sport 67 --dport 68 -j RETURN",
                                        "-s 100.72.0.0/16 -i wan -j RETURN", "-s 100.115.92.0/23 ! -i tailscale0 -j RETURN",
                                        "-s 100.64.0.0/10 ! -i tailscale0 -j DROP"}));
}

NetInterface interface(int index, const char* name, const char* kind, std::vector<Prefix> addrs) {
    NetInterface i;
    i.link = {index, name, kind, true, true, false, 1500};
    for (const Prefix& a : addrs) i.addrs.push_back({.index = index, .prefix = a});
    return i;
}

TEST(OutsideRanges, CarrierCloudAndSmallNetworkButNoTunnel) {
    const std::vector<NetInterface> interfaces = {
        interface(2, "wan", "veth", {p("100.72.3.4/22")}), interface(3, "ppp0", "ppp", {p("100.99.1.1/32")}),
        interface(4, "eth0", "veth", {p("172.16.0.5/20")}), interface(5, "tailscale0", "tun", {p("100.64.0.1/32")}),
        interface(6, "lan", "bridge", {p("192.168.1.1/24")})};
    const auto found = outside_ranges(interfaces, {{4, p("100.64.0.0/10")}, {6, p("0.0.0.0/0")}});
    EXPECT_EQ(found, (std::vector<OutsideRange>{
                         {"wan", {p("100.72.0.0/22")}}, {"ppp0", {}}, {"eth0", {p("100.64.0.0/10")}}}));
    // A name server there that only the default route leads to.
    EXPECT_EQ(outside_ranges({interfaces[2]}, {{4, p("100.100.2.136/32")}}), (std::vector<OutsideRange>{{"eth0", {}}}));
}

NftRequest request(const RouterConfig& c) {
    NftRequest r;
    r.wanted = nft_wanted(firewall_rules(c, Addr::Family::kV4, false), ChainNames{});
    r.install_hooks = r.connmark = true;
    r.managed = {ChainNames{}};
    return r;
}

/// The host after the first application, as the kernel would show it.
NftHost good_host(const RouterConfig& c) {
    NftHost host;
    uint64_t handle = 1;
    const auto rule = [&](const std::string& text, const std::string& target = "") {
        return NftRule{.handle = handle++, .comment = nft_rule_comment(text), .target = target, .in = "", .accepts = false, .connmark = false};
    };
    const NftWanted w = request(c).wanted;
    const auto chains = [&](const char* table, const auto& list) {
        for (const auto& [name, texts] : list) {
            NftChain chain{.v6 = false, .table = table, .name = name, .base = false, .rules = {}};
            for (const std::string& t : texts) chain.rules.push_back(rule(t));
            host.chains.push_back(chain);
        }
    };
    chains("filter", w.filter);
    chains("nat", w.nat);
    for (const FirewallHook& h : kFirewallHooks)
        host.chains.push_back({.v6 = false, .table = h.table, .name = h.parent, .base = true,
                               .rules = {rule("counter jump " + ChainNames{}.*h.chain, ChainNames{}.*h.chain)}});
    for (const ConnmarkRule& m : kConnmark)
        host.chains.push_back({.v6 = false, .table = "mangle", .name = m.chain, .base = true, .rules = {rule(m.nft)}});
    return host;
}

TEST(NftPlan, WhatIsThereStays) { EXPECT_EQ(nft_script(good_host(client()), request(client())), ""); }

TEST(NftPlan, AnEmptyHostGetsTablesChainsRulesAndJumps) {
    const std::string script = nft_script({}, request(client()));
    EXPECT_NE(script.find("add chain ip filter INPUT { type filter hook input priority 0; }\n"), std::string::npos) << script;
    EXPECT_NE(script.find("add rule ip filter ts-input udp dport 41641 counter accept comment \"ts-rule "), std::string::npos);
    EXPECT_NE(script.find("insert rule ip nat POSTROUTING counter jump ts-postrouting"), std::string::npos);
    EXPECT_EQ(script.find("policy"), std::string::npos) << "a policy that is there stays";
}

TEST(NftPlan, OnlyWhatIsMissingIsMended) {
    NftHost host = good_host(client());
    for (NftChain& c : host.chains)
        if (c.name == "FORWARD") c.rules.clear();
    EXPECT_EQ(nft_script(host, request(client())).find("insert rule ip filter FORWARD"), 0U);
    for (NftChain& c : host.chains)
        if (c.name == "ts-forward") c.rules.pop_back();
    const std::string script = nft_script(host, request(client()));
    EXPECT_NE(script.find("flush chain ip filter ts-forward\n"), std::string::npos);
    EXPECT_EQ(script.find("ts-input"), std::string::npos) << script;
}

TEST(NftPlan, NothingLeavesNothingAndTakesForeignJumpsAlong) {
    NftHost host = good_host(client());
    host.chains.push_back({.v6 = false, .table = "filter", .name = "mine", .base = false,
                           .rules = {{.handle = 77, .comment = "", .target = "ts-input", .in = "", .accepts = false, .connmark = false}}});
    NftRequest r = request(client());
    r.wanted = {};
    r.install_hooks = r.connmark = false;
    r.remove_hooks = true;
    const std::string script = nft_script(host, r);
    EXPECT_NE(script.find("delete rule ip filter mine handle 77\n"), std::string::npos);
    for (const char* chain : {"filter ts-input", "filter ts-forward", "nat ts-postrouting"})
        EXPECT_NE(script.find(std::string("delete chain ip ") + chain), std::string::npos) << script;
    EXPECT_NE(script.find("delete rule ip mangle OUTPUT handle"), std::string::npos);
    EXPECT_EQ(script.find("add "), std::string::npos);
    EXPECT_LT(script.find("delete rule ip filter mine"), script.find("delete chain ip filter ts-input"));
}

TEST(NftPlan, NodivertFillsChainsAndLeavesAnAdministratorsJump) {
    NftRequest r = request(client());
    r.install_hooks = r.connmark = false;
    const std::string script = nft_script({}, r);
    EXPECT_EQ(script.find("jump"), std::string::npos);
    EXPECT_NE(script.find("add rule ip filter ts-forward"), std::string::npos);
    EXPECT_EQ(nft_script(good_host(client()), r).find("jump"), std::string::npos);
}

TEST(RepairLimit, SoonForAMinuteOfReloadsSlowForAFight) {
    RepairLimit limit;
    Time now{1'000'000'000};
    EXPECT_LE(limit.next(now), now);
    for (int i = 0; i < 60; ++i) {
        limit.looked(now, true);
        EXPECT_LE(limit.next(now) - now, milliseconds(500));
        now = now + seconds(1);
    }
    EXPECT_FALSE(limit.fighting());
    for (int i = 0; i < 200; ++i) limit.looked(now = now + seconds(1), true);
    EXPECT_TRUE(limit.fighting());
    EXPECT_EQ(limit.next(now) - now, RepairLimit::kFightGap);
    // After a quiet minute all is as at first.
    now = now + seconds(61);
    limit.looked(now, false);
    EXPECT_FALSE(limit.fighting());
    EXPECT_EQ(limit.next(now) - now, RepairLimit::kGap);
}

}  // namespace
}  // namespace mesh::platform
