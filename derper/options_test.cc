// SPDX-License-Identifier: BSD-3-Clause
#include "derper/options.h"

#include <gtest/gtest.h>

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
    EXPECT_EQ(o.cert_mode, "letsencrypt");
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
    EXPECT_EQ(error_of({"-a"}), "flag needs an argument: -a");
    EXPECT_EQ(error_of({"-stun=maybe"}), "invalid boolean value \"maybe\" for -stun: parse error");
    EXPECT_EQ(error_of({"-http-port", "x"}), "invalid value \"x\" for flag -http-port: parse error");
    EXPECT_EQ(error_of({"word"}), "unexpected argument \"word\"");
    EXPECT_EQ(error_of({"---a"}), "bad flag syntax: ---a");
    EXPECT_NE(error_of({"-stun-port", "70000"}), "");
    EXPECT_TRUE(parse_options({"-h"})->help);
    EXPECT_NE(usage("derper").find("  -stun-port int\n"), std::string::npos);
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
