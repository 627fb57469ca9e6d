// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/dataplane/service_tcp.h"

#include <gtest/gtest.h>

#include "netstack/checksum.h"
#include "netstack/test_packets.h"

namespace mesh::dataplane {
namespace {

using netstack::Parsed;
using netstack::test::parsed;
using netstack::test::Spec;

constexpr uint16_t kListener = 4053;

struct Hop {
    Endpoint src, dst;
    uint8_t flags = 0;
    bool operator==(const Hop&) const = default;
};

class ServiceTcpTest : public testing::Test {
   protected:
    ServiceTcpTest() { loop.set_listener(kListener); }

    /// Sends one packet through; checks what comes out and says its ends.
    std::optional<Hop> send(const Endpoint& src, const Endpoint& dst, uint8_t flags = netstack::kTcpAck) {
        const std::string s = src.addr.str(), d = dst.addr.str();
        Spec spec;
        spec.src = s;
        spec.dst = d;
        spec.sport = src.port;
        spec.dport = dst.port;
        spec.flags = flags;
        Bytes packet = netstack::test::build(spec);
        const Parsed p = parsed(packet);
        const MutByteSpan out = loop.rewrite(packet, p, src.addr.is_v4() ? self4 : self6);
        if (out.empty()) return std::nullopt;
        const Parsed q = parsed(out);
        EXPECT_TRUE(netstack::l4_checksum_ok(out, q.version, q.ip_len, q.proto));
        EXPECT_EQ(q.total, out.size());
        return Hop{{q.src, q.src_port}, {q.dst, q.dst_port}, q.tcp_flags};
    }

    const Addr self4 = Addr::v4(100, 64, 0, 1), self6 = *Addr::parse("fd7a:115c:a1e0::1");
    const Endpoint service4{service_addr_v4(), 53}, service6{service_addr_v6(), 53};
    ServiceTcp loop;
};

TEST_F(ServiceTcpTest, AConnectionGoesToTheListenerAndItsAnswersComeBack) {
    for (const bool v6 : {false, true}) {
        const Endpoint service = v6 ? service6 : service4, client{v6 ? self6 : self4, 40000};
        const auto there = send(client, service, netstack::kTcpSyn);
        ASSERT_TRUE(there);
        EXPECT_EQ(*there, (Hop{{service.addr, 40000}, {client.addr, kListener}, netstack::kTcpSyn}));
        const auto back = send(there->dst, there->src, netstack::kTcpSyn | netstack::kTcpAck);
        ASSERT_TRUE(back);
        EXPECT_EQ(*back, (Hop{service, client, netstack::kTcpSyn | netstack::kTcpAck}));
    }
}

TEST_F(ServiceTcpTest, ContainersBehindTheHostAreToldApart) {
    const Endpoint a{Addr::v4(172, 17, 0, 2), 40000}, b{Addr::v4(172, 17, 0, 3), 40000};
    const auto to_a = send(a, service4), to_b = send(b, service4);
    ASSERT_TRUE(to_a && to_b);
    EXPECT_NE(to_a->src.port, to_b->src.port);
    EXPECT_EQ(send(to_a->dst, to_a->src)->dst, a);
    EXPECT_EQ(send(to_b->dst, to_b->src)->dst, b);
}

TEST_F(ServiceTcpTest, OtherPortsAreRefused) {
    const auto r = send({self4, 40000}, {service_addr_v4(), 80}, netstack::kTcpSyn);
    ASSERT_TRUE(r);
    EXPECT_EQ(*r, (Hop{{service_addr_v4(), 80}, {self4, 40000}, netstack::kTcpRst | netstack::kTcpAck}));
    EXPECT_FALSE(send({self4, 40000}, {service_addr_v4(), 80})) << "only what opens a connection";
    EXPECT_FALSE(send({self4, kListener}, {service_addr_v4(), 1234})) << "nobody asked for that";
}

TEST_F(ServiceTcpTest, WithoutAListenerEverythingIsRefused) {
    loop.set_listener(0);
    EXPECT_EQ(send({self4, 40000}, service4, netstack::kTcpSyn)->flags, netstack::kTcpRst | netstack::kTcpAck);
}

TEST_F(ServiceTcpTest, FlowsAreBoundedAndTheOldestGoes) {
    const Endpoint first{self4, 1024};
    const auto hop = send(first, service4);
    for (unsigned i = 0; i < 2 * ServiceTcp::kMaxFlows; ++i) {
        ASSERT_TRUE(send({self4, static_cast<uint16_t>(2000 + i)}, service4));
        ASSERT_TRUE(send({self4, static_cast<uint16_t>(2000)}, service4)) << "in use all the time";
    }
    EXPECT_EQ(loop.flows(), ServiceTcp::kMaxFlows);
    EXPECT_FALSE(send(hop->dst, hop->src));
    EXPECT_EQ(send({self4, kListener}, {service_addr_v4(), 2000})->dst.port, 2000);
}

}  // namespace
}  // namespace mesh::dataplane
