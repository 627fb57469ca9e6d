// SPDX-License-Identifier: BSD-3-Clause
// All tests of Wycheproof (tests/vectors/README.md) for what is used here: the whole AEADs and X25519 as they are called by
// handshakes, and every packet engine.
#include <gtest/gtest.h>
#include <sodium.h>

#include <algorithm>

#include "base/crypto/aead_stream.h"
#include "base/test_vectors.h"

namespace mesh::crypto {
namespace {

using mesh::testing::from_hex;
using mesh::testing::load_vectors;

struct AeadVector {
    int64_t id;
    Bytes key, nonce, aad, plain, sealed;  ///< sealed: with the tag
    bool valid;

    Key32 key32() const {
        Key32 k{};
        std::copy_n(key.begin(), std::min(key.size(), k.size()), k.begin());
        return k;
    }
    ByteSpan cipher() const { return ByteSpan(sealed).first(plain.size()); }
    ByteSpan tag() const { return ByteSpan(sealed).last(kTagLen); }
};

Json tests_of(const char* name) { return load_vectors(std::string(MESH_VECTORS "/wycheproof/") + name + ".json")["tests"]; }

/// Those with a nonce of `nonce_len` bytes. The others (9 in each file) are about refusing theirs, which the types do here.
std::vector<AeadVector> aead_vectors(const char* name, size_t nonce_len) {
    std::vector<AeadVector> out;
    size_t other_nonces = 0;
    for (const Json& t : tests_of(name)) {
        const auto bytes = [&](size_t field) { return from_hex(t.at(field)); };
        AeadVector v{t.at(0), bytes(1), bytes(2), bytes(3), bytes(4), bytes(5), t.at(7) == "valid"};
        const Bytes tag = bytes(6);
        v.sealed.insert(v.sealed.end(), tag.begin(), tag.end());
        if (v.nonce.size() != nonce_len) {
            ++other_nonces;
            continue;
        }
        EXPECT_EQ(v.key.size(), sizeof(Key32)) << v.id;
        EXPECT_EQ(v.sealed.size(), v.plain.size() + kTagLen) << v.id;
        out.push_back(std::move(v));
    }
    EXPECT_EQ(other_nonces, 9U) << name;
    return out;
}

template <class Seal, class Open>
void hold(const AeadVector& v, Seal seal, Open open) {
    Bytes out(v.plain.size() + kTagLen);
    seal(out.data(), v.plain, v.aad, v.nonce.data(), v.key32());
    EXPECT_EQ(out == v.sealed, v.valid) << v.id;
    EXPECT_TRUE(std::equal(v.cipher().begin(), v.cipher().end(), out.begin())) << v.id;
    out.assign(out.size(), 0);
    EXPECT_EQ(open(out.data(), v.sealed, v.aad, v.nonce.data(), v.key32()), v.valid) << v.id;
    if (v.valid) {
        EXPECT_TRUE(std::equal(v.plain.begin(), v.plain.end(), out.begin())) << v.id;
    }
}

TEST(Wycheproof, ChaCha20Poly1305OfHandshakesAndRecords) {
    init();
    const auto vectors = aead_vectors("chacha20_poly1305", 12);
    EXPECT_EQ(vectors.size(), 316U);
    for (const AeadVector& v : vectors) hold(v, aead_seal, aead_open);
}

TEST(Wycheproof, XChaCha20Poly1305OfCookies) {
    init();
    const auto vectors = aead_vectors("xchacha20_poly1305", 24);
    EXPECT_EQ(vectors.size(), 306U);
    for (const AeadVector& v : vectors) hold(v, xaead_seal, xaead_open);
}

TEST(Wycheproof, X25519) {
    init();
    size_t zero = 0, count = 0;
    for (const Json& t : tests_of("x25519")) {
        Key32 their{}, own{}, want{}, got{};
        ASSERT_TRUE(hex_decode(t.at(1).get<std::string>(), their) && hex_decode(t.at(2).get<std::string>(), own) &&
                    hex_decode(t.at(3).get<std::string>(), want));
        const bool shared = want != Key32{};  // a secret that is all zeros must be refused
        EXPECT_EQ(x25519(got, own, their), shared) << t.at(0);
        if (shared) {
            EXPECT_EQ(got, want) << t.at(0);
        }
        if (!shared) ++zero;
        ++count;
    }
    EXPECT_EQ(count, 518U);
    EXPECT_EQ(zero, 31U);
}

Bytes padded(ByteSpan b) {
    Bytes out = to_bytes(b);
    out.resize((b.size() + 15) / 16 * 16);
    return out;
}

/// Poly1305 of what an AEAD authenticates, by libsodium.
std::array<uint8_t, kTagLen> tag_of(ByteSpan aad, ByteSpan cipher, const uint8_t poly_key[32]) {
    Bytes text = padded(aad);
    const Bytes rest = padded(cipher);
    text.insert(text.end(), rest.begin(), rest.end());
    const size_t end = text.size();
    text.resize(end + 16);
    store_le64(text.data() + end, aad.size());
    store_le64(text.data() + end + 8, cipher.size());
    std::array<uint8_t, kTagLen> out;
    crypto_onetimeauth_poly1305(out.data(), text.data(), text.size(), poly_key);
    return out;
}

class WycheproofEngine : public ::testing::TestWithParam<AeadEngine> {
   protected:
    /// A packet stream has a nonce of four zero bytes and a counter, and no additional data. A vector with additional data
    /// gives two checks instead of one: the cipher by sealing its text, the hash by opening what it authenticates (padded
    /// additional data and ciphertext, the corner cases of Poly1305 that the vector was made for) as if it were all
    /// ciphertext. `copies` of the packet in one call put it into every lane.
    void hold(const AeadVector& v, const Key32& key, uint64_t counter, size_t copies) {
        const AeadStream stream(key, GetParam());
        uint8_t nonce[12], poly_key[32];
        nonce_le(nonce, counter);
        crypto_stream_chacha20_ietf(poly_key, sizeof poly_key, nonce, key.data());
        const auto right_tag = tag_of(v.aad, v.cipher(), poly_key);
        ASSERT_EQ(std::equal(right_tag.begin(), right_tag.end(), v.tag().begin()), v.valid) << v.id;

        std::vector<Bytes> memory(copies, Bytes(v.sealed.size()));
        std::vector<AeadJob> jobs;
        for (Bytes& m : memory) jobs.push_back({v.plain.data(), m.data(), v.plain.size(), counter, false});
        stream.seal(jobs);
        const auto want_tag = tag_of({}, v.cipher(), poly_key);
        for (const Bytes& m : memory) {
            ASSERT_TRUE(std::equal(v.cipher().begin(), v.cipher().end(), m.begin())) << v.id;
            ASSERT_TRUE(std::equal(want_tag.begin(), want_tag.end(), m.end() - kTagLen)) << v.id;
        }

        Bytes text = to_bytes(v.cipher());
        if (!v.aad.empty()) {
            text = padded(v.aad);
            const Bytes rest = padded(v.cipher());
            text.insert(text.end(), rest.begin(), rest.end());
        }
        Bytes plain(text.size());
        crypto_stream_chacha20_ietf_xor_ic(plain.data(), text.data(), text.size(), nonce, 1, key.data());
        auto tag = tag_of({}, text, poly_key);
        // The fault of an invalid tag, put on this one.
        for (size_t i = 0; i < kTagLen; ++i) tag[i] ^= static_cast<uint8_t>(right_tag[i] ^ v.tag()[i]);
        text.insert(text.end(), tag.begin(), tag.end());
        memory.assign(copies, text);
        jobs.clear();
        for (Bytes& m : memory) jobs.push_back({m.data(), m.data(), plain.size(), counter, false});
        stream.open(jobs);
        for (size_t i = 0; i < copies; ++i) {
            ASSERT_EQ(jobs[i].ok, v.valid) << v.id;
            if (v.valid) {
                ASSERT_TRUE(std::equal(plain.begin(), plain.end(), memory[i].begin())) << v.id;
            }
        }
    }
    void hold(const AeadVector& v, const Key32& key, uint64_t counter) {
        for (const size_t copies : {1U, 2U, 17U}) hold(v, key, counter, copies);
    }
};

TEST_P(WycheproofEngine, HoldsWhatFitsAStreamOfPackets) {
    init();
    if (!aead_usable(GetParam())) GTEST_SKIP() << "this processor lacks it";
    // XChaCha20 is ChaCha20 under a derived key with just such a nonce.
    size_t whole = 0;
    for (const AeadVector& v : aead_vectors("xchacha20_poly1305", 24)) {
        Key32 key{};
        crypto_core_hchacha20(key.data(), v.nonce.data(), v.key.data(), nullptr);
        hold(v, key, load_le64(v.nonce.data() + 16));
        if (HasFatalFailure()) return;
        if (v.aad.empty()) ++whole;
    }
    EXPECT_EQ(whole, 45U);
    size_t with_such_a_nonce = 0;
    for (const AeadVector& v : aead_vectors("chacha20_poly1305", 12)) {
        if (!std::all_of(v.nonce.begin(), v.nonce.begin() + 4, [](uint8_t b) { return b == 0; })) continue;
        hold(v, v.key32(), load_le64(v.nonce.data() + 4));
        if (HasFatalFailure()) return;
        ++with_such_a_nonce;
    }
    EXPECT_EQ(with_such_a_nonce, 10U);
}

INSTANTIATE_TEST_SUITE_P(Engines, WycheproofEngine,
                         ::testing::Values(AeadEngine::kSodium, AeadEngine::kVec128, AeadEngine::kAvx2, AeadEngine::kAvx512),
                         [](const auto& p) { return std::string(name(p.param)); });

}  // namespace
}  // namespace mesh::crypto
