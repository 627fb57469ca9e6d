// SPDX-License-Identifier: BSD-3-Clause
// A control server that means harm: its messages through the map session, the plan and the status, as in the daemon.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>

#include "base/json.h"
#include "base/log.h"
#include "base/sanitized.h"
#include "tailscaled/control/map_session.h"
#include "tailscaled/network_plan.h"
#include "tailscaled/paths_view.h"
#include "tailscaled/status_view.h"

namespace mesh::daemon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr Time kNow{1'000'000'000'000};
constexpr WallTime kWall{1'800'000'000LL * 1'000'000'000};

Addr addr(std::string_view text) { return *Addr::parse(text); }
Prefix pfx(std::string_view text) { return *Prefix::parse(text); }

/// Node `id` is 100.64.0.`id`; `more`: further members, which win over the usual ones.
std::string node(int id, const std::string& more = "") {
    std::string out = fmt::format(R"({{"ID":{},"StableID":"s{}","Key":"nodekey:{:064x}")", id, id, id + 4096);
    if (more.find("\"Name\"") == std::string::npos) out += fmt::format(R"(,"Name":"n{}.x.")", id);
    if (more.find("\"Addresses\"") == std::string::npos) out += fmt::format(R"(,"Addresses":["100.64.0.{}/32"])", id);
    return out + (more.empty() ? "" : "," + more) + "}";
}
std::string allowed(const std::string& list) { return R"("AllowedIPs":[)" + list + "]"; }

// Far above what it takes; work that grows with the square of what control sends is far above this.
constexpr double kPatience = MESH_SANITIZED != 0 ? 20 : 1;
double cpu_seconds_since(std::clock_t begin) { return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC; }

class HostileControl : public ::testing::Test {
   protected:
    HostileControl() {
        log::set_sink([this](std::string_view line) { logged += std::string(line) + "\n"; });
        session.begin_poll(kNow);
    }
    ~HostileControl() override { log::set_sink({}); }

    void send(const std::string& json) {
        const auto u = session.handle_message(json, kWall, kNow);
        ASSERT_TRUE(u) << u.error().message();
        for (const auto& n : session.map()->peers) ids.assign(n->id, n->key);
    }
    void start(const std::string& peers, const std::string& self = node(1)) {
        send(fmt::format(R"({{"Node":{},"Peers":[{}]}})", self, peers));
    }
    const netmap::NetMap& map() const { return *session.map(); }
    std::shared_ptr<const dataplane::Tables> tables() const { return make_tables(map(), prefs, ids, net, kWall); }
    platform::RouterConfig router() {
        notes.clear();
        return make_router_config(map(), prefs, net, "ts0", 1, 1, kWall, &notes);
    }
    /// Who gets a packet to that address; 0 = nobody.
    netmap::NodeId owner(std::string_view a) const {
        const auto t = tables();
        const PeerId* id = t->routes.find(addr(a));
        for (const auto& n : map().peers)
            if (id && ids.find(n->id) == *id) return n->id;
        return 0;
    }
    bool may_send_from(netmap::NodeId n, std::string_view a) const {
        const auto t = tables();
        const dataplane::PeerRow* row = t->row(ids.find(n));
        return row && row->allowed.contains(addr(a));
    }
    std::vector<std::string> kernel_routes() {
        std::vector<std::string> out;
        const platform::RouterConfig c = router();
        for (const auto* list : {&c.peer_routes, &c.accepted_routes})
            for (const Prefix& p : *list) out.push_back(p.str());
        return out;
    }
    StatusInputs inputs() {
        StatusInputs in;
        in.map = &map();
        in.prefs = &prefs;
        in.engine = &engine;
        in.peer_id = [this](netmap::NodeId id) { return ids.find(id); };
        in.state = api::State::kRunning;
        in.wall = kWall;
        in.now = kNow;
        return in;
    }

    control::MapSession session;
    PeerIds ids;
    api::Prefs prefs;
    platform::NetState net;
    EngineSnapshot engine;
    std::vector<std::string> notes;
    std::string logged;
};

TEST_F(HostileControl, AnUnaskedDefaultRouteIsNotUsed) {
    prefs.route_all = true;
    start(node(2, allowed(R"("100.64.0.2/32","0.0.0.0/0","::/0")")));
    EXPECT_EQ(owner("8.8.8.8"), 0);
    EXPECT_EQ(owner("2001:db8::1"), 0);
    EXPECT_FALSE(may_send_from(2, "8.8.8.8"));
    EXPECT_THAT(kernel_routes(), ElementsAre("100.64.0.2/32"));
    prefs.exit_node_id = "s2";
    EXPECT_EQ(owner("8.8.8.8"), 2) << "asked for, it is";
}

TEST_F(HostileControl, ADefaultRouteAsTheAddressOfANodeIsNotUsedEither) {
    start(node(2, R"("Addresses":["0.0.0.0/0","10.0.0.0/8","100.64.0.2/32"],)" + allowed(R"("0.0.0.0/0","10.0.0.0/8","100.64.0.2/32")")),
          node(1, R"("Addresses":["0.0.0.0/0","100.64.0.1/32","127.0.0.1/32","224.0.0.1/32"])"));
    EXPECT_EQ(owner("8.8.8.8"), 0);
    EXPECT_EQ(owner("10.1.2.3"), 0);
    EXPECT_EQ(owner("100.64.0.2"), 2);
    EXPECT_THAT(kernel_routes(), ElementsAre("100.64.0.2/32"));
    EXPECT_THAT(router().local_addrs, ElementsAre(pfx("100.64.0.1/32"))) << "nor is anything but a host address ours";
    EXPECT_THAT(notes, ::testing::SizeIs(2)) << "and it is said";
    EXPECT_FALSE(tables()->filter.is_local(addr("8.8.8.8")));
}

TEST_F(HostileControl, SubnetsNeedAcceptRoutesEvenIfTheyAreSingleAddresses) {
    start(node(2, allowed(R"("100.64.0.2/32","10.0.0.0/8","8.8.8.8/32","100.100.0.7/32")")));
    EXPECT_EQ(owner("10.1.1.1"), 0);
    EXPECT_EQ(owner("8.8.8.8"), 0);
    EXPECT_FALSE(may_send_from(2, "8.8.8.8"));
    EXPECT_EQ(owner("100.100.0.7"), 2) << "addresses of services are not subnets";
    prefs.route_all = true;
    EXPECT_EQ(owner("10.1.1.1"), 2);
    EXPECT_EQ(owner("8.8.8.8"), 2);
}

TEST_F(HostileControl, NobodyGetsOurOwnAddressOrAnUnroutableOne) {
    prefs.route_all = true;
    start(node(2, allowed(R"("100.64.0.2/32","100.64.0.1/32","127.0.0.0/8","127.0.0.1/32","224.0.0.0/4","169.254.0.0/16","fe80::/10",)"
                          R"("::1/128","0.0.0.0/32","10.1.2.3/8","169.254.169.254/32")")));
    EXPECT_THAT(kernel_routes(), ::testing::UnorderedElementsAre("100.64.0.2/32", "169.254.169.254/32"));
    for (const char* a : {"100.64.0.1", "127.0.0.1", "224.0.0.1", "169.254.1.1", "fe80::1", "::1", "10.1.2.3"}) {
        EXPECT_EQ(owner(a), 0) << a;
        EXPECT_FALSE(may_send_from(2, a)) << a;
    }
}

TEST_F(HostileControl, OverlappingClaimsGoToTheOwnerThenToTheFirst) {
    prefs.route_all = true;
    start(node(2, allowed(R"("100.64.0.2/32","100.64.0.4/32","10.0.0.0/8")")) + "," +
          node(3, allowed(R"("100.64.0.3/32","10.0.0.0/8","10.7.0.0/16")")) + "," + node(4));
    EXPECT_EQ(owner("100.64.0.4"), 4) << "its own address";
    EXPECT_EQ(owner("10.1.1.1"), 2) << "the lower ID";
    EXPECT_EQ(owner("10.7.1.1"), 3) << "the longer prefix";
    EXPECT_THAT(kernel_routes(), ElementsAre("100.64.0.2/32", "100.64.0.3/32", "100.64.0.4/32", "10.0.0.0/8", "10.7.0.0/16"));
    EXPECT_THAT(notes, ElementsAre(HasSubstr("100.64.0.4/32"), HasSubstr("10.0.0.0/8"))) << "and it is said";
}

TEST_F(HostileControl, AMillionRoutesAreBoundedAndSaid) {
    prefs.route_all = true;
    std::string peers;
    for (int n = 0; n < 20; ++n) {
        std::string list = fmt::format("\"100.64.0.{}/32\"", n + 2);
        for (int i = 0; i < 60'000; ++i) list += fmt::format(",\"10.{}.{}.{}/30\"", n * 8 + i / 16384, i / 64 % 256, i % 64 * 4);
        peers += (n ? "," : "") + node(n + 2, allowed(list));
    }
    start(peers);
    const std::clock_t begin = std::clock();
    const platform::RouterConfig c = router();
    const auto t = tables();
    const double took = cpu_seconds_since(begin);
    EXPECT_EQ(c.accepted_routes.size(), kMaxRoutes);
    EXPECT_EQ(t->routes.size(), kMaxRoutes + 20);
    EXPECT_EQ(c.peer_routes.size(), 20U) << "every peer keeps its address";
    ASSERT_THAT(notes, ::testing::SizeIs(1));
    EXPECT_THAT(notes[0], HasSubstr("only 16384 of them are used"));
    EXPECT_LT(took, 5 * kPatience);
}

TEST_F(HostileControl, RulesThatUnfoldWithoutEndAreBoundedAndDeny) {
    std::string peers, rules;
    for (int n = 2; n < 202; ++n)
        peers += (n > 2 ? "," : "") + node(n, R"("CapMap":{"c":null})");
    std::string sources = "\"cap:c\"";
    for (int i = 0; i < 9'999; ++i) sources += ",\"cap:c\"";
    rules = R"({"SrcIPs":[)" + sources + R"(],"DstPorts":[{"IP":"*","Ports":{"First":0,"Last":65535}}]})";
    send(fmt::format(R"({{"Node":{},"Peers":[{}],"PacketFilter":[{}]}})", node(1), peers, rules));
    const std::clock_t begin = std::clock();
    EXPECT_NE(tables(), nullptr);
    EXPECT_LT(cpu_seconds_since(begin), 10 * kPatience);
}

TEST_F(HostileControl, TwoNodesWithOneKeyAndANodeWithOursDoNoHarm) {
    const std::string same = fmt::format("nodekey:{:064x}", 99);
    start(fmt::format(R"({{"ID":2,"Key":"{0}","Addresses":["100.64.0.2/32"]}},{{"ID":3,"Key":"{0}","Addresses":["100.64.0.3/32"]}},)"
                      R"({{"ID":4,"Key":"nodekey:{1:064x}","Addresses":["100.64.0.4/32"]}},{{"ID":5,"Addresses":["100.64.0.5/32"]}})",
                      same, 1 + 4096));
    EXPECT_NE(ids.find(2), ids.find(3));
    EXPECT_EQ(owner("100.64.0.2"), 2);
    EXPECT_EQ(owner("100.64.0.3"), 3);
    EXPECT_EQ(owner("100.64.0.5"), 0) << "a node without key does not take part";
}

TEST_F(HostileControl, DeltasThatContradictEachOtherEndInOneOfTheirStates) {
    start(node(2) + "," + node(3));
    send(fmt::format(R"({{"PeersRemoved":[2,2,3,77,-1],"PeersChanged":[{},{},{}],)"
                     R"("PeersChangedPatch":[{{"NodeID":3,"DERPRegion":5}},{{"NodeID":77,"Online":true}},{{"NodeID":2,"Key":"nodekey:zz"}}],)"
                     R"("OnlineChange":{{"2":true,"2":false,"99":true,"x":true}},"PeerSeenChange":{{"3":false,"3":true}}}})",
                     node(2), node(2, allowed(R"("100.64.0.2/32","100.64.0.3/32")")), node(1)));
    EXPECT_EQ(map().peers.size(), 1U);
    EXPECT_EQ(owner("100.64.0.2"), 2);
    EXPECT_EQ(owner("100.64.0.1"), 0) << "never this node itself";
    send(fmt::format(R"({{"PeersChanged":[{}],"PeersRemoved":[2]}})", node(2, R"("Expired":true)")));
    EXPECT_EQ(owner("100.64.0.2"), 0) << "told to be expired: takes no part";
    send(R"({"PeersRemoved":[2],"PeersChangedPatch":[{"NodeID":2,"Online":true}]})");
    EXPECT_EQ(map().peers.size(), 0U);
    EXPECT_THAT(kernel_routes(), IsEmpty());
}

TEST_F(HostileControl, NamesWithEscapesAndPathsReachStatusEscapedAndNotesPrintable) {
    const std::string evil = R"(\u001b[2J\u0007../../etc/\u0000x\"\\\u202e)";
    net.interfaces.push_back({});
    net.interfaces[0].link.name = "eth0";
    net.interfaces[0].link.up = true;
    net.interfaces[0].addrs.push_back({});
    net.interfaces[0].addrs[0].prefix = pfx("192.168.1.10/24");
    prefs.route_all = true;
    start(node(2, fmt::format(R"("Name":"{0}","Tags":["tag:{0}"],"Hostinfo":{{"Hostname":"{0}","OS":"{0}"}},"CapMap":{{"{0}":["{0}"]}},)",
                              evil) + allowed(R"("100.64.0.2/32","192.168.1.0/24")")));
    send(fmt::format(R"({{"Domain":"{0}","Health":["{0}"],"UserProfiles":[{{"ID":1,"LoginName":"{0}"}}],)"
                     R"("DisplayMessages":{{"{0}":{{"Title":"{0}","Text":"{0}","PrimaryAction":{{"URL":"javascript:alert"}}}}}}}})", evil));
    const auto clean = [](const std::string& text) {
        return std::none_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t'; });
    };
    static_cast<void>(router());
    ASSERT_THAT(notes, ::testing::SizeIs(1));
    EXPECT_TRUE(clean(notes[0])) << notes[0];
    for (const std::string& text : {api::status_json(build_status(inputs(), true)), paths_json(inputs(), nullptr, true),
                                    api::whois_json(whois_of(map(), **map().peers.begin()))}) {
        EXPECT_TRUE(json::parse(text)) << text;
        EXPECT_TRUE(clean(text));
    }
    EXPECT_TRUE(clean(metrics_text(inputs())));
    EXPECT_TRUE(clean(logged)) << logged;
}

TEST_F(HostileControl, OnlyWebAddressesAreHandedToABrowser) {
    start(node(2));
    for (const char* url : {"javascript:alert(1)", "file:///etc/passwd", "ssh://x", "HTTP", "http://x/\\n", "https://x/\\u001b[2J", "-http://x", ""}) {
        const auto u = session.handle_message(fmt::format(R"({{"PopBrowserURL":"{}"}})", url), kWall, kNow);
        ASSERT_TRUE(u);
        EXPECT_EQ(u->open_url, "") << url;
    }
    EXPECT_EQ(session.handle_message(R"({"PopBrowserURL":"https://example.com/a"})", kWall, kNow)->open_url, "https://example.com/a");
    EXPECT_THAT(logged, HasSubstr("wants \"javascript:alert(1)\" opened in a browser: no web address")) << "and it is said";
    EXPECT_EQ(logged.find("opened in a browser"), logged.rfind("opened in a browser")) << "once, however often it comes";
}

}  // namespace
}  // namespace mesh::daemon
