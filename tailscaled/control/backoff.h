// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Waits between attempts: the n-th failure in a row waits n² × 10 ms, at most 30 s, times a random 0.5 to 1.5 so that
/// the clients of a server that restarted do not come back in step.

#include <algorithm>

#include "base/random.h"
#include "base/time.h"

namespace mesh::control {

class Backoff {
   public:
    static constexpr Duration kMax = seconds(30);

    [[nodiscard]] Duration next(Random& random) {
        failures_ = std::min(failures_ + 1, 1000);
        const Duration base = std::min(milliseconds(10) * failures_ * failures_, kMax);
        return base / 2 + Duration{base.ns / 1024 * random.below(1025)};
    }
    void reset() { failures_ = 0; }
    [[nodiscard]] int failures() const { return failures_; }

   private:
    int failures_ = 0;
};

}  // namespace mesh::control
