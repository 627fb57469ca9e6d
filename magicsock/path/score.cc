// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/path/score.h"

namespace mesh::magicsock {
namespace {

int64_t address_points(const Addr& a) {
    int64_t points = a.is_v6() ? 10 : 0;
    if (a.is_loopback())
        points += 50;
    else if (a.is_link_local())
        points += 30;
    else if (a.is_private())
        points += 20;
    return points;
}

int64_t speed_points(Duration fast, Duration slow) { return 100 - fast.ns * 100 / slow.ns; }

}  // namespace

bool better_addr(const ScoredAddr& a, const ScoredAddr& b) {
    if (a.ep == b.ep) return a.wire_mtu > b.wire_mtu;
    if (!b.ep.is_valid()) return true;
    if (!a.ep.is_valid()) return false;
    int64_t a_points = address_points(a.ep.addr);
    int64_t b_points = address_points(b.ep.addr);
    if (a.latency > b.latency)
        b_points += speed_points(b.latency, a.latency);
    else if (b.latency.ns > 0)
        a_points += speed_points(a.latency, b.latency);
    if (a_points <= 1 && b_points == 0) return false;
    return a_points > b_points;
}

}  // namespace mesh::magicsock
