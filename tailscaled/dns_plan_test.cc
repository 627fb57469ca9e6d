// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/dns_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mesh::daemon {
namespace {

using netmap::DnsConfig;
using netmap::NetMap;
using netmap::Node;
using netmap::Resolver;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class DnsPlanTest : public testing::Test {
   protected:
    DnsPlanTest() {
        config.proxied = true;
        config.domains = {"tail.example"};
        host.base.servers = {{Addr::v4(192, 168, 1, 1), 53}};
        host.base.search = {"home.arpa"};
    }
    static Node node(netmap::NodeId id, const std::string& name, const std::string& v4, const std::string& v6 = "") {
        Node n;
        n.id = id;
        n.name = name + ".tail.example.";
        for (const std::string& a : {v4, v6})
            if (!a.empty()) n.addresses.push_back(*Prefix::parse(a));
        n.hostinfo = std::make_shared<netmap::PeerHostinfo>();
        return n;
    }
    NetMap map() {
        NetMap m;
        m.self = std::make_shared<const Node>(self);
        for (const Node& n : peers) m.peers.upsert(std::make_shared<const Node>(n));
        m.dns = std::make_shared<const DnsConfig>(config);
        return m;
    }
    DnsPlan plan(const netmap::NodePtr& exit = nullptr) { return make_dns_plan(map(), prefs, exit, host); }
    static std::string servers(const DnsPlan& p, const std::string& name) {
        const auto* list = p.routes.find(name);
        std::string out = list ? "" : "none";
        for (size_t i = 0; list && i < list->size(); ++i) out += (i > 0 ? "," : "") + (*list)[i].text;
        return out;
    }

    Node self = node(1, "a", "100.64.0.1", "fd7a:115c:a1e0::1");
    std::vector<Node> peers{node(2, "b", "100.64.0.2", "fd7a:115c:a1e0::2")};
    DnsConfig config;
    api::Prefs prefs;
    DnsHost host;
};

TEST_F(DnsPlanTest, MagicDnsOnAHostWithoutSplitTakesEverythingAndKeepsItsServers) {
    const DnsPlan p = plan();
    EXPECT_THAT(p.os.nameservers, ElementsAre(service_addr_v4(), service_addr_v6()));
    EXPECT_THAT(p.os.search, ElementsAre("tail.example", "home.arpa"));
    EXPECT_THAT(p.os.match, IsEmpty());
    EXPECT_EQ(servers(p, "www.example.org"), "192.168.1.1");
}

TEST_F(DnsPlanTest, AHostThatSplitsSendsOnlyOurNames) {
    host.can_split = true;
    config.routes["corp.example"] = {{"10.0.0.53", {}, false}};
    config.extra_records = {{"wiki.example.net", "", "10.0.0.7"}, {"x.tail.example", "A", "10.0.0.8"}};
    const DnsPlan p = plan();
    EXPECT_THAT(p.os.match, Contains("tail.example"));
    EXPECT_THAT(p.os.match, Contains("corp.example"));
    EXPECT_THAT(p.os.match, Contains("wiki.example.net"));
    EXPECT_THAT(p.os.match, Not(Contains("x.tail.example")));
    EXPECT_THAT(p.os.match, Contains("64.100.in-addr.arpa"));
    EXPECT_THAT(p.os.search, ElementsAre("tail.example")) << "its own search list is its own business";
    EXPECT_EQ(servers(p, "x.corp.example"), "10.0.0.53");
}

TEST_F(DnsPlanTest, ResolversFromControlReplaceTheHosts) {
    config.resolvers = {{"9.9.9.9", {}, false}, {"tls://1.1.1.1", {}, false}};
    host.can_split = true;
    const DnsPlan p = plan();
    EXPECT_EQ(servers(p, "www.example.org"), "9.9.9.9");
    EXPECT_THAT(p.os.match, IsEmpty()) << "everything comes to us";
    EXPECT_THAT(p.notes, ElementsAre(HasSubstr("tls://1.1.1.1 is not used")));
}

TEST_F(DnsPlanTest, ResolversNobodyCanUseLeaveTheHostsInPlace) {
    config.resolvers = {{"https://dns.nextdns.io/abc", {}, false}};
    EXPECT_EQ(servers(plan(), "www.example.org"), "192.168.1.1") << "ordinary names stay resolvable";
}

TEST_F(DnsPlanTest, OldFieldAndFallbackResolvers) {
    config.nameservers = {Addr::v4(9, 9, 9, 9)};
    EXPECT_EQ(servers(plan(), "www.example.org"), "9.9.9.9");
    config.nameservers.clear();
    config.fallback_resolvers = {{"8.8.8.8", {}, false}};
    EXPECT_EQ(servers(plan(), "www.example.org"), "192.168.1.1");
    host.base.servers.clear();
    EXPECT_EQ(servers(plan(), "www.example.org"), "8.8.8.8") << "the host has none of its own";
}

TEST_F(DnsPlanTest, WithoutMagicDnsTheHostAsksTheServersItself) {
    config = {};
    EXPECT_TRUE(plan().os.is_empty()) << "nothing to change";
    config.resolvers = {{"9.9.9.9", {}, false}};
    EXPECT_THAT(plan().os.nameservers, ElementsAre(Addr::v4(9, 9, 9, 9)));
    config.resolvers = {{"9.9.9.9:5353", {}, false}};
    EXPECT_THAT(plan().os.nameservers, Contains(service_addr_v4())) << "a port is more than resolv.conf can say";
}

TEST_F(DnsPlanTest, NotAcceptingLeavesTheHostAloneAndForwardsNothing) {
    prefs.corp_dns = false;
    const DnsPlan p = plan();
    EXPECT_TRUE(p.os.is_empty());
    EXPECT_EQ(servers(p, "www.example.org"), "none");
}

TEST_F(DnsPlanTest, CustomPrefixWithoutIpv6) {
    self = node(1, "a", "10.1.0.1");
    peers = {node(2, "b", "10.1.0.2")};
    config.routes["1.10.in-addr.arpa"] = {};
    EXPECT_THAT(plan().os.nameservers, ElementsAre(service_addr_v4()));
    const auto names = make_names(map());
    EXPECT_THAT(*names->host("b.tail.example"), ElementsAre(Addr::v4(10, 1, 0, 2)));
    EXPECT_EQ(*names->reverse(Addr::v4(10, 1, 0, 2)), "b.tail.example");
    EXPECT_TRUE(names->zone_of("9.0.1.10.in-addr.arpa"));
    EXPECT_FALSE(names->zone_of("9.0.64.100.in-addr.arpa")) << "that is the carrier's";
}

TEST_F(DnsPlanTest, PeersHaveIpv6NamesOnlyWhereAskedForOrAlone) {
    EXPECT_THAT(*make_names(map())->host("b.tail.example"), ElementsAre(Addr::v4(100, 64, 0, 2)));
    self.cap_map.set("magicdns-aaaa", {});
    EXPECT_EQ(make_names(map())->host("b.tail.example")->size(), 2U);
    self = node(1, "a", "", "fd7a:115c:a1e0::1");
    EXPECT_THAT(*make_names(map())->host("b.tail.example"), ElementsAre(*Addr::parse("fd7a:115c:a1e0::2")));
    host.v6 = true;
    EXPECT_THAT(plan().os.nameservers, ElementsAre(service_addr_v6())) << "100.100.100.100 cannot be reached from there";
}

TEST_F(DnsPlanTest, ExtraRecordsOverrideAndBadOnesAreLeftOut) {
    config.extra_records = {{"b.tail.example", "", "10.9.9.9"}, {"c.tail.example", "A", "not an address"}, {"d.tail.example", "AAAA", "10.0.0.1"},
                            {"E.tail.example.", "A", "10.0.0.2"}, {"e.tail.example", "A", "10.0.0.3"}};
    const auto names = make_names(map());
    EXPECT_THAT(*names->host("b.tail.example"), ElementsAre(Addr::v4(10, 9, 9, 9)));
    EXPECT_FALSE(names->host("c.tail.example"));
    EXPECT_FALSE(names->host("d.tail.example"));
    EXPECT_EQ(names->host("e.tail.example")->size(), 2U);
}

TEST_F(DnsPlanTest, OnlyChangesOfNamesMakeNewTables) {
    netmap::PeerChanges changes;
    EXPECT_TRUE(touches_dns(nullptr, nullptr));
    EXPECT_FALSE(touches_dns(&changes, nullptr));
    Node after = peers[0];
    after.home_derp = 7;
    after.hostinfo = std::make_shared<netmap::PeerHostinfo>();
    changes.changed = {{std::make_shared<const Node>(peers[0]), std::make_shared<const Node>(after)}};
    EXPECT_FALSE(touches_dns(&changes, nullptr)) << "how it is reached";
    EXPECT_TRUE(touches_dns(&changes, changes.changed[0].after)) << "the exit node's services";
    after.name = "c.tail.example.";
    changes.changed = {{std::make_shared<const Node>(peers[0]), std::make_shared<const Node>(after)}};
    EXPECT_TRUE(touches_dns(&changes, nullptr));
}

TEST_F(DnsPlanTest, AnExitNodeThatAnswersIsAsked) {
    config.resolvers = {{"9.9.9.9", {}, false}};
    Node exit = peers[0];
    auto info = std::make_shared<netmap::PeerHostinfo>();
    info->services = {{"peerapi4", 4001, ""}, {"peerapi-dns-proxy", 1, ""}};
    exit.hostinfo = info;
    const auto chosen = std::make_shared<const Node>(exit);
    EXPECT_EQ(servers(plan(chosen), "www.example.org"), "http://100.64.0.2:4001/dns-query");
    EXPECT_THAT(plan(chosen).os.search, ElementsAre("tail.example")) << "names of the own LAN are not asked elsewhere";
    config.resolvers.push_back({"10.0.0.53", {}, true});
    EXPECT_EQ(servers(plan(chosen), "www.example.org"), "10.0.0.53");
    config.resolvers.pop_back();
    info = std::make_shared<netmap::PeerHostinfo>();
    exit.hostinfo = info;
    EXPECT_EQ(servers(plan(std::make_shared<const Node>(exit)), "www.example.org"), "9.9.9.9");
}

}  // namespace
}  // namespace mesh::daemon
