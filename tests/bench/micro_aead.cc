// SPDX-License-Identifier: BSD-3-Clause
// Sealing and opening of packets by each engine: time per packet, one by one and in batches of 32.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "base/crypto/aead_stream.h"

namespace {

using mesh::Bytes;
using mesh::crypto::AeadEngine;
using mesh::crypto::AeadJob;
using mesh::crypto::AeadStream;
using mesh::crypto::Key32;
using mesh::crypto::kTagLen;

constexpr size_t kBatch = 32;

void seal_one(benchmark::State& state, AeadEngine engine, size_t len) {
    const AeadStream stream(Key32{1, 2, 3}, engine);
    Bytes packet(len + kTagLen);
    uint64_t counter = 0;
    for (auto _ : state) {
        stream.seal(packet.data(), {packet.data(), len}, counter++);
        benchmark::ClobberMemory();
    }
    state.SetBytesProcessed(static_cast<int64_t>(len) * static_cast<int64_t>(state.iterations()));
}

void open_one(benchmark::State& state, AeadEngine engine, size_t len) {
    const AeadStream stream(Key32{1, 2, 3}, engine);
    Bytes packet(len + kTagLen), out(len);
    stream.seal(packet.data(), {packet.data(), len}, 7);
    for (auto _ : state) {
        if (!stream.open(out.data(), packet, 7)) state.SkipWithError("refused");
        benchmark::ClobberMemory();
    }
    state.SetBytesProcessed(static_cast<int64_t>(len) * static_cast<int64_t>(state.iterations()));
}

/// Time and bytes are per packet: KeepRunningBatch counts kBatch iterations a turn.
template <bool kSeal>
void batch(benchmark::State& state, AeadEngine engine, size_t len) {
    const AeadStream stream(Key32{1, 2, 3}, engine);
    const size_t slot = len + kTagLen + 16;
    Bytes memory(kBatch * slot), out(kBatch * slot);
    std::vector<AeadJob> jobs;
    for (size_t i = 0; i < kBatch; ++i) jobs.push_back({memory.data() + i * slot, memory.data() + i * slot, len, i, false});
    if (!kSeal) {
        stream.seal(jobs);
        for (size_t i = 0; i < kBatch; ++i) jobs[i].dst = out.data() + i * slot;
    }
    while (state.KeepRunningBatch(static_cast<int64_t>(kBatch))) {
        if constexpr (kSeal) {
            for (AeadJob& j : jobs) j.counter += kBatch;
            stream.seal(jobs);
        } else {
            stream.open(jobs);
        }
        benchmark::ClobberMemory();
    }
    if (!kSeal && !jobs.back().ok) state.SkipWithError("refused");
    state.SetBytesProcessed(static_cast<int64_t>(len) * static_cast<int64_t>(state.iterations()));
}

}  // namespace

int main(int argc, char** argv) {
    for (size_t e = 0; e < static_cast<size_t>(AeadEngine::kCount); ++e) {
        const auto engine = static_cast<AeadEngine>(e);
        if (!mesh::crypto::aead_usable(engine)) continue;
        const std::string head = std::string(name(engine)) + "/";
        for (const size_t len : {64U, 576U, 1280U, 1360U}) {
            const std::string tail = "/" + std::to_string(len);
            benchmark::RegisterBenchmark((head + "seal" + tail).c_str(), seal_one, engine, len);
            benchmark::RegisterBenchmark((head + "seal32" + tail).c_str(), batch<true>, engine, len);
            benchmark::RegisterBenchmark((head + "open" + tail).c_str(), open_one, engine, len);
            benchmark::RegisterBenchmark((head + "open32" + tail).c_str(), batch<false>, engine, len);
        }
    }
    benchmark::Initialize(&argc, argv);
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
}
