// SPDX-License-Identifier: BSD-3-Clause
// The relay's rate file. Whatever it says, the bucket made of it lets a client go on in the end, and never gives more than
// rate and burst allow.

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "base/bytes.h"
#include "base/check.h"
#include "derper/rate.h"

using namespace mesh;

namespace {

constexpr double kLargest = 65'568;

void check(const derper::RateLimit& limit) {
    CHECK(std::isfinite(limit.bytes_per_second) && limit.bytes_per_second >= 0);
    if (limit.bytes_per_second == 0) {
        CHECK(limit.burst_bytes == 0);
        return;
    }
    CHECK(std::isfinite(limit.burst_bytes) && limit.burst_bytes >= kLargest);
    Time now{1'000'000'000};
    derper::TokenBucket bucket(limit.bytes_per_second, limit.burst_bytes, now);
    double taken = 0;
    const Time start = now;
    for (int i = 0; i < 8; ++i) {
        const Time free = bucket.free_at(now);
        CHECK(free >= now);
        if (free - now >= minutes(24 * 60)) break;  // the longest wait at a time: some debt is left
        now = free;
        CHECK(taken <= limit.burst_bytes + (now - start).seconds() * limit.bytes_per_second * 1.001 + kLargest);
        bucket.take(kLargest, now);
        taken += kLargest;
    }
    CHECK(!derper::TokenBucket(limit.bytes_per_second, limit.burst_bytes, now).try_take(limit.burst_bytes * 2, now));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const auto config = derper::parse_rate_config(as_text({data, size}));
    if (!config) return 0;
    check(config->client);
    check(config->all);
    return 0;
}
