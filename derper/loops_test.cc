// SPDX-License-Identifier: BSD-3-Clause
// What only a relay with several loops can get wrong, over real sockets. What it shares with one of a single loop is tested
// with both in server_test.cc and mesh_test.cc.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "derper/test_support.h"

namespace mesh::derper {
namespace {

constexpr size_t kLoops = 4;

class DerperLoops : public ::testing::Test {
   protected:
    void SetUp() override { Lab::loops = kLoops; }
    void TearDown() override { Lab::loops = 1; }
};

Bytes disco_packet() {
    Bytes p = {'T', 'S', 0xf0, 0x9f, 0x92, 0xac};
    p.resize(80, 1);
    return p;
}

/// Enough clients that every loop has some; connected.
std::vector<std::unique_ptr<Client>> crowd(Lab& lab, size_t count) {
    std::vector<std::unique_ptr<Client>> out;
    for (size_t i = 0; i < count; ++i) {
        out.push_back(std::make_unique<Client>(lab.loop));
        out.back()->start(connect_loopback(lab.server->port()));
    }
    EXPECT_TRUE(lab.until([&] { return std::all_of(out.begin(), out.end(), [](const auto& c) { return c->session.connected(); }); }));
    return out;
}

TEST_F(DerperLoops, EverybodyReachesEverybodyInOrderAndHearsWhoLeaves) {
    Lab lab;
    auto all = crowd(lab, 12);
    for (uint8_t round = 0; round < 5; ++round)
        for (const auto& from : all)
            for (const auto& to : all) from->send(to->key.public_key(), Bytes(100, round));
    ASSERT_TRUE(lab.until([&] { return std::all_of(all.begin(), all.end(), [](const auto& c) { return c->packets.size() == 5 * 12; }); }));
    for (const auto& c : all) {
        std::map<NodePublic, uint8_t> next;
        for (size_t i = 0; i < c->packets.size(); ++i) EXPECT_EQ(c->packets[i][0], next[c->sources[i]]++) << "in order from each";
    }
    EXPECT_EQ(lab.server->stats().packets_out, 5U * 12 * 12);
    const NodePublic key = all.back()->key.public_key();
    all.pop_back();
    ASSERT_TRUE(lab.until([&] { return std::all_of(all.begin(), all.end(), [](const auto& c) { return !c->gone.empty(); }); }));
    for (const auto& c : all) EXPECT_EQ(c->gone, std::vector<NodePublic>{key});
}

TEST_F(DerperLoops, WhatComesInOneWriteWithTheLoginIsNotLost) {
    Lab lab;
    auto there = crowd(lab, 1);
    Client& to = *there[0];
    for (uint32_t i = 0; i < 16; ++i) {  // some of them live on other loops than the front
        // The whole stream of a client that knows the server's key, head and login and packets, written as one.
        const NodePrivate key = NodePrivate::generate(lab.random);
        std::string head = "GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nDerp-Fast-Start: 1\r\n\r\n";
        Bytes out(head.begin(), head.end());
        derp::ClientInfo info;
        info.version = 2;
        derp::append_frame(out, derp::FrameType::kClientInfo, *derp::seal_client_info(info, key, lab.key.public_key(), lab.random));
        for (uint8_t n = 0; n < 50; ++n)
            derp::append_frame(out, derp::FrameType::kSendPacket, to.key.public_key().bytes(), Bytes(1000, n));
        const size_t half = out.size() - 700;  // the last frame in two
        Raw raw;
        raw.connect(lab.loop, lab.server->port());
        raw.stream.write(ByteSpan(out).first(half));
        const size_t before = to.packets.size();
        ASSERT_TRUE(lab.until([&] { return to.packets.size() == before + 49; })) << to.packets.size() - before;
        raw.stream.write(ByteSpan(out).subspan(half));
        ASSERT_TRUE(lab.until([&] { return to.packets.size() == before + 50; }));
        for (uint8_t n = 0; n < 50; ++n) EXPECT_EQ(to.packets[before + n][0], n);
        EXPECT_EQ(to.sources.back(), key.public_key());
    }
}

TEST_F(DerperLoops, WhoIsNotHereIsAnsweredAcrossLoops) {
    Lab lab;
    auto all = crowd(lab, 4);
    // Keys of nobody, at home on every loop.
    for (const auto& c : all)
        for (int i = 0; i < 3; ++i) c->send(NodePrivate::generate(lab.random).public_key(), disco_packet());
    ASSERT_TRUE(lab.until([&] { return std::all_of(all.begin(), all.end(), [](const auto& c) { return c->gone.size() == 3; }); }));
    EXPECT_EQ(lab.server->stats().gone_not_here, 12U);
}

TEST_F(DerperLoops, WhoSendsMoreThanAnotherLoopCanTakeIsReadMoreSlowly) {
    Lab lab({}, seconds(5), [](Server::Config& c) { c.rate = {}; });
    auto all = crowd(lab, 8);
    // All of them flood each other while their own side reads as fast as this one thread can: nothing may stop for good.
    constexpr int kRounds = 60;
    for (int i = 0; i < kRounds; ++i) {
        for (size_t k = 0; k < all.size(); ++k)
            for (int n = 0; n < 4; ++n) all[k]->send(all[(k + 1) % all.size()]->key.public_key(), Bytes(30000, 1));
        lab.loop.run_once(false);
    }
    ASSERT_TRUE(lab.until([&] { return std::all_of(all.begin(), all.end(), [](const auto& c) { return c->session.queued_bytes() == 0; }); }));
    for (const auto& c : all) c->packets.clear();
    for (size_t k = 0; k < all.size(); ++k) all[k]->send(all[(k + 1) % all.size()]->key.public_key(), Bytes(10, 9));
    EXPECT_TRUE(lab.until([&] {
        return std::all_of(all.begin(), all.end(), [](const auto& c) { return !c->packets.empty() && c->packets.back() == Bytes(10, 9); });
    })) << "everybody is still read";
}

TEST_F(DerperLoops, ACrowdThatComesAndGoesIsCountedToZero) {
    Lab lab;
    auto stays = crowd(lab, 2);
    for (int round = 0; round < 6; ++round) {
        auto all = crowd(lab, 20);
        const uint64_t before = lab.server->stats().packets_in;
        for (size_t i = 0; i < all.size(); ++i) {
            all[i]->send(all[(i + 7) % all.size()]->key.public_key(), Bytes(500, 1));
            all[i]->send(stays[i % 2]->key.public_key(), Bytes(500, 2));
        }
        // In every other round some of it is still on its way, also between the loops, when they leave.
        const uint64_t want = round % 2 == 0 ? 30 : 40;
        ASSERT_TRUE(lab.until([&] { return lab.server->stats().packets_in >= before + want; }));
        all.clear();
        ASSERT_TRUE(lab.until([&] { return lab.server->connections() == 2; }));
    }
    ASSERT_TRUE(lab.until([&] {
        const RelayStats s = lab.server->stats();
        return s.packets_in == s.packets_out + s.dropped_unknown.total();
    }));
    const RelayStats s = lab.server->stats();
    EXPECT_EQ(s.clients, 2U);
    EXPECT_EQ(s.connections, 2U);
    EXPECT_EQ(s.accepts, 122U);
    EXPECT_EQ(s.dropped_between.total(), 0U);
    // Everybody who was heard of by the two is known to be gone.
    ASSERT_TRUE(lab.until([&] {
        return std::all_of(stays.begin(), stays.end(), [](const auto& c) {
            const std::set<NodePublic> heard(c->sources.begin(), c->sources.end()), gone(c->gone.begin(), c->gone.end());
            return heard == gone;
        });
    }));
}

TEST_F(DerperLoops, MetricsAreThoseOfAllLoops) {
    Lab lab;
    auto all = crowd(lab, 10);
    for (const auto& c : all) c->send(all[0]->key.public_key(), Bytes(10, 1));
    ASSERT_TRUE(lab.until([&] { return all[0]->packets.size() == 10; }));
    Raw raw;
    raw.connect(lab.loop, lab.server->port());
    raw.stream.write("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    ASSERT_TRUE(lab.until([&] { return raw.closed; }));
    for (const char* line : {"\nderp_clients_local 10\n", "\nderp_packets_sent 10\n", "\nderper_loops 4\n", "\nderper_tcp_open 11\n"})
        EXPECT_NE(raw.got.find(line), std::string::npos) << line << raw.got;
}

TEST_F(DerperLoops, MayEndInTheMiddleOfEverything) {
    for (int i = 0; i < 10; ++i) {
        Lab lab;
        std::vector<std::unique_ptr<Client>> all;
        for (int k = 0; k < 8; ++k) {
            all.push_back(std::make_unique<Client>(lab.loop));
            all.back()->start(connect_loopback(lab.server->port()));
        }
        for (int turn = 0; turn < 3 * i; ++turn) lab.loop.run_once(false);
        for (const auto& c : all)
            if (c->session.connected()) c->send(all[0]->key.public_key(), Bytes(60000, 1));
        lab.server.reset();
    }
}

}  // namespace
}  // namespace mesh::derper
