// SPDX-License-Identifier: BSD-3-Clause
#include "platform/net/udp_socket.h"

#include <cerrno>
#include <cstdlib>
#include <numeric>

#include "platform/test_support.h"

namespace mesh::platform {
namespace {

using testing::turn_until;

struct Sink : UdpSocket::Listener {
    std::vector<Bytes> datagrams;
    std::vector<Endpoint> from;
    std::vector<std::pair<Endpoint, int>> errors;
    size_t merged = 0;
    std::function<void()> then;

    void on_datagrams(std::span<UdpReceive> batch) override {
        for (const UdpReceive& r : batch) {
            if (r.stride < r.bytes.size()) ++merged;
            r.each([&](ByteSpan d) {
                datagrams.emplace_back(d.begin(), d.end());
                from.push_back(r.from);
            });
        }
        if (then) then();
    }
    void on_send_error(const Endpoint& to, int err) override { errors.emplace_back(to, err); }
};

using Sendmmsg = int (*)(int, mmsghdr*, unsigned, int);

std::unique_ptr<UdpSocket> open_local(Addr::Family family = Addr::Family::kV4, bool bulk = true,
                                      Sendmmsg sendmmsg = nullptr) {
    UdpSocket::Options o;
    o.family = family;
    o.bind_addr = family == Addr::Family::kV4 ? Addr::v4(127, 0, 0, 1) : *Addr::parse("::1");
    o.protect = Protect::kNo;
    o.bulk = bulk;
    o.sendmmsg = sendmmsg;
    auto s = UdpSocket::open(o);
    EXPECT_TRUE(s.has_value()) << (s ? "" : s.error().message());
    return s ? std::move(*s) : nullptr;
}

Bytes pattern(size_t n, uint8_t seed) {
    Bytes b(n);
    for (size_t i = 0; i < n; ++i) b[i] = static_cast<uint8_t>(seed + i * 7);
    return b;
}

/// Sends `total` bytes as datagrams of `segment` and checks that exactly these arrive, in order.
void echo(UdpSocket& from, UdpSocket& to, Loop& loop, Sink& sink, size_t total, size_t segment) {
    SCOPED_TRACE(::testing::Message() << total << " bytes in " << segment);
    sink.datagrams.clear();
    const Bytes data = pattern(total, static_cast<uint8_t>(segment));
    const UdpSend one{to.local_endpoint(), data, static_cast<uint32_t>(segment)};
    from.send(std::span(&one, 1));
    const size_t size = segment == 0 ? total : segment;
    const size_t expected = (total + size - 1) / size;
    ASSERT_TRUE(turn_until(loop, [&] { return sink.datagrams.size() >= expected; }));
    ASSERT_EQ(sink.datagrams.size(), expected);
    for (size_t i = 0; i < expected; ++i) {
        const auto want = ByteSpan(data).subspan(i * size, std::min(size, total - i * size));
        ASSERT_TRUE(std::equal(want.begin(), want.end(), sink.datagrams[i].begin(), sink.datagrams[i].end()));
    }
}

void echo_all_sizes(UdpSocket& a, UdpSocket& b, size_t largest) {
    Loop loop;
    Sink sink;
    b.attach(loop, sink);
    for (size_t n : {size_t{1}, size_t{2}, size_t{31}, size_t{148}, size_t{1280}, size_t{1452}, size_t{2000}, largest})
        echo(a, b, loop, sink, n, 0);
    for (size_t segment : {size_t{1}, size_t{16}, size_t{32}, size_t{148}, size_t{1000}, size_t{1280}, size_t{1420}})
        for (size_t count : {size_t{1}, size_t{2}, size_t{3}, size_t{45}, size_t{63}, size_t{64}, size_t{65}, size_t{130}}) {
            echo(a, b, loop, sink, segment * count, segment);
            if (segment > 1) echo(a, b, loop, sink, segment * count - 1, segment);
        }
    EXPECT_EQ(a.counters().tx_errors, 0U);
    EXPECT_EQ(a.counters().tx_full, 0U);
    EXPECT_EQ(a.counters().tx_datagrams, b.counters().rx_datagrams);
    EXPECT_EQ(a.counters().tx_bytes, b.counters().rx_bytes);
    b.detach();
}

TEST(UdpSocket, EchoesAllSizesOverIpv4) {
    auto a = open_local();
    auto b = open_local();
    echo_all_sizes(*a, *b, b->gro() ? 65507 : 9000);
}

TEST(UdpSocket, EchoesAllSizesOverIpv6) {
    auto a = open_local(Addr::Family::kV6);
    if (!a) GTEST_SKIP() << "no IPv6 here";
    auto b = open_local(Addr::Family::kV6);
    echo_all_sizes(*a, *b, 9000);
}

TEST(UdpSocket, EchoesAllSizesWithoutOffloads) {
    ::setenv("TS_DEBUG_DISABLE_UDP_GSO", "1", 1);
    ::setenv("TS_DEBUG_DISABLE_UDP_GRO", "1", 1);
    auto a = open_local();
    auto b = open_local();
    ::unsetenv("TS_DEBUG_DISABLE_UDP_GSO");
    ::unsetenv("TS_DEBUG_DISABLE_UDP_GRO");
    EXPECT_FALSE(a->gso());
    EXPECT_FALSE(b->gro());
    echo_all_sizes(*a, *b, 9000);
}

TEST(UdpSocket, JoinsConsecutiveSendsToOneEndpointAndKeepsEveryBorder) {
    Loop loop;
    auto a = open_local();
    auto b = open_local();
    auto c = open_local();
    Sink at_b, at_c;
    b->attach(loop, at_b);
    c->attach(loop, at_c);
    const Bytes x = pattern(3000, 1), y = pattern(1000, 2), z = pattern(400, 3), other = pattern(700, 4);
    const Endpoint to_b = b->local_endpoint();
    const Endpoint to_c = c->local_endpoint();
    const UdpSend batch[] = {{to_b, x, 1000}, {to_b, y, 0}, {to_b, z, 1000},  // one message, ended by the short one
                             {to_b, y, 1000}, {to_c, other, 0}, {to_b, other, 0}};
    a->send(batch);
    ASSERT_TRUE(turn_until(loop, [&] { return at_b.datagrams.size() == 7 && at_c.datagrams.size() == 1; }));
    std::vector<size_t> sizes;
    for (const Bytes& d : at_b.datagrams) sizes.push_back(d.size());
    EXPECT_EQ(sizes, (std::vector<size_t>{1000, 1000, 1000, 1000, 400, 1000, 700}));
    EXPECT_EQ(at_b.datagrams[4], z);
    EXPECT_EQ(at_c.datagrams[0], other);
    EXPECT_EQ(at_b.from[0], a->local_endpoint());
}

TEST(UdpSocket, MergesOnReceiveWhereTheKernelCan) {
    Loop loop;
    auto a = open_local();
    auto b = open_local();
    if (!a->gso() || !b->gro()) GTEST_SKIP() << "kernel without UDP offloads";
    Sink sink;
    b->attach(loop, sink);
    const Bytes data = pattern(40 * 1400, 9);
    const UdpSend one{b->local_endpoint(), data, 1400};
    a->send(std::span(&one, 1));
    ASSERT_TRUE(turn_until(loop, [&] { return sink.datagrams.size() == 40; }));
    EXPECT_GE(sink.merged, 1U);
}

TEST(UdpSocket, ReportsEveryFailingEndpointAndSendsTheRest) {
    Loop loop;
    auto a = open_local();
    auto b = open_local();
    Sink sink, errors;
    a->attach(loop, errors);
    b->attach(loop, sink);
    const Bytes data = pattern(100, 1);
    const Endpoint v6{*Addr::parse("::1"), 9};
    const Endpoint port_zero{Addr::v4(127, 0, 0, 1), 0};
    const UdpSend batch[] = {{v6, data, 0}, {b->local_endpoint(), data, 0}, {port_zero, data, 0}, {b->local_endpoint(), data, 0}};
    a->send(batch);
    ASSERT_TRUE(turn_until(loop, [&] { return sink.datagrams.size() == 2; }));
    ASSERT_EQ(errors.errors.size(), 2U);
    EXPECT_EQ(errors.errors[0].first, v6);
    EXPECT_EQ(errors.errors[1].first, port_zero);
    EXPECT_EQ(a->counters().tx_errors, 2U);
}

int refuse_segments(int fd, mmsghdr* messages, unsigned count, int flags, int err) {
    unsigned plain = 0;
    while (plain < count && messages[plain].msg_hdr.msg_controllen == 0) ++plain;
    if (plain > 0) return ::sendmmsg(fd, messages, plain, flags);
    errno = err;
    return -1;
}

/// Two batches of several messages each; every datagram must arrive.
void send_two_batches(UdpSocket& a) {
    Loop loop;
    auto b = open_local();
    Sink sink;
    b->attach(loop, sink);
    const Bytes x = pattern(10 * 1000 + 1, 1), y = pattern(500, 2);
    const Endpoint to = b->local_endpoint();
    const UdpSend batch[] = {{to, y, 0}, {to, x, 1000}, {to, y, 0}};
    a.send(batch);
    a.send(batch);
    ASSERT_TRUE(turn_until(loop, [&] { return sink.datagrams.size() == 26; }));
    EXPECT_EQ(a.counters().tx_datagrams, 26U);
    EXPECT_EQ(a.counters().tx_errors, 0U);
}

TEST(UdpSocket, TurnsSegmentationOffForGoodOnAnInputOutputErrorAndLosesNothing) {
    auto a = open_local(Addr::Family::kV4, true,
                        [](int fd, mmsghdr* m, unsigned n, int f) { return refuse_segments(fd, m, n, f, EIO); });
    if (!a->gso()) GTEST_SKIP() << "kernel without UDP_SEGMENT";
    send_two_batches(*a);
    EXPECT_FALSE(a->gso());
    EXPECT_EQ(a->counters().gso_turned_off, 1U);
}

TEST(UdpSocket, SendsOneByOneWhatIsTooLargeForThePathAndKeepsSegmentation) {
    auto a = open_local(Addr::Family::kV4, true,
                        [](int fd, mmsghdr* m, unsigned n, int f) { return refuse_segments(fd, m, n, f, EMSGSIZE); });
    if (!a->gso()) GTEST_SKIP() << "kernel without UDP_SEGMENT";
    send_two_batches(*a);
    EXPECT_TRUE(a->gso());
}

TEST(UdpSocket, GoesOnWhereAPartialSendStopped) {
    auto a = open_local(Addr::Family::kV4, true,
                        [](int fd, mmsghdr* m, unsigned, int f) { return ::sendmmsg(fd, m, 1, f); });
    send_two_batches(*a);
}

TEST(UdpSocket, DropsAndCountsWhenTheKernelsBufferStaysFull) {
    auto a = open_local(Addr::Family::kV4, true, [](int, mmsghdr*, unsigned, int) {
        errno = EAGAIN;
        return -1;
    });
    const Bytes y = pattern(500, 2);
    const UdpSend batch[] = {{{Addr::v4(127, 0, 0, 1), 9}, y, 0}, {{Addr::v4(127, 0, 0, 1), 10}, y, 0}};
    a->send(batch);
    EXPECT_EQ(a->counters().tx_full, 2U);
    EXPECT_EQ(a->counters().tx_datagrams, 0U);
}

TEST(UdpSocket, TakesAnotherPortWhenTheWantedOneIsTaken) {
    auto a = open_local();
    UdpSocket::Options o;
    o.bind_addr = Addr::v4(127, 0, 0, 1);
    o.port = a->local_port();
    o.protect = Protect::kNo;
    const auto b = UdpSocket::open(o);
    ASSERT_TRUE(b.has_value());
    EXPECT_NE((*b)->local_port(), a->local_port());
    o.exact_port = true;
    const auto c = UdpSocket::open(o);
    ASSERT_FALSE(c.has_value());
    EXPECT_EQ(c.error().sys_errno, EADDRINUSE);
}

TEST(UdpSocket, DropsAndCountsWhatIsLargerThanItsBuffers) {
    Loop loop;
    auto a = open_local();
    auto b = open_local(Addr::Family::kV4, false);
    Sink sink;
    b->attach(loop, sink);
    const Bytes big = pattern(5000, 1), small = pattern(10, 1);
    a->send(b->local_endpoint(), big);
    a->send(b->local_endpoint(), small);
    ASSERT_TRUE(turn_until(loop, [&] { return !sink.datagrams.empty(); }));
    EXPECT_EQ(sink.datagrams[0], small);
    EXPECT_EQ(b->counters().rx_truncated, 1U);
}

TEST(UdpSocket, MayBeDestroyedWhileItDelivers) {
    Loop loop;
    auto a = open_local();
    auto b = open_local();
    Sink sink;
    sink.then = [&] { b.reset(); };
    b->attach(loop, sink);
    const Endpoint to = b->local_endpoint();
    for (int i = 0; i < 20; ++i) a->send(to, pattern(100, 1));
    ASSERT_TRUE(turn_until(loop, [&] { return !b; }));
}

}  // namespace
}  // namespace mesh::platform
