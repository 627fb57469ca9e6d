// SPDX-License-Identifier: BSD-3-Clause
// Every cause has its own sentence, and none is named without something that speaks for it.
#include "tailscaled/doctor.h"

#include <gtest/gtest.h>

#include "base/json.h"
#include "base/random.h"

namespace mesh::daemon {
namespace {

using magicsock::EndpointType;

const WallTime kWall{1'800'000'000'000'000'000};
const Time kNow{1'000'000'000'000};

/// A node "router" with a peer's paths, and everything the doctor looks at; healthy and relayed until a test breaks it.
struct World {
    netmap::NetMap map;
    api::Prefs prefs;
    EngineSnapshot engine;
    StatusInputs status;
    netcheck::Report report;
    derp::DerpMap derps;
    std::set<int> live{900};
    std::map<int, std::string> problems;
    DoctorInputs in;
    netmap::Node peer;
    PeerSnapshot paths;

    World() {
        SeededRandom random(1);
        peer.id = 2;
        peer.name = "router.mesh.test.";
        peer.key = NodePrivate::generate(random).public_key();
        peer.disco_key = DiscoPrivate::generate(random).public_key();
        peer.addresses = {*Prefix::parse("100.64.0.2/32")};
        peer.online = true;
        peer.home_derp = 900;
        auto host = std::make_shared<netmap::PeerHostinfo>();
        host->json = R"({"NetInfo":{"WorkingUDP":true,"MappingVariesByDestIP":false}})";
        peer.hostinfo = host;
        prefs.want_running = true;
        status.map = &map;
        status.prefs = &prefs;
        status.engine = &engine;
        status.peer_id = [](netmap::NodeId) { return kNoPeer; };
        status.state = api::State::kRunning;
        status.wall = kWall;
        status.now = kNow;
        status.endpoints = {{*Endpoint::parse("203.0.113.7:41641"), EndpointType::kStun}, {*Endpoint::parse("192.168.1.10:41641"), EndpointType::kLocal}};
        report.udp = report.ipv4 = report.ipv4_can_send = true;
        report.global_v4 = *Endpoint::parse("203.0.113.7:41641");
        report.mapping_varies_by_dest_ip = false;
        report.region_latency[900] = report.region_v4_latency[900] = milliseconds(10);
        add_region(900, "home", "198.51.100.1");
        in.status = &status;
        in.control_url = "https://control.example";
        in.report = &report;
        in.derp_map = &derps;
        in.live_derps = &live;
        in.derp_problems = &problems;
        paths.path.relay = 900;
        paths.path.last_send = paths.path.last_receive = kNow - milliseconds(300);
        add_candidate("198.51.100.20:41641", 6, 0);
        add_candidate("192.168.2.10:41641", 6, 0);
    }
    void add_region(int id, const char* code, const char* address, const char* v6 = "none") {
        derp::DerpRegion r;
        r.id = id;
        r.code = code;
        derp::DerpNode n;
        n.region_id = id;
        n.host_name = n.ipv4 = address;
        n.ipv6 = v6;
        n.stun_port = 38894;
        n.derp_port = 12345;
        r.nodes.push_back(n);
        derps.regions[id] = r;
    }
    void add_candidate(const char* ep, uint32_t pings, uint32_t pongs) {
        magicsock::CandidateStatus c;
        c.ep = *Endpoint::parse(ep);
        c.from_netmap = true;
        c.pings = pings;
        c.pongs = pongs;
        c.recent = pings;
        c.recent_lost = pings - pongs;
        paths.path.candidates.push_back(c);
    }
    void peer_says(const char* json) {
        auto host = std::make_shared<netmap::PeerHostinfo>();
        host->json = json;
        peer.hostinfo = host;
    }
    void silent() { paths.path.last_receive = kNow - seconds(60); }

    [[nodiscard]] std::vector<std::string> host() const { return codes(examine_host(in)); }
    [[nodiscard]] std::vector<std::string> about_peer() const { return codes(examine_peer(in, peer, &paths).findings); }
    /// The last finding about the peer: the cause.
    [[nodiscard]] Finding why() const { return examine_peer(in, peer, &paths).findings.back(); }
    static std::vector<std::string> codes(const std::vector<Finding>& list) {
        std::vector<std::string> out;
        for (const Finding& f : list) out.push_back(f.code);
        return out;
    }
};
using Codes = std::vector<std::string>;

std::string text_of(const std::vector<Finding>& list, const std::string& code) {
    for (const Finding& f : list)
        if (f.code == code) return f.text;
    return "";
}

TEST(Doctor, AHealthyHostHasNoProblem) {
    const World w;
    EXPECT_EQ(w.host(), Codes{"udp-works"});
}

TEST(Doctor, AStoppedHostIsToldSoAndNothingElse) {
    World w;
    w.prefs.want_running = false;
    w.in.control_error = "refused";
    EXPECT_EQ(w.host(), Codes{"stopped"});
    w.prefs.want_running = true;
    w.status.state = api::State::kNeedsLogin;
    EXPECT_EQ(w.host(), (Codes{"logged-out", "control-unreachable"}));
}

TEST(Doctor, NoNetworkAndNoDefaultRouteAreToldApart) {
    World w;
    w.in.default_route = false;
    EXPECT_EQ(w.host(), Codes{"udp-works"}) << "a lab, or a company's own network";
    w.live.clear();
    EXPECT_EQ(w.host().front(), "no-network");
    EXPECT_NE(examine_host(w.in).front().text.find("default route"), std::string::npos);
    w.in.have_network = false;
    EXPECT_EQ(examine_host(w.in).front().text.find("default route"), std::string::npos);
}

TEST(Doctor, AWrongClockIsNamedWithItsError) {
    World w;
    w.map.clock_offset = seconds(3 * 3600 + 60);
    EXPECT_EQ(text_of(examine_host(w.in), "clock-wrong"), "The clock of this host is 3 hours behind the control server's.");
    w.map.clock_offset = seconds(-100);
    EXPECT_EQ(text_of(examine_host(w.in), "clock-wrong"), "The clock of this host is 100 seconds ahead of the control server's.");
    w.map.clock_offset = {};
    w.in.control_error = "certificate is not yet valid";
    EXPECT_EQ(w.host().front(), "clock-wrong");
}

TEST(Doctor, SilentStunIsBlockedUdpOnlyIfNothingProvesUdp) {
    World w;
    w.report.udp = w.report.ipv4 = false;
    w.report.region_v4_latency.clear();
    EXPECT_EQ(w.host(), Codes{"udp-blocked"});
    EXPECT_NE(text_of(examine_host(w.in), "udp-blocked").find("single relay"), std::string::npos) << "two causes fit";
    w.add_region(901, "far", "198.51.100.2");
    EXPECT_EQ(text_of(examine_host(w.in), "udp-blocked").find("single relay"), std::string::npos);
    PeerSnapshot direct;
    direct.path.cur_addr = *Endpoint::parse("198.51.100.20:41641");
    w.engine.peers[1] = direct;
    EXPECT_EQ(w.host(), Codes{"stun-silent"});
}

TEST(Doctor, OneSilentStunPortAmongSeveralRelays) {
    World w;
    w.add_region(901, "far", "198.51.100.2");
    EXPECT_EQ(w.host(), (Codes{"udp-works", "stun-silent"}));
    EXPECT_NE(text_of(examine_host(w.in), "stun-silent").find("udp 198.51.100.2:38894 (far)"), std::string::npos);
    w.report.region_v4_latency[901] = milliseconds(50);
    EXPECT_EQ(w.host(), Codes{"udp-works"});
}

TEST(Doctor, Ipv6IsBrokenOnlyIfTheHostHasItAndSomebodyWasAsked) {
    World w;
    w.report.os_has_ipv6 = true;
    w.derps.regions.clear();
    w.add_region(900, "home", "198.51.100.1", "2001:db8::1");
    EXPECT_EQ(w.host(), Codes{"udp-works"}) << "a host without IPv6 is not broken";
    w.status.endpoints.push_back({*Endpoint::parse("[2001:db8:1::10]:41641"), EndpointType::kLocal});
    EXPECT_EQ(w.host(), (Codes{"udp-works", "ipv6-broken"}));
    w.report.ipv6 = true;
    EXPECT_EQ(w.host(), Codes{"udp-works"});
}

TEST(Doctor, ARelayThatCannotBeUsedIsNamedWithItsReason) {
    World w;
    w.live.clear();
    w.problems[900] = "connection refused";
    EXPECT_EQ(w.host(), (Codes{"udp-works", "relay-down"}));
    EXPECT_EQ(text_of(examine_host(w.in), "relay-down"), "The relay home (tcp 198.51.100.1:12345) cannot be used: connection refused.");
    w.silent();
    EXPECT_EQ(w.about_peer().front(), "no-connection-relay-down");
}

TEST(Doctor, AForwardedPortBehindAnotherNatIsOfNoUse) {
    World w;
    w.status.endpoints.push_back({*Endpoint::parse("100.64.7.7:40000"), EndpointType::kPortmapped});
    EXPECT_EQ(w.host(), (Codes{"udp-works", "double-nat"}));
    w.status.endpoints.back().ep.addr = w.report.global_v4.addr;
    EXPECT_EQ(w.host(), Codes{"udp-works"});
}

TEST(Doctor, ADeviceThatIsNotTheGatewayIsNamed) {
    World w;
    const portmap::Note notes[] = {{portmap::Note::Kind::kWrongGateway, "192.168.1.7 offers to open ports."}};
    w.in.port_mapping = notes;
    EXPECT_EQ(w.host(), (Codes{"udp-works", "port-mapping-wrong-gateway"}));
    EXPECT_EQ(text_of(examine_host(w.in), "port-mapping-wrong-gateway"), notes[0].text);
}

TEST(Doctor, ADirectPeerNeedsNoDoctor) {
    World w;
    w.paths.path.cur_addr = *Endpoint::parse("198.51.100.20:41641");
    w.paths.path.latency = milliseconds(12);
    EXPECT_EQ(w.about_peer(), Codes{"direct"});
    EXPECT_EQ(w.why().text, "router is reached directly at 198.51.100.20:41641, in 12ms.");
}

TEST(Doctor, HardNatsByWhatThePeerSaysOrByWhatItsEndpointsShow) {
    World w;
    EXPECT_EQ(w.why().code, "firewall");
    w.report.mapping_varies_by_dest_ip = true;
    EXPECT_EQ(w.why().code, "hard-easy");
    EXPECT_NE(w.why().text.find("the router here uses"), std::string::npos);
    w.peer_says(R"({"NetInfo":{"WorkingUDP":true,"MappingVariesByDestIP":true}})");
    EXPECT_EQ(w.why().code, "hard-hard");
    w.report.mapping_varies_by_dest_ip = false;
    EXPECT_EQ(w.why().code, "hard-easy");
    EXPECT_NE(w.why().text.find("the router of router uses"), std::string::npos);
    w.report.mapping_varies_by_dest_ip = true;
    w.peer_says("{}");
    EXPECT_EQ(w.why().code, "hard-easy");
    w.add_candidate("198.51.100.20:33333", 6, 0);
    EXPECT_EQ(w.why().code, "hard-hard") << "one address with two ports";
}

TEST(Doctor, UdpThatIsBlockedAtOneSide) {
    World w;
    w.peer_says(R"({"NetInfo":{"WorkingUDP":false}})");
    EXPECT_EQ(w.why().code, "no-direct-udp-blocked-there");
    w.peer_says("{}");
    EXPECT_EQ(w.why().code, "firewall");
    w.paths.path.candidates.erase(w.paths.path.candidates.begin());
    EXPECT_EQ(w.why().code, "no-direct-udp-blocked-there") << "it knows no address of its own outside";
    w.report.udp = false;
    EXPECT_EQ(w.why().code, "no-direct-udp-blocked-here");
}

TEST(Doctor, NothingIsBlamedBeforeAnswersCouldHaveCome) {
    World w;
    for (auto& c : w.paths.path.candidates) c.recent = 0;
    EXPECT_EQ(w.why().code, "still-trying");
    w.paths.path.candidates.clear();
    EXPECT_EQ(w.why().code, "no-endpoints");
}

TEST(Doctor, PingsThatArriveButGetNoAnswerBack) {
    World w;
    w.paths.path.events.push_back({kNow, magicsock::PathEvent::Kind::kPingReceived, *Endpoint::parse("198.51.100.20:41641"), {}});
    EXPECT_EQ(w.why().code, "firewall-one-way");
}

TEST(Doctor, APathThatLosesFullPacketsIsNamedWithItsSize) {
    World w;
    w.add_candidate("203.0.113.99:41641", 20, 12);
    auto& c = w.paths.path.candidates.back();
    c.size = magicsock::PathSize::Verdict::kTooSmall;
    c.full = 1340;
    c.carries = 1280;
    c.last_pong = kNow - seconds(2);
    const Finding f = w.why();
    EXPECT_EQ(f.code, "path-mtu");
    EXPECT_NE(f.text.find("203.0.113.99:41641"), std::string::npos) << f.text;
    EXPECT_NE(f.text.find("full size (1340 bytes) get lost without a word; 1280 bytes arrive"), std::string::npos) << f.text;
    EXPECT_FALSE(f.advice.empty());
    c.last_pong = kNow - minutes(5);
    EXPECT_NE(w.why().code, "path-mtu") << "it does not answer any more";
}

TEST(Doctor, TwoNetworksBehindOneAddress) {
    World w;
    w.add_candidate("203.0.113.7:50000", 6, 0);
    EXPECT_EQ(w.why().code, "same-public-address");
}

TEST(Doctor, APeerThatIsNotThere) {
    World w;
    w.silent();
    EXPECT_EQ(w.about_peer().front(), "peer-silent");
    w.paths.path.relay_gone = kNow - seconds(2);
    EXPECT_EQ(w.about_peer().front(), "peer-not-at-relay");
    w.peer.online = false;
    w.peer.last_seen = WallTime{kWall.unix_ns - seconds(7200).ns};
    EXPECT_EQ(w.about_peer(), Codes{"peer-offline"});
    EXPECT_NE(w.why().text.find("for 2 hours"), std::string::npos);
    w.paths.path.last_receive = kNow;
    EXPECT_EQ(w.about_peer().front(), "relayed") << "it does answer, whatever the control server thinks";
    w.peer.expired = true;
    EXPECT_EQ(w.about_peer(), Codes{"key-expired"});
    EXPECT_EQ(World::codes(examine_peer(w.in, w.peer, nullptr).findings), Codes{"key-expired"});
}

TEST(Doctor, JsonForScripts) {
    const World w;
    const auto node = std::make_shared<const netmap::Node>(w.peer);
    const auto j = json::parse(doctor_json(w.in, node, Addr::parse("100.64.0.2")));
    ASSERT_TRUE(j);
    EXPECT_EQ((*j)["Node"][0]["Code"], "udp-works");
    EXPECT_EQ((*j)["Peer"]["Path"], "none");
    // Each way to reach a peer has its word.
    World w2;
    const auto path = [&](const PeerSnapshot& peer) {
        w2.engine.peers[kNoPeer] = peer;
        return (*json::parse(doctor_json(w2.in, node, Addr::parse("100.64.0.2"))))["Peer"]["Path"].get<std::string>();
    };
    EXPECT_EQ(path(w2.paths), "relay");
    w2.paths.path.via_addr = *Endpoint::parse("198.51.100.20:40000");
    w2.paths.path.via_vni = 7;
    EXPECT_EQ(path(w2.paths), "peer-relay");
    EXPECT_EQ(w2.about_peer().front(), "peer-relayed");
    w2.paths.path.cur_addr = *Endpoint::parse("198.51.100.20:41641");
    EXPECT_EQ(path(w2.paths), "direct");
    const auto nobody = json::parse(doctor_json(w.in, nullptr, Addr::parse("100.64.0.9")));
    EXPECT_EQ((*nobody)["Peer"]["Findings"][0]["Code"], "no-such-peer");
    EXPECT_TRUE((*json::parse(doctor_json(w.in, nullptr, std::nullopt)))["Peer"].is_null());
}

}  // namespace
}  // namespace mesh::daemon
