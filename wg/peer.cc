// SPDX-License-Identifier: BSD-3-Clause
#include "wg/peer.h"

#include <algorithm>
#include <span>

namespace mesh::wg {

namespace {

constexpr std::array<Duration, 4> kWantedSteps = {milliseconds(800), milliseconds(800), milliseconds(1600),
                                                  milliseconds(3200)};
constexpr std::array<Duration, 6> kEarlySteps = {milliseconds(200), milliseconds(300),  milliseconds(500),
                                                 milliseconds(800), milliseconds(1600), milliseconds(3200)};
constexpr Duration kNoPathStep = seconds(1);  // fallback only: path_appeared() is the usual way
constexpr Duration kEarlyAttemptTime = seconds(20);

Duration step(std::span<const Duration> steps, size_t i, Random& random) {
    if (i < steps.size()) return steps[i] + milliseconds(random.below(50));
    return kRekeyTimeout + milliseconds(random.below(334));
}

}  // namespace

bool Attempt::exhausted(Time now) const {
    if (kind == Kind::kEarly) return tries >= kEarlySteps.size() || now - started >= kEarlyAttemptTime;
    return now - started >= kRekeyAttemptTime;
}

void Attempt::schedule(bool sent, Time now, Random& random) {
    unsent = !sent;
    if (!sent) {
        next = now + kNoPathStep + milliseconds(random.below(334));
        return;
    }
    const size_t i = tries;
    if (tries < UINT8_MAX) ++tries;
    next = now + (kind == Kind::kEarly ? step(kEarlySteps, i, random) : step(kWantedSteps, i, random));
}

size_t StagedQueue::push(ByteSpan packet) {
    size_t dropped = 0;
    while (!packets_.empty() && (packets_.size() >= kMaxPackets || bytes_ + packet.size() > kMaxBytes)) {
        bytes_ -= packets_.front().size();
        packets_.pop_front();
        ++dropped;
    }
    packets_.push_back(to_bytes(packet));
    bytes_ += packet.size();
    return dropped;
}

bool StagedQueue::pop(Bytes& out) {
    if (packets_.empty()) return false;
    out = std::move(packets_.front());
    packets_.pop_front();
    bytes_ -= out.size();
    if (packets_.empty()) std::deque<Bytes>().swap(packets_);
    return true;
}

size_t StagedQueue::clear() {
    const size_t n = packets_.size();
    std::deque<Bytes>().swap(packets_);
    bytes_ = 0;
    return n;
}

Time PeerState::deadline() const {
    Time t = min(min(timers.new_handshake, timers.keepalive), timers.zero);
    if (attempt.active) t = min(t, attempt.next);
    if (held) t = min(t, held_until);
    return t;
}

}  // namespace mesh::wg
