// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/stun/stun.h"

#include <gtest/gtest.h>

#include "base/test_vectors.h"

namespace mesh::stun {
namespace {

constexpr TxId kTx = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

using mesh::testing::from_hex;

TEST(Stun, RequestEqualsTheGoldenBytes) {
    EXPECT_EQ(hex_encode(encode_request(kTx)),
              "000100142112a4420102030405060708090a0b0c802200087461696c6e6f646580280004b32c370f");
}

TEST(Stun, ServerReadsOurRequest) {
    const RequestBytes r = encode_request(kTx);
    EXPECT_TRUE(looks_like_stun(r));
    EXPECT_EQ(decode_request(r), kTx);
}

TEST(Stun, ServerIgnoresRequestsThatDifferInAnyBit) {
    const RequestBytes good = encode_request(kTx);
    for (size_t bit = 0; bit < good.size() * 8; ++bit) {
        RequestBytes bad = good;
        bad[bit / 8] = static_cast<uint8_t>(bad[bit / 8] ^ (1U << (bit % 8)));
        EXPECT_FALSE(decode_request(bad)) << bit;
    }
    for (size_t len = 0; len < good.size(); ++len) EXPECT_FALSE(decode_request(ByteSpan(good).first(len)));
}

TEST(Stun, ResponsesToBothFamiliesReadBack) {
    for (const char* text : {"198.51.100.7:41641", "[2001:db8::1]:65535"}) {
        const Endpoint from = *Endpoint::parse(text);
        uint8_t out[kMaxResponseLen];
        const size_t n = encode_response(kTx, from, out);
        EXPECT_EQ(n, from.addr.is_v4() ? 32U : 44U);
        const auto r = decode_response(ByteSpan(out, n));
        ASSERT_TRUE(r) << text;
        EXPECT_EQ(r->tx, kTx);
        EXPECT_EQ(r->mapped, from);
        for (size_t len = 0; len < n; ++len) EXPECT_FALSE(decode_response(ByteSpan(out, len))) << len;
    }
}

TEST(Stun, ResponseOfRfc5769IPv4VectorIsRead) {
    // RFC 5769 2.2: SOFTWARE "test vector" padded with a space, XOR-MAPPED-ADDRESS 192.0.2.1:32853, integrity, fingerprint.
    const Bytes message = from_hex(
        "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643"
        "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96");
    const auto r = decode_response(message);
    ASSERT_TRUE(r);
    EXPECT_EQ(r->mapped.str(), "192.0.2.1:32853");
}

TEST(Stun, PlainMappedAddressServesWhenNoXoredOneIsThere) {
    const Bytes message = from_hex("0101000c2112a4420102030405060708090a0b0c000100080001a2a9c6336407");
    const auto r = decode_response(message);
    ASSERT_TRUE(r);
    EXPECT_EQ(r->mapped.str(), "198.51.100.7:41641");
}

TEST(Stun, TheOldAttributeNumberAndTrailingBytesAreAccepted) {
    Bytes message(kMaxResponseLen);
    message.resize(encode_response(kTx, *Endpoint::parse("198.51.100.7:1"), message.data()));
    message[20] = 0x80;
    message.push_back(0xff);
    ASSERT_TRUE(decode_response(message));
    EXPECT_EQ(decode_response(message)->mapped.port, 1);
}

TEST(Stun, OtherDatagramsDoNotLookLikeStun) {
    EXPECT_FALSE(looks_like_stun({}));
    Bytes wireguard(148);
    wireguard[0] = 1;
    EXPECT_FALSE(looks_like_stun(wireguard));
}

}  // namespace
}  // namespace mesh::stun
