// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/router_plan.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "platform/linux/router_samples.h"

namespace mesh::platform {
namespace {

using Kind = Operation::Kind;

Prefix p(const char* text) { return *Prefix::parse(text); }

/// Just enough of a kernel to carry out a plan on a HostState; anything the real one would refuse fails the test.
class FakeKernel {
   public:
    explicit FakeKernel(HostState& host) : host_(host) {}

    void run(const std::vector<Operation>& operations) {
        for (const Operation& op : operations) run(op);
    }

   private:
    void run(const Operation& op) {
        switch (op.kind) {
            case Kind::kLinkUp: host_.link_up = true; break;
            case Kind::kLinkDown: host_.link_up = false; break;
            case Kind::kAddAddress: host_.addrs.push_back(op.address); break;
            case Kind::kDeleteAddress: EXPECT_EQ(std::erase(host_.addrs, op.address), 1U); break;
            case Kind::kAddRule: host_.rules.push_back(op.rule); break;
            case Kind::kDeleteRule: {
                const auto it = std::find(host_.rules.begin(), host_.rules.end(), op.rule);
                ASSERT_NE(it, host_.rules.end()) << op.str();
                host_.rules.erase(it);
                break;
            }
            case Kind::kAddRoute:
                for (const IpRoute& r : host_.routes) EXPECT_NE(r.dst, op.route.dst) << "EEXIST " << op.str();
                host_.routes.push_back(op.route);
                break;
            case Kind::kDeleteRoute: EXPECT_EQ(std::erase(host_.routes, op.route), 1U) << op.str(); break;
            case Kind::kIptables: restore(*host_.iptables, op.script); break;
            case Kind::kIp6tables: restore(*host_.ip6tables, op.script); break;
            case Kind::kNft: FAIL() << "nobody asked for nftables"; break;
        }
    }

    void restore(Iptables& tables, const std::string& script) {
        std::string table;
        for (size_t at = 0; at < script.size();) {
            const size_t end = script.find('\n', at);
            line(tables, table, script.substr(at, end - at));
            at = end + 1;
        }
        for (auto& [name, chains] : tables.tables)
            std::erase_if(chains, [](const auto& c) { return !c.first.starts_with("ts-") && c.second.empty(); });
        std::erase_if(tables.tables, [](const auto& t) { return t.second.empty(); });
    }

    static void line(Iptables& tables, std::string& table, const std::string& l) {
        if (l == "COMMIT") return;
        if (l[0] == '*') {
            table = l.substr(1);
            return;
        }
        auto& chains = tables.tables[table];
        if (l[0] == ':') {
            chains[l.substr(1, l.find(' ') - 1)].clear();
            return;
        }
        const size_t space = std::min(l.find(' ', 3), l.size());
        const std::string chain = l.substr(3, space - 3);
        const std::string rest = space < l.size() ? l.substr(space + 1) : "";
        if (l.starts_with("-A ")) {
            ASSERT_TRUE(chains.contains(chain)) << l;
            chains[chain].push_back(rest);
        } else if (l.starts_with("-I ")) {
            ASSERT_TRUE(rest.starts_with("1 ")) << l;
            chains[chain].insert(chains[chain].begin(), rest.substr(2));
        } else if (l.starts_with("-D ")) {
            const auto it = std::find(chains[chain].begin(), chains[chain].end(), rest);
            ASSERT_NE(it, chains[chain].end()) << "no such rule: " << l;
            chains[chain].erase(it);
        } else if (l.starts_with("-F ")) {
            chains[chain].clear();
        } else if (l.starts_with("-X ")) {
            ASSERT_TRUE(chains[chain].empty()) << l;
            for (const auto& [name, rules] : chains)
                for (const std::string& rule : rules) ASSERT_FALSE((rule + " ").find("-j " + chain + " ") != std::string::npos) << l;
            chains.erase(chain);
        } else {
            FAIL() << l;
        }
    }

    HostState& host_;
};

HostState fresh_host(const std::string& tun = "tailscale0") {
    HostState host;
    host.tun_index = 7;
    host.iptables = Iptables{};
    host.ip6tables = Iptables{};
    host.links = {{1, "lo", "", true, true, true, 65536}, {2, "eth0", "veth", true, true, false, 1500},
                  {7, tun, "tun", false, false, false, 1280}};
    return host;
}

RouterConfig client() {
    RouterConfig c;
    c.local_addrs = {p("100.64.0.1/32"), p("fd7a:115c:a1e0::1/128")};
    c.peer_routes = {p("100.64.0.2/32"), p("fd7a:115c:a1e0::2/128"), p("fd7a:115c:a1e0::3/128")};
    c.port_v4 = c.port_v6 = 41641;
    return c;
}
constexpr RouterCapabilities kAll{.v6 = true, .iptables = true, .ip6tables = true};

std::vector<Operation> apply(HostState& host, const RouterConfig& config, RouterCapabilities can = kAll,
                             const std::vector<Prefix>& own = {}) {
    WantedState wanted = wanted_state(config, can, host);
    wanted.own_addrs = own;
    auto operations = plan(host, wanted, config.tun_name);
    FakeKernel(host).run(operations);
    return operations;
}

std::vector<std::string> destinations(const HostState& host) {
    std::vector<std::string> out;
    for (const IpRoute& r : host.routes) out.push_back((r.type == IpRoute::Type::kThrow ? "throw " : "") + r.dst.str());
    std::sort(out.begin(), out.end());
    return out;
}

TEST(RouterPlan, ClientEqualsTheOriginalsRulesRoutesAndFirewall) {
    HostState host = fresh_host();
    apply(host, client());
    EXPECT_TRUE(host.link_up);
    EXPECT_EQ(host.addrs, (std::vector<Prefix>{p("100.64.0.1/32"), p("fd7a:115c:a1e0::1/128")}));
    EXPECT_EQ(destinations(host), (std::vector<std::string>{"100.100.100.100/32", "100.64.0.2/32", "fd7a:115c:a1e0::/48",
                                                            "fd7a:115c:a1e0::53/128"}));
    EXPECT_EQ(host.rules.size(), 8U);
    EXPECT_EQ(*host.iptables, parse_iptables_save(samples::client_v4()));
    EXPECT_EQ(*host.ip6tables, parse_iptables_save(samples::client_v6()));
}

TEST(RouterPlan, StatefulFilteringAndNoSnatEqualTheSample) {
    HostState host = fresh_host();
    RouterConfig c = client();
    c.snat_subnet_routes = false;
    c.stateful_filtering = true;
    apply(host, c);
    EXPECT_EQ(*host.iptables, parse_iptables_save(samples::no_snat_stateful(samples::client_v4())));
    EXPECT_EQ(*host.ip6tables, parse_iptables_save(samples::no_snat_stateful(samples::client_v6())));
}

TEST(RouterPlan, NoDivertFillsChainsWithoutHooksAndOffLeavesNone) {
    HostState host = fresh_host();
    RouterConfig c = client();
    c.netfilter = NetfilterMode::kNoDivert;
    apply(host, c);
    EXPECT_EQ(*host.iptables, parse_iptables_save(samples::no_divert(samples::client_v4())));
    c.netfilter = NetfilterMode::kOff;
    apply(host, c);
    EXPECT_EQ(*host.iptables, Iptables{});
    EXPECT_EQ(*host.ip6tables, Iptables{});
    EXPECT_EQ(host.rules.size(), 8U);
    EXPECT_FALSE(host.routes.empty());
}

TEST(RouterPlan, NoDivertLeavesAnAdministratorsJumpAlone) {
    HostState host = fresh_host();
    RouterConfig c = client();
    c.netfilter = NetfilterMode::kNoDivert;
    apply(host, c);
    host.iptables->tables["filter"]["INPUT"] = {"-i eth0 -j ts-input"};
    EXPECT_TRUE(apply(host, c).empty());
    // But a chain that goes takes every jump to it along.
    c.netfilter = NetfilterMode::kOff;
    apply(host, c);
    EXPECT_EQ(*host.iptables, Iptables{});
}

TEST(RouterPlan, ApplyingTwiceIsNoOperation) {
    HostState host = fresh_host();
    RouterConfig c = client();
    c.accepted_routes = {p("192.168.55.0/24"), p("fd55::/64")};
    c.throw_routes = {p("10.0.0.0/24")};
    EXPECT_FALSE(apply(host, c).empty());
    const auto again = apply(host, c);
    EXPECT_TRUE(again.empty()) << again.front().str();
}

TEST(RouterPlan, UndoRestoresTheHostExactly) {
    HostState before = fresh_host();
    before.rules = {{Addr::Family::kV4, 5205, 0, 0, 99, IpRule::Action::kLookup, true}};  // an administrator's
    before.iptables = parse_iptables_save("*filter\n:ts-mine - [0:0]\n-A INPUT -j ts-mine\n-A ts-mine -j DROP\nCOMMIT\n");
    HostState host = before;
    RouterConfig c = client();
    c.throw_routes = {p("10.0.0.0/24")};
    apply(host, c);
    EXPECT_NE(host, before);
    WantedState nothing = nothing_wanted(host, c.tun_name);
    nothing.own_addrs = c.local_addrs;
    FakeKernel(host).run(plan(host, nothing, c.tun_name));
    EXPECT_EQ(host, before);
}

TEST(RouterPlan, OwnSocketsAreOutOfReachBeforeTheTunnelHasRoutes) {
    HostState host = fresh_host();
    const auto operations = apply(host, client());
    const auto first = [&](Kind kind) {
        return std::find_if(operations.begin(), operations.end(), [&](const Operation& o) { return o.kind == kind; });
    };
    EXPECT_LT(first(Kind::kAddRule), first(Kind::kAddRoute));
    EXPECT_LT(first(Kind::kIptables), first(Kind::kAddAddress));
}

TEST(RouterPlan, NewAddressComesBeforeTheOldOneGoes) {
    HostState host = fresh_host();
    RouterConfig c = client();
    c.local_addrs = {p("10.1.0.1/32")};
    apply(host, c);
    c.local_addrs = {p("10.1.0.9/32")};
    const auto operations = apply(host, c, kAll, {p("10.1.0.1/32")});
    std::vector<Kind> kinds;
    for (const Operation& o : operations) kinds.push_back(o.kind);
    EXPECT_LT(std::find(kinds.begin(), kinds.end(), Kind::kAddAddress),
              std::find(kinds.begin(), kinds.end(), Kind::kDeleteAddress));
    EXPECT_EQ(host.addrs, (std::vector<Prefix>{p("10.1.0.9/32")}));
}

TEST(RouterPlan, AnAdministratorsAddressOnTheTunStays) {
    HostState host = fresh_host();
    host.addrs = {p("192.168.99.1/24"), p("100.99.99.99/32")};
    apply(host, client());
    EXPECT_EQ(host.addrs, (std::vector<Prefix>{p("192.168.99.1/24"), p("100.64.0.1/32"), p("fd7a:115c:a1e0::1/128")}));
}

TEST(RouterPlan, PrefixesOutsideTailscalesRangesWork) {
    HostState host = fresh_host();
    RouterConfig c;
    c.local_addrs = {p("10.1.0.1/32")};
    c.peer_routes = {p("10.1.0.2/32"), p("10.1.0.3/32")};
    apply(host, c);
    EXPECT_EQ(destinations(host), (std::vector<std::string>{"10.1.0.2/32", "10.1.0.3/32", "100.100.100.100/32"}));
    EXPECT_EQ(host.iptables->chain("filter", "ts-input")->front(), "-s 10.1.0.1/32 -i lo -j ACCEPT");
}

TEST(RouterPlan, WithoutIpv6NothingOfItIsTouched) {
    HostState host = fresh_host();
    const auto operations = apply(host, client(), {.v6 = false, .iptables = true, .ip6tables = true});
    for (const Operation& o : operations) {
        EXPECT_NE(o.kind, Kind::kIp6tables);
        EXPECT_FALSE(o.address.addr.is_v6() || o.route.dst.addr.is_v6() || o.rule.family == Addr::Family::kV6) << o.str();
    }
}

TEST(RouterPlan, FlushedFirewallDeletedRuleAndLostRoutesAreRestored) {
    HostState host = fresh_host();
    apply(host, client());
    const HostState good = host;
    host.iptables = Iptables{};
    host.rules.erase(host.rules.begin() + 6);
    host.routes.clear();
    host.link_up = false;
    EXPECT_FALSE(apply(host, client()).empty());
    std::sort(host.rules.begin(), host.rules.end());
    HostState expected = good;
    std::sort(expected.rules.begin(), expected.rules.end());
    EXPECT_EQ(host, expected);
}

TEST(RouterPlan, DuplicateHooksAndRulesAreReducedToOne) {
    HostState host = fresh_host();
    apply(host, client());
    auto& input = host.iptables->tables["filter"]["INPUT"];
    input.push_back(input.front());
    host.rules.push_back(host.rules.front());
    apply(host, client());
    EXPECT_EQ(input, (std::vector<std::string>{"-j ts-input"}));
    EXPECT_EQ(host.rules.size(), 8U);
}

TEST(RouterPlan, RulesOfOlderVersionsWithAnotherMarkGo) {
    HostState host = fresh_host();
    host.rules = {{Addr::Family::kV4, 5210, 0x20000, 0, 254, IpRule::Action::kLookup, true}};
    apply(host, client());
    EXPECT_EQ(host.rules.size(), 8U);
    for (const IpRule& r : host.rules) EXPECT_NE(r.mark, 0x20000U);
}

TEST(RouterPlan, TheOriginalsConnmarkRuleOfACrashIsReplaced) {
    HostState host = fresh_host();
    host.iptables = parse_iptables_save(samples::original_mangle());
    EXPECT_TRUE(has_connmark_rules(*host.iptables));
    apply(host, client());
    EXPECT_EQ(*host.iptables, parse_iptables_save(samples::client_v4()));
    WantedState nothing = nothing_wanted(host, "tailscale0");
    FakeKernel(host).run(plan(host, nothing, "tailscale0"));
    EXPECT_EQ(*host.iptables, Iptables{});
}

TEST(RouterPlan, BeforeMwan3TheRulesAre1310To1370) {
    HostState host = fresh_host();
    RouterCapabilities can = kAll;
    can.rule_base = kMwan3RuleBase;
    apply(host, client(), can);
    std::vector<uint32_t> priorities;
    for (const IpRule& r : host.rules)
        if (r.family == Addr::Family::kV4) priorities.push_back(r.priority);
    EXPECT_EQ(priorities, (std::vector<uint32_t>{1310, 1330, 1350, 1370}));
    // Leftovers of either base go; an administrator's rule of the same place and another mark stays.
    host.rules.push_back({Addr::Family::kV4, 1310, 0x7, 0, 254, IpRule::Action::kLookup, true});
    FakeKernel(host).run(plan(host, nothing_wanted(host, "tailscale0"), "tailscale0"));
    ASSERT_EQ(host.rules.size(), 1U);
    EXPECT_EQ(host.rules[0].mark, 0x7U);
}

TEST(RouterPlan, WithoutPolicyRoutingTheMainTableGetsTheRoutes) {
    HostState host = fresh_host();
    RouterCapabilities can = kAll;
    can.policy_routing = false;
    RouterConfig c = client();
    c.throw_routes = {p("10.0.0.0/24")};
    apply(host, c, can);
    EXPECT_TRUE(host.rules.empty());
    ASSERT_FALSE(host.routes.empty());
    for (const IpRoute& r : host.routes) {
        EXPECT_EQ(r.table, kMainTable);
        EXPECT_EQ(r.type, IpRoute::Type::kUnicast) << "nothing to fall back to";
    }
    EXPECT_TRUE(apply(host, c, can).empty());
}

TEST(RouterPlan, CgnatKnobTurnsTheDropIntoAReturn) {
    HostState host = fresh_host();
    RouterConfig c = client();
    c.cgnat_drop = false;
    apply(host, c);
    const auto& input = *host.iptables->chain("filter", "ts-input");
    EXPECT_EQ(input.back(), "-s 100.64.0.0/10 ! -i tailscale0 -j RETURN");
    EXPECT_EQ(input.size(), 4U);
}

class BesideAnother : public ::testing::Test {
   protected:
    BesideAnother() {
        host_ = fresh_host("tailmesh0");
        host_.links.push_back({9, "tailscale0", "tun", true, true, false, 1280});
        host_.iptables = parse_iptables_save(samples::original_mangle() + samples::kClientFilterV4 + samples::kClientNat);
        host_.ip6tables = parse_iptables_save(samples::original_mangle() + samples::kClientFilterV6 + samples::kClientNat);
        for (const auto family : {Addr::Family::kV4, Addr::Family::kV6})
            for (const IpRule& r : policy_rules(family)) host_.rules.push_back(r);
        host_.routes = {{p("100.100.100.100/32"), IpRoute::Type::kUnicast, 9, kRouteTable, {}, 0},
                        {p("100.64.0.2/32"), IpRoute::Type::kUnicast, 9, kRouteTable, {}, 0},
                        {p("10.9.0.0/16"), IpRoute::Type::kThrow, 0, kRouteTable, {}, 0}};
        config_ = client();
        config_.tun_name = "tailmesh0";
        config_.peer_routes.push_back(p("100.64.0.77/32"));
    }
    HostState host_;
    RouterConfig config_;
};

TEST_F(BesideAnother, ItsChainsRulesAndRoutesStayThroughoutOurLife) {
    const HostState before = host_;
    ASSERT_TRUE(has_foreign_owner(host_, "tailmesh0"));
    apply(host_, config_);
    EXPECT_TRUE(apply(host_, config_).empty());
    EXPECT_EQ(*host_.iptables->chain("filter", "ts-input"), *before.iptables->chain("filter", "ts-input"));
    EXPECT_NE(host_.iptables->chain("filter", "ts-input-tailmesh0"), nullptr);
    for (const IpRoute& r : before.routes) EXPECT_EQ(std::count(host_.routes.begin(), host_.routes.end(), r), 1);
    EXPECT_EQ(host_.rules.size(), 8U);

    WantedState nothing = nothing_wanted(host_, "tailmesh0", before.rules, true);
    nothing.own_addrs = config_.local_addrs;
    FakeKernel(host_).run(plan(host_, nothing, "tailmesh0"));
    EXPECT_EQ(host_, before);
}

TEST_F(BesideAnother, AChainOfADeadInterfaceIsALeftover) {
    host_.links.pop_back();
    host_.routes.clear();
    EXPECT_FALSE(has_foreign_owner(host_, "tailmesh0"));
    apply(host_, config_);
    EXPECT_EQ(host_.iptables->chain("filter", "ts-input-tailmesh0"), nullptr);
    EXPECT_EQ((*host_.iptables->chain("filter", "ts-input"))[1], "-i tailmesh0 -j ACCEPT");
}

TEST(RouterPlan, SuffixedChainNamesFitIptablesLegacy) {
    const ChainNames names = suffixed_chains("abcdefghijklmno");
    for (const std::string& n : {names.input, names.forward, names.postrouting}) EXPECT_LE(n.size(), 28U) << n;
}

TEST(IptablesSave, KeepsOnlyWhatConcernsUs) {
    const Iptables t = parse_iptables_save(
        "# Generated\n*filter\n:INPUT DROP [5:1]\n:DOCKER - [0:0]\n:ts-input - [0:0]\n-A INPUT -j ts-input\n"
        "-A INPUT -p tcp -j ACCEPT\n-A DOCKER -j RETURN\n-A ts-input -i lo -j ACCEPT\nCOMMIT\n*raw\n:PREROUTING ACCEPT [0:0]\n"
        "COMMIT\ngarbage\n-A\n:\n*");
    Iptables expected;
    expected.tables["filter"]["INPUT"] = {"-j ts-input"};
    expected.tables["filter"]["ts-input"] = {"-i lo -j ACCEPT"};
    EXPECT_EQ(t, expected);
}

}  // namespace
}  // namespace mesh::platform
