// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/derp/derp_map.h"

#include <gtest/gtest.h>

#include "magicsock/derp/derp_map_json.h"

namespace mesh::derp {
namespace {

constexpr std::string_view kLabMap =
    R"({"Regions":{"900":{"RegionID":900,"RegionCode":"lab","RegionName":"Lab DERP","Nodes":[{"Name":"900a",)"
    R"("RegionID":900,"HostName":"10.211.0.1","IPv4":"10.211.0.1","STUNPort":13478,"DERPPort":12345,)"
    R"("InsecureForTests":true}]}}})";

DerpMap parse(std::string_view text) {
    auto m = parse_derp_map(*json::parse(text));
    EXPECT_TRUE(m) << m.error().message();
    return m ? *m : DerpMap{};
}

TEST(DerpMap, MapOfARealServerReadsAndWritesBackTheSameText) {
    const DerpMap m = parse(kLabMap);
    ASSERT_EQ(m.regions.size(), 1U);
    const DerpNode& n = m.region(900)->nodes.at(0);
    EXPECT_EQ(n.effective_derp_port(), 12345);
    EXPECT_EQ(n.effective_stun_port(), 13478);
    EXPECT_TRUE(n.insecure_for_tests);
    EXPECT_EQ(n.http_host(), "10.211.0.1:12345");
    EXPECT_EQ(json::dump(derp_map_json(m)), kLabMap);
}

TEST(DerpMap, EveryFieldSurvivesTheRoundTrip) {
    DerpMap m;
    DerpRegion r;
    r.id = 12;
    r.code = "x<y";
    r.name = "Name";
    r.latitude = 1.5;
    r.longitude = -2.5;
    r.avoid = true;
    r.no_measure_no_home = true;
    r.nodes.push_back({.name = "12a",
                       .region_id = 12,
                       .host_name = "derp.example",
                       .cert_name = "other.example",
                       .ipv4 = "none",
                       .ipv6 = "2001:db8::1",
                       .stun_port = -1,
                       .stun_only = true,
                       .derp_port = 8443,
                       .insecure_for_tests = true,
                       .stun_test_ip = "10.0.0.1",
                       .can_port_80 = true});
    m.regions[12] = r;
    m.regions[2] = {.id = 2, .code = "two"};
    m.omit_default_regions = true;
    m.region_score = {{12, 0.5}, {2, 2.0}};
    const std::string text = json::dump(derp_map_json(m));
    EXPECT_EQ(parse(text), m);
    EXPECT_LT(text.find("\"12\""), text.find("\"2\"")) << "keys in the order of their text";
}

TEST(DerpMap, PortsAndFamiliesFollowTheConventions) {
    DerpNode n{.name = "a", .host_name = "derp.example"};
    EXPECT_EQ(n.effective_derp_port(), 443);
    EXPECT_EQ(n.effective_stun_port(), 3478);
    EXPECT_EQ(n.http_host(), "derp.example");
    EXPECT_TRUE(n.needs_name());
    EXPECT_EQ(n.reach_v6(), Reach::kByName);
    n.stun_port = -1;
    EXPECT_FALSE(n.effective_stun_port());
    n.ipv6 = "none";
    EXPECT_EQ(n.reach_v6(), Reach::kNever);
    n.ipv4 = "10.0.0.1";
    EXPECT_EQ(n.reach_v4(), Reach::kLiteral);
    EXPECT_FALSE(n.needs_name());
    EXPECT_EQ(n.literal_v4().str(), "10.0.0.1");
    n.derp_port = 443;
    EXPECT_EQ(n.http_host(), "derp.example");
    n = {.name = "b", .host_name = "2001:db8::7", .derp_port = 8443};
    EXPECT_EQ(n.http_host(), "[2001:db8::7]:8443");
    EXPECT_EQ(n.literal_v6().str(), "2001:db8::7");
    EXPECT_FALSE(n.literal_v4().is_valid());
    EXPECT_FALSE(n.needs_name());
    n.ipv4 = "2001:db8::1";  // wrong family: never
    EXPECT_EQ(n.reach_v4(), Reach::kNever);
}

TEST(DerpMap, DeltasKeepWhatTheyDoNotName) {
    const DerpMap first = parse(
        R"({"Regions":{"1":{"RegionID":1,"RegionCode":"a"}},"omitDefaultRegions":true,"HomeParams":{"RegionScore":{"1":0.5}}})");
    EXPECT_DOUBLE_EQ(first.score(1), 0.5);
    const auto delta = [&](std::string_view text) { return *apply_derp_map_delta(first, *json::parse(text)); };
    EXPECT_EQ(delta("{}"), first);
    EXPECT_EQ(delta(R"({"Regions":null,"HomeParams":{"RegionScore":null}})"), first);
    EXPECT_DOUBLE_EQ(delta(R"({"HomeParams":{"RegionScore":{}}})").score(1), 1.0);
    const DerpMap replaced = delta(R"({"Regions":{"2":{"RegionID":2}}})");
    EXPECT_EQ(replaced.regions.size(), 1U);
    EXPECT_TRUE(replaced.region(2));
    EXPECT_FALSE(replaced.omit_default_regions);
    EXPECT_DOUBLE_EQ(replaced.score(1), 0.5);
}

TEST(DerpMap, NonsenseInAMapIsSkippedOrRefused) {
    EXPECT_TRUE(parse(R"({"Regions":{"x":{},"0":{},"-1":{},"7":null}})").regions.empty());
    EXPECT_FALSE(parse_derp_map(*json::parse("[]")));
    EXPECT_FALSE(parse_derp_map(*json::parse(R"({"Regions":[1]})")));
    EXPECT_DOUBLE_EQ(parse(R"({"HomeParams":{"RegionScore":{"1":-1}}})").score(1), 1.0);
}

TEST(DerpMap, PinsAndMetaCertificatesAreRecognised) {
    DerpNode n;
    n.cert_name = "sha256-raw:" + std::string(64, 'a');
    ASSERT_TRUE(n.cert_pin());
    EXPECT_EQ((*n.cert_pin())[0], 0xaa);
    n.cert_name = "sha256-raw:xyz";
    EXPECT_FALSE(n.cert_pin());
    NodePublic key;
    key.raw.fill(7);
    const std::string name = meta_cert_name(key);
    EXPECT_EQ(parse_meta_cert(name, 2), key);
    EXPECT_FALSE(parse_meta_cert(name, 3));
    EXPECT_FALSE(parse_meta_cert(name + "0", 2));
    EXPECT_FALSE(parse_meta_cert("derp.example", 2));
}

}  // namespace
}  // namespace mesh::derp
