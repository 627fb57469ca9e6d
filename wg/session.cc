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

size_t Session::seal(uint8_t* slot, size_t plain_len, size_t mtu) {
    if (next_counter_ >= kRejectAfterMessages) return 0;
    const size_t padding = padding_for(plain_len, mtu);
    std::memset(slot + kDataHeader + plain_len, 0, padding);
    const size_t len = plain_len + padding;
    const uint64_t counter = next_counter_++;
    store_le32(slot, kTypeTransport);
    store_le32(slot + 4, remote_index_);
    store_le64(slot + 8, counter);
    uint8_t nonce[12];
    crypto::nonce_le(nonce, counter);
    crypto::aead_seal(slot + kDataHeader, ByteSpan(slot + kDataHeader, len), {}, nonce, keys_.send.bytes);
    return kDataHeader + len + kTag;
}

DropReason Session::open(MutByteSpan datagram, Time now) {
    if (age(now) > kRejectAfterTime) return DropReason::kExpired;
    const uint64_t counter = load_le64(datagram.data() + 8);
    if (counter >= kRejectAfterMessages) return DropReason::kExpired;
    // Asked before decryption because it is cheaper; set only after, because only then the counter is the peer's.
    if (!window_.fresh(counter)) return DropReason::kReplayed;
    uint8_t nonce[12];
    crypto::nonce_le(nonce, counter);
    uint8_t* const body = datagram.data() + kDataHeader;
    if (!crypto::aead_open(body, datagram.subspan(kDataHeader), {}, nonce, keys_.receive.bytes)) return DropReason::kBadTag;
    window_.mark(counter);
    return DropReason::kNone;
}

}  // namespace mesh::wg
