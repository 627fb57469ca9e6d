// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include "base/crypto/crypto.h"
#include "tailscaled/flags.h"
#include "tailscaled/ipn/profile.h"
#include "tailscaled/network_plan.h"

namespace mesh::daemon {
namespace {

TEST(Flags, AcceptTheOriginalsSpellings) {
    const auto f = parse_flags({"-tun", "ts1", "--port=41641", "--state=/x/s", "-socket=/run/s", "--no-logs-no-support", "--verbose", "2"}, "7", "");
    ASSERT_TRUE(f);
    EXPECT_EQ(f->tun, "ts1");
    EXPECT_EQ(f->port, 41641);
    EXPECT_EQ(f->verbose, 2);
    EXPECT_EQ(f->state_path(), "/x/s");
    EXPECT_EQ(f->state_folder(), "");
    EXPECT_EQ(parse_flags({}, "41641", "")->port, 41641);
    EXPECT_EQ(parse_flags({"--statedir=/d"}, "", "")->state_path(), "/d/tailscaled.state");
    EXPECT_EQ(parse_flags({}, "", "")->state_folder(), "/var/lib/tailscale");
}

TEST(Flags, RefuseWithOneClearLine) {
    EXPECT_EQ(parse_flags({"-nosuch"}, "", "").error().context, "flag provided but not defined: -nosuch");
    EXPECT_EQ(parse_flags({"stray"}, "", "").error().context, "tailscaled does not take non-flag arguments: [\"stray\"]");
    EXPECT_EQ(parse_flags({"--tun=userspace-networking"}, "", "").error().code, Code::kUnsupported);
    for (const char* bad : {"--port=70000", "--port=x", "--port", "--tun=averyveryverylongname", "--cleanup=maybe"})
        EXPECT_FALSE(parse_flags({bad}, "", "")) << bad;
}

TEST(PeerIds, AKeyChangeIsAnotherPeer) {
    PeerIds ids;
    SeededRandom random(1);
    const auto a = NodePrivate::generate(random).public_key(), b = NodePrivate::generate(random).public_key();
    const PeerId first = ids.assign(7, a);
    EXPECT_EQ(ids.assign(7, a), first);
    EXPECT_NE(ids.assign(8, b), first);
    EXPECT_EQ(ids.find(9), kNoPeer);
    ids.release(7);
    EXPECT_EQ(ids.find(7), kNoPeer);
}

TEST(Profiles, IdentitySurvivesARestartAndStampsNeverGoBack) {
    SeededRandom random(3);
    auto p = *ipn::Profiles::load({}, random);
    api::Prefs prefs;
    prefs.want_running = true;
    prefs.persist.emplace();
    prefs.persist->private_node_key = NodePrivate::generate(random);
    p.set_prefs(prefs, random, WallTime{1});
    EXPECT_TRUE(p.note_timestamp(seconds(1000).ns, false));
    EXPECT_FALSE(p.note_timestamp(seconds(1200).ns, false));  // within the stride: no write

    const auto store = ipn::StateStore::parse(p.store().serialize());
    ASSERT_TRUE(store);
    auto q = *ipn::Profiles::load(*store, random);
    EXPECT_EQ(q.machine_key(), p.machine_key());
    EXPECT_EQ(q.disco_key(), p.disco_key());
    EXPECT_EQ(q.prefs().persist->private_node_key, prefs.persist->private_node_key);
    EXPECT_GE(q.timestamp_floor(WallTime{seconds(10).ns}), seconds(1200).ns);
    q.note_timestamp(seconds(1300).ns, true);
    EXPECT_EQ(q.timestamp_floor(WallTime{seconds(10).ns}), seconds(1300).ns);

    const DiscoPrivate before = q.disco_key();
    q.forget_login(random);
    EXPECT_FALSE(q.has_node_key());
    EXPECT_EQ(q.machine_key(), p.machine_key());
    EXPECT_FALSE(q.disco_key() == before);
}

TEST(Profiles, ADamagedIdentityIsNeverReplaced) {
    SeededRandom random(3);
    ipn::StateStore store;
    store.set("_machinekey", "privkey:zz");
    EXPECT_FALSE(ipn::Profiles::load(std::move(store), random));
}

}  // namespace
}  // namespace mesh::daemon
