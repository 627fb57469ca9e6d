// SPDX-License-Identifier: BSD-3-Clause
// Prefs, masked prefs and start options as a client may send them: never a crash, and what is accepted is written and
// read again to the same value.

#include <cstdint>
#include <cstdlib>

#include "tailscaled/api/prefs.h"

using namespace mesh;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    if (const auto prefs = api::parse_prefs(text)) {
        const auto again = api::parse_prefs(api::prefs_json(*prefs, api::Secrets::kShown));
        if (!again) std::abort();
        (void)api::check_prefs(*again);
    }
    if (const auto masked = api::parse_masked_prefs(text)) {
        const auto again = api::parse_masked_prefs(api::masked_prefs_json(*masked));
        if (!again || again->mask != masked->mask) std::abort();
        api::Prefs target;
        masked->apply_to(target);
    }
    if (const auto options = api::parse_start_options(text)) (void)api::start_options_json(*options);
    return 0;
}
