// SPDX-License-Identifier: BSD-3-Clause
#include "derper/pages.h"

#include <gtest/gtest.h>

#include <functional>

#include "derper/bootstrap_dns.h"

namespace mesh::derper {
namespace {

http1::Request ask(std::string method, std::string target, http1::Headers headers = {}) {
    http1::Request r;
    r.method = std::move(method);
    r.target = std::move(target);
    r.headers = std::move(headers);
    return r;
}

TEST(Pages, ProbesAnswerGetAndHeadForAnyOrigin) {
    for (const char* path : {"/derp/probe", "/derp/latency-check", "/derp/latency-check?x=1"}) {
        for (const char* method : {"GET", "HEAD"}) {
            const auto r = answer_page(ask(method, path));
            EXPECT_EQ(r.status, 200U);
            EXPECT_EQ(r.body, "");
            EXPECT_EQ(r.header("Access-Control-Allow-Origin"), "*");
        }
        EXPECT_EQ(answer_page(ask("POST", path)).status, 405U);
    }
}

TEST(Pages, Generate204EchoesAWellFormedChallenge) {
    const std::function<http1::Response(const http1::Request&)> both[] = {
        [](const http1::Request& q) { return answer_page(q); }, answer_port_80};
    for (const auto& answer : both) {
        auto r = answer(ask("GET", "/generate_204", {{"X-Tailscale-Challenge", "ts_derp1.example:8"}}));
        EXPECT_EQ(r.status, 204U);
        EXPECT_EQ(r.header("X-Tailscale-Response"), "response ts_derp1.example:8");
        EXPECT_EQ(r.header("Cache-Control"), "no-cache, no-store, must-revalidate, no-transform, max-age=0");
        for (const std::string& bad : {std::string("a b"), std::string("a\"b"), std::string(65, 'a'), std::string()})
            EXPECT_EQ(answer(ask("GET", "/generate_204", {{"X-Tailscale-Challenge", bad}})).header("X-Tailscale-Response"),
                      "");
    }
}

TEST(Pages, HomeAndRobots) {
    EXPECT_NE(answer_page(ask("GET", "/")).body.find("DERP"), std::string::npos);
    EXPECT_EQ(answer_page(ask("HEAD", "/")).body, "");
    EXPECT_EQ(answer_page(ask("GET", "/robots.txt")).body, "User-agent: *\nDisallow: /\n");
    EXPECT_EQ(answer_page(ask("GET", "/other")).status, 404U);
}

TEST(Pages, TheHomePageIsTheOperatorsChoice) {
    EXPECT_EQ(answer_page(ask("GET", "/"), "blank").body, "");
    const auto r = answer_page(ask("GET", "/"), "https://example.com/x");
    EXPECT_EQ(r.status, 302U);
    EXPECT_EQ(r.header("Location"), "https://example.com/x");
}

TEST(Pages, ForwardedAddressesAreBelievedFromTrustedProxiesOnly) {
    const auto trusted = std::vector<Prefix>{*Prefix::parse("127.0.0.0/8"), *Prefix::parse("10.0.0.0/8")};
    const auto who = [&](const char* peer, http1::Headers headers) {
        return real_client(ask("GET", "/derp", std::move(headers)), *Addr::parse(peer), trusted);
    };
    EXPECT_EQ(who("127.0.0.1", {}).addr.str(), "127.0.0.1");
    EXPECT_TRUE(who("127.0.0.1", {}).certain);
    EXPECT_EQ(who("127.0.0.1", {{"X-Forwarded-For", "203.0.113.9"}}).addr.str(), "203.0.113.9");
    EXPECT_EQ(who("127.0.0.1", {{"x-forwarded-for", "1.2.3.4, 203.0.113.9, 10.1.1.1"}}).addr.str(), "203.0.113.9")
        << "what the client itself claims to the left of the first untrusted hop does not count";
    EXPECT_EQ(who("127.0.0.1", {{"X-Forwarded-For", "2001:db8::1"}}).addr.str(), "2001:db8::1");
    EXPECT_EQ(who("127.0.0.1", {{"X-Forwarded-For", "[2001:db8::1]:77"}}).addr.str(), "2001:db8::1");
    const Asker liar = who("198.51.100.7", {{"X-Forwarded-For", "127.0.0.1"}});
    EXPECT_EQ(liar.addr.str(), "198.51.100.7");
    EXPECT_FALSE(liar.certain);
    const Asker vague = who("127.0.0.1", {{"X-Forwarded-For", "unknown"}});
    EXPECT_EQ(vague.addr.str(), "127.0.0.1");
    EXPECT_FALSE(vague.certain) << "a proxy on loopback gives nobody the rights of loopback";
    EXPECT_FALSE(who("127.0.0.1", {{"X-Real-IP", "1.2.3.4"}}).certain);
}

TEST(Pages, Port80RedirectsToHttpsWithoutItsOwnPort) {
    const auto to = [](std::string host, std::string target) {
        return answer_port_80(ask("GET", std::move(target), {{"Host", std::move(host)}}));
    };
    EXPECT_EQ(to("derp.example:80", "/x?y").header("Location"), "https://derp.example/x?y");
    EXPECT_EQ(to("[2001:db8::1]", "/").header("Location"), "https://[2001:db8::1]/");
    EXPECT_EQ(to("[2001:db8::1]:80", "/").header("Location"), "https://[2001:db8::1]/");
    EXPECT_EQ(to("", "/").status, 400U);
    EXPECT_EQ(to("a/b", "/").status, 400U);
    EXPECT_EQ(answer_port_80(ask("POST", "/", {{"Host", "h"}})).status, 400U);
}

TEST(Pages, BootstrapAnswersAsTheOriginal) {
    const NameTable open = {{"control.example", {*Addr::parse("192.0.2.7"), *Addr::parse("2001:db8::7")}}, {"unknown.example", {}}};
    const NameTable hidden = {{"hidden.example", {*Addr::parse("192.0.2.8")}}};
    const auto told = [&](const std::string& target) { return answer_bootstrap(ask("GET", target), open, hidden); };
    const std::string all = "{\n\t\"control.example\": [\n\t\t\"192.0.2.7\",\n\t\t\"2001:db8::7\"\n\t]\n}";
    EXPECT_EQ(told("/bootstrap-dns").body, all);
    EXPECT_EQ(told("/bootstrap-dns?q=control.example").body, all);
    EXPECT_EQ(told("/bootstrap-dns?x=1&q=hidden.example").body, "{\n\t\"hidden.example\": [\n\t\t\"192.0.2.8\"\n\t]\n}");
    EXPECT_FALSE(told("/bootstrap-dns").keep_alive);
    EXPECT_EQ(answer_bootstrap(ask("GET", "/bootstrap-dns"), {}, {}).body, "");
    EXPECT_EQ(answer_bootstrap(ask("GET", "/bootstrap-dns"), {}, {}).status, 200U);
}

TEST(Pages, UpgradesAreToldApart) {
    EXPECT_EQ(wanted_upgrade(ask("GET", "/derp")), Upgrade::kNone);
    EXPECT_EQ(wanted_upgrade(ask("GET", "/derp", {{"Upgrade", "h2c"}})), Upgrade::kNone);
    EXPECT_EQ(wanted_upgrade(ask("GET", "/derp", {{"Upgrade", "derp"}})), Upgrade::kDerp);
    EXPECT_EQ(wanted_upgrade(ask("GET", "/derp", {{"upgrade", "WebSocket"}})), Upgrade::kDerp);
    EXPECT_EQ(wanted_upgrade(ask("GET", "/derp", {{"Upgrade", "websocket"}, {"Sec-WebSocket-Protocol", "derp"}})),
              Upgrade::kWebSocket);
    const auto r = refusal(Upgrade::kNone);
    EXPECT_EQ(r.status, 426U);
    EXPECT_EQ(r.body, "DERP requires connection upgrade\n");
}

TEST(Pages, TheUpgradeAnswerNamesTheServersKey) {
    NodePublic key;
    key.raw.fill(0xab);
    EXPECT_EQ(switching_protocols(key),
              "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nDerp-Version: 2\r\n"
              "Derp-Public-Key: abababababababababababababababababababababababababababababababab\r\n\r\n");
}

}  // namespace
}  // namespace mesh::derper
