// SPDX-License-Identifier: BSD-3-Clause
#include "platform/net/resolver.h"

#include <filesystem>
#include <fstream>
#include <map>

#include "platform/net/udp_socket.h"
#include "platform/test_support.h"

namespace mesh::platform {
namespace {

using ::testing::HasSubstr;
using testing::no_dns;
using testing::TempFolder;
using testing::turn_until;

/// A DNS server on loopback that answers from a script; names without an entry do not exist.
class ScriptedDns : UdpSocket::Listener {
   public:
    explicit ScriptedDns(Loop& loop) {
        UdpSocket::Options o;
        o.bind_addr = Addr::v4(127, 0, 0, 1);
        o.protect = Protect::kNo;
        o.bulk = false;
        socket_ = std::move(*UdpSocket::open(o));
        socket_->attach(loop, *this);
    }
    std::map<std::string, std::vector<Addr>> names;
    bool silent = false;
    bool silent_for_v6 = false;
    int questions = 0;

    [[nodiscard]] ResolverConfig config() const {
        ResolverConfig c;
        c.servers = {socket_->local_endpoint()};
        c.hosts_path = "/nonexistent";
        return c;
    }

   private:
    void on_datagrams(std::span<UdpReceive> batch) override {
        for (const UdpReceive& r : batch) answer(r.from, r.bytes);
    }
    void on_send_error(const Endpoint&, int) override {}

    void answer(const Endpoint& to, ByteSpan q) {
        ++questions;
        if (silent || q.size() < 12) return;
        std::string name;
        size_t at = 12;
        while (at < q.size() && q[at] != 0) {
            const size_t n = q[at];
            if (!name.empty()) name += '.';
            name += as_text(q.subspan(at + 1, n));
            at += n + 1;
        }
        const uint16_t type = load_be16(q.data() + at + 1);
        if (silent_for_v6 && type == 28) return;
        const size_t end = at + 5;
        Bytes out(q.begin(), q.begin() + static_cast<ptrdiff_t>(end));
        const auto it = names.find(name);
        uint16_t answers = 0;
        if (it != names.end())
            for (const Addr& a : it->second) {
                if (a.is_v4() != (type == 1)) continue;
                ++answers;
                WireWriter w(out);
                w.be16(0xC00C);
                w.be16(type);
                w.be16(1);
                w.be32(60);
                w.be16(static_cast<uint16_t>(a.bytes().size()));
                w.bytes(a.bytes());
            }
        store_be16(out.data() + 2, it == names.end() ? 0x8183 : 0x8180);
        store_be16(out.data() + 6, answers);
        store_be16(out.data() + 8, 0);
        store_be16(out.data() + 10, 0);
        socket_->send(to, out);
    }

    std::unique_ptr<UdpSocket> socket_;
};

struct Answer {
    std::optional<Result<std::vector<Addr>>> result;
    [[nodiscard]] std::string text() const {
        if (!result) return "none";
        if (!*result) return result->error().message();
        std::string out;
        for (const Addr& a : **result) out += a.str() + " ";
        return out;
    }
    Resolver::Callback callback() {
        return [this](Result<std::vector<Addr>> r) { result = std::move(r); };
    }
};

TEST(Resolver, AnswersLiteralsWithoutAServerAndNeverAtOnce) {
    Loop loop;
    Resolver resolver(loop, no_dns());
    Answer v4, v6, wrong;
    const auto a = resolver.resolve("192.0.2.7", {}, v4.callback());
    const auto b = resolver.resolve("2001:db8::1", {}, v6.callback());
    const auto c = resolver.resolve("192.0.2.7", {.want = Resolver::Want::kV6}, wrong.callback());
    EXPECT_FALSE(v4.result);
    ASSERT_TRUE(turn_until(loop, [&] { return v4.result && v6.result && wrong.result; }));
    EXPECT_EQ(v4.text(), "192.0.2.7 ");
    EXPECT_EQ(v6.text(), "2001:db8::1 ");
    EXPECT_THAT(wrong.text(), HasSubstr("no address"));
}

TEST(Resolver, AsksForBothFamiliesAndSaysWhatIsWrong) {
    Loop loop;
    ScriptedDns dns(loop);
    dns.names["both.example"] = {Addr::v4(192, 0, 2, 1), *Addr::parse("2001:db8::1"), Addr::v4(192, 0, 2, 2)};
    dns.names["four.example"] = {Addr::v4(192, 0, 2, 3)};
    dns.names["empty.example"] = {};
    Resolver resolver(loop, dns.config());
    Answer both, four, empty, missing, only4;
    const auto q1 = resolver.resolve("both.example", {}, both.callback());
    const auto q2 = resolver.resolve("four.example.", {}, four.callback());
    const auto q3 = resolver.resolve("empty.example", {}, empty.callback());
    const auto q4 = resolver.resolve("missing.example", {}, missing.callback());
    const auto q5 = resolver.resolve("both.example", {.want = Resolver::Want::kV4}, only4.callback());
    ASSERT_TRUE(turn_until(
        loop, [&] { return both.result && four.result && empty.result && missing.result && only4.result; }));
    EXPECT_EQ(both.text(), "2001:db8::1 192.0.2.1 192.0.2.2 ");
    EXPECT_EQ(four.text(), "192.0.2.3 ");
    EXPECT_THAT(empty.text(), HasSubstr("has no address"));
    EXPECT_THAT(missing.text(), HasSubstr("no such name"));
    EXPECT_EQ(only4.text(), "192.0.2.1 192.0.2.2 ");
}

TEST(Resolver, DoesNotWaitLongForTheOtherFamily) {
    Loop loop;
    ScriptedDns dns(loop);
    dns.silent_for_v6 = true;
    dns.names["four.example"] = {Addr::v4(192, 0, 2, 3)};
    Resolver resolver(loop, dns.config());
    Answer four;
    const Time start = loop.now();
    const auto q = resolver.resolve("four.example", {}, four.callback());
    ASSERT_TRUE(turn_until(loop, [&] { return four.result.has_value(); }));
    EXPECT_EQ(four.text(), "192.0.2.3 ");
    EXPECT_LT(loop.now() - start, milliseconds(1400));  // a retry would come after 1.5 s
}

TEST(Resolver, TimesOutAndNamesTheServers) {
    Loop loop;
    ScriptedDns dns(loop);
    dns.silent = true;
    Resolver resolver(loop, dns.config());
    Answer a;
    const auto q = resolver.resolve("slow.example", {.timeout = milliseconds(50)}, a.callback());
    ASSERT_TRUE(turn_until(loop, [&] { return a.result.has_value(); }));
    EXPECT_THAT(a.text(), HasSubstr("no answer from the DNS servers (127.0.0.1:"));
    EXPECT_EQ(a.result->error().code, Code::kTimeout);
}

TEST(Resolver, NeverCallsBackAfterTheLookupOrTheResolverDied) {
    Loop loop;
    ScriptedDns dns(loop);
    dns.names["a.example"] = {Addr::v4(192, 0, 2, 1)};
    Answer cancelled, orphan, kept;
    auto resolver = std::make_unique<Resolver>(loop, dns.config());
    auto q1 = resolver->resolve("a.example", {}, cancelled.callback());
    const auto q2 = resolver->resolve("a.example", {}, orphan.callback());
    const auto q3 = resolver->resolve("192.0.2.9", {}, orphan.callback());
    q1.reset();
    resolver.reset();
    Resolver second(loop, dns.config());
    const auto q4 = second.resolve("a.example", {}, kept.callback());
    ASSERT_TRUE(turn_until(loop, [&] { return kept.result.has_value(); }));
    EXPECT_FALSE(cancelled.result);
    EXPECT_FALSE(orphan.result);
}

TEST(Resolver, MayBeDestroyedInACallback) {
    Loop loop;
    ScriptedDns dns(loop);
    dns.names["a.example"] = {Addr::v4(192, 0, 2, 1)};
    auto resolver = std::make_unique<Resolver>(loop, dns.config());
    std::unique_ptr<Resolver::Lookup> q;
    q = resolver->resolve("a.example", {}, [&](Result<std::vector<Addr>>) {
        q.reset();
        resolver.reset();
    });
    ASSERT_TRUE(turn_until(loop, [&] { return !resolver; }));
}

TEST(Resolver, ReadsTheHostsFileAndForgetsOldServersOnChange) {
    const TempFolder folder;
    std::ofstream(folder.path + "/hosts") << "# comment\n192.0.2.5  Box.lan box # here\nfd00::5 box.lan\nnot-an-address x\n";
    Loop loop;
    ScriptedDns dead(loop), dns(loop);
    dead.silent = true;
    dns.names["a.example"] = {Addr::v4(192, 0, 2, 1)};
    ResolverConfig config = dead.config();
    config.hosts_path = folder.path + "/hosts";
    Resolver resolver(loop, config);
    Answer hosts, interrupted, after;
    const auto q1 = resolver.resolve("BOX.lan", {}, hosts.callback());
    const auto q2 = resolver.resolve("a.example", {}, interrupted.callback());
    ASSERT_TRUE(turn_until(loop, [&] { return hosts.result.has_value(); }));
    EXPECT_EQ(hosts.text(), "fd00::5 192.0.2.5 ");
    resolver.set_config(dns.config());
    const auto q3 = resolver.resolve("a.example", {}, after.callback());
    ASSERT_TRUE(turn_until(loop, [&] { return interrupted.result && after.result; }));
    EXPECT_THAT(interrupted.text(), HasSubstr("change of the network"));
    EXPECT_EQ(after.text(), "192.0.2.1 ");
}

TEST(Resolver, UsesTheSearchList) {
    Loop loop;
    ScriptedDns dns(loop);
    dns.names["box.lan.example"] = {Addr::v4(192, 0, 2, 8)};
    ResolverConfig config = dns.config();
    config.search = {"lan.example"};
    Resolver resolver(loop, config);
    Answer a;
    const auto q = resolver.resolve("box", {}, a.callback());
    ASSERT_TRUE(turn_until(loop, [&] { return a.result.has_value(); }));
    EXPECT_EQ(a.text(), "192.0.2.8 ");
}

TEST(ResolverConfig, LeavesOurOwnServiceOut) {
    const auto c = parse_resolv_conf(
        "# c\nnameserver 100.100.100.100\nnameserver fd7a:115c:a1e0::53\nnameserver 192.0.2.53 ; x\n"
        "nameserver bad\nsearch a.example b.example\noptions edns0 ndots:3\n");
    ASSERT_EQ(c.servers.size(), 1U);
    EXPECT_EQ(c.servers[0].str(), "192.0.2.53:53");
    EXPECT_EQ(c.search, (std::vector<std::string>{"a.example", "b.example"}));
    EXPECT_EQ(c.ndots, 3);
}

TEST(ResolverConfig, ReadsTheBackupWhenResolvConfIsOurs) {
    const TempFolder folder;
    std::ofstream(folder.path + "/resolv.conf") << "nameserver 100.100.100.100\nsearch tail.example\n";
    EXPECT_TRUE(system_resolver_config(folder.path).servers.empty());
    std::ofstream(folder.path + "/resolv.pre-tailscale-backup.conf") << "nameserver 192.0.2.1\nsearch home.example\n";
    const auto c = system_resolver_config(folder.path);
    ASSERT_EQ(c.servers.size(), 1U);
    EXPECT_EQ(c.servers[0].addr, Addr::v4(192, 0, 2, 1));
    EXPECT_EQ(c.search, std::vector<std::string>{"home.example"});
}

TEST(ResolverConfig, AddsUpstreamsBehindALocalStub) {
    const TempFolder folder;
    std::filesystem::create_directories(folder.path + "/etc");
    std::filesystem::create_directories(folder.path + "/run/systemd/resolve");
    std::ofstream(folder.path + "/etc/resolv.conf") << "nameserver 127.0.0.53\n";
    std::ofstream(folder.path + "/run/systemd/resolve/resolv.conf") << "nameserver 192.0.2.1\nnameserver 100.100.100.100\n";
    const auto c = system_resolver_config(folder.path + "/etc");
    ASSERT_EQ(c.servers.size(), 2U);
    EXPECT_EQ(c.servers[0].addr, Addr::v4(127, 0, 0, 53));
    EXPECT_EQ(c.servers[1].addr, Addr::v4(192, 0, 2, 1));
}

}  // namespace
}  // namespace mesh::platform
