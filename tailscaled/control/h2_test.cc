// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/control/h2.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mesh::control {
namespace {

using Kind = H2Event::Kind;

struct Link {
    H2Session client{H2Session::Role::kClient};
    H2Session server{H2Session::Role::kServer};
    std::vector<H2Event> at_client, at_server;

    static void drain(H2Session& s, std::vector<H2Event>& out) {
        H2Event e;
        while (s.next_event(e)) out.push_back(std::move(e));
    }
    /// Bytes go back and forth until both are quiet; `chunk` is how they are cut.
    void run(size_t chunk = SIZE_MAX) {
        for (bool moved = true; moved;) {
            moved = false;
            for (auto [from, to] : {std::pair{&client, &server}, {&server, &client}}) {
                Bytes wire;
                ASSERT_TRUE(from->take_output(wire));
                moved |= !wire.empty();
                ByteSpan rest = wire;
                while (!rest.empty()) {
                    const size_t n = std::min(chunk, rest.size());
                    ASSERT_TRUE(to->receive(rest.first(n)));
                    rest = rest.subspan(n);
                }
                drain(client, at_client);
                drain(server, at_server);
            }
        }
    }
};

std::string body_of(const std::vector<H2Event>& events, int32_t stream) {
    std::string out;
    for (const H2Event& e : events)
        if (e.kind == Kind::kData && e.stream == stream) out += as_text(e.data);
    return out;
}

size_t count(const std::vector<H2Event>& events, Kind kind) {
    return static_cast<size_t>(std::count_if(events.begin(), events.end(), [&](const auto& e) { return e.kind == kind; }));
}

TEST(H2, RequestAndAnswerArriveWholeInAnySplit) {
    for (size_t chunk : {size_t{1}, size_t{7}, size_t{4077}, SIZE_MAX}) {
        Link l;
        const int32_t id = l.client.request("POST", "host:8080", "/machine/register", {{"ts-lb", "x"}}, "question").value();
        l.run(chunk);
        ASSERT_FALSE(l.at_server.empty());
        EXPECT_EQ(l.at_server[0].method, "POST");
        EXPECT_EQ(l.at_server[0].path, "/machine/register");
        EXPECT_EQ(body_of(l.at_server, id), "question");
        EXPECT_EQ(count(l.at_server, Kind::kEnd), 1U);
        l.server.respond(id, 404, {{"x-test", "1"}}, "answer");
        l.run(chunk);
        EXPECT_EQ(l.at_client[0].status, 404);
        EXPECT_EQ(body_of(l.at_client, id), "answer");
        EXPECT_EQ(l.at_client.back().kind, Kind::kClose);
        EXPECT_EQ(l.at_client.back().error, 0U);
    }
}

TEST(H2, ARequestWithoutBodyEndsAtOnce) {
    Link l;
    (void)l.client.request("GET", "h", "/x", {}, "");
    l.run();
    EXPECT_EQ(count(l.at_server, Kind::kEnd), 1U);
    EXPECT_EQ(count(l.at_server, Kind::kData), 0U);
}

TEST(H2, AnEndlessBodyOfManyWindowsNeverStalls) {
    Link l;
    const int32_t id = l.client.request("POST", "h", "/machine/map", {}, "{}").value();
    l.run();
    l.server.respond(id, 200, {}, "", H2Session::Body::kOpen);
    std::string all;
    for (int i = 0; i < 200; ++i) {
        const std::string part(60'000, static_cast<char>('a' + i % 26));
        all += part;
        ASSERT_TRUE(l.server.send_data(id, as_bytes(part)));
        l.run();
    }
    EXPECT_EQ(body_of(l.at_client, id).size(), all.size());
    EXPECT_EQ(body_of(l.at_client, id), all);
    EXPECT_EQ(count(l.at_client, Kind::kEnd), 0U);
    l.server.end_data(id);
    l.run();
    EXPECT_EQ(count(l.at_client, Kind::kEnd), 1U);
}

TEST(H2, StreamsRunBesideEachOther) {
    Link l;
    const int32_t poll = l.client.request("POST", "h", "/machine/map", {}, "{}").value();
    const int32_t update = l.client.request("POST", "h", "/machine/map", {}, "{\"a\":1}").value();
    l.run();
    l.server.respond(poll, 200, {}, "", H2Session::Body::kOpen);
    l.server.respond(update, 200, {}, "");
    l.server.send_data(poll, as_bytes("frame"));
    l.run();
    EXPECT_EQ(body_of(l.at_client, poll), "frame");
    EXPECT_EQ(body_of(l.at_client, update), "");
    EXPECT_EQ(count(l.at_client, Kind::kClose), 1U);
}

TEST(H2, AResetIsSeenOnBothSides) {
    Link l;
    const int32_t id = l.client.request("POST", "h", "/machine/map", {}, "{}").value();
    l.run();
    l.server.respond(id, 200, {}, "", H2Session::Body::kOpen);
    l.run();
    l.client.reset(id);
    l.run();
    EXPECT_EQ(l.at_server.back().kind, Kind::kClose);
    EXPECT_NE(l.at_server.back().error, 0U);
    EXPECT_FALSE(l.server.send_data(id, as_bytes("late")));
}

TEST(H2, PingsAreAnswered) {
    Link l;
    l.run();
    l.client.ping();
    l.run();
    EXPECT_EQ(count(l.at_client, Kind::kPong), 1U);
}

TEST(H2, HeadersBeyondTheLimitResetTheStreamOnly) {
    Link l;
    H2Headers many;
    for (int i = 0; i < 400; ++i) many.emplace_back("x-" + std::to_string(i), std::string(100, 'v'));
    const int32_t bad = l.client.request("POST", "h", "/bad", many, "{}").value();
    const int32_t good = l.client.request("POST", "h", "/good", {}, "{}").value();
    l.run();
    for (const H2Event& e : l.at_server)
        if (e.kind == Kind::kHeaders) {
            EXPECT_EQ(e.stream, good);
        }
    EXPECT_EQ(l.at_client.back().stream, bad);
    EXPECT_EQ(l.at_client.back().kind, Kind::kClose);
}

TEST(H2, ABodyThePeerDoesNotTakeIsBounded) {
    H2Session::Limits limits;
    limits.queued_body_bytes = 100'000;
    H2Session client(H2Session::Role::kClient);
    H2Session server(H2Session::Role::kServer, limits);
    const int32_t id = client.request("POST", "h", "/p", {}, "{}").value();
    Bytes wire;
    ASSERT_TRUE(client.take_output(wire));
    ASSERT_TRUE(server.receive(wire));
    server.respond(id, 200, {}, "", H2Session::Body::kOpen);
    bool accepted = true;
    for (int i = 0; i < 4 && accepted; ++i) accepted = server.send_data(id, Bytes(50'000));
    EXPECT_FALSE(accepted);
}

TEST(H2, GarbageIsAnErrorNotACrash) {
    H2Session client(H2Session::Role::kClient);
    Bytes junk(4000);
    for (size_t i = 0; i < junk.size(); ++i) junk[i] = static_cast<uint8_t>(i * 131 + 7);
    Bytes goodbye;
    EXPECT_TRUE(!client.receive(junk) || (client.take_output(goodbye) && client.finished()));
    H2Session server(H2Session::Role::kServer);
    EXPECT_FALSE(server.receive(as_bytes("GET / HTTP/1.1\r\n\r\n")));
}

TEST(H2, AGoAwayFinishesTheSession) {
    Link l;
    l.run();
    l.server.shut_down();
    l.run();
    EXPECT_TRUE(l.client.finished());
}

}  // namespace
}  // namespace mesh::control
