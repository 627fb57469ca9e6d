// SPDX-License-Identifier: BSD-3-Clause
// Replays a recorded session with Headscale (tests/vectors/headscale/README.md says what happened in it).
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "tailscaled/control/control.h"
#include "tailscaled/control/map_framing.h"
#include "tailscaled/control/map_session.h"
#include "tailscaled/netmap/codec.h"

namespace mesh::control {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Coding = MapFrameReader::Coding;

constexpr Time kNow{1'000'000'000};

std::string file(const std::string& name) {
    std::ifstream f(std::string(MESH_VECTORS "/headscale/") + name, std::ios::binary);
    EXPECT_TRUE(f) << name;
    std::stringstream s;
    s << f.rdbuf();
    return s.str();
}
std::string frame(const std::string& dir, int i, const char* ext) { return file(fmt::format("{}/frame-{:02}.{}", dir, i, ext)); }

WallTime wall() { return json::parse_time("2026-11-21T04:42:00Z").value(); }

std::vector<std::string> text_of(const std::vector<Prefix>& list) {
    std::vector<std::string> out;
    for (const Prefix& p : list) out.push_back(p.str());
    return out;
}

TEST(HeadscaleRecording, FramesDecompressToTheRecordedTextInAnySplit) {
    for (const auto& [dir, count] : {std::pair{"session", 15}, {"router", 5}, {"policy", 18}}) {
        std::string stream;
        std::vector<std::string> want;
        for (int i = 0; i < count; ++i) {
            stream += frame(dir, i, "bin");
            want.push_back(frame(dir, i, "json"));
        }
        for (size_t chunk : {size_t{1}, size_t{3}, size_t{17}, size_t{1000}, stream.size()}) {
            MapFrameReader reader(Coding::kZstd);
            std::vector<std::string> got;
            for (size_t at = 0; at < stream.size(); at += chunk)
                ASSERT_TRUE(reader.feed(as_bytes(std::string_view(stream).substr(at, chunk)), [&](std::string_view t) -> Status {
                    got.emplace_back(t);
                    return {};
                }));
            EXPECT_EQ(got, want) << chunk;
        }
    }
}

class Replay : public ::testing::Test {
   protected:
    explicit Replay(const char* folder = "session") : dir(folder) { session.begin_poll(kNow); }
    MapUpdate play(int i) {
        auto u = session.handle_message(frame(dir, i, "json"), wall(), kNow);
        EXPECT_TRUE(u) << i;
        return u ? std::move(*u) : MapUpdate{};
    }
    MapUpdate play_until(int last) {
        MapUpdate u;
        while (next <= last) u = play(next++);
        return u;
    }
    [[nodiscard]] netmap::NodePtr peer() const { return session.map()->peers.find(2); }
    const char* dir;
    MapSession session;
    int next = 0;
};

struct PolicyReplay : Replay {
    PolicyReplay() : Replay("policy") {}
    [[nodiscard]] const std::vector<netstack::FilterRule>& rules() const { return session.map()->filter->rules; }
};

TEST_F(Replay, TheFirstFrameIsAWholeMap) {
    const MapUpdate u = play_until(0);
    EXPECT_TRUE(u.first);
    const netmap::NetMap& m = *u.map;
    EXPECT_EQ(m.self->name, "recorder.hs.test.");
    EXPECT_EQ(m.self->address(Addr::Family::kV4).str(), "100.64.0.1");
    EXPECT_EQ(m.self->home_derp, 999);
    EXPECT_TRUE(m.self->machine_authorized);
    EXPECT_TRUE(m.has_cap("https://tailscale.com/cap/ssh"));
    EXPECT_EQ(m.magic_dns_suffix(), "hs.test");
    EXPECT_EQ(m.derp_map->regions.at(999).nodes[0].derp_port, 12345);
    EXPECT_EQ(m.dns->routes.size(), 66U);
    EXPECT_EQ(m.dns->routes.at("corp.test")[0].addr, "10.0.0.53");
    EXPECT_TRUE(m.dns->proxied);
    EXPECT_EQ(m.filter->rules.size(), 1U);
    EXPECT_EQ(m.user(1)->login_name, "alice");
    EXPECT_TRUE(m.peers.empty());
    EXPECT_EQ(m.clock_offset.ns, 0);
    EXPECT_EQ(session.skipped(), 0U);
}

TEST_F(Replay, FramesWithoutNewsGiveNoMap) {
    play_until(1);
    EXPECT_EQ(play_until(2).map, nullptr);
}

TEST_F(Replay, ANodeJoinsPollsAndIsOnline) {
    MapUpdate u = play_until(3);
    ASSERT_EQ(u.changes.added.size(), 1U);
    EXPECT_TRUE(peer()->disco_key.is_zero()) << "it has not polled yet";
    EXPECT_FALSE(u.changes.dns);
    EXPECT_FALSE(u.changes.filter);
    EXPECT_FALSE(u.changes.users);
    u = play_until(4);
    EXPECT_EQ(u.changes.changed.size(), 1U);
    EXPECT_FALSE(peer()->disco_key.is_zero());
    EXPECT_EQ(peer()->home_derp, 999);
    play_until(5);
    EXPECT_EQ(peer()->online, true);
}

TEST_F(Replay, ARouteComesAndTheNameChanges) {
    play_until(6);
    EXPECT_THAT(text_of(peer()->routes()), ElementsAre("192.168.7.0/24"));
    EXPECT_THAT(text_of(peer()->primary_routes), ElementsAre("192.168.7.0/24"));
    play_until(7);
    EXPECT_EQ(peer()->host_label(), "gateway");
}

TEST_F(Replay, TheNodeGoesAwayAndItsRouteWithIt) {
    play_until(8);
    EXPECT_EQ(peer()->online, false);
    play_until(10);
    EXPECT_TRUE(peer()->last_seen);
    EXPECT_THAT(peer()->routes(), IsEmpty());
}

TEST_F(Replay, TheNodeExpiresAndIsDeleted) {
    play_until(11);
    EXPECT_TRUE(peer()->expired);
    EXPECT_TRUE(session.map()->is_expired(*peer(), WallTime{1}));
    play_until(12);
    const MapUpdate u = play_until(13);
    EXPECT_EQ(u.changes.removed.size(), 1U);
    EXPECT_TRUE(session.map()->peers.empty());
    EXPECT_TRUE(play_until(14).keepalive);
}

TEST_F(PolicyReplay, APolicyOfPortsReplacesTheFilter) {
    play_until(6);
    ASSERT_EQ(rules().size(), 1U);
    EXPECT_TRUE(play_until(7).changes.filter);
    ASSERT_EQ(rules().size(), 1U);
    EXPECT_THAT(text_of(rules()[0].src), ElementsAre("100.64.0.1/32", "100.64.0.2/32", "fd7a:115c:a1e0::1/128", "fd7a:115c:a1e0::2/128"));
    EXPECT_EQ(rules()[0].dst.size(), 4U);
}

TEST_F(PolicyReplay, APolicyThatHidesANodeRemovesItAndEmptiesTheFilter) {
    const MapUpdate u = play_until(9);
    EXPECT_EQ(u.changes.removed.size(), 1U);
    EXPECT_TRUE(u.changes.filter);
    EXPECT_THAT(rules(), IsEmpty());
    EXPECT_EQ(peer(), nullptr);
}

TEST_F(PolicyReplay, ATaggedNodeComesBackWithoutAnOwner) {
    const MapUpdate u = play_until(10);
    EXPECT_EQ(u.changes.added.size(), 1U);
    EXPECT_THAT(peer()->tags, ElementsAre("tag:web"));
    EXPECT_EQ(session.map()->user(peer()->user)->login_name, "tagged-devices");
}

TEST_F(PolicyReplay, ARecordAnOpenPolicyAnotherRelayPortAndARoute) {
    MapUpdate u = play_until(12);
    EXPECT_TRUE(u.changes.dns);
    EXPECT_THAT(u.map->dns->extra_records, ElementsAre(netmap::DnsRecord{"grafana.hs.test", "A", "100.64.0.2"}));
    u = play_until(14);
    EXPECT_TRUE(u.changes.filter);
    ASSERT_EQ(rules().size(), 1U);
    const auto port = [this] { return session.map()->derp_map->regions.at(999).nodes[0].derp_port; };
    EXPECT_EQ(port(), 12345);
    EXPECT_TRUE(play_until(15).changes.derp_map);
    EXPECT_EQ(port(), 443);
    play_until(17);
    EXPECT_THAT(text_of(peer()->primary_routes), ElementsAre("10.20.0.0/16"));
    EXPECT_EQ(session.skipped(), 0U);
}

TEST(HeadscaleRecording, NodesAreWrittenBackWordForWord) {
    for (int i : {0, 1, 3, 4, 6, 7, 9, 10, 11}) {
        const Json message = json::parse(frame("session", i, "json")).value();
        const Json* node = json::find(message, "Node");
        if (!node) node = &json::find(message, "PeersChanged")->front();
        Json again = netmap::to_json(netmap::parse_node(*node).value());
        again.erase("ComputedName");
        again.erase("ComputedNameWithHost");
        EXPECT_EQ(json::dump(again), json::dump(*node)) << i;
    }
    const Json first = json::parse(frame("session", 0, "json")).value();
    const Json* dns = json::find(first, "DNSConfig");
    EXPECT_EQ(json::dump(netmap::to_json(netmap::parse_dns_config(*dns))), json::dump(*dns));
}

TEST(HeadscaleRecording, TheOtherNodesViewReplaysWithoutALeftover) {
    MapSession session;
    session.begin_poll(kNow);
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(session.handle_message(frame("router", i, "json"), wall(), kNow));
    EXPECT_EQ(session.skipped(), 0U);
    EXPECT_EQ(session.map()->self->host_label(), "gateway");
    EXPECT_EQ(session.map()->peers.size(), 1U);
}

TEST(HeadscaleRecording, RegisterAnswersAreUnderstood) {
    auto r = parse_register_response(file("session/register-url-1-200.json")).value();
    EXPECT_THAT(r.auth_url, ::testing::StartsWith("http://127.0.0.1:18080/register/hskey-authreq-"));
    r = parse_register_response(file("session/register-url-2-200.json")).value();
    EXPECT_TRUE(r.machine_authorized);
    EXPECT_EQ(r.user.login_name, "alice");
    EXPECT_EQ(r.error, "");
    EXPECT_TRUE(parse_register_response(file("router/register-key-1-200.json"))->machine_authorized);
    for (const char* name : {"errors/register-wrong-key-1-200.json", "errors/register-foreign-key-1-200.json"})
        EXPECT_EQ(parse_register_response(file(name))->error, "invalid pre auth key");
    EXPECT_FALSE(parse_register_response(file("errors/register-old-version-1-400.txt")));
    EXPECT_TRUE(parse_server_key(file("key.json")));
}

}  // namespace
}  // namespace mesh::control
