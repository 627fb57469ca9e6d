// SPDX-License-Identifier: BSD-3-Clause
// DNS from programs of this host and from servers. A query gets a well-formed answer to itself, or silence; names and
// addresses read and written again are the same; a message of a server is read whole or not at all.

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "base/dns_message.h"
#include "tailscaled/dns/names.h"
#include "tailscaled/dns/routes.h"
#include "tests/fuzz/growth.h"

using namespace mesh;
using namespace mesh::dns;

namespace {

const NameTable& table() {
    static const NameTable t = [] {
        NameTable n;
        n.set_suffix("t.example");
        n.add_zone("t.example.");
        n.add_zone("64.100.in-addr.arpa");
        for (uint8_t i = 0; i < 20; ++i) n.add_host("many.t.example", Addr::v4(100, 64, 1, i));
        n.add_host("b.t.example.", Addr::v4(100, 64, 0, 2));
        n.add_host("b.t.example.", *Addr::parse("fd7a:115c:a1e0::2"));
        n.add_reverse(Addr::v4(100, 64, 0, 2), "b.t.example.");
        n.add_wildcard("b.t.example");
        return n;
    }();
    return t;
}

void check_reply(ByteSpan query, ByteSpan reply, bool to_good_query) {
    const auto head = parse_header(reply);
    CHECK(head && head->response && head->id == parse_header(query)->id && parse_message(reply));
    Query q;
    if (to_good_query) CHECK(parse_query(query, q) == QueryError::kNone && answers(reply, q, q.header.id));
}

void ask(ByteSpan bytes) {
    Query q;
    const QueryError error = parse_query(bytes, q);
    const bool good = error == QueryError::kNone;
    if (good) CHECK(q.question.size() >= 5 && q.question.size() <= bytes.size() && q.udp_limit() >= kPlainUdpBytes);
    Bytes reply;
    const Outcome outcome = answer(table(), bytes, reply);
    CHECK((outcome == Outcome::kIgnore) == (error == QueryError::kIgnore));
    if (outcome == Outcome::kForward) CHECK(good && reply.empty());
    if (outcome == Outcome::kAnswered) {
        check_reply(bytes, reply, good);
        const Bytes fits = fit_udp(bytes, reply);
        CHECK(fits.size() <= (good ? q.udp_limit() : kPlainUdpBytes));
        check_reply(bytes, fits, good);
    }
    if (good) check_reply(bytes, failure(bytes, kServFail), true);
}

void read(ByteSpan bytes) {
    const auto m = parse_message(bytes);
    if (!m) return;
    CHECK(m->answers.size() == m->header.answers);
    for (const Record& r : m->answers) {
        CHECK(r.data_at + r.data.size() <= bytes.size() && r.name.size() <= 4 * 255);
        CHECK(data_text(bytes, r).size() <= 5 * bytes.size() + 1100);  // a name may be unpacked by a pointer
        CHECK(canonical(r.name) == r.name);
        CHECK(parse_type(type_name(r.type)) == r.type);
    }
}

void text(std::string_view t) {
    if (const Bytes wire = make_query(7, t, kTypeA); !wire.empty()) {
        Query q;
        CHECK(parse_query(wire, q) == QueryError::kNone && is_inside(q.name, "") && is_inside(q.name, q.name));
        const Bytes again = make_query(7, q.name, kTypeA);
        Query r;
        CHECK(parse_query(again, r) == QueryError::kNone && r.name == q.name);
    }
    if (const auto a = parse_reverse(t)) CHECK(parse_reverse(reverse_name(*a)) == a && canonical(t) == reverse_name(*a));
    if (const auto u = parse_upstream(std::string(t), {Addr::v4(192, 0, 2, 1)}))
        CHECK(u->at.is_valid() != !u->peer_url.empty() && (!u->at.is_valid() || u->at.port != 0));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    (void)table();
    fuzz::equipment_ready();
    const ByteSpan bytes(data, size);
    ask(bytes);
    read(bytes);
    text(as_text(bytes));
    return 0;
}
