// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/disco/disco.h"

#include <gtest/gtest.h>

namespace mesh::disco {
namespace {

TxId counting_tx() {
    TxId tx;
    for (size_t i = 0; i < tx.size(); ++i) tx[i] = static_cast<uint8_t>(i + 1);
    return tx;
}

Endpoint ep(const char* text) { return *Endpoint::parse(text); }

struct Golden {
    const char* name;
    Message message;
    std::string hex;
};

NodePublic counting_node() {
    NodePublic k;
    for (size_t i = 0; i < 32; ++i) k.raw[i] = static_cast<uint8_t>(i == 0 ? 0 : i);
    k.raw[1] = 1;
    return k;
}

template <class Key>
Key filled(uint8_t with) {
    Key k;
    k.raw.fill(with);
    return k;
}

RelayBind bind_of(RelayBind::Step step) {
    RelayBind m{step, 0x010203, 0x04050607, filled<DiscoPublic>(0x11), {}};
    m.challenge.fill(0x22);
    return m;
}
const std::string kBindBody = "0001020304050607" + std::string(64, '1') + std::string(64, '2');

RelayEndpoint relay_of() {
    return {filled<DiscoPublic>(0x33), {filled<DiscoPublic>(0x44), filled<DiscoPublic>(0x55)}, 0x0102030405060708, 0x010203, seconds(30),
            minutes(5), {ep("1.2.3.4:567"), ep("[2001::3456]:789")}};
}
const std::string kRelayBody = std::string(64, '3') + std::string(64, '4') + std::string(64, '5') +
                               "010203040506070800010203"
                               "00000006fc23ac00"
                               "00000045d964b800"
                               "00000000000000000000ffff010203040237200100000000000000000000000034560315";

std::vector<Golden> goldens() {
    return {
        {"bind", bind_of(RelayBind::Step::kBind), "0400" + kBindBody},
        {"challenge", bind_of(RelayBind::Step::kChallenge), "0500" + kBindBody},
        {"answer", bind_of(RelayBind::Step::kAnswer), "0600" + kBindBody},
        {"call me maybe via", CallMeMaybeVia{relay_of()}, "0700" + kRelayBody},
        {"allocate request", AllocateRequest{{filled<DiscoPublic>(0x44), filled<DiscoPublic>(0x55)}, 9},
         "0800" + std::string(64, '4') + std::string(64, '5') + "00000009"},
        {"allocate response", AllocateResponse{9, relay_of()}, "090000000009" + kRelayBody},
        {"ping without node key", Ping{counting_tx(), {}, 0}, "01000102030405060708090a0b0c"},
        {"ping with node key", Ping{counting_tx(), counting_node(), 0},
         "01000102030405060708090a0b0c"
         "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"},
        {"ping with padding", Ping{counting_tx(), counting_node(), 3},
         "01000102030405060708090a0b0c"
         "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f000000"},
        {"pong over IPv4", Pong{counting_tx(), ep("2.3.4.5:1234")},
         "02000102030405060708090a0b0c00000000000000000000ffff0203040504d2"},
        {"pong over IPv6", Pong{counting_tx(), ep("[fed0::12]:6666")},
         "02000102030405060708090a0b0cfed000000000000000000000000000121a0a"},
        {"call me maybe, empty", CallMeMaybe{}, "0300"},
        {"call me maybe, two endpoints", CallMeMaybe{{ep("1.2.3.4:567"), ep("[2001::3456]:789")}},
         "030000000000000000000000ffff010203040237200100000000000000000000000034560315"},
    };
}

TEST(Disco, EveryMessageHasItsGoldenBytes) {
    for (const Golden& g : goldens()) {
        EXPECT_EQ(hex_encode(encode(g.message)), g.hex) << g.name;
        Bytes b(g.hex.size() / 2);
        ASSERT_TRUE(hex_decode(g.hex, b));
        const auto parsed = parse(b);
        ASSERT_TRUE(parsed.has_value()) << g.name;
        EXPECT_EQ(*parsed, g.message) << g.name;
    }
}

TEST(Disco, TrailingBytesOfAPongAreIgnored) {
    Bytes b = encode(Pong{counting_tx(), ep("2.3.4.5:1234")});
    b.push_back(7);
    EXPECT_EQ(parse(b), Message(Pong{counting_tx(), ep("2.3.4.5:1234")}));
}

TEST(Disco, ShortBodiesAndUnknownTypesAreRefused) {
    for (const Golden& g : goldens()) {
        if (std::holds_alternative<CallMeMaybe>(g.message)) continue;
        const Bytes whole = encode(g.message);
        for (size_t n = 0; n < 14; ++n) EXPECT_FALSE(parse(ByteSpan(whole).first(n)).has_value()) << g.name << n;
    }
    const uint8_t unknown[] = {0x0a, 0, 1, 2, 3};
    EXPECT_FALSE(parse(unknown).has_value());
    const uint8_t zero[] = {0, 0, 1, 2, 3};
    EXPECT_FALSE(parse(zero).has_value());
}

TEST(Disco, CallMeMaybeOfOddLengthOrOtherVersionIsAnEmptyList) {
    Bytes b = encode(CallMeMaybe{{ep("1.2.3.4:567")}});
    b.push_back(0);
    EXPECT_EQ(parse(b), Message(CallMeMaybe{}));
    b.pop_back();
    b[1] = 1;
    EXPECT_EQ(parse(b), Message(CallMeMaybe{}));
}

TEST(Disco, CallMeMaybeIsCutAtTheLimit) {
    CallMeMaybe m;
    for (int i = 0; i < 64; ++i) m.endpoints.push_back(ep("1.2.3.4:567"));
    Bytes b = encode(m);
    const Bytes one = encode(CallMeMaybe{{ep("9.9.9.9:9")}});
    b.insert(b.end(), one.begin() + 2, one.end());
    EXPECT_EQ(parse(b), Message(m));
}

TEST(Disco, ARelayEndpointNeedsAddressesAndNothingElseBehindThem) {
    AllocateResponse m{7, {}};
    m.relay.addrs = {ep("1.2.3.4:567")};
    Bytes b = encode(m);
    EXPECT_EQ(b.size(), 2U + 4 + 124 + 18);
    EXPECT_EQ(parse(b), Message(m));
    b.push_back(0);
    EXPECT_FALSE(parse(b));
    b.resize(b.size() - 19);
    EXPECT_FALSE(parse(b)) << "no address";
    b = encode(m);
    b[1] = 1;
    EXPECT_FALSE(parse(b)) << "another version";
}

TEST(Disco, TooManyAddressesAreCutAndLifetimesAreNeverNegative) {
    CallMeMaybeVia m;
    m.relay.addrs.assign(kMaxEndpoints, ep("1.2.3.4:567"));
    Bytes b = encode(m);
    b.insert(b.end(), b.end() - 18, b.end());
    for (size_t i = 0; i < 8; ++i) b[2 + 96 + 12 + i] = 0xff;
    const auto read = parse(b);
    ASSERT_TRUE(read);
    const RelayEndpoint& relay = std::get<CallMeMaybeVia>(*read).relay;
    EXPECT_EQ(relay.addrs.size(), kMaxEndpoints);
    EXPECT_GT(relay.bind_lifetime, Duration{});
}

struct TwoNodes {
    SeededRandom random{7};
    DiscoPrivate a = DiscoPrivate::generate(random);
    DiscoPrivate b = DiscoPrivate::generate(random);
    SharedKey ab = *SharedKey::derive(a, b.public_key());
    SharedKey ba = *SharedKey::derive(b, a.public_key());
};

TEST(Disco, WhatOneNodeSealsTheOtherOpens) {
    TwoNodes n;
    const Bytes payload = encode(Ping{counting_tx(), counting_node(), 0});
    const Bytes d = n.ab.seal(n.a.public_key(), payload, n.random);
    EXPECT_EQ(d.size(), 124U);
    ASSERT_TRUE(looks_like_disco(d));
    EXPECT_EQ(sender_of(d), n.a.public_key());
    EXPECT_EQ(n.ba.open(d), payload);
    EXPECT_NE(n.ab.seal(n.a.public_key(), payload, n.random), d) << "nonces must differ";
}

TEST(Disco, WireLengthsAreThoseOfRealPeers) {
    TwoNodes n;
    const auto len = [&](const Message& m) { return n.ab.seal(n.a.public_key(), encode(m), n.random).size(); };
    EXPECT_EQ(len(Pong{counting_tx(), ep("2.3.4.5:1234")}), 110U);
    EXPECT_EQ(len(CallMeMaybe{{ep("1.2.3.4:5"), ep("1.2.3.4:6")}}), 116U);
}

TEST(Disco, EveryFlippedByteOfTheBoxOrNonceIsNoticed) {
    TwoNodes n;
    const Bytes d = n.ab.seal(n.a.public_key(), encode(Pong{counting_tx(), ep("2.3.4.5:1234")}), n.random);
    for (size_t i = 38; i < d.size(); ++i) {
        Bytes bad = d;
        bad[i] ^= 1;
        EXPECT_FALSE(n.ba.open(bad).has_value()) << i;
    }
    for (size_t len = 0; len < d.size(); ++len) EXPECT_FALSE(n.ba.open(ByteSpan(d).first(len)).has_value()) << len;
}

TEST(Disco, AWeakKeyIsRefused) {
    SeededRandom random(1);
    EXPECT_FALSE(SharedKey::derive(DiscoPrivate::generate(random), DiscoPublic{}).has_value());
}

TEST(Disco, OtherDatagramsDoNotLookLikeDisco) {
    Bytes d(124);
    EXPECT_FALSE(looks_like_disco(d));
    std::copy(kMagic.begin(), kMagic.end(), d.begin());
    EXPECT_TRUE(looks_like_disco(d));
    EXPECT_FALSE(looks_like_disco(ByteSpan(d).first(37)));
}

// Opened with the key pair of an independent NaCl implementation (crypto_box of libsodium's own call, both sides).
TEST(Disco, TheSharedKeyIsThatOfNaClBox) {
    std::array<uint8_t, 32> sa{}, sb{};
    sa.fill(0x11);
    sb.fill(0x22);
    const auto a = DiscoPrivate::from(sa);
    const auto b = DiscoPrivate::from(sb);
    const auto ab = SharedKey::derive(a, b.public_key());
    ASSERT_TRUE(ab.has_value());
    const Bytes d = [&] {
        SeededRandom r(3);
        return ab->seal(a.public_key(), as_bytes("hi"), r);
    }();
    crypto::Key32 k;
    ASSERT_TRUE(crypto::box_precompute(k, a.public_key().raw, b.secret()));
    Bytes plain(2);
    ASSERT_TRUE(crypto::box_open(plain.data(), ByteSpan(d).subspan(kHeaderLen), d.data() + 38, k));
    EXPECT_EQ(as_text(plain), "hi");
}

}  // namespace
}  // namespace mesh::disco
