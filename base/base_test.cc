// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include "base/crypto/crypto.h"
#include "base/crypto/short_hash.h"
#include "base/ip.h"
#include "base/json.h"
#include "base/keys.h"
#include "base/log.h"
#include "base/prefix_table.h"

namespace mesh {
namespace {

TEST(Ip, ParsesAndPrintsBothFamilies) {
    EXPECT_EQ(Addr::parse("100.64.0.1")->str(), "100.64.0.1");
    EXPECT_EQ(Addr::parse("fd7a:115c:a1e0::1")->str(), "fd7a:115c:a1e0::1");
    for (const char* bad : {"", "1.2.3", "1.2.3.4.5", "fe80::1%eth0", "host", "1.2.3.256"})
        EXPECT_FALSE(Addr::parse(bad)) << bad;
    EXPECT_EQ(Endpoint::parse("[::1]:41641")->str(), "[::1]:41641");
    for (const char* bad : {"::1:5", "1.2.3.4", "1.2.3.4:65536", "[1.2.3.4]:5", "1.2.3.4:", ":5"})
        EXPECT_FALSE(Endpoint::parse(bad)) << bad;
}

TEST(Ip, MappedAddressIsIpv4OnTheWire) {
    const Addr a = Addr::v4(192, 0, 2, 7);
    EXPECT_EQ(Addr::v6_bytes(a.mapped16().data()), a);
}

TEST(Prefix, ContainsMasksAndRejects) {
    const Prefix p = *Prefix::parse("10.1.0.0/16");
    EXPECT_TRUE(p.contains(Addr::v4(10, 1, 255, 3)));
    EXPECT_FALSE(p.contains(Addr::v4(10, 2, 0, 0)));
    EXPECT_FALSE(p.contains(*Addr::parse("::1")));
    EXPECT_EQ((Prefix{Addr::v4(10, 1, 2, 3), 20}.masked().str()), "10.1.0.0/20");
    EXPECT_TRUE(Prefix::parse("::/0")->contains(*Addr::parse("2001:db8::1")));
    EXPECT_FALSE(Prefix::parse("10.0.0.0/33"));
}

TEST(PrefixTable, LongestPrefixWins) {
    PrefixTable<int> t;
    t.insert(*Prefix::parse("0.0.0.0/0"), 1);
    t.insert(*Prefix::parse("10.0.0.0/8"), 2);
    t.insert(*Prefix::parse("10.1.0.0/16"), 3);
    t.insert(*Prefix::parse("10.1.2.3/32"), 4);
    EXPECT_EQ(*t.find(Addr::v4(10, 1, 2, 3)), 4);
    EXPECT_EQ(*t.find(Addr::v4(10, 1, 2, 4)), 3);
    EXPECT_EQ(*t.find(Addr::v4(10, 9, 2, 4)), 2);
    EXPECT_EQ(*t.find(Addr::v4(8, 8, 8, 8)), 1);
    EXPECT_EQ(t.find(*Addr::parse("::1")), nullptr);
}

TEST(Keys, TextRoundTripAndPrefixMatters) {
    SeededRandom random(1);
    const NodePrivate k = NodePrivate::generate(random);
    const NodePublic p = k.public_key();
    EXPECT_EQ(NodePublic::parse(p.text()), p);
    EXPECT_FALSE(DiscoPublic::parse(p.text()));
    EXPECT_FALSE(NodePublic::parse(p.text() + "00"));
    EXPECT_EQ(NodePrivate::parse(k.secret_text())->public_key(), p);
    EXPECT_TRUE(NodePublic::parse("nodekey:" + std::string(64, '0'))->is_zero());
}

TEST(Crypto, Blake2sConstantsOfWireGuard) {
    const auto ck = crypto::blake2s(as_bytes("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"));
    EXPECT_EQ(hex_encode(ck), "60e26daef327efc02ec335e2a025d2d016eb4206f87277f52d38d1988b78cd36");
    const auto h = crypto::blake2s(ck, as_bytes("WireGuard v1 zx2c4 Jason@zx2c4.com"));
    EXPECT_EQ(hex_encode(h), "2211b361081ac566691243db458ad5322d9c6c662293e8b70ee19c65ba079ef3");
}

TEST(Crypto, ShortHashIsSipHash24) {
    crypto::ShortKey key;
    Bytes data;
    for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<uint8_t>(i);
    EXPECT_EQ(crypto::short_hash(data, key), 0x726fdb47dd0e0e31U) << "from the authors' vectors";
    for (uint8_t i = 0; i < 15; ++i) data.push_back(i);
    EXPECT_EQ(crypto::short_hash(data, key), 0xa129ca6149be45e5U) << "the example of their paper";
}

TEST(Crypto, AeadRejectsAnyFlippedBit) {
    const crypto::Key32 key{7};
    uint8_t nonce[12];
    crypto::nonce_le(nonce, 5);
    Bytes buffer(21 + 16);
    crypto::aead_seal(buffer.data(), as_bytes("twenty-one plain byte"), {}, nonce, key);
    Bytes out(21);
    ASSERT_TRUE(crypto::aead_open(out.data(), buffer, {}, nonce, key));
    EXPECT_EQ(as_text(out), "twenty-one plain byte");
    for (size_t i = 0; i < buffer.size(); ++i) {
        buffer[i] ^= 1;
        EXPECT_FALSE(crypto::aead_open(out.data(), buffer, {}, nonce, key));
        buffer[i] ^= 1;
    }
}

TEST(Json, GoCompatibleOutput) {
    const Json j = {{"a", "<x&y>"}, {"b", Json::array()}, {"c", {{"d", nullptr}}}};
    EXPECT_EQ(json::dump(j), R"({"a":"\u003cx\u0026y\u003e","b":[],"c":{"d":null}})");
    EXPECT_EQ(json::dump(j, "\t"), "{\n\t\"a\": \"\\u003cx\\u0026y\\u003e\",\n\t\"b\": [],\n\t\"c\": {\n\t\t\"d\": null\n\t}\n}");
}

TEST(Json, HostileInputIsAnError) {
    EXPECT_FALSE(json::parse(std::string(100000, '[')));
    EXPECT_FALSE(json::parse("{\"a\":"));
    EXPECT_FALSE(json::parse("[1,2]", 3));
    EXPECT_EQ(json::integer(*json::parse(R"({"n":"x"})"), "n", 3), 3);
}

TEST(Json, TimesRoundTrip) {
    EXPECT_EQ(json::time_text(WallTime{}), "0001-01-01T00:00:00Z");
    const auto t = json::parse_time("2026-08-01T12:34:56.789Z");
    ASSERT_TRUE(t);
    EXPECT_EQ(json::time_text(*t), "2026-08-01T12:34:56.789Z");
    EXPECT_EQ(json::time_text(*json::parse_time("2026-08-01T14:34:56+02:00")), "2026-08-01T12:34:56Z");
    for (const char* text : {"1969-12-31T23:59:59.999999999Z", "1970-01-01T00:00:00.000000001Z", "1999-12-31T23:59:59Z", "2000-02-29T00:00:00.5Z",
                             "2100-03-01T09:08:07.06Z", "1700-01-01T00:00:00Z", "2260-12-31T23:59:59Z"})
        EXPECT_EQ(json::time_text(*json::parse_time(text)), text);
    EXPECT_FALSE(json::parse_time("yesterday"));
}

TEST(Log, ControlBytesNeverReachTheTerminal) {
    EXPECT_EQ(log::printable("a\x1b[2Jb\n\xc2\x9b" "c\xff"), "a?[2Jb???c?");
    EXPECT_EQ(log::printable("grün"), "grün");
    EXPECT_EQ(log::printable("a\xe2\x80\xae" "b\xd8\x9c" "c\xe2\x81\xa9\xe2\x80\xa6"), "a?b?c?\xe2\x80\xa6") << "marks that turn the text around";
}

}  // namespace
}  // namespace mesh
