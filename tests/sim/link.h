// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// A link as data, and what it does to one packet. The simulator and the emulator of tests/lab share it. Pure.

#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/random.h"
#include "base/time.h"

namespace mesh::sim {

/// A way between a site and the core of the internet.
struct Link {
    Duration delay = milliseconds(10);
    Duration jitter{};          ///< up to this much more per datagram; more than the spacing of datagrams reorders them
    uint32_t loss_ppm = 0;      ///< of a million, as the next four
    uint32_t loss_in_ppm = 0;   ///< so many more on the way into the site
    uint32_t duplicate_ppm = 0;
    uint32_t reorder_ppm = 0;   ///< stay behind for 2 to 20 ms, so that others overtake them
    uint32_t replay_ppm = 0;    ///< somebody on the way sends them again, 1 to 30 s later
    uint32_t kbit_per_s = 0;    ///< each way; 0: no limit
    size_t queue = 64 * 1024;   ///< bytes that wait for their turn when there is a limit; what comes on top is lost
    size_t mtu = 1500;          ///< of IP packets; longer ones are lost
};

/// One direction of a link.
class Lane {
   public:
    enum class Fate : uint8_t { kThrough, kLost, kQueueFull, kTooLong };
    struct Passage {
        Fate fate = Fate::kThrough;
        Duration delay;  ///< until it is through
    };
    /// `size`: bytes of the IP packet. `loss_ppm`: of this direction.
    [[nodiscard]] Passage pass(const Link& link, uint32_t loss_ppm, size_t size, Time now, Random& random) {
        Duration d = link.delay;
        if (size > link.mtu) return {Fate::kTooLong, {}};
        if (random.below(1'000'000) < loss_ppm) return {Fate::kLost, {}};
        if (link.kbit_per_s > 0) {
            const Duration waiting = max(free_, now) - now;
            if (static_cast<uint64_t>(waiting.ns) * link.kbit_per_s / 8'000'000 + size > link.queue) return {Fate::kQueueFull, {}};
            d = d + stream(link, size, now);
        }
        if (link.jitter.ns > 0) d = d + microseconds(random.below(static_cast<uint32_t>(link.jitter.ns / 1000) + 1));
        if (random.below(1'000'000) < link.reorder_ppm) d = d + milliseconds(2 + random.below(19));
        return {Fate::kThrough, d};
    }
    /// Of a stream, which waits instead of losing: until the link has sent these bytes.
    [[nodiscard]] Duration stream(const Link& link, size_t size, Time now) {
        if (link.kbit_per_s == 0) return {};
        free_ = max(free_, now) + microseconds(static_cast<int64_t>(size) * 8000 / link.kbit_per_s);
        return free_ - now;
    }

   private:
    Time free_;  ///< when the link has sent what waits
};

}  // namespace mesh::sim
