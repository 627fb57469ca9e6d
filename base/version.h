// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string_view>

namespace mesh {

/// Release of all programs. The first line of `tailscale version` is major.minor.patch.
inline constexpr std::string_view kVersion = "0.1.0";
inline constexpr std::string_view kLongVersion = "0.1.0-tailmesh";

}  // namespace mesh
