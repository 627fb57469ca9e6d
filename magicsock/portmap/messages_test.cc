// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include "base/test_vectors.h"
#include "magicsock/portmap/natpmp.h"
#include "magicsock/portmap/pcp.h"
#include "magicsock/portmap/ssdp.h"
#include "magicsock/portmap/upnp.h"

namespace mesh::portmap {
namespace {

using mesh::testing::from_hex;

// ---- NAT-PMP (RFC 6886 3.2, 3.3) -----------------------------------------------------------------------------------

TEST(NatPmp, RequestsHaveTheBytesOfTheRfc) {
    EXPECT_EQ(hex_encode(natpmp::encode_address_request()), "0000");
    EXPECT_EQ(hex_encode(natpmp::encode_map_request(41641, 0, 7200)), "00010000a2a9000000001c20");
    EXPECT_EQ(hex_encode(natpmp::encode_map_request(41641, 6000, 0)), "00010000a2a9177000000000");
}

TEST(NatPmp, AnswersAreReadAndCutOnesAreNot) {
    const Bytes address = from_hex("008000000000002acb007105");
    const auto a = natpmp::decode(address);
    ASSERT_TRUE(a && std::holds_alternative<natpmp::AddressAnswer>(*a));
    EXPECT_EQ(std::get<natpmp::AddressAnswer>(*a).external.str(), "203.0.113.5");
    EXPECT_EQ(std::get<natpmp::AddressAnswer>(*a).epoch, 42U);
    const Bytes map = from_hex("008100000000002aa2a9177000001c20");
    const auto m = natpmp::decode(map);
    ASSERT_TRUE(m && std::holds_alternative<natpmp::MapAnswer>(*m));
    EXPECT_EQ(std::get<natpmp::MapAnswer>(*m).internal, 41641);
    EXPECT_EQ(std::get<natpmp::MapAnswer>(*m).external, 6000);
    EXPECT_EQ(std::get<natpmp::MapAnswer>(*m).lifetime_s, 7200U);
    for (const Bytes& whole : {address, map})
        for (size_t n = 0; n < whole.size(); ++n) EXPECT_FALSE(natpmp::decode(ByteSpan(whole).first(n))) << n;
}

TEST(NatPmp, RefusalsMayBeShort) {
    const auto r = natpmp::decode(from_hex("008100020000002a"));
    ASSERT_TRUE(r);
    EXPECT_EQ(std::get<natpmp::MapAnswer>(*r).result, 2);
    EXPECT_FALSE(natpmp::decode(from_hex("028100020000002a")));  // PCP
    EXPECT_FALSE(natpmp::decode(from_hex("0001000000000000")));  // a request
    EXPECT_FALSE(natpmp::decode(from_hex("0082000000000000a2a9177000001c20")));  // TCP
}

// ---- PCP (RFC 6887 7.1, 11.1) --------------------------------------------------------------------------------------

TEST(Pcp, RequestsHaveTheBytesOfTheRfc) {
    EXPECT_EQ(hex_encode(pcp::encode_announce(Addr::v4(192, 168, 1, 10))), "020000000000000000000000000000000000ffffc0a8010a");
    const pcp::Map map{{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, 41641, 0, {}};
    EXPECT_EQ(hex_encode(pcp::encode_map(Addr::v4(192, 168, 1, 10), map, 7200)),
              "0201000000001c2000000000000000000000ffffc0a8010a0102030405060708090a0b0c11000000a2a9000000000000000000000000ffff00000000");
}

TEST(Pcp, AnswersAreReadAndCutOnesAreNot) {
    const Bytes whole = from_hex(
        "0281000000001c200000002a0000000000000000000000000102030405060708090a0b0c11000000a2a9177000000000000000000000ffffcb007105");
    const auto a = pcp::decode(whole);
    ASSERT_TRUE(a && a->map);
    EXPECT_EQ(a->lifetime_s, 7200U);
    EXPECT_EQ(a->epoch, 42U);
    EXPECT_EQ(*a->map, (pcp::Map{{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, 41641, 6000, Addr::v4(203, 0, 113, 5)}));
    for (size_t n = 0; n < whole.size(); ++n) EXPECT_FALSE(pcp::decode(ByteSpan(whole).first(n))) << n;
    Bytes option = whole;  // an option behind it
    option.resize(whole.size() + 4);
    EXPECT_TRUE(pcp::decode(option)->map);
    option.resize(1104);
    EXPECT_FALSE(pcp::decode(option));
    Bytes tcp = whole;
    tcp[36] = 6;
    EXPECT_FALSE(pcp::decode(tcp)->map);
    Bytes request = whole;
    request[1] = 1;
    EXPECT_FALSE(pcp::decode(request));
}

// ---- SSDP ------------------------------------------------------------------------------------------------------------

constexpr std::string_view kAnswer =
    "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n"
    "USN: uuid:73616d61-6a6b-7a74-650a-0d24d4a5d636::urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nEXT:\r\n"
    "SERVER: Linux UPnP/1.1 MiniUPnPd/2.3.1\r\nLOCATION: http://192.168.1.1:5000/rootDesc.xml\r\n\r\n";

TEST(Ssdp, TheGatewaysAnswerIsRead) {
    const auto a = ssdp::parse(as_bytes(kAnswer));
    ASSERT_TRUE(a);
    EXPECT_EQ(a->at.str(), "192.168.1.1:5000");
    EXPECT_EQ(a->path, "/rootDesc.xml");
}

std::string with(std::string_view from, std::string_view to) {
    std::string text(kAnswer);
    text.replace(text.find(from), from.size(), to);
    return text;
}

TEST(Ssdp, LooseLineEndsAndNamesAreRead) {
    std::string text(kAnswer);
    std::erase(text, '\r');
    EXPECT_TRUE(ssdp::parse(as_bytes(text)));
    EXPECT_TRUE(ssdp::parse(as_bytes(with("LOCATION: ", "location:"))));
    EXPECT_TRUE(ssdp::parse(as_bytes(text.substr(0, text.size() - 2))));  // no empty line at the end
}

TEST(Ssdp, OtherDevicesAndHostileLocationsAreNot) {
    for (const auto& [from, to] : std::initializer_list<std::pair<std::string_view, std::string_view>>{
             {"HTTP/1.1 200 OK", "HTTP/1.1 404 Not Found"},
             {"HTTP/1.1 200 OK", "NOTIFY * HTTP/1.1"},
             {"http://192.168.1.1:5000/rootDesc.xml", "https://192.168.1.1:5000/rootDesc.xml"},
             {"http://192.168.1.1:5000/rootDesc.xml", "http://router.example:5000/rootDesc.xml"},
             {"http://192.168.1.1:5000/rootDesc.xml", "file:///etc/passwd"},
             {"http://192.168.1.1:5000/rootDesc.xml", "http://[fe80::1]:5000/rootDesc.xml"},
             {"http://192.168.1.1:5000/rootDesc.xml", "http://192.168.1.1:0/rootDesc.xml"},
             {"http://192.168.1.1:5000/rootDesc.xml", "http://192.168.1.1:5000/root Desc.xml"},
             {"LOCATION", "X-LOCATION"}}) {
        const std::string text = with(from, to);
        EXPECT_FALSE(ssdp::parse(as_bytes(text))) << to;
    }
    std::string printer(kAnswer);
    for (size_t at; (at = printer.find("InternetGatewayDevice")) != std::string::npos;) printer.replace(at, 21, "Printer");
    EXPECT_FALSE(ssdp::parse(as_bytes(printer)));
    const std::string long_one = std::string(kAnswer.substr(0, kAnswer.size() - 2)) + "X: " + std::string(ssdp::kMaxAnswer, 'x') + "\r\n\r\n";
    EXPECT_FALSE(ssdp::parse(as_bytes(long_one)));
}

// ---- UPnP ------------------------------------------------------------------------------------------------------------

std::string service(std::string_view type, std::string_view url) {
    return "<service><serviceType>" + std::string(type) + "</serviceType><controlURL>" + std::string(url) + "</controlURL></service>";
}
std::string description(const std::string& services) {
    return "<?xml version=\"1.0\"?>\n<root xmlns=\"urn:schemas-upnp-org:device-1-0\"><device><deviceType>urn:schemas-upnp-org:device:"
           "InternetGatewayDevice:1</deviceType><deviceList><device><deviceList><device><serviceList>" +
           services + "</serviceList></device></deviceList></device></deviceList></device></root>";
}
constexpr std::string_view kIp1 = "urn:schemas-upnp-org:service:WANIPConnection:1", kIp2 = "urn:schemas-upnp-org:service:WANIPConnection:2",
                           kPpp = "urn:schemas-upnp-org:service:WANPPPConnection:1";

TEST(Upnp, ServicesAreFoundBestFirst) {
    const auto s = upnp::parse_description(description(service(kPpp, "/ppp") + service("urn:schemas-upnp-org:service:Layer3Forwarding:1", "/l3") +
                                                       service(kIp1, " \n/ip1?a=1&amp;b=2 ") + service(kIp2, "ip2")));
    ASSERT_TRUE(s);
    ASSERT_EQ(s->size(), 3U);
    EXPECT_EQ((*s)[0], (upnp::Service{std::string(kIp2), "/ip2"}));
    EXPECT_TRUE((*s)[0].is_v2());
    EXPECT_EQ((*s)[1], (upnp::Service{std::string(kIp1), "/ip1?a=1&b=2"}));
    EXPECT_EQ((*s)[2].type, kPpp);
}

TEST(Upnp, TheHostInAControlUrlIsNotObeyed) {
    const auto s = upnp::parse_description(description(service(kIp1, "http://10.9.8.7:80/ctl")));
    ASSERT_TRUE(s && s->size() == 1);
    EXPECT_EQ(s->front().control_path, "/ctl");
    for (const char* bad : {"", "/a b", "/a\r\nHost: x"}) EXPECT_TRUE(upnp::parse_description(description(service(kIp1, bad)))->empty()) << bad;
}

TEST(Upnp, EntitiesAreNotExpandedAndDepthAndSizeAreBounded) {
    const std::string bomb =
        "<!DOCTYPE root [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\"><!ENTITY x SYSTEM \"file:///etc/passwd\">]>";
    const auto s = upnp::parse_description(bomb + description(service(kIp1, "/ctl&x;&b;")));
    ASSERT_TRUE(s) << s.error().message();
    EXPECT_EQ(s->front().control_path, "/ctl&x;&b;");  // as written
    std::string deep;
    for (int i = 0; i < 5000; ++i) deep += "<a>";
    deep += service(kIp1, "/deep");
    for (int i = 0; i < 5000; ++i) deep += "</a>";
    EXPECT_TRUE(upnp::parse_description(description(deep))->empty());
    EXPECT_EQ(upnp::parse_description(description(std::string(upnp::kMaxXml, ' '))).error().code, Code::kLimit);
    std::string many;
    for (int i = 0; i < 100; ++i) many += service(kIp1, "/" + std::to_string(i));
    EXPECT_EQ(upnp::parse_description(description(many))->size(), upnp::kMaxServices);
}

TEST(Upnp, WhatIsNoDescriptionIsAnErrorInWords) {
    for (const char* bad : {"", "<html><body>Login</body></html>", "not xml", "<root>", "<root></ro", "{\"a\":1}"}) {
        const auto s = upnp::parse_description(bad);
        ASSERT_FALSE(s) << bad;
        EXPECT_FALSE(s.error().message().empty());
    }
}

TEST(Upnp, CallsAskInTheOrderOfTheStandard) {
    const upnp::Call add = upnp::add_mapping({std::string(kIp1), "/ctl"}, 6000, *Endpoint::parse("192.168.1.10:41641"), 7200);
    EXPECT_EQ(add.soap_action, "\"urn:schemas-upnp-org:service:WANIPConnection:1#AddPortMapping\"");
    EXPECT_NE(add.body.find("<NewRemoteHost></NewRemoteHost><NewExternalPort>6000</NewExternalPort><NewProtocol>UDP</NewProtocol><NewInternalPort>"
                            "41641</NewInternalPort><NewInternalClient>192.168.1.10</NewInternalClient><NewEnabled>1</NewEnabled>"
                            "<NewPortMappingDescription>tailscale-portmap</NewPortMappingDescription><NewLeaseDuration>7200</NewLeaseDuration>"),
              std::string::npos);
    EXPECT_EQ(upnp::add_mapping({std::string(kIp2), "/ctl"}, 6000, {}, 0).soap_action,
              "\"urn:schemas-upnp-org:service:WANIPConnection:2#AddAnyPortMapping\"");
}

TEST(Upnp, RepliesAndFaultsAreRead) {
    const std::string head = "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>";
    const auto ok = upnp::parse_reply(head + "<u:GetExternalIPAddressResponse><NewExternalIPAddress>203.0.113.5</NewExternalIPAddress>"
                                             "</u:GetExternalIPAddressResponse></s:Body></s:Envelope>");
    ASSERT_TRUE(ok);
    EXPECT_EQ(ok->error, 0);
    EXPECT_EQ(ok->external_ip, "203.0.113.5");
    const auto fault = upnp::parse_reply(head + "<s:Fault><faultcode>s:Client</faultcode><detail><UPnPError><errorCode>725</errorCode>"
                                                "<errorDescription>OnlyPermanentLeasesSupported</errorDescription></UPnPError></detail></s:Fault>"
                                                "</s:Body></s:Envelope>");
    ASSERT_TRUE(fault);
    EXPECT_EQ(fault->error, upnp::kOnlyPermanentLeases);
    EXPECT_EQ(fault->error_text, "OnlyPermanentLeasesSupported");
    EXPECT_NE(upnp::parse_reply(head + "<s:Fault/></s:Body></s:Envelope>")->error, 0);
    EXPECT_FALSE(upnp::parse_reply("<html/>"));
}

}  // namespace
}  // namespace mesh::portmap
