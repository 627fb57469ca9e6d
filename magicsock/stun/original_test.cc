// SPDX-License-Identifier: BSD-3-Clause
// Messages made by the original's code (tests/vectors/original.json).
#include "base/test_vectors.h"
#include "magicsock/stun/stun.h"

namespace mesh::stun {
namespace {

using mesh::testing::hex_of;

struct Recorded : ::testing::Test {
    Recorded() {
        const Bytes b = hex_of(v, "tx");
        std::copy_n(b.begin(), tx.size(), tx.begin());
    }
    Json v = *json::find(mesh::testing::load_vectors(MESH_VECTORS "/original.json"), "stun");
    TxId tx{};
};

TEST_F(Recorded, RequestsAreTheSameBytesAndAreRead) {
    EXPECT_EQ(hex_encode(encode_request(tx)), json::str(v, "request"));
    EXPECT_EQ(decode_request(hex_of(v, "request")), tx);
}

TEST_F(Recorded, ResponsesAreReadAndOursAreTheSameBytes) {
    ASSERT_EQ(json::find(v, "responses")->size(), 2U);
    for (const Json& r : *json::find(v, "responses")) {
        const Endpoint mapped = *Endpoint::parse(json::str(r, "mapped"));
        const auto read = decode_response(hex_of(r, "hex"));
        ASSERT_TRUE(read);
        EXPECT_EQ(read->tx, tx);
        EXPECT_EQ(read->mapped, mapped);
        uint8_t out[kMaxResponseLen];
        EXPECT_EQ(hex_encode(ByteSpan(out, encode_response(tx, mapped, out))), json::str(r, "hex"));
    }
}

}  // namespace
}  // namespace mesh::stun
