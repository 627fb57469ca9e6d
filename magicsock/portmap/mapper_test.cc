// SPDX-License-Identifier: BSD-3-Clause
// The mapper against a scripted router, in simulated time.
#include <gtest/gtest.h>

#include "magicsock/portmap/test_router.h"

namespace mesh::portmap {
namespace {

TEST(Mapper, AskTheThreeAtOnceAndSayWhatAnswers) {
    Lab lab;
    lab.start();
    std::set<std::string> to;
    for (const Endpoint& e : lab.sent) to.insert(e.str());
    EXPECT_EQ(to, (std::set<std::string>{"192.168.1.1:5351", "192.168.1.1:1900", "239.255.255.250:1900"}));
    EXPECT_EQ(lab.mapper.services(), nullptr);
    lab.pass(milliseconds(250));
    ASSERT_NE(lab.mapper.services(), nullptr);
    EXPECT_FALSE(lab.mapper.services()->natpmp || lab.mapper.services()->pcp || lab.mapper.services()->upnp());
    EXPECT_EQ(lab.mapping(), "");
    EXPECT_TRUE(lab.mapper.notes().empty()) << "a router that opens no ports is no fault";
    lab.pass(minutes(60));
    EXPECT_LE(lab.sent.size(), 10U * 10U) << "a silent router is asked every ten minutes";
}

TEST(Mapper, NatPmpIsUsedAtOnce) {
    Lab lab;
    lab.router.natpmp = lab.router.upnp = true;
    lab.start();
    EXPECT_EQ(lab.mapping(), "203.0.113.5:6000");
    EXPECT_EQ(lab.mapper.protocol(), Protocol::kNatPmp);
    EXPECT_TRUE(lab.asked.empty());
}

TEST(Mapper, PcpIsUsedWhenNatPmpIsSilent) {
    Lab lab;
    lab.router.pcp = true;
    lab.start();
    lab.pass(milliseconds(250));
    EXPECT_EQ(lab.mapping(), "203.0.113.5:6000");
    EXPECT_EQ(lab.mapper.protocol(), Protocol::kPcp);
}

TEST(Mapper, UpnpIsUsedWhenTheOthersAreSilent) {
    Lab lab;
    lab.router.upnp = true;
    lab.start();
    EXPECT_EQ(lab.mapping(), "");
    lab.pass(milliseconds(250));
    ASSERT_EQ(lab.router.open.size(), 1U);
    EXPECT_GE(*lab.router.open.begin(), 1024);
    EXPECT_EQ(lab.mapping(), fmt::format("203.0.113.5:{}", *lab.router.open.begin()));
    EXPECT_EQ(lab.asked, (std::vector<std::string>{"GET http://192.168.1.1:5000/rootDesc.xml", "GetExternalIPAddress\"http://192.168.1.1:5000/ctl/0",
                                                   "AddPortMapping\"http://192.168.1.1:5000/ctl/0"}));
}

TEST(Mapper, LostDatagramsAreSentAgain) {
    for (const bool pcp : {false, true}) {
        Lab lab;
        (pcp ? lab.router.pcp : lab.router.natpmp) = true;
        lab.router.drop = 5;  // the whole first round
        lab.start();
        lab.pass(milliseconds(300));
        EXPECT_EQ(lab.mapping(), "203.0.113.5:6000") << pcp;
    }
}

TEST(Mapper, ARefusalLeadsToTheNextProtocol) {
    Lab lab;
    lab.router.natpmp = lab.router.pcp = lab.router.upnp = true;
    lab.router.pmp_result = lab.router.pcp_result = 2;
    lab.start();
    lab.pass(seconds(1));
    EXPECT_EQ(lab.mapper.protocol(), Protocol::kUpnp);
    EXPECT_TRUE(lab.mapper.notes().empty());
    lab.mapper.release(lab.now);
    lab.turn();
    EXPECT_TRUE(lab.router.open.empty());
    lab.router.upnp = false;
    lab.start();
    lab.pass(seconds(1));
    EXPECT_EQ(lab.mapping(), "");
    ASSERT_EQ(lab.mapper.notes().size(), 2U);
    EXPECT_EQ(lab.note(), "The router 192.168.1.1 does not open a port by NAT-PMP: not allowed by its settings.");
    EXPECT_EQ(lab.mapper.notes().back().text, "The router 192.168.1.1 does not open a port by PCP: not allowed by its settings.");
}

TEST(Mapper, WhatTheRouterRefusesIsSaid) {
    Lab lab;
    lab.router.upnp = true;
    lab.router.soap = [](const std::string& action, const std::string&, const std::string&) {
        return action.starts_with("Add") ? fault(606, "Action not authorized") : "";
    };
    lab.start();
    lab.pass(seconds(1));
    EXPECT_EQ(lab.mapping(), "");
    EXPECT_EQ(lab.note(), "The router 192.168.1.1 does not open a port by UPnP: its answer is 606: Action not authorized.");
}

TEST(Mapper, TheMappingIsRenewedAtHalfTimeWithTheSamePort) {
    for (int which = 0; which < 3; ++which) {
        Lab lab;
        (which == 0 ? lab.router.natpmp : which == 1 ? lab.router.pcp : lab.router.upnp) = true;
        lab.start();
        lab.pass(seconds(1));
        const std::string first = lab.mapping();
        ASSERT_NE(first, "") << which;
        lab.sent.clear();
        lab.asked.clear();
        lab.pass(minutes(59));
        EXPECT_LE(lab.sent.size(), 12U) << "only the look at the epoch, every five minutes";
        EXPECT_TRUE(lab.asked.empty());
        lab.router.open.clear();
        lab.pass(minutes(2));
        EXPECT_EQ(lab.router.open.size(), 1U) << which << ": renewed";
        lab.pass(minutes(600));
        EXPECT_EQ(lab.mapping(), first) << which;
        EXPECT_EQ(lab.router.open.size(), 1U);
    }
}

TEST(Mapper, ARouterThatDiesLosesTheMappingOnlyAtItsEnd) {
    Lab lab;
    lab.router.natpmp = true;
    lab.start();
    lab.router.natpmp = false;
    lab.pass(minutes(110));
    EXPECT_EQ(lab.mapping(), "203.0.113.5:6000");
    lab.pass(minutes(11));
    EXPECT_EQ(lab.mapping(), "");
    lab.router.natpmp = true;
    lab.pass(minutes(11));
    EXPECT_EQ(lab.mapping(), "203.0.113.5:6000");
}

TEST(Mapper, ARouterThatForgotIsAskedAnew) {
    for (const bool pcp : {false, true}) {
        Lab lab;
        (pcp ? lab.router.pcp : lab.router.natpmp) = true;
        lab.start();
        lab.pass(minutes(7));
        lab.restart_router(7000);
        lab.pass(minutes(5));
        EXPECT_EQ(lab.mapping(), "203.0.113.5:7000") << pcp;
    }
}

TEST(Mapper, ANewAddressOutsideIsNoticed) {
    Lab lab;
    lab.router.natpmp = true;
    lab.start();
    lab.router.external = Addr::v4(203, 0, 113, 9);
    lab.pass(minutes(5));
    EXPECT_EQ(lab.mapping(), "203.0.113.9:6000");
}

TEST(Mapper, TheMappingIsTakenBackAtTheEndAndWhenTheNetworkMoves) {
    for (int which = 0; which < 3; ++which) {
        Lab lab;
        (which == 0 ? lab.router.natpmp : which == 1 ? lab.router.pcp : lab.router.upnp) = true;
        lab.start();
        lab.pass(seconds(1));
        ASSERT_EQ(lab.router.open.size(), 1U);
        if (which == 2) {
            lab.mapper.release(lab.now);
            EXPECT_TRUE(lab.mapper.releasing());
        } else {
            lab.mapper.set({Addr::v4(10, 0, 0, 1), Addr::v4(10, 0, 0, 7)}, kPort, lab.now);
        }
        EXPECT_EQ(lab.mapping(), "");
        lab.turn();
        EXPECT_TRUE(lab.router.open.empty()) << which;
        EXPECT_FALSE(lab.mapper.releasing());
    }
}

TEST(Mapper, PermanentLeasesAndTakenPortsAreCopedWith) {
    Lab lab;
    lab.router.upnp = true;
    int conflicts = 1;
    lab.router.soap = [&](const std::string& action, const std::string&, const std::string& body) -> std::string {
        if (action != "AddPortMapping") return "";
        if (body.find("<NewLeaseDuration>0<") == std::string::npos) return fault(725);
        return conflicts-- > 0 ? fault(718) : "";
    };
    lab.start();
    lab.pass(seconds(1));
    ASSERT_EQ(lab.router.open.size(), 1U);
    EXPECT_EQ(lab.mapping(), fmt::format("203.0.113.5:{}", *lab.router.open.begin()));
}

TEST(Mapper, ARouterThatAlwaysConflictsIsLeftAlone) {
    Lab lab;
    lab.router.upnp = true;
    lab.router.soap = [&](const std::string& action, const std::string&, const std::string&) { return action.starts_with("Add") ? fault(718) : ""; };
    lab.start();
    lab.pass(milliseconds(500));
    EXPECT_EQ(lab.asked.size(), 2U + 4U);
    lab.pass(minutes(60));
    EXPECT_LE(lab.asked.size(), 10U * 6U);
}

TEST(Mapper, OfSeveralLinesTheConnectedPublicOneIsTaken) {
    Lab lab;
    lab.router.upnp = true;
    lab.router.services = {"WANIPConnection:1", "WANPPPConnection:1"};
    lab.router.soap = [&](const std::string& action, const std::string& url, const std::string&) -> std::string {
        const bool first = url.ends_with("/0");
        if (action == "GetStatusInfo") return envelope("<r><NewConnectionStatus>Connected</NewConnectionStatus></r>");
        if (action == "GetExternalIPAddress")
            return envelope(fmt::format("<r><NewExternalIPAddress>{}</NewExternalIPAddress></r>", first ? "10.1.2.3" : "203.0.113.77"));
        return "";
    };
    lab.start();
    lab.pass(seconds(1));
    ASSERT_TRUE(lab.mapper.mapping());
    EXPECT_EQ(lab.mapper.mapping()->addr.str(), "203.0.113.77");
    EXPECT_EQ(lab.asked.back(), "AddPortMapping\"http://192.168.1.1:5000/ctl/1");
}

TEST(Mapper, AnIgdV2GivesThePortItLikes) {
    Lab lab;
    lab.router.upnp = true;
    lab.router.services = {"WANIPConnection:2"};
    lab.router.soap = [&](const std::string& action, const std::string&, const std::string&) {
        return action == "AddAnyPortMapping" ? envelope("<r><NewReservedPort>5555</NewReservedPort></r>") : "";
    };
    lab.start();
    lab.pass(seconds(1));
    EXPECT_EQ(lab.mapping(), "203.0.113.5:5555");
}

TEST(Mapper, APrivateAddressOutsideIsUsedAndSaid) {
    Lab lab;
    lab.router.natpmp = true;
    lab.router.external = Addr::v4(100, 70, 1, 2);
    lab.start();
    EXPECT_EQ(lab.mapping(), "100.70.1.2:6000");
    EXPECT_EQ(lab.note(),
              "The router 192.168.1.1 opened a port, but its own address is 100.70.1.2, which is a carrier's shared one: another NAT lies before "
              "it. The port helps only once that one lets it through too.");
    EXPECT_EQ(lab.mapper.notes().front().kind, Note::Kind::kPrivateAddress);
}

TEST(Mapper, NoAddressOutsideIsNoMapping) {
    for (const Addr& bad : {Addr::v4(0), Addr::v4(127, 0, 0, 1), Addr::v4(224, 0, 0, 1), Addr::v4(255, 255, 255, 255), Addr::v4(169, 254, 1, 1)}) {
        for (int which = 0; which < 3; ++which) {
            Lab lab;
            (which == 0 ? lab.router.natpmp : which == 1 ? lab.router.pcp : lab.router.upnp) = true;
            lab.router.external = bad;
            lab.start();
            lab.pass(seconds(5));
            EXPECT_EQ(lab.mapping(), "") << bad.str() << which;
            EXPECT_NE(lab.note().find("it has no Internet address itself"), std::string::npos) << lab.note();
        }
    }
}

TEST(Mapper, AWrongGatewayIsNotUsedAndSaid) {
    Lab lab;
    lab.router.upnp = true;
    lab.router.ssdp_from = kOther;
    lab.router.location = "http://192.168.1.2:49152/desc.xml";
    lab.start();
    lab.pass(seconds(1));
    EXPECT_EQ(lab.mapping(), "");
    EXPECT_EQ(lab.asked.front(), "GET http://192.168.1.1:49152/desc.xml") << "asked at the gateway, never at the stranger";
    ASSERT_EQ(lab.mapper.notes().size(), 1U);
    EXPECT_EQ(lab.mapper.notes().front().kind, Note::Kind::kWrongGateway);
    EXPECT_TRUE(lab.note().starts_with("192.168.1.2 offers to open ports by UPnP, but it is not this host's gateway (192.168.1.1)")) << lab.note();
}

TEST(Mapper, AGatewayThatAnswersFromAnotherAddressOfItsOwnIsUsed) {
    Lab lab;
    lab.router.upnp = true;
    lab.router.ssdp_from = kOther;
    lab.router.location = "http://192.168.1.2:5000/rootDesc.xml";
    lab.start();
    lab.pass(seconds(1));
    EXPECT_EQ(lab.router.open.size(), 1U);
    EXPECT_TRUE(lab.mapper.notes().empty());
}

TEST(Mapper, AnswersOfOthersChangeNothing) {
    Lab lab;
    lab.router.natpmp = true;
    lab.start();
    const Bytes map = [] {
        Bytes b;
        WireWriter w(b);
        w.be16(0x0081);
        w.be16(0);
        w.be32(1);
        w.be16(kPort);
        w.be16(9999);
        w.be32(7200);
        return b;
    }();
    const Bytes address{0, 0x80, 0, 0, 0, 0, 0, 1, 9, 9, 9, 9};
    for (const Endpoint& from : {Endpoint{kOther, kPxpPort}, Endpoint{kGateway, 5350}, Endpoint{kSelf, kPxpPort}}) {
        lab.mapper.handle_datagram(map, from, lab.now);
        lab.mapper.handle_datagram(address, from, lab.now);
    }
    lab.mapper.handle_datagram(map, {kGateway, kPxpPort}, lab.now);  // nothing was asked
    lab.turn();
    EXPECT_EQ(lab.mapping(), "203.0.113.5:6000");
}

TEST(Mapper, APcpAnswerWithAnotherNonceIsNotOurs) {
    Lab lab;
    lab.router.pcp = true;
    lab.start();
    lab.router.drop = 100;
    lab.pass(milliseconds(250));
    const Bytes forged = [] {
        Bytes b = pcp::encode_map(kSelf, {{}, kPort, 9999, Addr::v4(9, 9, 9, 9)}, 7200);
        b[1] |= 0x80;
        return b;
    }();
    lab.mapper.handle_datagram(forged, {kGateway, kPxpPort}, lab.now);
    EXPECT_EQ(lab.mapping(), "");
}

TEST(Mapper, TinyLifetimesDoNotMakeItBusy) {
    for (const uint32_t lifetime : {1U, 59U}) {
        Lab lab;
        lab.router.natpmp = true;
        lab.router.lifetime = lifetime;
        lab.start();
        lab.sent.clear();
        lab.pass(minutes(10));
        EXPECT_LE(lab.sent.size(), 60U);
        EXPECT_EQ(lab.mapping(), "203.0.113.5:6000");
    }
}

TEST(Mapper, AFloodOfGatewaysIsBounded) {
    Lab lab;
    lab.start();
    for (int i = 0; i < 5000; ++i) {
        const std::string text = fmt::format(
            "HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nLOCATION: http://192.168.1.1:{}/\r\n\r\n", 1 + i);
        lab.mapper.handle_datagram(as_bytes(text), {Addr::v4(0xc0a80100U + static_cast<uint32_t>(i)), 1900}, lab.now);
    }
    lab.pass(seconds(60));
    EXPECT_LE(lab.asked.size(), Prober::kMaxIgds * 4);
    EXPECT_LE(lab.mapper.services()->strangers.size(), Prober::kMaxStrangers);
}

TEST(Mapper, NothingIsSentWithoutAnIpv4Gateway) {
    Lab lab;
    for (const Network& n : {Network{}, Network{*Addr::parse("fe80::1"), kSelf}, Network{kGateway, {}}, Network{kSelf, kSelf}}) {
        lab.mapper.set(n, kPort, lab.now);
        lab.turn();
        lab.pass(minutes(60));
    }
    lab.mapper.set({kGateway, kSelf}, 0, lab.now);
    lab.pass(minutes(60));
    EXPECT_TRUE(lab.sent.empty());
}

TEST(Mapper, WithoutUpnpNobodyIsAskedForIt) {
    Lab lab;
    lab.router.upnp = true;
    lab.mapper.set({kGateway, kSelf, false}, kPort, lab.now);
    lab.turn();
    lab.pass(seconds(1));
    for (const Endpoint& e : lab.sent) EXPECT_EQ(e.port, kPxpPort);
    EXPECT_EQ(lab.mapping(), "");
}

TEST(Mapper, LookingAgainTooSoonIsDoneLater) {
    Lab lab;
    lab.start();
    lab.pass(seconds(7));  // the probes at the start and after 1 and 5 s are over; the next is due in half a minute
    lab.router.natpmp = true;
    lab.mapper.look_again(lab.now);
    lab.turn();
    EXPECT_EQ(lab.mapping(), "");
    lab.pass(seconds(10));
    EXPECT_EQ(lab.mapping(), "203.0.113.5:6000");
}

TEST(Mapper, LookingAgainIsLimited) {
    Lab lab;
    lab.router.natpmp = true;
    lab.start();
    lab.sent.clear();
    for (int i = 0; i < 100; ++i) {
        lab.mapper.look_again(lab.now);
        lab.turn();
        lab.pass(milliseconds(100));
    }
    EXPECT_LE(lab.sent.size(), 6U) << "the second round of the first probe, one renewal";
}

/// What a router that has just started sends to everybody on the LAN.
Bytes announcement(bool pcp, uint32_t epoch, const Addr& external = Addr::v4(203, 0, 113, 5)) {
    Bytes out;
    WireWriter w(out);
    w.u8(pcp ? 2 : 0);
    w.u8(0x80);
    w.zeros(2);
    if (pcp) w.zeros(4);
    w.be32(epoch);
    pcp ? w.zeros(12) : w.bytes(external.bytes());
    return out;
}

TEST(Mapper, ARouterThatSaysThatItStartedAnewIsAskedAtOnce) {
    for (const bool pcp : {false, true}) {
        Lab lab;
        (pcp ? lab.router.pcp : lab.router.natpmp) = true;
        lab.start();
        lab.pass(minutes(7));
        lab.restart_router(7000);
        lab.mapper.handle_announcement(announcement(pcp, 0), {kGateway, kPxpPort}, lab.now);
        lab.turn();
        lab.pass(milliseconds(10));
        EXPECT_EQ(lab.mapping(), "203.0.113.5:7000") << pcp;
    }
}

TEST(Mapper, ANewAddressIsTakenFromItsAnnouncement) {
    Lab lab;
    lab.router.natpmp = true;
    lab.start();
    lab.pass(minutes(1));
    lab.router.external = Addr::v4(203, 0, 113, 9);
    lab.mapper.handle_announcement(announcement(false, lab.epoch(), lab.router.external), {kGateway, kPxpPort}, lab.now);
    lab.turn();
    EXPECT_EQ(lab.mapping(), "203.0.113.9:6000");
}

TEST(Mapper, ARouterThatComesUpLaterIsFoundByItsAnnouncement) {
    Lab lab;
    lab.start();
    lab.pass(minutes(1));
    lab.router.natpmp = true;
    lab.mapper.handle_announcement(announcement(false, 0), {kGateway, kPxpPort}, lab.now);
    lab.turn();
    lab.pass(milliseconds(10));
    EXPECT_EQ(lab.mapping(), "203.0.113.5:6000");
}

TEST(Mapper, AnnouncementsOfOthersAndFloodsOfThemCostNothing) {
    Lab lab;
    lab.router.natpmp = true;
    lab.start();
    lab.pass(minutes(3));
    lab.sent.clear();
    const auto say = [&](const Bytes& what, const Addr& who) {
        lab.mapper.handle_announcement(what, {who, kPxpPort}, lab.now);
        lab.turn();
    };
    say(announcement(false, 0, kOther), kOther);
    say(announcement(false, lab.epoch()), kGateway);  // no news
    say({}, kGateway);
    say({0}, kGateway);
    for (size_t n = 1; n < 24; ++n) {
        Bytes cut = announcement(true, 0);
        cut.resize(n);
        say(cut, kGateway);
    }
    EXPECT_TRUE(lab.sent.empty());
    EXPECT_EQ(lab.mapping(), "203.0.113.5:6000");
    for (uint32_t i = 0; i < 1000; ++i) {
        say(announcement(i % 2 == 0, i % 7), kGateway);
        lab.pass(milliseconds(20));
    }
    EXPECT_LE(lab.sent.size(), 6U) << "twenty seconds: three renewals";
}

}  // namespace
}  // namespace mesh::portmap
