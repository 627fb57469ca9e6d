// SPDX-License-Identifier: BSD-3-Clause
#include "base/secret.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/keys.h"
#include "base/sanitized.h"

namespace mesh {
namespace {

LockedKey::Raw filled(uint8_t with) {
    LockedKey::Raw raw;
    raw.fill(with);
    return raw;
}

/// The line `name` of the mapping that holds `p` in /proc/self/smaps, or "".
std::string smaps(const void* p, const std::string& name) {
    std::ifstream in("/proc/self/smaps");
    const auto at = reinterpret_cast<uintptr_t>(p);
    bool inside = false;
    for (std::string line; std::getline(in, line);) {
        unsigned long from = 0, to = 0;
        if (std::sscanf(line.c_str(), "%lx-%lx ", &from, &to) == 2) inside = from <= at && at < to;
        if (inside && line.starts_with(name + ":")) return line;
    }
    return "";
}

TEST(LockedKey, ReadsAsZerosAndTakesNothingUntilItIsWrittenTo) {
    const LockedKey a, b = a;
    EXPECT_TRUE(a.is_zero());
    EXPECT_EQ(&a.bytes(), &b.bytes());
    LockedKey c = a;
    c.bytes()[31] = 1;
    EXPECT_FALSE(c.is_zero());
    EXPECT_NE(&c.bytes(), &a.bytes());
}

TEST(LockedKey, CopiesAreApartAndMovesStayInPlace) {
    LockedKey a(filled(1));
    LockedKey b = a;
    b.bytes()[0] = 9;
    EXPECT_EQ(a.bytes(), filled(1));
    EXPECT_FALSE(a == b);
    const LockedKey::Raw* where = &b.bytes();
    const LockedKey c = std::move(b);
    EXPECT_EQ(&c.bytes(), where);
    a = a;
    EXPECT_EQ(a.bytes(), filled(1));
    a = LockedKey();
    EXPECT_TRUE(a.is_zero());
}

TEST(LockedKey, IsWipedOnReleaseAndItsPlaceUsedAgain) {
    auto* key = new LockedKey(filled(0xa5));
    const uint8_t* where = key->bytes().data();
    delete key;
    // The arena keeps its pages: they may be read. The first word leads to the next free slot.
    EXPECT_TRUE(std::all_of(where + sizeof(void*), where + 32, [](uint8_t b) { return b == 0; }));
    LockedKey again;
    EXPECT_EQ(again.bytes().data(), where);
    EXPECT_TRUE(again.is_zero());
}

TEST(LockedKey, LivesInMemoryThatIsLockedAndNotDumped) {
    if (MESH_SANITIZED != 0) GTEST_SKIP() << "the sanitizer leaves mlock out";
    const LockedKey key(filled(1));
    const LockedText text(std::string(5000, 'x'));
    for (const void* p : {static_cast<const void*>(key.bytes().data()), static_cast<const void*>(text.view().data())}) {
        const std::string flags = smaps(p, "VmFlags");
        EXPECT_NE(flags.find(" dd"), std::string::npos) << flags;
        if (secrets_are_locked()) {
            EXPECT_NE(flags.find(" lo"), std::string::npos) << flags;
        }
    }
}

TEST(LockedKey, ManyAtOnceFromManyThreads) {
    std::vector<std::thread> threads;
    for (uint8_t t = 1; t <= 4; ++t) {
        threads.emplace_back([t] {
            for (int round = 0; round < 20; ++round) {
                std::vector<LockedKey> keys(700, LockedKey(filled(t)));
                for (const LockedKey& k : keys) ASSERT_EQ(k.bytes(), filled(t));
            }
        });
    }
    for (std::thread& t : threads) t.join();
}

TEST(LockedText, HoldsTextOfAnyLength) {
    LockedText a(std::string(70000, 'a'));
    const LockedText b = a;
    EXPECT_EQ(b.view(), std::string(70000, 'a'));
    a = LockedText("short");
    EXPECT_EQ(a.view(), "short");
    EXPECT_TRUE(LockedText("").empty());
    EXPECT_EQ(LockedText().view(), "");
}

TEST(PrivateKeys, OfTheZeroKeyAndOfDamagedTextAreNone) {
    EXPECT_TRUE(NodePrivate().is_zero());
    EXPECT_FALSE(NodePrivate::parse("privkey:00"));
    const std::string text = "privkey:" + std::string(64, '4');
    EXPECT_EQ(NodePrivate::parse(text)->secret_text(), text);
    EXPECT_EQ(*NodePrivate::parse(text), NodePrivate::from(filled(0x44)));
}

}  // namespace
}  // namespace mesh
