// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// A relay and its clients on one loop and on loopback, for tests.

#include <gtest/gtest.h>
#include <stdlib.h>

#include <functional>

#include "derper/certificates.h"
#include "derper/server.h"
#include "magicsock/derp/client_session.h"
#include "magicsock/derp/derp_map.h"
#include "platform/net/dialer.h"
#include "platform/net/sockaddr.h"
#include "platform/tls/certificate.h"

namespace mesh::derper {

using derp::Event;

/// A blocking connect on loopback; the rest runs on the loop.
inline platform::ByteStream connect_loopback(uint16_t port, std::unique_ptr<platform::TlsSession> tls = nullptr) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_storage a{};
    const socklen_t len = platform::to_sockaddr({Addr::v4(127, 0, 0, 1), port}, Addr::Family::kV4, a);
    EXPECT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&a), len), 0);
    return platform::ByteStream(platform::UniqueFd(fd), std::move(tls));
}

struct Raw final : platform::ByteStream::Listener {
    std::string got;
    bool closed = false;
    platform::ByteStream stream;
    void connect(platform::Loop& loop, uint16_t port) {
        stream = connect_loopback(port);
        stream.attach(loop, *this);
    }
    void on_bytes(MutByteSpan b) override { got += as_text(b); }
    void on_closed(const Status&) override { closed = true; }
};

struct Client final : platform::ByteStream::Listener {
    platform::Loop& loop;
    SystemRandom random;
    NodePrivate key = NodePrivate::generate(random);
    derp::ClientSession session;
    std::vector<Event::Kind> events;
    std::vector<Bytes> packets;
    std::vector<NodePublic> sources;  ///< of the packets
    std::vector<NodePublic> gone;
    std::string error;
    bool fast = false;
    platform::ByteStream stream;

    explicit Client(platform::Loop& l) : loop(l), session(random, config()) {}
    Client(platform::Loop& l, const NodePrivate& k) : loop(l), key(k), session(random, config()) {}
    derp::ClientConfig config() {
        derp::ClientConfig c;
        c.node_key = key;
        return c;
    }
    void start(platform::ByteStream s) {
        const bool tls = s.tls() != nullptr;
        stream = std::move(s);
        stream.attach(loop, *this);
        if (!tls) begin({});
    }
    void begin(std::optional<NodePublic> fast_key) {
        fast = fast_key.has_value();
        session.start({.host = "127.0.0.1", .fast_start_key = fast_key}, loop.now());
        pump();
    }
    void on_ready() override {
        const auto meta = platform::find_derp_meta(stream.tls()->peer_chain());
        begin(meta && stream.tls()->version() == "TLSv1.3" ? std::optional(meta->server_key) : std::nullopt);
    }
    void on_bytes(MutByteSpan b) override {
        session.feed(b, loop.now());
        drain();
        pump();
    }
    void on_closed(const Status& why) override {
        session.closed(why ? "" : why.error().message());
        drain();
    }
    void on_drained() override { pump(); }
    void drain() {
        while (const Event* e = session.next_event(loop.now())) {
            events.push_back(e->kind);
            if (e->kind == Event::Kind::kPacket) {
                packets.push_back(to_bytes(e->packet));
                sources.push_back(e->key);
            }
            if (e->kind == Event::Kind::kPeerGone) gone.push_back(e->key);
            if (e->kind == Event::Kind::kError) error = e->error.message();
        }
    }
    void pump() {
        while (!session.writable(loop.now()).empty()) {
            const ByteSpan w = session.writable(loop.now());
            if (!stream.write(w)) return;
            session.wrote(w.size(), loop.now());
        }
    }
    void send(const NodePublic& to, ByteSpan packet) {
        session.send(to, packet, loop.now());
        pump();
    }
};

struct Lab {
    platform::Loop loop;
    SystemRandom random;
    NodePrivate key = NodePrivate::generate(random);
    std::unique_ptr<Server> server;
    static inline size_t loops = 1;  ///< of servers made from now on

    explicit Lab(std::optional<std::string> whois = {}, Duration write_timeout = seconds(2),
                 const std::function<void(Server::Config&)>& change = {}) {
        Server::Config c;
        c.patience.write_timeout = write_timeout;
        c.key = key;
        c.loops = loops;
        c.admission.whois_socket = std::move(whois);
        c.metrics_from = {*Prefix::parse("127.0.0.0/8")};
        if (change) change(c);
        server = std::make_unique<Server>(loop, random, std::move(c));
        EXPECT_TRUE(server->listen({Addr::v4(127, 0, 0, 1), 0}, Service::kDerp));
    }
    bool until(const std::function<bool()>& done) {
        platform::Timer wake(loop, [] {});
        const Time end = platform::read_clock() + seconds(10);
        while (!done() && platform::read_clock() < end) {
            wake.set_after(milliseconds(20));
            loop.run_once(true);
        }
        return done();
    }
    std::string get(const std::string& request) {
        Raw raw;
        raw.connect(loop, server->port());
        raw.stream.write(request);
        EXPECT_TRUE(until([&] { return raw.closed || raw.got.find("\r\n\r\n") != std::string::npos; }));
        return raw.got;
    }
};

/// Tests that hold with one loop and with several.
class WithLoops : public ::testing::TestWithParam<size_t> {
   protected:
    void SetUp() override { Lab::loops = GetParam(); }
    void TearDown() override { Lab::loops = 1; }
};

}  // namespace mesh::derper
