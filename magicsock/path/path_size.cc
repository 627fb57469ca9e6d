// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/path/path_size.h"

#include <algorithm>
#include <array>

namespace mesh::magicsock {
namespace {

// What every IPv6 link carries, what every IPv4 host takes, and what just shows that padding is answered.
constexpr std::array<size_t, 3> kMiddle{1280, 576, 256};
constexpr unsigned kEnoughSmall = 2;
constexpr unsigned kMaxPatience = 4;

}  // namespace

void PathSize::ask(Duration latency, Time now) {
    if (asking()) return;
    tries_ = small_ = 0;
    middle_ = 0;
    spacing_ = std::clamp(latency * 3, milliseconds(250), seconds(1));
    next_ = now;
}

std::vector<size_t> PathSize::pings(size_t full) const {
    if (tries_ == 0) return {full};
    const auto fits = std::find_if(kMiddle.begin(), kMiddle.end(), [&](size_t s) { return s < full; });
    const auto first = static_cast<size_t>(fits - kMiddle.begin());
    if (first == kMiddle.size()) return {full, 0};
    return {full, kMiddle[first + (tries_ - 1U) % (kMiddle.size() - first)], 0};
}

void PathSize::tried(Time now) {
    ++tries_;
    next_ = now + spacing_;
}

void PathSize::put_off(Time now) {
    again_ = now + kAgain * (int64_t{1} << patience_);
    if (patience_ < kMaxPatience) ++patience_;
}

void PathSize::conclude(Time now) {
    stop();
    again_ = now + kAgain;
    if (small_ < kEnoughSmall) return;
    if (middle_ == 0 && carries_ > 0) return;  // it did answer such pings: these were lost
    if (!too_small()) since_ = now;
    verdict_ = middle_ > 0 ? Verdict::kTooSmall : Verdict::kUntold;
    carries_ = middle_;
    put_off(now);
}

bool PathSize::answered(size_t size, size_t full, Time now) {
    if (size < full) {
        if (size == 0)
            ++small_;
        else
            middle_ = std::max(middle_, size);
        return false;
    }
    const bool news = verdict_ != Verdict::kWhole;
    if (!news) patience_ = 0;
    verdict_ = Verdict::kWhole;
    carries_ = size;
    stop();
    again_ = now + kAgain;
    return news;
}

}  // namespace mesh::magicsock
