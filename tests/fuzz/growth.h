// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// How much memory one input may cost. Every call of a target's LLVMFuzzerTestOneInput is measured (growth.cc stands around
/// it): the most that was allocated at a time beyond what there was before, and what stays allocated afterwards. More
/// than the limit aborts, in the tests and under libFuzzer alike.

#include <cstddef>

namespace mesh::fuzz {

/// Bytes that one input may make a parser hold at a time, and all inputs together may leave behind.
inline constexpr size_t kMaxGrowth = 64U << 10;

/// What the target made so far for this input is its equipment and counts no longer.
void equipment_ready();
/// This input may cost `bytes` more. For a reader whose product is by nature a multiple of its input; say why.
void allow_growth(size_t bytes);

}  // namespace mesh::fuzz
