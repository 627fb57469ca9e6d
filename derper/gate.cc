// SPDX-License-Identifier: BSD-3-Clause
#include "derper/gate.h"

#include <algorithm>

namespace mesh::derper {
namespace {
constexpr size_t kBuckets = 1024;
constexpr size_t kV6SourceBytes = 8;
constexpr double kMost = 1e12;
}  // namespace

Gate::Gate(Random& random, double rate, double burst, Time now)
    : all_(std::min(rate, kMost), std::min(burst, kMost), now),
      sources_(kBuckets, TokenBucket(std::min(rate, kMost) * kSourceShare,
                                     std::max(std::min(burst, kMost) * kSourceShare, kLeastSourceBurst), now)) {
    random.fill(key_);
}

TokenBucket& Gate::bucket_of(const Addr& source) {
    uint8_t mac[16];
    const ByteSpan bytes = source.bytes();
    crypto::blake2s_mac16(mac, key_, source.is_v6() ? bytes.first(kV6SourceBytes) : bytes);
    return sources_[load_le32(mac) % kBuckets];
}

Gate::Verdict Gate::ask(const Addr& source, Time now) {
    if (source.is_valid() && !bucket_of(source).try_take(1, now)) return Verdict::kTooManyOfSource;
    return all_.try_take(1, now) ? Verdict::kOpen : Verdict::kTooMany;
}

}  // namespace mesh::derper
