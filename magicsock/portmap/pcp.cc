// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/portmap/pcp.h"

namespace mesh::portmap::pcp {
namespace {

constexpr uint8_t kVersion = 2, kAnswer = 0x80, kUdp = 17;
constexpr size_t kMaxMessage = 1100;  // RFC 6887 section 7

void header(WireWriter& out, uint8_t op, uint32_t lifetime_s, const Addr& client) {
    out.u8(kVersion);
    out.u8(op);
    out.zeros(2);
    out.be32(lifetime_s);
    out.bytes(client.mapped16());
}

}  // namespace

Bytes encode_announce(const Addr& client) {
    Bytes bytes;
    WireWriter out(bytes);
    header(out, kOpAnnounce, 0, client);
    return bytes;
}

Bytes encode_map(const Addr& client, const Map& map, uint32_t lifetime_s) {
    Bytes bytes;
    WireWriter out(bytes);
    header(out, kOpMap, lifetime_s, client);
    out.bytes(map.nonce);
    out.u8(kUdp);
    out.zeros(3);
    out.be16(map.internal);
    out.be16(map.external);
    out.bytes((map.external_addr.is_valid() ? map.external_addr : Addr::v4(0)).mapped16());
    return bytes;
}

std::optional<Answer> decode(ByteSpan datagram) {
    if (datagram.size() > kMaxMessage || datagram.size() % 4 != 0) return std::nullopt;
    WireReader in(datagram);
    if (in.u8() != kVersion) return std::nullopt;
    const uint8_t op = in.u8();
    if ((op & kAnswer) == 0) return std::nullopt;
    Answer a;
    a.op = op & 0x7f;
    in.u8();
    a.result = in.u8();
    a.lifetime_s = in.be32();
    a.epoch = in.be32();
    in.take(12);
    if (!in.ok()) return std::nullopt;
    if (a.op != kOpMap) return a;
    Map m;
    in.copy(m.nonce);
    const uint8_t protocol = in.u8();
    in.take(3);
    m.internal = in.be16();
    m.external = in.be16();
    std::array<uint8_t, 16> address{};
    in.copy(address);
    if (!in.ok()) return a.result == 0 ? std::nullopt : std::optional(a);
    if (const Addr external = Addr::v6_bytes(address.data()); external.is_v4()) m.external_addr = external;
    if (protocol == kUdp) a.map = m;
    return a;
}

std::string_view result_text(uint8_t result) {
    switch (result) {
        case 0: return "";
        case 1: return "it speaks another version";
        case 2: return "not allowed by its settings";
        case 7: return "it has no Internet address itself";
        case 8: return "it has no room for another port";
        case 10: return "this host has its full share of ports";
        case 12: return "another NAT lies between this host and it";
        default: return "for a reason of its own";
    }
}

}  // namespace mesh::portmap::pcp
