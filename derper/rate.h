// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Token buckets: bytes of one client (-rate-config), accepted connections. Pure.

#include <mutex>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "base/time.h"

namespace mesh::derper {

/// Goes into debt: what has been read cannot be unread, so the debt is waited off.
class TokenBucket {
   public:
    /// `rate` tokens a second, at most `burst` saved up; starts full.
    TokenBucket(double rate, double burst, Time now) : rate_(rate), burst_(burst), tokens_(burst), at_(now) {}

    void take(double tokens, Time now);
    /// Tokens if there are that many; for things that can be refused.
    [[nodiscard]] bool try_take(double tokens, Time now);
    /// `now` or later: when the debt is paid; after a day it is time to ask again.
    [[nodiscard]] Time free_at(Time now) const;
    /// New terms; what was saved or owed stays, up to the new burst.
    void set(double rate, double burst, Time now);

   private:
    void refill(Time now);

    double rate_;
    double burst_;
    double tokens_;
    Time at_;
};

struct RateLimit {
    double bytes_per_second = 0;  ///< 0 = no limit
    double burst_bytes = 0;
    bool operator==(const RateLimit&) const = default;
};
struct RateConfig {
    RateLimit client;  ///< each, mesh peers excepted
    RateLimit all;     ///< together
    bool operator==(const RateConfig&) const = default;
};
/// One bucket for the clients of all loops. Threadsafe; exact, because taking is rare beside packets: once a reading call.
class SharedBucket {
   public:
    void set(const RateLimit& limit, Time now);
    /// `now` or later: when the debt is paid. Loops' clocks may differ by a turn.
    [[nodiscard]] Time take(double tokens, Time now);

   private:
    std::mutex mutex_;
    std::optional<TokenBucket> bucket_;  // guarded by mutex_; nullopt = no limit
};

/// What holds without a file: nobody who just uses the relay notices, and nobody can take all of a fast line.
[[nodiscard]] RateConfig default_rates();
/// The original's file: {"PerClientRateLimitBytesPerSec": n, "PerClientRateBurstBytes": n}, names in any case, no limit where
/// it names none; and ours: GlobalRateLimitBytesPerSec, GlobalRateBurstBytes, the default where it names none. A burst is at
/// least one largest packet with its key (65,568).
[[nodiscard]] Result<RateConfig> parse_rate_config(std::string_view text);

}  // namespace mesh::derper
