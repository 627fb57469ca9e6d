// SPDX-License-Identifier: BSD-3-Clause
// Our engine against messages recorded from an independent one (tests/vectors/wireguard.json says how). With the same
// ephemeral keys, indices and stamp, ours must produce the same bytes in both roles.
#include "base/test_vectors.h"
#include "wg/testing.h"

namespace mesh::wg {
namespace {

using mesh::testing::from_hex;

/// Gives out prepared bytes, one piece per call.
class ScriptedRandom : public Random {
   public:
    explicit ScriptedRandom(Bytes next) : next_(std::move(next)) {}
    void fill(std::span<uint8_t> out) override {
        ASSERT_EQ(out.size(), next_.size());
        std::copy(next_.begin(), next_.end(), out.begin());
    }

   private:
    Bytes next_;
};

struct Side {
    Identity identity;
    Bytes ephemeral;
    uint32_t index;
};

class Golden : public ::testing::Test {
   protected:
    void SetUp() override {
        crypto::init();
        v = mesh::testing::load_vectors(MESH_VECTORS "/wireguard.json");
        a = side("a");
        b = side("b");
        const Bytes s = from_hex(json::str(v, "stamp"));
        ASSERT_EQ(s.size(), stamp.size());
        std::copy(s.begin(), s.end(), stamp.begin());
        initiation = message(0);
        response = message(1);
        ASSERT_EQ(initiation.size(), sizeof(Initiation));
        ASSERT_EQ(response.size(), sizeof(Response));
    }
    Side side(const char* name) {
        const Json& j = *json::find(v, name);
        Side s;
        EXPECT_TRUE(hex_decode(json::str(j, "private"), s.identity.secret.bytes()));
        EXPECT_TRUE(hex_decode(json::str(j, "public"), s.identity.key.raw));
        EXPECT_EQ(NodePrivate::from(s.identity.secret.bytes()).public_key(), s.identity.key);
        s.ephemeral = from_hex(json::str(j, "ephemeral"));
        s.index = load_le32(from_hex(json::str(j, "index")).data());
        return s;
    }
    Bytes message(size_t i) { return from_hex(json::str((*json::find(v, "messages"))[i], "hex")); }
    static const Initiation& as_initiation(const Bytes& m) { return *reinterpret_cast<const Initiation*>(m.data()); }
    static const Response& as_response(const Bytes& m) { return *reinterpret_cast<const Response*>(m.data()); }
    template <class M>
    static Bytes with_macs(M msg, const NodePublic& to) {
        CookieJar jar;
        jar.write_macs({reinterpret_cast<uint8_t*>(&msg), sizeof msg}, to, testing::kStart);
        return to_bytes({reinterpret_cast<const uint8_t*>(&msg), sizeof msg});
    }
    /// Every recorded transport message of one direction opens to what was sent.
    void expect_opens(const char* from, const TransportKeys& keys, uint32_t index) {
        Session s(keys, Role::kResponder, index, 0, 0, testing::kStart);
        size_t n = 0;
        for (const Json& m : *json::find(v, "messages")) {
            Bytes wire = from_hex(json::str(m, "hex"));
            if (json::str(m, "from") != from || testing::type_of(wire) != kTypeTransport) continue;
            const Bytes plain = from_hex(json::str(m, "plain"));
            EXPECT_EQ(load_le32(wire.data() + 4), index);
            EXPECT_EQ(wire.size(), plain.size() + padding_for(plain.size(), 1420) + kDataOverhead);
            ASSERT_EQ(s.open(wire, testing::kStart), DropReason::kNone);
            EXPECT_TRUE(std::equal(plain.begin(), plain.end(), wire.begin() + kDataHeader));
            ++n;
        }
        EXPECT_EQ(n, 5U);
    }
    /// Ours seals the same packets to the same bytes.
    void expect_seals(const char* from, const TransportKeys& keys, uint32_t remote_index) {
        Session s(keys, Role::kInitiator, 0, remote_index, 0, testing::kStart);
        for (const Json& m : *json::find(v, "messages")) {
            const Bytes wire = from_hex(json::str(m, "hex"));
            if (json::str(m, "from") != from || testing::type_of(wire) != kTypeTransport) continue;
            const Bytes plain = from_hex(json::str(m, "plain"));
            Bytes slot(kDataOverhead + plain.size() + kPadding);
            std::copy(plain.begin(), plain.end(), slot.begin() + kDataHeader);
            slot.resize(s.seal(slot.data(), plain.size(), 1420));
            EXPECT_EQ(hex_encode(slot), hex_encode(wire));
        }
    }

    Json v;
    Side a, b;
    Stamp stamp{};
    Bytes initiation, response;
};

TEST_F(Golden, OursInitiatesByteForByteAndUnderstandsTheResponse) {
    Secret shared;
    ASSERT_TRUE(static_shared(shared, a.identity, b.identity.key));
    ScriptedRandom random(a.ephemeral);
    Initiation msg;
    InitiatorHandshake state;
    ASSERT_TRUE(create_initiation(msg, state, random, a.identity, b.identity.key, shared, a.index, stamp));
    EXPECT_EQ(hex_encode(with_macs(msg, b.identity.key)), hex_encode(initiation));

    TransportKeys keys;
    ASSERT_TRUE(consume_response(keys, as_response(response), state, a.identity));
    expect_opens("b", keys, a.index);
    expect_seals("a", keys, load_le32(as_response(response).sender));
}

TEST_F(Golden, OursAnswersByteForByte) {
    OpenedInitiation opened;
    ASSERT_TRUE(open_static(opened, as_initiation(initiation), b.identity));
    EXPECT_EQ(opened.remote_static, a.identity.key);
    Secret shared;
    ASSERT_TRUE(static_shared(shared, b.identity, opened.remote_static));
    ASSERT_TRUE(open_stamp(opened, as_initiation(initiation), shared));
    EXPECT_EQ(opened.stamp, stamp);

    ScriptedRandom random(b.ephemeral);
    Response msg;
    TransportKeys keys;
    ASSERT_TRUE(create_response(msg, keys, random, opened, b.index));
    EXPECT_EQ(hex_encode(with_macs(msg, a.identity.key)), hex_encode(response));
    expect_opens("a", keys, b.index);
    expect_seals("b", keys, a.index);
}

TEST_F(Golden, TheWholeEngineAcceptsTheRecordedInitiation) {
    testing::Node node(5);
    node.device.set_private_key(NodePrivate::from(b.identity.secret.bytes()), testing::kStart);
    node.device.add_peer(3, a.identity.key);
    const auto o = node.deliver(initiation, testing::kStart);
    EXPECT_EQ(o.kind, Device::Opened::kHandshake);
    EXPECT_EQ(o.peer, 3U);
    ASSERT_EQ(node.sent.size(), 1U);
    EXPECT_EQ(node.sent[0].size(), sizeof(Response));
}

TEST_F(Golden, ACookieOfTheOtherEngineMakesTheSameMac2) {
    const Json& c = *json::find(v, "cookie");
    const Bytes m1 = from_hex(json::str(c, "m1")), m2 = from_hex(json::str(c, "m2"));
    const Bytes reply = from_hex(json::str(c, "reply"));
    ASSERT_EQ(reply.size(), sizeof(CookieReply));
    CookieJar jar;
    Bytes ours = m1;
    jar.write_macs(ours, b.identity.key, testing::kStart);
    EXPECT_EQ(hex_encode(ours), hex_encode(m1));
    ASSERT_TRUE(jar.accept(*reinterpret_cast<const CookieReply*>(reply.data()), b.identity.key, testing::kStart));
    jar.write_macs(ours, b.identity.key, testing::kStart);
    EXPECT_EQ(hex_encode(ours), hex_encode(m2));
}

}  // namespace
}  // namespace mesh::wg
