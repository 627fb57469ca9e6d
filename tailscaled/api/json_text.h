// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Writes JSON text directly, without a tree: a status of 10,000 peers costs its text and nothing else. Output has the
/// exact shape of Go's encoder (which clients were tested with). Pure.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/time.h"

namespace mesh::api {

/// Appends to one string. The caller opens and closes objects and arrays in pairs; commas are placed by the writer.
class JsonText {
   public:
    JsonText() = default;  ///< compact
    /// As indent_json() would make of it.
    explicit JsonText(std::string_view indent) : indent_(indent) {}

    JsonText& open_object();
    JsonText& close_object();
    JsonText& open_array();
    JsonText& close_array();
    JsonText& key(std::string_view name);

    JsonText& text(std::string_view value);  ///< escaped as Go does; invalid UTF-8 is replaced
    JsonText& integer(int64_t value);
    JsonText& number(double value);  ///< shortest form, as Go: 0.000325748, 1e-7
    JsonText& boolean(bool value);
    JsonText& null();
    JsonText& time(WallTime value);
    /// Compact JSON made elsewhere; empty is written as null.
    JsonText& raw(std::string_view json);

    /// key + value in one.
    JsonText& field(std::string_view name, std::string_view value) { return key(name).text(value); }
    JsonText& field(std::string_view name, const char* value) { return key(name).text(value); }
    JsonText& field(std::string_view name, bool value) { return key(name).boolean(value); }
    JsonText& field(std::string_view name, int64_t value) { return key(name).integer(value); }
    JsonText& field(std::string_view name, int value) { return key(name).integer(value); }
    JsonText& field(std::string_view name, WallTime value) { return key(name).time(value); }
    JsonText& raw_field(std::string_view name, std::string_view json) { return key(name).raw(json); }

    /// Array of strings; an empty list is `null` or `[]`.
    enum class Empty : uint8_t { kNull, kArray, kOmit };
    JsonText& list(std::string_view name, const std::vector<std::string>& values, Empty empty);
    JsonText& list(std::string_view name, const std::vector<Addr>& values, Empty empty);
    JsonText& list(std::string_view name, const std::vector<Prefix>& values, Empty empty);
    JsonText& list(std::string_view name, const std::vector<Endpoint>& values, Empty empty);

    [[nodiscard]] const std::string& str() const { return out_; }
    [[nodiscard]] std::string take() { return std::move(out_); }

   private:
    template <class T>
    JsonText& list_of(std::string_view name, const std::vector<T>& values, Empty empty);
    enum class At : uint8_t { kFirst, kNext, kValue };  // in a new container, behind an element, behind a key
    void place();
    void open(char bracket);
    void close(char bracket);
    std::string out_;
    std::string indent_, line_;  // line_: line break and indentation due before an element; empty if there is none
    At at_ = At::kFirst;
};

/// White space between tokens removed, everything else as it is. The inverse of indent_json().
[[nodiscard]] std::string compact_json(std::string_view json);
/// JSON → one key or element per line, `indent` per level, ": " after keys, "{}" and "[]" closed up. White space between the
/// tokens of the input does not count.
[[nodiscard]] std::string indent_json(std::string_view json, std::string_view indent);

}  // namespace mesh::api
