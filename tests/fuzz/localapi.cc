// SPDX-License-Identifier: BSD-3-Clause
// A local program at the socket: any bytes, in pieces, as a user who may or may not change things. Answers are well-formed
// HTTP; who may only read changes nothing, whatever the request looks like.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "base/log.h"
#include "tailscaled/localapi/fake_backend.h"
#include "tailscaled/localapi/session.h"
#include "tests/fuzz/growth.h"

using namespace mesh;

namespace {

struct Sink final : localapi::Wire {
    std::string out;
    bool write(std::string_view bytes, size_t) override {
        out += bytes;
        return true;
    }
    [[nodiscard]] size_t queued_bytes() const override { return 0; }
    platform::ByteStream release() override { return {}; }
    void session_finished() override {}
};

void check_answers(std::string_view out, bool watching) {
    while (!out.empty()) {
        http1::Parser parser(http1::Role::kResponses, 1U << 20);
        const auto used = parser.feed(as_bytes(out));
        CHECK(used && parser.headers_done());
        if (!parser.done()) {
            CHECK(watching);  // a bus has no end
            return;
        }
        out.remove_prefix(*used);
        const http1::Response r = parser.take_response();
        CHECK(r.status >= 200 && r.status < 600 && !r.header("Tailscale-Cap").empty());
        if (r.header("Content-Type") == "application/json" && r.status == 200) CHECK(!r.body.empty());
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 2) return 0;
    static const bool quiet = [] {
        log::set_sink([](std::string_view) {});
        return true;
    }();
    (void)quiet;
    const bool master = (data[0] & 1) != 0;
    const size_t piece = 1 + size_t{data[1]} * 4;
    ByteSpan rest(data + 2, size - 2);
    const bool heads = as_text(rest).find("HEAD") != std::string_view::npos;

    SeededRandom random(1);
    localapi::FakeBackend backend;
    backend.hold_completions = (data[0] & 2) != 0;
    localapi::Context context{backend, "", [] { return WallTime{1'795'223'795'000'000'000}; }, [master](uid_t) { return master; }, random};
    Sink wire;
    localapi::Session session(context, wire, 1000, 1);
    const api::Prefs before = backend.prefs_value;
    fuzz::equipment_ready();
    // A short request may ask for a whole status; answers wait here instead of in the kernel.
    fuzz::allow_growth(size * 64);
    while (!rest.empty() && !session.finished()) {
        const ByteSpan part = rest.first(std::min(piece, rest.size()));
        rest = rest.subspan(part.size());
        session.handle_bytes(part);
        if (backend.logout_done) std::exchange(backend.logout_done, {})({});
        if (backend.ping_done) std::exchange(backend.ping_done, {})({});
    }
    const bool watching = session.watching();
    session.handle_eof();
    CHECK(session.finished());
    if (!heads) check_answers(wire.out, watching);
    if (!master) {
        CHECK(backend.prefs_value == before);
        for (const std::string& call : backend.calls) CHECK(call.starts_with("ping "));
    }
    return 0;
}
