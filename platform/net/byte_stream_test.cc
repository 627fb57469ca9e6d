// SPDX-License-Identifier: BSD-3-Clause
#include "platform/net/byte_stream.h"

#include <unistd.h>

#include <atomic>

#include "platform/loop/channel.h"
#include "platform/test_support.h"

namespace mesh::platform {
namespace {

using ::testing::HasSubstr;
using testing::LoopThread;
using testing::Recorder;
using testing::self_signed;
using testing::socket_pair;
using testing::turn_until;

struct Pair {
    ByteStream a, b;
    static Pair plain() {
        auto [x, y] = socket_pair();
        return {ByteStream(std::move(x)), ByteStream(std::move(y))};
    }
    static Pair tls(TlsVerify verify = TlsVerify::kInsecure) {
        static const CertificateAndKey cert = self_signed({"relay.example"});
        auto [x, y] = socket_pair();
        auto context = TlsServerContext::create(cert.cert_pem, cert.key_pem);
        TlsClientOptions o;
        o.server_name = "relay.example";
        o.verify = verify;
        auto client = TlsSession::client(o);
        auto server = TlsSession::server(*context);
        return {ByteStream(std::move(x), std::move(*client)), ByteStream(std::move(y), std::move(*server))};
    }
};

TEST(ByteStream, CarriesBytesAndTheEnd) {
    Loop loop;
    Recorder at_a, at_b;
    Pair p = Pair::plain();
    p.a.attach(loop, at_a);
    p.b.attach(loop, at_b);
    EXPECT_TRUE(p.a.write("hello "));
    EXPECT_TRUE(p.a.write_later(as_bytes("world")));
    p.a.finish_writing();
    EXPECT_FALSE(p.a.write("too late"));
    ASSERT_TRUE(turn_until(loop, [&] { return at_b.closed; }));
    EXPECT_EQ(at_b.text, "hello world");
    EXPECT_FALSE(at_b.error);
    EXPECT_TRUE(p.b.write("answer after the end"));  // half-closed: the other direction still works
    ASSERT_TRUE(turn_until(loop, [&] { return at_a.text == "answer after the end"; }));
    p.b.close();
    ASSERT_TRUE(turn_until(loop, [&] { return at_a.closed; }));
}

TEST(ByteStream, QueueHasALimitAndTellsWhenItIsEmptyAgain) {
    Loop loop;
    Recorder at_a, at_b;
    Pair p = Pair::plain();
    p.a.set_queue_limit(1 << 20);
    p.a.attach(loop, at_a);
    const Bytes block(64 << 10, 'x');
    size_t sent = 0;
    while (p.a.write(block)) sent += block.size();
    EXPECT_LE(p.a.queued_bytes(), size_t{1} << 20);
    EXPECT_GT(p.a.queued_bytes(), size_t{900} << 10);
    p.b.attach(loop, at_b);
    ASSERT_TRUE(turn_until(loop, [&] { return at_a.drained && at_b.text.size() == sent; }));
    EXPECT_EQ(p.a.queued_bytes(), 0U);
}

TEST(ByteStream, ReportsABrokenConnectionOnceAndCloses) {
    Loop loop;
    Recorder at_a;
    Pair p = Pair::plain();
    p.b.close();
    EXPECT_FALSE(p.b.is_open());
    p.a.set_reading(false);
    p.a.attach(loop, at_a);
    p.a.write("into the void");
    int reports = 0;
    at_a.then = [&] { ++reports; };
    ASSERT_TRUE(turn_until(loop, [&] { return at_a.closed; }));
    EXPECT_TRUE(at_a.error.has_value());
    EXPECT_FALSE(p.a.is_open());
    EXPECT_FALSE(p.a.write("more"));
    for (int i = 0; i < 3; ++i) loop.run_once(false);
    EXPECT_EQ(reports, 1);
}

TEST(ByteStream, MayBeDestroyedInEveryCallback) {
    for (const bool tls : {false, true})
        for (int kind = 0; kind < 4; ++kind) {
            SCOPED_TRACE(::testing::Message() << "tls " << tls << " kind " << kind);
            Loop loop;
            Recorder at_a, at_b;
            Pair p = tls ? Pair::tls() : Pair::plain();
            auto b = std::make_unique<ByteStream>(std::move(p.b));
            at_b.then = [&] {
                const bool now = kind == 0   ? at_b.ready || !tls
                                 : kind == 1 ? !at_b.text.empty()
                                 : kind == 2 ? at_b.closed
                                             : at_b.drained;
                if (now) b.reset();
            };
            p.a.attach(loop, at_a);
            b->attach(loop, at_b);
            if (kind == 3) {
                const Bytes big(2 << 20, 'y');
                ASSERT_TRUE(b->write(big));
            }
            p.a.write(std::string(100'000, 'z'));
            if (kind == 2) p.a.finish_writing();
            ASSERT_TRUE(turn_until(loop, [&] { return !b; }));
        }
}

TEST(ByteStream, GivesBytesBackInOrder) {
    Loop loop;
    Pair p = Pair::plain();
    struct FirstByteOnly : Recorder {
        ByteStream* stream = nullptr;
        std::string first;
        void on_bytes(MutByteSpan bytes) override {
            if (first.empty()) {
                first = as_text(bytes.first(1));
                stream->unread(bytes.subspan(1));
            } else {
                Recorder::on_bytes(bytes);
            }
        }
    } at_b;
    at_b.stream = &p.b;
    p.b.attach(loop, at_b);
    p.a.write("abc");
    ASSERT_TRUE(turn_until(loop, [&] { return at_b.text.size() == 2; }));
    EXPECT_EQ(at_b.first + at_b.text, "abc");
}

TEST(ByteStream, StopsAndResumesReading) {
    for (const bool tls : {false, true}) {
        Loop loop;
        Recorder at_a, at_b;
        Pair p = tls ? Pair::tls() : Pair::plain();
        p.a.attach(loop, at_a);
        p.b.attach(loop, at_b);
        at_b.then = [&] {
            if (!at_b.text.empty()) p.b.set_reading(false);
        };
        p.a.write(std::string(200'000, 'r'));
        ASSERT_TRUE(turn_until(loop, [&] { return !at_b.text.empty(); }));
        const size_t got = at_b.text.size();
        for (int i = 0; i < 5; ++i) loop.run_once(false);
        EXPECT_EQ(at_b.text.size(), got);
        at_b.then = {};
        p.b.set_reading(true);
        ASSERT_TRUE(turn_until(loop, [&] { return at_b.text.size() == 200'000; }));
    }
}

TEST(ByteStream, QueuesWhatIsWrittenBeforeTheTlsHandshake) {
    Loop loop;
    Recorder at_a, at_b;
    Pair p = Pair::tls();
    EXPECT_TRUE(p.a.write("early"));
    p.a.attach(loop, at_a);
    p.b.attach(loop, at_b);
    ASSERT_TRUE(turn_until(loop, [&] { return at_b.text == "early"; }));
    EXPECT_TRUE(at_a.ready);
    EXPECT_TRUE(at_b.ready);
    p.a.finish_writing();
    ASSERT_TRUE(turn_until(loop, [&] { return at_b.closed; }));
    EXPECT_FALSE(at_b.error);
}

TEST(ByteStream, SaysWhyTlsFailed) {
    Loop loop;
    Recorder at_a, at_b;
    Pair p = Pair::tls(TlsVerify::kSystem);
    p.a.attach(loop, at_a);
    p.b.attach(loop, at_b);
    ASSERT_TRUE(turn_until(loop, [&] { return at_a.closed && at_b.closed; }));
    ASSERT_TRUE(at_a.error.has_value());
    EXPECT_THAT(at_a.error->message(), HasSubstr("self-signed"));
    ASSERT_TRUE(at_b.error.has_value());
    EXPECT_FALSE(at_a.ready);
}

TEST(ByteStream, NamesThePeerOfAUnixSocket) {
    Pair p = Pair::plain();
    const auto who = p.a.peer_credentials();
    ASSERT_TRUE(who.has_value());
    EXPECT_EQ(who->uid, ::getuid());
    EXPECT_EQ(who->pid, ::getpid());
    EXPECT_FALSE(p.a.remote_endpoint().is_valid());
}

/// Handshake and first bytes on one loop, the rest on another, in another thread, with bytes left over at the border.
TEST(ByteStream, MovesBetweenLoopsInTwoThreadsWithItsLeftovers) {
    for (const bool tls : {false, true}) {
        SCOPED_TRACE(tls);
        Loop control;
        Pair p = tls ? Pair::tls() : Pair::plain();
        Recorder at_a;
        std::atomic<bool> all_there{false};

        struct PacketSide : ByteStream::Listener {
            ByteStream stream;
            std::string text;
            std::atomic<bool>* done = nullptr;
            void on_bytes(MutByteSpan bytes) override {
                text += as_text(bytes);
                if (text.size() == 4 + 300'000) {
                    stream.write("thanks");
                    *done = true;
                }
            }
            void on_closed(const Status&) override {}
        } packet;
        packet.done = &all_there;

        std::unique_ptr<Channel<ByteStream>> road;
        Channel<ByteStream>::Sender sender;
        std::atomic<bool> up{false};
        LoopThread thread(
            [&](Loop& loop) {
                road = std::make_unique<Channel<ByteStream>>(loop, 4, [&](ByteStream&& s) {
                    packet.stream = std::move(s);
                    packet.stream.attach(loop, packet);
                });
                sender = road->sender();
                up = true;
            },
            [&] {
                packet.stream.close();
                road.reset();
            });

        struct ControlSide : ByteStream::Listener {
            ByteStream stream;
            std::string head;
            Channel<ByteStream>::Sender* to = nullptr;
            bool gone = false;
            void on_bytes(MutByteSpan bytes) override {
                head += as_text(bytes.first(3));  // as if three bytes were the end of an HTTP upgrade
                stream.unread(bytes.subspan(3));
                stream.detach();
                gone = true;
                EXPECT_TRUE(to->push(std::move(stream)));
            }
            void on_closed(const Status&) override {}
        } first;
        while (!up) std::this_thread::yield();
        first.to = &sender;
        first.stream = std::move(p.b);
        p.a.attach(control, at_a);
        first.stream.attach(control, first);
        p.a.write("101rest");
        ASSERT_TRUE(turn_until(control, [&] { return first.gone; }));
        for (int i = 0; i < 300; ++i) ASSERT_TRUE(p.a.write(std::string(1000, 'd')));
        ASSERT_TRUE(turn_until(control, [&] { return at_a.text == "thanks"; }));
        thread.join();
        EXPECT_TRUE(all_there);
        EXPECT_EQ(first.head, "101");
        EXPECT_EQ(packet.text.substr(0, 5), "restd");
    }
}

}  // namespace
}  // namespace mesh::platform
