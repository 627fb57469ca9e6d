// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/peer_api.h"

#include <gtest/gtest.h>

#include "platform/http/http_client.h"
#include "platform/test_support.h"
#include "tailscaled/dns_plan.h"
#include "tailscaled/network_plan.h"

namespace mesh::daemon {
namespace {

using platform::testing::turn_until;

http1::Request request(std::string method, std::string target, std::string body = "") {
    http1::Request r;
    r.method = std::move(method);
    r.target = std::move(target);
    r.headers = {{"Host", "100.64.0.1:40000"}, {"Content-Type", "application/dns-message"}};
    r.body = std::move(body);
    return r;
}

TEST(PeerRequest, WhoMayAskAndHow) {
    const Bytes query = dns::make_query(7, "www.example.org", dns::kTypeA);
    const std::string body(as_text(query));
    EXPECT_EQ(parse_peer_request(request("POST", "/dns-query", body), true).query, query);
    std::string text = base64_encode(query);
    text.erase(text.find_last_not_of('=') + 1);
    std::replace(text.begin(), text.end(), '+', '-');
    std::replace(text.begin(), text.end(), '/', '_');
    EXPECT_EQ(parse_peer_request(request("GET", "/dns-query?dns=" + text), true).query, query);

    const auto refused = [](const http1::Request& r, bool allowed = true) {
        const PeerDnsRequest out = parse_peer_request(r, allowed);
        EXPECT_TRUE(out.query.empty());
        return out.refusal.status;
    };
    EXPECT_EQ(refused(request("POST", "/dns-query", body), false), 403U);
    EXPECT_EQ(refused(request("PUT", "/v0/put/file", body)), 404U);
    EXPECT_EQ(refused(request("DELETE", "/dns-query", body)), 405U);
    EXPECT_EQ(refused(request("GET", "/dns-query")), 400U);
    EXPECT_EQ(refused(request("GET", "/dns-query?dns=%21%21")), 400U);
    EXPECT_EQ(refused(request("POST", "/dns-query", "short")), 400U);
    http1::Request form = request("POST", "/dns-query", body);
    form.headers[1].second = "text/plain";
    EXPECT_EQ(refused(form), 400U);
    // A page in a peer's browser: as another site's script, and under a name of its own that leads here.
    for (const char* header : {"Origin", "Referer"}) {
        http1::Request page = request("POST", "/dns-query", body);
        page.headers.emplace_back(header, "http://evil.example/");
        EXPECT_EQ(refused(page), 403U) << header;
    }
    http1::Request rebound = request("POST", "/dns-query", body);
    rebound.headers[0].second = "evil.example:40000";
    EXPECT_EQ(refused(rebound), 403U);
    rebound.headers[0].second = "[fd7a:115c:a1e0::1]:40000";
    EXPECT_EQ(parse_peer_request(rebound, true).query, query);
}

TEST(PeerRequest, ThePortStaysTheSame) {
    const uint16_t port = peer_api_port_for(Addr::v4(100, 64, 0, 1));
    EXPECT_GE(port, 0x8000);
    EXPECT_EQ(port, peer_api_port_for(Addr::v4(100, 64, 0, 1)));
    EXPECT_NE(port, peer_api_port_for(Addr::v4(100, 64, 0, 2)));
}

class PeerApiTest : public ::testing::Test {
   protected:
    void serve() {
        PeerApi::Services services;
        services.may_ask = [this](const Addr&) { return allowed; };
        services.ask = [this](ByteSpan query, PeerApi::Reply reply) {
            ++asked;
            if (silent)
                held.push_back(std::move(reply));
            else
                reply(to_bytes(query));
        };
        api = PeerApi::start(loop, "", 0, std::move(services))
                  .value();
    }
    std::unique_ptr<platform::HttpClient::Call> send(std::function<void(Result<platform::HttpResponse>)> done) {
        platform::HttpRequest r;
        r.method = platform::HttpRequest::Method::kPost;
        r.url = "http://127.0.0.1:" + std::to_string(api->port()) + "/dns-query";
        r.headers = {{"Content-Type", "application/dns-message"}};
        r.body = std::string(as_text(dns::make_query(7, "www.example.org", dns::kTypeA)));
        r.protect = platform::Protect::kNo;
        return http.send(std::move(r), std::move(done));
    }
    unsigned status() {
        std::optional<unsigned> got;
        const auto call = send([&](Result<platform::HttpResponse> r) { got = r ? r->status : 0; });
        EXPECT_TRUE(turn_until(loop, [&] { return got.has_value(); }));
        return got.value_or(1);
    }

    platform::Loop loop;
    platform::Resolver resolver{loop, {}};
    platform::HttpClient http{loop, resolver};
    bool allowed = true, silent = false;
    int asked = 0;
    std::vector<PeerApi::Reply> held;
    std::unique_ptr<PeerApi> api;
};

TEST_F(PeerApiTest, AnswersOneAfterTheOther) {
    serve();
    for (int i = 0; i < 5; ++i) EXPECT_EQ(status(), 200U);
    EXPECT_EQ(asked, 5);
    allowed = false;
    EXPECT_EQ(status(), 403U);
    EXPECT_EQ(asked, 5);
}

TEST_F(PeerApiTest, OnePeerHasItsShareOfConnections) {
    serve();
    silent = true;
    size_t ended = 0;
    std::vector<std::unique_ptr<platform::HttpClient::Call>> calls;
    for (size_t i = 0; i < PeerApi::kMaxPerPeer + 3; ++i)
        calls.push_back(send([&](const Result<platform::HttpResponse>& r) { ended += r ? 0U : 1U; }));
    EXPECT_TRUE(turn_until(loop, [&] { return ended == 3 && held.size() == PeerApi::kMaxPerPeer; })) << ended << " " << held.size();
    // It dies with answers under way; they come too late and go nowhere.
    api.reset();
    for (auto& reply : held) reply(Bytes(20));
    EXPECT_TRUE(turn_until(loop, [&] { return ended == calls.size(); }));
}

TEST(PeerDns, RoutesOfPeersAreOursElseTheHosts) {
    DnsPlan plan;
    platform::ResolverConfig base;
    base.servers = {{Addr::v4(192, 168, 1, 1), 53}};
    plan.routes.set("corp.example", {*dns::parse_upstream("10.0.0.1", {})});
    dns::Routes routes = routes_for_peers(plan, base);
    EXPECT_EQ(routes.find("x.corp.example")->at(0).text, "10.0.0.1");
    EXPECT_EQ(routes.find("www.example.org")->at(0).text, "192.168.1.1");
    plan.routes.set("", {*dns::parse_upstream("9.9.9.9", {})});
    routes = routes_for_peers(plan, base);
    EXPECT_EQ(routes.find("www.example.org")->at(0).text, "9.9.9.9");
}

TEST(PeerDns, NamesThatExitNodesKeepToThemselves) {
    const std::vector<std::string> set = {".corp.example", "Secret.Example."};
    EXPECT_TRUE(refused_to_peers(set, "a.corp.example"));
    EXPECT_FALSE(refused_to_peers(set, "corp.example"));
    EXPECT_FALSE(refused_to_peers(set, "xcorp.example"));
    EXPECT_TRUE(refused_to_peers(set, "secret.example"));
    EXPECT_FALSE(refused_to_peers(set, "a.secret.example"));
    EXPECT_FALSE(refused_to_peers({}, "a"));
}

TEST(PeerDns, WhoMayUseTheInternetMayAskForNames) {
    const auto node = [](netmap::NodeId id, const char* addr, netmap::UserId user) {
        netmap::Node n;
        n.id = id;
        n.user = user;
        n.addresses = {*Prefix::parse(addr)};
        n.hostinfo = std::make_shared<netmap::PeerHostinfo>();
        return n;
    };
    netmap::NetMap map;
    map.self = std::make_shared<const netmap::Node>(node(1, "100.64.0.1/32", 1));
    netmap::Node tagged = node(4, "100.64.0.4/32", 1), jailed = node(5, "100.64.0.5/32", 1);
    tagged.tags = {"tag:x"};
    jailed.jailed = true;
    for (const netmap::Node& n : {node(2, "100.64.0.2/32", 1), node(3, "100.64.0.3/32", 2), tagged, jailed, node(6, "100.64.0.6/32", 2)})
        map.peers.upsert(std::make_shared<const netmap::Node>(n));
    netstack::FilterRule internet;
    ASSERT_TRUE(netstack::parse_source("100.64.0.6", internet));
    internet.dst.push_back({*Prefix::parse("0.0.0.0/0"), {}});
    dataplane::Tables tables;
    tables.filter = netstack::FilterTable({{internet}}, {});
    const auto may = [&](const char* addr) { return may_use_internet(map, tables, *Addr::parse(addr)); };
    EXPECT_TRUE(may("100.64.0.2")) << "the same user";
    EXPECT_FALSE(may("100.64.0.3")) << "another user without a rule";
    EXPECT_FALSE(may("100.64.0.4")) << "a tagged node belongs to nobody";
    EXPECT_FALSE(may("100.64.0.5"));
    EXPECT_TRUE(may("100.64.0.6")) << "the filter lets it out";
    EXPECT_FALSE(may("192.168.50.20")) << "no node, though it may be behind one";
}

}  // namespace
}  // namespace mesh::daemon
