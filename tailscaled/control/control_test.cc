// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/control/control.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tailscaled/control/backoff.h"
#include "tailscaled/control/upgrade.h"

namespace mesh::control {
namespace {

using ::testing::ElementsAre;

NodePublic node_key(uint8_t fill) {
    NodePublic k;
    k.raw.fill(fill);
    return k;
}

TEST(RequestJson, RegisterHasTheFieldsAndOrderOfTheProtocol) {
    RegisterRequest r;
    r.node_key = node_key(0x11);
    r.auth_key = "k<&>";
    r.hostinfo.emplace().hostname = "h";
    EXPECT_EQ(to_text(r),
              R"({"Version":142,"NodeKey":"nodekey:1111111111111111111111111111111111111111111111111111111111111111",)"
              R"("OldNodeKey":"nodekey:0000000000000000000000000000000000000000000000000000000000000000",)"
              R"("Auth":{"AuthKey":"k\u003c\u0026\u003e"},"Expiry":"0001-01-01T00:00:00Z","Followup":"",)"
              R"("Hostinfo":{"OS":"linux","Hostname":"h"},"NodeKeySignature":null})");
}

TEST(RequestJson, LogoutCarriesATimeInThePast) {
    RegisterRequest r;
    r.expiry = WallTime{123'000'000'000};
    EXPECT_THAT(to_text(r), ::testing::HasSubstr(R"("Expiry":"1970-01-01T00:02:03Z")"));
}

TEST(RequestJson, MapRequestSaysEverythingAtOnce) {
    MapRequest r;
    r.stream = true;
    r.node_key = node_key(0x22);
    r.endpoints = {{*Endpoint::parse("192.0.2.1:41641"), EndpointType::kLocal},
                   {*Endpoint::parse("[2001:db8::1]:5"), EndpointType::kStun}};
    NetInfo& n = r.hostinfo.net_info.emplace();
    n.working_udp = true;
    n.working_ipv6 = false;
    n.preferred_derp = 900;
    n.derp_latency["900-v4"] = 0.25;
    r.hostinfo.routable_ips = {*Prefix::parse("10.0.0.0/8")};
    r.hostinfo.services = {{"peerapi4", 1234, ""}};
    EXPECT_EQ(to_text(r),
              R"({"Version":142,"Compress":"zstd","KeepAlive":true,)"
              R"("NodeKey":"nodekey:2222222222222222222222222222222222222222222222222222222222222222",)"
              R"("DiscoKey":"discokey:0000000000000000000000000000000000000000000000000000000000000000","Stream":true,)"
              R"("Hostinfo":{"OS":"linux","RoutableIPs":["10.0.0.0/8"],"Services":[{"Proto":"peerapi4","Port":1234}],)"
              R"("NetInfo":{"WorkingIPv6":false,"WorkingUDP":true,"PreferredDERP":900,"DERPLatency":{"900-v4":0.25}}},)"
              R"("Endpoints":["192.0.2.1:41641","[2001:db8::1]:5"],"EndpointTypes":[1,2]})");
}

TEST(Hostinfo, AChangeOfLatencyAloneIsNoNews) {
    Hostinfo a;
    a.net_info.emplace().derp_latency["1-v4"] = 1;
    Hostinfo b = a;
    b.net_info->derp_latency["1-v4"] = 2;
    EXPECT_FALSE(a == b);
    EXPECT_TRUE(a.basically_equal(b));
    b.net_info->preferred_derp = 1;
    EXPECT_FALSE(a.basically_equal(b));
    b = a;
    b.net_info.reset();
    EXPECT_FALSE(a.basically_equal(b));
}

TEST(RegisterResponse, MergesUserAndLogin) {
    const auto r = parse_register_response(
        R"({"User":{"ID":3,"DisplayName":"Alice"},"Login":{"ID":3,"Provider":"oidc","LoginName":"alice@x",)"
        R"("DisplayName":"A","ProfilePicURL":"p"},"MachineAuthorized":true,"AuthURL":"","NodeKeySignature":null,"Error":""})");
    ASSERT_TRUE(r);
    EXPECT_EQ(r->user.id, 3);
    EXPECT_EQ(r->user.display_name, "Alice");
    EXPECT_EQ(r->user.login_name, "alice@x");
    EXPECT_EQ(r->user.profile_pic_url, "p");
    EXPECT_TRUE(r->machine_authorized);
    EXPECT_TRUE(parse_register_response(R"({"MachineAuthorized":true})"));
    EXPECT_FALSE(parse_register_response("[]"));
    EXPECT_FALSE(parse_register_response("not json"));
}

TEST(ServerKey, NeedsAKeyThatIsNotZero) {
    const std::string zeros(64, '0');
    EXPECT_TRUE(parse_server_key(R"({"publicKey":"mkey:)" + std::string(64, 'a') + "\"}"));
    EXPECT_FALSE(parse_server_key(R"({"publicKey":"mkey:)" + zeros + "\"}"));
    EXPECT_FALSE(parse_server_key(R"({"legacyPublicKey":"mkey:)" + std::string(64, 'a') + "\"}"));
    EXPECT_FALSE(parse_server_key("<html>"));
    EXPECT_FALSE(parse_server_key(""));
}

std::vector<UpgradeTarget> targets(const char* url, bool recent = false) {
    return upgrade_targets(parse_control_url(url).value(), recent);
}

TEST(Upgrade, PortsFollowTheUrl) {
    EXPECT_THAT(targets("https://h.example"), ElementsAre(UpgradeTarget{false, 80}, UpgradeTarget{true, 443}));
    EXPECT_THAT(targets("https://h.example:8443"), ElementsAre(UpgradeTarget{false, 80}, UpgradeTarget{true, 8443}));
    EXPECT_THAT(targets("http://h.example"), ElementsAre(UpgradeTarget{false, 80}, UpgradeTarget{true, 443}));
    EXPECT_THAT(targets("http://h.example:8080"), ElementsAre(UpgradeTarget{false, 8080}, UpgradeTarget{true, 443}));
    EXPECT_THAT(targets("http://h.example:8080", true), ElementsAre(UpgradeTarget{true, 443}, UpgradeTarget{false, 8080}));
}

TEST(Upgrade, APlainServerNearbyIsNeverTriedWithTls) {
    for (const char* url : {"http://10.1.2.3:8080", "http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080",
                            "http://[fd00::1]:8080", "http://192.168.1.1:8080"})
        EXPECT_THAT(targets(url), ElementsAre(UpgradeTarget{false, 8080})) << url;
    EXPECT_THAT(targets("http://10.1.2.3", true), ElementsAre(UpgradeTarget{false, 80}));
    EXPECT_EQ(targets("https://10.1.2.3:8443").size(), 2U);
}

TEST(Upgrade, UrlsThatCannotBeMeantAreRefused) {
    for (const char* url : {"", "h", "ftp://h", "http://", "http://a@b", "http://h/\x01", "http:h"})
        EXPECT_FALSE(parse_control_url(url)) << url;
}

TEST(Upgrade, RequestAndAnswerFitTogetherAtEverySplitPoint) {
    SeededRandom random(5);
    const MachinePrivate server = MachinePrivate::generate(random);
    const MachinePrivate machine = MachinePrivate::generate(random);
    const http1::Url url = parse_control_url("http://h.example:8080").value();
    NoiseInitiator noise(machine, server.public_key(), 142);
    const auto initiation = noise.start(random).value();
    const std::string text = upgrade_request(url, {false, 8080}, initiation, "test");
    http1::Parser parser(http1::Role::kRequests, 0);
    ASSERT_TRUE(parser.feed(as_bytes(text)));
    const http1::Request request = parser.take_request();
    EXPECT_EQ(request.header("Host"), "h.example:8080");
    EXPECT_EQ(request.header("Content-Length"), "0");
    const NoiseAccepted a = noise_accept(upgrade_initiation(request).value(), server, random).value();
    std::string answer = upgrade_response();
    answer += as_text(a.response);
    answer += "after";
    for (size_t split = 0; split <= answer.size(); ++split) {
        UpgradeReader r(noise);
        std::optional<NoiseKeys> keys;
        Bytes rest;
        for (const std::string& part : {answer.substr(0, split), answer.substr(split)}) {
            if (keys) {
                rest.insert(rest.end(), part.begin(), part.end());
                continue;
            }
            const auto result = r.feed(as_bytes(part));
            ASSERT_TRUE(result) << split;
            if (*result) {
                keys = **result;
                rest = to_bytes(r.rest());
            }
        }
        ASSERT_TRUE(keys) << split;
        EXPECT_EQ(keys->send, a.keys.receive);
        EXPECT_EQ(as_text(rest), "after") << split;
    }
}

TEST(Upgrade, OtherAnswersAreErrorsThatNameTheStatus) {
    SeededRandom random(5);
    NoiseInitiator noise(MachinePrivate::generate(random), MachinePrivate::generate(random).public_key(), 142);
    ASSERT_TRUE(noise.start(random));
    for (const char* text : {"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n",
                             "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", "garbage\r\n\r\n"}) {
        UpgradeReader r(noise);
        EXPECT_FALSE(r.feed(as_bytes(text))) << text;
    }
}

TEST(Upgrade, TheServerRefusesRequestsWithoutAProperHandshake) {
    http1::Request r;
    r.method = "POST";
    EXPECT_FALSE(upgrade_initiation(r));
    r.headers = {{"Upgrade", "Tailscale-Control-Protocol"}};
    EXPECT_FALSE(upgrade_initiation(r));
    r.headers.emplace_back("X-Tailscale-Handshake", "AAAA");
    EXPECT_FALSE(upgrade_initiation(r));
    r.headers.back().second = base64_encode(Bytes(kInitiationLen));
    EXPECT_TRUE(upgrade_initiation(r));
}

TEST(Backoff, GrowsQuadraticallyToHalfAMinute) {
    SeededRandom random(9);
    Backoff b;
    for (int n = 1; n <= 200; ++n) {
        const Duration d = b.next(random);
        const Duration base = std::min(milliseconds(10) * n * n, seconds(30));
        EXPECT_GE(d, base / 2) << n;
        EXPECT_LE(d, base + base / 2) << n;
    }
    b.reset();
    EXPECT_LE(b.next(random), milliseconds(15));
}

}  // namespace
}  // namespace mesh::control
