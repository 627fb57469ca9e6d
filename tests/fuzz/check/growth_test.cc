// SPDX-License-Identifier: BSD-3-Clause
// The watch over memory itself: it must bark at a parser that grows or keeps too much, and at no other.
#include "tests/fuzz/growth.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

namespace {

enum class Way : uint8_t { kNew, kMalloc, kRealloc };
struct Plan {
    size_t equipment = 0;
    size_t grow = 0;
    size_t allow = 0;
    size_t keep = 0;
    Way way = Way::kNew;
};
Plan g_plan;
std::vector<std::unique_ptr<char[]>> g_kept_pieces;

void use(size_t bytes, Way way) {
    void* p = nullptr;
    if (way == Way::kNew) {
        std::string text(bytes, 'x');
        ASSERT_EQ(text.size(), bytes);
        return;
    }
    p = std::malloc(way == Way::kRealloc ? 1 : bytes);
    if (way == Way::kRealloc) p = std::realloc(p, bytes);
    ASSERT_NE(p, nullptr);
    static_cast<volatile char*>(p)[bytes - 1] = 1;
    std::free(p);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t*, size_t) {
    std::string equipment(g_plan.equipment, 'e');
    mesh::fuzz::equipment_ready();
    mesh::fuzz::allow_growth(g_plan.allow);
    if (g_plan.grow > 0) use(g_plan.grow, g_plan.way);
    if (g_plan.keep > 0) g_kept_pieces.emplace_back(new char[g_plan.keep]);
    return 0;
}
extern "C" int __wrap_LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

void run(const Plan& plan, int times = 1) {
    g_plan = plan;
    for (int i = 0; i < times; ++i) __wrap_LLVMFuzzerTestOneInput(nullptr, 0);
}

constexpr size_t kSmall = 48U << 10, kLarge = 80U << 10;

TEST(Growth, InputsWithinTheLimitPass) {
    run({.grow = kSmall}, 10);
    run({.grow = kSmall, .way = Way::kRealloc}, 10);
    run({.equipment = kLarge, .grow = kSmall}, 10);
    run({.grow = kLarge, .allow = kLarge}, 10);
}

TEST(GrowthDeathTest, MoreThanTheLimitIsNoticed) {
    for (const Way way : {Way::kNew, Way::kMalloc, Way::kRealloc})
        EXPECT_DEATH(run({.grow = kLarge, .way = way}), "made memory grow by") << static_cast<int>(way);
    EXPECT_DEATH(run({.grow = 2 * kLarge, .allow = kSmall}), "made memory grow by");
}

TEST(GrowthDeathTest, WhatManyInputsLeaveBehindIsNoticed) {
    run({});  // the first one is free
    EXPECT_DEATH(run({.keep = 100}, 2000), "left .* behind");
}

}  // namespace
