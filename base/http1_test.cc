// SPDX-License-Identifier: BSD-3-Clause
#include "base/http1.h"

#include <gtest/gtest.h>

namespace mesh::http1 {
namespace {

TEST(Http1, RequestParsesAtEverySplitPoint) {
    const std::string text =
        "POST /localapi/v0/start?x=a%3Ab HTTP/1.1\r\nHost: local-tailscaled.sock\r\nTransfer-Encoding: chunked\r\n\r\n"
        "5\r\nhello\r\n0\r\n\r\nNEXT";
    for (size_t cut = 0; cut <= text.size(); ++cut) {
        Parser p(Role::kRequests, 1024);
        size_t used = *p.feed(as_bytes(text).first(cut));
        if (!p.done()) {
            ASSERT_EQ(used, cut);
            used += *p.feed(as_bytes(text).subspan(cut));
        }
        ASSERT_TRUE(p.done()) << cut;
        EXPECT_EQ(text.substr(used).substr(0, 4), "NEXT") << cut;
        const Request r = p.take_request();
        EXPECT_EQ(r.method, "POST");
        EXPECT_EQ(r.header("host"), "local-tailscaled.sock");
        EXPECT_EQ(r.body, "hello");
    }
}

TEST(Http1, UpgradeResponseLeavesTheRestUntouched) {
    const std::string text = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n\x01\x02";
    for (size_t cut = 0; cut < text.size(); ++cut) {
        Parser p(Role::kResponses, 1024);
        size_t used = *p.feed(as_bytes(text).first(cut));
        if (!p.done()) used += *p.feed(as_bytes(text).subspan(cut));
        ASSERT_TRUE(p.done());
        EXPECT_EQ(used, text.size() - 2) << cut;
        EXPECT_EQ(p.take_response().status, 101U);
    }
}

TEST(Http1, StreamedBodyIsTakenPieceByPiece) {
    Parser p(Role::kResponses, 1 << 20);
    ASSERT_TRUE(p.feed(as_bytes("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")));
    EXPECT_TRUE(p.headers_done());
    EXPECT_EQ(p.take_body(), "abc");
    ASSERT_TRUE(p.feed(as_bytes("2\r\nde\r\n")));
    EXPECT_EQ(p.take_body(), "de");
    EXPECT_FALSE(p.done());
}

TEST(Http1, LimitsAndGarbageAreErrors) {
    Parser big(Role::kRequests, 4);
    EXPECT_FALSE(big.feed(as_bytes("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello")));
    Parser junk(Role::kRequests, 4);
    EXPECT_FALSE(junk.feed(as_bytes(std::string_view("\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 11))));
    Parser endless(Role::kRequests, 4);
    bool failed = false;
    for (int i = 0; i < 4000 && !failed; ++i) failed = !endless.feed(as_bytes(i == 0 ? "GET / HTTP/1.1\r\nA: " : "aaaaaaaaaaaa"));
    EXPECT_TRUE(failed);
}

TEST(Http1, UrlsOfSelfHosters) {
    const auto a = parse_url("http://192.168.1.5:8080");
    ASSERT_TRUE(a);
    EXPECT_EQ(a->port, 8080);
    EXPECT_EQ(a->authority(), "192.168.1.5:8080");
    EXPECT_EQ(parse_url("https://[2001:db8::1]:30000/x")->authority(), "[2001:db8::1]:30000");
    EXPECT_EQ(parse_url("HTTPS://hs.example.com/")->authority(), "hs.example.com");
    for (const char* bad : {"hs.example.com", "ftp://x", "http://", "http://h:0", "http://h:70000", "http://u@h", "http://h\n"})
        EXPECT_FALSE(parse_url(bad)) << bad;
}

TEST(Http1, HeaderValuesCannotInjectLines) {
    Response r;
    r.headers = {{"X", "a\r\nEvil: 1"}};
    EXPECT_EQ(serialize(r).find("\r\nEvil"), std::string::npos);
}

TEST(Http1, TargetsDecode) {
    const auto t = parse_target("/localapi/v0/whois?addr=nodekey%3Aab&proto=tcp");
    ASSERT_TRUE(t);
    EXPECT_EQ(t->path, "/localapi/v0/whois");
    EXPECT_EQ(*t->param("addr"), "nodekey:ab");
    EXPECT_FALSE(parse_target("/x?a=%zz"));
}

}  // namespace
}  // namespace mesh::http1
