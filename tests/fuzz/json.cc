// SPDX-License-Identifier: BSD-3-Clause
// Any text as JSON: never an exception; what is accepted is written, read again and written the same.

#include <cstdlib>

#include "base/bytes.h"
#include "base/json.h"

using namespace mesh;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view text = as_text({data, size});
    if (const auto t = json::parse_time(text)) (void)json::time_text(*t);
    const auto j = json::parse(text);
    if (!j) return 0;
    if (text.find('\0') != std::string_view::npos) std::abort();
    (void)json::str(*j, "a");
    (void)json::integer(*j, "a");
    (void)json::number(*j, "a");
    (void)json::boolean(*j, "a");
    (void)json::strings(*j, "a");
    const std::string once = json::dump(*j);
    const auto again = json::parse(once);
    if (!again || json::dump(*again) != once) std::abort();
    (void)json::dump(*j, "\t");
    return 0;
}
