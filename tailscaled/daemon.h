// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Builds and owns everything. Members die in reverse order; that is the shutdown.

#include <memory>
#include <string>

#include "tailscaled/flags.h"

namespace mesh::daemon {

/// Runs until a signal or a fatal error. Returns the exit code.
[[nodiscard]] int run_daemon(const Flags& flags);
/// --cleanup.
[[nodiscard]] int run_cleanup(const Flags& flags);

}  // namespace mesh::daemon
