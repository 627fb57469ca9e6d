// SPDX-License-Identifier: BSD-3-Clause
// What the command reads from a daemon (status, whois, ping, bus), and the writer of JSON text: what is read and written
// stays the same from then on, indenting is undone by compacting.

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/check.h"
#include "base/json.h"
#include "tailscaled/api/node.h"
#include "tailscaled/api/notify.h"
#include "tailscaled/api/ping.h"
#include "tailscaled/api/status.h"

using namespace mesh;

namespace {

/// What `write` makes of a value is read as a value that writes the same.
template <class Value, class Parse, class Write>
void settles(const Value& value, Parse&& parse, Write&& write) {
    const std::string once = write(value);
    CHECK(json::parse(once));
    const auto again = parse(once);
    CHECK(again);
    CHECK(write(*again) == once);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view text = as_text({data, size});
    if (const auto s = api::parse_status(text)) {
        settles(*s, api::parse_status, [](const api::DaemonStatus& status) { return api::status_json(status); });
        CHECK(api::status_json(*s, "\t") == api::indent_json(api::status_json(*s), "\t"));
    }
    if (const auto w = api::parse_whois(text)) settles(*w, api::parse_whois, api::whois_json);
    if (const auto p = api::parse_ping_result(text)) settles(*p, api::parse_ping_result, api::ping_result_json);
    if (const auto n = api::parse_notify(text)) CHECK(!n->state || *n->state <= api::State::kRunning);
    if (const auto j = json::parse(text)) {
        const std::string compact = api::compact_json(text);
        const auto same = json::parse(compact);
        CHECK(same && *same == *j && compact.size() <= size);
        const std::string tall = api::indent_json(compact, "\t");
        CHECK(api::compact_json(tall) == compact);
    }
    api::JsonText out;
    out.open_object().field("a", text).close_object();
    const auto quoted = json::parse(out.str());
    CHECK(quoted);
    const auto plain = json::parse("\"" + std::string(text) + "\"");
    // Text without anything to escape or repair arrives as it is.
    if (plain && plain->is_string() && text.find('\\') == std::string_view::npos) CHECK(json::str(*quoted, "a") == text);
    return 0;
}
