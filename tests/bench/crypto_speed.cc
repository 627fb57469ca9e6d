// SPDX-License-Identifier: BSD-3-Clause
// What cryptography costs, on one core: ns per packet to seal and to open, one by one and 32 together as the packet path does; µs per
// WireGuard handshake, both sides of it. One line of JSON, beside which ./dev bench puts the one of tests/interop/wireguard/speed.
// TAILMESH_AEAD=sodium|vec128|avx2|avx512 picks another engine than the one that daemons on this machine take.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "base/crypto/aead_stream.h"
#include "wg/testing.h"

namespace {

using namespace mesh;
using crypto::AeadJob;
using crypto::AeadStream;
using crypto::kTagLen;

constexpr size_t kBatch = 32;
constexpr int kChunks = 41;

/// ns per turn, of chunks of some 2 ms the best but a few, so that what else runs on this machine does not count.
template <class Turn>
double measure(Turn turn) {
    using Clock = std::chrono::steady_clock;
    const auto time = [&](size_t turns) {
        const auto begin = Clock::now();
        for (size_t i = 0; i < turns; ++i) turn();
        return std::chrono::duration<double, std::nano>(Clock::now() - begin).count();
    };
    size_t turns = 1;
    while (time(turns) < 2e6) turns *= 2;
    std::vector<double> chunks;
    for (int i = 0; i < kChunks; ++i) chunks.push_back(time(turns) / static_cast<double>(turns));
    std::nth_element(chunks.begin(), chunks.begin() + kChunks / 10, chunks.end());
    return chunks[kChunks / 10];
}

void demand(bool good, const char* what) {
    if (good) return;
    fmt::print(stderr, "crypto_speed: {}\n", what);
    std::exit(1);
}

void measure_packets(size_t len, std::map<std::string, double>& out) {
    const AeadStream stream(crypto::Key32{1, 2, 3});
    const size_t slot = len + kTagLen + 16;
    Bytes memory(kBatch * slot), opened(kBatch * slot);
    std::vector<AeadJob> seal, open;
    for (size_t i = 0; i < kBatch; ++i) {
        uint8_t* const p = memory.data() + i * slot;
        seal.push_back({p, p, len, i, false});
        open.push_back({p, opened.data() + i * slot, len, i, false});
    }
    stream.seal(seal);
    const std::string tail = "_" + std::to_string(len);
    bool good = true;
    out["open" + tail] = measure([&] { good &= stream.open(opened.data(), {memory.data(), len + kTagLen}, 0); });
    out["open32" + tail] = measure([&] { stream.open(open); }) / kBatch;
    for (const AeadJob& j : open) good &= j.ok;
    demand(good, "an engine refuses what it sealed");
    uint64_t counter = 0;
    out["seal" + tail] = measure([&] { stream.seal(memory.data(), {memory.data(), len}, counter++); });
    out["seal32" + tail] = measure([&] {
        for (AeadJob& j : seal) j.counter += kBatch;
        stream.seal(seal);
    }) / kBatch;
}

/// Each turn the sessions are too old to be used, so a packet makes a new one.
double measure_handshakes() {
    wg::testing::CalmPair pair;
    pair.connect();
    return measure([&] {
        pair.now = pair.now + seconds(200);
        const uint64_t before = pair.b.device.counters().sessions;
        pair.connect();
        demand(pair.b.device.counters().sessions == before + 1, "no handshake");
        for (auto* node : {&pair.a, &pair.b}) {
            node->received.clear();
            node->authenticated_from.clear();
        }
    });
}

}  // namespace

int main() {
    crypto::init();
    std::map<std::string, double> out;
    for (const size_t len : {64U, 1280U}) measure_packets(len, out);
    out["handshake"] = measure_handshakes();
    fmt::print("{{\"engine\": \"{}\"", name(crypto::aead_engine()));
    for (const auto& [what, ns] : out) fmt::print(", \"{}\": {:.1f}", what, ns);
    fmt::print("}}\n");
}
