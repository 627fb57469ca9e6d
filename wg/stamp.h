// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// TAI64N stamps of initiations (whitepaper 5.4.2): a peer accepts only a later stamp than the last it saw from us, so
/// ours must grow over clock steps and restarts. They are cut to 2^24 ns (16.8 ms) to tell little about our clock; two
/// within one such granule would be equal, so the second one takes the next granule.
///
/// Rule: stamp = max(granule of the wall clock, one granule after the last one sent to this peer, one granule after the
/// floor). The clock may jump back (stamps then creep from the last one) or years ahead and back (the same).

#include <algorithm>
#include <cstdint>

#include "base/bytes.h"
#include "base/time.h"
#include "wg/noise.h"

namespace mesh::wg {

inline constexpr uint64_t kNanosPerSecond = 1'000'000'000;
inline constexpr uint64_t kGranule = uint64_t{1} << 24;

/// Low 24 bits of the nanoseconds within the second cleared.
[[nodiscard]] constexpr uint64_t granule_of(uint64_t unix_ns) {
    return unix_ns / kNanosPerSecond * kNanosPerSecond + (unix_ns % kNanosPerSecond & ~(kGranule - 1));
}
/// The first granule after the one of `unix_ns`.
[[nodiscard]] constexpr uint64_t granule_after(uint64_t unix_ns) {
    const uint64_t second = unix_ns / kNanosPerSecond;
    const uint64_t nanos = (unix_ns % kNanosPerSecond & ~(kGranule - 1)) + kGranule;
    return nanos >= kNanosPerSecond ? (second + 1) * kNanosPerSecond : second * kNanosPerSecond + nanos;
}
/// 8 bytes of seconds (TAI label: 2^62 + 10 + unix), 4 of nanoseconds, big endian.
[[nodiscard]] inline Stamp tai64n(uint64_t unix_ns) {
    Stamp s;
    store_be64(s.data(), 0x400000000000000aULL + unix_ns / kNanosPerSecond);
    store_be32(s.data() + 8, static_cast<uint32_t>(unix_ns % kNanosPerSecond & ~(kGranule - 1)));
    return s;
}

class StampClock {
   public:
    /// A floor past the year 2262 can only be damage and is ignored: beyond it there would be no later stamp some day.
    static constexpr uint64_t kMaxFloor = uint64_t{1} << 63;

    void set_wall(WallTime wall, Time now) {
        wall_ = wall;
        set_at_ = now;
    }
    void raise_floor(uint64_t unix_ns) {
        if (unix_ns < kMaxFloor) floor_ = std::max(floor_, unix_ns);
    }
    /// Zero while the wall clock is unknown.
    [[nodiscard]] WallTime wall(Time now) const { return wall_.is_zero() ? wall_ : wall_ + (now - set_at_); }
    /// Next stamp (unix ns) for a peer whose last one was `last` (0: none).
    [[nodiscard]] uint64_t next(uint64_t last, Time now) {
        const int64_t ns = wall(now).unix_ns;
        const uint64_t stamp = std::max({granule_of(ns > 0 ? static_cast<uint64_t>(ns) : 0), granule_after(floor_),
                                         granule_after(last)});
        latest_ = std::max(latest_, stamp);
        return stamp;
    }
    [[nodiscard]] uint64_t latest() const { return std::max(latest_, floor_); }

   private:
    WallTime wall_{};
    Time set_at_{};
    uint64_t floor_ = 0;
    uint64_t latest_ = 0;
};

}  // namespace mesh::wg
