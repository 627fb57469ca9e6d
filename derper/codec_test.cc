// SPDX-License-Identifier: BSD-3-Clause
// The small pure pieces: WebSocket frames, token buckets, rate files, addresses, map entries, metrics.
#include <gtest/gtest.h>

#include "derper/addresses.h"
#include "derper/gate.h"
#include "derper/map_entry.h"
#include "derper/metrics.h"
#include "derper/rate.h"
#include "derper/websocket.h"

namespace mesh::derper {
namespace {

using Event = WebSocketReader::Event;

Bytes frame(uint8_t first, ByteSpan payload, bool masked = true) {
    Bytes out = {first};
    WireWriter w(out);
    const uint8_t bit = masked ? 0x80 : 0;
    if (payload.size() < 126) {
        w.u8(static_cast<uint8_t>(bit | payload.size()));
    } else if (payload.size() <= 0xffff) {
        w.u8(bit | 126);
        w.be16(static_cast<uint16_t>(payload.size()));
    } else {
        w.u8(bit | 127);
        w.be64(payload.size());
    }
    const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    if (masked) w.bytes(mask);
    for (size_t i = 0; i < payload.size(); ++i) w.u8(static_cast<uint8_t>(payload[i] ^ (masked ? mask[i % 4] : 0)));
    return out;
}

struct Seen {
    Bytes data;
    std::vector<Bytes> replies;
    Event last = Event::kNeedMore;
};

Seen read_in_pieces(Bytes stream, size_t piece) {
    WebSocketReader reader;
    Seen seen;
    for (size_t at = 0; at < stream.size(); at += piece) {
        MutByteSpan rest = MutByteSpan(stream).subspan(at, std::min(piece, stream.size() - at));
        for (;;) {
            const Event e = reader.next(rest);
            if (e == Event::kNeedMore) break;
            if (e == Event::kData)
                seen.data.insert(seen.data.end(), reader.data().begin(), reader.data().end());
            else
                seen.replies.push_back(to_bytes(reader.reply()));
            seen.last = e;
            if (e == Event::kClose || e == Event::kError) return seen;
        }
        EXPECT_TRUE(rest.empty());
    }
    return seen;
}

TEST(WebSocket, TheStreamIsTheSameWhateverTheFramesAndTheSplit) {
    Bytes payload(70000);
    for (size_t i = 0; i < payload.size(); ++i) payload[i] = static_cast<uint8_t>(i * 7);
    Bytes stream;
    WireWriter w(stream);
    w.bytes(frame(0x02, ByteSpan(payload).first(100)));       // begins a message
    w.bytes(frame(0x89, as_bytes("hi")));                     // a ping may come in between
    w.bytes(frame(0x00, ByteSpan(payload).subspan(100, 0)));
    w.bytes(frame(0x80, ByteSpan(payload).subspan(100, 900)));
    w.bytes(frame(0x82, ByteSpan(payload).subspan(1000)));
    for (const size_t piece : {size_t{1}, size_t{3}, size_t{1000}, stream.size()}) {
        const Seen seen = read_in_pieces(stream, piece);
        EXPECT_EQ(seen.data, payload) << piece;
        ASSERT_EQ(seen.replies.size(), 1U);
        EXPECT_EQ(seen.replies[0], (Bytes{0x8a, 2, 'h', 'i'}));
    }
}

TEST(WebSocket, CloseIsAnsweredAndViolationsEndTheStream) {
    const uint8_t normal[2] = {0x03, 0xe8};
    const Seen closed = read_in_pieces(frame(0x88, normal), 1);
    EXPECT_EQ(closed.last, Event::kClose);
    EXPECT_EQ(closed.replies.at(0), (Bytes{0x88, 2, 0x03, 0xe8}));
    const std::vector<Bytes> wrong = {
        frame(0x82, normal, false),           // a client must mask
        frame(0xc2, normal),                  // reserved bit
        frame(0x81, normal),                  // text
        frame(0x80, normal),                  // continues nothing
        frame(0x09, normal),                  // fragmented ping
        frame(0x8b, normal),                  // unknown control frame
        frame(0x83, normal),                  // unknown data frame
        frame(0x89, Bytes(126, 1)),           // long ping
        frame(0x88, ByteSpan(normal).first(1)),
        Bytes{0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4},  // length with the top bit
    };
    for (const Bytes& bytes : wrong)
        for (const size_t piece : {size_t{1}, bytes.size()}) EXPECT_EQ(read_in_pieces(bytes, piece).last, Event::kError);
}

TEST(WebSocket, HandshakeAsInTheRfc) {
    http1::Request q;
    q.headers = {{"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}, {"Sec-WebSocket-Version", "13"}};
    EXPECT_NE(websocket_accept(q).find("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), std::string::npos);
    q.headers[1].second = "8";
    EXPECT_EQ(websocket_accept(q), "");
    q.headers = {{"Sec-WebSocket-Key", "short"}, {"Sec-WebSocket-Version", "13"}};
    EXPECT_EQ(websocket_accept(q), "");
}

TEST(WebSocket, HeadersOfAllSizes) {
    const auto header = [](size_t n) {
        Bytes out;
        put_websocket_header(out, n);
        return out;
    };
    EXPECT_EQ(header(125), (Bytes{0x82, 125}));
    EXPECT_EQ(header(126), (Bytes{0x82, 126, 0, 126}));
    EXPECT_EQ(header(65536), (Bytes{0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0}));
}

TEST(Rate, ABucketGoesIntoDebtAndSaysWhenItIsPaid) {
    const Time t{seconds(100).ns};
    TokenBucket b(1000, 500, t);
    b.take(1500, t);
    EXPECT_EQ(b.free_at(t).ns / 1'000'000, (t + milliseconds(1001)).ns / 1'000'000);
    EXPECT_EQ(b.free_at(t + seconds(2)), t + seconds(2));
    b.take(0, t + seconds(100));
    EXPECT_TRUE(b.try_take(500, t + seconds(100))) << "no more than the burst is saved";
    EXPECT_FALSE(b.try_take(1, t + seconds(100)));
    b.set(1, 10, t + seconds(100));
    EXPECT_FALSE(b.try_take(11, t + seconds(1000)));
}

TEST(Rate, FilesOfTheOriginal) {
    const auto r = parse_rate_config(R"({"PerClientRateLimitBytesPerSec": 1000000, "PerClientRateBurstBytes": 200000})");
    EXPECT_EQ(*r, (RateConfig{{1e6, 2e5}, default_rates().all}));
    EXPECT_EQ(*parse_rate_config(R"({"perclientratelimitbytespersec": 5})"), (RateConfig{{5, 65568}, default_rates().all}));
    EXPECT_EQ(*parse_rate_config("{}"), (RateConfig{{}, default_rates().all})) << "as the original: none for a client";
    EXPECT_EQ(*parse_rate_config(R"({"GlobalRateLimitBytesPerSec": 7})"), (RateConfig{{}, {7, 65568}}));
    EXPECT_EQ(*parse_rate_config(R"({"GlobalRateLimitBytesPerSec": 0})"), RateConfig{});
    for (const char* wrong : {"", "[]", "{\"PerClientRateLimitBytesPerSec\":\"5\"}", "{\"PerClientRateLimitBytesPerSec\":-1}"})
        EXPECT_FALSE(parse_rate_config(wrong)) << wrong;
}

TEST(Gate, ASourceThatKnocksAllDayLeavesRoomForTheOthers) {
    SeededRandom random(5);
    const Time t{seconds(100).ns};
    Gate gate(random, 20, 200, t);
    using Verdict = Gate::Verdict;
    const Addr pest = *Addr::parse("192.0.2.1");
    int open = 0;
    for (int i = 0; i < 1000; ++i) open += gate.ask(pest, t) == Verdict::kOpen ? 1 : 0;
    EXPECT_EQ(open, 10);
    EXPECT_EQ(gate.ask(pest, t), Verdict::kTooManyOfSource);
    EXPECT_EQ(gate.ask(*Addr::parse("192.0.2.2"), t), Verdict::kOpen);
    // The addresses of one IPv6 network are one source.
    for (int i = 0; i < 1000; ++i) (void)gate.ask(*Addr::parse("2001:db8::" + std::to_string(i)), t);
    EXPECT_EQ(gate.ask(*Addr::parse("2001:db8::ffff"), t), Verdict::kTooManyOfSource);
    EXPECT_EQ(gate.ask(*Addr::parse("2001:db8:0:1::1"), t), Verdict::kOpen);
    // Many sources together meet the limit of all.
    open = 0;
    for (int i = 0; i < 1000; ++i) open += gate.ask(Addr::v4(10, 0, static_cast<uint8_t>(i / 200), static_cast<uint8_t>(i % 200)), t) == Verdict::kOpen ? 1 : 0;
    EXPECT_EQ(open, 200 - 10 - 1 - 10 - 1);
    EXPECT_EQ(gate.ask(Addr::v4(10, 9, 9, 9), t + seconds(1)), Verdict::kOpen) << "20 a second come back";
}

platform::NetInterface interface(std::string name, std::vector<std::string> addrs, bool up = true) {
    platform::NetInterface i;
    i.link.name = std::move(name);
    i.link.up = up;
    for (const std::string& a : addrs) {
        platform::LinkAddr l;
        l.prefix = *Prefix::parse(a);
        i.addrs.push_back(l);
    }
    return i;
}

std::string picked(const platform::NetState& state) {
    std::string out;
    for (const Addr& a : pick_addresses(state).addrs) out += (out.empty() ? "" : " ") + a.str();
    return out;
}

TEST(Addresses, PublicOnesFirstThenThoseOfTheDefaultInterface) {
    platform::NetState s;
    s.interfaces = {interface("lo", {"127.0.0.1/8", "::1/128"}), interface("eth0", {"2001:db8:1::5/64", "fe80::1/64", "203.0.113.5/24"}),
                    interface("docker0", {"172.17.0.1/16"}), interface("tailscale0", {"100.64.0.1/32"}),
                    interface("eth1", {"198.51.100.1/24"}, false)};
    s.default_interface_v4 = "eth0";
    EXPECT_EQ(picked(s), "203.0.113.5 2001:db8:1::5");
    EXPECT_FALSE(pick_addresses(s).only_private);
    s.interfaces[1] = interface("eth0", {"192.168.1.5/24"});
    EXPECT_EQ(picked(s), "192.168.1.5");
    EXPECT_TRUE(pick_addresses(s).only_private);
    s.default_interface_v4.clear();
    EXPECT_EQ(picked(s), "192.168.1.5 172.17.0.1");
    s.interfaces.clear();
    EXPECT_EQ(picked(s), "");
}

TEST(MapEntry, ForHeadscaleAndForJson) {
    MapEntry e;
    e.hostname = "203.0.113.5";
    e.addrs = {*Addr::parse("203.0.113.5")};
    e.derp_port = 12345;
    e.pin = "sha256-raw:ab";
    EXPECT_EQ(map_yaml(e, Trust::kPin),
              "regions:\n  900:\n    regionid: 900\n    regioncode: custom\n    regionname: My relay\n    nodes:\n"
              "      - name: \"900a\"\n        regionid: 900\n        hostname: \"203.0.113.5\"\n        ipv4: \"203.0.113.5\"\n"
              "        ipv6: \"none\"\n        derpport: 12345\n        certname: \"sha256-raw:ab\"\n");
    EXPECT_NE(map_yaml(e, Trust::kInsecure).find("        insecurefortests: true\n"), std::string::npos);
    EXPECT_EQ(map_yaml(e, Trust::kInsecure).find("certname"), std::string::npos);
    EXPECT_EQ(node_json(e, Trust::kPin),
              R"({"Name":"900a","RegionID":900,"HostName":"203.0.113.5","CertName":"sha256-raw:ab","IPv4":"203.0.113.5","IPv6":"none","DERPPort":12345})");
    EXPECT_NE(node_json(e, Trust::kInsecure).find("\"InsecureForTests\":true"), std::string::npos);
    e.stun_port = -1;
    EXPECT_NE(map_yaml(e, Trust::kPin).find("stunport: -1\n"), std::string::npos);
    EXPECT_TRUE(map_json(e, Trust::kPin).starts_with("{\"Regions\":{\"900\":{\"RegionID\":900,\"RegionCode\":\"custom\""));
}

TEST(Metrics, EveryLineIsATypeOrASample) {
    Metrics m;
    m.relay.clients = 3;
    m.relay.dropped_unknown = {.disco = 4, .other = 5, .disco_bytes = 400, .other_bytes = 500};
    m.sessions.dropped_gone.add(false, 2, 2000);
    m.stun_answered_v4 = 6;
    m.stun_answered_v6 = 1;
    m.version = "1";
    const std::string text = metrics_text(m);
    for (const char* line : {"derp_clients_local 3", "derp_packets_dropped{reason=\"unknown_dest\",kind=\"disco\"} 4",
                             "derp_packets_dropped{reason=\"unknown_dest\",kind=\"other\"} 5", "derp_bytes_dropped{reason=\"unknown_dest\",kind=\"disco\"} 400",
                             "derp_bytes_dropped{reason=\"unknown_dest\",kind=\"other\"} 500", "derp_bytes_dropped{reason=\"gone_disconnected\",kind=\"other\"} 2000",
                             "derp_packets_dropped{reason=\"gone_disconnected\",kind=\"other\"} 2", "stun_addrfamily{family=\"ipv4\"} 6",
                             "stun_requests{disposition=\"success\"} 7", "derp_packets_received_kind{kind=\"disco\"} 0"})
        EXPECT_NE(text.find('\n' + std::string(line) + '\n'), std::string::npos) << line;
    for (size_t at = 0; at < text.size();) {
        const size_t end = text.find('\n', at);
        ASSERT_NE(end, std::string::npos);
        const std::string line = text.substr(at, end - at);
        EXPECT_TRUE(line.starts_with("# TYPE ") || line.find(' ') != std::string::npos) << line;
        at = end + 1;
    }
}

}  // namespace
}  // namespace mesh::derper
