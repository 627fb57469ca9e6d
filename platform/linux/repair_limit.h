// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// How often the router may look at the host and mend what others changed: soon, but two programs that undo each other's
/// work for ever must not take the machine along. Pure.

#include "base/time.h"

namespace mesh::platform {

class RepairLimit {
   public:
    static constexpr Duration kGap = milliseconds(500);      ///< between two looks
    static constexpr int kPatience = 200;                    ///< repairs in a row until it is called a fight
    static constexpr Duration kQuiet = seconds(60);          ///< without a repair: the row ends
    static constexpr Duration kFightGap = seconds(30);

    /// Earliest time of the next look; `now` or earlier: at once.
    [[nodiscard]] Time next(Time now) const;
    /// A look took place; `mended`: something was not as it should be.
    void looked(Time now, bool mended);
    /// Others undo our work again and again: it goes on slowly.
    [[nodiscard]] bool fighting() const { return row_ >= kPatience; }

   private:
    Time last_look_;
    Time last_mend_;
    int row_ = 0;
    bool ever_ = false;
};

}  // namespace mesh::platform
