// SPDX-License-Identifier: BSD-3-Clause
// Any bytes as an IP packet: what parse() says stays inside the bytes, and filter, TSMP and ICMP bear it.

#include <cstdlib>

#include "netstack/filter.h"
#include "netstack/icmp.h"
#include "netstack/tsmp.h"
#include "tests/fuzz/growth.h"

using namespace mesh;
using namespace mesh::netstack;

namespace {

const FilterTable& table() {
    static const FilterTable t = [] {
        FilterRule r;
        if (!parse_source("100.64.0.0/10", r) || !parse_source("fd7a:115c:a1e0::/48", r)) std::abort();
        r.dst.push_back({*Prefix::parse("100.64.0.1/32"), {22, 443}});
        r.dst.push_back({*Prefix::parse("fd7a:115c:a1e0::1/128"), {}});
        const LocalSet local{{*Prefix::parse("100.64.0.1/32"), *Prefix::parse("fd7a:115c:a1e0::1/128"), *Prefix::parse("0.0.0.0/0")},
                             exit_node_exceptions()};
        return FilterTable({&r, 1}, local);
    }();
    return t;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static Filter filter(7);
    (void)table();
    fuzz::equipment_ready();  // the flows' table, and the policy
    // Text after a '#' is an address expression instead.
    if (size > 0 && data[0] == '#') {
        FilterRule r;
        if (parse_source(as_text({data + 1, size - 1}), r) && (r.src.size() > 254 || r.src.size() + r.src_caps.size() == 0)) std::abort();
        return 0;
    }
    Bytes bytes(data, data + size);
    Parsed p;
    if (!parse(bytes, p)) return 0;
    if (p.total > size || p.header_len() > p.total || p.ip_len < 20 || (p.version != 4 && p.version != 6)) std::abort();
    (void)filter.check_out(p, Trust::kNormal);
    const Verdict v = filter.check_in(table(), p, Trust::kJailed);
    // Jailed is never weaker than normal, but for flows of its own, and nothing was sent to jailed peers here.
    if (v == Verdict::kAccept && filter.check_in(table(), p, Trust::kNormal) != Verdict::kAccept) std::abort();
    const MutByteSpan packet = MutByteSpan(bytes).first(p.total);
    (void)echo_id_seq(packet, p);
    if (p.proto == kProtoTsmp && p.fragment == Fragment::kWhole) {
        const Tsmp m = decode_tsmp(packet.subspan(p.ip_len));
        std::array<uint8_t, kMaxTsmpPacket> out;
        const size_t n = encode_tsmp(m, p.src, p.dst, out);
        Parsed q;
        if (n > 0 && (!parse(ByteSpan(out).first(n), q) || decode_tsmp(ByteSpan(out).first(n).subspan(q.ip_len)) != m)) std::abort();
    }
    if (p.is_echo_request()) {
        make_echo_reply(packet, p);
        Parsed q;
        if (!parse(packet, q) || !q.is_echo_reply() || q.src != p.dst || q.dst != p.src) std::abort();
    }
    return 0;
}
