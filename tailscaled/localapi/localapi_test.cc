// SPDX-License-Identifier: BSD-3-Clause
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <fstream>
#include <sstream>

#include "platform/net/stream_pair.h"
#include "platform/test_support.h"
#include "tailscaled/localapi/debug_reports.h"
#include "tailscaled/localapi/fake_backend.h"
#include "tailscaled/localapi/peer_auth.h"
#include "tailscaled/localapi/server.h"
#include "tailscaled/localapi/session.h"

namespace mesh::localapi {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string vector_file(const std::string& name) {
    std::ifstream in(MESH_VECTORS + name);
    EXPECT_TRUE(in.good()) << name;
    std::stringstream s;
    s << in.rdbuf();
    return s.str();
}

/// A client that reads at once, or (stalled) not at all.
struct TestWire final : Wire {
    std::string out;
    size_t queued = 0;
    bool stalled = false;
    int finished_calls = 0;
    bool write(std::string_view bytes, size_t limit) override {
        if (queued + bytes.size() > limit) return false;
        out += bytes;
        if (stalled) queued += bytes.size();
        return true;
    }
    [[nodiscard]] size_t queued_bytes() const override { return queued; }
    platform::ByteStream release() override { return {}; }
    void session_finished() override { ++finished_calls; }
};

struct Answer {
    unsigned status = 0;
    std::string type;
    std::string body;
};

api::PingResult pong(const std::string& ip) {
    api::PingResult r;
    r.ip = ip;
    return r;
}

class SessionTest : public ::testing::Test {
   protected:
    FakeBackend backend;
    SeededRandom random{1};
    Context context{backend, "", [] { return WallTime{1795223795'000000000}; },
                    [this](uid_t uid) { return may_write(uid, 7, backend.prefs_value.operator_user); }, random};
    TestWire wire;
    std::unique_ptr<Session> session;

    void SetUp() override { connect(0); }
    void connect(uid_t uid) {
        wire = TestWire{};
        session = std::make_unique<Session>(context, wire, uid, 1);
    }
    void send(const std::string& text) { session->handle_bytes(as_bytes(text)); }
    static std::string request(const std::string& method, const std::string& path, const std::string& body = "",
                               const std::string& headers = "Host: local-tailscaled.sock\r\n") {
        std::string r = method + " " + path + " HTTP/1.1\r\n" + headers;
        if (!body.empty()) r += "Content-Length: " + std::to_string(body.size()) + "\r\n";
        return r + "\r\n" + body;
    }
    Answer take() {
        http1::Parser parser(http1::Role::kResponses, 1U << 24);
        const auto used = parser.feed(as_bytes(wire.out));
        EXPECT_TRUE(used) << wire.out;
        EXPECT_TRUE(parser.headers_done()) << wire.out;
        const http1::Response r = parser.take_response();
        wire.out.erase(0, *used);
        return {r.status, std::string(r.header("Content-Type")), r.body};
    }
    Answer ask(const std::string& method, const std::string& path, const std::string& body = "",
               const std::string& headers = "Host: local-tailscaled.sock\r\n") {
        send(request(method, path, body, headers));
        return take();
    }
    Answer get(const std::string& path) { return ask("GET", "/localapi/v0/" + path); }
    Answer post(const std::string& path, const std::string& body = "") {
        return ask("POST", "/localapi/v0/" + path, body);
    }
};

TEST_F(SessionTest, StatusAndPrefsAreTheRecordedBodies) {
    const auto s = api::parse_status(vector_file("api-status-needslogin.json"));
    ASSERT_TRUE(s);
    backend.status_value = *s;
    EXPECT_EQ(get("status").body, vector_file("api-status-needslogin.json"));
    EXPECT_EQ(get("prefs").body, vector_file("api-prefs-fresh.json"));
    EXPECT_EQ(get("prefs").type, "application/json");
}

TEST_F(SessionTest, AChangeIsAnsweredWhenTheHostHasFollowed) {
    backend.hold_ready = true;
    const std::vector<std::pair<std::string, std::string>> changes = {
        {request("PATCH", "/localapi/v0/prefs", R"({"CorpDNS":false,"CorpDNSSet":true})"), "200"},
        {request("POST", "/localapi/v0/start", "{}"), "204"},
        {request("POST", "/localapi/v0/logout"), "204"}};
    for (const auto& [change, status] : changes) {
        send(change);
        EXPECT_EQ(wire.out, "") << change;
        ASSERT_TRUE(backend.ready_done);
        std::exchange(backend.ready_done, nullptr)();
        EXPECT_EQ(wire.out.substr(9, 3), status);
        wire.out.clear();
    }
    EXPECT_EQ(get("prefs").status, 200U) << "who only reads does not wait";
}

TEST_F(SessionTest, WebPagesAreTurnedAway) {
    for (const char* headers :
         {"Host: foo\r\n", "Host: localhost\r\n", "Host: local-tailscaled.sock\r\nOrigin: http://x\r\n",
          "Host: local-tailscaled.sock\r\nReferer: http://x\r\n"}) {
        const Answer a = ask("GET", "/localapi/v0/status", "", headers);
        EXPECT_EQ(a.status, 403U) << headers;
        EXPECT_EQ(a.body, "invalid localapi request\n");
        EXPECT_EQ(a.type, "text/plain; charset=utf-8");
    }
    EXPECT_EQ(ask("GET", "/localapi/v0/status", "", "Host:\r\n").status, 200U);
}

TEST_F(SessionTest, WrongQuestionsGetTheTextsClientsKnow) {
    const auto expect = [](const Answer& a, unsigned status, const std::string& body) {
        EXPECT_EQ(a.status, status) << a.body;
        EXPECT_EQ(a.body, body);
    };
    expect(get("nosuch"), 404, "404 page not found\n");
    expect(ask("PUT", "/localapi/v0/prefs"), 405, "unsupported method\n");
    expect(get("start"), 400, "want POST\n");
    expect(get("logout"), 400, "want POST\n");
    expect(get("login-interactive"), 400, "want POST\n");
    expect(get("ping?ip=100.64.0.2&type=disco"), 400, "want POST\n");
    expect(get("bugreport"), 405, "only POST allowed\n");
    expect(post("ping"), 400, "missing 'ip' parameter\n");
    expect(post("ping?ip=x"), 400, "invalid IP\n");
    expect(post("ping?ip=100.64.0.2"), 400, "missing 'type' parameter\n");
    expect(post("ping?ip=100.64.0.2&type=bogus"), 400, "invalid 'type' parameter\n");
    expect(post("ping?ip=100.64.0.2&type=TSMP&size=500"), 400,
           "'size' parameter is only supported with disco pings\n");
    expect(post("ping?ip=100.64.0.2&type=disco&size=99999"), 400, "maximum value for 'size' is 65467\n");
    expect(get("whois"), 400, "missing 'addr' parameter\n");
    expect(get("whois?addr=zzz"), 400, "invalid 'addr' parameter\n");
    expect(get("whois?addr=100.64.0.99"), 404, "no match for IP:port\n");
    expect(get("watch-ipn-bus?mask=zz"), 400, "bad mask\n");
    expect(get("watch-ipn-bus?mask=65536"), 400, "bad mask\n");
    expect(post("debug?action=nosuch"), 400, "unknown action \"nosuch\"\n");
    expect(get("profiles/nosuch"), 404, "Profile not found\n");
    expect(post("profiles/nosuch"), 500, "profile not found\n");
    expect(post("profiles/8175"), 204, "");
    expect(ask("PUT", "/localapi/v0/profiles/"), 201, "");
    EXPECT_EQ(backend.calls.back(), "switch ");
    expect(ask("DELETE", "/localapi/v0/profiles/8175"), 204, "");
    EXPECT_EQ(backend.calls.back(), "remove 8175");
    expect(post("dial"), 400, "bad ts-dial upgrade\n");
    expect(get("dns-config"), 503, "no netmap\n");
    expect(get("dns-osconfig"), 200, "{\"Nameservers\":[\"10.0.0.1\"],\"SearchDomains\":[],\"MatchDomains\":[]}\n");
    expect(get("dns-query?name=a.test"), 200, "{\"Bytes\":\"1\",\"Resolvers\":[]}\n");
    expect(get("dns-query?name=a.test&type=aaaa"), 200, "{\"Bytes\":\"28\",\"Resolvers\":[]}\n");
    expect(get("dns-query?name=a.test&type=FOO"), 400, "unknown DNS message type: FOO\n");
    expect(get("dns-query"), 400, "missing 'name' parameter\n");
    expect(get("dns-query?name=bad..name"), 400, "not a DNS name\n");
    expect(ask("PATCH", "/localapi/v0/prefs", R"({"ExitNodeIPSet":true,"ExitNodeIP":"x"})"), 400,
           "ParseAddr(\"x\"): unable to parse IP\n");
    expect(ask("PATCH", "/localapi/v0/prefs", R"({"ShieldsUpSet":true,"ShieldsUp":true})"), 400,
           "{\"Error\":\"not today\"}\n");
    expect(post("component-debug-logging"), 200, "{\"Error\":\"unknown component \\\"\\\"\"}\n");
}

TEST_F(SessionTest, DialHandsTheConnectionOverWithoutATun) {
    const std::string upgrade = "Host: local-tailscaled.sock\r\nConnection: upgrade\r\nUpgrade: ts-dial\r\n";
    const auto expect = [&](const std::string& headers, unsigned status, const std::string& body) {
        connect(0);
        const Answer a = ask("POST", "/localapi/v0/dial", "", upgrade + headers);
        EXPECT_EQ(a.status, status) << headers;
        EXPECT_EQ(a.body, body) << headers;
        EXPECT_FALSE(session->finished());
    };
    expect("Dial-Host: b\r\n", 400, "missing Dial-Host or Dial-Port header\n");
    expect("Dial-Host: b\r\nDial-Port: 70000\r\n", 502, "resolve failure: bad port\n");
    connect(0);
    send(request("POST", "/localapi/v0/dial", "", upgrade + "Dial-Host: b\r\nDial-Port: 22\r\n"));
    EXPECT_EQ(backend.dialled, "b:22");
    EXPECT_TRUE(session->finished());
    EXPECT_EQ(wire.out, "") << "what the client hears is the backend's";
}

TEST_F(SessionTest, FilesOfPeersAreListedAndRemoved) {
    EXPECT_EQ(get("file-targets").body, "[]\n");
    EXPECT_EQ(get("files/?waitsec=0").body, "[{\"Name\":\"a b.txt\",\"Size\":3}]\n");
    EXPECT_EQ(get("files/?waitsec=3600").status, 200U);
    EXPECT_EQ(backend.calls.back(), "files 3600");
    EXPECT_EQ(get("files/?waitsec=99999999").status, 200U);
    EXPECT_EQ(backend.calls.back(), "files 86400");
    EXPECT_EQ(get("files/?waitsec=x").body, "invalid waitsec\n");
    EXPECT_EQ(ask("PUT", "/localapi/v0/files/").body, "want GET to list files\n");
    EXPECT_EQ(ask("DELETE", "/localapi/v0/files/a%20b.txt").status, 204U);
    EXPECT_EQ(backend.calls.back(), "delete a b.txt");
    EXPECT_EQ(ask("DELETE", "/localapi/v0/files/none").status, 500U);
}

TEST_F(SessionTest, ContentOfFilesGoesPastTheSession) {
    send(request("GET", "/localapi/v0/files/a%20b.txt"));
    EXPECT_EQ(backend.calls.back(), "read a b.txt");
    EXPECT_TRUE(session->finished());
    // However long the file is: the request goes on unread, also if it begins in pieces.
    connect(0);
    send("PUT /localapi/v0/fi");
    EXPECT_FALSE(session->finished());
    send("le-put/n2/x HTTP/1.1\r\nHost: local-tailscaled.sock\r\nContent-Length: 99999999999\r\n\r\nabc");
    EXPECT_EQ(backend.calls.back(), "put");
    EXPECT_TRUE(session->finished());
    EXPECT_EQ(wire.out, "");
    backend.calls.clear();
    connect(65534);
    send("PUT /localapi/v0/file-put/n2/x HTTP/1.1\r\nHost: local-tailscaled.sock\r\nContent-Length: 99999999999\r\n\r\nabc");
    EXPECT_TRUE(wire.out.starts_with("HTTP/1.1 403 ")) << wire.out;
    EXPECT_NE(wire.out.find("file access denied\n"), std::string::npos);
    connect(65534);
    EXPECT_EQ(get("files/").body, "file access denied\n");
    EXPECT_EQ(get("files/a").body, "file access denied\n");
    EXPECT_EQ(ask("DELETE", "/localapi/v0/files/a").body, "file access denied\n");
    EXPECT_TRUE(backend.calls.empty());
}

TEST(Server, AConnectionUsedBeforeCarriesAFileAsWell) {
    platform::Loop loop;
    FakeBackend backend;
    SeededRandom random{1};
    Server server(loop, backend, random, {"", ::geteuid()});
    auto pair = platform::stream_pair().value();
    server.adopt(std::move(pair.second));
    const std::string host = " HTTP/1.1\r\nHost: local-tailscaled.sock\r\n\r\n";
    pair.first.write("GET /localapi/v0/files/?waitsec=0" + host);
    EXPECT_TRUE(platform::testing::turn_until(loop, [&] { return backend.calls.size() == 1; }));
    pair.first.write("GET /localapi/v0/files/x" + host);
    EXPECT_TRUE(platform::testing::turn_until(loop, [&] { return backend.calls.size() == 2; }));
    EXPECT_TRUE(backend.file_written) << "a file is longer than the answer before it";
}

TEST_F(SessionTest, ABugReportIsAMark) {
    EXPECT_EQ(post("bugreport?note=a%0Ab&diagnose=true").body, "BUG-1-20261121000000Z-0000000000000000\n");
    EXPECT_EQ(backend.calls.back(), "bugreport a?b diagnosed");
}

TEST_F(SessionTest, OthersMayReadButNotWrite) {
    connect(65534);
    const auto denied = [&](const Answer& a, const std::string& text) {
        EXPECT_EQ(a.status, 403U) << text;
        EXPECT_EQ(a.body, text + "\n");
    };
    EXPECT_EQ(get("status").status, 200U);
    EXPECT_EQ(get("prefs").status, 200U);
    EXPECT_EQ(get("serve-config").body, "null");
    EXPECT_EQ(post("ping?ip=100.64.0.2&type=disco").status, 200U);
    denied(ask("PATCH", "/localapi/v0/prefs", "{}"), "prefs write access denied");
    denied(post("start", "{}"), "access denied");
    denied(post("login-interactive"), "login access denied");
    denied(post("logout"), "logout access denied");
    denied(post("check-prefs", "{}"), "checkprefs access denied");
    denied(get("profiles/"), "profiles access denied");
    denied(get("dns-osconfig"), "dns-osconfig dump access denied");
    denied(get("dns-query?name=x"), "dns-query access denied");
    denied(get("metrics"), "metric access denied");
    denied(get("files/"), "file access denied");
    denied(get("id-token?aud=x"), "id-token access denied");
    denied(get("cert/x"), "cert access denied");
    denied(post("debug?action=restun"), "debug access denied");
    denied(post("reload-config"), "access denied");
    denied(post("shutdown"), "shutdown access denied");
    denied(post("serve-config", "{}"), "serve config denied");
    EXPECT_THAT(backend.calls, ElementsAre("ping 100.64.0.2"));
}

TEST_F(SessionTest, TheDaemonsOwnUserAndTheOperatorMayWrite) {
    connect(7);
    EXPECT_EQ(ask("PATCH", "/localapi/v0/prefs", "{}").status, 200U);
    connect(65533);
    EXPECT_EQ(ask("PATCH", "/localapi/v0/prefs", "{}").status, 403U);
    backend.prefs_value.operator_user = "65533";
    EXPECT_EQ(ask("PATCH", "/localapi/v0/prefs", "{}").status, 200U);
}

TEST_F(SessionTest, ChunkedBodiesInAnySplitAreUnderstood) {
    const std::string body = R"({"Hostname":"node-a","HostnameSet":true})";
    const std::string all = request("PATCH", "/localapi/v0/prefs", "",
                                    "Host: local-tailscaled.sock\r\nTransfer-Encoding: chunked\r\n"
                                    "X-Tailscale-Reason: d2h5\r\n") +
                            http1::chunk(body.substr(0, 10)) + http1::chunk(body.substr(10)) + http1::chunk("");
    for (size_t cut = 1; cut < all.size(); ++cut) {
        connect(0);
        backend.prefs_value.hostname.clear();
        send(all.substr(0, cut));
        send(all.substr(cut));
        EXPECT_EQ(take().status, 200U) << cut;
        EXPECT_EQ(backend.prefs_value.hostname, "node-a") << cut;
    }
    EXPECT_EQ(backend.calls.back(), "edit_prefs 0 why");
}

TEST_F(SessionTest, RequestsOnOneConnectionAreAnsweredInOrder) {
    send(request("GET", "/localapi/v0/serve-config") + request("GET", "/localapi/v0/nosuch") +
         request("HEAD", "/localapi/v0/prefs"));
    EXPECT_EQ(take().body, "null");
    EXPECT_EQ(take().status, 404U);
    EXPECT_THAT(wire.out, HasSubstr("Content-Length: 680\r\n"));
    EXPECT_FALSE(session->finished());
    EXPECT_TRUE(session->idle());
}

TEST_F(SessionTest, ConnectionCloseEndsAfterTheAnswer) {
    send(request("GET", "/localapi/v0/nosuch", "", "Host: local-tailscaled.sock\r\nConnection: close\r\n"));
    EXPECT_EQ(take().status, 404U);
    EXPECT_TRUE(session->finished());
}

TEST_F(SessionTest, GarbageAndOversizedRequestsEndTheConnection) {
    send("\x16\x03\x01 not http\r\n\r\n");
    EXPECT_EQ(take().status, 400U);
    EXPECT_TRUE(session->finished());
    connect(0);
    send("GET /localapi/v0/status HTTP/1.1\r\nX: " + std::string(20000, 'a'));
    EXPECT_TRUE(session->finished());
    connect(0);
    send(request("PATCH", "/localapi/v0/prefs", "",
                 "Host: local-tailscaled.sock\r\nContent-Length: 99999999\r\n"));
    EXPECT_TRUE(session->finished());
    EXPECT_TRUE(backend.calls.empty());
}

TEST_F(SessionTest, TheNextRequestWaitsUntilTheAnswerHasLeft) {
    wire.stalled = true;
    send(request("POST", "/localapi/v0/login-interactive") + request("POST", "/localapi/v0/login-interactive"));
    EXPECT_EQ(backend.calls.size(), 1U);
    wire.queued = 0;
    session->handle_drained();
    EXPECT_EQ(backend.calls.size(), 2U);
}

TEST_F(SessionTest, ALateCompletionAnswersOnlyTheRequestItBelongsTo) {
    backend.hold_completions = true;
    send(request("POST", "/localapi/v0/ping?ip=100.64.0.2&type=disco"));
    EXPECT_EQ(wire.out, "");
    EXPECT_FALSE(session->idle());
    const auto done = backend.ping_done;
    done(pong("100.64.0.2"));
    EXPECT_EQ(take().status, 200U);
    done(pong("again"));
    EXPECT_EQ(wire.out, "");
    send(request("POST", "/localapi/v0/logout"));
    done(pong("late"));
    EXPECT_EQ(wire.out, "");
    session.reset();
    backend.logout_done({});  // nobody there any more
}

TEST_F(SessionTest, AClientThatHangsUpDuringAPingIsForgotten) {
    backend.hold_completions = true;
    send(request("POST", "/localapi/v0/ping?ip=100.64.0.2&type=disco"));
    session->handle_eof();
    EXPECT_TRUE(session->finished());
}

TEST_F(SessionTest, TooMuchSentAheadEndsTheConnection) {
    backend.hold_completions = true;
    send(request("POST", "/localapi/v0/ping?ip=100.64.0.2&type=disco"));
    send(std::string(kMaxPipelined + 1, 'x'));
    EXPECT_TRUE(session->finished());
}

TEST_F(SessionTest, BusHeadersLeaveAtOnceAndMessagesFollow) {
    send(request("GET", "/localapi/v0/watch-ipn-bus?mask=0"));
    EXPECT_TRUE(session->watching());
    EXPECT_THAT(wire.out, HasSubstr("200 OK\r\n"));
    EXPECT_THAT(wire.out, HasSubstr("Transfer-Encoding: chunked\r\n"));
    EXPECT_TRUE(wire.out.ends_with("\r\n\r\n"));
    wire.out.clear();
    api::Notify n;
    n.version = "1.102.5-ERR-BuildInfo";
    n.state = api::State::kNeedsLogin;
    session->publish(BusMessage(n));
    EXPECT_EQ(wire.out, "a4\r\n{\"Version\":\"1.102.5-ERR-BuildInfo\",\"ErrMessage\":null,\"LoginFinished\":null,"
                        "\"State\":2,\"Prefs\":null,\"NetMap\":null,\"Engine\":null,\"BrowseToURL\":null,"
                        "\"DriveShares\":null}\n\r\n");
    session->handle_eof();
    EXPECT_TRUE(session->finished());
}

TEST_F(SessionTest, BusStartsWithWhatTheMaskAsksFor) {
    backend.status_value.backend_state = api::State::kRunning;
    send(request("GET", "/localapi/v0/watch-ipn-bus?mask=66"));
    EXPECT_THAT(wire.out, HasSubstr("\"SessionID\":\""));
    EXPECT_THAT(wire.out, HasSubstr("\"State\":6,\"Prefs\":null"));
}

TEST_F(SessionTest, PeerChangesGoOnlyToThoseWhoAsked) {
    api::Notify n;
    n.peers_changed_json = "[{}]";
    send(request("GET", "/localapi/v0/watch-ipn-bus"));
    wire.out.clear();
    session->publish(BusMessage(n));
    EXPECT_EQ(wire.out, "");
    connect(0);
    send(request("GET", "/localapi/v0/watch-ipn-bus?mask=4096"));
    session->publish(BusMessage(n));
    EXPECT_THAT(wire.out, HasSubstr("PeersChanged"));
}

TEST_F(SessionTest, AReaderOfTheBusThatStandsStillIsCut) {
    send(request("GET", "/localapi/v0/watch-ipn-bus"));
    wire.stalled = true;
    api::Notify n;
    n.err_message = std::string(100'000, 'x');
    const BusMessage message(n);
    for (int i = 0; i < 1000 && !session->finished(); ++i) session->publish(message);
    EXPECT_TRUE(session->finished());
    EXPECT_EQ(wire.finished_calls, 1);
    EXPECT_LE(wire.queued, kMaxBusBacklog + 200'000);
}

TEST_F(SessionTest, WhoisDecodesTheKeyADerperAsksFor) {
    const auto w = api::parse_whois(vector_file("whois.json"));
    ASSERT_TRUE(w);
    backend.nodes = {*w};
    const std::string hex = w->node.key.text().substr(8);
    EXPECT_EQ(get("whois?addr=nodekey%3A" + hex).status, 200U);
    EXPECT_EQ(get("whois?addr=nodekey%3A" + std::string(64, '1')).body, "no match for IP:port\n");
    EXPECT_EQ(get("whois?addr=100.64.0.2:80").status, 200U);
    EXPECT_EQ(get("whois?addr=100.64.0.2").body,
              api::indent_json(api::compact_json(vector_file("whois.json")), "\t"));
}

constexpr std::string_view kTwoRegions =
    R"({"Regions":{"900":{"RegionID":900,"RegionCode":"lab"},"901":{"RegionID":901,"RegionCode":"far"}}})";
constexpr std::string_view kChecks = R"({"Relays":[
  {"RegionID":900,"Node":"900a","Good":false,"Problems":["203.0.113.1:12345: refused"],"Steps":["STUN answers"]},
  {"RegionID":901,"Node":"901a","Good":true,"Problems":[],"Steps":["upgraded"]}],"CaptivePortal":null})";

TEST(DebugReports, ARegionIsFoundByNumberAndByCode) {
    for (const char* name : {"900", "lab"})
        EXPECT_EQ(derp_region_report(name, kTwoRegions, kChecks),
                  R"({"Info":["Region 900 == \"lab\"","Node \"900a\": STUN answers"],"Warnings":null,)"
                  R"("Errors":["Node \"900a\": 203.0.113.1:12345: refused"]})");
    EXPECT_THAT(derp_region_report("far", kTwoRegions, kChecks), HasSubstr(R"("Errors":null)"));
}

TEST(DebugReports, WhatIsMissingIsSaid) {
    EXPECT_THAT(derp_region_report("7\n", kTwoRegions, kChecks), HasSubstr("no region"));
    EXPECT_THAT(derp_region_report("900", "", kChecks), HasSubstr("no map of relays yet"));
    EXPECT_THAT(derp_region_report("900", kTwoRegions, "null"), HasSubstr("could be tried"));
    EXPECT_THAT(derp_region_report("900", R"({"Regions":{"900":{"RegionID":900}}})", R"({"CaptivePortal":true})"),
                testing::AllOf(HasSubstr("only region"), HasSubstr("captive portal")));
}

TEST(DebugReports, EndpointChangesKeepTheOrderOfWhatHappened) {
    EXPECT_EQ(endpoint_changes(R"([{"Events":[{"What":"pong","When":"2026-01-02T03:04:05Z","Endpoint":"192.0.2.1:1"},{"What":"reset"}]}])"),
              R"([{"When":"2026-01-02T03:04:05Z","What":"pong","From":"","To":"192.0.2.1:1"},{"When":"","What":"reset","From":"","To":""}])");
    EXPECT_EQ(endpoint_changes("[]"), "[]");
}

TEST_F(SessionTest, TheOriginalsDebugQuestionsAreAnswered) {
    EXPECT_EQ(get("debug-peer-endpoint-changes?ip=x").status, 400U);
    EXPECT_EQ(get("debug-peer-endpoint-changes?ip=100.64.0.2").status, 200U);
    EXPECT_THAT(post("debug-derp-region?region=1").body, HasSubstr("\"Errors\""));
}

TEST_F(SessionTest, StartTakesTheOptionsOfTheOriginalClient) {
    EXPECT_EQ(post("start", vector_file("start.json")).status, 204U);
    EXPECT_THAT(backend.calls, ElementsAre("start hskey-auth-REMOVED"));
}

}  // namespace
}  // namespace mesh::localapi
