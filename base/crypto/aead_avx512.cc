// SPDX-License-Identifier: BSD-3-Clause
// ChaCha20-Poly1305 with 512-bit vectors. Compiled for AVX-512 F, VL, BW, DQ, IFMA, VBMI and VBMI2; called only where the
// processor has them.
#include <immintrin.h>

#include "base/crypto/aead_schedule.h"

namespace mesh::crypto {
namespace {

#define MESH_INLINE inline __attribute__((always_inline))

using Vec = __m512i;
struct Local;

MESH_INLINE Vec load(const void* p) { return _mm512_loadu_si512(p); }
MESH_INLINE void store(void* p, Vec v) { _mm512_storeu_si512(p, v); }
MESH_INLINE Vec all(uint64_t v) { return _mm512_set1_epi64(static_cast<long long>(v)); }

// ---- ChaCha20 ----------------------------------------------------------------------------------------------------------

constexpr uint32_t kConstants[4] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};  // RFC 8439, 2.3

MESH_INLINE void quarter(Vec& a, Vec& b, Vec& c, Vec& d) {
    a = _mm512_add_epi32(a, b);
    d = _mm512_rol_epi32(_mm512_xor_si512(d, a), 16);
    c = _mm512_add_epi32(c, d);
    b = _mm512_rol_epi32(_mm512_xor_si512(b, c), 12);
    a = _mm512_add_epi32(a, b);
    d = _mm512_rol_epi32(_mm512_xor_si512(d, a), 8);
    c = _mm512_add_epi32(c, d);
    b = _mm512_rol_epi32(_mm512_xor_si512(b, c), 7);
}

/// Four quarter rounds side by side; written step by step because the compiler keeps this order.
MESH_INLINE void quarters(Vec* x, int b0, int b1, int b2, int b3, int c0, int c1, int c2, int c3, int d0, int d1, int d2,
                          int d3) {
    const auto half = [&](auto left, auto right) __attribute__((always_inline)) {
        x[0] = _mm512_add_epi32(x[0], x[b0]);
        x[1] = _mm512_add_epi32(x[1], x[b1]);
        x[2] = _mm512_add_epi32(x[2], x[b2]);
        x[3] = _mm512_add_epi32(x[3], x[b3]);
        x[d0] = _mm512_xor_si512(x[d0], x[0]);
        x[d1] = _mm512_xor_si512(x[d1], x[1]);
        x[d2] = _mm512_xor_si512(x[d2], x[2]);
        x[d3] = _mm512_xor_si512(x[d3], x[3]);
        x[d0] = left(x[d0]);
        x[d1] = left(x[d1]);
        x[d2] = left(x[d2]);
        x[d3] = left(x[d3]);
        x[c0] = _mm512_add_epi32(x[c0], x[d0]);
        x[c1] = _mm512_add_epi32(x[c1], x[d1]);
        x[c2] = _mm512_add_epi32(x[c2], x[d2]);
        x[c3] = _mm512_add_epi32(x[c3], x[d3]);
        x[b0] = _mm512_xor_si512(x[b0], x[c0]);
        x[b1] = _mm512_xor_si512(x[b1], x[c1]);
        x[b2] = _mm512_xor_si512(x[b2], x[c2]);
        x[b3] = _mm512_xor_si512(x[b3], x[c3]);
        x[b0] = right(x[b0]);
        x[b1] = right(x[b1]);
        x[b2] = right(x[b2]);
        x[b3] = right(x[b3]);
    };
    half([](Vec v) __attribute__((always_inline)) { return _mm512_rol_epi32(v, 16); },
         [](Vec v) __attribute__((always_inline)) { return _mm512_rol_epi32(v, 12); });
    half([](Vec v) __attribute__((always_inline)) { return _mm512_rol_epi32(v, 8); },
         [](Vec v) __attribute__((always_inline)) { return _mm512_rol_epi32(v, 7); });
}

/// Lane i of (a, b, c, d) becomes block `first` + `step` · i of `out`: a 4×4 transposition of 128-bit lanes.
MESH_INLINE void store_blocks(uint8_t* out, size_t first, size_t step, Vec a, Vec b, Vec c, Vec d) {
    const Vec ab01 = _mm512_shuffle_i32x4(a, b, 0x44), ab23 = _mm512_shuffle_i32x4(a, b, 0xee);
    const Vec cd01 = _mm512_shuffle_i32x4(c, d, 0x44), cd23 = _mm512_shuffle_i32x4(c, d, 0xee);
    store(out + 64 * first, _mm512_shuffle_i32x4(ab01, cd01, 0x88));
    store(out + 64 * (first + step), _mm512_shuffle_i32x4(ab01, cd01, 0xdd));
    store(out + 64 * (first + 2 * step), _mm512_shuffle_i32x4(ab23, cd23, 0x88));
    store(out + 64 * (first + 3 * step), _mm512_shuffle_i32x4(ab23, cd23, 0xdd));
}

/// 16 blocks, word by word: vector w holds word w of all blocks, so a round needs no shuffles.
void blocks_by_word(const uint8_t* key, const AeadLane* lanes, uint8_t* out) {
    Vec x[16];
    uint32_t words[8];
    std::memcpy(words, key, sizeof words);
    // Out of the 16 rows of four words: the block counters, and both words of the nonces.
    const Vec l0 = load(lanes), l1 = load(lanes + 4), l2 = load(lanes + 8), l3 = load(lanes + 12);
    const Vec pick = _mm512_set_epi32(30, 26, 22, 18, 14, 10, 6, 2, 28, 24, 20, 16, 12, 8, 4, 0);
    const Vec pick_high = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 31, 27, 23, 19, 15, 11, 7, 3);
    const Vec low = _mm512_permutex2var_epi32(l0, pick, l1), high = _mm512_permutex2var_epi32(l2, pick, l3);
    const Vec row12 = _mm512_shuffle_i64x2(low, high, 0x44);
    const Vec row14 = _mm512_shuffle_i64x2(low, high, 0xee);
    const Vec row15 = _mm512_shuffle_i64x2(_mm512_permutex2var_epi32(l0, pick_high, l1),
                                           _mm512_permutex2var_epi32(l2, pick_high, l3), 0x44);
    for (int i = 0; i < 4; ++i) x[i] = _mm512_set1_epi32(static_cast<int>(kConstants[i]));
    for (int i = 0; i < 8; ++i) x[4 + i] = _mm512_set1_epi32(static_cast<int>(words[i]));
    x[12] = row12;
    x[13] = _mm512_setzero_si512();
    x[14] = row14;
    x[15] = row15;
    for (int i = 0; i < 10; ++i) {
        quarters(x, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        quarters(x, 5, 6, 7, 4, 10, 11, 8, 9, 15, 12, 13, 14);
    }
    for (int i = 0; i < 4; ++i) x[i] = _mm512_add_epi32(x[i], _mm512_set1_epi32(static_cast<int>(kConstants[i])));
    for (int i = 0; i < 8; ++i) x[4 + i] = _mm512_add_epi32(x[4 + i], _mm512_set1_epi32(static_cast<int>(words[i])));
    x[12] = _mm512_add_epi32(x[12], row12);
    x[14] = _mm512_add_epi32(x[14], row14);
    x[15] = _mm512_add_epi32(x[15], row15);
    // Within 128-bit lanes: y[4g + j] has words 4g..4g+3 of blocks j, 4 + j, 8 + j and 12 + j.
    Vec y[16];
    for (int g = 0; g < 16; g += 4) {
        const Vec ab_low = _mm512_unpacklo_epi32(x[g], x[g + 1]), ab_high = _mm512_unpackhi_epi32(x[g], x[g + 1]);
        const Vec cd_low = _mm512_unpacklo_epi32(x[g + 2], x[g + 3]), cd_high = _mm512_unpackhi_epi32(x[g + 2], x[g + 3]);
        y[g] = _mm512_unpacklo_epi64(ab_low, cd_low);
        y[g + 1] = _mm512_unpackhi_epi64(ab_low, cd_low);
        y[g + 2] = _mm512_unpacklo_epi64(ab_high, cd_high);
        y[g + 3] = _mm512_unpackhi_epi64(ab_high, cd_high);
    }
    for (size_t j = 0; j < 4; ++j) store_blocks(out, j, 4, y[j], y[4 + j], y[8 + j], y[12 + j]);
}

/// 4 · kSets blocks, row by row: a vector holds one row of four blocks. Less work when there are few blocks.
template <size_t kSets>
void blocks_by_row(const uint8_t* key, const AeadLane* lanes, uint8_t* out) {
    Vec a[kSets], b[kSets], c[kSets], d[kSets];
    __m128i row[3];
    std::memcpy(&row[0], kConstants, 16);
    std::memcpy(&row[1], key, 32);
    const Vec row0 = _mm512_broadcast_i32x4(row[0]), row1 = _mm512_broadcast_i32x4(row[1]),
              row2 = _mm512_broadcast_i32x4(row[2]);
    for (size_t s = 0; s < kSets; ++s) {
        a[s] = row0;
        b[s] = row1;
        c[s] = row2;
        d[s] = load(lanes + 4 * s);
    }
    for (int i = 0; i < 10; ++i) {
        for (size_t s = 0; s < kSets; ++s) quarter(a[s], b[s], c[s], d[s]);
        for (size_t s = 0; s < kSets; ++s) {
            b[s] = _mm512_shuffle_epi32(b[s], _MM_PERM_ADCB);
            c[s] = _mm512_shuffle_epi32(c[s], _MM_PERM_BADC);
            d[s] = _mm512_shuffle_epi32(d[s], _MM_PERM_CBAD);
        }
        for (size_t s = 0; s < kSets; ++s) quarter(a[s], b[s], c[s], d[s]);
        for (size_t s = 0; s < kSets; ++s) {
            b[s] = _mm512_shuffle_epi32(b[s], _MM_PERM_CBAD);
            c[s] = _mm512_shuffle_epi32(c[s], _MM_PERM_BADC);
            d[s] = _mm512_shuffle_epi32(d[s], _MM_PERM_ADCB);
        }
    }
    for (size_t s = 0; s < kSets; ++s)
        store_blocks(out, 4 * s, 1, _mm512_add_epi32(a[s], row0), _mm512_add_epi32(b[s], row1),
                     _mm512_add_epi32(c[s], row2), _mm512_add_epi32(d[s], load(lanes + 4 * s)));
}

// ---- Poly1305 ----------------------------------------------------------------------------------------------------------
//
// Numbers modulo p = 2^130 - 5 as limbs of 44, 44 and 42 bits, eight of them side by side. Lane order is what unpacking
// eight 16-byte blocks gives: blocks 0 4 1 5 2 6 3 7. With B blocks in all and z zero blocks put in front so that 8
// divides z + B, the sum of m_i r^(B-i) is computed as eight sums with steps of r^8, and then each lane times its r^(8-j).

constexpr uint64_t kMask44 = (uint64_t{1} << 44) - 1;
constexpr uint64_t kMask42 = (uint64_t{1} << 42) - 1;

struct Limbs {
    Vec l0, l1, l2;
};
/// A factor, with what wraps around at 2^132 = 20 (mod p).
struct Factor {
    Vec r0, r1, r2, r1x20, r2x20;
};

MESH_INLINE Vec times20(Vec v) { return _mm512_add_epi64(_mm512_slli_epi64(v, 4), _mm512_slli_epi64(v, 2)); }
MESH_INLINE Factor factor_of(const Limbs& x) { return {x.l0, x.l1, x.l2, times20(x.l1), times20(x.l2)}; }

/// Products not yet carried: of each limb the low and the high 52 bits.
struct Product {
    Vec low0, low1, low2, high0, high1, high2;
};

MESH_INLINE Product begin(const Limbs& x) {
    const Vec zero = _mm512_setzero_si512();
    return {x.l0, x.l1, x.l2, zero, zero, zero};
}
MESH_INLINE void accumulate(Product& p, const Limbs& x, const Factor& f) {
    p.low0 = _mm512_madd52lo_epu64(p.low0, x.l2, f.r1x20);
    p.high0 = _mm512_madd52hi_epu64(p.high0, x.l2, f.r1x20);
    p.low1 = _mm512_madd52lo_epu64(p.low1, x.l2, f.r2x20);
    p.high1 = _mm512_madd52hi_epu64(p.high1, x.l2, f.r2x20);
    p.low2 = _mm512_madd52lo_epu64(p.low2, x.l2, f.r0);
    p.high2 = _mm512_madd52hi_epu64(p.high2, x.l2, f.r0);
    p.low0 = _mm512_madd52lo_epu64(p.low0, x.l0, f.r0);
    p.high0 = _mm512_madd52hi_epu64(p.high0, x.l0, f.r0);
    p.low1 = _mm512_madd52lo_epu64(p.low1, x.l0, f.r1);
    p.high1 = _mm512_madd52hi_epu64(p.high1, x.l0, f.r1);
    p.low2 = _mm512_madd52lo_epu64(p.low2, x.l0, f.r2);
    p.high2 = _mm512_madd52hi_epu64(p.high2, x.l0, f.r2);
    p.low0 = _mm512_madd52lo_epu64(p.low0, x.l1, f.r2x20);
    p.high0 = _mm512_madd52hi_epu64(p.high0, x.l1, f.r2x20);
    p.low1 = _mm512_madd52lo_epu64(p.low1, x.l1, f.r0);
    p.high1 = _mm512_madd52hi_epu64(p.high1, x.l1, f.r0);
    p.low2 = _mm512_madd52lo_epu64(p.low2, x.l1, f.r1);
    p.high2 = _mm512_madd52hi_epu64(p.high2, x.l1, f.r1);
}
/// Up to two products and one sum of limbs. Out: limbs below 2^44 + 2^11.
MESH_INLINE Limbs carried(Product p) {
    // The high halves weigh 2^52, which is 2^8 of the next limb.
    const Vec mask44 = all(kMask44), mask42 = all(kMask42);
    Limbs h;
    const Vec c0 = _mm512_add_epi64(_mm512_srli_epi64(p.low0, 44), _mm512_slli_epi64(p.high0, 8));
    h.l0 = _mm512_and_si512(p.low0, mask44);
    p.low1 = _mm512_add_epi64(p.low1, c0);
    const Vec c1 = _mm512_add_epi64(_mm512_srli_epi64(p.low1, 44), _mm512_slli_epi64(p.high1, 8));
    h.l1 = _mm512_and_si512(p.low1, mask44);
    p.low2 = _mm512_add_epi64(p.low2, c1);
    const Vec c2 = _mm512_add_epi64(_mm512_srli_epi64(p.low2, 42), _mm512_slli_epi64(p.high2, 10));
    h.l2 = _mm512_and_si512(p.low2, mask42);
    h.l0 = _mm512_add_epi64(h.l0, _mm512_add_epi64(c2, _mm512_slli_epi64(c2, 2)));
    h.l1 = _mm512_add_epi64(h.l1, _mm512_srli_epi64(h.l0, 44));
    h.l0 = _mm512_and_si512(h.l0, mask44);
    return h;
}

/// x below 2^45 in each limb, as everything that goes into a product here.
MESH_INLINE Limbs multiply(const Limbs& x, const Factor& f) {
    const Vec zero = _mm512_setzero_si512();
    Product p = begin({zero, zero, zero});
    accumulate(p, x, f);
    return carried(p);
}

/// Eight blocks of 16 bytes; `top` has 2^40 (that is 2^128) in the lanes where there is one.
MESH_INLINE Limbs limbs_of(Vec blocks03, Vec blocks47, Vec top) {
    const Vec low = _mm512_unpacklo_epi64(blocks03, blocks47), high = _mm512_unpackhi_epi64(blocks03, blocks47);
    const Vec mask44 = all(kMask44);
    return {_mm512_and_si512(low, mask44), _mm512_and_si512(_mm512_shrdi_epi64(low, high, 44), mask44),
            _mm512_or_si512(_mm512_srli_epi64(high, 24), top)};
}

MESH_INLINE Limbs blend(__mmask8 second, const Limbs& a, const Limbs& b) {
    return {_mm512_mask_mov_epi64(a.l0, second, b.l0), _mm512_mask_mov_epi64(a.l1, second, b.l1),
            _mm512_mask_mov_epi64(a.l2, second, b.l2)};
}
MESH_INLINE Limbs lane(const Limbs& a, int i) {
    const Vec at = _mm512_set1_epi64(i);
    return {_mm512_permutexvar_epi64(at, a.l0), _mm512_permutexvar_epi64(at, a.l1), _mm512_permutexvar_epi64(at, a.l2)};
}

/// 64 bytes of the padded message from position `at` on, which may be before its start: zeros there.
MESH_INLINE Vec load_padded(const uint8_t* data, ptrdiff_t at, size_t len) {
    const size_t front = at < 0 ? static_cast<size_t>(-at) : 0;  // multiple of 16
    const size_t from = at < 0 ? 0 : static_cast<size_t>(at);
    if (front >= 64 || from >= len) return _mm512_setzero_si512();
    const size_t room = 64 - front, left = len - from;
    const size_t n = left < room ? left : room;
    const __mmask64 mask = ~uint64_t{0} >> (64 - n);
    return _mm512_maskz_expand_epi8(mask << front, _mm512_maskz_loadu_epi8(mask, data + from));
}

/// Lanes of blocks z..7, see above.
constexpr uint8_t kPresent[8] = {0xff, 0xfe, 0xfa, 0xea, 0xaa, 0xa8, 0xa0, 0x80};

/// What the sum needs of r: for each lane its power, and the steps of r^8 and r^16.
struct Powers {
    Limbs lanes;
    Factor by_r8, by_r16;
};

/// r of the key, clamped, in limbs; l and h are the two halves of its 16 bytes.
MESH_INLINE Limbs clamped(Vec l, Vec h) {
    l = _mm512_and_si512(l, all(0x0ffffffc0fffffff));
    h = _mm512_and_si512(h, all(0x0ffffffc0ffffffc));
    const Vec mask44 = all(kMask44);
    return {_mm512_and_si512(l, mask44), _mm512_and_si512(_mm512_shrdi_epi64(l, h, 44), mask44),
            _mm512_srli_epi64(h, 24)};
}

/// For one packet: few steps, one after the other.
MESH_INLINE Powers powers_of_one(const uint8_t* key, size_t groups) {
    uint64_t r[2];
    std::memcpy(r, key, 16);
    const Limbs r1 = clamped(all(r[0]), all(r[1]));
    // Lane of block j gets r^(8-j) = r · (r)? · (r^2)? · (r^4)?.
    const Limbs r2 = multiply(r1, factor_of(r1));
    Powers p;
    p.lanes = blend(0x33, r1, r2);
    const Limbs next = multiply(p.lanes, factor_of(r2));  // r^3, and r^4 in lane 0
    p.lanes = blend(0x0f, p.lanes, next);
    p.lanes = blend(0x55, p.lanes, multiply(p.lanes, factor_of(lane(next, 0))));
    if (groups > 1) p.by_r8 = factor_of(lane(p.lanes, 0));
    if (groups > 2) p.by_r16 = factor_of(multiply(lane(p.lanes, 0), p.by_r8));
    return p;
}

/// For eight packets side by side: more steps, but for all at once.
class PowersOfEight {
   public:
    /// `keys`: eight Poly1305 keys, 64 bytes apart.
    void compute(const uint8_t* keys) {
        const Vec at = _mm512_set_epi64(448, 384, 320, 256, 192, 128, 64, 0);
        const Limbs r1 = clamped(_mm512_i64gather_epi64(at, keys, 1), _mm512_i64gather_epi64(at, keys + 8, 1));
        const Factor by_r1 = factor_of(r1);
        const Limbs r2 = multiply(r1, by_r1);
        const Factor by_r2 = factor_of(r2);
        const Limbs r3 = multiply(r2, by_r1), r4 = multiply(r2, by_r2);
        const Factor by_r4 = factor_of(r4);
        const Limbs r5 = multiply(r1, by_r4), r6 = multiply(r2, by_r4), r7 = multiply(r3, by_r4), r8 = multiply(r4, by_r4);
        const Factor by_r8 = factor_of(r8);
        keep(step8_, by_r8);
        keep(step16_, factor_of(multiply(r8, by_r8)));
        transpose(0, r8.l0, r4.l0, r7.l0, r3.l0, r6.l0, r2.l0, r5.l0, r1.l0);
        transpose(1, r8.l1, r4.l1, r7.l1, r3.l1, r6.l1, r2.l1, r5.l1, r1.l1);
        transpose(2, r8.l2, r4.l2, r7.l2, r3.l2, r6.l2, r2.l2, r5.l2, r1.l2);
    }
    [[nodiscard]] MESH_INLINE Powers of(size_t packet) const {
        return {{lanes_[0][packet], lanes_[1][packet], lanes_[2][packet]}, step(step8_, packet), step(step16_, packet)};
    }

   private:
    using Column = uint64_t[8];  // one number of each packet

    static MESH_INLINE void keep(Column* columns, const Factor& f) {
        store(columns[0], f.r0);
        store(columns[1], f.r1);
        store(columns[2], f.r2);
        store(columns[3], f.r1x20);
        store(columns[4], f.r2x20);
    }
    static MESH_INLINE Factor step(const Column* columns, size_t packet) {
        return {all(columns[0][packet]), all(columns[1][packet]), all(columns[2][packet]), all(columns[3][packet]),
                all(columns[4][packet])};
    }
    /// From "a power of all packets" to "all powers of a packet".
    MESH_INLINE void transpose(size_t limb, Vec a, Vec b, Vec c, Vec d, Vec e, Vec f, Vec g, Vec h) {
        const Vec ab0 = _mm512_unpacklo_epi64(a, b), ab1 = _mm512_unpackhi_epi64(a, b);
        const Vec cd0 = _mm512_unpacklo_epi64(c, d), cd1 = _mm512_unpackhi_epi64(c, d);
        const Vec ef0 = _mm512_unpacklo_epi64(e, f), ef1 = _mm512_unpackhi_epi64(e, f);
        const Vec gh0 = _mm512_unpacklo_epi64(g, h), gh1 = _mm512_unpackhi_epi64(g, h);
        quarter_lanes(limb, 0, ab0, cd0, ef0, gh0);
        quarter_lanes(limb, 1, ab1, cd1, ef1, gh1);
    }
    MESH_INLINE void quarter_lanes(size_t limb, size_t first, Vec ab, Vec cd, Vec ef, Vec gh) {
        const Vec ad_low = _mm512_shuffle_i64x2(ab, cd, 0x44), ad_high = _mm512_shuffle_i64x2(ab, cd, 0xee);
        const Vec eh_low = _mm512_shuffle_i64x2(ef, gh, 0x44), eh_high = _mm512_shuffle_i64x2(ef, gh, 0xee);
        lanes_[limb][first] = _mm512_shuffle_i64x2(ad_low, eh_low, 0x88);
        lanes_[limb][first + 2] = _mm512_shuffle_i64x2(ad_low, eh_low, 0xdd);
        lanes_[limb][first + 4] = _mm512_shuffle_i64x2(ad_high, eh_high, 0x88);
        lanes_[limb][first + 6] = _mm512_shuffle_i64x2(ad_high, eh_high, 0xdd);
    }

    Vec lanes_[3][8];
    alignas(64) Column step8_[5], step16_[5];
};

MESH_INLINE size_t groups_of(size_t len) { return ((len + 15) / 16 + 1 + 7) / 8; }  // one block more for the lengths

MESH_INLINE void poly1305(uint8_t* out, const uint8_t* key, const Powers& powers, const uint8_t* data, size_t len) {
    const size_t groups = groups_of(len);
    const size_t zeros = groups * 8 - ((len + 15) / 16 + 1);
    auto at = -static_cast<ptrdiff_t>(zeros * 16);
    const Vec lengths = _mm512_set_epi64(static_cast<long long>(len), 0, 0, 0, 0, 0, 0, 0);
    const Vec top = all(uint64_t{1} << 40);

    const Vec front = load_padded(data, at, len), behind = load_padded(data, at + 64, len);
    const Vec present = _mm512_maskz_mov_epi64(kPresent[zeros], top);
    Limbs h = limbs_of(front, groups == 1 ? _mm512_or_si512(behind, lengths) : behind, present);
    if (groups > 1) {
        const auto middle = [&]() __attribute__((always_inline)) {
            at += 128;
            return limbs_of(load(data + at), load(data + at + 64), top);
        };
        const auto last = [&]() __attribute__((always_inline)) {
            at += 128;
            return limbs_of(load_padded(data, at, len), _mm512_or_si512(load_padded(data, at + 64, len), lengths), top);
        };
        // h r^16 + a r^8 + b: one carry for two groups. An odd one goes first.
        size_t left = groups - 1;
        if (left % 2 == 1) {
            Product p = begin(left == 1 ? last() : middle());
            accumulate(p, h, powers.by_r8);
            h = carried(p);
            --left;
        }
        for (; left > 0; left -= 2) {
            const Limbs first = middle();
            Product p = begin(left == 2 ? last() : middle());
            accumulate(p, first, powers.by_r8);
            accumulate(p, h, powers.by_r16);
            h = carried(p);
        }
    }
    h = multiply(h, factor_of(powers.lanes));
    AeadFinish<Local>::tag(out, static_cast<uint64_t>(_mm512_reduce_add_epi64(h.l0)),
                           static_cast<uint64_t>(_mm512_reduce_add_epi64(h.l1)),
                           static_cast<uint64_t>(_mm512_reduce_add_epi64(h.l2)), key + 16);
}

struct Engine {
    static constexpr size_t kLanes = 16;

    static void keystream(const uint8_t* key, const AeadLane* lanes, size_t count, uint8_t* out) {
        if (count > 12)
            blocks_by_word(key, lanes, out);
        else if (count > 8)
            blocks_by_row<3>(key, lanes, out);
        else if (count > 4)
            blocks_by_row<2>(key, lanes, out);
        else
            blocks_by_row<1>(key, lanes, out);
    }
    static MESH_INLINE void add(uint8_t* dst, const uint8_t* src, const uint8_t* keystream) {
        store(dst, _mm512_xor_si512(load(src), load(keystream)));
    }
    static MESH_INLINE void add_some(uint8_t* dst, const uint8_t* src, const uint8_t* keystream, size_t n) {
        const __mmask64 mask = (uint64_t{1} << n) - 1;
        _mm512_mask_storeu_epi8(dst, mask, _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, src), load(keystream)));
    }
    static void tags(uint8_t* out, const uint8_t* keys, const AeadText* texts, size_t count) {
        if (count < 3) {
            for (size_t i = 0; i < count; ++i)
                poly1305(out + 16 * i, keys + 64 * i, powers_of_one(keys + 64 * i, groups_of(texts[i].len)), texts[i].data,
                         texts[i].len);
            return;
        }
        PowersOfEight powers;
        for (size_t i = 0; i < count; ++i) {
            if (i % 8 == 0) powers.compute(keys + 64 * i);
            poly1305(out + 16 * i, keys + 64 * i, powers.of(i % 8), texts[i].data, texts[i].len);
        }
        aead_wipe<Local>(&powers, sizeof powers);
    }
};

}  // namespace

constinit const AeadFunctions kAeadAvx512 = {AeadSchedule<Engine>::run<true>, AeadSchedule<Engine>::run<false>};

}  // namespace mesh::crypto
