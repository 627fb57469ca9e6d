// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Tables of `debug drops` and `debug paths`, made from the daemon's JSON. Pure; what is not understood is left out.

#include <string>
#include <string_view>

namespace mesh::cli {

/// Object reason → count. Reasons with 0 only if `all`.
[[nodiscard]] std::string drops_text(std::string_view json, bool all);
/// Array of objects, one per peer. `peer` limits it to a name or address; "" = all. Strings, numbers and lists of a
/// peer's object are printed as "key: value" lines, so the daemon may add what it knows.
[[nodiscard]] std::string paths_text(std::string_view json, const std::string& peer);

}  // namespace mesh::cli
