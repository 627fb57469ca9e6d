// SPDX-License-Identifier: BSD-3-Clause
// Texts cut into members before anything parses them. Of valid JSON the pieces are exactly the members; of any text they
// lie inside it, in order.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/json_split.h"

using namespace mesh;
using namespace mesh::json;

namespace {

struct Piece {
    std::string_view key, value;
};

std::optional<std::vector<Piece>> cut(std::string_view text, bool object) {
    std::vector<Piece> out;
    const char* last = text.data();
    const auto take = [&](std::string_view key, std::string_view value) -> Status {
        for (const std::string_view part : {key, value}) {
            if (part.data() == nullptr) continue;
            CHECK(part.data() >= last && part.data() + part.size() <= text.data() + text.size());
            last = part.data() + part.size();
        }
        CHECK(!value.empty());
        out.push_back({key, value});
        return {};
    };
    const Status ok = object ? split_object(text, take) : split_array(text, [&](std::string_view v) { return take({}, v); });
    if (!ok) return std::nullopt;
    return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view text = as_text({data, size});
    const auto members = cut(text, true), elements = cut(text, false);
    CHECK(!members || !elements);
    (void)parse_piece(text, {.bytes = 512, .members = 8});
    const auto j = json::parse(text);
    if (!j) return 0;
    CHECK(j->is_object() == members.has_value() && j->is_array() == elements.has_value());
    if (elements) {
        CHECK(elements->size() == j->size());
        for (size_t i = 0; i < elements->size(); ++i) {
            const auto one = json::parse((*elements)[i].value);
            CHECK(one && *one == (*j)[i]);
        }
    }
    if (members) {
        CHECK(members->size() >= j->size());  // a key may come twice
        for (const Piece& m : *members) {
            const auto key = json::parse("\"" + std::string(m.key) + "\"");
            CHECK(key && key->is_string() && j->contains(key->get<std::string>()));
            CHECK(json::parse(m.value));
        }
    }
    return 0;
}
