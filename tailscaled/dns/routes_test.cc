// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/dns/routes.h"

#include <gtest/gtest.h>

namespace mesh::dns {
namespace {

Upstream up(const std::string& text) { return *parse_upstream(text, {}); }

TEST(Routes, LongestSuffixWinsAndTheRootTakesTheRest) {
    Routes r;
    r.set("", {up("9.9.9.9")});
    r.set("Corp.Example.", {up("10.0.0.53")});
    r.set("eu.corp.example", {up("10.1.0.53:5353"), up("10.1.0.54")});
    EXPECT_EQ(r.find("www.example.org")->at(0).text, "9.9.9.9");
    EXPECT_EQ(r.find("corp.example")->at(0).at.str(), "10.0.0.53:53");
    EXPECT_EQ(r.find("a.b.corp.example")->at(0).text, "10.0.0.53");
    EXPECT_EQ(r.find("x.eu.corp.example")->at(0).at.str(), "10.1.0.53:5353");
    EXPECT_EQ(r.find("notcorp.example")->at(0).text, "9.9.9.9") << "a suffix ends at a dot";
    EXPECT_EQ(Routes().find("www.example.org"), nullptr);
}

TEST(Routes, KeepsFourServers) {
    Routes r;
    r.set("", {up("1.1.1.1"), up("1.1.1.2"), up("1.1.1.3"), up("1.1.1.4"), up("1.1.1.5")});
    EXPECT_EQ(r.find("x")->size(), Routes::kMaxUpstreams);
}

TEST(Upstream, ReadsWhatControlServersSend) {
    EXPECT_EQ(up("2001:db8::1").at.str(), "[2001:db8::1]:53");
    EXPECT_EQ(up("[2001:db8::1]:5353").at.str(), "[2001:db8::1]:5353");
    EXPECT_EQ(up("http://100.64.0.5:4001/dns-query").peer_url, "http://100.64.0.5:4001/dns-query");
    EXPECT_EQ(up("https://9.9.9.9/dns-query").at.str(), "9.9.9.9:53");
    EXPECT_EQ(up("https://[2620:fe::fe]:443/dns-query").at.str(), "[2620:fe::fe]:53");
    EXPECT_EQ(parse_upstream("https://dns.example/q", {Addr::v4(5, 6, 7, 8)})->at.str(), "5.6.7.8:53");
}

TEST(Upstream, SaysWhyOneIsNotUsed) {
    EXPECT_EQ(parse_upstream("https://dns.nextdns.io/abc", {}).error().code, Code::kUnsupported);
    EXPECT_EQ(parse_upstream("tls://1.1.1.1", {}).error().code, Code::kUnsupported);
    EXPECT_EQ(parse_upstream("", {}).error().code, Code::kUnsupported);
    for (const char* own : {"100.100.100.100", "fd7a:115c:a1e0::53", "0.0.0.0", "224.0.0.251"})
        EXPECT_EQ(parse_upstream(own, {}).error().code, Code::kInvalid) << own;
}

}  // namespace
}  // namespace mesh::dns
