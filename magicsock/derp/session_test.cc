// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include "magicsock/derp/client_session.h"
#include "magicsock/derp/server_session.h"

namespace mesh::derp {
namespace {

constexpr std::string_view kUpgradeAnswer =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nDerp-Version: 2\r\n\r\n";
using Kind = Event::Kind;

Bytes disco_packet() {
    Bytes p = {'T', 'S', 0xf0, 0x9f, 0x92, 0xac};
    p.resize(100, 0x44);
    return p;
}

/// A client and a server session joined by a pipe of bytes.
struct Pair {
    SeededRandom random{3};
    NodePrivate client_key = NodePrivate::generate(random);
    NodePrivate server_key = NodePrivate::generate(random);
    NodePublic peer = NodePrivate::generate(random).public_key();
    Time now{seconds(1000).ns};
    ClientSession client;
    ServerSession server;
    std::vector<Kind> events;
    std::vector<Bytes> packets;
    std::string error;
    std::string http;  // what the server's HTTP layer saw
    bool http_done = false;

    explicit Pair(ClientConfig config = {})
        : client(random, with_key(config)), server(random, {.server_key = server_key}, now) {}
    ClientConfig with_key(ClientConfig c) {
        c.node_key = client_key;
        return c;
    }
    void drain_client() {
        while (const Event* e = client.next_event(now)) {
            events.push_back(e->kind);
            if (e->kind == Kind::kPacket) packets.push_back(to_bytes(e->packet));
            if (e->kind == Kind::kError) error = e->error.message();
        }
    }
    Bytes take_client() {
        Bytes out;
        while (!client.writable(now).empty()) {
            const ByteSpan w = client.writable(now);
            out.insert(out.end(), w.begin(), w.end());
            client.wrote(w.size(), now);
        }
        return out;
    }
    Bytes take_server() {
        Bytes out;
        while (!server.writable(now).empty()) {
            const ByteSpan w = server.writable(now);
            out.insert(out.end(), w.begin(), w.end());
            server.wrote(w.size(), now);
        }
        return out;
    }
    void to_server(ByteSpan bytes) {
        if (!http_done) {
            http += as_text(bytes);
            const size_t end = http.find("\r\n\r\n");
            if (end == std::string::npos) return;
            http_done = true;
            const std::string rest = http.substr(end + 4);
            http.resize(end + 4);
            server.feed(as_bytes(rest));
            return;
        }
        server.feed(bytes);
    }
    void login() {
        client.start({.host = "derp.example"}, now);
        to_server(take_client());
        client.feed(as_bytes(kUpgradeAnswer), now);
        client.feed(take_server(), now);
        drain_client();
        to_server(take_client());
        const ServerEvent* e = server.next_event(now);
        ASSERT_TRUE(e && e->kind == ServerEvent::Kind::kLogin);
        EXPECT_EQ(e->key, client_key.public_key());
        server.accept(now);
        client.feed(take_server(), now);
        drain_client();
        ASSERT_TRUE(client.connected()) << error;
        events.clear();
    }
};

TEST(DerpSession, UpgradeRequestNamesHostAndIdealNode) {
    Pair p;
    p.client.start({.host = "derp.example:8443", .ideal_node = "1a", .fast_start_key = {}}, p.now);
    const Bytes out = p.take_client();
    const std::string text(as_text(out));
    EXPECT_TRUE(text.starts_with("GET /derp HTTP/1.1\r\n")) << text;
    EXPECT_NE(text.find("Host: derp.example:8443\r\n"), std::string::npos);
    EXPECT_NE(text.find("Upgrade: DERP\r\n"), std::string::npos);
    EXPECT_NE(text.find("Connection: Upgrade\r\n"), std::string::npos);
    EXPECT_NE(text.find("Ideal-Node: 1a\r\n"), std::string::npos);
    EXPECT_EQ(text.find("Fast-Start"), std::string::npos);
    EXPECT_TRUE(text.ends_with("\r\n\r\n"));
}

TEST(DerpSession, LoginPacketsAndNotices) {
    Pair p;
    p.login();
    const Bytes packet(1000, 0x55);
    EXPECT_TRUE(p.client.send(p.peer, packet, p.now));
    p.client.note_preferred(true);
    p.to_server(p.take_client());
    const ServerEvent* e = p.server.next_event(p.now);
    ASSERT_TRUE(e);
    EXPECT_EQ(e->kind, ServerEvent::Kind::kNotePreferred);
    EXPECT_TRUE(e->preferred);
    e = p.server.next_event(p.now);
    ASSERT_TRUE(e);
    EXPECT_EQ(e->kind, ServerEvent::Kind::kPacket);
    EXPECT_EQ(e->key, p.peer);
    EXPECT_EQ(to_bytes(e->packet), packet);
    EXPECT_FALSE(p.server.next_event(p.now));

    p.server.deliver(p.peer, packet, p.now);
    p.server.peer_gone(p.peer, GoneReason::kNotHere, p.now);
    p.server.health("tired", p.now);
    p.server.restarting(milliseconds(100), seconds(5), p.now);
    p.client.feed(p.take_server(), p.now);
    std::vector<Kind> kinds;
    while (const Event* c = p.client.next_event(p.now)) {
        kinds.push_back(c->kind);
        switch (c->kind) {
            case Kind::kPacket:
                EXPECT_EQ(c->key, p.peer);
                EXPECT_EQ(to_bytes(c->packet), packet);
                break;
            case Kind::kPeerGone: EXPECT_EQ(c->reason, GoneReason::kNotHere); break;
            case Kind::kHealth: EXPECT_EQ(c->text, "tired"); break;
            case Kind::kRestarting:
                EXPECT_EQ(c->reconnect_in, milliseconds(100));
                EXPECT_EQ(c->try_for, seconds(5));
                break;
            default: ADD_FAILURE();
        }
    }
    // In the order in which they arose, while the socket takes everything.
    EXPECT_EQ(kinds, (std::vector<Kind>{Kind::kPacket, Kind::kPeerGone, Kind::kHealth, Kind::kRestarting}));
}

TEST(DerpSession, ServerStreamGivesTheSameEventsAtEverySplit) {
    // One stream, recorded, replayed with the same client key and randomness at each split point.
    Pair p;
    Bytes stream = to_bytes(as_bytes(kUpgradeAnswer));
    const auto record = [&](const Bytes& b) {
        stream.insert(stream.end(), b.begin(), b.end());
        p.client.feed(b, p.now);
        p.drain_client();
    };
    p.client.start({.host = "h"}, p.now);
    p.to_server(p.take_client());
    p.client.feed(as_bytes(kUpgradeAnswer), p.now);
    record(p.take_server());
    p.to_server(p.take_client());
    ASSERT_TRUE(p.server.next_event(p.now));
    p.server.accept(p.now);
    p.server.deliver(p.peer, Bytes(300, 1), p.now);
    p.server.peer_gone(p.peer, GoneReason::kDisconnected, p.now);
    record(p.take_server());
    const std::vector<Kind> want = {Kind::kConnected, Kind::kPacket, Kind::kPeerGone};
    ASSERT_EQ(p.events, want);
    for (size_t cut = 0; cut <= stream.size(); ++cut) {
        Pair q;
        q.client.start({.host = "h"}, q.now);
        q.client.feed(ByteSpan(stream).first(cut), q.now);
        q.drain_client();
        q.client.feed(ByteSpan(stream).subspan(cut), q.now);
        q.drain_client();
        ASSERT_EQ(q.events, want) << cut << " " << q.error;
    }
}

// What a derper v1.102.5 sent to the client of this key: ServerKey, ServerInfo, then a packet, the answer to our ping,
// and "not here" for a disco packet to an unknown key.
constexpr std::string_view kRecordedClientKey =
    "privkey:804f194ef80e8bf95d986e880d1a82a3bf16cbd69755314bbdf67b9b459fbb51";
constexpr std::string_view kRecordedHead =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nDerp-Version: 2\r\nDerp-Public-Key: "
    "cdf97c74b65db6d5a16a035b1f52ef7459c332111ab735c5f1b4d3f74d0d1e1d\r\n\r\n";
constexpr std::string_view kRecordedFrames =
    "010000002844455250f09f9491cdf97c74b65db6d5a16a035b1f52ef7459c332111ab735c5f1b4d3f74d0d1e1d0300000035"
    "33592254acee4ae944f2e8184e0824a0e76a28cd9cb79f140d92d9101cb9f26cb36dabed74f3ffaae3a2ef5f11bb6499f260"
    "dfa6eb0500000034f9c0c2196e3a43176b4ba0d35caec98109c25fd2619dc5c9e29258fb3fa8ef2c77777777777777777777"
    "7777777777777777777713000000088ff448c791b14523080000002109090909090909090909090909090909090909090909"
    "0909090909090909090901";

TEST(DerpSession, RecordedStreamOfARealServerReadsTheSameAtEverySplit) {
    Bytes stream = to_bytes(as_bytes(kRecordedHead));
    Bytes frames(kRecordedFrames.size() / 2);
    ASSERT_TRUE(hex_decode(kRecordedFrames, frames));
    stream.insert(stream.end(), frames.begin(), frames.end());
    for (size_t cut = 0; cut <= stream.size(); ++cut) {
        SeededRandom random(1);
        ClientSession client(random, {.node_key = *NodePrivate::parse(kRecordedClientKey)});
        const Time now{1};
        client.start({.host = "127.0.0.1"}, now);
        std::vector<Event> events;
        std::vector<Bytes> packets;
        const auto feed = [&](ByteSpan bytes) {
            client.feed(bytes, now);
            while (const Event* e = client.next_event(now)) {
                events.push_back(*e);
                packets.push_back(to_bytes(e->packet));
            }
        };
        feed(ByteSpan(stream).first(cut));
        feed(ByteSpan(stream).subspan(cut));
        ASSERT_EQ(events.size(), 3U) << cut;  // the pong answers a ping this session never sent
        EXPECT_EQ(events[0].kind, Kind::kConnected);
        EXPECT_EQ(events[0].server_info.version, 2);
        EXPECT_EQ(hex_encode(client.server_key().bytes()),
                  "cdf97c74b65db6d5a16a035b1f52ef7459c332111ab735c5f1b4d3f74d0d1e1d");
        EXPECT_EQ(events[1].kind, Kind::kPacket);
        EXPECT_EQ(packets[1], Bytes(20, 0x77));
        EXPECT_EQ(events[2].kind, Kind::kPeerGone);
        EXPECT_EQ(events[2].reason, GoneReason::kNotHere);
    }
}

TEST(DerpSession, FastStartSendsEverythingAtOnceAndSkipsTheServerKey) {
    Pair p;
    p.client.send(p.peer, Bytes(10, 1), p.now);  // queued before the connection exists
    p.client.start({.host = "h", .fast_start_key = p.server_key.public_key()}, p.now);
    p.to_server(p.take_client());
    EXPECT_NE(p.http.find("Derp-Fast-Start: 1\r\n"), std::string::npos);
    const ServerEvent* e = p.server.next_event(p.now);
    ASSERT_TRUE(e && e->kind == ServerEvent::Kind::kLogin);
    p.server.accept(p.now);
    e = p.server.next_event(p.now);
    ASSERT_TRUE(e && e->kind == ServerEvent::Kind::kPacket);
    p.client.feed(p.take_server(), p.now);  // ServerKey, unasked, then ServerInfo
    p.drain_client();
    EXPECT_EQ(p.events, std::vector<Kind>{Kind::kConnected});
}

TEST(DerpSession, HttpErrorsAreToldInWords) {
    for (const bool fast : {false, true}) {
        Pair p;
        ClientStart start{.host = "h"};
        if (fast) start.fast_start_key = p.server_key.public_key();
        p.client.start(start, p.now);
        (void)p.take_client();
        p.client.feed(as_bytes("HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\ngo away\x01\n"), p.now);
        p.drain_client();
        ASSERT_EQ(p.events, std::vector<Kind>{Kind::kError}) << fast;
        EXPECT_EQ(p.error, "relay answered HTTP 403: go away??") << fast;
        EXPECT_TRUE(p.client.failed());
        EXPECT_FALSE(p.client.send(p.peer, Bytes(1, 1), p.now));
        p.drain_client();
        EXPECT_EQ(p.events.size(), 1U) << "an error is reported once";
    }
}

TEST(DerpSession, AWebPageIsNotToldAsTheReason) {
    Pair p;
    p.client.start({.host = "h"}, p.now);
    p.client.feed(as_bytes("HTTP/1.1 404 Not Found\r\nContent-Length: 14\r\n\r\n<!DOCTYPE html"), p.now);
    p.drain_client();
    EXPECT_EQ(p.error, "relay answered HTTP 404: a web page");
}

TEST(DerpSession, TheEndOfTheStreamIsAnErrorAfterWhatCameBefore) {
    Pair p;
    p.login();
    p.server.deliver(p.peer, Bytes(5, 1), p.now);
    p.client.feed(p.take_server(), p.now);
    p.client.closed("");
    p.drain_client();
    EXPECT_EQ(p.events, (std::vector<Kind>{Kind::kPacket, Kind::kError}));
    EXPECT_EQ(p.error, "relay closed the connection");
}

TEST(DerpSession, PingsAreAnsweredOnBothSides) {
    Pair p;
    p.login();
    const uint64_t id = p.client.ping(p.now);
    EXPECT_EQ(p.client.ping(p.now), id);
    p.to_server(p.take_client());
    while (p.server.next_event(p.now)) {
    }
    p.now = p.now + milliseconds(20);
    p.client.feed(p.take_server(), p.now);
    const Event* e = p.client.next_event(p.now);
    ASSERT_TRUE(e && e->kind == Kind::kPong);
    EXPECT_EQ(e->ping_id, id);
    EXPECT_EQ(e->round_trip, milliseconds(20));
    Bytes ping;
    append_frame(ping, FrameType::kPing, Bytes(8, 7));
    p.client.feed(ping, p.now);
    p.drain_client();
    Bytes pong;
    append_frame(pong, FrameType::kPong, Bytes(8, 7));
    EXPECT_EQ(p.take_client(), pong);
}

TEST(DerpSession, DiscoGoesFirstAndOldDataIsDropped) {
    ClientConfig config;
    config.data_queue_bytes = 10000;
    Pair p(config);
    p.login();
    for (uint8_t i = 0; i < 20; ++i) EXPECT_TRUE(p.client.send(p.peer, Bytes(1000, i), p.now));
    EXPECT_TRUE(p.client.send(p.peer, disco_packet(), p.now));
    EXPECT_EQ(p.client.stats().dropped_full, 11U);
    EXPECT_LE(p.client.queued_bytes(), 10000U + 200U);
    const ByteSpan first = p.client.writable(p.now);
    EXPECT_GT(first.size(), 9000U) << "merged into one write";
    EXPECT_LE(first.size(), 16384U);
    p.to_server(p.take_client());
    const ServerEvent* e = p.server.next_event(p.now);
    ASSERT_TRUE(e && e->kind == ServerEvent::Kind::kPacket);
    EXPECT_TRUE(looks_like_disco(e->packet));
    for (uint8_t i = 11; i < 20; ++i) {
        e = p.server.next_event(p.now);
        ASSERT_TRUE(e && e->kind == ServerEvent::Kind::kPacket);
        EXPECT_EQ(e->packet[0], i);
    }
    EXPECT_FALSE(p.server.next_event(p.now));
}

// The packet loop writes between two reads of the TUN, and one read is up to 320 KiB of packets.
TEST(DerpSession, OneReadOfTheTunIsHeldWhole) {
    Pair p;
    p.login();
    constexpr size_t kPacket = 1280, kWireguard = 32;
    for (size_t read = 0; read < size_t{320} << 10; read += kPacket)
        EXPECT_TRUE(p.client.send(p.peer, Bytes(kPacket + kWireguard, 1), p.now));
    EXPECT_EQ(p.client.stats().dropped_full, 0U);
}

TEST(DerpSession, PartialWritesKeepTheStreamWhole) {
    Pair p;
    p.login();
    for (uint8_t i = 0; i < 30; ++i) p.client.send(p.peer, Bytes(1200, i), p.now);
    Bytes out;
    while (!p.client.writable(p.now).empty()) {
        const ByteSpan w = p.client.writable(p.now);
        const size_t n = std::min<size_t>(w.size(), 777);
        out.insert(out.end(), w.begin(), w.begin() + static_cast<std::ptrdiff_t>(n));
        p.client.wrote(n, p.now);
    }
    p.to_server(out);
    uint8_t next = 0;
    while (const ServerEvent* e = p.server.next_event(p.now)) {
        ASSERT_EQ(e->kind, ServerEvent::Kind::kPacket);
        EXPECT_EQ(e->packet[0], next++);
    }
    EXPECT_EQ(next, 30);
}

TEST(DerpSession, PacketsAboveTheLimitAreRefused) {
    Pair p;
    p.login();
    EXPECT_TRUE(p.client.send(p.peer, Bytes(kMaxPacket, 1), p.now));
    EXPECT_FALSE(p.client.send(p.peer, Bytes(kMaxPacket + 1, 1), p.now));
    EXPECT_EQ(p.client.stats().dropped_oversize, 1U);
}

TEST(DerpSession, ASilentRelayIsNoticedUnderTraffic) {
    Pair p;
    p.login();
    EXPECT_EQ(p.client.next_timeout(), p.now + seconds(120));
    p.client.send(p.peer, Bytes(10, 1), p.now);
    (void)p.take_client();
    EXPECT_EQ(p.client.next_timeout(), p.now + milliseconds(1500));
    p.now = p.client.next_timeout();
    p.client.handle_timeout(p.now);
    const Bytes ping = p.take_client();
    ASSERT_EQ(ping.size(), 13U);
    EXPECT_EQ(ping[0], 0x12);
    const Time asked = p.now;
    p.now = p.client.next_timeout();
    EXPECT_FALSE(p.client.silent());
    p.client.handle_timeout(p.now);
    EXPECT_EQ(p.now, asked + seconds(1));
    EXPECT_TRUE(p.client.silent()) << "in doubt, but not given up";
    p.drain_client();
    EXPECT_TRUE(p.events.empty());
    p.now = p.client.next_timeout();
    p.client.handle_timeout(p.now);
    EXPECT_EQ(p.now, asked + seconds(10));
    p.drain_client();
    EXPECT_EQ(p.events, std::vector<Kind>{Kind::kError});
    EXPECT_EQ(p.error, "relay does not answer");
}

TEST(DerpSession, AnythingHeardKeepsTheSessionAlive) {
    Pair p;
    p.login();
    Bytes keepalive;
    append_frame(keepalive, FrameType::kKeepAlive, {});
    for (int i = 0; i < 200; ++i) {
        p.client.send(p.peer, Bytes(10, 1), p.now);
        (void)p.take_client();
        p.now = p.client.next_timeout();
        p.client.handle_timeout(p.now);
        p.client.feed(keepalive, p.now);
        p.drain_client();
        EXPECT_FALSE(p.client.silent());
    }
    EXPECT_TRUE(p.events.empty()) << p.error;
}

TEST(DerpSession, LoginHasADeadlineOnBothSides) {
    Pair p;
    p.client.start({.host = "h"}, p.now);
    EXPECT_EQ(p.client.next_timeout(), p.now + seconds(10));
    p.client.handle_timeout(p.now + seconds(10));
    p.drain_client();
    EXPECT_EQ(p.events, std::vector<Kind>{Kind::kError});
    (void)p.take_server();
    p.server.handle_timeout(p.server.next_timeout());
    const ServerEvent* e = p.server.next_event(p.now);
    ASSERT_TRUE(e && e->kind == ServerEvent::Kind::kError);
}

TEST(DerpSession, ServerKeepsAliveEveryMinuteOrSo) {
    Pair p;
    p.login();
    const Time due = p.server.next_timeout();
    EXPECT_GE(due, p.now + seconds(60));
    EXPECT_LT(due, p.now + seconds(65));
    p.now = due;
    p.server.handle_timeout(p.now);
    EXPECT_EQ(hex_encode(p.take_server()), "0600000000");
}

TEST(DerpSession, ServerDropsAClientThatDoesNotRead) {
    Pair p;
    p.login();
    p.server.deliver(p.peer, Bytes(100, 1), p.now);
    EXPECT_EQ(p.server.next_timeout(), p.now + seconds(2));
    EXPECT_FALSE(p.server.writable(p.now).empty());
    p.now = p.now + seconds(1);
    p.server.wrote(10, p.now);  // progress
    EXPECT_EQ(p.server.next_timeout(), p.now + seconds(2));
    p.now = p.now + seconds(2);
    p.server.handle_timeout(p.now);
    const ServerEvent* e = p.server.next_event(p.now);
    ASSERT_TRUE(e && e->kind == ServerEvent::Kind::kError);
    EXPECT_EQ(e->error->context, "client does not read");
}

TEST(DerpSession, ServerQueuesAreBoundedInBytesAndDiscoGoesFirst) {
    Pair p;
    p.login();
    EXPECT_FALSE(p.server.deliver(p.peer, Bytes(1000, 255), p.now));
    const ByteSpan under_way = p.server.writable(p.now);  // and the socket is full
    const Bytes before = to_bytes(under_way);
    for (int i = 0; i < 400; ++i) EXPECT_FALSE(p.server.deliver(p.peer, Bytes(1000, static_cast<uint8_t>(i % 250)), p.now));
    for (int i = 0; i < 5; ++i) p.server.deliver(p.peer, disco_packet(), p.now);
    EXPECT_EQ(to_bytes(p.server.writable(p.now)), before) << "what was handed out stays";
    const size_t fit = (192U << 10) / (1000 + 32 + 5 + 4);
    EXPECT_EQ(p.server.stats().dropped_full.total(), 400 - fit);
    EXPECT_EQ(p.server.stats().dropped_full.other_bytes, 1000 * (400 - fit));
    const ByKind waiting = p.server.waiting();
    EXPECT_EQ(waiting.disco, 5U);
    EXPECT_EQ(waiting.disco_bytes, 5 * disco_packet().size());
    EXPECT_EQ(waiting.other_bytes, 1000 * fit);
    p.client.feed(p.take_server(), p.now);
    p.drain_client();
    ASSERT_EQ(p.packets.size(), 1 + 5 + fit);
    EXPECT_EQ(p.packets[0][0], 255);
    EXPECT_TRUE(looks_like_disco(p.packets[1]) && looks_like_disco(p.packets[5]));
    EXPECT_EQ(p.packets[6][0], (400 - fit) % 250) << "the oldest were dropped";
}

TEST(DerpSession, ServerHolds32PacketsOfAnySize) {
    Pair p;
    p.login();
    p.server.deliver(p.peer, Bytes(10, 1), p.now);
    ASSERT_FALSE(p.server.writable(p.now).empty());
    for (int i = 0; i < 40; ++i) p.server.deliver(p.peer, Bytes(kMaxPacket, static_cast<uint8_t>(i)), p.now);
    EXPECT_EQ(p.server.stats().dropped_full.other, 8U);
    p.client.feed(p.take_server(), p.now);
    p.drain_client();
    ASSERT_EQ(p.packets.size(), 33U);
    EXPECT_EQ(p.packets[1][0], 8) << "the oldest were dropped";
}

TEST(DerpSession, ServerSaysWhenARecordIsFull) {
    Pair p;
    p.login();
    int packets = 0;
    while (!p.server.deliver(p.peer, Bytes(1000, 1), p.now)) ASSERT_LT(++packets, 100);
    EXPECT_EQ(packets, 16384 / 1037);
    EXPECT_LE(p.server.writable(p.now).size(), 16384U);
    p.client.feed(p.take_server(), p.now);
    p.drain_client();
    EXPECT_EQ(p.packets.size(), static_cast<size_t>(packets) + 1);
}

TEST(DerpSession, MeshFramesNeedTheMeshKey) {
    for (const FrameType t : {FrameType::kWatchConns, FrameType::kForwardPacket, FrameType::kClosePeer}) {
        Pair p;
        p.login();
        Bytes frame;
        append_frame(frame, t, Bytes(64, 1));
        p.to_server(frame);
        const ServerEvent* e = p.server.next_event(p.now);
        ASSERT_TRUE(e && e->kind == ServerEvent::Kind::kError);
        EXPECT_EQ(e->error->context, "insufficient permissions");
    }
}

TEST(DerpSession, MalformedFramesEndTheServerSessionAndAreIgnoredByTheClient) {
    Pair p;
    p.login();
    Bytes gone;
    append_frame(gone, FrameType::kPeerGone, Bytes(5, 1));
    append_frame(gone, FrameType::kRecvPacket, Bytes(31, 1));
    append_frame(gone, FrameType::kRestarting, Bytes(3, 1));
    p.client.feed(gone, p.now);
    p.drain_client();
    EXPECT_TRUE(p.events.empty());
    EXPECT_EQ(p.client.stats().bad_frames, 3U);
    Bytes preferred;
    append_frame(preferred, FrameType::kNotePreferred, Bytes(2, 1));
    p.to_server(preferred);
    const ServerEvent* e = p.server.next_event(p.now);
    ASSERT_TRUE(e && e->kind == ServerEvent::Kind::kError);
}

TEST(DerpSession, TheServersRateLimitIsHonoured) {
    Pair p;
    p.login();
    const Bytes info = *seal_server_info({.version = 2, .token_bucket_bytes_per_second = 1000,
                                          .token_bucket_bytes_burst = 2000}, p.server_key, p.client_key.public_key(),
                                         p.random);
    Bytes frame;
    append_frame(frame, FrameType::kServerInfo, info);
    p.client.feed(frame, p.now);
    p.drain_client();
    const Bytes packet(963, 1);  // 1000 on the wire
    EXPECT_TRUE(p.client.send(p.peer, packet, p.now));
    EXPECT_TRUE(p.client.send(p.peer, packet, p.now));
    EXPECT_FALSE(p.client.send(p.peer, packet, p.now));
    EXPECT_EQ(p.client.stats().dropped_rate, 1U);
    p.now = p.now + milliseconds(1001);
    EXPECT_TRUE(p.client.send(p.peer, packet, p.now));
}

}  // namespace
}  // namespace mesh::derp
