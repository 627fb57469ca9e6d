// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Shared by the parsers of this room; include it from .cc files only (it brings the JSON library with it).

#include "base/json.h"
#include "tailscaled/api/status.h"

namespace mesh::api {

/// Empty if absent or no object.
[[nodiscard]] CapMap read_cap_map(const Json& j, const char* key);
[[nodiscard]] UserProfile read_user_profile(const Json& j);
/// Zero if absent or malformed.
[[nodiscard]] WallTime read_time(const Json& j, const char* key);

/// Elements that T::parse accepts; others are skipped.
template <class T>
std::vector<T> read_list(const Json& j, const char* key) {
    std::vector<T> out;
    for (const std::string& s : json::strings(j, key))
        if (auto v = T::parse(s)) out.push_back(*v);
    return out;
}

}  // namespace mesh::api
