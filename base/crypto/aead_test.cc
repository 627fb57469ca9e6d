// SPDX-License-Identifier: BSD-3-Clause
// Every engine this machine has, held against RFC 8439 and libsodium.
#include <gtest/gtest.h>
#include <sodium.h>

#include <cstdlib>
#include <memory>

#include "base/crypto/aead_stream.h"
#include "base/random.h"

namespace mesh::crypto {
namespace {

constexpr uint8_t kGuard = 0xa5;

/// What libsodium makes of it.
Bytes reference(const Key32& key, ByteSpan plain, uint64_t counter) {
    Bytes out(plain.size() + kTagLen);
    uint8_t nonce[12];
    nonce_le(nonce, counter);
    crypto_aead_chacha20poly1305_ietf_encrypt(out.data(), nullptr, plain.data(), plain.size(), nullptr, 0, nullptr, nonce,
                                              key.data());
    return out;
}

/// After a failed opening: as it was, or zeros.
bool holds_no_plaintext(ByteSpan dst, ByteSpan before) {
    return std::equal(dst.begin(), dst.end(), before.begin(), before.end()) ||
           std::all_of(dst.begin(), dst.end(), [](uint8_t b) { return b == 0; });
}

class Aead : public testing::TestWithParam<AeadEngine> {
   protected:
    void SetUp() override {
        init();
        if (!aead_usable(GetParam())) GTEST_SKIP() << "this processor lacks it";
        random_.fill(key_);
        random_.fill(plain_);
    }
    ByteSpan plain(size_t len, size_t offset = 0) const { return ByteSpan(plain_).subspan(offset, len); }

    SeededRandom random_{8439};
    Key32 key_{};
    Bytes plain_ = Bytes(70'000);
};

TEST_P(Aead, SealsAndOpensWhatLibsodiumDoesAtEveryLengthAndAlignment) {
    const AeadStream stream(key_, GetParam());
    std::array<uint8_t, 64 + 4096 + kTagLen + 64> buffer;
    for (size_t len = 0; len <= 4096; ++len) {
        const size_t from = random_.below(64), to = random_.below(64);
        const uint64_t counter = random_.u64() >> random_.below(64);
        const Bytes want = reference(key_, plain(len, from), counter);
        buffer.fill(kGuard);
        stream.seal(buffer.data() + to, plain(len, from), counter);
        ASSERT_EQ(std::memcmp(buffer.data() + to, want.data(), want.size()), 0) << len;
        ASSERT_EQ(std::count(buffer.begin(), buffer.begin() + static_cast<ptrdiff_t>(to), kGuard), static_cast<ptrdiff_t>(to));
        const auto end = buffer.begin() + static_cast<ptrdiff_t>(to + want.size());
        ASSERT_EQ(std::count(end, buffer.end(), kGuard), buffer.end() - end) << len << " wrote beyond its end";

        // In place, at the odd address; then with a bit turned.
        ASSERT_TRUE(stream.open(buffer.data() + to, {buffer.data() + to, want.size()}, counter)) << len;
        ASSERT_EQ(std::memcmp(buffer.data() + to, plain(len, from).data(), len), 0) << len;
        std::memcpy(buffer.data() + to, want.data(), want.size());
        const size_t bit = random_.below(static_cast<uint32_t>(want.size() * 8));
        buffer[to + bit / 8] ^= static_cast<uint8_t>(1U << bit % 8);
        const auto forged = buffer;
        ASSERT_FALSE(stream.open(buffer.data() + to, {buffer.data() + to, want.size()}, counter)) << len << " bit " << bit;
        ASSERT_TRUE(holds_no_plaintext(ByteSpan(buffer).subspan(to, len), ByteSpan(forged).subspan(to, len))) << len;
        ASSERT_EQ(std::count(end, buffer.end(), kGuard), buffer.end() - end) << len;
    }
}

// The other order of loops: every alignment, here of the destination, with MESH_FULL=1 of both sides.
TEST_P(Aead, TheSameAtEveryAlignmentOfEveryLength) {
    if (GetParam() == AeadEngine::kSodium) return;  // it is what the others are held against
    const AeadStream stream(key_, GetParam());
    constexpr size_t kLongest = 1300;
    const bool full = std::getenv("MESH_FULL") != nullptr;
    alignas(64) std::array<uint8_t, 64 + kLongest + kTagLen> from, to;
    for (size_t len = 0; len <= kLongest; ++len) {
        const Bytes want = reference(key_, plain(len), len);
        for (size_t a = 0; a < 64 * (full ? 64 : 1); ++a) {
            uint8_t* const src = from.data() + (a / 64 + (full ? 0 : random_.below(64))) % 64;
            uint8_t* const dst = to.data() + a % 64;
            std::memcpy(src, plain_.data(), len);
            stream.seal(dst, {src, len}, len);
            ASSERT_EQ(std::memcmp(dst, want.data(), want.size()), 0) << len << " from " << src - from.data() << " to " << a % 64;
            ASSERT_TRUE(stream.open(src, {dst, want.size()}, len)) << len;
            ASSERT_EQ(std::memcmp(src, plain_.data(), len), 0) << len << " from " << a % 64 << " to " << src - from.data();
        }
    }
}

TEST_P(Aead, SealsInPlaceAndOpensElsewhere) {
    const AeadStream stream(key_, GetParam());
    for (const size_t len : {0U, 1U, 64U, 65U, 1280U, 1360U, 9000U, 65'535U}) {
        Bytes b = to_bytes(plain(len));
        b.resize(len + kTagLen);
        stream.seal(b.data(), {b.data(), len}, len);
        EXPECT_EQ(b, reference(key_, plain(len), len));
        Bytes out(len + 1, kGuard);
        EXPECT_TRUE(stream.open(out.data(), b, len));
        EXPECT_TRUE(std::equal(out.begin(), out.end() - 1, plain(len).begin()));
        EXPECT_EQ(out.back(), kGuard);
        // The wrong counter, the wrong key, a tag cut short.
        Bytes zeros(len + 1);
        EXPECT_FALSE(stream.open(zeros.data(), b, len + 1));
        EXPECT_FALSE(AeadStream(Key32{}, GetParam()).open(zeros.data(), b, len));
        EXPECT_FALSE(stream.open(zeros.data(), ByteSpan(b).first(len + kTagLen - 1), len));
        EXPECT_EQ(zeros, Bytes(len + 1));
    }
    EXPECT_FALSE(stream.open(nullptr, {}, 0));
    EXPECT_FALSE(stream.open(nullptr, Bytes(kTagLen - 1), 0));
}

TEST_P(Aead, TheWholeCounterIsPartOfTheNonce) {
    const AeadStream stream(key_, GetParam());
    for (const uint64_t counter : {uint64_t{0}, uint64_t{1}, uint64_t{0xffff'ffff}, uint64_t{1} << 32,
                                   (uint64_t{1} << 32) + 1, uint64_t{0x1234'5678'9abc'def0}, ~uint64_t{0}}) {
        Bytes b(1280 + kTagLen);
        stream.seal(b.data(), plain(1280), counter);
        EXPECT_EQ(b, reference(key_, plain(1280), counter)) << counter;
    }
}

TEST_P(Aead, ABatchIsTheSameAsOneByOne) {
    const AeadStream stream(key_, GetParam());
    for (const size_t packets : {1U, 2U, 3U, 7U, 8U, 9U, 15U, 16U, 17U, 31U, 33U, 52U, 130U}) {
        std::vector<size_t> lens;
        size_t room = 0;
        for (size_t i = 0; i < packets; ++i) {
            lens.push_back(i % 3 == 0 ? 1280 : random_.below(i % 3 == 1 ? 200 : 2000));
            room += lens.back() + kTagLen;
        }
        Bytes sealed(room), want(room), opened(room, kGuard);
        std::vector<AeadJob> jobs, back;
        size_t at = 0;
        for (size_t i = 0; i < packets; ++i) {
            const uint64_t counter = 0xffff'fff0 + i;
            const Bytes one = reference(key_, plain(lens[i], i), counter);
            std::copy(one.begin(), one.end(), want.begin() + static_cast<ptrdiff_t>(at));
            jobs.push_back({plain(lens[i], i).data(), sealed.data() + at, lens[i], counter, false});
            back.push_back({sealed.data() + at, opened.data() + at, lens[i], counter, false});
            at += one.size();
        }
        stream.seal(jobs);
        ASSERT_EQ(sealed, want) << packets;
        // Some are forged: those alone fail, and leave no plaintext.
        for (size_t i = 0; i < packets; i += 5) sealed[static_cast<size_t>(back[i].src - sealed.data()) + lens[i] + i % 16] ^= 1;
        stream.open(back);
        for (size_t i = 0; i < packets; ++i) {
            ASSERT_EQ(back[i].ok, i % 5 != 0) << i;
            const ByteSpan got(back[i].dst, lens[i]);
            if (back[i].ok)
                ASSERT_TRUE(std::equal(got.begin(), got.end(), plain(lens[i], i).begin())) << i;
            else
                ASSERT_TRUE(holds_no_plaintext(got, Bytes(lens[i], kGuard))) << i;
        }
    }
}

// Engines may take long packets in pairs, and decrypt them before they have seen the tag.
TEST_P(Aead, LongPacketsOfUnlikeLengthsInPlaceTheForgedOnesLeaveNothing) {
    const AeadStream stream(key_, GetParam());
    const size_t lens[] = {255, 256, 257, 511, 512, 513, 767, 768, 1023, 1024, 1025, 1280, 1295, 1296, 1536, 2048, 2049, 5000};
    for (size_t round = 0; round < 200; ++round) {
        const size_t packets = 1 + round % 19;
        std::vector<Bytes> memory, want;
        std::vector<AeadJob> jobs;
        for (size_t i = 0; i < packets; ++i) {
            const size_t len = random_.below(8) == 0 ? random_.below(300) : lens[random_.below(std::size(lens))];
            const uint64_t counter = random_.u64();
            want.push_back(reference(key_, plain(len, i), counter));
            memory.push_back(to_bytes(plain(len, i)));
            memory.back().resize(len + kTagLen);
            jobs.push_back({memory[i].data(), memory[i].data(), len, counter, false});
        }
        stream.seal(jobs);
        for (size_t i = 0; i < packets; ++i) ASSERT_EQ(memory[i], want[i]) << round << " " << i << " len " << jobs[i].len;
        const size_t forged = random_.below(static_cast<uint32_t>(packets));
        memory[forged][random_.below(static_cast<uint32_t>(memory[forged].size()))] ^= 0x10;
        const Bytes before = memory[forged];
        stream.open(jobs);
        for (size_t i = 0; i < packets; ++i) {
            const ByteSpan got = ByteSpan(memory[i]).first(jobs[i].len);
            ASSERT_EQ(jobs[i].ok, i != forged) << round << " " << i << " len " << jobs[i].len;
            if (i == forged)
                ASSERT_TRUE(holds_no_plaintext(got, ByteSpan(before).first(got.size()))) << round << " len " << got.size();
            else
                ASSERT_TRUE(std::equal(got.begin(), got.end(), plain(got.size(), i).begin())) << round << " " << i;
        }
    }
}

// Poly1305 has corners that random packets meet about once in 2^100: sums next to the prime and to 2^128. The keystream
// cannot be chosen, but the ciphertext can: what is opened is what was chosen, and the tag is libsodium's own Poly1305.
TEST_P(Aead, ChosenCiphertextsThatFillEveryLimb) {
    const AeadStream stream(key_, GetParam());
    const uint8_t fills[] = {0x00, 0xff, 0xfb, 0xfc, 0x80, 0x7f, 0x01};
    for (uint64_t counter = 0; counter < 40; ++counter) {
        uint8_t nonce[12], poly_key[32];
        nonce_le(nonce, counter);
        crypto_stream_chacha20_ietf(poly_key, sizeof poly_key, nonce, key_.data());
        for (const uint8_t fill : fills) {
            for (const size_t len : {16U, 48U, 112U, 128U, 160U, 1264U, 1280U, 2000U}) {
                Bytes b(len, fill);
                if (counter % 2 == 1) b[len / 2] = 0xff;
                Bytes mac_input = b;
                mac_input.resize((len + 15) / 16 * 16 + 16);
                store_le64(mac_input.data() + mac_input.size() - 8, len);
                b.resize(len + kTagLen);
                crypto_onetimeauth_poly1305(b.data() + len, mac_input.data(), mac_input.size(), poly_key);
                ASSERT_TRUE(stream.open(b.data(), b, counter)) << counter << " " << int{fill} << " " << len;
            }
        }
    }
}

/// A number modulo 2^130 - 5, in limbs of 26 bits.
using Mod = std::array<uint64_t, 5>;

Mod product(const Mod& a, const Mod& b) {
    Mod d{};
    for (size_t i = 0; i < 5; ++i)
        for (size_t j = 0; j < 5; ++j) d[(i + j) % 5] += a[i] * b[j] * (i + j < 5 ? 1 : 5);
    for (int round = 0; round < 3; ++round) {
        for (size_t i = 0; i < 5; ++i) {
            d[(i + 1) % 5] += (d[i] >> 26) * (i < 4 ? 1 : 5);
            d[i] &= 0x3ffffff;
        }
    }
    Mod less = d;  // minus the prime, if that is not negative
    less[0] += 5;
    for (size_t i = 0; i < 4; ++i) {
        less[i + 1] += less[i] >> 26;
        less[i] &= 0x3ffffff;
    }
    if (less[4] >> 26 == 0) return d;
    less[4] &= 0x3ffffff;
    return less;
}

/// 1/r = r^(2^130 - 7).
Mod inverse(const Mod& r) {
    Mod out{1};
    for (int bit = 129; bit >= 0; --bit) {
        out = product(out, out);
        if (bit >= 3 || bit == 0) out = product(out, r);  // 2^130 - 7 ends with 1001
    }
    return out;
}

// A block after which the sum is h2 · 2^128 + a small number: to get there the carry of the reduction must run through
// all limbs, which else happens once in 2^64 blocks.
TEST_P(Aead, ChosenCiphertextsWhoseCarryRunsThroughAllLimbs) {
    const AeadStream stream(key_, GetParam());
    for (uint64_t counter = 0; counter < 8; ++counter) {
        uint8_t nonce[12], poly_key[32];
        nonce_le(nonce, counter);
        crypto_stream_chacha20_ietf(poly_key, sizeof poly_key, nonce, key_.data());
        const uint64_t r0 = load_le64(poly_key) & 0x0ffffffc0fffffff, r1 = load_le64(poly_key + 8) & 0x0ffffffc0ffffffc;
        const Mod r = {r0 & 0x3ffffff, r0 >> 26 & 0x3ffffff, (r0 >> 52 | r1 << 12) & 0x3ffffff, r1 >> 14 & 0x3ffffff, r1 >> 40};
        const Mod by_r = inverse(r);
        ASSERT_EQ(product(by_r, r), Mod{1});
        for (uint64_t h2 = 0; h2 < 4; ++h2) {
            for (uint64_t small = 0, found = 0; found < 2; ++small) {
                ASSERT_LT(small, 1000U);
                const Mod m = product({small, 0, 0, 0, h2 << 24}, by_r);
                if (m[4] >> 24 != 1) continue;  // no block: these have bit 128 set, and none above
                ++found;
                for (const size_t len : {16U, 32U, 256U, 1280U}) {
                    Bytes b(len, 0xff);
                    store_le64(b.data(), m[0] | m[1] << 26 | m[2] << 52);
                    store_le64(b.data() + 8, m[2] >> 12 | m[3] << 14 | m[4] << 40);
                    Bytes mac_input = b;
                    mac_input.resize(len + 16);
                    store_le64(mac_input.data() + len + 8, len);
                    b.resize(len + kTagLen);
                    crypto_onetimeauth_poly1305(b.data() + len, mac_input.data(), mac_input.size(), poly_key);
                    ASSERT_TRUE(stream.open(b.data(), b, counter)) << counter << " " << h2 << " " << small << " " << len;
                }
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Engines, Aead, testing::Values(AeadEngine::kSodium, AeadEngine::kVec128, AeadEngine::kAvx2, AeadEngine::kAvx512),
                         [](const auto& p) { return std::string(name(p.param)); });

// RFC 8439 A.5 has additional data, which streams have not; its key and nonce start with four zero bytes and give this
// check of the cipher alone: the plaintext is the ciphertext XOR keystream whatever is authenticated beside it.
TEST(AeadVectors, DecryptionExampleOfRfc8439AppendixA5) {
    init();
    Key32 key;
    ASSERT_TRUE(hex_decode("1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0", key));
    Bytes sealed(265);
    ASSERT_TRUE(hex_decode(
        "64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb24c6cfc18755d43eea09ee94e382d26b0bdb7b73c321b0100d4f0"
        "3b7f355894cf332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f982b1ff37c8559797a06ef4f0ef61c186324e2b3506383606907b"
        "6a7c02b0f9f6157b53c867e4b9166c767b804d46a59b5216cde7a4e99040c5a40433225ee282a1b0a06c523eaf4534d7f83fa1155b0047718cbc"
        "546a0d072b04b3564eea1b422273f548271a0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a1049e617d91d361094"
        "fa68f0ff77987130305beaba2eda04df997b714d6c6f2c29a6ad5cb4022b02709b",
        sealed));
    const std::string head = "Internet-Drafts are draft documents valid for a maximum of six m";
    const uint64_t counter = load_le64(std::array<uint8_t, 8>{1, 2, 3, 4, 5, 6, 7, 8}.data());
    for (const AeadEngine engine : {AeadEngine::kSodium, AeadEngine::kVec128, AeadEngine::kAvx2, AeadEngine::kAvx512}) {
        if (!aead_usable(engine)) continue;
        // Sealing the ciphertext decrypts it.
        Bytes out(sealed.size() + kTagLen);
        AeadStream(key, engine).seal(out.data(), sealed, counter);
        EXPECT_EQ(as_text(ByteSpan(out).first(64)), head);
        EXPECT_EQ(as_text(ByteSpan(out).subspan(254, 7)), "ogress.") << name(engine);
    }
}

// The same key and nonce with the text of the example and no additional data, computed once with an independent
// implementation (Go's x/crypto).
TEST(AeadVectors, ShortTextsSealedByAnotherImplementation) {
    init();
    Key32 key;
    for (size_t i = 0; i < 32; ++i) key[i] = static_cast<uint8_t>(0x80 + i);
    const std::string_view text =
        "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
    for (const AeadEngine engine : {AeadEngine::kSodium, AeadEngine::kVec128, AeadEngine::kAvx2, AeadEngine::kAvx512}) {
        if (!aead_usable(engine)) continue;
        Bytes out(text.size() + kTagLen);
        AeadStream(key, engine).seal(out.data(), as_bytes(text), 0x4746454443424140);
        EXPECT_EQ(hex_encode(out),
                  "a479cb54628946d6f4042a8e384ef4bd2fbc7330b8be55eb2d8dc18aaa51d66a8ec1f8d3619a258db0ac56956015b7b4937e9b8e6aa9"
                  "57b3dc0214d803d77660aabc913092971da8f207171ce7843608162e2e759d8efc25d8d0936990af63c820ba87e8a955b5c8274ef7d1"
                  "0f6fafd04647fa6775577a1a250dcc2df37e95e46c4a")
            << name(engine);
    }
}

// Engines with one fault each, made of the reference.
const AeadStream& with_key(const uint8_t* key) {
    static std::unique_ptr<AeadStream> stream;
    Key32 k;
    std::memcpy(k.data(), key, k.size());
    stream = std::make_unique<AeadStream>(k, AeadEngine::kSodium);
    return *stream;
}
void good_seal(const uint8_t* key, AeadJob* jobs, size_t n) { with_key(key).seal(std::span(jobs, n)); }
void good_open(const uint8_t* key, AeadJob* jobs, size_t n) { with_key(key).open(std::span(jobs, n)); }

TEST(AeadEngines, OneThatComputesWrongFailsTheSelfTest) {
    init();
    EXPECT_TRUE(aead_agrees_with_sodium({good_seal, good_open}));
    const auto short_counter = [](const uint8_t* key, AeadJob* jobs, size_t n) {
        for (size_t i = 0; i < n; ++i) jobs[i].counter &= 0xffff'ffff;
        good_seal(key, jobs, n);
    };
    const auto wrong_tag_of_long_ones = [](const uint8_t* key, AeadJob* jobs, size_t n) {
        good_seal(key, jobs, n);
        for (size_t i = 0; i < n; ++i)
            if (jobs[i].len > 2048) jobs[i].dst[jobs[i].len + 15] ^= 1;
    };
    const auto writes_too_far = [](const uint8_t* key, AeadJob* jobs, size_t n) {
        for (size_t i = n; i-- > 0;) {
            good_seal(key, jobs + i, 1);
            if (i + 1 < n) jobs[i].dst[jobs[i].len + kTagLen] = 0;
        }
    };
    const auto believes_everything = [](const uint8_t* key, AeadJob* jobs, size_t n) {
        good_open(key, jobs, n);
        for (size_t i = 0; i < n; ++i) jobs[i].ok = true;
    };
    const auto believes_nothing = [](const uint8_t* key, AeadJob* jobs, size_t n) {
        good_open(key, jobs, n);
        for (size_t i = 0; i < n; ++i) jobs[i].ok = false;
    };
    const auto wrong_tag_of_one_alone = [](const uint8_t* key, AeadJob* jobs, size_t n) {
        good_seal(key, jobs, n);
        if (n == 1 && jobs[0].len == 1280) jobs[0].dst[1280] ^= 1;
    };
    const auto believes_one_alone = [](const uint8_t* key, AeadJob* jobs, size_t n) {
        good_open(key, jobs, n);
        if (n == 1) jobs[0].ok = true;
    };
    EXPECT_FALSE(aead_agrees_with_sodium({wrong_tag_of_one_alone, good_open}));
    EXPECT_FALSE(aead_agrees_with_sodium({good_seal, believes_one_alone}));
    EXPECT_FALSE(aead_agrees_with_sodium({short_counter, good_open}));
    EXPECT_FALSE(aead_agrees_with_sodium({wrong_tag_of_long_ones, good_open}));
    EXPECT_FALSE(aead_agrees_with_sodium({writes_too_far, good_open}));
    EXPECT_FALSE(aead_agrees_with_sodium({good_seal, believes_everything}));
    EXPECT_FALSE(aead_agrees_with_sodium({good_seal, believes_nothing}));
}

TEST(AeadEngines, TheEnvironmentChoosesAndNonsenseThereIsIgnored) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");  // a new process: the choice is made once
    const auto with = [](const char* value) {
        ::setenv("TAILMESH_AEAD", value, 1);
        std::_Exit(static_cast<int>(aead_engine()));
    };
    EXPECT_EXIT(with("sodium"), testing::ExitedWithCode(static_cast<int>(AeadEngine::kSodium)), "");
    if (aead_usable(AeadEngine::kAvx2)) {
        EXPECT_EXIT(with("avx2"), testing::ExitedWithCode(static_cast<int>(AeadEngine::kAvx2)), "");
    }
    const auto nonsense = [] {
        ::setenv("TAILMESH_AEAD", "fast", 1);
        std::_Exit(aead_usable(aead_engine()) ? 0 : 1);
    };
    EXPECT_EXIT(nonsense(), testing::ExitedWithCode(0), "TAILMESH_AEAD=fast");
}

#if defined(__x86_64__)
// The tests above leave out what is not usable: what fails its self-test must not go unnoticed that way.
TEST(AeadEngines, WhatThisProcessorHasPassesTheSelfTest) {
    init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) {
        EXPECT_TRUE(aead_usable(AeadEngine::kAvx2));
    }
    if (__builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512ifma") && __builtin_cpu_supports("avx512vl")) {
        EXPECT_TRUE(aead_usable(AeadEngine::kAvx512));
    }
}
#endif

TEST(AeadEngines, TheChosenOneIsUsable) {
    EXPECT_TRUE(aead_usable(aead_engine()));
    EXPECT_TRUE(aead_usable(AeadEngine::kSodium));
    EXPECT_FALSE(aead_usable(AeadEngine::kCount));
}

}  // namespace
}  // namespace mesh::crypto
