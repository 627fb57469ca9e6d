// SPDX-License-Identifier: BSD-3-Clause
// HTTP/1.1 from a stranger, in pieces of any size: the result must not depend on how the bytes were cut, and bodies stay
// under their limit.

#include <algorithm>
#include <cstdlib>

#include "base/http1.h"

using namespace mesh;

namespace {

constexpr size_t kBodyLimit = 4096;

struct Outcome {
    bool failed = false, done = false;
    std::string body;
    bool operator==(const Outcome&) const = default;
};

Outcome feed(http1::Role role, ByteSpan bytes, size_t piece) {
    http1::Parser parser(role, kBodyLimit);
    Bytes pending;
    Outcome o;
    // The owner of a stream keeps what was not used and offers it again with more behind it.
    while (!o.failed && !parser.done()) {
        const size_t n = std::min(piece, bytes.size());
        pending.insert(pending.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n));
        bytes = bytes.subspan(n);
        const auto used = parser.feed(pending);
        if (!used) {
            o.failed = true;
            break;
        }
        if (*used > pending.size()) std::abort();
        pending.erase(pending.begin(), pending.begin() + static_cast<std::ptrdiff_t>(*used));
        if (n == 0) break;
    }
    if (!o.failed && !parser.done()) o.failed = !parser.feed_eof();
    o.done = !o.failed && parser.done();
    if (o.done) {
        if (role == http1::Role::kRequests) {
            const http1::Request r = parser.take_request();
            (void)http1::parse_target(r.target);
            (void)http1::serialize(r);
            o.body = r.body;
        } else {
            const http1::Response r = parser.take_response();
            (void)http1::serialize(r);
            o.body = r.body;
        }
        if (o.body.size() > kBodyLimit) std::abort();
    }
    return o;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size == 0) return 0;
    const http1::Role role = (data[0] & 1) != 0 ? http1::Role::kRequests : http1::Role::kResponses;
    const size_t piece = 1 + (data[0] >> 1) % 64U;
    const ByteSpan bytes(data + 1, size - 1);
    const Outcome whole = feed(role, bytes, std::max<size_t>(bytes.size(), 1));
    const Outcome cut = feed(role, bytes, piece);
    if (whole.done && cut.done && whole.body != cut.body) std::abort();
    const std::string_view text = as_text(bytes);
    (void)http1::parse_url(text);
    (void)http1::parse_target(text);
    if (const auto plain = http1::percent_decode(text)) {
        if (http1::percent_decode(http1::percent_encode(*plain)) != plain) std::abort();
    }
    return 0;
}
