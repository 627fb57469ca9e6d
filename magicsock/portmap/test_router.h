// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// A scripted router and the mapper in front of it, in simulated time.

#include <fmt/format.h>

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "magicsock/portmap/mapper.h"
#include "magicsock/portmap/natpmp.h"

namespace mesh::portmap {

inline const Addr kGateway = Addr::v4(192, 168, 1, 1), kSelf = Addr::v4(192, 168, 1, 10), kOther = Addr::v4(192, 168, 1, 2);
inline constexpr uint16_t kPort = 41641;

inline std::string envelope(const std::string& inner) {
    return "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>" + inner + "</s:Body></s:Envelope>";
}
inline std::string fault(int code, const std::string& text = "") {
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
    /// It forgets its ports, counts its time anew, and gives out this port from now on.
    void restart_router(uint16_t external_port) {
        router.open.clear();
        router.epoch_base = static_cast<uint32_t>(now.ns / seconds(1).ns);
        router.external_port = external_port;
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

}  // namespace mesh::portmap
