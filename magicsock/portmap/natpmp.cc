// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/portmap/natpmp.h"

namespace mesh::portmap::natpmp {
namespace {

constexpr uint8_t kVersion = 0;
constexpr uint8_t kOpAddress = 0, kOpMapUdp = 1, kAnswer = 0x80;

}  // namespace

std::array<uint8_t, 2> encode_address_request() { return {kVersion, kOpAddress}; }

std::array<uint8_t, 12> encode_map_request(uint16_t internal, uint16_t external, uint32_t lifetime_s) {
    std::array<uint8_t, 12> out{kVersion, kOpMapUdp};
    store_be16(&out[4], internal);
    store_be16(&out[6], external);
    store_be32(&out[8], lifetime_s);
    return out;
}

std::optional<Answer> decode(ByteSpan datagram) {
    WireReader in(datagram);
    if (in.u8() != kVersion) return std::nullopt;
    const uint8_t op = in.u8();
    const uint16_t result = in.be16();
    const uint32_t epoch = in.be32();
    if (!in.ok()) return std::nullopt;
    if (op == (kAnswer | kOpAddress)) {
        AddressAnswer a{result, epoch, {}};
        if (result != 0) return a;
        const ByteSpan four = in.take(4);
        if (!in.ok()) return std::nullopt;
        a.external = Addr::v4_bytes(four.data());
        return a;
    }
    if (op == (kAnswer | kOpMapUdp)) {
        MapAnswer m{result, epoch, in.be16(), in.be16(), in.be32()};
        if (result == 0 && !in.ok()) return std::nullopt;
        return m;
    }
    return std::nullopt;
}

std::string_view result_text(uint16_t result) {
    switch (result) {
        case 0: return "";
        case 1: return "it speaks another version";
        case 2: return "not allowed by its settings";
        case 3: return "it has no Internet address itself";
        case 4: return "it has no room for another port";
        case 5: return "it does not know the request";
        default: return "for a reason of its own";
    }
}

}  // namespace mesh::portmap::natpmp
