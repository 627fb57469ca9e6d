// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// For tests. Every test binary of a room that runs loops is linked with leak_check.cc: a test that leaves a descriptor open
/// fails. A loop holds three of them as long as it lives, each socket one; a handle that outlives its loop ends the program
/// (Loop::~Loop), so what is left is seen here.

#include <map>
#include <string>
#include <vector>

namespace mesh::platform::testing {

/// What this process has open: number → target as /proc/self/fd shows it.
[[nodiscard]] std::map<int, std::string> open_descriptors();
/// Those of `now` that `before` had not, as "7 = anon_inode:[eventpoll]".
[[nodiscard]] std::vector<std::string> left_open(const std::map<int, std::string>& before, const std::map<int, std::string>& now);

}  // namespace mesh::platform::testing
