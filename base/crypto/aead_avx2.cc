// SPDX-License-Identifier: BSD-3-Clause
// ChaCha20-Poly1305 with 256-bit vectors. Compiled for AVX2; called only where the processor has it.
#include <immintrin.h>

#include "base/crypto/aead_schedule.h"

namespace mesh::crypto {
namespace {

#define MESH_INLINE inline __attribute__((always_inline))

using Vec = __m256i;
struct Local;

MESH_INLINE Vec load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i_u*>(p)); }
MESH_INLINE void store(void* p, Vec v) { _mm256_storeu_si256(static_cast<__m256i_u*>(p), v); }
MESH_INLINE Vec load_twice(const void* p) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i_u*>(p)));
}
MESH_INLINE Vec load_two(const void* low, const void* high) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(static_cast<const __m128i_u*>(low))),
                                   _mm_loadu_si128(static_cast<const __m128i_u*>(high)), 1);
}
MESH_INLINE Vec all(uint64_t v) { return _mm256_set1_epi64x(static_cast<long long>(v)); }

// ---- ChaCha20 ----------------------------------------------------------------------------------------------------------

constexpr uint32_t kConstants[4] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};  // RFC 8439, 2.3

// Rotations by whole bytes are one shuffle.
alignas(16) constexpr uint8_t kRotate16[16] = {2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13};
alignas(16) constexpr uint8_t kRotate8[16] = {3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14};

template <int kBits>
MESH_INLINE Vec rotate(Vec v) {
    return _mm256_or_si256(_mm256_slli_epi32(v, kBits), _mm256_srli_epi32(v, 32 - kBits));
}

/// 8 blocks, word by word: vector w holds word w of all blocks, so a round needs no shuffles.
void blocks_by_word(const uint8_t* key, const AeadLane* lanes, uint8_t* out) {
    Vec x[16];
    uint32_t words[8];
    std::memcpy(words, key, sizeof words);
    const Vec l0 = load_two(lanes, lanes + 4), l1 = load_two(lanes + 1, lanes + 5), l2 = load_two(lanes + 2, lanes + 6),
              l3 = load_two(lanes + 3, lanes + 7);
    const Vec nonces01 = _mm256_unpackhi_epi32(l0, l1), nonces23 = _mm256_unpackhi_epi32(l2, l3);
    const Vec row12 = _mm256_unpacklo_epi64(_mm256_unpacklo_epi32(l0, l1), _mm256_unpacklo_epi32(l2, l3));
    const Vec row14 = _mm256_unpacklo_epi64(nonces01, nonces23);
    const Vec row15 = _mm256_unpackhi_epi64(nonces01, nonces23);
    const Vec rotate16 = load_twice(kRotate16), rotate8 = load_twice(kRotate8);
    for (int i = 0; i < 4; ++i) x[i] = _mm256_set1_epi32(static_cast<int>(kConstants[i]));
    for (int i = 0; i < 8; ++i) x[4 + i] = _mm256_set1_epi32(static_cast<int>(words[i]));
    x[12] = row12;
    x[13] = _mm256_setzero_si256();
    x[14] = row14;
    x[15] = row15;
    const auto quarters = [&](int b0, int b1, int b2, int b3, int c0, int c1, int c2, int c3, int d0, int d1, int d2,
                              int d3) __attribute__((always_inline)) {
        const auto half = [&](auto left, auto right) __attribute__((always_inline)) {
            x[0] = _mm256_add_epi32(x[0], x[b0]);
            x[1] = _mm256_add_epi32(x[1], x[b1]);
            x[2] = _mm256_add_epi32(x[2], x[b2]);
            x[3] = _mm256_add_epi32(x[3], x[b3]);
            x[d0] = left(_mm256_xor_si256(x[d0], x[0]));
            x[d1] = left(_mm256_xor_si256(x[d1], x[1]));
            x[d2] = left(_mm256_xor_si256(x[d2], x[2]));
            x[d3] = left(_mm256_xor_si256(x[d3], x[3]));
            x[c0] = _mm256_add_epi32(x[c0], x[d0]);
            x[c1] = _mm256_add_epi32(x[c1], x[d1]);
            x[c2] = _mm256_add_epi32(x[c2], x[d2]);
            x[c3] = _mm256_add_epi32(x[c3], x[d3]);
            x[b0] = right(_mm256_xor_si256(x[b0], x[c0]));
            x[b1] = right(_mm256_xor_si256(x[b1], x[c1]));
            x[b2] = right(_mm256_xor_si256(x[b2], x[c2]));
            x[b3] = right(_mm256_xor_si256(x[b3], x[c3]));
        };
        half([&](Vec v) __attribute__((always_inline)) { return _mm256_shuffle_epi8(v, rotate16); },
             [](Vec v) __attribute__((always_inline)) { return rotate<12>(v); });
        half([&](Vec v) __attribute__((always_inline)) { return _mm256_shuffle_epi8(v, rotate8); },
             [](Vec v) __attribute__((always_inline)) { return rotate<7>(v); });
    };
    for (int i = 0; i < 10; ++i) {
        quarters(4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        quarters(5, 6, 7, 4, 10, 11, 8, 9, 15, 12, 13, 14);
    }
    for (int i = 0; i < 4; ++i) x[i] = _mm256_add_epi32(x[i], _mm256_set1_epi32(static_cast<int>(kConstants[i])));
    for (int i = 0; i < 8; ++i) x[4 + i] = _mm256_add_epi32(x[4 + i], _mm256_set1_epi32(static_cast<int>(words[i])));
    x[12] = _mm256_add_epi32(x[12], row12);
    x[14] = _mm256_add_epi32(x[14], row14);
    x[15] = _mm256_add_epi32(x[15], row15);
    // Within 128-bit lanes: x[g + j] then has words g..g+3 of blocks j and 4 + j.
    for (int g = 0; g < 16; g += 4) {
        const Vec ab_low = _mm256_unpacklo_epi32(x[g], x[g + 1]), ab_high = _mm256_unpackhi_epi32(x[g], x[g + 1]);
        const Vec cd_low = _mm256_unpacklo_epi32(x[g + 2], x[g + 3]), cd_high = _mm256_unpackhi_epi32(x[g + 2], x[g + 3]);
        x[g] = _mm256_unpacklo_epi64(ab_low, cd_low);
        x[g + 1] = _mm256_unpackhi_epi64(ab_low, cd_low);
        x[g + 2] = _mm256_unpacklo_epi64(ab_high, cd_high);
        x[g + 3] = _mm256_unpackhi_epi64(ab_high, cd_high);
    }
    for (int j = 0; j < 4; ++j) {
        store(out + 64 * j, _mm256_permute2x128_si256(x[j], x[4 + j], 0x20));
        store(out + 64 * j + 32, _mm256_permute2x128_si256(x[8 + j], x[12 + j], 0x20));
        store(out + 64 * (4 + j), _mm256_permute2x128_si256(x[j], x[4 + j], 0x31));
        store(out + 64 * (4 + j) + 32, _mm256_permute2x128_si256(x[8 + j], x[12 + j], 0x31));
    }
}

/// 2 · kSets blocks, row by row: a vector holds one row of two blocks. Less work when there are few blocks.
template <size_t kSets>
void blocks_by_row(const uint8_t* key, const AeadLane* lanes, uint8_t* out) {
    Vec a[kSets], b[kSets], c[kSets], d[kSets];
    const Vec row0 = load_twice(kConstants), row1 = load_twice(key), row2 = load_twice(key + 16);
    const Vec rotate16 = load_twice(kRotate16), rotate8 = load_twice(kRotate8);
    for (size_t s = 0; s < kSets; ++s) {
        a[s] = row0;
        b[s] = row1;
        c[s] = row2;
        d[s] = load(lanes + 2 * s);
    }
    const auto quarter = [&]() __attribute__((always_inline)) {
        for (size_t s = 0; s < kSets; ++s) {
            a[s] = _mm256_add_epi32(a[s], b[s]);
            d[s] = _mm256_shuffle_epi8(_mm256_xor_si256(d[s], a[s]), rotate16);
            c[s] = _mm256_add_epi32(c[s], d[s]);
            b[s] = rotate<12>(_mm256_xor_si256(b[s], c[s]));
            a[s] = _mm256_add_epi32(a[s], b[s]);
            d[s] = _mm256_shuffle_epi8(_mm256_xor_si256(d[s], a[s]), rotate8);
            c[s] = _mm256_add_epi32(c[s], d[s]);
            b[s] = rotate<7>(_mm256_xor_si256(b[s], c[s]));
        }
    };
    for (int i = 0; i < 10; ++i) {
        quarter();
        for (size_t s = 0; s < kSets; ++s) {
            b[s] = _mm256_shuffle_epi32(b[s], 0x39);
            c[s] = _mm256_shuffle_epi32(c[s], 0x4e);
            d[s] = _mm256_shuffle_epi32(d[s], 0x93);
        }
        quarter();
        for (size_t s = 0; s < kSets; ++s) {
            b[s] = _mm256_shuffle_epi32(b[s], 0x93);
            c[s] = _mm256_shuffle_epi32(c[s], 0x4e);
            d[s] = _mm256_shuffle_epi32(d[s], 0x39);
        }
    }
    for (size_t s = 0; s < kSets; ++s) {
        a[s] = _mm256_add_epi32(a[s], row0);
        b[s] = _mm256_add_epi32(b[s], row1);
        c[s] = _mm256_add_epi32(c[s], row2);
        d[s] = _mm256_add_epi32(d[s], load(lanes + 2 * s));
        store(out + 128 * s, _mm256_permute2x128_si256(a[s], b[s], 0x20));
        store(out + 128 * s + 32, _mm256_permute2x128_si256(c[s], d[s], 0x20));
        store(out + 128 * s + 64, _mm256_permute2x128_si256(a[s], b[s], 0x31));
        store(out + 128 * s + 96, _mm256_permute2x128_si256(c[s], d[s], 0x31));
    }
}

// ---- Poly1305 ----------------------------------------------------------------------------------------------------------
//
// Numbers modulo p = 2^130 - 5 as five limbs of 26 bits, four of them side by side. Lane order is what unpacking four
// 16-byte blocks gives: blocks 0 2 1 3. With B blocks in all and z zero blocks put in front so that 4 divides z + B, the
// sum of m_i r^(B-i) is computed as four sums with steps of r^4, and then each lane times its r^(4-j).

constexpr uint64_t kMask26 = (uint64_t{1} << 26) - 1;

struct Limbs {
    Vec l[5];
};
/// A factor, with what wraps around at 2^130 = 5 (mod p).
struct Factor {
    Vec r[5], x5[5];
};

MESH_INLINE Factor factor_of(const Limbs& x) {
    Factor f;
    for (int i = 0; i < 5; ++i) {
        f.r[i] = x.l[i];
        f.x5[i] = _mm256_add_epi64(x.l[i], _mm256_slli_epi64(x.l[i], 2));
    }
    return f;
}

MESH_INLINE Vec multiply_add(Vec sum, Vec a, Vec b) { return _mm256_add_epi64(sum, _mm256_mul_epu32(a, b)); }
MESH_INLINE void carry(Vec& from, Vec& to, Vec mask) {
    to = _mm256_add_epi64(to, _mm256_srli_epi64(from, 26));
    from = _mm256_and_si256(from, mask);
}

/// Limbs in: below 2^28 (x) and 2^27 (factor). Out: below 2^26 + 2^10.
MESH_INLINE Limbs multiply(const Limbs& x, const Factor& f) {
    Vec d0 = _mm256_mul_epu32(x.l[0], f.r[0]);
    Vec d1 = _mm256_mul_epu32(x.l[0], f.r[1]);
    Vec d2 = _mm256_mul_epu32(x.l[0], f.r[2]);
    Vec d3 = _mm256_mul_epu32(x.l[0], f.r[3]);
    Vec d4 = _mm256_mul_epu32(x.l[0], f.r[4]);
    d0 = multiply_add(d0, x.l[1], f.x5[4]);
    d1 = multiply_add(d1, x.l[1], f.r[0]);
    d2 = multiply_add(d2, x.l[1], f.r[1]);
    d3 = multiply_add(d3, x.l[1], f.r[2]);
    d4 = multiply_add(d4, x.l[1], f.r[3]);
    d0 = multiply_add(d0, x.l[2], f.x5[3]);
    d1 = multiply_add(d1, x.l[2], f.x5[4]);
    d2 = multiply_add(d2, x.l[2], f.r[0]);
    d3 = multiply_add(d3, x.l[2], f.r[1]);
    d4 = multiply_add(d4, x.l[2], f.r[2]);
    d0 = multiply_add(d0, x.l[3], f.x5[2]);
    d1 = multiply_add(d1, x.l[3], f.x5[3]);
    d2 = multiply_add(d2, x.l[3], f.x5[4]);
    d3 = multiply_add(d3, x.l[3], f.r[0]);
    d4 = multiply_add(d4, x.l[3], f.r[1]);
    d0 = multiply_add(d0, x.l[4], f.x5[1]);
    d1 = multiply_add(d1, x.l[4], f.x5[2]);
    d2 = multiply_add(d2, x.l[4], f.x5[3]);
    d3 = multiply_add(d3, x.l[4], f.x5[4]);
    d4 = multiply_add(d4, x.l[4], f.r[0]);
    // Two chains that run side by side.
    const Vec mask = all(kMask26);
    carry(d0, d1, mask);
    carry(d3, d4, mask);
    carry(d1, d2, mask);
    const Vec wrapped = _mm256_srli_epi64(d4, 26);
    d4 = _mm256_and_si256(d4, mask);
    d0 = _mm256_add_epi64(d0, _mm256_add_epi64(wrapped, _mm256_slli_epi64(wrapped, 2)));
    carry(d2, d3, mask);
    carry(d0, d1, mask);
    carry(d3, d4, mask);
    return {{d0, d1, d2, d3, d4}};
}

/// Four blocks of 16 bytes; `top` has 2^24 (that is 2^128) in the lanes where there is one.
MESH_INLINE Limbs limbs_of(Vec blocks01, Vec blocks23, Vec top) {
    const Vec low = _mm256_unpacklo_epi64(blocks01, blocks23), high = _mm256_unpackhi_epi64(blocks01, blocks23);
    const Vec mask = all(kMask26);
    return {{_mm256_and_si256(low, mask), _mm256_and_si256(_mm256_srli_epi64(low, 26), mask),
             _mm256_and_si256(_mm256_or_si256(_mm256_srli_epi64(low, 52), _mm256_slli_epi64(high, 12)), mask),
             _mm256_and_si256(_mm256_srli_epi64(high, 14), mask), _mm256_or_si256(_mm256_srli_epi64(high, 40), top)}};
}

MESH_INLINE Limbs add(const Limbs& a, const Limbs& b) {
    Limbs out;
    for (int i = 0; i < 5; ++i) out.l[i] = _mm256_add_epi64(a.l[i], b.l[i]);
    return out;
}
/// `kSecond`: bits of the 32-bit halves of lanes taken from b.
template <int kSecond>
MESH_INLINE Limbs blend(const Limbs& a, const Limbs& b) {
    Limbs out;
    for (int i = 0; i < 5; ++i) out.l[i] = _mm256_blend_epi32(a.l[i], b.l[i], kSecond);
    return out;
}

MESH_INLINE uint64_t sum_of_lanes(Vec v) {
    __m128i s = _mm_add_epi64(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi64(s, _mm_unpackhi_epi64(s, s));
    return static_cast<uint64_t>(_mm_cvtsi128_si64(s));
}

void poly1305(uint8_t out[16], const uint8_t key[32], const uint8_t* data, size_t len) {
    uint64_t r[2];
    std::memcpy(r, key, 16);
    r[0] &= 0x0ffffffc0fffffff;
    r[1] &= 0x0ffffffc0ffffffc;
    const Limbs r1 = {{all(r[0] & kMask26), all(r[0] >> 26 & kMask26), all((r[0] >> 52 | r[1] << 12) & kMask26),
                       all(r[1] >> 14 & kMask26), all(r[1] >> 40)}};

    const size_t blocks = (len + 15) / 16 + 1;  // the last holds the lengths
    const size_t groups = (blocks + 3) / 4;
    const size_t zeros = groups * 4 - blocks;
    const Vec top = all(uint64_t{1} << 24);

    // The first group has the zero blocks, the last one what is left over and the lengths; they may be the same.
    alignas(32) uint8_t edge[64] = {};
    const uint64_t lengths[2] = {0, len};
    const size_t first_bytes = groups == 1 ? len : 64 - zeros * 16;
    std::memcpy(edge + zeros * 16, data, first_bytes);
    if (groups == 1) std::memcpy(edge + 48, lengths, 16);
    const auto present = [zeros](size_t block) { return block < zeros ? 0 : 1LL << 24; };
    Limbs h = limbs_of(load(edge), load(edge + 32), _mm256_set_epi64x(present(3), present(1), present(2), present(0)));

    // Lane of block j gets r^(4-j) = r · (r)? · (r^2)?.
    const Limbs r2 = multiply(r1, factor_of(r1));
    Limbs powers = blend<0x0f>(r1, r2);
    powers = blend<0x33>(powers, multiply(powers, factor_of(r2)));
    if (groups > 1) {
        Limbs r4;
        for (int i = 0; i < 5; ++i) r4.l[i] = _mm256_permute4x64_epi64(powers.l[i], 0);
        const Factor step = factor_of(r4);
        const uint8_t* p = data + first_bytes;
        for (size_t g = 2; g < groups; ++g, p += 64) h = add(multiply(h, step), limbs_of(load(p), load(p + 32), top));
        std::memset(edge, 0, 48);
        std::memcpy(edge, p, len - static_cast<size_t>(p - data));
        std::memcpy(edge + 48, lengths, 16);
        h = add(multiply(h, step), limbs_of(load(edge), load(edge + 32), top));
    }
    h = multiply(h, factor_of(powers));

    // To limbs of 44, 44 and 42 bits for the last steps.
    const uint64_t s0 = sum_of_lanes(h.l[0]), s1 = sum_of_lanes(h.l[1]), s2 = sum_of_lanes(h.l[2]),
                   s3 = sum_of_lanes(h.l[3]), s4 = sum_of_lanes(h.l[4]);
    const uint64_t h0 = s0 + ((s1 & ((1 << 18) - 1)) << 26);
    const uint64_t h1 = (s1 >> 18) + (s2 << 8) + ((s3 & ((1 << 10) - 1)) << 34);
    const uint64_t h2 = (s3 >> 10) + (s4 << 16);
    AeadFinish<Local>::tag(out, h0, h1, h2, key + 16);
}

struct Engine {
    static constexpr size_t kLanes = 8;

    static void keystream(const uint8_t* key, const AeadLane* lanes, size_t count, uint8_t* out) {
        if (count > 6)
            blocks_by_word(key, lanes, out);
        else if (count > 4)
            blocks_by_row<3>(key, lanes, out);
        else if (count > 2)
            blocks_by_row<2>(key, lanes, out);
        else
            blocks_by_row<1>(key, lanes, out);
    }
    static MESH_INLINE void add(uint8_t* dst, const uint8_t* src, const uint8_t* keystream) {
        const Vec low = _mm256_xor_si256(load(src), load(keystream));
        const Vec high = _mm256_xor_si256(load(src + 32), load(keystream + 32));
        store(dst, low);
        store(dst + 32, high);
    }
    static MESH_INLINE void add_some(uint8_t* dst, const uint8_t* src, const uint8_t* keystream, size_t n) {
        for (; n >= 16; n -= 16, dst += 16, src += 16, keystream += 16)
            _mm_storeu_si128(reinterpret_cast<__m128i_u*>(dst),
                             _mm_xor_si128(_mm_loadu_si128(reinterpret_cast<const __m128i_u*>(src)),
                                           _mm_loadu_si128(reinterpret_cast<const __m128i_u*>(keystream))));
        for (size_t i = 0; i < n; ++i) dst[i] = static_cast<uint8_t>(src[i] ^ keystream[i]);
    }
    static void tags(uint8_t* out, const uint8_t* keys, const AeadText* texts, size_t count) {
        for (size_t i = 0; i < count; ++i) poly1305(out + 16 * i, keys + 64 * i, texts[i].data, texts[i].len);
    }
};

}  // namespace

constinit const AeadFunctions kAeadAvx2 = {AeadSchedule<Engine>::run<true>, AeadSchedule<Engine>::run<false>};

}  // namespace mesh::crypto
