// SPDX-License-Identifier: BSD-3-Clause
// Files from a program of one host to the inbox of another: FileSends, PeerApi and Taildrop over loopback.
#include "tailscaled/taildrop.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "base/crypto/crypto.h"
#include "platform/net/resolver.h"
#include "platform/net/stream_pair.h"
#include "platform/test_support.h"
#include "tailscaled/file_reads.h"
#include "tailscaled/file_sends.h"
#include "tailscaled/network_plan.h"
#include "tailscaled/outgoing_dialer.h"
#include "tailscaled/peer_api.h"

namespace mesh::daemon {
namespace {

using platform::Inbox;
using platform::testing::turn_until;

std::string blob(size_t n) {
    std::string out(n, '\0');
    uint32_t x = 1;
    for (char& c : out) c = static_cast<char>((x = x * 1664525 + 1013904223) >> 24);
    return out;
}

/// One end of a connection that says what it is told and keeps what it hears.
struct Talk final : platform::ByteStream::Listener {
    Talk(platform::Loop& loop, platform::ByteStream s) : stream(std::move(s)) {
        stream.set_queue_limit(size_t{64} << 20);
        stream.attach(loop, *this);
    }
    void on_bytes(MutByteSpan bytes) override { heard.append(as_text(bytes)); }
    void on_closed(const Status&) override { closed = true; }
    [[nodiscard]] std::string status() const { return heard.substr(0, heard.find('\r')); }
    [[nodiscard]] std::string body() const { return heard.find("\r\n\r\n") == std::string::npos ? "" : heard.substr(heard.find("\r\n\r\n") + 4); }
    platform::ByteStream stream;
    std::string heard;
    bool closed = false;
};

class TaildropTest : public ::testing::Test {
   protected:
    TaildropTest() {
        start({.keep_free = 0});
    }
    ~TaildropTest() override {
        sends.reset();
        reads.reset();
        api.reset();
        files.reset();
    }
    void start(platform::InboxLimits limits) {
        api.reset();
        reads.reset();
        files = std::make_unique<Taildrop>(
            loop, Taildrop::Hooks{[this](const Addr&) -> Result<std::string> { return foreign ? Result<std::string>(fail(Code::kDenied, "not you")) : "n7"; },
                                  [this] { ++arrived; }},
            limits);
        files->set_folder(root + "/files/alice-uid-1");
        reads = std::make_unique<FileReads>(loop, *files);
        PeerApi::Services services;
        services.files = files.get();
        api = PeerApi::start(loop, "", 0, std::move(services)).value();
        FileSends::Hooks hooks;
        hooks.target = [this](const std::string& id) -> Result<Endpoint> {
            if (id != "n2") return fail(Code::kNotFound, "node not found");
            return Endpoint{Addr::v4(127, 0, 0, 1), port != 0 ? port : api->port()};
        };
        hooks.dial = [this](const Endpoint& to, Outgoing what) {
            what.to = to;
            outgoing.dial(to.addr.str(), std::move(what));
        };
        hooks.progress = [] {};
        sends = std::make_unique<FileSends>(loop, std::move(hooks));
    }
    /// A program's request to the local API.
    std::unique_ptr<Talk> program(const std::string& head) {
        auto pair = platform::stream_pair().value();
        auto talk = std::make_unique<Talk>(loop, std::move(pair.first));
        talk->stream.write(head);
        sends->take(std::move(pair.second));
        return talk;
    }
    std::string send(const std::string& name, const std::string& body, bool sized = true) {
        const std::string head = "PUT /localapi/v0/file-put/n2/" + name + " HTTP/1.1\r\nHost: local-tailscaled.sock\r\n";
        const auto talk = program(head + (sized ? "Content-Length: " + std::to_string(body.size()) : "Transfer-Encoding: chunked") + "\r\n\r\n");
        for (size_t at = 0; at < body.size(); at += 100'000) {
            const std::string piece = body.substr(at, 100'000);
            talk->stream.write(sized ? piece : http1::chunk(piece));
        }
        if (!sized) talk->stream.write(http1::chunk(""));
        EXPECT_TRUE(turn_until(loop, [&] { return talk->closed; }));
        last_body = talk->body();
        return talk->status();
    }
    /// A peer that writes by hand.
    std::unique_ptr<Talk> peer(const std::string& request) {
        std::unique_ptr<Talk> talk;
        const auto dial = dialer.dial("127.0.0.1", api->port(), options(), [&](Result<platform::ByteStream> r) {
            talk = std::make_unique<Talk>(loop, std::move(r.value()));
        });
        EXPECT_TRUE(turn_until(loop, [&] { return talk != nullptr; }));
        talk->stream.write(request);
        return talk;
    }
    std::string ask(const std::string& request) {
        const auto talk = peer(request);
        EXPECT_TRUE(turn_until(loop, [&] { return talk->closed || talk->heard.ends_with("\n"); }));
        last_body = talk->body();
        return talk->status();
    }
    static platform::DialOptions options() {
        platform::DialOptions o;
        o.addresses = {Addr::v4(127, 0, 0, 1)};
        o.protect = platform::Protect::kNo;
        return o;
    }
    Taildrop::Files waiting(Duration wait = {}) {
        std::optional<Taildrop::Files> out;
        files->list(wait, [&](const Result<Taildrop::Files>& r) { out = r.value(); });
        EXPECT_TRUE(turn_until(loop, [&] { return out.has_value(); }));
        return out.value_or(Taildrop::Files{});
    }
    std::string content(const std::string& name) {
        auto pair = platform::stream_pair().value();
        Talk talk(loop, std::move(pair.first));
        reads->take(name, std::move(pair.second));
        EXPECT_TRUE(turn_until(loop, [&] { return talk.closed; }));
        return talk.body();
    }

    platform::Loop loop;
    platform::Resolver resolver{loop, {}};
    platform::Dialer dialer{loop, resolver};
    OutgoingDialer outgoing{dialer, {[](const std::string&) { return std::vector<Addr>{}; }, [](const Addr&) { return OutgoingDialer::Way::kHost; }, nullptr}};
    platform::testing::TempFolder folder;
    const std::string& root = folder.path;
    std::string last_body;
    bool foreign = false;
    int arrived = 0;
    uint16_t port = 0;
    std::unique_ptr<Taildrop> files;
    std::unique_ptr<FileReads> reads;
    std::unique_ptr<PeerApi> api;
    std::unique_ptr<FileSends> sends;
};

TEST_F(TaildropTest, AFileGoesAllTheWay) {
    const std::string big = blob(3'000'001);
    EXPECT_EQ(send("big%20one.bin", big), "HTTP/1.1 200 OK");
    EXPECT_EQ(arrived, 1);
    EXPECT_EQ(waiting(), (Taildrop::Files{{"big one.bin", big.size()}}));
    EXPECT_TRUE(content("big one.bin") == big);
    EXPECT_EQ(send("from-stdin", big, false), "HTTP/1.1 200 OK") << "of a length nobody knows";
    EXPECT_TRUE(content("from-stdin") == big);
    EXPECT_EQ(send("empty", ""), "HTTP/1.1 200 OK");
    EXPECT_EQ(content("empty"), "");
    ASSERT_EQ(sends->files().size(), 3U);
    EXPECT_TRUE(sends->files()[0].finished && sends->files()[0].succeeded);
    EXPECT_EQ(sends->files()[0].sent, 3'000'001);
    EXPECT_EQ(sends->files()[0].name, "big one.bin");
    std::optional<Status> removed;
    files->remove("empty", [&](const Status& s) { removed = s; });
    EXPECT_TRUE(turn_until(loop, [&] { return removed.has_value(); }));
    EXPECT_EQ(waiting().size(), 2U);
}

TEST_F(TaildropTest, RefusalsReachTheProgram) {
    foreign = true;
    EXPECT_EQ(send("a", blob(2'000'000)), "HTTP/1.1 403 Forbidden");
    EXPECT_EQ(last_body, "not you\n");
    EXPECT_FALSE(std::filesystem::exists(root + "/files")) << "not even a partial file";
    foreign = false;
    EXPECT_EQ(send("..%2Fa", "x"), "HTTP/1.1 400 Bad Request");
    const auto nobody = program("PUT /localapi/v0/file-put/n3/a HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
    EXPECT_TRUE(turn_until(loop, [&] { return nobody->closed; }));
    EXPECT_EQ(nobody->body(), "node not found\n");
    const auto browser = program("PUT /localapi/v0/file-put/n2/a HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n");
    EXPECT_TRUE(turn_until(loop, [&] { return browser->closed; }));
    EXPECT_EQ(browser->status(), "HTTP/1.1 403 Forbidden");
    start({.bytes = 1'000'000, .keep_free = 0});
    EXPECT_EQ(send("big", blob(1'000'001)), "HTTP/1.1 507 Insufficient Storage");
    EXPECT_EQ(send("big", blob(1'000'001), false), "HTTP/1.1 507 Insufficient Storage") << "found out on the way";
    port = 1;  // nobody listens
    EXPECT_EQ(send("a", "x"), "HTTP/1.1 502 Bad Gateway");
    EXPECT_NE(last_body.find("refused"), std::string::npos) << last_body;
    EXPECT_EQ(arrived, 0);
    EXPECT_TRUE(waiting().empty());
}

TEST_F(TaildropTest, HostilePeers) {
    const auto put = [&](const std::string& path, const std::string& more = "") {
        return ask("PUT " + path + " HTTP/1.1\r\nHost: peer\r\n" + more + "Content-Length: 1\r\n\r\nx");
    };
    for (const std::string name : {"", "..", ".", "a%2Fb", "%2Fetc%2Fpasswd", "a%00b", "a%0Ab", "x.partial", "x.deleted", "a%5Cb", "%ff", "a/../b", "../a", "a%20"})
        EXPECT_EQ(put("/v0/put/" + name), "HTTP/1.1 400 Bad Request") << name;
    EXPECT_EQ(put("/v0/put/" + std::string(256, 'a')), "HTTP/1.1 400 Bad Request");
    EXPECT_EQ(put("/v0/put/a", "Origin: http://evil.example\r\n"), "HTTP/1.1 403 Forbidden");
    for (const std::string range : {"bytes=5-9", "bytes=-5", "bytes=x-", "lines=1-", "bytes=1-,3-", "bytes=99999999999999999999-"})
        EXPECT_EQ(put("/v0/put/a", "Range: " + range + "\r\n"), "HTTP/1.1 400 Bad Request") << range;
    EXPECT_EQ(put("/v0/put/a", "Range: bytes=5-\r\n"), "HTTP/1.1 400 Bad Request") << "beyond what is there";
    EXPECT_EQ(ask("GET /v0/put/..%2Fx HTTP/1.1\r\nHost: peer\r\n\r\n"), "HTTP/1.1 400 Bad Request");
    EXPECT_EQ(ask("DELETE /v0/put/a HTTP/1.1\r\nHost: peer\r\n\r\n"), "HTTP/1.1 404 Not Found");
    EXPECT_EQ(ask("GET /v0/env HTTP/1.1\r\nHost: peer\r\n\r\n"), "HTTP/1.1 404 Not Found");
    foreign = true;
    EXPECT_EQ(put("/v0/put/a"), "HTTP/1.1 403 Forbidden");
    EXPECT_EQ(ask("GET /v0/put/ HTTP/1.1\r\nHost: peer\r\n\r\n"), "HTTP/1.1 403 Forbidden");
    foreign = false;
    EXPECT_TRUE(waiting().empty());
    // One of them holds many files open: it gets its share and no more.
    std::vector<std::unique_ptr<Talk>> held;
    for (size_t i = 0; i < Taildrop::kMaxPerPeer; ++i)
        held.push_back(peer("PUT /v0/put/f" + std::to_string(i) + " HTTP/1.1\r\nHost: peer\r\nContent-Length: 10\r\n\r\nx"));
    EXPECT_TRUE(turn_until(loop, [&] { return std::filesystem::exists(root + "/files/alice-uid-1/f7.n7.partial"); }));
    EXPECT_EQ(put("/v0/put/one-more"), "HTTP/1.1 507 Insufficient Storage");
    EXPECT_EQ(put("/v0/put/f0"), "HTTP/1.1 409 Conflict");
}

TEST_F(TaildropTest, WhatABrokenConnectionLeftIsGoneOnWith) {
    const std::string big = blob(200'000);
    auto cut = peer("PUT /v0/put/big HTTP/1.1\r\nHost: peer\r\nContent-Length: 200000\r\n\r\n" + big.substr(0, 140'000));
    const std::string partial = root + "/files/alice-uid-1/big.n7.partial";
    EXPECT_TRUE(turn_until(loop, [&] { return std::filesystem::exists(partial) && std::filesystem::file_size(partial) == 140'000; }));
    EXPECT_TRUE(waiting().empty());
    cut.reset();
    EXPECT_TRUE(turn_until(loop, [&] { return ask("GET /v0/put/ HTTP/1.1\r\nHost: peer\r\n\r\n") == "HTTP/1.1 200 OK" && last_body.find("big.n7.partial") != std::string::npos; }));
    // By hand: three blocks' hashes, the last one short; then the rest, on the same connection.
    const auto talk = peer("GET /v0/put/big HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n");
    EXPECT_TRUE(turn_until(loop, [&] { return talk->heard.ends_with("0\r\n\r\n"); }));
    for (const auto& [at, n] : {std::pair{0UL, 65536UL}, {65536UL, 65536UL}, {131072UL, 8928UL}})
        EXPECT_NE(talk->heard.find("{\"checksum\":\"" + hex_encode(crypto::sha256(as_bytes(big.substr(at, n)))) + "\",\"algo\":\"sha256\",\"size\":" + std::to_string(n) + "}\n"), std::string::npos) << talk->heard;
    talk->heard.clear();
    talk->stream.write("PUT /v0/put/big HTTP/1.1\r\nHost: peer\r\nRange: bytes=131072-\r\nContent-Length: 68928\r\n\r\n" + big.substr(131'072));
    EXPECT_TRUE(turn_until(loop, [&] { return talk->heard.ends_with("{}\n"); })) << talk->heard;
    EXPECT_TRUE(content("big") == big);
    EXPECT_EQ(ask("GET /v0/put/big HTTP/1.1\r\nHost: peer\r\n\r\n"), "HTTP/1.1 200 OK") << "nothing is left of it";
    EXPECT_EQ(last_body, "0\r\n\r\n");
}

/// What a sender makes of a peer's answer about what it has.
TEST_F(TaildropTest, TheSenderSendsTheRestOnly) {
    const std::string big = blob(200'000);
    const auto line = [&](size_t at, size_t n) {
        return "{\"checksum\":\"" + hex_encode(crypto::sha256(as_bytes(big.substr(at, n)))) + "\",\"algo\":\"sha256\",\"size\":" + std::to_string(n) + "}\n";
    };
    std::string hashes;
    std::vector<std::unique_ptr<Talk>> talks;
    const auto there = platform::Listener::tcp(loop, {Addr::v4(127, 0, 0, 1), 0}, [&](platform::ByteStream s) { talks.push_back(std::make_unique<Talk>(loop, std::move(s))); }).value();
    port = there->port();
    const auto offset_after = [&](const std::string& answer) {
        talks.clear();
        const auto talk = program("PUT /localapi/v0/file-put/n2/x HTTP/1.1\r\nContent-Length: 200000\r\n\r\n");
        EXPECT_TRUE(turn_until(loop, [&] { return talks.size() == 1 && talks[0]->heard.ends_with("\r\n\r\n"); }));
        EXPECT_TRUE(talks[0]->heard.starts_with("GET /v0/put/x HTTP/1.1\r\n")) << talks[0]->heard;
        talks[0]->stream.write("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(answer.size()) + "\r\n\r\n" + answer);
        // The file comes later than the end of that connection.
        talks[0]->stream.finish_writing();
        for (int i = 0; i < 20; ++i) loop.run_once(false);
        talk->stream.write(big);
        EXPECT_TRUE(turn_until(loop, [&] { return talks.size() == 2 && talks[1]->heard.find("\r\n\r\n") != std::string::npos; }));
        const std::string& head = talks[1]->heard;
        const size_t range = head.find("Range: bytes=");
        const size_t offset = range == std::string::npos ? 0 : std::stoul(head.substr(range + 13));
        EXPECT_TRUE(turn_until(loop, [&] { return talks[1]->body().size() == 200'000 - offset; }));
        EXPECT_TRUE(talks[1]->body() == big.substr(offset));
        EXPECT_NE(head.find("Content-Length: " + std::to_string(200'000 - offset) + "\r\n"), std::string::npos);
        talks[1]->stream.write("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}\n");
        EXPECT_TRUE(turn_until(loop, [&] { return talk->closed; }));
        EXPECT_EQ(talk->status(), "HTTP/1.1 200 OK");
        return offset;
    };
    EXPECT_EQ(offset_after(""), 0U);
    EXPECT_EQ(offset_after(line(0, 65536) + line(65536, 65536) + line(131072, 10)), 131082U);
    EXPECT_EQ(offset_after(line(0, 65536) + line(0, 65536)), 65536U) << "another file's block";
    EXPECT_EQ(offset_after(line(0, 65536) + "{\"size\":-1}\n"), 65536U);
    EXPECT_EQ(offset_after("no JSON at all"), 0U);
    EXPECT_EQ(offset_after(line(0, 65536) + line(65536, 65536) + line(131072, 65536) + line(196608, 3392) + line(0, 1)), 200'000U) << "all of it is there";
}

TEST_F(TaildropTest, SomebodyWaitsForAFile) {
    std::vector<Taildrop::Files> got;
    const auto wait = [&](Duration d) { files->list(d, [&](const Result<Taildrop::Files>& r) { got.push_back(r.value()); }); };
    wait(milliseconds(20));
    EXPECT_TRUE(turn_until(loop, [&] { return got.size() == 1; })) << "its time is over";
    EXPECT_TRUE(got[0].empty());
    wait(seconds(3600));
    wait(seconds(3600));
    EXPECT_EQ(send("a", "x"), "HTTP/1.1 200 OK");
    EXPECT_TRUE(turn_until(loop, [&] { return got.size() == 3; }));
    EXPECT_EQ(got[2], (Taildrop::Files{{"a", 1}}));
    EXPECT_EQ(content("b"), "open b: No such file or directory\n");
}

TEST_F(TaildropTest, ItsEndWithFilesUnderWay) {
    const auto in = peer("PUT /v0/put/in HTTP/1.1\r\nHost: peer\r\nContent-Length: 100\r\n\r\nx");
    const auto out = program("PUT /localapi/v0/file-put/n2/out HTTP/1.1\r\nContent-Length: 100\r\n\r\nx");
    EXPECT_TRUE(turn_until(loop, [&] { return sends->files().size() == 1; }));
    for (int i = 0; i < 20; ++i) loop.run_once(false);
    sends.reset();
    api.reset();
    reads.reset();
    files.reset();
    EXPECT_TRUE(turn_until(loop, [&] { return in->closed && out->closed; }));
}

TEST(TaildropFolder, IsTheOriginals) {
    EXPECT_EQ(taildrop_folder("/s", "bob@example.com", 2), "/s/files/bob-example.com-uid-2");
    EXPECT_EQ(taildrop_folder("/s", "../../etc", 2), "/s/files/uid-2");
    EXPECT_EQ(taildrop_folder("", "bob", 2), "");
    EXPECT_EQ(taildrop_folder("/s", "", 2), "");
}

TEST(TaildropRights, WhoMaySendToWhom) {
    const auto node = [](netmap::NodeId id, const char* addr, netmap::UserId user) {
        netmap::Node n;
        n.id = id;
        n.stable_id = "n" + std::to_string(id);
        n.user = user;
        n.addresses = {*Prefix::parse(addr)};
        n.online = true;
        auto info = std::make_shared<netmap::PeerHostinfo>();
        info->os = "linux";
        info->services.push_back({"peerapi4", 40000, ""});
        n.hostinfo = std::move(info);
        return n;
    };
    netmap::NetMap map;
    netmap::Node self = node(1, "100.64.0.1/32", 1);
    map.self = std::make_shared<const netmap::Node>(self);
    map.filter = std::make_shared<const netmap::PacketFilter>();
    netmap::Node tagged = node(4, "100.64.0.4/32", 1), jailed = node(5, "100.64.0.5/32", 1), gone = node(7, "100.64.0.7/32", 1), old = node(8, "100.64.0.8/32", 1);
    tagged.tags = {"tag:x"};
    jailed.jailed = true;
    gone.online = false;
    old.hostinfo = std::make_shared<netmap::PeerHostinfo>();
    for (const netmap::Node& n : {node(2, "100.64.0.2/32", 1), node(3, "100.64.0.3/32", 2), tagged, jailed, node(6, "100.64.0.6/32", 2), gone, old})
        map.peers.upsert(std::make_shared<const netmap::Node>(n));
    const auto may = [&](const char* addr) {
        const auto r = file_sender(map, *Addr::parse(addr));
        return r ? *r : "";
    };
    EXPECT_EQ(may("100.64.0.2"), "") << "the tailnet has to allow it";
    EXPECT_EQ(FileTargets(map).of(*map.node_by_addr(*Addr::parse("100.64.0.2")), api::State::kRunning), TaildropTarget::kMissingCap);
    self.cap_map.entries.emplace_back(kFileSharing, std::vector<std::string>{});
    map.self = std::make_shared<const netmap::Node>(self);
    EXPECT_EQ(may("100.64.0.2"), "n2");
    EXPECT_EQ(may("100.64.0.1"), "") << "we ourselves";
    EXPECT_EQ(may("100.64.0.3"), "") << "another user";
    EXPECT_EQ(may("100.64.0.4"), "") << "tagged";
    EXPECT_EQ(may("100.64.0.5"), "") << "jailed";
    EXPECT_EQ(may("192.168.7.7"), "") << "no node, though it may be behind one";
    const auto target = [&](const char* addr, api::State state = api::State::kRunning) { return FileTargets(map).of(*map.node_by_addr(*Addr::parse(addr)), state); };
    EXPECT_EQ(target("100.64.0.2"), TaildropTarget::kAvailable);
    EXPECT_EQ(target("100.64.0.2", api::State::kStopped), TaildropTarget::kNotRunning);
    EXPECT_EQ(target("100.64.0.3"), TaildropTarget::kOtherOwner);
    EXPECT_EQ(target("100.64.0.7"), TaildropTarget::kOffline);
    EXPECT_EQ(target("100.64.0.8"), TaildropTarget::kNoPeerApi);
    // Grants open it for others, each way by itself.
    netmap::PacketFilter filter;
    netstack::FilterRule rule;
    ASSERT_TRUE(netstack::parse_source("100.64.0.6", rule));
    rule.grants = {{{*Prefix::parse("100.64.0.1/32")}, {{"https://tailscale.com/cap/file-send", "[]"}}}};
    filter.rules = {rule};
    map.filter = std::make_shared<const netmap::PacketFilter>(filter);
    EXPECT_EQ(may("100.64.0.6"), "n6");
    EXPECT_EQ(may("100.64.0.3"), "");
    EXPECT_EQ(target("100.64.0.6"), TaildropTarget::kOtherOwner);
    filter.rules[0].grants = {{{*Prefix::parse("100.64.0.1/32")}, {{"https://tailscale.com/cap/file-sharing-target", "[]"}}}};
    map.filter = std::make_shared<const netmap::PacketFilter>(filter);
    EXPECT_EQ(may("100.64.0.6"), "");
    EXPECT_EQ(target("100.64.0.6"), TaildropTarget::kAvailable);
}

}  // namespace
}  // namespace mesh::daemon
