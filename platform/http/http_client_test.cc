// SPDX-License-Identifier: BSD-3-Clause
#include "platform/http/http_client.h"

#include <dlfcn.h>

#include "platform/http/curl_library.h"
#include "platform/net/listener.h"
#include "platform/test_support.h"

namespace mesh::platform {
namespace {

using ::testing::HasSubstr;
using testing::no_dns;
using testing::self_signed;
using testing::turn_until;

/// Answers each request with what the script says; "" = never.
struct ScriptedHttp {
    struct Connection : ByteStream::Listener {
        ScriptedHttp* server = nullptr;
        ByteStream stream;
        std::string text;
        void on_bytes(MutByteSpan bytes) override {
            text += as_text(bytes);
            const size_t end = text.find("\r\n\r\n");
            if (end == std::string::npos) return;
            http1::Parser parser(http1::Role::kRequests, 1 << 20);
            if (!parser.feed(as_bytes(text)) || !parser.done()) return;
            server->seen.push_back(parser.take_request());
            const std::string answer = server->script(server->seen.back());
            if (answer.empty()) return;
            stream.write(answer);
            stream.finish_writing();
        }
        void on_closed(const Status&) override { stream.close(); }
    };
    std::function<std::string(const http1::Request&)> script;
    std::vector<http1::Request> seen;
    std::vector<std::unique_ptr<Connection>> connections;
    std::shared_ptr<const TlsServerContext> tls;
    std::unique_ptr<Listener> listener;

    explicit ScriptedHttp(Loop& loop, const CertificateAndKey* cert = nullptr) {
        if (cert != nullptr) tls = *TlsServerContext::create(cert->cert_pem, cert->key_pem);
        listener = std::move(*Listener::tcp(loop, {Addr::v4(127, 0, 0, 1), 0}, [this, &loop](ByteStream s) {
            if (tls) s.start_tls(std::move(*TlsSession::server(tls)));
            connections.push_back(std::make_unique<Connection>());
            Connection& c = *connections.back();
            c.server = this;
            c.stream = std::move(s);
            c.stream.attach(loop, c);
        }));
    }
    [[nodiscard]] std::string url(const std::string& path, const std::string& host = "127.0.0.1") const {
        return (tls ? "https://" : "http://") + host + ":" + std::to_string(listener->port()) + path;
    }
};

struct Fixture : ::testing::Test {
    Loop loop;
    Resolver resolver{loop, no_dns()};
    HttpClient client{loop, resolver};

    Result<HttpResponse> run(HttpRequest request) {
        request.protect = Protect::kNo;
        std::optional<Result<HttpResponse>> out;
        const auto call = client.send(std::move(request), [&](Result<HttpResponse> r) { out = std::move(r); });
        EXPECT_FALSE(out);
        EXPECT_TRUE(turn_until(loop, [&] { return out.has_value(); }));
        return out ? std::move(*out) : Result<HttpResponse>(fail(Code::kInternal, "no answer"));
    }
    static std::string error(const Result<HttpResponse>& r) { return r ? "ok" : r.error().message(); }
};
using HttpClientTest = Fixture;

std::string ok(const std::string& body) {
    return "HTTP/1.1 200 OK\r\nX-Test: yes\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

TEST_F(HttpClientTest, GetsHeadersBodyAndTimings) {
    ScriptedHttp server(loop);
    server.script = [](const http1::Request&) { return ok("hello"); };
    HttpRequest q;
    q.url = server.url("/key?v=1");
    q.headers = {{"X-Mine", "1"}};
    const auto r = run(q);
    ASSERT_TRUE(r.has_value()) << error(r);
    EXPECT_EQ(r->status, 200U);
    EXPECT_EQ(r->body, "hello");
    EXPECT_EQ(r->header("x-test"), "yes");
    EXPECT_EQ(r->remote, Addr::v4(127, 0, 0, 1));
    EXPECT_GT(r->total.ns, 0);
    EXPECT_GE(r->total, r->connected);
    ASSERT_EQ(server.seen.size(), 1U);
    EXPECT_EQ(server.seen[0].target, "/key?v=1");
    EXPECT_EQ(server.seen[0].header("X-Mine"), "1");
}

TEST_F(HttpClientTest, TheLibraryLeavesMemoryAfterARestAndComesBack) {
    const auto loaded = [] {
        void* library = ::dlopen("libcurl.so.4", RTLD_NOW | RTLD_NOLOAD);
        if (library != nullptr) ::dlclose(library);
        return library != nullptr;
    };
    ScriptedHttp server(loop);
    server.script = [](const http1::Request&) { return ok("hello"); };
    HttpClient brief(loop, resolver, milliseconds(1));
    for (int round = 0; round < 3; ++round) {
        std::optional<Result<HttpResponse>> out;
        HttpRequest request;
        request.url = server.url("/key");
        request.protect = Protect::kNo;
        const auto call = brief.send(request, [&](Result<HttpResponse> r) { out = std::move(r); });
        ASSERT_TRUE(turn_until(loop, [&] { return out.has_value(); }));
        ASSERT_TRUE(*out) << error(*out);
        EXPECT_EQ((*out)->body, "hello");
        EXPECT_TRUE(CurlLibrary::kStays || turn_until(loop, [&] { return !loaded(); })) << "round " << round;
    }
}

TEST_F(HttpClientTest, PostsABodyAndAsksForHeadersOnly) {
    ScriptedHttp server(loop);
    server.script = [](const http1::Request& r) {
        return r.method == "HEAD" ? std::string("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n") : ok("posted " + r.body);
    };
    HttpRequest post;
    post.url = server.url("/soap");
    post.method = HttpRequest::Method::kPost;
    post.body = "<xml/>";
    const auto r = run(post);
    ASSERT_TRUE(r.has_value()) << error(r);
    EXPECT_EQ(r->body, "posted <xml/>");
    HttpRequest head;
    head.url = server.url("/");
    head.method = HttpRequest::Method::kHead;
    const auto h = run(head);
    ASSERT_TRUE(h.has_value()) << error(h);
    EXPECT_EQ(h->status, 200U);
    EXPECT_EQ(h->body, "");
}

TEST_F(HttpClientTest, KeepsToItsLimitsOfSizeAndTime) {
    ScriptedHttp server(loop);
    server.script = [](const http1::Request& r) { return r.target == "/slow" ? std::string() : ok(std::string(5000, 'x')); };
    HttpRequest big;
    big.url = server.url("/big");
    big.max_body_bytes = 4999;
    const auto b = run(big);
    ASSERT_FALSE(b.has_value());
    EXPECT_EQ(b.error().code, Code::kLimit);
    HttpRequest slow;
    slow.url = server.url("/slow");
    slow.timeout = milliseconds(60);
    const auto s = run(slow);
    ASSERT_FALSE(s.has_value());
    EXPECT_EQ(s.error().code, Code::kTimeout);
    EXPECT_THAT(error(s), HasSubstr("/slow: timed out"));
}

TEST_F(HttpClientTest, SaysWhatIsWrongWithTheAddress) {
    HttpRequest q;
    q.url = "http://127.0.0.1:1/x";
    EXPECT_THAT(error(run(q)), HasSubstr("GET http://127.0.0.1:1/x: cannot connect: Connection refused"));
    q.url = "ftp://127.0.0.1/x";
    EXPECT_THAT(error(run(q)), HasSubstr("not an http or https URL"));
    q.url = "http://nowhere.invalid/x";
    q.timeout = milliseconds(100);
    EXPECT_THAT(error(run(q)), HasSubstr("look up nowhere.invalid"));
}

TEST_F(HttpClientTest, JudgesCertificatesByOurRules) {
    const auto cert = self_signed({"relay.example"});
    ScriptedHttp server(loop, &cert);
    server.script = [](const http1::Request&) { return ok("secure"); };
    HttpRequest q;
    q.url = server.url("/", "relay.example");
    q.addresses = {Addr::v4(127, 0, 0, 1)};
    EXPECT_THAT(error(run(q)), HasSubstr("self-signed"));
    q.tls = *derp_tls_options("relay.example", "sha256-raw:" + hex_encode(cert.sha256), false);
    const auto pinned = run(q);
    ASSERT_TRUE(pinned.has_value()) << error(pinned);
    EXPECT_EQ(pinned->body, "secure");
    EXPECT_GT(pinned->tls.ns, 0);
    q.tls->pin_sha256[0] ^= 1;
    EXPECT_THAT(error(run(q)), HasSubstr("fingerprint"));
    q.tls = TlsClientOptions{};
    q.tls->extra_roots_pem = cert.cert_pem;
    EXPECT_TRUE(run(q).has_value());
    q.url = server.url("/", "other.example");
    EXPECT_THAT(error(run(q)), HasSubstr("is for relay.example, not for other.example"));
    q.tls = TlsClientOptions{};
    q.tls->verify = TlsVerify::kInsecure;
    EXPECT_TRUE(run(q).has_value());
}

TEST_F(HttpClientTest, FollowsRedirectsOnlyWhenAsked) {
    ScriptedHttp server(loop);
    server.script = [](const http1::Request& r) {
        if (r.target == "/new") return ok("moved here");
        return std::string("HTTP/1.1 302 Found\r\nLocation: /new\r\nContent-Length: 0\r\n\r\n");
    };
    HttpRequest q;
    q.url = server.url("/old");
    const auto stay = run(q);
    ASSERT_TRUE(stay.has_value());
    EXPECT_EQ(stay->status, 302U);
    q.max_redirects = 1;
    const auto follow = run(q);
    ASSERT_TRUE(follow.has_value()) << error(follow);
    EXPECT_EQ(follow->body, "moved here");
}

TEST_F(HttpClientTest, NeverCallsBackAfterTheCallOrTheClientDied) {
    ScriptedHttp server(loop);
    server.script = [](const http1::Request&) { return ok("x"); };
    auto second = std::make_unique<HttpClient>(loop, resolver);
    HttpRequest q;
    q.url = server.url("/");
    q.protect = Protect::kNo;
    bool called = false;
    auto a = client.send(q, [&](Result<HttpResponse>) { called = true; });
    const auto b = second->send(q, [&](Result<HttpResponse>) { called = true; });
    ASSERT_TRUE(turn_until(loop, [&] { return server.connections.size() == 2; }));
    a.reset();
    second.reset();
    EXPECT_TRUE(run(q).has_value());
    EXPECT_FALSE(called);
    std::unique_ptr<HttpClient::Call> self;
    self = client.send(q, [&](Result<HttpResponse>) {
        self.reset();
        called = true;
    });
    ASSERT_TRUE(turn_until(loop, [&] { return called; }));
}

}  // namespace
}  // namespace mesh::platform
