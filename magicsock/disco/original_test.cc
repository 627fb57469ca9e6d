// SPDX-License-Identifier: BSD-3-Clause
// Datagrams sealed by the original's code (tests/vectors/original.json).
#include "base/test_vectors.h"
#include "magicsock/disco/disco.h"

namespace mesh::disco {
namespace {

using mesh::testing::hex_of;

struct Recorded : ::testing::Test {
    Json v = *json::find(mesh::testing::load_vectors(MESH_VECTORS "/original.json"), "disco");
    DiscoPrivate from = *DiscoPrivate::parse("privkey:" + json::str(v, "from"));
    DiscoPrivate to = *DiscoPrivate::parse("privkey:" + json::str(v, "to"));
    NodePublic node = *NodePublic::parse(json::str(v, "node_key"));
    Endpoint v4 = *Endpoint::parse(json::str(v, "v4")), v6 = *Endpoint::parse(json::str(v, "v6"));
    TxId tx{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

    std::vector<Message> expected() const {
        const DiscoPublic a = from.public_key(), b = to.public_key();
        RelayBind bind{RelayBind::Step::kBind, 70'000, 5, b, {}};
        EXPECT_TRUE(hex_decode(json::str(v, "challenge"), bind.challenge));
        RelayBind challenge = bind, answer = bind;
        challenge.step = RelayBind::Step::kChallenge;
        answer.step = RelayBind::Step::kAnswer;
        const RelayEndpoint relay{DiscoPrivate::parse("privkey:" + json::str(v, "server"))->public_key(), sorted_pair(a, b), 1ULL << 40, 70'000,
                                  seconds(30), minutes(5), {v4, v6}};
        return {Ping{tx, node, 0}, Ping{tx, node, 50}, Pong{tx, v4}, Pong{tx, v6}, CallMeMaybe{{v4, v6}}, bind, challenge, answer,
                CallMeMaybeVia{relay}, AllocateRequest{relay.clients, 77}, AllocateResponse{77, relay}};
    }
};

TEST_F(Recorded, EveryDatagramOpensToItsMessage) {
    const auto shared = SharedKey::derive(to, from.public_key());
    ASSERT_TRUE(shared);
    const Json& messages = *json::find(v, "messages");
    ASSERT_EQ(messages.size(), expected().size());
    for (size_t i = 0; i < messages.size(); ++i) {
        const Bytes datagram = hex_of(messages[i], "datagram");
        ASSERT_TRUE(looks_like_disco(datagram)) << i;
        EXPECT_EQ(sender_of(datagram), from.public_key()) << i;
        const auto payload = shared->open(datagram);
        ASSERT_TRUE(payload) << i;
        EXPECT_EQ(*payload, hex_of(messages[i], "payload")) << i;
        EXPECT_EQ(parse(*payload), expected()[i]) << i;
        for (size_t at : {datagram.size() - 1, size_t{6 + 32}, size_t{6 + 32 + 24}}) {
            Bytes bad = datagram;
            bad[at] ^= 1;
            EXPECT_FALSE(shared->open(bad)) << i;
        }
    }
}

TEST_F(Recorded, OursEncodesTheSameMessagesToTheSameBytes) {
    const Json& messages = *json::find(v, "messages");
    for (size_t i = 0; i < messages.size(); ++i) {
        EXPECT_EQ(hex_encode(encode(expected()[i])), json::str(messages[i], "payload")) << json::str(messages[i], "name");
    }
}

}  // namespace
}  // namespace mesh::disco
