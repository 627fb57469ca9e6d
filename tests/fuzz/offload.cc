// SPDX-License-Identifier: BSD-3-Clause
// Super-packets. First byte even: the rest is a virtio header and a packet, hostile or not, to be split. Odd: the rest
// describes a batch of packets; joined and split again they must be the same, but for the IPv4 id.

#include <algorithm>
#include <cstdlib>

#include "netstack/checksum.h"
#include "netstack/coalesce.h"
#include "netstack/segment.h"
#include "tests/fuzz/growth.h"

using namespace mesh;
using namespace mesh::netstack;

namespace {

std::vector<Bytes> split(const VnetHdr& vnet, Bytes& bytes) {
    std::vector<Bytes> out;
    Parsed p;
    Segmenter s;
    if (!parse(bytes, p) || !s.begin({vnet, bytes}, p)) return out;
    for (size_t i = 0; i < s.count(); ++i) {
        out.emplace_back(s.length(i));
        s.write(i, out.back().data());
    }
    return out;
}

void split_hostile(WireReader r) {
    VnetHdr v;
    v.flags = r.u8();
    v.gso_type = r.u8();
    v.hdr_len = r.be16();
    v.gso_size = r.be16();
    v.csum_start = r.be16();
    v.csum_offset = r.be16();
    Bytes bytes = to_bytes(r.rest());
    Coalescer c(1);
    fuzz::equipment_ready();
    std::vector<Bytes> parts = split(v, bytes);
    for (Bytes& b : parts) {
        Parsed p;
        if (!parse(b, p)) continue;
        if (c.full()) (void)c.take();
        c.add(MutByteSpan(b).first(p.total), p);
    }
    (void)c.take();
}

/// A TCP or UDP packet out of six bytes of description.
Bytes describe(WireReader& r, uint32_t& seq) {
    const uint8_t kind = r.u8(), length = r.u8(), flags = r.u8(), step = r.u8(), fields = r.u8(), fill = r.u8();
    const bool v4 = (kind & 1) != 0, tcp = (kind & 2) != 0;
    const size_t ip_len = v4 ? 20 : 40, l4_len = tcp ? 20 + (kind & 4) : 8, payload = length * 5U;
    Bytes b(ip_len + l4_len + payload, fill);
    std::fill_n(b.begin(), ip_len + l4_len, uint8_t{0});
    uint8_t* l4 = b.data() + ip_len;
    if (v4) {
        b[0] = 0x45;
        b[1] = fields & 1;
        store_be16(b.data() + 2, static_cast<uint16_t>(b.size()));
        b[6] = (fields & 2) != 0 ? 0x40 : 0;
        b[8] = 64;
        b[9] = tcp ? 6 : 17;
        fix_ipv4_checksum(b.data(), 20);
    } else {
        b[0] = 0x60;
        store_be16(b.data() + 4, static_cast<uint16_t>(l4_len + payload));
        b[6] = tcp ? 6 : 17;
        b[7] = 64;
    }
    store_be16(l4, kind >> 4);
    if (tcp) {
        seq += step >= 250 ? step : 0;  // a gap now and then
        store_be32(l4 + 4, seq);
        seq += static_cast<uint32_t>(payload);
        l4[12] = static_cast<uint8_t>(l4_len / 4 * 16);
        l4[13] = flags < 200 ? 0x10 : flags;
        l4[14] = fields & 4;
    } else {
        store_be16(l4 + 4, static_cast<uint16_t>(l4_len + payload));
    }
    const uint16_t sum = checksum({l4, l4_len + payload}, pseudo_sum(b.data(), v4 ? 4 : 6, tcp ? 6 : 17, static_cast<uint32_t>(l4_len + payload)));
    store_be16(l4 + (tcp ? 16 : 6), static_cast<uint16_t>((fields & 0xF0) == 0xF0 ? sum ^ 1 : sum));
    return b;
}

Bytes canonical(Bytes b) {
    if (b[0] >> 4 == 4) {
        store_be16(b.data() + 4, 0);
        store_be16(b.data() + 10, 0);
    }
    return b;
}

void join_and_split(WireReader r) {
    std::vector<Bytes> packets, in, out;
    uint32_t seq = 0xFFFFFF00U;
    while (r.remaining() >= 6 && packets.size() < 300) packets.push_back(describe(r, seq));
    Coalescer c(1);
    size_t described = 0;
    for (const Bytes& b : packets) described += b.size();
    fuzz::equipment_ready();
    fuzz::allow_growth(4 * described);  // six bytes describe a packet, and the comparison needs copies
    for (Bytes& b : packets) {
        in.push_back(canonical(b));
        Parsed p;
        if (!parse(b, p) || p.total != b.size()) std::abort();
        c.add(b, p);
    }
    for (const TunWrite& w : c.take()) {
        Bytes whole;
        for (const ByteSpan piece : w.pieces) whole.insert(whole.end(), piece.begin(), piece.end());
        if (whole.size() > 65535) std::abort();
        for (Bytes& b : split(w.vnet, whole)) out.push_back(canonical(std::move(b)));
    }
    std::sort(in.begin(), in.end());
    std::sort(out.begin(), out.end());
    if (in != out) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size == 0) return 0;
    WireReader r({data + 1, size - 1});
    if ((data[0] & 1) == 0) {
        split_hostile(r);
    } else {
        join_and_split(r);
    }
    return 0;
}
