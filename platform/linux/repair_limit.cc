// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/repair_limit.h"

#include <algorithm>

namespace mesh::platform {

Time RepairLimit::next(Time now) const {
    if (!ever_) return now;
    return last_look_ + (fighting() && now - last_mend_ < kQuiet ? kFightGap : kGap);
}

void RepairLimit::looked(Time now, bool mended) {
    if (ever_ && now - last_mend_ > kQuiet) row_ = 0;
    ever_ = true;
    last_look_ = now;
    if (!mended) return;
    last_mend_ = now;
    row_ = std::min(row_ + 1, kPatience);
}

}  // namespace mesh::platform
