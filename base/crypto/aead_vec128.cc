// SPDX-License-Identifier: BSD-3-Clause
// ChaCha20-Poly1305 with the 128-bit vectors that every 64-bit ARM (NEON) and x86 (SSE2) processor has, in the compiler's own
// vector types: one source for both, and for what else has such vectors and 64-bit multiplication.
#include "base/crypto/aead_schedule.h"

#ifdef __aarch64__
#include <arm_neon.h>
#endif

namespace mesh::crypto {
namespace {

#define MESH_INLINE inline __attribute__((always_inline))

struct Local;
using Vec = uint32_t __attribute__((vector_size(16)));
using Pair = uint64_t __attribute__((vector_size(16)));

MESH_INLINE Vec load(const void* p) {
    Vec v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
MESH_INLINE void store(void* p, Vec v) { std::memcpy(p, &v, sizeof v); }
MESH_INLINE Vec all(uint32_t v) { return Vec{v, v, v, v}; }

// ---- ChaCha20 ----------------------------------------------------------------------------------------------------------

constexpr uint32_t kConstants[4] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};  // RFC 8439, 2.3

template <int kBits>
MESH_INLINE Vec rotate(Vec v) {
#ifdef __aarch64__
    if constexpr (kBits == 16) return reinterpret_cast<Vec>(vrev32q_u16(reinterpret_cast<uint16x8_t>(v)));
    return reinterpret_cast<Vec>(vsriq_n_u32(vshlq_n_u32(reinterpret_cast<uint32x4_t>(v), kBits), reinterpret_cast<uint32x4_t>(v), 32 - kBits));
#else
    return v << kBits | v >> (32 - kBits);
#endif
}

MESH_INLINE void quarter(Vec& a, Vec& b, Vec& c, Vec& d) {  // RFC 8439, 2.1
    a += b;
    d = rotate<16>(d ^ a);
    c += d;
    b = rotate<12>(b ^ c);
    a += b;
    d = rotate<8>(d ^ a);
    c += d;
    b = rotate<7>(b ^ c);
}

/// Rows become columns.
MESH_INLINE void transpose(Vec& a, Vec& b, Vec& c, Vec& d) {
    const auto low = [](Vec x, Vec y) { return reinterpret_cast<Pair>(__builtin_shufflevector(x, y, 0, 4, 1, 5)); };
    const auto high = [](Vec x, Vec y) { return reinterpret_cast<Pair>(__builtin_shufflevector(x, y, 2, 6, 3, 7)); };
    const Pair ab = low(a, b), cd = low(c, d), ab2 = high(a, b), cd2 = high(c, d);
    a = reinterpret_cast<Vec>(__builtin_shufflevector(ab, cd, 0, 2));
    b = reinterpret_cast<Vec>(__builtin_shufflevector(ab, cd, 1, 3));
    c = reinterpret_cast<Vec>(__builtin_shufflevector(ab2, cd2, 0, 2));
    d = reinterpret_cast<Vec>(__builtin_shufflevector(ab2, cd2, 1, 3));
}

/// Four blocks; a vector holds the same word of each.
void blocks(const uint8_t* key, const AeadLane* lanes, uint8_t* out) {
    uint32_t k[8];
    std::memcpy(k, key, sizeof k);
    Vec l0 = load(lanes), l1 = load(lanes + 1), l2 = load(lanes + 2), l3 = load(lanes + 3);
    transpose(l0, l1, l2, l3);
    Vec x[16];
    for (int i = 0; i < 4; ++i) x[i] = all(kConstants[i]);
    for (int i = 0; i < 8; ++i) x[4 + i] = all(k[i]);
    x[12] = l0;
    x[13] = l1;
    x[14] = l2;
    x[15] = l3;
    for (int i = 0; i < 10; ++i) {
        quarter(x[0], x[4], x[8], x[12]);
        quarter(x[1], x[5], x[9], x[13]);
        quarter(x[2], x[6], x[10], x[14]);
        quarter(x[3], x[7], x[11], x[15]);
        quarter(x[0], x[5], x[10], x[15]);
        quarter(x[1], x[6], x[11], x[12]);
        quarter(x[2], x[7], x[8], x[13]);
        quarter(x[3], x[4], x[9], x[14]);
    }
    for (int i = 0; i < 4; ++i) x[i] += all(kConstants[i]);
    for (int i = 0; i < 8; ++i) x[4 + i] += all(k[i]);
    x[12] += l0;
    x[13] += l1;
    x[14] += l2;
    x[15] += l3;
    for (int j = 0; j < 16; j += 4) {
        transpose(x[j], x[j + 1], x[j + 2], x[j + 3]);
        for (int b = 0; b < 4; ++b) store(out + 64 * b + 4 * j, x[j + b]);
    }
}

// ---- Poly1305 ----------------------------------------------------------------------------------------------------------

__extension__ using Wide = unsigned __int128;

MESH_INLINE uint64_t low(Wide v) { return static_cast<uint64_t>(v); }
MESH_INLINE uint64_t high(Wide v) { return static_cast<uint64_t>(v >> 64); }

/// A hash under way: h below 2^130 and a bit, in 64, 64 and 3 bits.
struct Poly {
    uint64_t h0 = 0, h1 = 0, h2 = 0;
    uint64_t r0, r1;
    uint64_t x5;  ///< r1 · 5/4: what r1 is worth at 2^128, as 2^130 = 5 (mod p)
    uint8_t s[16];

    explicit Poly(const uint8_t* key) {
        std::memcpy(&r0, key, 8);
        std::memcpy(&r1, key + 8, 8);
        std::memcpy(s, key + 16, 16);
        r0 &= 0x0ffffffc0fffffff;
        r1 &= 0x0ffffffc0ffffffc;
        x5 = r1 + (r1 >> 2);
    }
    /// h = (h + block + 2^128) · r, partly reduced.
    MESH_INLINE void add(const uint8_t* block) {
        uint64_t m0, m1;
        std::memcpy(&m0, block, 8);
        std::memcpy(&m1, block + 8, 8);
        Wide t = Wide{h0} + m0;
        h0 = low(t);
        t = Wide{h1} + m1 + high(t);
        h1 = low(t);
        h2 += high(t) + 1;
        const Wide d0 = Wide{h0} * r0 + Wide{h1} * x5;
        const Wide d1 = Wide{h0} * r1 + Wide{h1} * r0 + h2 * x5 + high(d0);
        const uint64_t d2 = h2 * r0 + high(d1);
        t = Wide{low(d0)} + (d2 >> 2) * 5;
        h0 = low(t);
        t = Wide{low(d1)} + high(t);
        h1 = low(t);
        h2 = (d2 & 3) + high(t);
    }
    /// The last `n` < 16 bytes of a text of `len` bytes, its length, and the end.
    void finish(const uint8_t* rest, size_t n, size_t len, uint8_t tag[16]) {
        uint8_t last[16] = {};
        if (n > 0) {
            std::memcpy(last, rest, n);
            add(last);
        }
        const uint64_t lengths[2] = {0, len};
        std::memcpy(last, lengths, 16);
        add(last);
        constexpr uint64_t kMask44 = (uint64_t{1} << 44) - 1;
        AeadFinish<Local>::tag(tag, h0 & kMask44, (h0 >> 44 | h1 << 20) & kMask44, h1 >> 24 | h2 << 40, s);
    }
};

struct Engine {
    static constexpr size_t kLanes = 4;

    static void keystream(const uint8_t* key, const AeadLane* lanes, size_t, uint8_t* out) { blocks(key, lanes, out); }
    static MESH_INLINE void add(uint8_t* dst, const uint8_t* src, const uint8_t* keystream) {
        for (size_t i = 0; i < 64; i += 16) store(dst + i, load(src + i) ^ load(keystream + i));
    }
    static MESH_INLINE void add_some(uint8_t* dst, const uint8_t* src, const uint8_t* keystream, size_t n) {
        for (; n >= 16; n -= 16, dst += 16, src += 16, keystream += 16) store(dst, load(src) ^ load(keystream));
        for (size_t i = 0; i < n; ++i) dst[i] = static_cast<uint8_t>(src[i] ^ keystream[i]);
    }
    /// Two side by side: one hash is a chain of multiplications that wait for each other.
    static void tags(uint8_t* out, const uint8_t* keys, const AeadText* texts, size_t count) {
        for (size_t i = 0; i < count; i += 2) {
            const size_t next = i + 1 < count ? i + 1 : i;
            Poly a(keys + 64 * i), b(keys + 64 * next);
            const uint8_t *pa = texts[i].data, *pb = texts[next].data;
            size_t na = texts[i].len / 16, nb = next != i ? texts[next].len / 16 : 0;
            for (; na > 0 && nb > 0; --na, --nb, pa += 16, pb += 16) {
                a.add(pa);
                b.add(pb);
            }
            for (; na > 0; --na, pa += 16) a.add(pa);
            for (; nb > 0; --nb, pb += 16) b.add(pb);
            a.finish(pa, texts[i].len % 16, texts[i].len, out + 16 * i);
            if (next != i) b.finish(pb, texts[next].len % 16, texts[next].len, out + 16 * next);
            aead_wipe<Engine>(&a, sizeof a);
            aead_wipe<Engine>(&b, sizeof b);
        }
    }
};

}  // namespace

constinit const AeadFunctions kAeadVec128 = {AeadSchedule<Engine>::run<true>, AeadSchedule<Engine>::run<false>};

}  // namespace mesh::crypto
