// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include "base/json.h"
#include "base/random.h"
#include "tailscaled/ipn/profile.h"
#include "tailscaled/ipn/state.h"
#include "tailscaled/ipn/store.h"

namespace mesh::ipn {
namespace {

TEST(StateStore, RoundTripsAndRejectsDamage) {
    StateStore s;
    EXPECT_TRUE(s.set("_machinekey", "privkey:00"));
    EXPECT_FALSE(s.set("_machinekey", "privkey:00"));
    const auto back = StateStore::parse(s.serialize());
    ASSERT_TRUE(back);
    EXPECT_EQ(back->get("_machinekey"), "privkey:00");
    EXPECT_TRUE(StateStore::parse("{}")->empty());
    for (const char* bad : {"", "[]", "{\"a\":1}", "{\"a\":\"%\"}", "{\"a\":\"aGk=\""})
        EXPECT_FALSE(StateStore::parse(bad)) << bad;
}

/// A state file that another client of this family left, with two logins.
StateStore two_logins(Random& random) {
    api::Prefs prefs;
    prefs.hostname = "first";
    prefs.want_running = true;
    prefs.persist = api::Persist{};
    prefs.persist->private_node_key = NodePrivate::generate(random);
    prefs.persist->user_profile = {1, "alice", "Alice", ""};
    StateStore s;
    s.set("_current-profile", "profile-e9c9");
    s.set("_taildrop-received", "\x01");
    s.set("profile-e9c9", api::prefs_json(prefs, api::Secrets::kShown));
    prefs.hostname = "second";
    s.set("profile-ac2c", api::prefs_json(prefs, api::Secrets::kShown));
    s.set("_profiles",
          R"({"ac2c":{"ID":"ac2c","Name":"second","NetworkProfile":{"MagicDNSName":"m.test","DomainName":"d","DisplayName":""},"Key":"profile-ac2c",)"
          R"("UserProfile":{"ID":2,"LoginName":"bob","DisplayName":"Bob"},"NodeID":"5","LocalUserID":"","ControlURL":"http://h","Created":"2026-11-21T01:24:51Z","Later":[1]},)"
          R"("e9c9":{"ID":"e9c9","Name":"alice","NetworkProfile":{"MagicDNSName":"m.test","DomainName":"d","DisplayName":""},"Key":"profile-e9c9",)"
          R"("UserProfile":{"ID":1,"LoginName":"alice","DisplayName":"Alice"},"NodeID":"4","LocalUserID":"","ControlURL":"http://h","Created":"2026-11-21T01:24:44Z","Later":[2]}})");
    return s;
}

std::string names(const Profiles& p) {
    std::string out;
    for (const auto& l : p.all()) out += (out.empty() ? "" : " ") + l.name + (l.id == p.current().id ? "*" : "");
    return out;
}

TEST(Profiles, SeveralLoginsAreKeptAndChosen) {
    SystemRandom random;
    auto p = Profiles::load(two_logins(random), random);
    ASSERT_TRUE(p) << p.error().message();
    EXPECT_EQ(names(*p), "alice* second");
    EXPECT_EQ(p->prefs().hostname, "first");
    // Any change of the current one leaves the other, and what a later client wrote there, as it is.
    api::Prefs prefs = p->prefs();
    prefs.hostname = "renamed";
    p->set_prefs(prefs, random, WallTime{1});
    EXPECT_EQ(names(*p), "alice* second");
    const auto stored = [&](const char* id) { return json::parse(*p->store().get("_profiles")).value()[id]; };
    EXPECT_EQ(stored("ac2c")["Later"], Json::array({1}));
    EXPECT_EQ(stored("e9c9")["Later"], Json::array({2}));
    EXPECT_EQ(stored("e9c9")["NetworkProfile"]["DomainName"], "d");
    const DiscoPublic disco = p->disco_key().public_key();
    EXPECT_TRUE(p->select("e9c9", random)) << "already there";
    EXPECT_EQ(p->disco_key().public_key(), disco);
    ASSERT_TRUE(p->select("ac2c", random));
    EXPECT_EQ(names(*p), "alice second*");
    EXPECT_EQ(p->prefs().hostname, "second");
    EXPECT_EQ(p->store().get("_current-profile"), "profile-ac2c");
    EXPECT_NE(p->disco_key().public_key(), disco) << "another node for everybody else";
    EXPECT_FALSE(p->select("nosuch", random));
    // It is still so after a restart, and back again nothing is lost.
    auto again = Profiles::load(StateStore::parse(p->store().serialize()).value(), random);
    ASSERT_TRUE(again);
    EXPECT_EQ(names(*again), "alice second*");
    ASSERT_TRUE(again->select("e9c9", random));
    EXPECT_EQ(again->prefs().hostname, "renamed");
    EXPECT_TRUE(again->has_node_key());
    EXPECT_EQ(again->store().get("_taildrop-received"), "\x01");
}

TEST(Profiles, ALogoutTakesOneAndALoginAddsOne) {
    SystemRandom random;
    auto p = Profiles::load(two_logins(random), random);
    ASSERT_TRUE(p);
    p->begin_another(random);
    EXPECT_EQ(names(*p), "alice second");
    EXPECT_FALSE(p->has_node_key());
    EXPECT_EQ(p->prefs().hostname, "");
    api::Prefs prefs;
    prefs.hostname = "third";
    p->set_prefs(prefs, random, WallTime{1});
    EXPECT_EQ(p->all().size(), 3U);
    ASSERT_TRUE(p->select("e9c9", random));
    EXPECT_EQ(names(*p), "alice* second") << "nobody logged in with the third";
    p->forget_login(random);
    EXPECT_EQ(names(*p), "second");
    EXPECT_FALSE(p->store().get("profile-e9c9"));
    EXPECT_FALSE(p->store().get("_current-profile"));
    p->remove("ac2c");
    p->remove("ac2c");
    EXPECT_EQ(names(*p), "");
    EXPECT_FALSE(p->store().get("profile-ac2c"));
}

TEST(State, FirstLoginWalksThroughTheStatesOfTheOriginal) {
    StateInputs in{.want_running = true, .login_needs_human = true};
    EXPECT_EQ(next_state(in), State::kNeedsLogin);
    in.current = State::kNeedsLogin;
    in.login_needs_human = false;
    in.has_node_key = true;
    in.has_netmap = true;
    EXPECT_EQ(next_state(in), State::kStarting);
    in.current = State::kStarting;
    EXPECT_EQ(next_state(in), State::kStarting);
    in.connected = true;
    EXPECT_EQ(next_state(in), State::kRunning);
    in.current = State::kRunning;
    in.connected = false;
    EXPECT_EQ(next_state(in), State::kRunning);
    in.self_expired = true;
    EXPECT_EQ(next_state(in), State::kNeedsLogin);
}

TEST(State, DownAndLogoutAndApproval) {
    StateInputs in{.current = State::kRunning, .want_running = false, .has_node_key = true, .has_netmap = true};
    EXPECT_EQ(next_state(in), State::kStopped);
    in.logged_out = true;
    in.has_netmap = false;
    in.has_node_key = false;
    EXPECT_EQ(next_state(in), State::kNeedsLogin);
    in = {.current = State::kStarting, .want_running = true, .has_node_key = true, .has_netmap = true, .machine_authorized = false};
    EXPECT_EQ(next_state(in), State::kNeedsMachineAuth);
}

TEST(State, RestartOfAKnownNodeStarts) {
    const StateInputs in{.want_running = true, .has_node_key = true};
    EXPECT_EQ(next_state(in), State::kStarting);
}

}  // namespace
}  // namespace mesh::ipn
