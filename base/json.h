// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The only file that includes nlohmann/json; include it from .cc files. Parsing never throws and is bounded in depth
/// and size; unknown fields are ignored and wrong types read as the default, because servers evolve.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/time.h"

namespace mesh {

/// Keeps the order of keys: outputs are compared byte for byte with the samples.
using Json = nlohmann::ordered_json;

namespace json {

/// At most `max_bytes`, nesting ≤ 64.
[[nodiscard]] Result<Json> parse(std::string_view text, size_t max_bytes = 64U << 20);
/// Go style: `indent` of "\t", "  " or "" for one line. Invalid UTF-8 is replaced, <, > and & are escaped as Go does.
[[nodiscard]] std::string dump(const Json& j, std::string_view indent = "");

/// Field access with defaults; `key` case-exact. Null and wrong types give the default.
[[nodiscard]] std::string str(const Json& j, const char* key, std::string_view fallback = "");
[[nodiscard]] int64_t integer(const Json& j, const char* key, int64_t fallback = 0);
[[nodiscard]] double number(const Json& j, const char* key, double fallback = 0);
[[nodiscard]] bool boolean(const Json& j, const char* key, bool fallback = false);
[[nodiscard]] std::optional<bool> opt_bool(const Json& j, const char* key);
/// nullptr if absent, null or j is no object.
[[nodiscard]] const Json* find(const Json& j, const char* key);
/// Strings of an array; non-strings skipped. Empty if absent.
[[nodiscard]] std::vector<std::string> strings(const Json& j, const char* key);

/// RFC 3339 with up to nanoseconds; zero is "0001-01-01T00:00:00Z".
[[nodiscard]] std::string time_text(WallTime t);
[[nodiscard]] std::optional<WallTime> parse_time(std::string_view text);

}  // namespace json
}  // namespace mesh
