// SPDX-License-Identifier: BSD-3-Clause
// The stack against itself: what it sends comes back to it over a link that loses, delays and reorders, so that each connection
// has both its ends here.
#include "netstack/user/user_stack.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>

#include "netstack/test_packets.h"

namespace mesh::netstack {
namespace {

using test::build;
using test::Spec;

const Addr kSelf4 = *Addr::parse("100.64.0.1");
const Addr kSelf6 = *Addr::parse("fd7a:115c:a1e0::1");

Bytes pattern(size_t n, uint64_t seed) {
    Bytes b(n);
    SeededRandom(seed).fill(b);
    return b;
}

class World : public UserStack::Listener {
   public:
    struct End {
        FlowId flow;
        Endpoint remote, local;
        Bytes got, to_send;
        size_t sent = 0, unread = 0;
        bool connected = false, finished = false, gone = false, finish_when_sent = false;
        UserStack::Gone why{};
    };
    explicit World(uint64_t seed, size_t mtu = 1280) : random(seed), stack(random, *this, mtu) { stack.set_self({kSelf4, kSelf6}); }

    // ---- what happens
    void on_flow(FlowId flow, const Endpoint& remote, const Endpoint& local) override {
        asked.push_back(flow);
        End& e = ends[key(flow)];
        e.flow = flow;
        e.remote = remote;
        e.local = local;
        if (accepting) accepted += stack.accept(flow, now) ? 1U : 0U;
        if (refusing) stack.refuse(flow);
    }
    void on_connected(FlowId flow) override {
        end(flow).connected = true;
        pump(flow);
    }
    void on_bytes(FlowId flow, ByteSpan bytes) override {
        End& e = end(flow);
        e.got.insert(e.got.end(), bytes.begin(), bytes.end());
        if (reading)
            stack.consumed(flow, bytes.size());
        else
            e.unread += bytes.size();
    }
    void on_writable(FlowId flow) override { pump(flow); }
    void on_peer_finished(FlowId flow) override { end(flow).finished = true; }
    void on_gone(FlowId flow, UserStack::Gone why) override {
        EXPECT_FALSE(stack.is_open(flow));
        end(flow).gone = true;
        end(flow).why = why;
    }
    void on_datagram(const Endpoint& remote, const Endpoint& local, ByteSpan payload) override {
        datagrams.push_back(remote.str() + ">" + local.str() + ":" + std::string(as_text(payload)));
    }
    void on_ping(ByteSpan, const Parsed& p) override { pings.push_back(p.dst); }
    void on_output() override { ++outputs; }

    // ---- the link
    /// Packets that left are lost, or arrive after `delay` and up to `jitter` more. Time goes on to the next event.
    void step() {
        for (const TunRead& r : stack.take()) {
            longest = std::max(longest, r.bytes.size());
            if (random.below(1000) < loss) continue;
            link.emplace(now + delay + milliseconds(jitter > 0 ? random.below(jitter) : 0), to_bytes(r.bytes));
        }
        Time next = stack.next_timeout();
        if (!link.empty()) next = std::min(next, link.begin()->first);
        if (next.is_never()) {
            now = now + milliseconds(10);
            return;
        }
        now = std::max(now, next);
        while (!link.empty() && link.begin()->first <= now) {
            const Bytes packet = std::move(link.begin()->second);
            link.erase(link.begin());
            stack.input(packet, now);
        }
        stack.dispatch();
        stack.handle_timeout(now);
    }
    template <class Until>
    bool run(Until until, Duration limit = seconds(120)) {
        const Time end_at = now + limit;
        while (!until()) {
            if (now >= end_at) return false;
            step();
        }
        return true;
    }
    void pump(FlowId flow) {
        End& e = end(flow);
        e.sent += stack.write(flow, ByteSpan(e.to_send).subspan(e.sent), now);
        if (e.sent == e.to_send.size() && e.finish_when_sent) stack.finish(flow, now);
    }
    End& end(FlowId flow) { return ends.at(key(flow)); }
    FlowId connect(const Addr& self, uint16_t port = 80) {
        const auto flow = stack.connect(self, {self, port}, now);
        EXPECT_TRUE(flow.has_value());
        ends[key(*flow)].flow = *flow;
        return *flow;
    }
    void inject(const Bytes& packet) {
        stack.input(packet, now);
        stack.dispatch();
    }
    std::vector<Parsed> sent() {
        std::vector<Parsed> out;
        for (const TunRead& r : stack.take()) {
            Parsed p;
            EXPECT_TRUE(parse(r.bytes, p));
            EXPECT_TRUE(l4_ok(r.bytes, p));
            out.push_back(p);
        }
        return out;
    }
    static bool l4_ok(ByteSpan packet, const Parsed& p) {
        Bytes copy = to_bytes(packet);
        uint8_t* field = copy.data() + p.ip_len + (p.proto == kProtoTcp ? 16 : p.proto == kProtoUdp ? 6 : 2);
        const uint16_t had = load_be16(field);
        store_be16(field, 0);
        return p.proto != kProtoTcp || had == test::naive_l4_checksum(copy, p.ip_len, p.proto);
    }
    static uint64_t key(FlowId f) { return uint64_t{f.slot} << 32 | f.generation; }

    SeededRandom random;
    Time now{1'000'000'000};
    bool accepting = true, refusing = false, reading = true;
    Duration delay = milliseconds(10);
    uint32_t loss = 0, jitter = 0;  // per mille; ms
    std::multimap<Time, Bytes> link;
    std::map<uint64_t, End> ends;
    std::vector<FlowId> asked;
    std::vector<std::string> datagrams;
    std::vector<Addr> pings;
    size_t outputs = 0, accepted = 0, longest = 0;
    UserStack stack;
};

/// Both ways at once, then both ends finish.
void transfer(World& w, const Addr& self, size_t bytes) {
    const FlowId client = w.connect(self);
    World::End& c = w.end(client);
    c.to_send = pattern(bytes, 1);
    c.finish_when_sent = true;
    ASSERT_TRUE(w.run([&] { return !w.asked.empty() && c.connected && w.end(w.asked.back()).connected; }));
    const FlowId server = w.asked.back();
    World::End& s = w.end(server);
    EXPECT_EQ(s.remote.addr, self);
    EXPECT_EQ(s.local, (Endpoint{self, 80}));
    s.to_send = pattern(bytes, 2);
    s.finish_when_sent = true;
    w.pump(server);
    ASSERT_TRUE(w.run([&] { return c.finished && s.finished; })) << s.got.size() << " and " << c.got.size() << " bytes came";
    EXPECT_TRUE(s.got == c.to_send);
    EXPECT_TRUE(c.got == s.to_send);
    if (w.stack.is_open(client)) w.stack.close(client, w.now);
    if (w.stack.is_open(server)) w.stack.close(server, w.now);
    ASSERT_TRUE(w.run([&] { return w.stack.flows() == 0; })) << "slots must come back";
    EXPECT_TRUE(w.stack.next_timeout().is_never()) << "nothing is open, so nobody needs a timer";
}

TEST(UserStack, BytesArriveWholeBothWays) {
    for (const Addr& self : {kSelf4, kSelf6}) {
        World w(7);
        transfer(w, self, size_t{3} << 20);
        EXPECT_EQ(w.stack.counters().malformed, 0U);
        EXPECT_GT(w.outputs, 0U);
    }
}

TEST(UserStack, BytesArriveWholeOverABadLink) {
    for (const uint64_t seed : {1U, 2U, 3U, 4U}) {
        World w(seed);
        w.loss = 20;
        w.jitter = 15;  // overtakes
        transfer(w, seed % 2 == 0 ? kSelf4 : kSelf6, size_t{400} << 10);
    }
    EXPECT_LT(UserStack::heap_bytes(), 4096U) << "lwIP gave its memory back";
}

TEST(UserStack, AWriterIsToldOfRoomAsTheWindowMoves) {
    World w(1);
    w.delay = milliseconds(1);
    const FlowId client = w.connect(kSelf4);
    w.end(client).to_send = pattern(20 * UserStack::kWindow, 1);
    const Time began = w.now;
    ASSERT_TRUE(w.run([&] { return !w.asked.empty() && w.end(w.asked[0]).got.size() == 20 * UserStack::kWindow; }));
    // Twenty windows in some dozens of round trips, not in as many ticks of 50 ms.
    EXPECT_LT((w.now - began).seconds(), 0.2);
}

TEST(UserStack, PacketsFitTheMtu) {
    World w(3, 600);
    const FlowId client = w.connect(kSelf6);
    w.end(client).to_send = pattern(20'000, 1);
    ASSERT_TRUE(w.run([&] { return !w.asked.empty() && w.end(w.asked[0]).got.size() == 20'000; }));
    EXPECT_LE(w.longest, 600U);
    EXPECT_GT(w.longest, 560U);
}

TEST(UserStack, SynIsHeldUntilAnswered) {
    World w(1);
    w.accepting = false;
    const FlowId client = w.connect(kSelf4);
    ASSERT_TRUE(w.run([&] { return w.asked.size() == 1; }));
    EXPECT_FALSE(w.run([&] { return w.end(client).connected || w.asked.size() > 1; }, seconds(5))) << "SYNs sent again are no new connections";
    EXPECT_TRUE(w.stack.accept(w.asked[0], w.now));
    EXPECT_TRUE(w.run([&] { return w.end(client).connected && w.end(w.asked[0]).connected; }));
}

TEST(UserStack, RefusedIsReset) {
    for (const Addr& self : {kSelf4, kSelf6}) {
        World w(1);
        w.accepting = false;
        w.refusing = true;
        const FlowId client = w.connect(self);
        ASSERT_TRUE(w.run([&] { return w.end(client).gone; }, seconds(2)));
        EXPECT_EQ(w.end(client).why, UserStack::Gone::kReset);
        EXPECT_EQ(w.stack.flows(), 0U);
    }
}

TEST(UserStack, ResetReachesThePeer) {
    World w(1);
    const FlowId client = w.connect(kSelf4);
    ASSERT_TRUE(w.run([&] { return w.asked.size() == 1 && w.end(w.asked[0]).connected; }));
    w.stack.reset(client);
    EXPECT_FALSE(w.stack.is_open(client));
    ASSERT_TRUE(w.run([&] { return w.end(w.asked[0]).gone; }, seconds(2)));
    EXPECT_EQ(w.end(w.asked[0]).why, UserStack::Gone::kReset);
    EXPECT_FALSE(w.end(client).gone) << "who resets is not told";
}

TEST(UserStack, NobodyAnswersIsATimeout) {
    World w(1);
    w.loss = 1000;
    const FlowId client = w.connect(kSelf4);
    ASSERT_TRUE(w.run([&] { return w.end(client).gone; }, seconds(300)));
    EXPECT_EQ(w.end(client).why, UserStack::Gone::kTimeout);
}

TEST(UserStack, WindowHoldsTheSender) {
    World w(1);
    w.reading = false;
    const FlowId client = w.connect(kSelf4);
    w.end(client).to_send = pattern(3 * UserStack::kWindow, 1);
    ASSERT_TRUE(w.run([&] { return w.asked.size() == 1 && w.end(w.asked[0]).connected; }));
    World::End& s = w.end(w.asked[0]);
    EXPECT_FALSE(w.run([&] { return s.got.size() > UserStack::kWindow; }, seconds(20)));
    EXPECT_GT(s.got.size(), UserStack::kWindow / 2);
    w.reading = true;
    w.stack.consumed(s.flow, s.unread);
    EXPECT_TRUE(w.run([&] { return s.got.size() == 3 * UserStack::kWindow; }));
}

TEST(UserStack, TablesAreBounded) {
    World w(1);
    w.accepting = false;
    const auto flood = [&](const char* from) {
        const size_t before = w.asked.size();
        for (unsigned port = 0; port < 3000; ++port)
            w.inject(build(Spec{.src = from, .dst = "100.64.0.1", .sport = static_cast<uint16_t>(1000 + port), .flags = kTcpSyn}));
        return w.asked.size() - before;
    };
    EXPECT_EQ(flood("100.64.0.9"), UserStack::kMaxHeldPerPeer);
    EXPECT_EQ(flood("100.64.0.10"), UserStack::kMaxHeld - UserStack::kMaxHeldPerPeer) << "another peer still gets in";
    EXPECT_GT(w.stack.counters().refused, 0U);
    for (const FlowId flow : w.asked) w.stack.refuse(flow);
    EXPECT_EQ(w.stack.flows(), 0U);
    EXPECT_EQ(w.sent().size(), UserStack::kMaxHeld) << "one RST each";
    // Open ones, in all.
    size_t open = 0;
    for (unsigned i = 0; i < 2 * UserStack::kMaxFlows; ++i)
        open += w.stack.connect(kSelf4, {Addr::v4(0x64400100U + i / 1000), static_cast<uint16_t>(i)}, w.now).has_value() ? 1U : 0U;
    EXPECT_EQ(open, UserStack::kMaxFlows);
    EXPECT_LE(UserStack::heap_bytes(), UserStack::kMaxHeapBytes);
}

TEST(UserStack, ManyShortConnectionsDoNotFillTheTable) {
    World w(1);
    w.delay = {};
    // Each leaves a slot that waits some seconds; more than there are slots, in no time.
    for (size_t i = 0; i < UserStack::kMaxFlowsPerPeer + 200; ++i) {
        const FlowId client = w.connect(kSelf4);
        const size_t asked = i + 1;
        ASSERT_TRUE(w.run([&] { return w.asked.size() == asked && w.end(w.asked.back()).connected; }, seconds(1))) << i;
        w.stack.close(client, w.now);
        ASSERT_TRUE(w.run([&] { return w.end(w.asked.back()).finished; }, seconds(1))) << i;
        w.stack.close(w.asked.back(), w.now);
        w.step();
    }
    EXPECT_LE(w.stack.flows(), UserStack::kMaxFlows);
}

TEST(UserStack, OutputIsBounded) {
    World w(1);
    for (int i = 0; i < 10'000; ++i) w.stack.emit(Bytes(1280));
    EXPECT_GT(w.stack.counters().out_full, 0U);
    size_t bytes = 0;
    for (const TunRead& r : w.stack.take()) bytes += r.bytes.size();
    EXPECT_LE(bytes, UserStack::kMaxOutBytes);
    EXPECT_TRUE(w.stack.take().empty());
}

TEST(UserStack, StrangeSegmentsGetARst) {
    World w(1);
    for (const auto& [src, dst] : {std::pair{"100.64.0.2", "100.64.0.1"}, {"fd7a:115c:a1e0::2", "fd7a:115c:a1e0::1"}}) {
        w.inject(build(Spec{.src = src, .dst = dst, .payload = test::bytes_of_length(5), .flags = kTcpAck}));
        const auto out = w.sent();
        ASSERT_EQ(out.size(), 1U);
        EXPECT_EQ(out[0].tcp_flags, kTcpRst);
        EXPECT_EQ(out[0].dst.str(), src);
        EXPECT_EQ(out[0].dst_port, 40000);
        w.inject(build(Spec{.src = src, .dst = dst, .flags = kTcpRst}));
        EXPECT_TRUE(w.sent().empty()) << "never a RST for a RST";
    }
}

TEST(UserStack, NobodyReachesTheHostByAddressesThatMeanIt) {
    // Whatever the policy says of the internet: these would be the exit node's own programs.
    for (const char* dst : {"127.0.0.1", "127.1.2.3", "0.0.0.0", "224.0.0.1", "::1", "::", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "ff02::1"}) {
        const bool v4 = Addr::parse(dst)->is_v4() && std::string_view(dst).find(':') == std::string_view::npos;
        for (const uint8_t proto : {kProtoTcp, kProtoUdp}) {
            World w(1);
            Bytes packet = build(Spec{.src = v4 ? "100.64.0.2" : "fd7a:115c:a1e0::2", .dst = v4 ? dst : "fd7a:115c:a1e0::9", .proto = proto, .flags = kTcpSyn});
            if (!v4) {  // with its right checksum, whatever Addr makes of the text
                const Addr a = *Addr::parse(dst);
                std::copy_n(a.mapped16().begin(), 16, packet.begin() + 24);
                store_be16(packet.data() + 40 + (proto == kProtoTcp ? 16 : 6), 0);
                store_be16(packet.data() + 40 + (proto == kProtoTcp ? 16 : 6), test::naive_l4_checksum(packet, 40, proto));
            }
            w.inject(packet);
            EXPECT_EQ(w.stack.counters().malformed, 1U) << dst;
            EXPECT_TRUE(w.asked.empty() && w.datagrams.empty()) << dst;
        }
    }
}

TEST(UserStack, PingsAndDatagrams) {
    World w(1);
    w.inject(build(Spec{.proto = kProtoIcmp4}));
    const auto out = w.sent();
    ASSERT_EQ(out.size(), 1U);
    EXPECT_TRUE(out[0].is_echo_reply());
    w.inject(build(Spec{.dst = "192.168.7.7", .proto = kProtoIcmp4}));
    EXPECT_EQ(w.pings, std::vector{Addr::v4(192, 168, 7, 7)});
    w.inject(build(Spec{.proto = kProtoUdp, .sport = 5, .dport = 53, .payload = to_bytes(as_bytes("hi"))}));
    EXPECT_EQ(w.datagrams, std::vector<std::string>{"100.64.0.2:5>100.64.0.1:53:hi"});
    EXPECT_TRUE(w.sent().empty());
}

TEST(UserStack, OptionsThatEndInTheMiddleAreNotRead) {
    for (const Bytes& options : {Bytes{1, 1, 1, 3}, Bytes{1, 1, 3, 3}, Bytes{2, 5, 1, 1}, Bytes{8, 10, 0, 0}, Bytes{1, 1, 3, 0}, Bytes{5, 1, 1, 1}}) {
        World w(1);
        w.inject(build(Spec{.flags = kTcpSyn, .tcp_options = options}));
        EXPECT_EQ(w.stack.counters().malformed, 1U) << hex_encode(options);
        EXPECT_TRUE(w.asked.empty());
    }
    for (const Bytes& options : {Bytes{2, 4, 5, 0}, Bytes{1, 3, 3, 7}, Bytes{0, 9, 9, 9}, Bytes{4, 2, 1, 1}, Bytes{}}) {
        World w(1);
        w.inject(build(Spec{.flags = kTcpSyn, .tcp_options = options}));
        EXPECT_EQ(w.asked.size(), 1U) << hex_encode(options);
    }
}

TEST(UserStack, JunkIsCountedAndHarmless) {
    World w(5);
    w.inject(build(Spec{.flags = kTcpSyn, .bad_checksum = true}));
    w.inject(build(Spec{.proto = kProtoUdp, .payload = test::bytes_of_length(9), .bad_checksum = true}));
    w.inject(build(Spec{.mf = true}));
    w.inject({});
    EXPECT_EQ(w.stack.counters().malformed, 4U);
    EXPECT_TRUE(w.asked.empty());
    // A connection that somebody speaks to in tongues: what is broken in a packet is a header field, so its checksum is right.
    const FlowId client = w.connect(kSelf4);
    ASSERT_TRUE(w.run([&] { return w.asked.size() == 1 && w.end(w.asked[0]).connected; }));
    const Endpoint client_at = w.end(w.asked[0]).remote;
    const std::string from = client_at.addr.str();
    for (int i = 0; i < 20'000; ++i) {
        Spec s{.src = from, .dst = from, .sport = client_at.port, .dport = 80};
        if (i % 4 == 0) s.sport = static_cast<uint16_t>(w.random.below(200));
        s.flags = static_cast<uint8_t>(w.random.below(64) & (i % 8 == 0 ? 0xFFU : ~uint32_t{kTcpRst}));
        s.seq = w.random.u32();
        s.ack = w.random.u32();
        s.window = static_cast<uint16_t>(w.random.u32());
        s.tcp_options.resize(4 * w.random.below(11));
        w.random.fill(s.tcp_options);
        s.payload = test::bytes_of_length(w.random.below(40));
        Bytes packet = build(s);
        if (i % 3 == 0) packet[w.random.below(static_cast<uint32_t>(packet.size()))] ^= static_cast<uint8_t>(w.random.u32());
        if (i % 50 == 0) packet.resize(w.random.below(static_cast<uint32_t>(packet.size())));
        w.inject(packet);
        static_cast<void>(w.stack.take());
        w.now = w.now + milliseconds(1);
        w.stack.handle_timeout(w.now);
    }
    EXPECT_LE(w.stack.flows(), UserStack::kMaxFlows);
    w.stack.reset(client);
}

}  // namespace
}  // namespace mesh::netstack
