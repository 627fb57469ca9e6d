// SPDX-License-Identifier: BSD-3-Clause
// The straight line of the engine takes nothing from the heap. Counts every operator new of this program.
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>

#include "base/sanitized.h"
#include "wg/testing.h"

namespace {
size_t allocations = 0;
}

#if !MESH_SANITIZED  // which have a heap of their own
void* operator new(size_t n) {
    ++allocations;
    if (void* p = std::malloc(n != 0 ? n : 1)) return p;
    std::abort();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
#endif

namespace mesh::wg {
namespace {

TEST(StraightLine, AllocatesNothing) {
    if (MESH_SANITIZED) GTEST_SKIP() << "a sanitizer owns the heap";
    testing::CalmPair p;
    p.connect();
    p.b.transmit(0, "both ways once", p.now);
    p.settle();
    uint8_t slot[2048] = {};
    size_t allocated = 0;
    for (int batch = 0; batch < 500; ++batch) {
        p.now = p.now + milliseconds(200);
        const size_t before = allocations;
        Session* const s = p.a.device.send_session(0, p.now);
        ASSERT_NE(s, nullptr);
        for (int i = 0; i < 8; ++i) {
            const size_t n = p.a.device.seal(*s, slot, 1280, 1280);
            const auto o = p.b.device.receive({slot, n}, testing::source_of(1), p.now);
            ASSERT_EQ(o.kind, Device::Opened::kData);
        }
        p.a.device.sent_data(0, 8 * 1312, p.now);
        p.b.device.received_data(0, 8 * 1312, p.now);
        uint8_t junk[64] = {4};
        (void)p.b.device.receive(junk, testing::source_of(1), p.now);
        (void)p.b.device.next_timeout();
        allocated += allocations - before;
        p.b.device.handle_timeout(p.now);  // keepalives: the recording output of the test may allocate here
        p.a.device.handle_timeout(p.now);
        p.a.forget_sent();
        p.b.forget_sent();
    }
    EXPECT_EQ(allocated, 0U);
}

TEST(IdlePeers, CostLittle) {
    crypto::init();
    testing::Node n(1);
    SeededRandom r(2);
    const size_t before = allocations;
    for (PeerId id = 0; id < 1000; ++id) {
        NodePublic k;
        r.fill(k.raw);
        n.device.add_peer(id, k);
    }
    // One node of the map each, and the growth of two tables.
    EXPECT_LE(allocations - before, 1000U + 64U);
    EXPECT_TRUE(n.device.next_timeout().is_never());
}

}  // namespace
}  // namespace mesh::wg
