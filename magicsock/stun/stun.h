// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The little of STUN (RFC 8489) that clients and derpers speak: a binding request of exactly 40 bytes with SOFTWARE
/// and FINGERPRINT, answered with XOR-MAPPED-ADDRESS. A derper answers nothing else, and sends no error responses.
///
///     type 2 | length 2 | cookie 2112a442 | transaction id 12 | attributes (type 2, length 2, value, padding to 4)

#include <array>
#include <cstdint>
#include <optional>

#include "base/bytes.h"
#include "base/ip.h"

namespace mesh::stun {

using TxId = std::array<uint8_t, 12>;
inline constexpr size_t kRequestLen = 40;
inline constexpr size_t kMaxResponseLen = 44;
inline constexpr uint16_t kDefaultPort = 3478;
using RequestBytes = std::array<uint8_t, kRequestLen>;

/// Cheap test for the demultiplexer: two zero bits, the cookie, at least a header.
[[nodiscard]] bool looks_like_stun(ByteSpan datagram);

[[nodiscard]] RequestBytes encode_request(const TxId& tx);
/// A binding request with our SOFTWARE value and a correct FINGERPRINT as last attribute; else nullopt.
[[nodiscard]] std::optional<TxId> decode_request(ByteSpan datagram);

/// Writes a success response of 32 (IPv4) or 44 (IPv6) bytes; returns its length. `from.addr` must be valid.
size_t encode_response(const TxId& tx, const Endpoint& from, uint8_t out[kMaxResponseLen]);
struct Response {
    TxId tx;
    Endpoint mapped;
};
/// A success response with XOR-MAPPED-ADDRESS (0x0020 or 0x8020), else MAPPED-ADDRESS. v4-mapped becomes IPv4.
[[nodiscard]] std::optional<Response> decode_response(ByteSpan datagram);

}  // namespace mesh::stun
