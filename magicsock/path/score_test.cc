// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/path/score.h"

#include <gtest/gtest.h>

namespace mesh::magicsock {
namespace {

constexpr const char* kPublic1 = "1.2.3.4:555";
constexpr const char* kPublic2 = "5.6.7.8:999";
constexpr const char* kPublic6 = "[2001::5]:123";
constexpr const char* kPrivate = "10.0.0.2:123";
constexpr const char* kPrivate6 = "[fd00::2]:123";
constexpr const char* kLinkLocal = "[fe80::2]:123";
constexpr const char* kLoopback = "127.0.0.1:123";

struct Row {
    const char* why;
    const char* a;
    int64_t a_ms;
    uint16_t a_mtu;
    const char* b;
    int64_t b_ms;
    uint16_t b_mtu;
    bool a_wins;
};

ScoredAddr scored(const char* ep, int64_t ms, uint16_t mtu) {
    if (*ep == '\0') return {};
    return {.ep = *Endpoint::parse(ep), .latency = milliseconds(ms), .wire_mtu = mtu};
}

TEST(BetterAddr, DecidesEveryRowOfTheTable) {
    const Row rows[] = {
        {"two invalid ones", "", 0, 0, "", 0, 0, false},
        {"any path beats none", kPublic1, 100, 0, "", 0, 0, true},
        {"none beats nothing", "", 0, 0, kPublic1, 100, 0, false},
        {"the same address stays", kPublic1, 5, 0, kPublic1, 10, 0, false},
        {"the same address with a larger MTU", kPublic1, 10, 1400, kPublic1, 5, 1280, true},
        {"the same address with a smaller MTU", kPublic1, 5, 1280, kPublic1, 10, 1400, false},
        {"faster wins", kPublic1, 5, 0, kPublic2, 10, 0, true},
        {"slower loses", kPublic1, 10, 0, kPublic2, 5, 0, false},
        {"one percent is noise", kPublic1, 99, 0, kPublic2, 100, 0, false},
        {"two percent count", kPublic1, 98, 0, kPublic2, 100, 0, true},
        {"equal latency keeps the old", kPublic1, 50, 0, kPublic2, 50, 0, false},
        {"IPv6 at equal latency", kPublic6, 100, 0, kPublic1, 100, 0, true},
        {"IPv6 slightly slower", kPublic6, 105, 0, kPublic1, 100, 0, true},
        {"IPv6 much slower", kPublic6, 130, 0, kPublic1, 100, 0, false},
        {"private at equal latency", kPrivate, 100, 0, kPublic1, 100, 0, true},
        {"private a little slower than public IPv6", kPrivate, 105, 0, kPublic6, 100, 0, true},
        {"private much slower", kPrivate, 200, 0, kPublic1, 100, 0, false},
        {"private IPv6 over private IPv4", kPrivate6, 10, 0, kPrivate, 10, 0, true},
        {"link-local over private", kLinkLocal, 10, 0, kPrivate6, 10, 0, true},
        {"loopback over all", kLoopback, 10, 0, kLinkLocal, 10, 0, true},
    };
    for (const Row& r : rows)
        EXPECT_EQ(better_addr(scored(r.a, r.a_ms, r.a_mtu), scored(r.b, r.b_ms, r.b_mtu)), r.a_wins) << r.why;
}

TEST(BetterAddr, NeverPrefersEachOfTwoToTheOther) {
    const char* eps[] = {"", kPublic1, kPublic2, kPublic6, kPrivate, kPrivate6, kLinkLocal, kLoopback};
    for (const char* a : eps)
        for (const char* b : eps)
            for (int64_t la : {1, 5, 50, 99, 100, 300})
                for (int64_t lb : {1, 5, 50, 99, 100, 300}) {
                    const ScoredAddr x = scored(a, la, 0);
                    const ScoredAddr y = scored(b, lb, 0);
                    EXPECT_FALSE(better_addr(x, y) && better_addr(y, x)) << a << " " << la << " " << b << " " << lb;
                }
}

}  // namespace
}  // namespace mesh::magicsock
