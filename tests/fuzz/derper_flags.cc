// SPDX-License-Identifier: BSD-3-Clause
// Command lines of the relay: words separated by newlines. What is accepted keeps its ranges, and every piece of text that
// has a parser of its own goes through it.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "derper/options.h"

using namespace mesh;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    std::string_view rest = as_text({data, size});
    if (const auto d = derper::parse_duration(rest)) CHECK(d->ns >= 0);
    if (const auto at = derper::parse_listen(rest); at && at->addr.is_valid()) {
        const auto again = derper::parse_listen(Endpoint{at->addr, at->port}.str());
        CHECK(again && again->addr == at->addr && again->port == at->port);
    }
    if (const auto prefixes = derper::parse_prefixes(rest))
        for (const Prefix& p : *prefixes) CHECK(p.is_valid() && p == p.masked() && Prefix::parse(p.str()) == p);
    if (derper::http_url(rest)) CHECK(rest.find_first_of(std::string_view("\0\r\n ", 4)) == std::string_view::npos);

    std::vector<std::string> words;
    while (!rest.empty() && words.size() < 100) {
        const std::string_view word = rest.substr(0, rest.find('\n'));
        rest.remove_prefix(std::min(rest.size(), word.size() + 1));
        words.emplace_back(word);
    }
    const auto o = derper::parse_options(words);
    if (!o) {
        CHECK(!o.error().message().empty());
        return 0;
    }
    if (o->version || o->help) return 0;
    CHECK(o->stun_port >= 1 && o->stun_port <= 65535 && o->http_port >= -1 && o->http_port <= 65535);
    CHECK(o->accept_limit > 0 && o->accept_burst >= 1 && o->write_timeout.ns >= 0);
    CHECK(o->hostname.find_first_of("/\\ ") == std::string::npos && !o->hostname.empty());
    if (!o->dev) CHECK(derper::parse_listen(o->listen));
    if (o->check.empty()) CHECK(derper::choose_security(*o));
    return 0;
}
