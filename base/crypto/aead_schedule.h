// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// How the vector engines fill their lanes. All ChaCha20 blocks of a group of packets form one list: first block 0 of
/// each, which gives the Poly1305 keys, then the blocks of data, packet by packet. The list is computed kLanes blocks at
/// a time, so that only its very end leaves lanes empty.
///
/// An engine may take the long packets first and run through as much of them as fills its lanes (`long_runs`), with the
/// hash beside the cipher; the list then has what is left of them. Opening so decrypts bytes before the tag has been seen:
/// if that is wrong, all of dst becomes zeros before the call returns. Without long runs all packets of the group are
/// authenticated before the first byte of any is decrypted.
///
/// `Engine` lives in an unnamed namespace, so instances of this are local to their translation unit. It offers
///   kLanes                                       blocks at once, also the packets of a group
///   keystream(key, lanes, count, out)            `count` ≤ kLanes blocks of 64 bytes; may write up to kLanes
///   add(dst, src, keystream)                     64 bytes
///   add_some(dst, src, keystream, n)             n < 64 bytes
///   tags(out, keys, texts, count)                Poly1305 of each text, padding and the two lengths; 16 bytes each.
///                                                Keys are 64 bytes apart; kLanes may be read
/// and, if it has long runs, `Progress` with the hashes begun and how many bytes of each packet are `done`, and
///   has_long(jobs, count)                        whether there is something to run through
///   start(progress, keys, count)                 always; before
///   long_runs<kSeal>(key, jobs, count, progress) hashes and writes a multiple of 64 bytes of each packet
///   tags(out, progress, texts, count)            in place of the other; what is done is hashed already
/// and, if it knows a shorter way for one packet that is by itself,
///   alone<kSeal>(key, job)                       does all of it and sets job.ok; false: the packet is not of that kind

#include <cstring>

#include "base/crypto/aead_engine.h"

// Where something that was computed from secrets becomes public; says so to memcheck (aead_secrets_test.cc), else nothing.
#ifdef MESH_UNDER_MEMCHECK
#include <valgrind/memcheck.h>
#define MESH_AEAD_PUBLIC(value) (void)VALGRIND_MAKE_MEM_DEFINED(&(value), sizeof(value))
#else
#define MESH_AEAD_PUBLIC(value)
#endif

namespace mesh::crypto {

/// Row 3 of ChaCha20's state (RFC 8439, 2.3): block counter and nonce.
struct alignas(16) AeadLane {
    uint32_t block;
    uint32_t zero;
    uint32_t nonce[2];
};

/// What is authenticated of one packet.
struct AeadText {
    const uint8_t* data;
    size_t len;
};

template <class Local>
void aead_wipe(void* p, size_t n) {
    __asm__("" : "+r"(n));  // memset() itself is faster than what GCC makes of one with a known size
    std::memset(p, 0, n);
    __asm__ __volatile__("" : : "r"(p) : "memory");
}

/// The end of Poly1305. `Local` is any type of an unnamed namespace, for the same reason as Engine below.
template <class Local>
struct AeadFinish {
    /// ((h0 + h1 2^44 + h2 2^88) mod 2^130 - 5) + s mod 2^128. All limbs below 2^50.
    static void tag(uint8_t out[16], uint64_t h0, uint64_t h1, uint64_t h2, const uint8_t s_bytes[16]) {
        constexpr uint64_t kMask44 = (uint64_t{1} << 44) - 1;
        constexpr uint64_t kMask42 = (uint64_t{1} << 42) - 1;
        uint64_t s[2];
        std::memcpy(s, s_bytes, 16);
        h1 += h0 >> 44;
        h0 &= kMask44;
        h2 += h1 >> 44;
        h1 &= kMask44;
        h0 += 5 * (h2 >> 42);
        h2 &= kMask42;
        h1 += h0 >> 44;
        h0 &= kMask44;
        h2 += h1 >> 44;
        h1 &= kMask44;
        // h - p, if that is not negative.
        uint64_t g0 = h0 + 5;
        uint64_t g1 = h1 + (g0 >> 44);
        const uint64_t g2 = h2 + (g1 >> 44) - (uint64_t{1} << 42);
        g0 &= kMask44;
        g1 &= kMask44;
        const uint64_t keep = 0 - (g2 >> 63);
        h0 = (h0 & keep) | (g0 & ~keep);
        h1 = (h1 & keep) | (g1 & ~keep);
        h2 = (h2 & keep) | (g2 & ~keep);
        const uint64_t low = h0 | h1 << 44, high = h1 >> 20 | h2 << 24;
        uint64_t t[2];
        t[0] = low + s[0];
        t[1] = high + s[1] + static_cast<uint64_t>(t[0] < low);
        std::memcpy(out, t, 16);
    }

    static bool equal(const uint8_t a[16], const uint8_t b[16]) {
        uint64_t x[2], y[2];
        std::memcpy(x, a, 16);
        std::memcpy(y, b, 16);
        return ((x[0] ^ y[0]) | (x[1] ^ y[1])) == 0;
    }
};

/// For an engine without long runs.
template <class Engine>
struct AeadProgress {
    static constexpr bool kLongRuns = false;
    size_t done[Engine::kLanes] = {};
};
template <class Engine>
    requires requires { typename Engine::Progress; }
struct AeadProgress<Engine> : Engine::Progress {
    static constexpr bool kLongRuns = true;
};

template <class Engine>
struct AeadSchedule {
    static constexpr size_t kLanes = Engine::kLanes;
    static constexpr size_t kBlock = 64;
    static constexpr size_t kTag = 16;

    /// A run of blocks of one packet within the lanes.
    struct Piece {
        size_t job, offset, lane, blocks;
    };

    struct Cursor {
        AeadJob* jobs;
        size_t count;
        const size_t* done;  ///< bytes of each packet to leave out
        size_t job = 0;
        size_t offset = 0;

        /// Fills lanes from `used` on with the next blocks of data. Returns how many lanes are in use then.
        size_t take(AeadLane* lanes, size_t used, Piece* pieces, size_t& piece_count) {
            piece_count = 0;
            while (used < kLanes && job < count) {
                const AeadJob& j = jobs[job];
                if (offset < done[job]) offset = done[job];
                if (!j.ok || offset >= j.len) {
                    ++job;
                    offset = 0;
                    continue;
                }
                const size_t left = (j.len - offset + kBlock - 1) / kBlock;
                const size_t blocks = left < kLanes - used ? left : kLanes - used;
                pieces[piece_count++] = {job, offset, used, blocks};
                for (size_t i = 0; i < blocks; ++i)
                    set_lane(lanes[used + i], j.counter, static_cast<uint32_t>(offset / kBlock + 1 + i));
                used += blocks;
                offset += blocks * kBlock;
            }
            return used;
        }
    };

    static void set_lane(AeadLane& lane, uint64_t counter, uint32_t block) {
        lane = {block, 0, {static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32)}};
    }

    static void apply(const AeadJob* jobs, const Piece* pieces, size_t count, const uint8_t* keystream) {
        for (size_t p = 0; p < count; ++p) {
            const Piece& piece = pieces[p];
            const AeadJob& j = jobs[piece.job];
            if (!j.ok) continue;
            const uint8_t* ks = keystream + piece.lane * kBlock;
            const uint8_t* src = j.src + piece.offset;
            uint8_t* dst = j.dst + piece.offset;
            const size_t bytes = j.len - piece.offset;
            const size_t whole = bytes / kBlock < piece.blocks ? bytes / kBlock : piece.blocks;
            for (size_t i = 0; i < whole; ++i) Engine::add(dst + i * kBlock, src + i * kBlock, ks + i * kBlock);
            if (whole < piece.blocks)
                Engine::add_some(dst + whole * kBlock, src + whole * kBlock, ks + whole * kBlock, bytes - whole * kBlock);
        }
    }

    template <bool kSeal>
    static void group(const uint8_t* key, AeadJob* jobs, size_t count) {
        alignas(64) uint8_t first[kLanes * kBlock];
        alignas(64) uint8_t more[kLanes * kBlock];
        alignas(64) AeadLane lanes[kLanes] = {};
        Piece pieces[kLanes];
        size_t piece_count = 0;
        bool used_more = false;
        for (size_t i = 0; i < count; ++i) {
            set_lane(lanes[i], jobs[i].counter, 0);
            jobs[i].ok = true;
        }
        AeadProgress<Engine> progress;
        bool has_long = false;
        if constexpr (progress.kLongRuns) has_long = Engine::has_long(jobs, count);
        Cursor cursor{jobs, count, progress.done};
        const size_t used = has_long ? count : cursor.take(lanes, count, pieces, piece_count);
        Engine::keystream(key, lanes, used, first);
        if constexpr (progress.kLongRuns) {
            Engine::start(progress, first, count);
            if (has_long) Engine::template long_runs<kSeal>(key, jobs, count, progress);
        }
        AeadText texts[kLanes];
        uint8_t tags[kLanes * kTag];
        for (size_t i = 0; i < count; ++i) texts[i] = {kSeal ? jobs[i].dst : jobs[i].src, jobs[i].len};
        const auto compute_tags = [&] {
            if constexpr (progress.kLongRuns)
                Engine::tags(tags, progress, texts, count);
            else
                Engine::tags(tags, first, texts, count);
        };
        if constexpr (!kSeal) {
            compute_tags();
            for (size_t i = 0; i < count; ++i) {
                jobs[i].ok = AeadFinish<Engine>::equal(tags + i * kTag, jobs[i].src + jobs[i].len);
                MESH_AEAD_PUBLIC(jobs[i].ok);
                if (!jobs[i].ok && progress.done[i] > 0) std::memset(jobs[i].dst, 0, jobs[i].len);
            }
        }
        apply(jobs, pieces, piece_count, first);
        while (const size_t n = cursor.take(lanes, 0, pieces, piece_count)) {
            Engine::keystream(key, lanes, n, more);
            apply(jobs, pieces, piece_count, more);
            used_more = true;
        }
        if constexpr (kSeal) {
            compute_tags();
            for (size_t i = 0; i < count; ++i) std::memcpy(jobs[i].dst + jobs[i].len, tags + i * kTag, kTag);
        }
        aead_wipe<Engine>(first, sizeof first);
        if constexpr (progress.kLongRuns) aead_wipe<Engine>(&progress, sizeof progress);
        if (used_more) aead_wipe<Engine>(more, sizeof more);
    }

    template <bool kSeal>
    static void run(const uint8_t key[32], AeadJob* jobs, size_t count) {
        for (; count > kLanes; jobs += kLanes, count -= kLanes) group<kSeal>(key, jobs, kLanes);
        if constexpr (requires { Engine::template alone<kSeal>(key, *jobs); })
            if (count == 1 && Engine::template alone<kSeal>(key, *jobs)) return;
        if (count > 0) group<kSeal>(key, jobs, count);
    }
};

}  // namespace mesh::crypto
