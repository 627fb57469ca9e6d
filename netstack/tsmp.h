// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// TSMP, the messages nodes send each other inside the tunnel as IP protocol 99 (tailscale net/packet/tsmp.go).
///
///     '!' reject  proto u8, reason u8, source port be16, destination port be16 [, flags u8]
///     'p' ping    8 bytes
///     'o' pong    the 8 bytes, peerAPI port be16
///     'a' key     disco public key, 32 bytes

#include <array>
#include <variant>

#include "base/ip.h"
#include "base/keys.h"
#include "netstack/packet.h"

namespace mesh::netstack {

struct TsmpReject {
    enum Reason : uint8_t { kAcl = 'A', kShields = 'S', kForwarding = 'F', kHostFirewall = 'W', kAppConnector = 'T' };
    uint8_t proto = 0;
    uint8_t reason = kAcl;
    uint16_t src_port = 0, dst_port = 0;  ///< of the rejected flow
    bool maybe_broken = false;
    bool operator==(const TsmpReject&) const = default;
};
struct TsmpPing {
    std::array<uint8_t, 8> data{};
    bool operator==(const TsmpPing&) const = default;
};
struct TsmpPong {
    std::array<uint8_t, 8> data{};
    uint16_t peerapi_port = 0;
    bool operator==(const TsmpPong&) const = default;
};
struct TsmpDiscoKey {
    DiscoPublic key;
    bool operator==(const TsmpDiscoKey&) const = default;
};
/// monostate: malformed or of an unknown kind.
using Tsmp = std::variant<std::monostate, TsmpReject, TsmpPing, TsmpPong, TsmpDiscoKey>;

/// IPv6 header and the longest message.
inline constexpr size_t kMaxTsmpPacket = 40 + 33;

/// `payload`: what follows the IP header.
[[nodiscard]] Tsmp decode_tsmp(ByteSpan payload);
/// Writes a whole IP packet. Returns its length; 0 if `out` is too small, the families differ or the message is empty.
[[nodiscard]] size_t encode_tsmp(const Tsmp& message, const Addr& src, const Addr& dst, MutByteSpan out);

}  // namespace mesh::netstack
