// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Files below /proc/sys.

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace mesh::platform {

/// "net/ipv4/ip_forward" -> content without the newline; nullopt: absent or not readable.
[[nodiscard]] std::optional<std::string> read_sysctl(const std::string& key);
[[nodiscard]] Status write_sysctl(const std::string& key, std::string_view value);

}  // namespace mesh::platform
