// SPDX-License-Identifier: BSD-3-Clause
// The mapper against a scripted router, in simulated time.
#include "magicsock/portmap/mapper.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "magicsock/portmap/natpmp.h"

namespace mesh::portmap {
namespace {

const Addr kGateway = Addr::v4(192, 168, 1, 1), kSelf = Addr::v4(192, 168, 1, 10), kOther = Addr::v4(192, 168, 1, 2);
constexpr uint16_t kPort = 41641;

std::string envelope(const std::string& inner) {
    return "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>" + inner + "</s:Body></s:Envelope>";
}
std::string fault(int code, const std::string& text = "") {
    return envelope(fmt::format("<s:Fault><detail><UPnPError><errorCode>{}</errorCode><errorDescription>{}</errorDescription></UPnPError></detail>"
                                "</s:Fault>", code, text));
}

/// What it speaks and answers is set by each test.
struct Router {
    bool natpmp = false, pcp = false, upnp = false;
    int drop = 0;                                ///< that many datagrams get no answer
    Addr external = Addr::v4(203, 0, 113, 5);
    uint16_t external_port = 6000;
    uint16_t pmp_result = 0;                     ///< of requests for a port
    uint8_t pcp_result = 0;
    uint32_t lifetime = 7200;
    uint32_t epoch_base = 0;
    Addr ssdp_from = kGateway;
    std::string location = "http://192.168.1.1:5000/rootDesc.xml";
    std::vector<std::string> services = {"WANIPConnection:1"};
    std::function<std::string(const std::string& action, const std::string& url, const std::string& body)> soap;  ///< "" = as a good router does
    std::set<uint16_t> open;                     ///< outside ports that lead to us
};

struct Lab {
    SeededRandom random{1};
    Mapper mapper{random};
    Router router;
    Time now{seconds(1000).ns};
    std::vector<Endpoint> sent;
    std::vector<std::string> asked;  ///< "GET url" or "Action url"

    [[nodiscard]] uint32_t epoch() const { return static_cast<uint32_t>(now.ns / seconds(1).ns) - router.epoch_base; }

    void pxp(const Bytes& b) {
        const Endpoint from{kGateway, kPxpPort};
        if (b[0] == 0 && router.natpmp) {
            Bytes out;
            WireWriter w(out);
            w.u8(0);
            w.u8(b[1] | 0x80);
            w.be16(b[1] == 0 ? uint16_t{0} : router.pmp_result);
            w.be32(epoch());
            if (b[1] == 0) {
                w.bytes(router.external.bytes());
            } else {
                const uint32_t lifetime = load_be32(&b[8]);
                if (router.pmp_result == 0) lifetime == 0 ? router.open.clear() : (void)router.open.insert(router.external_port);
                w.be16(load_be16(&b[4]));
                w.be16(lifetime == 0 ? 0 : router.external_port);
                w.be32(lifetime == 0 ? 0 : router.lifetime);
            }
            mapper.handle_datagram(out, from, now);
        }
        if (b[0] == 2 && router.pcp) {
            Bytes out(b);
            out[1] |= 0x80;
            out[3] = b[1] == pcp::kOpMap ? router.pcp_result : uint8_t{0};
            const uint32_t lifetime = load_be32(&b[4]);
            store_be32(&out[4], lifetime == 0 ? 0 : router.lifetime);
            store_be32(&out[8], epoch());
            if (b[1] == pcp::kOpMap) {
                if (router.pcp_result == 0) lifetime == 0 ? router.open.clear() : (void)router.open.insert(router.external_port);
                store_be16(&out[42], router.external_port);
                const auto mapped = router.external.mapped16();
                std::copy(mapped.begin(), mapped.end(), out.begin() + 44);
            }
            mapper.handle_datagram(out, from, now);
        }
    }

    std::string http(const HttpAsk& a) {
        if (!a.call) {
            std::string list;
            for (const std::string& s : router.services)
                list += fmt::format("<service><serviceType>urn:schemas-upnp-org:service:{}</serviceType><controlURL>/ctl/{}</controlURL></service>", s,
                                    &s - router.services.data());
            return a.url.starts_with("http://192.168.1.1:5000/") && router.upnp ? "<root><device>" + list + "</device></root>" : "";
        }
        const std::string action = a.call->soap_action.substr(a.call->soap_action.find('#') + 1, a.call->soap_action.size() - a.call->soap_action.find('#') - 2);
        if (router.soap)
            if (const std::string text = router.soap(action, a.url, a.call->body); !text.empty()) return text;
        const auto value = [&](const std::string& tag) {
            const size_t at = a.call->body.find("<" + tag + ">") + tag.size() + 2;
            return a.call->body.substr(at, a.call->body.find('<', at) - at);
        };
        if (action == "GetStatusInfo") return envelope("<r><NewConnectionStatus>Connected</NewConnectionStatus></r>");
        if (action == "GetExternalIPAddress") return envelope("<r><NewExternalIPAddress>" + router.external.str() + "</NewExternalIPAddress></r>");
        const auto port = static_cast<uint16_t>(std::stoi(value("NewExternalPort")));
        if (action == "DeletePortMapping") {
            router.open.erase(port);
            return envelope("<r/>");
        }
        router.open.insert(port);
        return envelope("<r/>");
    }

    void turn() {
        bool more = true;
        for (int i = 0; more && i < 200; ++i) {
            more = false;
            while (const auto d = mapper.next_send()) {
                more = true;
                sent.push_back(d->to);
                if (router.drop > 0) {
                    --router.drop;
                } else if (d->to == Endpoint{kGateway, kPxpPort}) {
                    pxp(d->bytes);
                } else if (d->to.port == ssdp::kPort && router.upnp && (d->to.addr == router.ssdp_from || d->to == ssdp::multicast())) {
                    const std::string text = "HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nLOCATION: " + router.location + "\r\n\r\n";
                    mapper.handle_datagram(as_bytes(text), {router.ssdp_from, 1900}, now);
                }
            }
            while (const auto a = mapper.next_http()) {
                more = true;
                asked.push_back((a->call ? a->call->soap_action.substr(a->call->soap_action.find('#') + 1) : "GET ") + a->url);
                mapper.http_answer(a->id, http(*a), now);
            }
        }
        EXPECT_FALSE(more) << "it never rests";
    }
    void start() {
        mapper.set({kGateway, kSelf}, kPort, now);
        turn();
    }
    void pass(Duration d) {
        const Time until = now + d;
        for (int i = 0; i < 10000 && mapper.next_timeout() <= until; ++i) {
            EXPECT_GE(mapper.next_timeout(), now - seconds(1)) << "a timer in the past";
            now = max(now, mapper.next_timeout());
            mapper.handle_timeout(now);
            turn();
        }
        now = until;
    }
    [[nodiscard]] std::string mapping() const { return mapper.mapping() ? mapper.mapping()->str() : ""; }
    [[nodiscard]] std::string note() const { return mapper.notes().empty() ? "" : mapper.notes().front().text; }
};

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
        lab.router.open.clear();
        lab.router.epoch_base = static_cast<uint32_t>(lab.now.ns / seconds(1).ns);  // restarted
        lab.router.external_port = 7000;
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

}  // namespace
}  // namespace mesh::portmap
