// SPDX-License-Identifier: BSD-3-Clause
#include "wg/session.h"

#include <gtest/gtest.h>

#include <set>

#include "base/random.h"

namespace mesh::wg {
namespace {

constexpr Time kNow{1'000'000'000'000};

struct Ends {
    explicit Ends(Role role = Role::kInitiator) {
        crypto::init();
        SeededRandom r(7);
        TransportKeys k;
        r.fill(k.send.bytes());
        r.fill(k.receive.bytes());
        TransportKeys mirrored;
        mirrored.send = k.receive;
        mirrored.receive = k.send;
        here = std::make_unique<Session>(k, role, 11, 22, 0, kNow);
        there = std::make_unique<Session>(mirrored, role == Role::kInitiator ? Role::kResponder : Role::kInitiator, 22,
                                          11, 0, kNow);
    }
    Bytes sealed(ByteSpan plain, size_t mtu = 0) {
        Bytes slot(kDataHeader + plain.size() + 15 + kTag);
        std::copy(plain.begin(), plain.end(), slot.begin() + kDataHeader);
        slot.resize(here->seal(slot.data(), plain.size(), mtu));
        return slot;
    }
    std::unique_ptr<Session> here, there;
};

TEST(ReplayWindow, TakesEachCounterOnceAndKeeps8128OfThem) {
    ReplayWindow w;
    EXPECT_TRUE(w.fresh(0));
    w.mark(0);
    EXPECT_FALSE(w.fresh(0));
    EXPECT_TRUE(w.fresh(1));
    w.mark(1);
    EXPECT_FALSE(w.fresh(1));
    w.mark(9);
    EXPECT_TRUE(w.fresh(8));
    w.mark(8);
    EXPECT_FALSE(w.fresh(8));
    EXPECT_FALSE(w.fresh(9));

    constexpr uint64_t kTop = 100'000;
    w.mark(kTop);
    EXPECT_FALSE(w.fresh(kTop));
    EXPECT_TRUE(w.fresh(kTop - ReplayWindow::kSize));
    EXPECT_FALSE(w.fresh(kTop - ReplayWindow::kSize - 1));
    w.mark(kTop - ReplayWindow::kSize);
    EXPECT_FALSE(w.fresh(kTop - ReplayWindow::kSize));
    EXPECT_TRUE(w.fresh(kTop - ReplayWindow::kSize + 1));
}

TEST(ReplayWindow, SteppingOverAWordForgetsOnlyWhatFellOut) {
    ReplayWindow w;
    for (uint64_t i = 0; i < 3 * ReplayWindow::kSize; ++i) {
        ASSERT_TRUE(w.fresh(i)) << i;
        w.mark(i);
        ASSERT_FALSE(w.fresh(i)) << i;
    }
    for (uint64_t i = 0; i < 3 * ReplayWindow::kSize; ++i) ASSERT_FALSE(w.fresh(i)) << i;
}

TEST(ReplayWindow, AgreesWithASetOverRandomOrder) {
    SeededRandom r(3);
    ReplayWindow w;
    std::vector<bool> seen(60'000);
    uint64_t top = 0;
    for (int n = 0; n < 200'000; ++n) {
        const uint64_t base = static_cast<uint64_t>(n) / 4;
        const uint64_t c = base + r.below(9'000);
        const bool want = !seen[c] && (c > top || top - c <= ReplayWindow::kSize);
        ASSERT_EQ(w.fresh(c), want) << "counter " << c << " top " << top;
        if (!want) continue;
        w.mark(c);
        seen[c] = true;
        top = std::max(top, c);
    }
}

TEST(Padding, GoesToSixteenButNotBeyondTheMtu) {
    EXPECT_EQ(padding_for(0, 1280), 0U);
    EXPECT_EQ(padding_for(1, 1280), 15U);
    EXPECT_EQ(padding_for(16, 1280), 0U);
    EXPECT_EQ(padding_for(1279, 1280), 1U);
    EXPECT_EQ(padding_for(1275, 1278), 3U);
    EXPECT_EQ(padding_for(1278, 1278), 0U);
    EXPECT_EQ(padding_for(1281, 1280), 15U);  // the one byte over is padded as a piece of its own
    EXPECT_EQ(padding_for(17, 0), 15U);
}

TEST(Session, OpensEveryLengthItSealed) {
    Ends e;
    for (size_t n = 0; n <= 1420; ++n) {
        Bytes plain(n);
        for (size_t i = 0; i < n; ++i) plain[i] = static_cast<uint8_t>(i * 7 + n);
        Bytes wire = e.sealed(plain, 1420);
        ASSERT_EQ(wire.size(), n + padding_for(n, 1420) + kDataOverhead);
        ASSERT_EQ(load_le32(wire.data() + 4), 22U);
        ASSERT_EQ(load_le64(wire.data() + 8), n);
        ASSERT_EQ(e.there->open(wire, kNow), DropReason::kNone);
        ASSERT_TRUE(std::equal(plain.begin(), plain.end(), wire.begin() + kDataHeader));
        for (size_t i = n; i < wire.size() - kDataOverhead; ++i) ASSERT_EQ(wire[kDataHeader + i], 0);
    }
}

TEST(Session, AcceptsNoMutatedMessage) {
    Ends e;
    const Bytes plain(40, 0x55);
    const Bytes good = e.sealed(plain);
    for (size_t bit = 8 * 8; bit < good.size() * 8; ++bit) {  // type and index are checked above the session
        Bytes bad = good;
        bad[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
        ASSERT_NE(e.there->open(bad, kNow), DropReason::kNone) << bit;
    }
    for (size_t n = kDataOverhead; n < good.size(); ++n) {
        Bytes cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(n));
        ASSERT_EQ(e.there->open(cut, kNow), DropReason::kBadTag);
    }
    // None of the forgeries may have moved the window.
    Bytes copy = good;
    EXPECT_EQ(e.there->open(copy, kNow), DropReason::kNone);
    copy = good;
    EXPECT_EQ(e.there->open(copy, kNow), DropReason::kReplayed);
}

TEST(Session, EndsAt180SecondsAndAtTheLastCounter) {
    Ends e;
    EXPECT_TRUE(e.here->can_send(kNow + kRejectAfterTime - nanoseconds(1)));
    EXPECT_FALSE(e.here->can_send(kNow + kRejectAfterTime));
    Bytes wire = e.sealed({});
    EXPECT_EQ(e.there->open(wire, kNow + kRejectAfterTime + nanoseconds(1)), DropReason::kExpired);

    e.here->skip_to_counter(kRejectAfterMessages - 1);
    EXPECT_TRUE(e.here->can_send(kNow));
    wire = e.sealed({});
    EXPECT_EQ(wire.size(), kDataOverhead);
    EXPECT_FALSE(e.here->can_send(kNow));
    EXPECT_TRUE(e.sealed({}).empty());
    EXPECT_EQ(e.there->open(wire, kNow), DropReason::kNone);
}

TEST(Session, RefusesCountersFromTheReservedEnd) {
    Ends e;
    Bytes wire = e.sealed({});
    store_le64(wire.data() + 8, kRejectAfterMessages);
    EXPECT_EQ(e.there->open(wire, kNow), DropReason::kExpired);
}

TEST(Session, WantsANewOneAt120SecondsIfInitiatorAndAtTwoToTheSixtyMessagesInAnyCase) {
    Ends initiator;
    EXPECT_FALSE(initiator.here->rekey_on_send(kNow + kRekeyAfterTime - nanoseconds(1)));
    EXPECT_TRUE(initiator.here->rekey_on_send(kNow + kRekeyAfterTime));
    EXPECT_FALSE(initiator.there->rekey_on_send(kNow + seconds(179)));
    initiator.there->skip_to_counter(kRekeyAfterMessages);
    EXPECT_FALSE(initiator.there->rekey_on_send(kNow));
    initiator.there->skip_to_counter(kRekeyAfterMessages + 1);
    EXPECT_TRUE(initiator.there->rekey_on_send(kNow));
}

TEST(Session, KeysLieInLockedMemoryAndAreGivenBackWithTheSession) {
    crypto::init();
    alignas(Session) static uint8_t place[sizeof(Session)];
    TransportKeys k;
    k.send.bytes().fill(0xa7);
    k.receive.bytes().fill(0xb9);
    auto* s = new (place) Session(k, Role::kInitiator, 1, 2, 0, kNow);
    const auto runs = [&](uint8_t v) {
        const std::string_view all(reinterpret_cast<const char*>(place), sizeof place);
        return all.find(std::string(16, static_cast<char>(v))) != std::string_view::npos;
    };
    EXPECT_FALSE(runs(0xa7));
    EXPECT_FALSE(runs(0xb9));
    // Slots are taken last given back, first taken; LockedKey's own test shows that giving back wipes.
    const auto next_slots = [] {
        LockedKey a, b;
        return std::set<const void*>{&a.bytes(), &b.bytes()};
    };
    const auto before = next_slots();
    s->~Session();
    EXPECT_NE(next_slots(), before);
}

}  // namespace
}  // namespace mesh::wg
