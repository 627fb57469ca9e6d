// SPDX-License-Identifier: BSD-3-Clause
#include "derper/options.h"

#include <gtest/gtest.h>

#include <cmath>

namespace mesh::derper {
namespace {

std::string error_of(const std::vector<std::string>& args) {
    const auto r = parse_options(args);
    return r ? "" : r.error().message();
}

TEST(Options, DefaultsAreThoseOfTheOriginal) {
    const Options o = *parse_options({});
    EXPECT_EQ(o.listen, ":443");
    EXPECT_EQ(o.http_port, 80);
    EXPECT_EQ(o.stun_port, 3478);
    EXPECT_TRUE(o.stun);
    EXPECT_FALSE(o.verify_clients);
    EXPECT_EQ(o.write_timeout, seconds(2));
    EXPECT_FALSE(o.verify_url_fail_open);  // closed, where the original's is open
    EXPECT_TRUE(std::isinf(parse_options({"-accept-connection-limit", "+Inf"})->accept_limit));
    EXPECT_NE(usage("derper").find("-accept-connection-burst int\n    \thow many connections may come at once above the limit (default "
                                   "20000)"), std::string::npos);
}

TEST(Options, OneOrTwoDashesAndBothWaysToGiveAValue) {
    const Options o = *parse_options({"-a", ":8443", "--http-port=-1", "-hostname=10.0.0.1", "--certmode", "manual",
                                      "-stun=false", "--verify-clients", "-c", "/k", "-stun-port", "1"});
    EXPECT_EQ(o.listen, ":8443");
    EXPECT_EQ(o.http_port, -1);
    EXPECT_EQ(o.hostname, "10.0.0.1");
    EXPECT_EQ(o.cert_mode, "manual");
    EXPECT_FALSE(o.stun);
    EXPECT_TRUE(o.verify_clients);
    EXPECT_EQ(o.config_path, "/k");
    EXPECT_EQ(o.stun_port, 1);
}

TEST(Options, MistakesAreNamed) {
    EXPECT_EQ(error_of({"-nope"}), "flag provided but not defined: -nope");
    EXPECT_EQ(error_of({"-verify-client"}), "flag provided but not defined: -verify-client (did you mean -verify-clients?)");
    EXPECT_EQ(error_of({"-a"}), "flag needs an argument: -a");
    EXPECT_EQ(error_of({"-stun=maybe"}), "invalid boolean value \"maybe\" for -stun: parse error");
    EXPECT_EQ(error_of({"-http-port", "x"}), "invalid value \"x\" for flag -http-port: parse error");
    EXPECT_EQ(error_of({"-tcp-write-timeout", "5"}), "invalid value \"5\" for flag -tcp-write-timeout: parse error: write -tcp-write-timeout 5s");
    EXPECT_EQ(error_of({"word"}), "unexpected argument \"word\"");
    EXPECT_EQ(error_of({"---a"}), "bad flag syntax: ---a");
    EXPECT_NE(error_of({"-stun-port", "70000"}), "");
    EXPECT_TRUE(parse_options({"-h"})->help);
    EXPECT_NE(usage("derper").find("  -stun-port int\n"), std::string::npos);
}

TEST(Options, LoopsFollowTheCoresFromThreeOnAndAreBounded) {
    EXPECT_EQ(loops_for(1), 1U);
    EXPECT_EQ(loops_for(2), 1U);
    EXPECT_EQ(loops_for(3), 3U);
    EXPECT_EQ(loops_for(500), 64U);
    EXPECT_EQ(parse_options({"-threads", "2"})->threads, 2);
    EXPECT_FALSE(parse_options({"-threads=65"}));
    EXPECT_FALSE(parse_options({"-threads=-1"}));
}

TEST(Options, ListenAddresses) {
    EXPECT_EQ(parse_listen(":443")->port, 443);
    EXPECT_FALSE(parse_listen(":443")->addr.is_valid());
    EXPECT_FALSE(parse_listen("0.0.0.0:1")->addr.is_valid());
    EXPECT_EQ(parse_listen("[::1]:8443")->addr.str(), "::1");
    EXPECT_FALSE(parse_listen("host:443"));
    EXPECT_FALSE(parse_listen(":x"));
    EXPECT_FALSE(parse_listen(""));
}

TEST(Options, SlipsGetTheCorrection) {
    const auto has = [](const std::vector<std::string>& args, const std::string& hint) {
        const std::string e = error_of(args);
        EXPECT_NE(e.find(hint), std::string::npos) << e;
    };
    has({"-a=12345"}, "a port alone needs a colon, write -a :12345");
    has({"-a", "0.0.0.0"}, "write -a 0.0.0.0:443");
    has({"-a", "2001:db8::1"}, "write -a [2001:db8::1]:443");
    has({"-a", "https://derp.example.com"}, "not a URL");
    has({"-a", "derp.example.com:443"}, "write -a :443");
    has({"-stun-port", ":3478"}, "write -stun-port 3478");
    has({"-stun", "true"}, "write -stun=true");
    has({"-verify-clients", "true"}, "write -verify-clients=true");
    has({"-hostname", "https://derp.example.com/"}, "write -hostname derp.example.com");
    has({"-hostname", "derp.example.com:8443"}, "write -hostname derp.example.com -a :8443");
    has({"-home", "example.com"}, "-home must be");
    has({"-verify-client-url", "localhost:80"}, "no http:// or https:// URL");
    has({"-mesh-with", "a.example"}, "-mesh-with needs -mesh-psk-file");
    has({"-bootstrap-dns-names", "a.example, b.example"}, "\" b.example\" is no host name");
    has({"-unpublished-bootstrap-dns-names", "a.example/txt.example"}, "write a.example");
    has({"-trusted-proxies", "10.0.0.0/8,x"}, "\"x\" is no IP address");
    has({"-tcp-write-timeout", "2"}, "invalid value \"2\" for flag -tcp-write-timeout");
}

TEST(Options, ModesThatNeedAnAcmeClientAreRefusedWithTheAlternative) {
    for (const char* mode : {"letsencrypt", "gcp"}) {
        const std::string e = error_of({"-hostname", "derp.example.com", "-certmode", mode});
        EXPECT_NE(e.find("is not built in"), std::string::npos) << e;
        EXPECT_NE(e.find("-certmode manual"), std::string::npos) << e;
        EXPECT_EQ(e.find('\n'), std::string::npos);
    }
    EXPECT_NE(error_of({"-hostname", "derp.example.com"}).find("fullchain.pem"), std::string::npos);
    EXPECT_NE(error_of({"-certmode", "auto"}).find("use manual, self-signed or off"), std::string::npos);
}

TEST(Options, WhatKindOfSecurityFollowsFromNameAndPort) {
    const auto of = [](const std::vector<std::string>& args) { return *choose_security(*parse_options(args)); };
    EXPECT_EQ(of({}), Security::kSelfSigned);
    EXPECT_EQ(of({"-hostname", "203.0.113.5"}), Security::kSelfSigned);
    EXPECT_EQ(of({"-a", "127.0.0.1:443"}), Security::kSelfSigned);
    EXPECT_EQ(of({"-a", ":12345", "-certmode", "self-signed"}), Security::kSelfSigned);
    EXPECT_EQ(of({"-a", ":12345", "-certmode", "manual", "-hostname", "203.0.113.5"}), Security::kFiles);
    EXPECT_EQ(of({"-hostname", "203.0.113.5", "-certmode", "manual"}), Security::kFiles);
    EXPECT_EQ(of({"-hostname", "derp.example.com", "-certmode", "manual"}), Security::kFiles);
    // As the original: what people run behind Caddy or Traefik goes on working there.
    EXPECT_EQ(of({"-a", ":3340", "-http-port", "-1"}), Security::kPlain);
    EXPECT_EQ(of({"-hostname", "derp.example.com", "-a", ":8080"}), Security::kPlain);
    EXPECT_EQ(of({"-hostname", "203.0.113.5", "-a", ":8080"}), Security::kPlain);
    EXPECT_EQ(of({"-hostname", "derp.example.com", "-a", ":8080", "-certmode", "letsencrypt"}), Security::kPlain);
    EXPECT_EQ(of({"-certmode", "off"}), Security::kPlain);
    EXPECT_EQ(of({"-dev"}), Security::kPlain);
}

TEST(Options, FlagsOfTheOriginalWithoutEffectAreTakenAndRemembered) {
    const Options o = *parse_options({"-acme-email", "a@example.com", "-ace", "-secrets-url=x", "-ace=false"});
    EXPECT_EQ(o.inert, (std::vector<std::string>{"acme-email", "ace", "secrets-url"}));
}

TEST(Options, DurationsAsGoWritesThem) {
    EXPECT_EQ(parse_duration("2s"), seconds(2));
    EXPECT_EQ(parse_duration("1m30s"), seconds(90));
    EXPECT_EQ(parse_duration("500ms"), milliseconds(500));
    EXPECT_EQ(parse_duration("1.5h"), minutes(90));
    EXPECT_EQ(parse_duration("0"), seconds(0));
    for (const char* wrong : {"", "s", "2", "-1s", "1x", "1s2", "1e30h"}) EXPECT_FALSE(parse_duration(wrong)) << wrong;
}

TEST(Options, KeyFilesReadBack) {
    SeededRandom random(1);
    const NodePrivate key = NodePrivate::generate(random);
    EXPECT_EQ(*parse_key_file(key_file_text(key)), key);
    EXPECT_FALSE(parse_key_file("{}"));
    EXPECT_FALSE(parse_key_file("not json"));
    EXPECT_FALSE(parse_key_file("{\"PrivateKey\":\"privkey:00\"}"));
}

}  // namespace
}  // namespace mesh::derper
