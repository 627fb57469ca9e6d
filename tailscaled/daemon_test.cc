// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/crypto/crypto.h"
#include "tailscaled/flags.h"
#include "tailscaled/ipn/profile.h"
#include "tailscaled/network_plan.h"

namespace mesh::daemon {
namespace {

TEST(Flags, AcceptTheOriginalsSpellings) {
    const auto f = parse_flags({"-tun", "ts1", "--port=41641", "--state=/x/s", "-socket=/run/s", "--no-logs-no-support", "--verbose", "2"}, "7", "");
    ASSERT_TRUE(f);
    EXPECT_EQ(f->tuns, std::vector<std::string>{"ts1"});
    EXPECT_EQ(f->port, 41641);
    EXPECT_EQ(f->verbose, 2);
    EXPECT_EQ(f->state_path(), "/x/s");
    EXPECT_EQ(f->state_folder(), "");
    EXPECT_EQ(parse_flags({}, "41641", "")->port, 41641);
    EXPECT_EQ(parse_flags({"--statedir=/d"}, "", "")->state_path(), "/d/tailscaled.state");
    EXPECT_EQ(parse_flags({}, "", "")->state_folder(), "/var/lib/tailscale");
}

TEST(Flags, RefuseWithOneClearLine) {
    EXPECT_EQ(parse_flags({"-nosuch"}, "", "").error().context, "flag provided but not defined: -nosuch");
    EXPECT_EQ(parse_flags({"stray"}, "", "").error().context, "tailscaled does not take non-flag arguments: [\"stray\"]");
    for (const char* bad : {"--port=70000", "--tun=", "--tun=a,", "--socks5-server=1055", "--socks5-server=host:1055", "--outbound-http-proxy-listen=x", "--port=x", "--port", "--tun=averyveryverylongname", "--cleanup=maybe"})
        EXPECT_FALSE(parse_flags({bad}, "", "")) << bad;
}

TEST(Flags, UserspaceNetworking) {
    const auto f = parse_flags({"--tun=tailscale0,userspace-networking", "--socks5-server=localhost:1055", "--outbound-http-proxy-listen=:8080"}, "", "");
    ASSERT_TRUE(f);
    EXPECT_EQ(f->tuns, (std::vector<std::string>{"tailscale0", "userspace-networking"}));
    EXPECT_EQ(f->socks5, Endpoint::parse("127.0.0.1:1055"));
    EXPECT_EQ(f->http_proxy, Endpoint::parse("[::]:8080"));
    EXPECT_EQ(parse_flags({"--socks5-server=[::1]:0"}, "", "")->socks5, Endpoint::parse("[::1]:0"));
    EXPECT_FALSE(parse_flags({"--socks5-server="}, "", "")->socks5);  // as the container script gives it when nothing is wanted
}

TEST(Flags, StaticEndpointsAreReadAndSlipsOfThePenRefused) {
    const auto f = parse_flags({"--static-endpoints=203.0.113.7:41641,[2001:db8::1]:1,203.0.113.7:41641"}, "", "");
    ASSERT_TRUE(f);
    EXPECT_EQ(f->static_endpoints, (std::vector{*Endpoint::parse("203.0.113.7:41641"), *Endpoint::parse("[2001:db8::1]:1")}));
    EXPECT_TRUE(parse_flags({"--static-endpoints="}, "", "")->static_endpoints.empty());
    for (const char* bad : {"203.0.113.7", "203.0.113.7:0", "home.example:41641", "127.0.0.1:1", "[fe80::1]:1", "224.0.0.1:1", "0.0.0.0:1",
                            "100.64.0.1:41641", "[fd7a:115c:a1e0::1]:1", "203.0.113.7:1 203.0.113.8:1", ",203.0.113.7:1"}) {
        const auto r = parse_flags({"--static-endpoints", bad}, "", "");
        ASSERT_FALSE(r) << bad;
        EXPECT_EQ(r.error().code, Code::kInvalid) << bad;
        EXPECT_TRUE(r.error().context.starts_with("invalid value \"")) << r.error().context;
    }
    std::string many;
    for (size_t i = 0; i <= kMaxStaticEndpoints; ++i) many += fmt::format("{}203.0.113.7:{}", many.empty() ? "" : ",", i + 1);
    EXPECT_FALSE(parse_flags({"--static-endpoints", many}, "", ""));
    EXPECT_TRUE(parse_flags({"--static-endpoints", many.substr(many.find(',') + 1)}, "", ""));
}

TEST(PeerIds, AKeyChangeIsAnotherPeer) {
    PeerIds ids;
    SeededRandom random(1);
    const auto a = NodePrivate::generate(random).public_key(), b = NodePrivate::generate(random).public_key();
    const PeerId first = ids.assign(7, a);
    EXPECT_EQ(ids.assign(7, a), first);
    EXPECT_NE(ids.assign(8, b), first);
    EXPECT_EQ(ids.find(9), kNoPeer);
    ids.release(7);
    EXPECT_EQ(ids.find(7), kNoPeer);
}

TEST(NetworkPlan, NetworksOfPeersAreOfferedRoutesAndTheirAddressesAreNot) {
    const auto with = [&](const std::vector<const char*>& allowed) {
        auto n = std::make_shared<netmap::Node>();
        n->addresses = {*Prefix::parse("100.64.0.2/32"), *Prefix::parse("10.1.0.2/32")};
        n->allowed_ips = n->addresses;
        for (const char* p : allowed) n->allowed_ips.push_back(*Prefix::parse(p));
        netmap::NetMap map;
        map.peers.upsert(n);
        return map;
    };
    EXPECT_FALSE(offer_routes(netmap::NetMap{}));
    EXPECT_FALSE(offer_routes(with({})));
    EXPECT_FALSE(offer_routes(with({"0.0.0.0/0", "::/0"}))) << "an exit node";
    EXPECT_FALSE(offer_routes(with({"100.100.1.1/32"}))) << "a service of the tailnet";
    EXPECT_TRUE(offer_routes(with({"192.168.50.0/24"})));
    EXPECT_TRUE(offer_routes(with({"192.168.50.7/32"})));
}

TEST(NetworkPlan, OnlyWhatThePacketLoopUsesGoesThere) {
    netmap::Node node;
    node.id = 7;
    node.key.raw[0] = 7;
    node.endpoints = {*Endpoint::parse("203.0.113.7:1")};
    node.online = true;
    const auto copy = [](const netmap::Node& n) { return std::make_shared<const netmap::Node>(n); };
    netmap::NetMap map;
    map.peers.upsert(copy(node));
    PeerIds ids;
    const PeerId id = plan_peers(map, nullptr, ids, WallTime{1}).slice.upserted.at(0).id;
    const auto sent = [&](auto change) {
        const auto before = copy(node);
        change(node);
        const auto after = copy(node);
        map.peers.upsert(after);
        netmap::PeerChanges changes;
        changes.changed.push_back({before, after});
        return plan_peers(map, &changes, ids, WallTime{1}).slice;
    };
    EXPECT_TRUE(sent([](netmap::Node& n) { n.online = false; }).upserted.empty());
    EXPECT_TRUE(sent([](netmap::Node& n) { n.name = "other."; }).upserted.empty());
    EXPECT_EQ(sent([](netmap::Node& n) { n.endpoints[0].port = 2; }).upserted.size(), 1U);
    EXPECT_EQ(sent([](netmap::Node& n) { n.home_derp = 2; }).upserted.size(), 1U);
    EXPECT_EQ(sent([](netmap::Node& n) { n.disco_key.raw[0] = 1; }).upserted.size(), 1U);
    EXPECT_EQ(sent([](netmap::Node& n) { n.expired = true; }).removed, std::vector<PeerId>{id});
    EXPECT_EQ(sent([](netmap::Node& n) { n.expired = false; }).upserted.size(), 1U) << "though nothing that is looked at changed";
    EXPECT_EQ(sent([](netmap::Node& n) { n.key.raw[0] = 8; }).upserted.size(), 1U);
}

TEST(NetworkPlan, GrantsSayWhoMayRelayForWhom) {
    const auto node = [](const char* address, int cap) {
        auto n = std::make_shared<netmap::Node>();
        n->addresses = {*Prefix::parse(address)};
        n->id = n->addresses[0].addr.bytes()[3];
        n->key.raw[0] = static_cast<uint8_t>(n->id);
        n->cap = cap;
        return n;
    };
    const auto grant = [](const char* src, const char* dst, const char* cap) {
        netstack::FilterRule r;
        EXPECT_TRUE(netstack::parse_source(src, r));
        r.grants.push_back({{*Prefix::parse(dst)}, {{cap, "[]"}}});
        return r;
    };
    auto filter = std::make_shared<netmap::PacketFilter>();
    filter->rules = {grant("100.64.0.2", "100.64.0.1/32", "tailscale.com/cap/relay"), grant("100.64.0.3", "100.64.0.0/24", "tailscale.com/cap/relay-target"),
                     grant("100.64.0.4", "100.64.0.4/32", "tailscale.com/cap/relay-target"), grant("*", "100.64.0.1/32", "example.com/cap/other")};
    netmap::NetMap map;
    map.self = node("100.64.0.1/32", 130);
    map.filter = filter;
    auto unsigned_node = node("100.64.0.2/32", 130);
    unsigned_node->unsigned_peerapi_only = true;
    for (const auto& n : {node("100.64.0.2/32", 130), node("100.64.0.3/32", 130), node("100.64.0.4/32", 130)}) map.peers.upsert(n);
    const RelayGrants grants = relay_grants(map);
    EXPECT_FALSE(holds(grants.clients, *unsigned_node));
    EXPECT_TRUE(grants == relay_grants(map));
    PeerIds ids;
    const PeerPlan plan = plan_peers(map, nullptr, ids, WallTime{1}, grants);
    ASSERT_EQ(plan.slice.upserted.size(), 3U);
    const auto may = [&](size_t i) { return std::pair(plan.slice.upserted[i].config.may_relay, plan.slice.upserted[i].config.relay_server); };
    EXPECT_EQ(may(0), std::pair(true, false)) << "may use us";
    EXPECT_EQ(may(1), std::pair(false, true)) << "we may use it";
    EXPECT_EQ(may(2), std::pair(false, false)) << "a grant towards others";
    EXPECT_FALSE(plan_peers(map, nullptr, ids, WallTime{1}).slice.upserted[0].config.may_relay);
    auto old = node("100.64.0.3/32", 113);
    map.peers.upsert(old);
    EXPECT_FALSE(plan_peers(map, nullptr, ids, WallTime{1}, grants).slice.upserted[1].config.relay_server) << "does not know what a relay is";
}

TEST(Profiles, IdentitySurvivesARestartAndStampsNeverGoBack) {
    SeededRandom random(3);
    auto p = *ipn::Profiles::load({}, random);
    api::Prefs prefs;
    prefs.want_running = true;
    prefs.persist.emplace();
    prefs.persist->private_node_key = NodePrivate::generate(random);
    p.set_prefs(prefs, random, WallTime{1});
    EXPECT_TRUE(p.note_timestamp(seconds(1000).ns, false));
    EXPECT_FALSE(p.note_timestamp(seconds(1200).ns, false));  // within the stride: no write

    const auto store = ipn::StateStore::parse(p.store().serialize());
    ASSERT_TRUE(store);
    auto q = *ipn::Profiles::load(*store, random);
    EXPECT_EQ(q.machine_key(), p.machine_key());
    EXPECT_EQ(q.disco_key(), p.disco_key());
    EXPECT_EQ(q.prefs().persist->private_node_key, prefs.persist->private_node_key);
    EXPECT_GE(q.timestamp_floor(WallTime{seconds(10).ns}), seconds(1200).ns);
    q.note_timestamp(seconds(1300).ns, true);
    EXPECT_EQ(q.timestamp_floor(WallTime{seconds(10).ns}), seconds(1300).ns);

    const DiscoPrivate before = q.disco_key();
    q.forget_login(random);
    EXPECT_FALSE(q.has_node_key());
    EXPECT_EQ(q.machine_key(), p.machine_key());
    EXPECT_FALSE(q.disco_key() == before);
}

TEST(Profiles, ADamagedIdentityIsNeverReplaced) {
    SeededRandom random(3);
    ipn::StateStore store;
    store.set("_machinekey", "privkey:zz");
    EXPECT_FALSE(ipn::Profiles::load(std::move(store), random));
}

}  // namespace
}  // namespace mesh::daemon
