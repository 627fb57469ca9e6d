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

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const auto config = derper::parse_rate_config(as_text({data, size}));
    if (!config) return 0;
    CHECK(std::isfinite(config->bytes_per_second) && config->bytes_per_second >= 0);
    if (config->bytes_per_second == 0) {
        CHECK(config->burst_bytes == 0);
        return 0;
    }
    constexpr double kLargest = 65'568;
    CHECK(std::isfinite(config->burst_bytes) && config->burst_bytes >= kLargest);
    Time now{1'000'000'000};
    derper::TokenBucket bucket(config->bytes_per_second, config->burst_bytes, now);
    double taken = 0;
    const Time start = now;
    for (int i = 0; i < 8; ++i) {
        const Time free = bucket.free_at(now);
        CHECK(free >= now);
        if (free - now >= minutes(24 * 60)) break;  // the longest wait at a time: some debt is left
        now = free;
        CHECK(taken <= config->burst_bytes + (now - start).seconds() * config->bytes_per_second * 1.001 + kLargest);
        bucket.take(kLargest, now);
        taken += kLargest;
    }
    CHECK(!derper::TokenBucket(config->bytes_per_second, config->burst_bytes, now).try_take(config->burst_bytes * 2, now));
    return 0;
}
