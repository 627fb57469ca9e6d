// SPDX-License-Identifier: BSD-3-Clause
// No branch and no address depends on a key or on plaintext: the engines' own sources, compiled here once more with the same
// options, run under memcheck with keys and plaintext marked as undefined. It reports every jump and every access that depends on
// such bytes, in the very instructions the compiler chose. CTest starts this program under valgrind.

#include <gtest/gtest.h>
#include <valgrind/memcheck.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <vector>

#include "base/crypto/aead_engine.h"

namespace mesh::crypto {
namespace {

using Bytes = std::vector<uint8_t>;
constexpr size_t kTag = 16;

void hide(const Bytes& b) { (void)VALGRIND_MAKE_MEM_UNDEFINED(b.data(), b.size()); }
void show(const Bytes& b) { (void)VALGRIND_MAKE_MEM_DEFINED(b.data(), b.size()); }

Bytes numbers(size_t n) {
    Bytes out(n);
    for (size_t i = 0; i < n; ++i) out[i] = static_cast<uint8_t>(i * 167 + n);
    return out;
}

/// What memcheck complained about while `work` ran.
template <class Work>
unsigned complaints(Work work) {
    const unsigned before = VALGRIND_COUNT_ERRORS;
    work();
    return VALGRIND_COUNT_ERRORS - before;
}

class Secrets : public testing::Test {
   protected:
    void SetUp() override {
        if (RUNNING_ON_VALGRIND) return;
        if (std::getenv("CI") != nullptr) FAIL() << "this test says something under valgrind only";
        GTEST_SKIP() << "not under valgrind";
    }
};

void seal_and_open(const AeadFunctions& engine, size_t packets, size_t len, bool forge) {
    const Bytes plain = numbers(packets * len);
    Bytes key = numbers(32), text = plain, sealed(packets * (len + kTag)), opened(packets * len);
    std::vector<AeadJob> jobs(packets);
    for (size_t i = 0; i < packets; ++i) jobs[i] = {text.data() + i * len, sealed.data() + i * (len + kTag), len, i + 7, false};
    hide(key);
    hide(text);
    const unsigned sealing = complaints([&] { engine.seal(key.data(), jobs.data(), packets); });
    EXPECT_EQ(sealing, 0U) << packets << " of " << len << " bytes";

    show(sealed);  // it goes out to everybody
    if (forge) sealed[len] ^= 1;
    for (size_t i = 0; i < packets; ++i) jobs[i] = {sealed.data() + i * (len + kTag), opened.data() + i * len, len, i + 7, false};
    const unsigned opening = complaints([&] { engine.open(key.data(), jobs.data(), packets); });
    EXPECT_EQ(opening, 0U) << packets << " of " << len << " bytes";
    show(opened);
    for (size_t i = 0; i < packets; ++i) {
        EXPECT_EQ(jobs[i].ok, !(forge && i == 0));
        EXPECT_EQ(std::equal(jobs[i].dst, jobs[i].dst + len, plain.data() + i * len), jobs[i].ok);
    }
}

template <class Test>
void each_engine(Test test) {
    test(kAeadVec128);
    // Valgrind knows no wider vectors than these.
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) test(kAeadAvx2);
}

// The check itself: it would see what must not be.
TEST_F(Secrets, ABranchOnASecretIsSeen) {
    Bytes secret = numbers(1);
    hide(secret);
    static volatile int taken = 0;
    EXPECT_GT(complaints([&] {
                  if ((secret[0] & 1U) != 0) taken = taken + 1;
              }),
              0U);
}

TEST_F(Secrets, AnAddressFromASecretIsSeen) {
    static const std::array<uint8_t, 256> table = {1, 2, 3};
    Bytes secret = numbers(1);
    hide(secret);
    [[maybe_unused]] static volatile uint8_t found = 0;
    EXPECT_GT(complaints([&] { found = *static_cast<const volatile uint8_t*>(table.data() + secret[0]); }), 0U);
}

TEST_F(Secrets, NoBranchAndNoAddressDependsOnThem) {
    constexpr size_t kLens[] = {0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 255, 256, 257, 511, 512, 513, 767, 1024, 1025, 1280, 1281, 2049};
    constexpr size_t kPackets[] = {1, 2, 3, 8, 17};
    for (const size_t len : kLens)
        for (const size_t packets : kPackets) each_engine([&](const AeadFunctions& engine) { seal_and_open(engine, packets, len, false); });
}

TEST_F(Secrets, NorInRefusingAForgery) {
    for (const size_t len : {size_t{16}, size_t{64}, size_t{300}, size_t{1280}})
        for (const size_t packets : {size_t{1}, size_t{3}}) each_engine([&](const AeadFunctions& engine) { seal_and_open(engine, packets, len, true); });
}

}  // namespace
}  // namespace mesh::crypto
