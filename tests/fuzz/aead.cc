// SPDX-License-Identifier: BSD-3-Clause
// All engines of the packet AEAD must say the same, whatever the lengths, alignments, counters and sharing of a batch.
// Input: one byte of alignments, 8 of counter, one of packet count, then lengths (two bytes each, up to 16 packets), the
// rest is key and text, repeated as needed.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "base/crypto/aead_stream.h"
#include "tests/fuzz/growth.h"

using mesh::ByteSpan;
using mesh::Bytes;
using mesh::WireReader;
using mesh::crypto::AeadEngine;
using mesh::crypto::AeadJob;
using mesh::crypto::AeadStream;
using mesh::crypto::Key32;
using mesh::crypto::kTagLen;

namespace {

void demand(bool ok) {
    if (!ok) std::abort();
}

void fill(mesh::MutByteSpan out, ByteSpan from) {
    for (size_t i = 0; i < out.size(); ++i) out[i] = from.empty() ? 0 : from[i % from.size()];
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static const bool tested = mesh::crypto::aead_usable(AeadEngine::kSodium);  // the engines test themselves at first use
    demand(tested);
    mesh::fuzz::equipment_ready();
    WireReader in({data, size});
    const uint8_t align = in.u8();
    const uint64_t counter = in.be64();
    std::vector<size_t> lens(1 + in.u8() % 16);
    for (size_t& len : lens) len = in.be16() % 3000;
    const ByteSpan text = in.rest();
    Key32 key;
    fill(key, text);

    size_t room = 0;
    for (const size_t len : lens) room += len + kTagLen;
    const size_t src_off = align & 15, dst_off = align >> 4;
    mesh::fuzz::allow_growth(5 * (room + 15));  // the batch is made here, from ten bytes, and copied for each engine
    // Exact sizes, so that a sanitizer sees a step too far.
    Bytes plain(src_off + room), want(dst_off + room);
    fill(plain, text);
    const auto jobs_over = [&](const uint8_t* src, uint8_t* dst) {
        std::vector<AeadJob> jobs;
        size_t at = 0;
        for (size_t i = 0; i < lens.size(); ++i) {
            jobs.push_back({src + at, dst + at, lens[i], counter + i, false});
            at += lens[i] + kTagLen;
        }
        return jobs;
    };
    auto reference = jobs_over(plain.data() + src_off, want.data() + dst_off);
    AeadStream(key, AeadEngine::kSodium).seal(reference);

    for (const AeadEngine engine : {AeadEngine::kVec128, AeadEngine::kAvx2, AeadEngine::kAvx512}) {
        if (!aead_usable(engine)) continue;
        const AeadStream stream(key, engine);
        Bytes sealed(dst_off + room);
        auto jobs = jobs_over(plain.data() + src_off, sealed.data() + dst_off);
        stream.seal(jobs);
        demand(sealed == want);

        // One by one and in place.
        Bytes alone(want);
        size_t at = dst_off;
        for (size_t i = 0; i < lens.size(); ++i) {
            const ByteSpan one(alone.data() + at, lens[i] + kTagLen);
            demand(stream.open(alone.data() + at, one, counter + i));
            demand(std::equal(one.begin(), one.end() - kTagLen, plain.data() + src_off + (at - dst_off)));
            at += one.size();
        }
        // Together, one of them forged.
        const size_t victim = counter % lens.size(), bit = align + size;
        jobs = jobs_over(sealed.data() + dst_off, sealed.data() + dst_off);
        const size_t begin = static_cast<size_t>(jobs[victim].src - sealed.data());
        sealed[begin + bit % (lens[victim] + kTagLen)] ^= static_cast<uint8_t>(1U << bit % 8);
        stream.open(jobs);
        for (size_t i = 0; i < jobs.size(); ++i) {
            demand(jobs[i].ok == (i != victim));
            if (!jobs[i].ok) continue;
            const size_t from = src_off + static_cast<size_t>(jobs[i].src - sealed.data()) - dst_off;
            demand(std::equal(jobs[i].dst, jobs[i].dst + lens[i], plain.data() + from));
        }
    }
    return 0;
}
