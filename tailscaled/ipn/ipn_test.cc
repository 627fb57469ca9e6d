// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

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
