// SPDX-License-Identifier: BSD-3-Clause
// Both directions of a session between the original's relay client and relay server (tests/vectors/original.json), each
// read by our other end, cut in two at every byte.
#include "base/test_vectors.h"
#include "magicsock/derp/client_session.h"
#include "magicsock/derp/server_session.h"

namespace mesh::derp {
namespace {

using mesh::testing::hex_of;

constexpr Time kNow{seconds(1000).ns};
constexpr std::string_view kUpgradeAnswer =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nDerp-Version: 2\r\n\r\n";

struct Recorded : ::testing::Test {
    Json v = *json::find(mesh::testing::load_vectors(MESH_VECTORS "/original.json"), "derp");
    NodePrivate server = *NodePrivate::parse("privkey:" + json::str(v, "server"));
    NodePrivate client = *NodePrivate::parse("privkey:" + json::str(v, "client"));
    NodePublic peer = *NodePublic::parse(json::str(v, "peer"));
    NodePublic stranger = *NodePublic::parse(json::str(v, "stranger"));
};

TEST_F(Recorded, OurServerUnderstandsTheOriginalClient) {
    using Kind = ServerEvent::Kind;
    const Bytes stream = hex_of(v, "from_client");
    for (size_t cut = 0; cut <= stream.size(); ++cut) {
        SeededRandom random(1);
        ServerSession session(random, {.server_key = server}, kNow);
        std::vector<Kind> kinds;
        std::vector<std::pair<NodePublic, Bytes>> packets;
        Bytes out;
        bool preferred = false;
        const auto feed = [&](ByteSpan bytes) {
            session.feed(bytes);
            while (const ServerEvent* e = session.next_event(kNow)) {
                kinds.push_back(e->kind);
                if (e->kind == Kind::kLogin) {
                    EXPECT_EQ(e->key, client.public_key());
                    EXPECT_EQ(session.info().version, 2);
                    session.accept(kNow);
                }
                if (e->kind == Kind::kNotePreferred) preferred = e->preferred;
                if (e->kind == Kind::kPacket) packets.emplace_back(e->key, to_bytes(e->packet));
                if (e->kind == Kind::kError) ADD_FAILURE() << e->error->message();
            }
            for (ByteSpan w; !(w = session.writable(kNow)).empty(); session.wrote(w.size(), kNow))
                out.insert(out.end(), w.begin(), w.end());
        };
        feed(ByteSpan(stream).first(cut));
        feed(ByteSpan(stream).subspan(cut));
        ASSERT_EQ(kinds, (std::vector<Kind>{Kind::kLogin, Kind::kNotePreferred, Kind::kPacket, Kind::kAlive, Kind::kPacket})) << cut;
        EXPECT_TRUE(preferred);
        EXPECT_EQ(packets[0], std::pair(peer, Bytes(40, 0x33)));
        EXPECT_EQ(packets[1].first, stranger);
        EXPECT_EQ(hex_encode(ByteSpan(out).last(13)), "13000000080102030405060708") << "the pong";
    }
}

TEST_F(Recorded, OurClientUnderstandsTheOriginalServer) {
    using Kind = Event::Kind;
    Bytes stream = to_bytes(as_bytes(kUpgradeAnswer));
    const Bytes frames = hex_of(v, "from_server");
    stream.insert(stream.end(), frames.begin(), frames.end());
    for (size_t cut = 0; cut <= stream.size(); ++cut) {
        SeededRandom random(1);
        ClientSession session(random, {.node_key = client});
        session.start({.host = "h"}, kNow);
        std::vector<Kind> kinds;
        const auto feed = [&](ByteSpan bytes) {
            session.feed(bytes, kNow);
            while (const Event* e = session.next_event(kNow)) {
                kinds.push_back(e->kind);
                if (e->kind == Kind::kPacket) {
                    EXPECT_EQ(e->key, peer);
                    EXPECT_EQ(to_bytes(e->packet), Bytes(20, 0x77));
                }
                if (e->kind == Kind::kPeerGone) {
                    EXPECT_EQ(e->key, stranger);
                    EXPECT_EQ(e->reason, GoneReason::kNotHere);
                }
                if (e->kind == Kind::kError) ADD_FAILURE() << e->error.message();
            }
        };
        feed(ByteSpan(stream).first(cut));
        feed(ByteSpan(stream).subspan(cut));
        EXPECT_EQ(session.server_key(), server.public_key());
        ASSERT_EQ(kinds, (std::vector<Kind>{Kind::kConnected, Kind::kPacket, Kind::kPeerGone}))
            << "the pong answers a ping that this session never sent; cut at " << cut;
    }
}

}  // namespace
}  // namespace mesh::derp
