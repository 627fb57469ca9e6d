// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/proxy_handshake.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace mesh::netstack {
namespace {

using Step = ProxyHandshake::Step;
using namespace std::string_literals;

Step feed(ProxyHandshake& p, std::string_view text) { return p.feed(as_bytes(text)); }

TEST(ProxyHandshake, SocksConnect) {
    struct Case {
        std::string address;
        std::string host;
    };
    for (const Case& c : {Case{"\x01\x64\x40\x00\x05"s, "100.64.0.5"}, Case{"\x03\x01" "b"s, "b"},
                          Case{"\x04\xfd\x7a\x11\x5c\xa1\xe0\0\0\0\0\0\0\0\0\0\x05"s, "fd7a:115c:a1e0::5"}}) {
        ProxyHandshake p(true, true);
        const std::string all = "\x05\x02\x02\x00\x05\x01\x00"s + c.address + "\x1f\x90" + "early";
        // Byte by byte: nothing depends on how the network cuts it.
        Step step = Step::kMore;
        size_t used = 0;
        while (step == Step::kMore && used < all.size()) step = feed(p, all.substr(used++, 1));
        ASSERT_EQ(step, Step::kConnect);
        EXPECT_EQ(used, all.size() - 5);
        EXPECT_EQ(p.take_reply(), "\x05\x00"s);
        EXPECT_EQ(p.host(), c.host);
        EXPECT_EQ(p.port(), 8080);
        EXPECT_EQ(p.greeting(), "\x05\x00\x00\x01\0\0\0\0\0\0"s);
        EXPECT_EQ(p.refusal({Code::kUnavailable, 0, ""})[1], '\x05');
        EXPECT_EQ(p.refusal({Code::kTimeout, 0, ""})[1], '\x04');
        ProxyHandshake at_once(true, false);
        EXPECT_EQ(feed(at_once, all), Step::kConnect);
        EXPECT_EQ(at_once.take_first(), "early");
    }
}

TEST(ProxyHandshake, SocksRefusals) {
    const std::pair<std::string, std::string> cases[] = {
        {"\x05\x01\x02"s, "\x05\xff"s},                                                // wants a password
        {"\x05\x01\x00\x05\x02\x00\x01\x01\x01\x01\x01\x00\x50"s, "\x05\x00\x05\x07"s},  // BIND
        {"\x05\x01\x00\x05\x01\x00\x09\x01\x01\x01\x01\x00\x50"s, "\x05\x00\x05\x08"s},  // an address of no kind
        {"\x05\x01\x00\x05\x01\x00\x03\x00\x00\x50"s, "\x05\x00\x05\x08"s},              // an empty name
        {"\x05\x01\x00\x05\x01\x00\x01\x01\x01\x01\x01\x00\x00"s, "\x05\x00\x05\x01"s},  // port 0
    };
    for (const auto& [said, reply] : cases) {
        ProxyHandshake p(true, true);
        EXPECT_EQ(feed(p, said), Step::kRefused) << hex_encode(as_bytes(said));
        EXPECT_EQ(p.take_reply().substr(0, reply.size()), reply) << hex_encode(as_bytes(said));
    }
    ProxyHandshake http_only(false, true);
    EXPECT_EQ(feed(http_only, "\x05\x01\x00"s), Step::kRefused);
    ProxyHandshake socks_only(true, false);
    EXPECT_EQ(feed(socks_only, "GET / HTTP/1.1\r\n\r\n"), Step::kRefused);
}

TEST(ProxyHandshake, SocksAssociate) {
    ProxyHandshake p(true, false);
    EXPECT_EQ(feed(p, "\x05\x01\x00\x05\x03\x00\x01\0\0\0\0\0\0"s), Step::kAssociate);
    EXPECT_EQ(socks_associated(*Endpoint::parse("127.0.0.1:8080")), "\x05\x00\x00\x01\x7f\x00\x00\x01\x1f\x90"s);
    for (const char* from : {"100.64.0.5:53", "[fd7a:115c:a1e0::5]:65535"}) {
        const Bytes wrapped = socks_datagram(*Endpoint::parse(from), as_bytes("hi"));
        const auto back = parse_socks_datagram(wrapped);
        ASSERT_TRUE(back) << from;
        EXPECT_EQ((Endpoint{*Addr::parse(back->host), back->port}), *Endpoint::parse(from));
        EXPECT_EQ(as_text(back->payload), "hi");
        for (size_t n = 0; n + 2 < wrapped.size(); ++n) EXPECT_FALSE(parse_socks_datagram(ByteSpan(wrapped).first(n))) << n;
    }
    EXPECT_EQ(parse_socks_datagram(as_bytes("\0\0\0\x03\x01" "b\0\x35"s))->host, "b");
    EXPECT_FALSE(parse_socks_datagram(as_bytes("\0\0\x01\x03\x01" "b\0\x35"s))) << "fragments are nobody's friends";
    EXPECT_FALSE(parse_socks_datagram(as_bytes("\0\0\0\x03\x01" "b\0\0"s)));
}

TEST(ProxyHandshake, HttpConnect) {
    ProxyHandshake p(true, true);
    EXPECT_EQ(feed(p, "CONNECT [fd7a:115c:a1e0::5]:443 HT"), Step::kMore);
    EXPECT_EQ(feed(p, "TP/1.1\r\nHost: x\r\n\r\n\x16\x03"), Step::kConnect);
    EXPECT_EQ(p.host(), "fd7a:115c:a1e0::5");
    EXPECT_EQ(p.port(), 443);
    EXPECT_EQ(p.take_first(), "\x16\x03");
    EXPECT_EQ(p.greeting(), "HTTP/1.1 200 OK\r\n\r\n");
    const std::string no = p.refusal({Code::kUnavailable, 0, "refused\r\nX: y"});
    EXPECT_TRUE(no.starts_with("HTTP/1.1 502 Bad Gateway\r\nTailscale-Connect-Error: refused  X: y\r\n")) << no;
}

TEST(ProxyHandshake, HttpAbsolute) {
    ProxyHandshake p(false, true);
    EXPECT_EQ(feed(p, "POST http://b:8077/a?b=c HTTP/1.1\r\nHost: b:8077\r\nPROXY-Connection: keep-alive\r\nConnection: keep-alive\r\n"
                      "Content-Length: 2\r\n\r\nhi"), Step::kConnect);
    EXPECT_EQ(p.host(), "b");
    EXPECT_EQ(p.port(), 8077);
    EXPECT_EQ(p.take_first(), "POST /a?b=c HTTP/1.1\r\nHost: b:8077\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
    EXPECT_EQ(p.greeting(), "");
}

TEST(ProxyHandshake, HttpRefusals) {
    for (const char* said : {"GET / HTTP/1.1\r\n\r\n", "CONNECT b HTTP/1.1\r\n\r\n", "CONNECT :80 HTTP/1.1\r\n\r\n", "CONNECT b:0 HTTP/1.1\r\n\r\n",
                             "GET https://b/ HTTP/1.1\r\n\r\n", "nonsense\r\n\r\n", "GET http://b/ HTTP/2.0\r\n\r\n"}) {
        ProxyHandshake p(true, true);
        EXPECT_EQ(feed(p, said), Step::kRefused) << said;
        EXPECT_TRUE(p.take_reply().starts_with("HTTP/1.1 400 ")) << said;
    }
    ProxyHandshake endless(true, true);
    Step step = Step::kMore;
    for (size_t i = 0; i < 100 && step == Step::kMore; ++i) step = feed(endless, std::string(1024, 'x'));
    EXPECT_EQ(step, Step::kRefused);
}

TEST(ProxyHandshake, Junk) {
    SeededRandom random(1);
    for (int i = 0; i < 20'000; ++i) {
        ProxyHandshake p(true, true);
        std::string text = i % 2 == 0 ? "\x05\x01\x00\x05\x01\x00"s : "GET http://"s;
        Bytes noise(random.below(60));
        random.fill(noise);
        text += as_text(noise);
        if (i % 3 == 0) text += " HTTP/1.1\r\n\r\n";
        const Step step = feed(p, text);
        if (step == Step::kConnect) {
            EXPECT_FALSE(p.host().empty());
            EXPECT_NE(p.port(), 0);
        }
    }
}

}  // namespace
}  // namespace mesh::netstack
