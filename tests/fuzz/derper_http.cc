// SPDX-License-Identifier: BSD-3-Clause
// A request to the relay's web server, parsed or not, and what it decides about it: page, upgrade, who really asks. Answers
// are well-formed HTTP whatever was asked; nothing from the request can add a header of its own.

#include <openssl/sha.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "derper/admission.h"
#include "derper/pages.h"
#include "derper/websocket.h"
#include "tests/fuzz/growth.h"

using namespace mesh;

namespace {

/// Goes over the wire and comes back the same.
void check_answer(const http1::Response& r) {
    const std::string wire = http1::serialize(r);
    http1::Parser parser(http1::Role::kResponses, 64U << 10);
    if (r.body.empty()) parser.stop_at_headers();
    const auto used = parser.feed(as_bytes(wire));
    CHECK(used && *used == wire.size());
    CHECK(parser.headers_done());
    const http1::Response back = parser.take_response();
    CHECK(back.status == r.status && back.body == r.body);
    // Content-Length and Connection may join, nothing else.
    CHECK(back.headers.size() <= r.headers.size() + 2);
    for (const auto& [name, value] : r.headers) CHECK(back.header(name) == value);
}

void check_upgrade(const http1::Request& q, const derper::Upgrade upgrade) {
    if (upgrade == derper::Upgrade::kWebSocket) {
        const std::string head = derper::websocket_accept(q);
        if (head.empty()) return check_answer(derper::refusal(upgrade));
        http1::Parser parser(http1::Role::kResponses, 0);
        const auto used = parser.feed(as_bytes(head));
        CHECK(used && *used == head.size() && parser.take_response().status == 101);
    } else if (upgrade == derper::Upgrade::kNone) {
        check_answer(derper::refusal(upgrade));
    }
    (void)derper::wants_fast_start(q);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static const std::vector<Prefix> trusted{*Prefix::parse("10.0.0.0/8"), *Prefix::parse("fd00::/8")};
    static const Addr proxy = *Addr::parse("10.1.2.3"), stranger = *Addr::parse("203.0.113.9");
    // OpenSSL makes its tables at the first hash.
    static const bool hashed = SHA1(data, 0, nullptr) != nullptr;
    CHECK(hashed);
    fuzz::equipment_ready();
    const ByteSpan bytes(data, size);
    // An answer of the operator's admission controller: only a clear yes is a yes.
    if (const Status verdict = derper::judge_verify_answer(200, as_text(bytes)); verdict)
        CHECK(as_text(bytes).find("llow") != std::string_view::npos && as_text(bytes).find("true") != std::string_view::npos);
    CHECK(!derper::judge_verify_answer(403, as_text(bytes)));

    http1::Parser parser(http1::Role::kRequests, 4096);
    if (const auto used = parser.feed(bytes); !used || !parser.done()) return 0;
    const http1::Request q = parser.take_request();
    check_answer(derper::answer_page(q));
    check_answer(derper::answer_page(q, "https://example.test/"));
    const http1::Response redirect = derper::answer_port_80(q);
    check_answer(redirect);
    if (redirect.status == 302) CHECK(redirect.header("Location").starts_with("https://"));
    check_upgrade(q, derper::wanted_upgrade(q));
    // Only a trusted proxy is believed.
    CHECK(derper::real_client(q, stranger, trusted).addr == stranger);
    const derper::Asker who = derper::real_client(q, proxy, trusted);
    CHECK(who.addr.is_valid());
    if (who.addr != proxy) CHECK(q.has_header("X-Forwarded-For") && who.certain);
    return 0;
}
