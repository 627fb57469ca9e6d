// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Time as values. Pure rooms never read a clock: the loop reads it once a turn and passes `now` down.

#include <compare>
#include <cstdint>
#include <limits>

namespace mesh {

/// A signed span of time in nanoseconds.
struct Duration {
    int64_t ns = 0;

    [[nodiscard]] constexpr double seconds() const { return static_cast<double>(ns) * 1e-9; }
    [[nodiscard]] constexpr int64_t millis() const { return ns / 1'000'000; }
    constexpr auto operator<=>(const Duration&) const = default;
    constexpr Duration operator+(Duration o) const { return {ns + o.ns}; }
    constexpr Duration operator-(Duration o) const { return {ns - o.ns}; }
    constexpr Duration operator*(int64_t k) const { return {ns * k}; }
    constexpr Duration operator/(int64_t k) const { return {ns / k}; }
};

constexpr Duration nanoseconds(int64_t n) { return {n}; }
constexpr Duration microseconds(int64_t n) { return {n * 1'000}; }
constexpr Duration milliseconds(int64_t n) { return {n * 1'000'000}; }
constexpr Duration seconds(int64_t n) { return {n * 1'000'000'000}; }
constexpr Duration minutes(int64_t n) { return seconds(n * 60); }

/// A point on the monotonic clock (CLOCK_BOOTTIME in the daemon, simulated in tests). Zero means "never happened".
struct Time {
    int64_t ns = 0;

    static constexpr Time never() { return {std::numeric_limits<int64_t>::max()}; }
    [[nodiscard]] constexpr bool is_zero() const { return ns == 0; }
    [[nodiscard]] constexpr bool is_never() const { return ns == never().ns; }
    constexpr auto operator<=>(const Time&) const = default;
    constexpr Time operator+(Duration d) const { return is_never() ? *this : Time{ns + d.ns}; }
    constexpr Time operator-(Duration d) const { return {ns - d.ns}; }
    constexpr Duration operator-(Time o) const { return {ns - o.ns}; }
};

constexpr Time min(Time a, Time b) { return a < b ? a : b; }
constexpr Time max(Time a, Time b) { return a < b ? b : a; }

/// Wall clock, nanoseconds since the Unix epoch. Zero means unknown ("0001-01-01T00:00:00Z" in JSON).
struct WallTime {
    int64_t unix_ns = 0;
    [[nodiscard]] constexpr bool is_zero() const { return unix_ns == 0; }
    constexpr auto operator<=>(const WallTime&) const = default;
    constexpr WallTime operator+(Duration d) const { return {unix_ns + d.ns}; }
    constexpr Duration operator-(WallTime o) const { return {unix_ns - o.unix_ns}; }
};

}  // namespace mesh
