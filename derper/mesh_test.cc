// SPDX-License-Identifier: BSD-3-Clause
#include "derper/mesh.h"

#include <gtest/gtest.h>

#include "derper/test_support.h"

namespace mesh::derper {
namespace {

const std::string kKey(64, 'a');

TEST(MeshConfig, KeysAndTargets) {
    EXPECT_EQ(hex_encode(parse_mesh_key("  " + kKey + "\n")->bytes()), kKey);
    EXPECT_FALSE(parse_mesh_key(std::string(64, '0')));
    EXPECT_FALSE(parse_mesh_key(std::string(64, 'A')));
    EXPECT_FALSE(parse_mesh_key(kKey + "a"));
    const std::string pin = "sha256-raw:" + kKey;
    const auto t = parse_mesh_with("derp1.example, derp2.example:8443/10.0.0.2 ,[2001:db8::1]:99#" + pin + ",2001:db8::2");
    ASSERT_TRUE(t) << t.error().message();
    EXPECT_EQ(*t, (std::vector<MeshTarget>{{"derp1.example", 443, "", ""},
                                           {"derp2.example", 8443, "10.0.0.2", ""},
                                           {"2001:db8::1", 99, "", pin},
                                           {"2001:db8::2", 443, "", ""}}));
    for (const char* wrong : {"a:0", "a:x", "a:", "[::1", ":443", "a/b/c", "a#sha256-raw:zz"}) EXPECT_FALSE(parse_mesh_with(wrong)) << wrong;
}

class Mesh : public WithLoops {};
INSTANTIATE_TEST_SUITE_P(Loops, Mesh, ::testing::Values(1, 3));

/// Two relays with TLS and a mesh key that link up by certificate hash.
struct Pair {
    platform::Loop& loop;
    SystemRandom random;
    std::string dir;
    platform::Resolver resolver;
    platform::Dialer dialer;
    struct One {
        NodePrivate key;
        std::unique_ptr<Server> server;
        std::string pin;
        std::unique_ptr<MeshContext> context;
        std::vector<std::unique_ptr<MeshLink>> links;
    } one, two;

    static platform::ResolverConfig resolver_config() {
        platform::ResolverConfig c;
        c.protect = platform::Protect::kNo;
        return c;
    }
    explicit Pair(platform::Loop& l) : loop(l), resolver(l, resolver_config()), dialer(l, resolver) {
        char name[] = "/tmp/derper_test_XXXXXX";
        dir = mkdtemp(name);
        for (One* o : {&one, &two}) {
            o->key = NodePrivate::generate(random);
            Server::Config c;
            c.key = o->key;
            c.mesh_key = *parse_mesh_key(kKey);
            c.loops = Lab::loops;
            o->server = std::make_unique<Server>(loop, random, std::move(c));
            const CertPaths paths = cert_paths(dir, o == &one ? "1" : "2");
            EXPECT_TRUE(ensure_self_signed(paths, {"127.0.0.1"}, platform::read_wall_clock(), true));
            const auto cert = load_certificate(paths, "127.0.0.1", o->key.public_key(), platform::read_wall_clock());
            o->pin = cert->pin;
            o->server->set_tls(cert->tls);
            EXPECT_TRUE(o->server->listen({Addr::v4(127, 0, 0, 1), 0}, Service::kDerp));
            o->context = std::make_unique<MeshContext>(
                MeshContext{loop, dialer, random, o->server->relay(), o->key, *parse_mesh_key(kKey), [o] { o->server->flush_soon(); }});
            o->server->on_flush([o] {
                for (const auto& link : o->links) link->flush();
            });
            for (const char* file : {"/1.crt", "/1.key", "/2.crt", "/2.key"})
                if (o == &two) ::unlink((dir + file).c_str());
        }
        ::rmdir(dir.c_str());
    }
    void link(One& from, One& to) {
        from.links.push_back(std::make_unique<MeshLink>(*from.context, MeshTarget{"127.0.0.1", to.server->port(), "", to.pin}));
    }
    /// What the mesh links know is known to every loop: what they said in this turn has left the front, and an answer comes behind it.
    void all_loops_know() {
        loop.run_once(false);
        for (One* o : {&one, &two}) (void)o->server->stats();
    }
    platform::ByteStream dial(const One& o) {
        return connect_loopback(o.server->port(), *platform::TlsSession::client(*platform::derp_tls_options("127.0.0.1", o.pin, false)));
    }
};

TEST_P(Mesh, ClientsOfTwoRelaysReachEachOtherAndHearOfDepartures) {
    Lab lab;
    Pair p(lab.loop);
    auto early = std::make_unique<Client>(lab.loop);
    Client late(lab.loop);
    early->start(p.dial(p.two));
    ASSERT_TRUE(lab.until([&] { return early->session.connected(); }));
    p.link(p.one, p.two);
    p.link(p.two, p.one);
    p.link(p.one, p.one);  // its own name may be in the list
    ASSERT_TRUE(lab.until([&] { return p.one.links[0]->up() && p.two.links[0]->up() && p.one.links[1]->is_self(); }));
    late.start(p.dial(p.one));
    ASSERT_TRUE(lab.until([&] { return late.session.connected() && p.two.server->stats().remote_clients >= 1 &&
                                       p.one.server->stats().remote_clients >= 1; }));
    p.all_loops_know();
    // Present before the link stood (flood), and after (delta).
    late.send(early->key.public_key(), Bytes(1000, 1));
    ASSERT_TRUE(lab.until([&] { return early->packets.size() == 1; }));
    early->send(late.key.public_key(), Bytes(65536, 2));
    ASSERT_TRUE(lab.until([&] { return late.packets.size() == 1; }));
    EXPECT_EQ(late.packets[0], Bytes(65536, 2));
    EXPECT_EQ(p.one.server->stats().forwarded_out, 1U);
    EXPECT_EQ(p.one.server->stats().forwarded_in, 1U);

    const NodePublic key = early->key.public_key();
    early.reset();
    ASSERT_TRUE(lab.until([&] { return !late.gone.empty(); }));
    EXPECT_EQ(late.gone[0], key);
    EXPECT_EQ(p.one.server->stats().remote_clients, 0U) << "only clients count, not the other relay's link";
}

TEST_P(Mesh, ALostRelayTakesItsClientsAway) {
    Lab lab;
    Pair p(lab.loop);
    Client a(lab.loop), b(lab.loop);
    a.start(p.dial(p.one));
    b.start(p.dial(p.two));
    p.link(p.one, p.two);
    ASSERT_TRUE(lab.until([&] { return a.session.connected() && p.one.server->stats().remote_clients == 1; }));
    p.all_loops_know();
    b.send(a.key.public_key(), Bytes(10, 1));  // no link in that direction: dropped
    a.send(b.key.public_key(), Bytes(10, 1));
    ASSERT_TRUE(lab.until([&] { return b.packets.size() == 1; }));
    p.two.server.reset();
    ASSERT_TRUE(lab.until([&] { return !p.one.links[0]->up(); }));
    EXPECT_EQ(p.one.server->stats().remote_clients, 0U);
    ASSERT_TRUE(lab.until([&] { return b.session.failed(); }));
    ASSERT_TRUE(lab.until([&] { return !b.gone.empty() || b.session.failed(); }));
}

}  // namespace
}  // namespace mesh::derper
