// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/netmap/netmap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "tailscaled/netmap/codec.h"

namespace mesh::netmap {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

NodePtr node(NodeId id, const std::string& name = "n") {
    Node n;
    n.id = id;
    n.name = name;
    n.hostinfo = std::make_shared<const PeerHostinfo>();
    return std::make_shared<const Node>(std::move(n));
}

Json parsed(std::string_view text) { return json::parse(text).value(); }

std::vector<NodeId> ids(const PeerTable& t) {
    std::vector<NodeId> out;
    for (const NodePtr& n : t) out.push_back(n->id);
    return out;
}

TEST(PeerTable, KeepsOrderAndContentsThroughRandomChanges) {
    std::mt19937 rng(7);
    PeerTable t;
    std::map<NodeId, NodePtr> model;
    for (int i = 0; i < 20'000; ++i) {
        const auto id = static_cast<NodeId>(rng() % 700 + 1);
        if (rng() % 3 == 0) {
            const NodePtr was = t.erase(id);
            const auto it = model.find(id);
            ASSERT_EQ(was, it == model.end() ? nullptr : it->second);
            if (it != model.end()) model.erase(it);
        } else {
            const NodePtr n = node(id);
            const NodePtr was = t.upsert(n);
            const auto it = model.find(id);
            ASSERT_EQ(was, it == model.end() ? nullptr : it->second);
            model[id] = n;
        }
        ASSERT_EQ(t.size(), model.size());
    }
    auto it = t.begin();
    for (const auto& [id, n] : model) {
        ASSERT_NE(it, t.end());
        EXPECT_EQ(*it, n);
        EXPECT_EQ(t.find(id), n);
        ++it;
    }
    EXPECT_EQ(it, t.end());
    EXPECT_EQ(t.find(100'000), nullptr);
}

TEST(PeerTable, ACopyDoesNotSeeLaterChanges) {
    PeerTable a;
    for (NodeId i = 1; i <= 200; ++i) a.upsert(node(i));
    const PeerTable b = a;
    a.erase(5);
    a.upsert(node(1000));
    a.upsert(node(6, "changed"));
    EXPECT_EQ(b.size(), 200U);
    EXPECT_NE(b.find(5), nullptr);
    EXPECT_EQ(b.find(6)->name, "n");
    EXPECT_EQ(a.find(6)->name, "changed");
}

NetMap map_of(std::vector<NodePtr> peers) {
    NetMap m;
    m.self = node(1, "self.");
    for (NodePtr& p : peers) m.peers.upsert(std::move(p));
    return m;
}

TEST(Diff, NamesAddedChangedAndRemovedPeersInOrder) {
    const NodePtr same = node(4);
    const NetMap a = map_of({node(2), node(3, "old"), same, node(5)});
    const NetMap b = map_of({node(3, "new"), same, node(5), node(9), node(7)});
    const PeerChanges c = diff(&a, &b);
    ASSERT_EQ(c.added.size(), 2U);
    EXPECT_EQ(c.added[0]->id, 7);
    EXPECT_EQ(c.added[1]->id, 9);
    ASSERT_EQ(c.changed.size(), 1U);
    EXPECT_EQ(c.changed[0].before->name, "old");
    EXPECT_EQ(c.changed[0].after->name, "new");
    ASSERT_EQ(c.removed.size(), 1U);
    EXPECT_EQ(c.removed[0]->id, 2);
    EXPECT_FALSE(c.self);
    EXPECT_FALSE(c.other);
}

TEST(Diff, OfAMapWithItselfOrAnEqualOneIsEmpty) {
    const NetMap a = map_of({node(2), node(3)});
    const NetMap b = map_of({node(2), node(3)});
    EXPECT_TRUE(diff(&a, &a).empty());
    EXPECT_TRUE(diff(&a, &b).empty());
    EXPECT_TRUE(diff(nullptr, nullptr).empty());
}

TEST(Diff, FromNothingAddsAllAndToNothingRemovesAll) {
    const NetMap a = map_of({node(2), node(3)});
    EXPECT_EQ(diff(nullptr, &a).added.size(), 2U);
    EXPECT_TRUE(diff(nullptr, &a).self);
    EXPECT_EQ(diff(&a, nullptr).removed.size(), 2U);
}

TEST(Diff, AppliedToTheOldMapGivesTheNewOne) {
    std::mt19937 rng(11);
    for (int round = 0; round < 50; ++round) {
        NetMap a = map_of({});
        NetMap b = map_of({});
        for (int i = 0; i < 300; ++i) {
            if (rng() % 2) a.peers.upsert(node(static_cast<NodeId>(rng() % 400 + 1), "a"));
            if (rng() % 2) b.peers.upsert(node(static_cast<NodeId>(rng() % 400 + 1), rng() % 2 ? "a" : "b"));
        }
        const PeerChanges c = diff(&a, &b);
        PeerTable t = a.peers;
        for (const NodePtr& n : c.removed) t.erase(n->id);
        for (const NodePtr& n : c.added) t.upsert(n);
        for (const auto& ch : c.changed) t.upsert(ch.after);
        EXPECT_EQ(ids(t), ids(b.peers));
        for (const NodePtr& n : b.peers) EXPECT_EQ(*t.find(n->id), *n);
    }
}

constexpr std::string_view kNode =
    R"({"ID":2,"StableID":"2","Name":"node-b.mesh.test.","User":1,)"
    R"("Key":"nodekey:7d882907421ecba989b391231da294546b758f80d8bec71aeda6e5390df7b71c",)"
    R"("KeyExpiry":"2027-01-02T03:04:05Z",)"
    R"("Machine":"mkey:ad64f1a90aae32e615f72bcd5f0deb49d5fe7de67c56d5d5ffbb5a6b526f8f0b",)"
    R"("DiscoKey":"discokey:44bdefdf226c721fe1c9be809b4b38e54dae3eef2e168e10d4fbebeaeadec90b",)"
    R"("Addresses":["100.64.0.2/32","fd7a:115c:a1e0::2/128"],)"
    R"("AllowedIPs":["10.20.0.0/16","100.64.0.2/32","fd7a:115c:a1e0::2/128"],)"
    R"("Endpoints":["10.211.0.2:41641","[fe80::1]:41641"],"HomeDERP":900,)"
    R"("Hostinfo":{"OS":"linux","Hostname":"node-b","RoutableIPs":["10.20.0.0/16"],)"
    R"("Services":[{"Proto":"peerapi4","Port":58436},{"Proto":"peerapi-dns-proxy","Port":1}],"Future":{"x":[1,2]}},)"
    R"("Created":"2026-11-21T01:16:35.922534055Z","Cap":142,"Tags":["tag:a"],"PrimaryRoutes":["10.20.0.0/16"],)"
    R"("LastSeen":"2026-11-21T01:16:36Z","Online":true,"MachineAuthorized":true,)"
    R"("CapMap":{"a":[],"b":[false,{"k":1}]}})";

TEST(NodeJson, AnExitNodeOffersBothDefaultRoutes) {
    Node n;
    n.allowed_ips = {*Prefix::parse("0.0.0.0/0")};
    EXPECT_FALSE(n.offers_exit()) << "what is left of it by a policy that allows IPv4 services only";
    n.allowed_ips.push_back(*Prefix::parse("::/0"));
    EXPECT_TRUE(n.offers_exit());
}

TEST(NodeJson, ReadsEveryFieldAndWritesItBackInTheSameOrder) {
    const Node n = parse_node(parsed(kNode)).value();
    EXPECT_EQ(n.host_label(), "node-b");
    EXPECT_EQ(n.domain_suffix(), "mesh.test");
    EXPECT_EQ(n.address(Addr::Family::kV4).str(), "100.64.0.2");
    ASSERT_EQ(n.routes().size(), 1U);
    EXPECT_EQ(n.routes()[0].str(), "10.20.0.0/16");
    EXPECT_FALSE(n.offers_exit());
    EXPECT_EQ(n.hostinfo->peerapi_port(Addr::Family::kV4), 58436);
    EXPECT_EQ(n.hostinfo->peerapi_port(Addr::Family::kV6), 0);
    EXPECT_TRUE(n.hostinfo->peerapi_dns_proxy());
    EXPECT_THAT(*n.cap_map.values("b"), ElementsAre("false", R"({"k":1})"));
    std::string want(kNode);
    want.pop_back();
    want += R"(,"ComputedName":"node-b","ComputedNameWithHost":"node-b"})";
    EXPECT_EQ(json::dump(to_json(n)), want);
}

TEST(NodeJson, AbsentAllowedIpsMeanTheOwnAddressesButAnEmptyListMeansNone) {
    const std::string head = R"({"ID":2,"Addresses":["10.1.0.2/32"])";
    EXPECT_EQ(parse_node(parsed(head + "}")).value().allowed_ips.size(), 1U);
    EXPECT_EQ(parse_node(parsed(head + R"(,"AllowedIPs":null})")).value().allowed_ips.size(), 1U);
    EXPECT_THAT(parse_node(parsed(head + R"(,"AllowedIPs":[]})")).value().allowed_ips, IsEmpty());
}

TEST(NodeJson, APeerForThePeerApiOnlyGetsNoRoutes) {
    const Node n = parse_node(parsed(R"({"ID":2,"Addresses":["10.1.0.2/32"],"AllowedIPs":["0.0.0.0/0"],)"
                                     R"("UnsignedPeerAPIOnly":true})"))
                       .value();
    EXPECT_EQ(n.allowed_ips, n.addresses);
}

TEST(NodeJson, UpgradesTheOldDerpStringAndOldCapabilities) {
    const Node n = parse_node(parsed(R"({"ID":2,"DERP":"127.3.3.40:12","Capabilities":["x"]})")).value();
    EXPECT_EQ(n.home_derp, 12);
    EXPECT_TRUE(n.cap_map.has("x"));
    EXPECT_EQ(parse_node(parsed(R"({"ID":2,"DERP":"127.3.3.40:12","HomeDERP":3})")).value().home_derp, 3);
    EXPECT_EQ(parse_node(parsed(R"({"ID":2,"DERP":"127.3.3.40:x"})")).value().home_derp, 0);
}

TEST(NodeJson, RefusesNodesWithoutIdOrWithMalformedKeys) {
    EXPECT_FALSE(parse_node(parsed(R"({"Name":"x"})")));
    EXPECT_FALSE(parse_node(parsed(R"({"ID":-1})")));
    EXPECT_FALSE(parse_node(parsed(R"({"ID":1,"Key":"nodekey:abc"})")));
    EXPECT_FALSE(parse_node(parsed(R"([])")));
}

TEST(NodeJson, SurvivesWrongTypesEverywhere) {
    const auto n = parse_node(parsed(
        R"({"ID":1,"Name":5,"User":"x","Addresses":{"a":1},"AllowedIPs":[1,null,"bad","10.0.0.0/8"],"Endpoints":7,)"
        R"("Hostinfo":[],"Online":"yes","CapMap":[1],"Tags":[1,"tag:b"],"LastSeen":5,"HomeDERP":99999999999})"));
    ASSERT_TRUE(n);
    EXPECT_EQ(n->allowed_ips.size(), 1U);
    EXPECT_THAT(n->tags, ElementsAre("tag:b"));
    EXPECT_FALSE(n->online);
    EXPECT_EQ(n->home_derp, 0);
}

TEST(NodeJson, ListsAreCutOffAtALimit) {
    std::string text = R"({"ID":1,"AllowedIPs":[)";
    for (int i = 0; i < 200'000; ++i) text += R"("10.0.0.0/8",)";
    text.back() = ']';
    EXPECT_EQ(parse_node(parsed(text + "}")).value().allowed_ips.size(), kMaxListPerNode);
}

TEST(FilterJson, ReadsAllSourceFormsAndSkipsBadEntries) {
    size_t errors = 0;
    const auto rule = parse_filter_rule(
        parsed(R"({"SrcIPs":["100.64.0.1","10.0.0.0/8","10.1.0.1-10.1.0.2","*","cap:x","nonsense"],)"
               R"("DstPorts":[{"IP":"*","Ports":{"First":0,"Last":65535}},{"IP":"bad","Ports":{"First":1,"Last":2}},)"
               R"({"IP":"10.0.0.5","Ports":{"First":22,"Last":22}}],"IPProto":[6,300,17]})"),
        errors);
    ASSERT_TRUE(rule);
    EXPECT_EQ(errors, 2U);
    EXPECT_THAT(rule->src_caps, ElementsAre("x"));
    EXPECT_THAT(rule->protos, ElementsAre(6, 17));
    EXPECT_EQ(rule->dst.back().prefix.str(), "10.0.0.5/32");
    EXPECT_EQ(rule->dst.back().ports.first, 22);
}

TEST(FilterJson, DeprecatedBitFormsAreReported) {
    size_t errors = 0;
    EXPECT_FALSE(parse_filter_rule(parsed(R"({"SrcIPs":["10.0.0.0"],"SrcBits":[8]})"), errors));
    EXPECT_FALSE(parse_filter_rule(parsed(R"({"SrcIPs":["*"],"DstPorts":[{"IP":"10.0.0.0","Bits":8}]})"), errors));
}

TEST(FilterJson, OnlyUnknownProtocolsAllowNothing) {
    size_t errors = 0;
    const auto rule = parse_filter_rule(
        parsed(R"({"SrcIPs":["*"],"DstPorts":[{"IP":"*","Ports":{"First":0,"Last":65535}}],"IPProto":[999]})"), errors);
    ASSERT_TRUE(rule);
    EXPECT_THAT(rule->dst, IsEmpty());
}

TEST(FilterJson, KeepsApplicationGrants) {
    size_t errors = 0;
    const auto rule = parse_filter_rule(
        parsed(R"({"SrcIPs":["*"],"CapGrant":[{"Dsts":["100.64.0.1/32"],"Caps":["old"],"CapMap":{"new":[{"a":1}]}}]})"),
        errors);
    ASSERT_TRUE(rule);
    ASSERT_EQ(rule->grants.size(), 1U);
    EXPECT_EQ(rule->grants[0].caps[0].second, R"([{"a":1}])");
    EXPECT_EQ(rule->grants[0].caps[1].first, "old");
}

TEST(DnsJson, RoundTripsInGoOrder) {
    const std::string text =
        R"({"Resolvers":[{"Addr":"1.1.1.1","BootstrapResolution":["9.9.9.9"],"UseWithExitNode":true}],)"
        R"("Routes":{"64.100.in-addr.arpa":[],"corp.test":[{"Addr":"10.0.0.53"}]},"Domains":["mesh.test"],)"
        R"("Proxied":true,"ExtraRecords":[{"Name":"a.mesh.test","Value":"100.64.0.9"}]})";
    EXPECT_EQ(json::dump(to_json(parse_dns_config(parsed(text)))), text);
}

TEST(NetMap, ExpiryFollowsTheServersClock) {
    NetMap m = map_of({});
    Node n = *node(2);
    n.key_expiry = WallTime{1'000'000'000'000};
    EXPECT_FALSE(m.is_expired(n, WallTime{999'000'000'000}));
    m.clock_offset = seconds(120);
    EXPECT_TRUE(m.is_expired(n, WallTime{999'000'000'000}));
    m.peers.upsert(std::make_shared<const Node>(n));
    EXPECT_EQ(m.next_expiry(WallTime{100'000'000'000}).unix_ns, 1'000'000'000'000 - seconds(120).ns);
    EXPECT_TRUE(m.next_expiry(WallTime{2'000'000'000'000}).is_zero());
}

TEST(NetMap, FindsNodesByAddressAndKey) {
    Node n = parse_node(parsed(kNode)).value();
    const NodePublic key = n.key;
    NetMap m = map_of({std::make_shared<const Node>(std::move(n))});
    EXPECT_EQ(m.node_by_addr(*Addr::parse("100.64.0.2"))->id, 2);
    EXPECT_EQ(m.node_by_addr(*Addr::parse("10.20.0.1")), nullptr);
    EXPECT_EQ(m.node_by_key(key)->id, 2);
    EXPECT_EQ(m.node_by_key(NodePublic{}), nullptr);
}

}  // namespace
}  // namespace mesh::netmap
