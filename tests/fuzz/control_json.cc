// SPDX-License-Identifier: BSD-3-Clause
// The small answers of a control server: key, registration; and the URL of one as a person types it.

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/check.h"
#include "tailscaled/control/control.h"
#include "tailscaled/control/upgrade.h"

using namespace mesh;
using namespace mesh::control;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view text = as_text({data, size});
    if (const auto key = parse_server_key(text)) {
        CHECK(!key->is_zero());
        const auto again = parse_server_key(R"({"legacyPublicKey":"x","publicKey":")" + key->text() + "\"}");
        CHECK(again && *again == *key);
    }
    if (const auto r = parse_register_response(text))
        CHECK(r->auth_url.size() <= size && r->error.size() <= size + 2 * size && r->user.login_name.size() <= 3 * size);
    if (const auto url = parse_control_url(text)) {
        CHECK(!url->host.empty() && url->port != 0 && (url->scheme == "http" || url->scheme == "https"));
        for (const bool again : {false, true}) {
            const auto targets = upgrade_targets(*url, again);
            CHECK(!targets.empty() && targets.size() <= 4);
            for (const UpgradeTarget& t : targets) {
                CHECK(t.port != 0 && (t.tls || url->scheme == "http" || t.port == 80));
                // The request has one head and nothing the URL smuggled in.
                const std::string wire = upgrade_request(*url, t, {}, "fuzz");
                http1::Parser parser(http1::Role::kRequests, 4096);
                const auto used = parser.feed(as_bytes(wire));
                CHECK(used && *used == wire.size() && parser.done());
                const http1::Request q = parser.take_request();
                CHECK(q.method == "POST" && q.header("Upgrade") == kUpgradeProtocol);
            }
        }
    }
    return 0;
}
