// SPDX-License-Identifier: BSD-3-Clause
// Any datagram to 100.100.100.100: what is answered must be well-formed, belong to the question and fit into UDP.

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "base/dns_message.h"
#include "tailscaled/dns/names.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace mesh;
    static const dns::NameTable names = [] {
        dns::NameTable t;
        t.set_suffix("tail.example");
        t.add_zone("tail.example");
        t.add_zone("64.100.in-addr.arpa");
        t.add_host("a.tail.example", Addr::v4(100, 64, 0, 1));
        t.add_wildcard("a.tail.example");
        t.add_reverse(Addr::v4(100, 64, 0, 1), "a.tail.example");
        return t;
    }();
    const ByteSpan datagram(data, size);
    dns::Query q;
    const auto error = dns::parse_query(datagram, q);
    Bytes reply;
    const auto outcome = dns::answer(names, datagram, reply);
    if ((error == dns::QueryError::kIgnore) != (outcome == dns::Outcome::kIgnore)) std::abort();
    if (outcome == dns::Outcome::kAnswered) {
        if (!dns::parse_message(reply)) std::abort();
        if (error == dns::QueryError::kNone) {
            if (!dns::answers(reply, q, q.header.id)) std::abort();
            if (dns::fit_udp(datagram, reply).size() > q.udp_limit()) std::abort();
            Bytes again;
            // A name that came over the wire has a text that leads back to it.
            if (!dns::append_name(again, q.name)) std::abort();
        }
    }
    if (const auto m = dns::parse_message(datagram))
        for (const auto& r : m->answers) static_cast<void>(dns::data_text(datagram, r));
    return 0;
}
