// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/path/own_endpoints.h"

#include <gtest/gtest.h>

namespace mesh::magicsock {
namespace {

const Time t0{seconds(1000).ns};

Endpoint ep(const char* text) { return *Endpoint::parse(text); }

std::string text(const std::vector<LocalEndpoint>& list) {
    std::string s;
    for (const LocalEndpoint& l : list) s += l.ep.str() + " " + endpoint_type_name(l.type) + "\n";
    return s;
}

netcheck::Report hard_nat_report() {
    netcheck::Report r;
    r.udp = r.ipv4 = true;
    r.mapping_varies_by_dest_ip = true;
    r.global_v4 = ep("203.0.113.101:18719");
    r.global_v4_counters = {{ep("203.0.113.101:18719"), 1}, {ep("203.0.113.101:18720"), 1}};
    return r;
}

TEST(OwnEndpoints, HardNatAdvertisesStunThenOwnPortThenLocal) {
    OwnEndpoints own;
    own.set_local({ep("192.168.1.10:41641")});
    own.begin_report();
    own.end_report(hard_nat_report(), t0);
    EXPECT_EQ(text(own.list(t0)),
              "203.0.113.101:18719 stun\n203.0.113.101:41641 stun4localport\n192.168.1.10:41641 local\n");
}

TEST(OwnEndpoints, ThePortMappingComesFirstAndStaticBeforeLocal) {
    OwnEndpoints own;
    own.set_local({ep("192.168.1.10:41641")});
    own.set_portmapped(ep("203.0.113.101:4000"));
    own.set_static({ep("198.18.0.1:1")});
    netcheck::Report r;
    r.udp = true;
    r.global_v4 = ep("203.0.113.101:41641");
    own.end_report(r, t0);
    EXPECT_EQ(text(own.list(t0)),
              "203.0.113.101:4000 portmap\n203.0.113.101:41641 stun\n198.18.0.1:1 explicit\n192.168.1.10:41641 local\n");
}

TEST(OwnEndpoints, AddressesSeenTwiceAreAdvertisedBesidesTheFirst) {
    OwnEndpoints own;
    netcheck::Report r;
    r.udp = true;
    r.global_v4 = ep("203.0.113.1:1");
    r.global_v4_counters = {{ep("203.0.113.1:1"), 3}, {ep("203.0.113.2:2"), 2}, {ep("203.0.113.3:3"), 1}};
    r.global_v6 = ep("[2001:db8::1]:1");
    own.end_report(r, t0);
    EXPECT_EQ(text(own.list(t0)), "203.0.113.1:1 stun\n203.0.113.2:2 stun\n[2001:db8::1]:1 stun\n");
}

TEST(OwnEndpoints, AnAddressIsKnownFromTheFirstAnswerOnAndTheOldOneLivesFiveMinutes) {
    OwnEndpoints own;
    own.begin_report();
    own.mapped(ep("203.0.113.1:1"), t0);
    own.mapped(ep("203.0.113.1:2"), t0);  // second answer of a hard NAT: not yet
    EXPECT_EQ(text(own.list(t0)), "203.0.113.1:1 stun\n");
    own.begin_report();
    own.mapped(ep("203.0.113.9:9"), t0 + seconds(60));
    EXPECT_EQ(text(own.list(t0 + seconds(60))), "203.0.113.9:9 stun\n203.0.113.1:1 stun\n");
    EXPECT_EQ(own.next_expiry(t0), t0 + OwnEndpoints::kCacheLifetime);
    EXPECT_EQ(text(own.list(t0 + OwnEndpoints::kCacheLifetime)), "203.0.113.9:9 stun\n");
}

TEST(OwnEndpoints, AReportWithoutUdpChangesNothing) {
    OwnEndpoints own;
    own.mapped(ep("203.0.113.1:1"), t0);
    own.end_report(netcheck::Report{}, t0 + seconds(5));
    EXPECT_EQ(text(own.list(t0 + seconds(5))), "203.0.113.1:1 stun\n");
}

TEST(OwnEndpoints, TheCacheOfOneAddressIsBounded) {
    OwnEndpoints own;
    for (uint16_t port = 1; port < 200; ++port) {
        own.begin_report();
        own.mapped(Endpoint{Addr::v4(203, 0, 113, 1), port}, t0);
    }
    EXPECT_EQ(own.list(t0).size(), OwnEndpoints::kCachePerAddr);
    for (uint8_t host = 1; host < 200; ++host) {
        own.begin_report();
        own.mapped(Endpoint{Addr::v4(203, 0, 113, host), 7}, t0);
    }
    EXPECT_LE(own.list(t0).size(), OwnEndpoints::kMaxCache);
}

}  // namespace
}  // namespace mesh::magicsock
