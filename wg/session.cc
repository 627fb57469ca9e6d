// SPDX-License-Identifier: BSD-3-Clause
#include "wg/session.h"

#include <cstring>

namespace mesh::wg {

void ReplayWindow::mark(uint64_t counter) {
    const uint64_t word = counter / 64;
    if (counter > last_) {
        const uint64_t current = last_ / 64;
        const uint64_t steps = word - current < kWords ? word - current : kWords;
        for (uint64_t i = 1; i <= steps; ++i) words_[(current + i) % kWords] = 0;
        last_ = counter;
    }
    words_[word % kWords] |= uint64_t{1} << (counter % 64);
}

size_t Session::prepare(uint8_t* slot, size_t plain_len, size_t mtu, crypto::AeadJob& job) {
    if (next_counter_ >= kRejectAfterMessages) return 0;
    const size_t padding = padding_for(plain_len, mtu);
    std::memset(slot + kDataHeader + plain_len, 0, padding);
    const size_t len = plain_len + padding;
    const uint64_t counter = next_counter_++;
    store_le32(slot, kTypeTransport);
    store_le32(slot + 4, remote_index_);
    store_le64(slot + 8, counter);
    job = {slot + kDataHeader, slot + kDataHeader, len, counter, false};
    return kDataHeader + len + kTag;
}

size_t Session::seal(uint8_t* slot, size_t plain_len, size_t mtu) {
    crypto::AeadJob job;
    const size_t n = prepare(slot, plain_len, mtu, job);
    if (n > 0) seal({&job, 1});
    return n;
}

DropReason Session::check(MutByteSpan datagram, Time now, crypto::AeadJob& job) const {
    if (age(now) > kRejectAfterTime) return DropReason::kExpired;
    const uint64_t counter = load_le64(datagram.data() + 8);
    if (counter >= kRejectAfterMessages) return DropReason::kExpired;
    // Asked before decryption because it is cheaper; set only after, because only then the counter is the peer's.
    if (!window_.fresh(counter)) return DropReason::kReplayed;
    uint8_t* const body = datagram.data() + kDataHeader;
    job = {body, body, datagram.size() - kDataOverhead, counter, false};
    return DropReason::kNone;
}

DropReason Session::accept(const crypto::AeadJob& job) {
    if (!job.ok) return DropReason::kBadTag;
    // Again: the same datagram may have been twice among the jobs.
    if (!window_.fresh(job.counter)) return DropReason::kReplayed;
    window_.mark(job.counter);
    return DropReason::kNone;
}

DropReason Session::open(MutByteSpan datagram, Time now) {
    crypto::AeadJob job;
    if (const DropReason d = check(datagram, now, job); d != DropReason::kNone) return d;
    open({&job, 1});
    return accept(job);
}

}  // namespace mesh::wg
