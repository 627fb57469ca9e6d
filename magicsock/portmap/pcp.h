// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// PCP messages (RFC 6887), of which we need ANNOUNCE (is there a server?) and MAP for UDP over IPv4. Same port as NAT-PMP.

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/bytes.h"
#include "base/ip.h"

namespace mesh::portmap::pcp {

/// Chosen at random per mapping; whoever does not know it can neither change nor forge the mapping.
using Nonce = std::array<uint8_t, 12>;

inline constexpr uint8_t kOpAnnounce = 0, kOpMap = 1;

struct Map {
    Nonce nonce{};
    uint16_t internal = 0;
    uint16_t external = 0;    ///< request: wished, 0 = any
    Addr external_addr;       ///< request: wished, none = any. Answer: none unless it is IPv4
    bool operator==(const Map&) const = default;
};

[[nodiscard]] Bytes encode_announce(const Addr& client);
/// `lifetime_s` 0: take the mapping back.
[[nodiscard]] Bytes encode_map(const Addr& client, const Map& map, uint32_t lifetime_s);

struct Answer {
    uint8_t op = 0;
    uint8_t result = 0;  ///< 0 = ok
    uint32_t lifetime_s = 0;
    uint32_t epoch = 0;
    std::optional<Map> map;  ///< of an answer to MAP for UDP
};
/// Options behind the fixed part are ignored.
[[nodiscard]] std::optional<Answer> decode(ByteSpan datagram);
/// In plain words; "" for 0.
[[nodiscard]] std::string_view result_text(uint8_t result);

}  // namespace mesh::portmap::pcp
