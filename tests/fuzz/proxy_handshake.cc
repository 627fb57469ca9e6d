// SPDX-License-Identifier: BSD-3-Clause
// What a program says to the proxy: the cut of the stream changes nothing, and a target has a name and a port.

#include "base/check.h"
#include "netstack/proxy_handshake.h"

using namespace mesh;
using netstack::ProxyHandshake;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const ByteSpan all(data, size);
    if (const auto d = netstack::parse_socks_datagram(all)) CHECK(!d->host.empty() && d->port != 0 && d->payload.size() < size);
    ProxyHandshake whole(true, true), cut(true, true);
    const ProxyHandshake::Step step = whole.feed(all);
    ProxyHandshake::Step last = ProxyHandshake::Step::kMore;
    size_t used = 0;
    for (; used < size && last == ProxyHandshake::Step::kMore; ++used) last = cut.feed(all.subspan(used, 1));
    CHECK(last == step);
    CHECK(whole.take_reply() == cut.take_reply());
    if (step != ProxyHandshake::Step::kConnect) return 0;
    CHECK(!whole.host().empty() && whole.host().size() <= 255 && whole.port() != 0);
    CHECK(whole.host() == cut.host() && whole.port() == cut.port() && whole.greeting() == cut.greeting());
    CHECK(whole.take_first() == cut.take_first() + std::string(as_text(all.subspan(used))));
    CHECK(!whole.refusal({Code::kTimeout, 0, "x"}).empty());
    return 0;
}
