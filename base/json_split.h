// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Cuts large JSON texts into the pieces that are then parsed one by one, so that a map or status of 10,000 peers never exists
/// as a tree. Linear in the length of the text and without memory of its own, whatever a server sends.

#include <functional>
#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace mesh::json {

/// Limits of one piece: text length, and members of any object in it (objects keep their order, so that looking for a
/// member is linear in their number).
struct PieceLimits {
    size_t bytes = 4U << 20;
    size_t members = 4096;
};

/// Calls `member(key, value text)` for each member of an object. The key has its escapes still in it. Values are only
/// delimited, not checked. Stops with the first error that `member` returns.
[[nodiscard]] Status split_object(std::string_view text,
                                  const std::function<Status(std::string_view key, std::string_view value)>& member);
/// The same for the elements of an array.
[[nodiscard]] Status split_array(std::string_view text, const std::function<Status(std::string_view value)>& element);
[[nodiscard]] inline bool is_null(std::string_view value) { return value == "null"; }
[[nodiscard]] inline bool is_array(std::string_view value) { return value.starts_with('['); }
[[nodiscard]] inline bool is_object(std::string_view value) { return value.starts_with('{'); }
/// Parses one piece.
[[nodiscard]] Result<Json> parse_piece(std::string_view value, const PieceLimits& limits = {});

}  // namespace mesh::json
