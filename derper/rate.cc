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
constexpr std::string_view kNames[] = {"perclientratelimitbytespersec", "perclientrateburstbytes", "globalratelimitbytespersec",
                                       "globalrateburstbytes"};
}  // namespace

void TokenBucket::refill(Time now) {
    if (now <= at_) return;  // another loop's clock may be a turn behind
    tokens_ = std::min(burst_, tokens_ + (now - at_).seconds() * rate_);
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

void SharedBucket::set(const RateLimit& limit, Time now) {
    const std::lock_guard lock(mutex_);
    if (limit.bytes_per_second <= 0)
        bucket_.reset();
    else if (bucket_)
        bucket_->set(limit.bytes_per_second, limit.burst_bytes, now);
    else
        bucket_.emplace(limit.bytes_per_second, limit.burst_bytes, now);
}

Time SharedBucket::take(double tokens, Time now) {
    const std::lock_guard lock(mutex_);
    if (!bucket_) return now;
    bucket_->take(tokens, now);
    return bucket_->free_at(now);
}

RateConfig default_rates() {
    constexpr double kGbit = 1e9 / 8;
    return {.client = {4 * kGbit, 32e6}, .all = {10 * kGbit, 128e6}};
}

Result<RateConfig> parse_rate_config(std::string_view text) {
    TRY_ASSIGN(const Json j, json::parse(text, 64U << 10));
    if (!j.is_object()) return fail(Code::kInvalid, "rate config is no JSON object");
    RateConfig out;
    bool names_all = false;
    double* const fields[] = {&out.client.bytes_per_second, &out.client.burst_bytes, &out.all.bytes_per_second, &out.all.burst_bytes};
    for (const auto& [key, value] : j.items()) {
        std::string name = key;
        std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
        const auto* known = std::find(std::begin(kNames), std::end(kNames), name);
        if (known == std::end(kNames)) continue;
        if (!value.is_number() || !(value.get<double>() >= 0) || value.get<double>() > kMaxRate)
            return fail(Code::kInvalid, key + " must be a number of bytes, 0 or more");
        *fields[known - std::begin(kNames)] = value.get<double>();
        names_all |= name.starts_with("global");
    }
    if (!names_all) out.all = default_rates().all;
    for (RateLimit* limit : {&out.client, &out.all})
        limit->burst_bytes = limit->bytes_per_second > 0 ? std::max(limit->burst_bytes, kMinBurst) : 0;
    return out;
}

}  // namespace mesh::derper
