// SPDX-License-Identifier: BSD-3-Clause
// The relay's list of node keys and its key file. Every key that is in stands in the text; written out, the list reads the
// same; an error names a line and shows nothing unprintable.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/check.h"
#include "derper/admission.h"
#include "derper/options.h"

using namespace mesh;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view text = as_text({data, size});
    const auto keys = derper::parse_key_list(text);
    if (keys) {
        CHECK(keys->size() * 72 <= size);
        std::string again = "# ours\r\n\n";
        for (const NodePublic& k : *keys) {
            CHECK(!k.is_zero());
            again += " " + k.text() + " # remark\n";
        }
        const auto reread = derper::parse_key_list(again);
        CHECK(reread && *reread == *keys);
    } else {
        const std::string why = keys.error().message();
        CHECK(why.find("line ") != std::string::npos && why.size() < 400);
        CHECK(std::all_of(why.begin(), why.end(), [](char c) { return static_cast<unsigned char>(c) >= ' '; }));
    }
    if (const auto key = derper::parse_key_file(text)) {
        CHECK(!key->is_zero());
        const auto again = derper::parse_key_file(derper::key_file_text(*key));
        CHECK(again && *again == *key);
    }
    return 0;
}
