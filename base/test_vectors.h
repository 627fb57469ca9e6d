// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// For tests only: reads recorded data (tests/vectors/README.md).

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>

#include "base/bytes.h"
#include "base/json.h"

namespace mesh::testing {

/// The JSON file; null and a failed test if there is none.
inline Json load_vectors(const std::string& path) {
    std::ifstream f(path);
    EXPECT_TRUE(f.good()) << path;
    std::stringstream text;
    text << f.rdbuf();
    auto parsed = json::parse(text.str());
    EXPECT_TRUE(parsed.has_value()) << path;
    return parsed ? std::move(*parsed) : Json();
}

inline Bytes from_hex(const std::string& text) {
    Bytes b(text.size() / 2);
    EXPECT_TRUE(hex_decode(text, b)) << text;
    return b;
}
/// The bytes of a hex string in an object.
inline Bytes hex_of(const Json& j, const char* key) { return from_hex(json::str(j, key)); }

}  // namespace mesh::testing
