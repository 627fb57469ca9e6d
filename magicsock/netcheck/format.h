// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The report as `tailscale netcheck` prints it.

#include <string>

#include "base/json.h"
#include "base/time.h"
#include "magicsock/derp/derp_map.h"
#include "magicsock/netcheck/netcheck.h"

namespace mesh::netcheck {

/// Starts with an empty line; ends with a newline. `utc_offset`: of local time, for the Time line.
[[nodiscard]] std::string format_text(const Report& report, const derp::DerpMap& map, bool verbose = false,
                                      Duration utc_offset = {});
/// Tab-indented (`--format=json`) or one line (`json-line`); no newline at the end. `extra`: an object whose keys follow the
/// report's own; null: none.
[[nodiscard]] std::string format_json(const Report& report, const Json& extra = nullptr);
[[nodiscard]] std::string format_json_line(const Report& report, const Json& extra = nullptr);
/// As Go prints a duration: "800µs", "1.2ms", "12.3s", "0s".
[[nodiscard]] std::string duration_text(Duration d);

}  // namespace mesh::netcheck
