// SPDX-License-Identifier: BSD-3-Clause
#include "derper/rate.h"

#include <algorithm>
#include <cctype>
#include <string>

#include "base/json.h"
#include "magicsock/derp/frame.h"

namespace mesh::derper {
namespace {
constexpr double kMinBurst = derp::kMaxPacket + derp::kKeyLen;
constexpr double kMaxRate = 1e12;
constexpr double kLongestWait_s = 24 * 3600;  // a rate may be next to nothing
}  // namespace

void TokenBucket::refill(Time now) {
    if (now > at_) tokens_ = std::min(burst_, tokens_ + (now - at_).seconds() * rate_);
    at_ = now;
}

void TokenBucket::take(double tokens, Time now) {
    refill(now);
    tokens_ -= tokens;
}

bool TokenBucket::try_take(double tokens, Time now) {
    refill(now);
    if (tokens_ < tokens) return false;
    tokens_ -= tokens;
    return true;
}

Time TokenBucket::free_at(Time now) const {
    const double have = tokens_ + (now - at_).seconds() * rate_;
    if (have >= 0) return now;
    return now + Duration{static_cast<int64_t>(std::min(-have / rate_, kLongestWait_s) * 1e9) + 1'000'000};
}

void TokenBucket::set(double rate, double burst, Time now) {
    refill(now);
    rate_ = rate;
    burst_ = burst;
    tokens_ = std::min(tokens_, burst);
}

Result<RateConfig> parse_rate_config(std::string_view text) {
    TRY_ASSIGN(const Json j, json::parse(text, 64U << 10));
    if (!j.is_object()) return fail(Code::kInvalid, "rate config is no JSON object");
    RateConfig out;
    for (const auto& [key, value] : j.items()) {
        std::string name = key;
        std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
        const bool rate = name == "perclientratelimitbytespersec";
        if (!rate && name != "perclientrateburstbytes") continue;
        if (!value.is_number() || !(value.get<double>() >= 0) || value.get<double>() > kMaxRate)
            return fail(Code::kInvalid, key + " must be a number of bytes, 0 or more");
        (rate ? out.bytes_per_second : out.burst_bytes) = value.get<double>();
    }
    out.burst_bytes = out.bytes_per_second > 0 ? std::max(out.burst_bytes, kMinBurst) : 0;
    return out;
}

}  // namespace mesh::derper
