// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// derper from its options to its end: files, sockets, signals, and what is told to the operator.

#include <string>

#include "base/result.h"
#include "derper/options.h"

namespace mesh::derper {

/// Serves until SIGINT or SIGTERM. SIGHUP reads certificates, rate limits and the list of keys again.
[[nodiscard]] Status run_relay(const Options& options, const std::string& version);

}  // namespace mesh::derper
