// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// NAT-PMP messages (RFC 6886): what is our address outside, forward this UDP port to us. To port 5351 of the gateway.

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <variant>

#include "base/bytes.h"
#include "base/ip.h"

namespace mesh::portmap {

/// Of the gateway, for NAT-PMP and PCP.
inline constexpr uint16_t kPxpPort = 5351;
/// Of hosts: gateways announce themselves there, to the group of all hosts.
inline constexpr uint16_t kAnnouncePort = 5350;

namespace natpmp {

[[nodiscard]] std::array<uint8_t, 2> encode_address_request();
/// `external` 0: any. `lifetime_s` 0: take the mapping back.
[[nodiscard]] std::array<uint8_t, 12> encode_map_request(uint16_t internal, uint16_t external, uint32_t lifetime_s);

/// `epoch`: seconds since the router began to count; it starts over when the router forgets its mappings.
struct AddressAnswer {
    uint16_t result = 0;  ///< 0 = ok
    uint32_t epoch = 0;
    Addr external;  ///< none unless ok
};
struct MapAnswer {
    uint16_t result = 0;
    uint32_t epoch = 0;
    uint16_t internal = 0, external = 0;
    uint32_t lifetime_s = 0;
};
using Answer = std::variant<AddressAnswer, MapAnswer>;
/// An answer to one of the two requests; refusals may be as short as 8 bytes, and then have no ports.
[[nodiscard]] std::optional<Answer> decode(ByteSpan datagram);
/// In plain words: "not authorised ..."; "" for 0.
[[nodiscard]] std::string_view result_text(uint16_t result);

}  // namespace natpmp
}  // namespace mesh::portmap
