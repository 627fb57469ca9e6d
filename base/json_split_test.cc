// SPDX-License-Identifier: BSD-3-Clause
#include "base/json_split.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace mesh::json {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> elements(std::string_view text) {
    std::vector<std::string> out;
    const Status s = split_array(text, [&](std::string_view v) -> Status {
        out.emplace_back(v);
        return {};
    });
    if (!s) out = {"error"};
    return out;
}

TEST(JsonSplit, CutsArraysAndObjectsAndLeavesTheInsideAlone) {
    EXPECT_THAT(elements(R"( [ {"a":[1,"]"]} , "x\",]" ,-1.5e3,null,[ ] ] )"),
                ElementsAre(R"({"a":[1,"]"]})", R"("x\",]")", "-1.5e3", "null", "[ ]"));
    EXPECT_TRUE(elements("[]").empty());
    std::vector<std::string> seen;
    ASSERT_TRUE(split_object(R"({"k":{"x":"}"},"\"q":2 })", [&](std::string_view k, std::string_view v) -> Status {
        seen.emplace_back(std::string(k) + "=" + std::string(v));
        return {};
    }));
    EXPECT_THAT(seen, ElementsAre(R"(k={"x":"}"})", R"(\"q=2)"));
}

TEST(JsonSplit, MalformedTextsAreErrors) {
    for (const char* text : {"", "[", "]", "{}", "[1", "[1,", "[1,]", "[1 2]", "[\"a]", "[[]", "[]]", "[\"\\", "[{]", "[,1]"})
        EXPECT_THAT(elements(text), ElementsAre("error")) << text;
}

TEST(JsonSplit, StopsAtTheFirstErrorOfTheCaller) {
    int calls = 0;
    EXPECT_FALSE(split_array("[1,2,3]", [&](std::string_view) -> Status {
        ++calls;
        return fail(Code::kLimit, "enough");
    }));
    EXPECT_EQ(calls, 1);
}

TEST(JsonSplit, PiecesAreLimitedInLengthDepthAndMembers) {
    EXPECT_TRUE(parse_piece(R"({"a":1})"));
    EXPECT_FALSE(parse_piece(std::string(200, ' ') + "1", {100, 10}));
    EXPECT_FALSE(parse_piece(std::string(5000, '[') + std::string(5000, ']')));
    std::string wide = "{";
    for (int i = 0; i < 5000; ++i) wide += "\"" + std::to_string(i) + "\":1,";
    wide.back() = '}';
    EXPECT_FALSE(parse_piece(wide));
    EXPECT_TRUE(parse_piece(wide, {1U << 20, 6000}));
    EXPECT_FALSE(parse_piece("{\"a\":}"));
}

}  // namespace
}  // namespace mesh::json
