// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include "base/crypto/crypto.h"
#include "wg/session.h"

namespace mesh::wg {
namespace {

// Slots are used again and again: what an earlier packet left there must not leave with a later one.
TEST(SessionProof, PaddingIsZeroWhateverLayThere) {
    crypto::init();
    SeededRandom random(3);
    TransportKeys k;
    random.fill(k.send.bytes());
    random.fill(k.receive.bytes());
    TransportKeys mirrored;
    mirrored.send = k.receive;
    mirrored.receive = k.send;
    constexpr Time now{1'000'000'000};
    Session here(k, Role::kInitiator, 1, 2, 0, now), there(mirrored, Role::kResponder, 2, 1, 0, now);
    for (size_t n = 1; n < 64; ++n) {
        Bytes slot(kDataHeader + n + 15 + kTag, 0xEE);
        slot.resize(here.seal(slot.data(), n, 1280));
        ASSERT_EQ(there.open(slot, now), DropReason::kNone);
        const ByteSpan plain = ByteSpan(slot).subspan(kDataHeader, slot.size() - kDataOverhead);
        for (size_t i = 0; i < plain.size(); ++i) ASSERT_EQ(plain[i], i < n ? 0xEE : 0) << "length " << n << ", byte " << i;
    }
}

}  // namespace
}  // namespace mesh::wg
