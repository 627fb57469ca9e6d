// SPDX-License-Identifier: BSD-3-Clause
#include "derper/server.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <functional>

#include "derper/stun_server.h"
#include "derper/test_support.h"
#include "magicsock/derp/client_session.h"
#include "magicsock/derp/derp_map.h"
#include "magicsock/stun/stun.h"
#include "platform/net/dialer.h"
#include "platform/net/sockaddr.h"
#include "platform/tls/certificate.h"

namespace mesh::derper {
namespace {

class DerperServer : public WithLoops {};
INSTANTIATE_TEST_SUITE_P(Loops, DerperServer, ::testing::Values(1, 3));

TEST_P(DerperServer, TwoClientsExchangePacketsAndHearOfDepartures) {
    Lab lab;
    Client a(lab.loop);
    auto b = std::make_unique<Client>(lab.loop);
    a.start(connect_loopback(lab.server->port()));
    b->start(connect_loopback(lab.server->port()));
    ASSERT_TRUE(lab.until([&] { return a.session.connected() && b->session.connected(); })) << a.error;
    EXPECT_EQ(a.session.server_key(), lab.key.public_key());
    for (int i = 0; i < 20; ++i) a.send(b->key.public_key(), Bytes(1200, static_cast<uint8_t>(i)));
    ASSERT_TRUE(lab.until([&] { return b->packets.size() == 20; }));
    EXPECT_EQ(b->packets[19], Bytes(1200, 19));
    b->send(a.key.public_key(), Bytes(65536, 1));
    ASSERT_TRUE(lab.until([&] { return a.packets.size() == 1; }));
    EXPECT_EQ(a.packets[0].size(), 65536U);
    const NodePublic key = b->key.public_key();
    b.reset();
    ASSERT_TRUE(lab.until([&] { return !a.gone.empty(); }));
    EXPECT_EQ(a.gone[0], key);
}

TEST_P(DerperServer, TlsWithAPinnedSelfSignedCertificateStartsFast) {
    char dir[] = "/tmp/derper_test_XXXXXX";
    ASSERT_TRUE(mkdtemp(dir));
    Lab lab;
    const CertPaths paths = cert_paths(dir, "127.0.0.1");
    const auto load = [&] { return load_certificate(paths, "127.0.0.1", lab.key.public_key(), platform::read_wall_clock()); };
    ASSERT_TRUE(ensure_self_signed(paths, {"127.0.0.1"}, platform::read_wall_clock(), false));
    const std::string pin = load()->pin;
    ASSERT_TRUE(ensure_self_signed(paths, {"127.0.0.1"}, platform::read_wall_clock(), true));
    EXPECT_EQ(load()->pin, pin) << "made once";
    EXPECT_TRUE(load()->warnings.empty());
    lab.server->set_tls(load()->tls);

    const auto dial = [&](const std::string& cert_name) {
        auto options = platform::derp_tls_options("127.0.0.1", cert_name, false);
        EXPECT_TRUE(options);
        return connect_loopback(lab.server->port(), *platform::TlsSession::client(*options));
    };
    Client good(lab.loop), wrong(lab.loop);
    good.start(dial(pin));
    wrong.start(dial("sha256-raw:" + std::string(64, '0')));
    bool refused = false;
    ASSERT_TRUE(lab.until([&] {
        refused = !wrong.stream.is_open() || wrong.session.failed() || !wrong.error.empty();
        return good.session.connected();
    })) << good.error;
    EXPECT_TRUE(good.fast);
    EXPECT_EQ(good.session.server_key(), lab.key.public_key());
    EXPECT_FALSE(wrong.session.connected());
    for (const char* file : {"/127.0.0.1.crt", "/127.0.0.1.key"}) ::unlink((std::string(dir) + file).c_str());
    ::rmdir(dir);
}

TEST_P(DerperServer, HttpPagesAndRefusals) {
    Lab lab;
    EXPECT_TRUE(lab.get("GET /derp/latency-check HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 200"));
    EXPECT_TRUE(lab.get("GET /derp HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 426"));
    EXPECT_TRUE(lab.get("GET /bootstrap-dns HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 200"));
    EXPECT_TRUE(lab.get("nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
    // Two requests on one connection.
    Raw raw;
    raw.connect(lab.loop, lab.server->port());
    raw.stream.write("GET /robots.txt HTTP/1.1\r\nHost: x\r\n\r\nGET /generate_204 HTTP/1.1\r\nHost: x\r\n"
                     "Connection: close\r\n\r\n");
    ASSERT_TRUE(lab.until([&] { return raw.closed; }));
    EXPECT_NE(raw.got.find("Disallow: /"), std::string::npos);
    EXPECT_NE(raw.got.find("HTTP/1.1 204"), std::string::npos);
}

TEST_P(DerperServer, GarbageAfterTheUpgradeEndsOnlyThatConnection) {
    Lab lab;
    Raw raw;
    raw.connect(lab.loop, lab.server->port());
    raw.stream.write("GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n");
    raw.stream.write(std::string(1000, '\x02'));
    ASSERT_TRUE(lab.until([&] { return raw.closed; }));
    EXPECT_TRUE(raw.got.starts_with("HTTP/1.1 101"));
    Client c(lab.loop);
    c.start(connect_loopback(lab.server->port()));
    EXPECT_TRUE(lab.until([&] { return c.session.connected(); }));
}

TEST_P(DerperServer, AClientThatStopsReadingIsDroppedAndOthersGoOn) {
    Lab lab({}, milliseconds(200));
    Client sender(lab.loop), lazy(lab.loop);
    sender.start(connect_loopback(lab.server->port()));
    lazy.start(connect_loopback(lab.server->port()));
    ASSERT_TRUE(lab.until([&] { return sender.session.connected() && lazy.session.connected(); }));
    lazy.stream.set_reading(false);
    // More than any socket buffer on the way can hold.
    ASSERT_TRUE(lab.until([&] {
        for (int i = 0; i < 4; ++i) sender.send(lazy.key.public_key(), Bytes(60000, 1));
        return lab.server->connections() == 1;
    }));
    EXPECT_TRUE(lab.until([&] { return sender.gone.size() + lab.server->stats().dropped_unknown.total() > 0; }));
    sender.send(sender.key.public_key(), Bytes(10, 1));
    EXPECT_TRUE(lab.until([&] { return !sender.packets.empty(); }));
}

TEST_P(DerperServer, ManyConnectionsWithOneKeyTakeNothingAwayFromItsOwner) {
    Lab lab;
    Client a(lab.loop), b(lab.loop);
    a.start(connect_loopback(lab.server->port()));
    b.start(connect_loopback(lab.server->port()));
    ASSERT_TRUE(lab.until([&] { return a.session.connected() && b.session.connected(); }));
    b.send(a.key.public_key(), Bytes(10, 1));
    ASSERT_TRUE(lab.until([&] { return a.packets.size() == 1; }));
    std::vector<std::unique_ptr<Client>> twins;
    for (int i = 0; i < 30; ++i) {
        twins.push_back(std::make_unique<Client>(lab.loop, b.key));
        twins.back()->start(connect_loopback(lab.server->port()));
    }
    ASSERT_TRUE(lab.until([&] { return lab.server->connections() == 32 && twins.back()->session.connected(); }));
    EXPECT_EQ(lab.server->stats().clients, 2U);
    b.send(a.key.public_key(), Bytes(10, 2));  // who speaks is who gets the answers
    ASSERT_TRUE(lab.until([&] { return a.packets.size() == 2; }));
    a.send(b.key.public_key(), Bytes(10, 3));
    ASSERT_TRUE(lab.until([&] { return b.packets.size() == 1; }));
    twins.clear();
    ASSERT_TRUE(lab.until([&] { return lab.server->connections() == 2; }));
    EXPECT_TRUE(a.gone.empty()) << "its owner is still there";
    a.send(b.key.public_key(), Bytes(10, 4));
    ASSERT_TRUE(lab.until([&] { return b.packets.size() == 2; }));
}

TEST_P(DerperServer, ARateLimitSlowsAClientDownAndLosesNothing) {
    Lab lab({}, seconds(2), [](Server::Config& c) { c.rate.client = {1e6, 65568}; });
    Client a(lab.loop), b(lab.loop);
    a.start(connect_loopback(lab.server->port()));
    b.start(connect_loopback(lab.server->port()));
    ASSERT_TRUE(lab.until([&] { return a.session.connected() && b.session.connected(); }));
    const Time start = platform::read_clock();
    for (int i = 0; i < 10; ++i) a.send(b.key.public_key(), Bytes(20000, static_cast<uint8_t>(i)));
    ASSERT_TRUE(lab.until([&] { return b.packets.size() == 10; })) << b.packets.size();
    const double took = (platform::read_clock() - start).seconds();
    EXPECT_GT(took, 0.06) << "200 kB, of which 66 kB and one read were free";
    for (int i = 0; i < 10; ++i) a.send(b.key.public_key(), Bytes(20000, static_cast<uint8_t>(i)));
    lab.server->set_rate({});
    ASSERT_TRUE(lab.until([&] { return b.packets.size() == 20; }));
}

TEST_P(DerperServer, TheLimitOfAllTogetherHoldsBeyondEachClientsOwn) {
    Lab lab({}, seconds(2), [](Server::Config& c) { c.rate.all = {2e6, 65568}; });
    Client a(lab.loop), b(lab.loop), c(lab.loop);
    for (Client* x : {&a, &b, &c}) x->start(connect_loopback(lab.server->port()));
    ASSERT_TRUE(lab.until([&] { return a.session.connected() && b.session.connected() && c.session.connected(); }));
    const Time begin = platform::read_clock();
    for (int i = 0; i < 10; ++i)
        for (Client* x : {&a, &b}) x->send(c.key.public_key(), Bytes(20000, 1));
    ASSERT_TRUE(lab.until([&] { return c.packets.size() == 20; }));
    // 400 kB, of which 66 kB and a few reads are free.
    EXPECT_GE((platform::read_clock() - begin).millis(), 70);
}

TEST_P(DerperServer, WhoLeavesTellsClientsWhenToReturn) {
    Lab lab;
    Client a(lab.loop), b(lab.loop);
    Raw idle;
    a.start(connect_loopback(lab.server->port()));
    b.start(connect_loopback(lab.server->port()));
    idle.connect(lab.loop, lab.server->port());
    ASSERT_TRUE(lab.until([&] { return a.session.connected() && b.session.connected() && lab.server->connections() == 3; }));
    a.send(b.key.public_key(), Bytes(60000, 7));
    ASSERT_TRUE(lab.until([&] { return lab.server->stats().packets_in == 1; }));
    lab.server->leave();
    ASSERT_TRUE(lab.until([&] { return idle.closed && !a.error.empty() && !b.error.empty(); }));
    const auto heard = [](const Client& c) { return std::count(c.events.begin(), c.events.end(), Event::Kind::kRestarting); };
    EXPECT_EQ(heard(a), 1);
    EXPECT_EQ(heard(b), 1);
    EXPECT_EQ(b.packets.size(), 1U) << "what was queued still arrives";
    EXPECT_TRUE(a.gone.empty() && b.gone.empty()) << "nobody hears that the others left";
    a.stream.close();
    b.stream.close();
    EXPECT_TRUE(lab.until([&] { return lab.server->connections() == 0; }));
}

TEST_P(DerperServer, OfThoseWhoDoNotLogInTheOldestGoes) {
    Lab lab({}, seconds(2), [](Server::Config& c) { c.max_connections = 100; });
    Client client(lab.loop);
    client.start(connect_loopback(lab.server->port()));
    ASSERT_TRUE(lab.until([&] { return client.session.connected(); }));
    std::vector<Raw> idle(65);
    for (Raw& r : idle) r.connect(lab.loop, lab.server->port());
    ASSERT_TRUE(lab.until([&] { return idle[0].closed; }));
    EXPECT_FALSE(idle[1].closed);
    EXPECT_FALSE(idle[64].closed);
    Client late(lab.loop);
    late.start(connect_loopback(lab.server->port()));
    EXPECT_TRUE(lab.until([&] { return late.session.connected(); }));
    EXPECT_TRUE(client.error.empty());
}

TEST_P(DerperServer, ConnectionsAboveTheLimitAreClosedAtOnce) {
    Lab lab({}, seconds(2), [](Server::Config& c) {
        c.accept_rate = 0.001;
        c.accept_burst = 2;
    });
    Raw raw[3];
    for (Raw& r : raw) r.connect(lab.loop, lab.server->port());
    ASSERT_TRUE(lab.until([&] { return raw[2].closed; }));
    EXPECT_FALSE(raw[0].closed);
    EXPECT_FALSE(raw[1].closed);
}

TEST_P(DerperServer, MetricsAndDebugAreForThoseWhoMay) {
    Lab lab;
    Client c(lab.loop);
    c.start(connect_loopback(lab.server->port()));
    ASSERT_TRUE(lab.until([&] { return c.session.connected(); }));
    const auto get = [&](const std::string& path, const std::string& more = "") {
        Raw raw;
        raw.connect(lab.loop, lab.server->port());
        raw.stream.write("GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + more + "\r\n");
        EXPECT_TRUE(lab.until([&] { return raw.closed; }));
        return raw.got;
    };
    EXPECT_NE(get("/metrics").find("\nderp_clients_local 1\n"), std::string::npos);
    EXPECT_NE(get("/debug/varz").find("\nderp_accepts 1\n"), std::string::npos);
    EXPECT_TRUE(get("/debug/").starts_with("HTTP/1.1 200"));
    for (const char* path : {"/metrics", "/debug/", "/debug/varz"})
        EXPECT_TRUE(get(path, "X-Forwarded-For: 127.0.0.1\r\n").starts_with("HTTP/1.1 403"));
}

/// A browser's client: the same session inside masked WebSocket frames of odd sizes.
struct WebClient final : platform::ByteStream::Listener {
    platform::Loop& loop;
    SystemRandom random;
    NodePrivate key = NodePrivate::generate(random);
    derp::ClientSession session;
    std::string head;
    Bytes in;
    std::vector<Bytes> packets;
    platform::ByteStream stream;
    explicit WebClient(platform::Loop& l, NodePublic server) : loop(l), session(random, config()), server_key(server) {}
    NodePublic server_key;
    derp::ClientConfig config() {
        derp::ClientConfig c;
        c.node_key = key;
        return c;
    }
    void start(platform::ByteStream s) {
        stream = std::move(s);
        stream.attach(loop, *this);
        stream.write("GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: derp\r\n\r\n");
    }
    void on_bytes(MutByteSpan b) override {
        in.insert(in.end(), b.begin(), b.end());
        if (head.empty()) {
            const std::string text(as_text(in));
            const size_t end = text.find("\r\n\r\n");
            if (end == std::string::npos) return;
            head = text.substr(0, end);
            in.erase(in.begin(), in.begin() + static_cast<std::ptrdiff_t>(end + 4));
            // The session thinks it speaks HTTP itself; its request is thrown away.
            session.start({.host = "x", .fast_start_key = server_key}, loop.now());
            const std::string out(as_text(session.writable(loop.now())));
            session.wrote(out.size(), loop.now());
            put(as_bytes(out).subspan(out.find("\r\n\r\n") + 4));
        }
        while (in.size() >= 2) {
            size_t at = 2, len = in[1];
            if (len == 126) at = 4;
            if (in.size() < at) return;
            if (at == 4) len = load_be16(in.data() + 2);
            if (in.size() < at + len) return;
            if (in[0] == 0x82) session.feed(ByteSpan(in).subspan(at, len), loop.now());
            in.erase(in.begin(), in.begin() + static_cast<std::ptrdiff_t>(at + len));
        }
        while (const Event* e = session.next_event(loop.now()))
            if (e->kind == Event::Kind::kPacket) packets.push_back(to_bytes(e->packet));
        pump();
    }
    void on_closed(const Status&) override {}
    void put(ByteSpan bytes) {
        while (!bytes.empty()) {
            const size_t n = std::min<size_t>(bytes.size(), 77);
            Bytes frame = {0x82, static_cast<uint8_t>(0x80 | n), 1, 2, 3, 4};
            for (size_t i = 0; i < n; ++i) frame.push_back(static_cast<uint8_t>(bytes[i] ^ frame[2 + i % 4]));
            stream.write(frame);
            bytes = bytes.subspan(n);
        }
    }
    void pump() {
        for (ByteSpan w = session.writable(loop.now()); !w.empty(); w = session.writable(loop.now())) {
            put(w);
            session.wrote(w.size(), loop.now());
        }
    }
};

TEST_P(DerperServer, ABrowserExchangesPacketsOverWebSocket) {
    Lab lab;
    Client a(lab.loop);
    WebClient w(lab.loop, lab.key.public_key());
    a.start(connect_loopback(lab.server->port()));
    w.start(connect_loopback(lab.server->port()));
    ASSERT_TRUE(lab.until([&] { return a.session.connected() && w.session.connected(); })) << w.head;
    EXPECT_NE(w.head.find("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), std::string::npos) << w.head;
    w.session.send(a.key.public_key(), Bytes(1200, 7), lab.loop.now());
    w.pump();
    ASSERT_TRUE(lab.until([&] { return a.packets.size() == 1; }));
    EXPECT_EQ(a.packets[0], Bytes(1200, 7));
    a.send(w.key.public_key(), Bytes(1300, 8));
    ASSERT_TRUE(lab.until([&] { return w.packets.size() == 1; }));
    EXPECT_EQ(w.packets[0], Bytes(1300, 8));
}

/// A local API that answers every request with the given text.
struct FakeDaemon {
    struct Conn final : platform::ByteStream::Listener {
        FakeDaemon* daemon = nullptr;
        platform::ByteStream stream;
        void on_bytes(MutByteSpan b) override {
            daemon->asked += as_text(b);
            stream.write(daemon->answer);
        }
        void on_closed(const Status&) override {}
    };
    std::string asked, answer;
    std::vector<std::unique_ptr<Conn>> conns;
    std::unique_ptr<platform::Listener> listener;
    FakeDaemon(platform::Loop& loop, const std::string& path, std::string text) : answer(std::move(text)) {
        listener = *platform::Listener::unix_socket(loop, path, [this, &loop](platform::ByteStream s) {
            auto c = std::make_unique<Conn>();
            c->daemon = this;
            c->stream = std::move(s);
            c->stream.attach(loop, *c);
            conns.push_back(std::move(c));
        });
    }
};

TEST_P(DerperServer, VerifyClientsAdmitsOnlyWhomTheLocalDaemonKnows) {
    char dir[] = "/tmp/derper_test_XXXXXX";
    ASSERT_TRUE(mkdtemp(dir));
    const std::string path = std::string(dir) + "/sock";
    {
        Lab lab(path);
        auto alone = std::make_unique<Client>(lab.loop);
        alone->start(connect_loopback(lab.server->port()));
        ASSERT_TRUE(lab.until([&] { return alone->session.failed(); }));
        EXPECT_FALSE(alone->session.connected()) << "no daemon: nobody";

        FakeDaemon daemon(lab.loop, path, "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nnope\n");
        Client stranger(lab.loop);
        stranger.start(connect_loopback(lab.server->port()));
        ASSERT_TRUE(lab.until([&] { return stranger.session.failed(); }));
        EXPECT_EQ(stranger.error, "relay closed the connection");
        EXPECT_TRUE(daemon.asked.starts_with("GET /localapi/v0/whois?addr=nodekey%3A" +
                                             hex_encode(stranger.key.public_key().bytes()) + " HTTP/1.1\r\n"))
            << daemon.asked;
        EXPECT_NE(daemon.asked.find("Host: local-tailscaled.sock\r\n"), std::string::npos);

        daemon.answer = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"Node\":{}}";
        Client member(lab.loop);
        member.start(connect_loopback(lab.server->port()));
        EXPECT_TRUE(lab.until([&] { return member.session.connected(); })) << member.error;
    }
    ::rmdir(dir);
}

TEST_P(DerperServer, AListOfKeysAdmitsWhomItNamesAndCanBeReplaced) {
    Lab lab({}, seconds(2), [](Server::Config& c) { c.admission.allowed = std::make_shared<const KeySet>(); });
    Client first(lab.loop), second(lab.loop);
    first.start(connect_loopback(lab.server->port()));
    ASSERT_TRUE(lab.until([&] { return first.session.failed(); }));
    EXPECT_FALSE(first.session.connected());
    lab.server->set_allowed(std::make_shared<const KeySet>(KeySet{second.key.public_key()}));
    second.start(connect_loopback(lab.server->port()));
    EXPECT_TRUE(lab.until([&] { return second.session.connected(); })) << second.error;
    lab.server->set_allowed(std::make_shared<const KeySet>());
    EXPECT_TRUE(lab.until([&] { return second.session.failed() && lab.server->connections() == 0; })) << "taken from the list";
}

TEST(DerperAdmission, AUrlIsAskedAndTheOperatorSaysWhatItsSilenceMeans) {
    for (const bool open : {false, true}) {
        Lab lab;
        std::string asked;
        auto listener = *platform::Listener::tcp(lab.loop, {Addr::v4(127, 0, 0, 1), 0}, [](platform::ByteStream) {});
        const std::string url = "http://127.0.0.1:" + std::to_string(listener->port()) + "/admit";
        listener.reset();  // nobody answers there now
        platform::ResolverConfig rc;
        rc.protect = platform::Protect::kNo;
        platform::Resolver resolver(lab.loop, rc);
        platform::HttpClient http(lab.loop, resolver);
        AdmissionPolicy policy;
        policy.url = url;
        policy.url_fail_open = open;
        std::optional<Status> verdict;
        Admission admission(lab.loop, &http, policy, lab.key.public_key(), Addr::v4(1, 2, 3, 4), [&](Status s) { verdict = std::move(s); });
        EXPECT_FALSE(verdict);
        ASSERT_TRUE(lab.until([&] { return verdict.has_value(); }));
        EXPECT_EQ(verdict->has_value(), open);
    }
    NodePublic key;
    key.raw.fill(0xab);
    EXPECT_EQ(verify_url_body(key, Addr::v4(1, 2, 3, 4)), "{\"NodePublic\":\"" + key.text() + "\",\"Source\":\"1.2.3.4\"}");
    EXPECT_TRUE(judge_verify_answer(200, "{\"Allow\":true}"));
    EXPECT_FALSE(judge_verify_answer(200, "{\"Allow\":false}"));
    EXPECT_FALSE(judge_verify_answer(200, "true"));
    EXPECT_FALSE(judge_verify_answer(403, "{\"Allow\":true}"));
}

TEST(DerperAdmission, KeyListsAreReadByTheLine) {
    const std::string hex(64, 'a');
    const auto keys = parse_key_list("# team\n\n nodekey:" + hex + "  # laptop\r\nnodekey:" + std::string(64, 'b'));
    ASSERT_TRUE(keys);
    EXPECT_EQ(keys->size(), 2U);
    EXPECT_TRUE(parse_key_list("")->empty());
    EXPECT_NE(parse_key_list("nodekey:" + hex + "\nhello\n").error().message().find("line 2: \"hello\" is no node key"), std::string::npos);
    EXPECT_FALSE(parse_key_list("mkey:" + hex));
}

TEST(DerperWhois, AnswersAreJudgedClosed) {
    NodePublic key;
    key.raw.fill(1);
    http1::Response r;
    r.status = 200;
    r.body = "{\"Node\":{}}";
    EXPECT_TRUE(judge_whois(key, r));
    r.body = "hello";
    EXPECT_FALSE(judge_whois(key, r));
    r.status = 404;
    EXPECT_EQ(judge_whois(key, r).error().message(),
              "peer " + key.text() + " not authorized (not found in local tailscaled)");
    r.status = 500;
    EXPECT_FALSE(judge_whois(key, r));
    r.status = 400;
    r.body = "invalid 'addr' parameter\n";
    EXPECT_NE(judge_whois(key, r).error().message().find("too old"), std::string::npos);
}

TEST(DerperStun, AnswersOurRequestsWithTheirSource) {
    platform::Loop loop;
    const auto server = StunServer::open(loop, Addr::v4(127, 0, 0, 1), 0);
    ASSERT_TRUE(server) << server.error().message();
    const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const platform::UniqueFd owner(fd);
    sockaddr_storage to{};
    const socklen_t len = platform::to_sockaddr({Addr::v4(127, 0, 0, 1), (*server)->port()}, Addr::Family::kV4, to);
    const stun::TxId tx = {1, 2, 3};
    const auto request = stun::encode_request(tx);
    ::sendto(fd, "junk", 4, 0, reinterpret_cast<sockaddr*>(&to), len);
    ::sendto(fd, request.data(), request.size(), 0, reinterpret_cast<sockaddr*>(&to), len);
    platform::Timer wake(loop, [] {});
    uint8_t buf[100];
    ssize_t n = -1;
    for (int i = 0; i < 500 && n < 0; ++i) {
        wake.set_after(milliseconds(10));
        loop.run_once(true);
        n = ::recv(fd, buf, sizeof buf, 0);
    }
    ASSERT_EQ(n, 32);
    const auto r = stun::decode_response(ByteSpan(buf, static_cast<size_t>(n)));
    ASSERT_TRUE(r);
    EXPECT_EQ(r->tx, tx);
    sockaddr_storage mine{};
    socklen_t mine_len = sizeof mine;
    ::getsockname(fd, reinterpret_cast<sockaddr*>(&mine), &mine_len);
    EXPECT_EQ(r->mapped.port, platform::from_sockaddr(mine).port);
    EXPECT_EQ((*server)->ignored(), 1U);
}

TEST(DerperStun, AnswersFromTheAddressThatWasAsked) {
    platform::Loop loop;
    const auto server = StunServer::open(loop, Addr(), 0);
    ASSERT_TRUE(server) << server.error().message();
    for (const char* asked : {"127.0.0.2", "127.0.0.3", "::1"}) {
        const Addr addr = *Addr::parse(asked);
        const platform::UniqueFd fd(::socket(addr.is_v4() ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        sockaddr_storage to{};
        const socklen_t len = platform::to_sockaddr({addr, (*server)->port()}, Addr::Family::kV4, to);
        // A connected socket takes datagrams from that address only.
        if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&to), len) != 0 && !addr.is_v4()) continue;  // a host without IPv6
        const auto request = stun::encode_request({1, 2, 3});
        ASSERT_EQ(::send(fd.get(), request.data(), request.size(), 0), static_cast<ssize_t>(request.size())) << asked;
        platform::Timer wake(loop, [] {});
        uint8_t buf[100];
        ssize_t n = -1;
        for (int i = 0; i < 500 && n < 0; ++i) {
            wake.set_after(milliseconds(10));
            loop.run_once(true);
            n = ::recv(fd.get(), buf, sizeof buf, 0);
        }
        EXPECT_EQ(n, addr.is_v4() ? 32 : 44) << asked;
    }
}

}  // namespace
}  // namespace mesh::derper
