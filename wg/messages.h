// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The four WireGuard messages and the numbers of the protocol. All integers little endian; a message is its type in
/// one byte and three zero bytes, so the type is read as a u32. Source: WireGuard whitepaper sections 5.4.2-5.4.7, 6.
///
///   initiation 148   type 4 | sender 4 | ephemeral 32 | static 32+16 | stamp 12+16 | mac1 16 | mac2 16
///   response    92   type 4 | sender 4 | receiver 4 | ephemeral 32 | empty 0+16 | mac1 16 | mac2 16
///   cookie      64   type 4 | receiver 4 | nonce 24 | cookie 16+16
///   transport  32+   type 4 | receiver 4 | counter 8 | packet n+16
///
/// The layouts are structs of bytes: no alignment, no padding, so a datagram may be viewed through them.

#include <cstddef>
#include <cstdint>

#include "base/time.h"

namespace mesh::wg {

inline constexpr uint32_t kTypeInitiation = 1;
inline constexpr uint32_t kTypeResponse = 2;
inline constexpr uint32_t kTypeCookie = 3;
inline constexpr uint32_t kTypeTransport = 4;

inline constexpr size_t kTag = 16;
inline constexpr size_t kMac = 16;
inline constexpr size_t kStamp = 12;

struct Initiation {
    uint8_t type[4];
    uint8_t sender[4];
    uint8_t ephemeral[32];
    uint8_t sealed_static[32 + kTag];
    uint8_t sealed_stamp[kStamp + kTag];
    uint8_t mac1[kMac];
    uint8_t mac2[kMac];
};
static_assert(sizeof(Initiation) == 148 && alignof(Initiation) == 1);
static_assert(offsetof(Initiation, sealed_static) == 40 && offsetof(Initiation, sealed_stamp) == 88 &&
              offsetof(Initiation, mac1) == 116 && offsetof(Initiation, mac2) == 132);

struct Response {
    uint8_t type[4];
    uint8_t sender[4];
    uint8_t receiver[4];
    uint8_t ephemeral[32];
    uint8_t sealed_empty[kTag];
    uint8_t mac1[kMac];
    uint8_t mac2[kMac];
};
static_assert(sizeof(Response) == 92 && alignof(Response) == 1);
static_assert(offsetof(Response, ephemeral) == 12 && offsetof(Response, sealed_empty) == 44 &&
              offsetof(Response, mac1) == 60 && offsetof(Response, mac2) == 76);

struct CookieReply {
    uint8_t type[4];
    uint8_t receiver[4];
    uint8_t nonce[24];
    uint8_t sealed_cookie[kMac + kTag];
};
static_assert(sizeof(CookieReply) == 64 && alignof(CookieReply) == 1);

/// What stands in front of the sealed packet.
struct DataHeader {
    uint8_t type[4];
    uint8_t receiver[4];
    uint8_t counter[8];
};
static_assert(sizeof(DataHeader) == 16 && alignof(DataHeader) == 1);
inline constexpr size_t kDataHeader = sizeof(DataHeader);
inline constexpr size_t kDataOverhead = kDataHeader + kTag;  ///< 32: also the length of a keepalive
inline constexpr size_t kPadding = 16;

inline constexpr uint64_t kRekeyAfterMessages = uint64_t{1} << 60;
inline constexpr uint64_t kRejectAfterMessages = UINT64_MAX - (uint64_t{1} << 13);
inline constexpr Duration kRekeyAfterTime = seconds(120);
inline constexpr Duration kRejectAfterTime = seconds(180);
inline constexpr Duration kRekeyAttemptTime = seconds(90);
inline constexpr Duration kRekeyTimeout = seconds(5);
inline constexpr Duration kKeepaliveTimeout = seconds(10);
inline constexpr Duration kCookieLifetime = seconds(120);
inline constexpr Duration kZeroKeysAfter = seconds(540);
inline constexpr Duration kInitiationGap = milliseconds(20);  ///< responder: shorter than this is a flood

}  // namespace mesh::wg
