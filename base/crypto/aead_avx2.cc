// SPDX-License-Identifier: BSD-3-Clause
// ChaCha20-Poly1305 with 256-bit vectors. Compiled for AVX2 and BMI2; called only where the processor has both.
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
MESH_INLINE Vec all(uint32_t v) { return _mm256_set1_epi32(static_cast<int>(v)); }

// ---- ChaCha20 ----------------------------------------------------------------------------------------------------------

constexpr uint32_t kConstants[4] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};  // RFC 8439, 2.3

// Rotations by whole bytes are one shuffle.
alignas(16) constexpr uint8_t kRotate16[16] = {2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13};
alignas(16) constexpr uint8_t kRotate8[16] = {3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14};

template <int kBits>
MESH_INLINE Vec rotate(Vec v) {
    return _mm256_or_si256(_mm256_slli_epi32(v, kBits), _mm256_srli_epi32(v, 32 - kBits));
}

// Two quarter rounds (RFC 8439, 2.1) side by side, on a b c d and on e f g h. Sixteen registers hold three rows and four
// values in passing: of row c the arguments are offsets from %[m]; behind it are the masks of the rotations.
#define MESH_QUARTERS(a, b, c, d, e, f, g, h)                                                                              \
    "vpaddd %[" b "], %[" a "], %[" a "]\n\t vpaddd %[" f "], %[" e "], %[" e "]\n\t"                                      \
    "vpxor %[" a "], %[" d "], %[" d "]\n\t vpxor %[" e "], %[" h "], %[" h "]\n\t"                                        \
    "vpshufb 128(%[m]), %[" d "], %[" d "]\n\t vpshufb 128(%[m]), %[" h "], %[" h "]\n\t"                                  \
    "vpaddd " c "(%[m]), %[" d "], %%ymm12\n\t vpaddd " g "(%[m]), %[" h "], %%ymm13\n\t"                                  \
    "vpxor %%ymm12, %[" b "], %[" b "]\n\t vpxor %%ymm13, %[" f "], %[" f "]\n\t"                                          \
    "vpslld $12, %[" b "], %%ymm14\n\t vpsrld $20, %[" b "], %[" b "]\n\t vpor %%ymm14, %[" b "], %[" b "]\n\t"            \
    "vpslld $12, %[" f "], %%ymm15\n\t vpsrld $20, %[" f "], %[" f "]\n\t vpor %%ymm15, %[" f "], %[" f "]\n\t"            \
    "vpaddd %[" b "], %[" a "], %[" a "]\n\t vpaddd %[" f "], %[" e "], %[" e "]\n\t"                                      \
    "vpxor %[" a "], %[" d "], %[" d "]\n\t vpxor %[" e "], %[" h "], %[" h "]\n\t"                                        \
    "vpshufb 160(%[m]), %[" d "], %[" d "]\n\t vpshufb 160(%[m]), %[" h "], %[" h "]\n\t"                                  \
    "vpaddd %%ymm12, %[" d "], %%ymm12\n\t vpaddd %%ymm13, %[" h "], %%ymm13\n\t"                                          \
    "vpxor %%ymm12, %[" b "], %[" b "]\n\t vpxor %%ymm13, %[" f "], %[" f "]\n\t"                                          \
    "vmovdqa %%ymm12, " c "(%[m])\n\t vmovdqa %%ymm13, " g "(%[m])\n\t"                                                    \
    "vpslld $7, %[" b "], %%ymm14\n\t vpsrld $25, %[" b "], %[" b "]\n\t vpor %%ymm14, %[" b "], %[" b "]\n\t"             \
    "vpslld $7, %[" f "], %%ymm15\n\t vpsrld $25, %[" f "], %[" f "]\n\t vpor %%ymm15, %[" f "], %[" f "]\n\t"
// Where the words of row c are.
#define MESH_C0 "0"
#define MESH_C1 "32"
#define MESH_C2 "64"
#define MESH_C3 "96"
#define MESH_ROUND(first, second)                                                                                          \
    __asm__(first second                                                                                                   \
            : [a0] "+x"(x[0]), [a1] "+x"(x[1]), [a2] "+x"(x[2]), [a3] "+x"(x[3]), [b0] "+x"(x[4]), [b1] "+x"(x[5]),        \
              [b2] "+x"(x[6]), [b3] "+x"(x[7]), [d0] "+x"(x[12]), [d1] "+x"(x[13]), [d2] "+x"(x[14]), [d3] "+x"(x[15])     \
            : [m] "r"(memory)                                                                                              \
            : "memory", "xmm12", "xmm13", "xmm14", "xmm15")

/// Word 12 (the block counter), 14 and 15 (the nonce) of 8 blocks.
struct Rows {
    Vec w12, w14, w15;
};

/// 8 blocks, word by word: vector w holds word w of all blocks, so a round needs no shuffles. `beside` is called 20 times
/// in between, `put` once per block with its number and both halves. The rounds are assembly because compilers keep the
/// wrong values in registers, which costs a quarter of the speed.
template <class Beside, class Put>
MESH_INLINE void blocks_by_word(const uint8_t* key, const Rows& rows, Beside beside, Put put) {
    uint32_t words[8];
    std::memcpy(words, key, sizeof words);
    Vec x[16];
    for (int i = 0; i < 4; ++i) x[i] = all(kConstants[i]);
    for (int i = 0; i < 4; ++i) x[4 + i] = all(words[i]);
    x[12] = rows.w12;
    x[13] = _mm256_setzero_si256();
    x[14] = rows.w14;
    x[15] = rows.w15;
    Vec memory[6] = {all(words[4]), all(words[5]), all(words[6]), all(words[7]), load_twice(kRotate16), load_twice(kRotate8)};
    for (int i = 0; i < 10; ++i) {
        MESH_ROUND(MESH_QUARTERS("a0", "b0", MESH_C0, "d0", "a1", "b1", MESH_C1, "d1"),
                   MESH_QUARTERS("a2", "b2", MESH_C2, "d2", "a3", "b3", MESH_C3, "d3"));
        beside();
        MESH_ROUND(MESH_QUARTERS("a0", "b1", MESH_C2, "d3", "a1", "b2", MESH_C3, "d0"),
                   MESH_QUARTERS("a2", "b3", MESH_C0, "d1", "a3", "b0", MESH_C1, "d2"));
        beside();
    }
    for (int i = 0; i < 4; ++i) x[i] = _mm256_add_epi32(x[i], all(kConstants[i]));
    for (int i = 0; i < 4; ++i) x[4 + i] = _mm256_add_epi32(x[4 + i], all(words[i]));
    for (int i = 0; i < 4; ++i) x[8 + i] = _mm256_add_epi32(memory[i], all(words[4 + i]));
    x[12] = _mm256_add_epi32(x[12], rows.w12);
    x[14] = _mm256_add_epi32(x[14], rows.w14);
    x[15] = _mm256_add_epi32(x[15], rows.w15);
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
        put(j, _mm256_permute2x128_si256(x[j], x[4 + j], 0x20), _mm256_permute2x128_si256(x[8 + j], x[12 + j], 0x20));
        put(4 + j, _mm256_permute2x128_si256(x[j], x[4 + j], 0x31), _mm256_permute2x128_si256(x[8 + j], x[12 + j], 0x31));
    }
}

void blocks_by_word(const uint8_t* key, const AeadLane* lanes, uint8_t* out) {
    const Vec l0 = load_two(lanes, lanes + 4), l1 = load_two(lanes + 1, lanes + 5), l2 = load_two(lanes + 2, lanes + 6),
              l3 = load_two(lanes + 3, lanes + 7);
    const Vec nonces01 = _mm256_unpackhi_epi32(l0, l1), nonces23 = _mm256_unpackhi_epi32(l2, l3);
    const Rows rows = {_mm256_unpacklo_epi64(_mm256_unpacklo_epi32(l0, l1), _mm256_unpacklo_epi32(l2, l3)),
                       _mm256_unpacklo_epi64(nonces01, nonces23), _mm256_unpackhi_epi64(nonces01, nonces23)};
    blocks_by_word(key, rows, []() __attribute__((always_inline)) {},
                   [out](int block, Vec low, Vec high) __attribute__((always_inline)) {
                       store(out + 64 * block, low);
                       store(out + 64 * block + 32, high);
                   });
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
// In the integer registers, which ChaCha20 leaves idle: a hash costs little when it runs beside the rounds. One hash is a
// chain of multiplications that wait for each other, so two of them side by side take hardly longer than one.

struct PolyKey {
    uint64_t r0, r1;
    uint64_t x5;  ///< r1 · 5/4: what r1 is worth at 2^128, as 2^130 = 5 (mod p)
};

/// A number below 2^131.
struct PolySum {
    uint64_t h0, h1, h2;

    /// h = (h + block + 2^128) · r, partly reduced. In assembly because compilers move 128-bit sums through memory.
    MESH_INLINE void add(const uint8_t* block, const PolyKey& r) {
        uint64_t d0, d1, d2, t0, t1;
        __asm__(
            "add   (%[block]), %[h0]\n\t"
            "adc   8(%[block]), %[h1]\n\t"
            "adc   $1, %[h2]\n\t"
            "mov   %[r0], %%rdx\n\t"  // d = h · r0
            "mulx  %[h0], %[d0], %[d1]\n\t"
            "mulx  %[h1], %[t0], %[d2]\n\t"
            "imul  %[h2], %%rdx\n\t"
            "add   %[t0], %[d1]\n\t"
            "adc   %%rdx, %[d2]\n\t"
            "mov   %[r1], %%rdx\n\t"  // + h0 · r1 · 2^64
            "mulx  %[h0], %[t0], %[t1]\n\t"
            "add   %[t0], %[d1]\n\t"
            "adc   %[t1], %[d2]\n\t"
            "mov   %[x5], %%rdx\n\t"  // + (h1 + h2 · 2^64) · r1 · 2^128
            "mulx  %[h1], %[h0], %[h1]\n\t"
            "imul  %[h2], %%rdx\n\t"
            "add   %[d0], %[h0]\n\t"
            "adc   %[d1], %[h1]\n\t"
            "adc   $0, %[d2]\n\t"
            "add   %%rdx, %[h1]\n\t"
            "adc   $0, %[d2]\n\t"
            "mov   %[d2], %[h2]\n\t"  // what is at 2^130 and above comes back times 5
            "shr   $2, %[d2]\n\t"
            "and   $3, %[h2]\n\t"
            "lea   (%[d2],%[d2],4), %[d2]\n\t"
            "add   %[d2], %[h0]\n\t"
            "adc   $0, %[h1]\n\t"
            "adc   $0, %[h2]"
            : [h0] "+&r"(h0), [h1] "+&r"(h1), [h2] "+&r"(h2), [d0] "=&r"(d0), [d1] "=&r"(d1), [d2] "=&r"(d2), [t0] "=&r"(t0),
              [t1] "=&r"(t1)
            : [block] "r"(block), [r0] "m"(r.r0), [r1] "m"(r.r1), [x5] "m"(r.x5),
              "m"(*reinterpret_cast<const uint8_t(*)[16]>(block))
            : "rdx", "cc");
    }
};

struct Poly {
    PolySum h;
    PolyKey r;
    uint8_t s[16];

    void start(const uint8_t* key) {
        h = {0, 0, 0};
        std::memcpy(&r.r0, key, 8);
        std::memcpy(&r.r1, key + 8, 8);
        std::memcpy(s, key + 16, 16);
        r.r0 &= 0x0ffffffc0fffffff;
        r.r1 &= 0x0ffffffc0ffffffc;
        r.x5 = r.r1 + (r.r1 >> 2);
    }
};

void hash_blocks(Poly& poly, const uint8_t* p, size_t n) {
    PolySum h = poly.h;
    const PolyKey r = poly.r;
    for (; n > 0; --n, p += 16) h.add(p, r);
    poly.h = h;
}

/// `n` blocks of each.
void hash_blocks(Poly& poly_a, const uint8_t* a, Poly& poly_b, const uint8_t* b, size_t n) {
    PolySum ha = poly_a.h, hb = poly_b.h;
    const PolyKey ra = poly_a.r, rb = poly_b.r;
    for (; n > 0; --n, a += 16, b += 16) {
        ha.add(a, ra);
        hb.add(b, rb);
    }
    poly_a.h = ha;
    poly_b.h = hb;
}

/// The last `n` < 16 bytes of a text of `len` bytes, its length, and the end.
void hash_end(Poly& poly, const uint8_t* rest, size_t n, size_t len, uint8_t tag[16]) {
    uint8_t last[32] = {};
    if (n > 0) std::memcpy(last, rest, n);
    const uint64_t lengths[2] = {0, len};
    std::memcpy(last + 16, lengths, 16);
    hash_blocks(poly, last + (n > 0 ? 0 : 16), n > 0 ? 2 : 1);
    constexpr uint64_t kMask44 = (uint64_t{1} << 44) - 1;
    const PolySum& h = poly.h;
    AeadFinish<Local>::tag(tag, h.h0 & kMask44, (h.h0 >> 44 | h.h1 << 20) & kMask44, h.h1 >> 24 | h.h2 << 40, poly.s);
}

// ---- both ------------------------------------------------------------------------------------------------------------

/// A place in a packet, where its cipher and its hash go on.
struct Place {
    const uint8_t* src;
    uint8_t* dst;
    uint64_t counter;
    uint32_t block;
    Poly* poly;
};

/// Ciphertext to be hashed beside the next rounds: `steps` times 16 bytes of each of two packets, or 32 bytes of one.
struct Pending {
    Poly *poly_a, *poly_b;
    const uint8_t *a, *b;
    size_t steps = 0;
};

constexpr size_t kHalf = 256;  ///< bytes that half the lanes make
constexpr size_t kSteps = kHalf / 16;

/// `turns` times 256 bytes of each of two packets, or, as kOne, 512 bytes of one (a; b is ignored). What is hashed beside
/// the rounds is, in opening, the ciphertext they are about to decrypt; in sealing, that of the turn before, so that the
/// last one is left in `pending`.
template <bool kSeal, bool kOne>
void long_run(const uint8_t* key, Place a, Place b, size_t turns, Pending& pending) {
    if constexpr (kOne) b = {a.src + kHalf, a.dst + kHalf, a.counter, a.block + 4, a.poly};
    constexpr size_t kStride = kOne ? 2 * kHalf : kHalf;
    const auto both = [](uint32_t low, uint32_t high) __attribute__((always_inline)) {
        return _mm256_blend_epi32(all(low), all(high), 0xf0);
    };
    Rows rows = {_mm256_add_epi32(both(a.block, b.block), _mm256_setr_epi32(0, 1, 2, 3, 0, 1, 2, 3)),
                 both(static_cast<uint32_t>(a.counter), static_cast<uint32_t>(b.counter)),
                 both(static_cast<uint32_t>(a.counter >> 32), static_cast<uint32_t>(b.counter >> 32))};
    for (; turns > 0; --turns) {
        if constexpr (!kSeal) pending = {a.poly, b.poly, a.src, b.src, kSteps};
        PolySum ha = pending.poly_a->h, hb = pending.poly_b->h;
        const PolyKey ra = pending.poly_a->r, rb = pending.poly_b->r;
        const uint8_t *pa = pending.a, *pb = pending.b;
        size_t steps = pending.steps;
        const auto beside = [&]() __attribute__((always_inline)) {
            if (steps == 0) return;
            --steps;
            ha.add(pa, ra);
            pa += 16;
            if constexpr (kOne) {
                ha.add(pa, ra);
                pa += 16;
            } else {
                hb.add(pb, rb);
                pb += 16;
            }
        };
        const auto put = [&](int block, Vec low, Vec high) __attribute__((always_inline)) {
            const Place& to = block < 4 ? a : b;
            const int at = 64 * (block % 4);
            const Vec first = _mm256_xor_si256(load(to.src + at), low), second = _mm256_xor_si256(load(to.src + at + 32), high);
            store(to.dst + at, first);
            store(to.dst + at + 32, second);
        };
        static_assert(kSteps <= 20, "the ciphertext is hashed before it is decrypted in place");
        blocks_by_word(key, rows, beside, put);
        pending.poly_a->h = ha;
        if constexpr (!kOne) pending.poly_b->h = hb;
        pending = {a.poly, b.poly, a.dst, b.dst, kSeal ? kSteps : 0};
        a.src += kStride;
        a.dst += kStride;
        b.src += kStride;
        b.dst += kStride;
        rows.w12 = _mm256_add_epi32(rows.w12, all(kStride / 64));
    }
}

template <bool kOne>
void hash_pending(Pending& pending) {
    if constexpr (kOne)
        hash_blocks(*pending.poly_a, pending.a, 2 * pending.steps);
    else
        hash_blocks(*pending.poly_a, pending.a, *pending.poly_b, pending.b, pending.steps);
    pending.steps = 0;
}

struct Engine {
    static constexpr size_t kLanes = 8;

    /// Hashes and how many bytes of each packet are done, a multiple of 64.
    struct Progress {
        Poly poly[kLanes];
        size_t done[kLanes] = {};
    };

    static void start(Progress& progress, const uint8_t* keys, size_t count) {
        for (size_t i = 0; i < count; ++i) progress.poly[i].start(keys + 64 * i);
    }
    /// A packet by itself begins to gain at the second turn: in sealing there is nothing to hash beside the first.
    static bool has_long(const AeadJob* jobs, size_t count) {
        for (size_t i = 0; i < count; ++i)
            if (jobs[i].len >= (count == 1 ? 4 : 2) * kHalf) return true;
        return false;
    }
    template <bool kSeal>
    static void long_runs(const uint8_t* key, const AeadJob* jobs, size_t count, Progress& progress) {
        size_t* const done = progress.done;
        const auto place = [&](size_t i) -> Place {
            return {jobs[i].src + done[i], jobs[i].dst + done[i], jobs[i].counter, static_cast<uint32_t>(done[i] / 64 + 1),
                    &progress.poly[i]};
        };
        Pending pending{&progress.poly[0], &progress.poly[0], nullptr, nullptr, 0};
        size_t other = count;  // the long packet that waits for a second one
        for (size_t i = 0; i < count; ++i) {
            if (jobs[i].len < kHalf) continue;
            if (other == count) {
                other = i;
                continue;
            }
            const size_t turns = (jobs[other].len < jobs[i].len ? jobs[other].len : jobs[i].len) / kHalf;
            long_run<kSeal, false>(key, place(other), place(i), turns, pending);
            done[other] = done[i] = turns * kHalf;
            other = count;
        }
        if (pending.steps > 0) hash_pending<false>(pending);
        for (size_t i = 0; i < count; ++i) {
            const size_t turns = (jobs[i].len - done[i]) / (2 * kHalf);
            if (turns < 2) continue;
            long_run<kSeal, true>(key, place(i), {}, turns, pending);
            if (pending.steps > 0) hash_pending<true>(pending);
            done[i] += turns * 2 * kHalf;
        }
    }

    /// A packet of about an MTU: all its blocks 8 at a time, the one that gives the hash its key among the first, and the
    /// hash beside the others. It is opened after it has been authenticated.
    template <bool kSeal>
    static bool alone(const uint8_t* key, AeadJob& job) {
        constexpr size_t kTurns = 3, kTurn = 64 * kLanes, kFirst = kTurn - 64;
        if (job.len <= kFirst || job.len > kTurns * kTurn - 64) return false;
        alignas(64) uint8_t stream[kTurns * kTurn];
        const uint8_t* const text = kSeal ? job.dst : job.src;
        Poly poly;
        Rows rows = {_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), all(static_cast<uint32_t>(job.counter)),
                     all(static_cast<uint32_t>(job.counter >> 32))};
        blocks_by_word(key, rows, []() __attribute__((always_inline)) {},
                       [&](int block, Vec low, Vec high) __attribute__((always_inline)) {
                           store(stream + 64 * block, low);
                           store(stream + 64 * block + 32, high);
                       });
        poly.start(stream);
        if constexpr (kSeal) add_many(job.dst, job.src, stream + 64, kFirst);
        size_t hashed = 0, made = kFirst;  // bytes of the packet
        for (; made < job.len; made += kTurn) {
            rows.w12 = _mm256_add_epi32(rows.w12, all(kLanes));
            const uint8_t* const end = text + (kSeal ? made : job.len);
            const uint8_t* at = text + hashed;
            PolySum h = poly.h;
            const PolyKey r = poly.r;
            const auto beside = [&]() __attribute__((always_inline)) {
                if (end - at < 32) return;
                h.add(at, r);
                h.add(at + 16, r);
                at += 32;
            };
            uint8_t* const to = stream + 64 + made;
            blocks_by_word(key, rows, beside, [to](int block, Vec low, Vec high) __attribute__((always_inline)) {
                store(to + 64 * block, low);
                store(to + 64 * block + 32, high);
            });
            poly.h = h;
            hashed = static_cast<size_t>(at - text);
            if constexpr (kSeal) add_many(job.dst + made, job.src + made, to, job.len - made < kTurn ? job.len - made : kTurn);
        }
        const size_t rest = (job.len - hashed) / 16;
        hash_blocks(poly, text + hashed, rest);
        uint8_t tag[16];
        hash_end(poly, text + hashed + 16 * rest, job.len % 16, job.len, tag);
        if constexpr (kSeal) {
            job.ok = true;
            std::memcpy(job.dst + job.len, tag, sizeof tag);
        } else {
            job.ok = AeadFinish<Local>::equal(tag, job.src + job.len);
            MESH_AEAD_PUBLIC(job.ok);
            if (job.ok) add_many(job.dst, job.src, stream + 64, job.len);
        }
        aead_wipe<Local>(stream, sizeof stream);
        aead_wipe<Local>(&poly, sizeof poly);
        return true;
    }

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
    static void add_many(uint8_t* dst, const uint8_t* src, const uint8_t* keystream, size_t n) {
        for (; n >= 64; n -= 64, dst += 64, src += 64, keystream += 64) add(dst, src, keystream);
        add_some(dst, src, keystream, n);
    }
    static void tags(uint8_t* out, Progress& progress, const AeadText* texts, size_t count) {
        const auto rest = [&](size_t i) { return texts[i].data + progress.done[i]; };
        const auto whole = [&](size_t i) { return (texts[i].len - progress.done[i]) / 16; };
        for (size_t i = 0; i < count; i += 2) {
            size_t together = 0;
            if (i + 1 < count) {
                together = whole(i) < whole(i + 1) ? whole(i) : whole(i + 1);
                hash_blocks(progress.poly[i], rest(i), progress.poly[i + 1], rest(i + 1), together);
            }
            for (size_t k = i; k < count && k < i + 2; ++k) {
                hash_blocks(progress.poly[k], rest(k) + 16 * together, whole(k) - together);
                hash_end(progress.poly[k], rest(k) + 16 * whole(k), texts[k].len % 16, texts[k].len, out + 16 * k);
            }
        }
    }
};

}  // namespace

constinit const AeadFunctions kAeadAvx2 = {AeadSchedule<Engine>::run<true>, AeadSchedule<Engine>::run<false>};

}  // namespace mesh::crypto
