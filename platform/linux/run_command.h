// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Runs a program to its end: for iptables and nft, which have no better door.

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/time.h"

namespace mesh::platform {

struct CommandOutput {
    int exit_code = 0;  ///< 128 + signal if killed by one
    std::string out;
    std::string err;
};

/// Full path of a program in PATH or the usual sbin folders (services often have a short PATH); empty: not installed.
[[nodiscard]] std::string find_program(std::string_view name);

/// argv[0] is looked up with find_program(); kNotFound if it is not installed. Blocks at most `limit`, then kills the
/// program and its children (kTimeout). Each output stream is cut off with kLimit at 64 MiB. No shell. Threadsafe.
[[nodiscard]] Result<CommandOutput> run_command(const std::vector<std::string>& argv, std::string_view input = {},
                                                Duration limit = seconds(15));

}  // namespace mesh::platform
