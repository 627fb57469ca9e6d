// SPDX-License-Identifier: BSD-3-Clause
#include "platform/net/dialer.h"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "platform/net/listener.h"
#include "platform/test_support.h"

namespace mesh::platform {
namespace {

using ::testing::HasSubstr;
using testing::no_dns;
using testing::Recorder;
using testing::self_signed;
using testing::TempFolder;
using testing::turn_until;

const Endpoint kLoopback{Addr::v4(127, 0, 0, 1), 0};

/// Accepts everything, with TLS if given a certificate; echoes what comes.
struct EchoServer {
    struct Connection : ByteStream::Listener {
        ByteStream stream;
        void on_bytes(MutByteSpan bytes) override { stream.write(bytes); }
        void on_closed(const Status&) override { stream.close(); }
    };
    std::vector<std::unique_ptr<Connection>> connections;
    std::shared_ptr<const TlsServerContext> tls;
    std::unique_ptr<Listener> listener;

    explicit EchoServer(Loop& loop, const CertificateAndKey* cert = nullptr) {
        if (cert != nullptr) tls = *TlsServerContext::create(cert->cert_pem, cert->key_pem);
        auto made = Listener::tcp(loop, kLoopback, [this, &loop](ByteStream s) {
            if (tls) s.start_tls(std::move(*TlsSession::server(tls)));
            connections.push_back(std::make_unique<Connection>());
            connections.back()->stream = std::move(s);
            connections.back()->stream.attach(loop, *connections.back());
        });
        EXPECT_TRUE(made.has_value());
        listener = std::move(*made);
    }
};

struct Outcome {
    std::optional<Result<ByteStream>> result;
    Dialer::Callback callback() {
        return [this](Result<ByteStream> r) { result.emplace(std::move(r)); };
    }
    [[nodiscard]] std::string error() const { return !result ? "none" : *result ? "ok" : result->error().message(); }
};

DialOptions plain() {
    DialOptions o;
    o.protect = Protect::kNo;
    return o;
}

uint16_t unused_port() {
    Loop loop;
    return (*Listener::tcp(loop, kLoopback, [](ByteStream) {}))->port();
}

TEST(Dialer, ConnectsAndHandsOverADetachedStream) {
    Loop loop;
    EchoServer server(loop);
    Resolver resolver(loop, no_dns());
    Dialer dialer(loop, resolver);
    Outcome o;
    const auto dial = dialer.dial("127.0.0.1", server.listener->port(), plain(), o.callback());
    EXPECT_FALSE(o.result);
    ASSERT_TRUE(turn_until(loop, [&] { return o.result.has_value(); }));
    ASSERT_TRUE(o.result->has_value()) << o.error();
    ByteStream stream = std::move(**o.result);
    EXPECT_FALSE(stream.attached());
    EXPECT_EQ(stream.remote_endpoint().port, server.listener->port());
    Recorder r;
    stream.attach(loop, r);
    stream.write("echo");
    ASSERT_TRUE(turn_until(loop, [&] { return r.text == "echo"; }));
}

TEST(Dialer, SaysHostPortAndCauseWhenRefused) {
    Loop loop;
    Resolver resolver(loop, no_dns());
    Dialer dialer(loop, resolver);
    Outcome o;
    const uint16_t port = unused_port();
    const auto dial = dialer.dial("127.0.0.1", port, plain(), o.callback());
    ASSERT_TRUE(turn_until(loop, [&] { return o.result.has_value(); }));
    EXPECT_EQ(o.error(), "127.0.0.1:" + std::to_string(port) + ": connection refused (127.0.0.1)");
}

TEST(Dialer, GoesOnToTheNextAddressAtOnceWhenOneFails) {
    Loop loop;
    EchoServer server(loop);
    Resolver resolver(loop, no_dns());
    Dialer dialer(loop, resolver);
    Outcome o;
    DialOptions options = plain();
    options.stagger = seconds(60);
    options.addresses = {Addr::v4(127, 0, 0, 2), Addr::v4(127, 0, 0, 1)};  // nobody listens on the first
    const auto dial = dialer.dial("relay.example", server.listener->port(), options, o.callback());
    ASSERT_TRUE(turn_until(loop, [&] { return o.result.has_value(); }));
    EXPECT_TRUE(o.result->has_value()) << o.error();
}

TEST(Dialer, HandshakesTlsByThePinAndByTheHostsName) {
    const auto cert = self_signed({"127.0.0.1", "relay.example"});
    Loop loop;
    EchoServer server(loop, &cert);
    Resolver resolver(loop, no_dns());
    Dialer dialer(loop, resolver);
    Outcome pinned, refused, named;
    DialOptions options = plain();
    options.tls = *derp_tls_options("127.0.0.1", "sha256-raw:" + hex_encode(cert.sha256), false);
    const auto d1 = dialer.dial("127.0.0.1", server.listener->port(), options, pinned.callback());
    options.tls = TlsClientOptions{};
    const auto d2 = dialer.dial("127.0.0.1", server.listener->port(), options, refused.callback());
    options.addresses = {Addr::v4(127, 0, 0, 1)};
    options.tls->extra_roots_pem = cert.cert_pem;
    const auto d3 = dialer.dial("relay.example", server.listener->port(), options, named.callback());
    ASSERT_TRUE(turn_until(loop, [&] { return pinned.result && refused.result && named.result; }));
    ASSERT_TRUE(pinned.result->has_value()) << pinned.error();
    EXPECT_TRUE(named.result->has_value()) << named.error();
    EXPECT_THAT(refused.error(), HasSubstr("self-signed"));
    EXPECT_THAT(refused.error(), HasSubstr("127.0.0.1:"));
    ByteStream stream = std::move(**pinned.result);
    ASSERT_NE(stream.tls(), nullptr);
    EXPECT_EQ(stream.tls()->version(), "TLSv1.3");
    Recorder r;
    stream.attach(loop, r);
    stream.write("echo");
    ASSERT_TRUE(turn_until(loop, [&] { return r.text == "echo"; }));
}

TEST(Dialer, TimesOutOnAServerThatNeverHandshakes) {
    Loop loop;
    std::vector<ByteStream> held;
    auto silent = Listener::tcp(loop, kLoopback, [&](ByteStream s) { held.push_back(std::move(s)); });
    Resolver resolver(loop, no_dns());
    Dialer dialer(loop, resolver);
    Outcome o;
    DialOptions options = plain();
    options.timeout = milliseconds(80);
    options.tls = TlsClientOptions{};
    const auto dial = dialer.dial("127.0.0.1", (*silent)->port(), options, o.callback());
    ASSERT_TRUE(turn_until(loop, [&] { return o.result.has_value(); }));
    EXPECT_THAT(o.error(), HasSubstr("timed out"));
    EXPECT_EQ(o.result->error().code, Code::kTimeout);
}

TEST(Dialer, CancelsWhenTheDialIsDestroyedAndMayBeDestroyedInItsCallback) {
    Loop loop;
    EchoServer server(loop);
    Resolver resolver(loop, no_dns());
    Dialer dialer(loop, resolver);
    Outcome cancelled;
    dialer.dial("127.0.0.1", server.listener->port(), plain(), cancelled.callback()).reset();
    std::unique_ptr<Dial> dial;
    bool called = false;
    dial = dialer.dial("127.0.0.1", server.listener->port(), plain(), [&](Result<ByteStream>) {
        dial.reset();
        called = true;
    });
    ASSERT_TRUE(turn_until(loop, [&] { return called; }));
    EXPECT_FALSE(cancelled.result);
}

TEST(DialOrder, AlternatesFamiliesAndKeepsToTheWantedOne) {
    const Addr a4 = Addr::v4(1, 1, 1, 1), b4 = Addr::v4(2, 2, 2, 2);
    const Addr a6 = *Addr::parse("2001:db8::1"), b6 = *Addr::parse("2001:db8::2"), c6 = *Addr::parse("2001:db8::3");
    const std::vector<Addr> all{a4, b4, a6, b6, c6};
    using F = DialOptions::Family;
    EXPECT_EQ(dial_order(all, F::kAny), (std::vector<Addr>{a6, a4, b6, b4, c6}));
    EXPECT_EQ(dial_order(all, F::kPreferV4), (std::vector<Addr>{a4, a6, b4, b6, c6}));
    EXPECT_EQ(dial_order(all, F::kOnlyV4), (std::vector<Addr>{a4, b4}));
    EXPECT_EQ(dial_order(all, F::kOnlyV6), (std::vector<Addr>{a6, b6, c6}));
}

// ---- Unix sockets

TEST(UnixListener, MakesItsFolderServesEveryoneAndCleansUp) {
    const TempFolder folder;
    const std::string path = folder.path + "/run/app/app.sock";
    Loop loop;
    std::optional<ByteStream> accepted;
    {
        auto listener = Listener::unix_socket(loop, path, [&](ByteStream s) { accepted.emplace(std::move(s)); });
        ASSERT_TRUE(listener.has_value()) << listener.error().message();
        struct stat st{};
        ASSERT_EQ(::stat(path.c_str(), &st), 0);
        EXPECT_EQ(st.st_mode & 0777U, 0666U);
        auto client = unix_connect(path);
        ASSERT_TRUE(client.has_value()) << client.error().message();
        ASSERT_TRUE(turn_until(loop, [&] { return accepted.has_value(); }));
        EXPECT_EQ(accepted->peer_credentials()->pid, ::getpid());
    }
    EXPECT_NE(::access(path.c_str(), F_OK), 0);
    EXPECT_EQ(unix_connect(path).error().code, Code::kNotFound);
}

TEST(UnixListener, ReplacesADeadSocketButNotALiveOne) {
    const TempFolder folder;
    const std::string path = folder.path + "/app.sock";
    Loop loop;
    auto live = Listener::unix_socket(loop, path, [](ByteStream) {});
    ASSERT_TRUE(live.has_value());
    const auto second = Listener::unix_socket(loop, path, [](ByteStream) {});
    ASSERT_FALSE(second.has_value());
    EXPECT_THAT(second.error().message(), HasSubstr("address already in use"));
    // What a killed process leaves: the file without anybody behind it.
    const std::string aside = folder.path + "/aside";
    ASSERT_EQ(::rename(path.c_str(), aside.c_str()), 0);
    live->reset();
    ASSERT_EQ(::rename(aside.c_str(), path.c_str()), 0);
    EXPECT_EQ(unix_connect(path).error().code, Code::kUnavailable);
    const auto third = Listener::unix_socket(loop, path, [](ByteStream) {});
    EXPECT_TRUE(third.has_value()) << third.error().message();
}

TEST(UnixListener, LeavesOtherFilesAlone) {
    const TempFolder folder;
    const std::string path = folder.path + "/app.sock";
    std::ofstream(path) << "precious";
    Loop loop;
    const auto listener = Listener::unix_socket(loop, path, [](ByteStream) {});
    ASSERT_FALSE(listener.has_value());
    EXPECT_EQ(::access(path.c_str(), F_OK), 0);
    EXPECT_FALSE(Listener::unix_socket(loop, std::string(200, 'x'), [](ByteStream) {}).has_value());
}

TEST(TcpListener, MayBeDestroyedInItsCallbackAndSaysWhenThePortIsTaken) {
    Loop loop;
    std::unique_ptr<Listener> listener;
    auto made = Listener::tcp(loop, kLoopback, [&](ByteStream) { listener.reset(); });
    ASSERT_TRUE(made.has_value());
    listener = std::move(*made);
    const uint16_t port = listener->port();
    const auto again = Listener::tcp(loop, {kLoopback.addr, port}, [](ByteStream) {});
    ASSERT_FALSE(again.has_value());
    EXPECT_THAT(again.error().message(), HasSubstr("127.0.0.1:" + std::to_string(port)));
    Resolver resolver(loop, no_dns());
    Dialer dialer(loop, resolver);
    Outcome a, b;
    const auto d1 = dialer.dial("127.0.0.1", port, plain(), a.callback());
    const auto d2 = dialer.dial("127.0.0.1", port, plain(), b.callback());
    ASSERT_TRUE(turn_until(loop, [&] { return !listener; }));
}

}  // namespace
}  // namespace mesh::platform
