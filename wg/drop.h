// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Why the WireGuard engine refused a datagram. Counted by the caller; nothing here is ever logged per packet.

#include <cstdint>
#include <string_view>

namespace mesh::wg {

enum class DropReason : uint8_t {
    kNone = 0,
    kMalformed,        ///< wrong length, unknown type, reserved bytes set
    kNoKey,            ///< we have no private key (yet)
    kBadMac,           ///< mac1 wrong: the sender does not know our public key
    kUnderLoad,        ///< too many handshakes: a cookie was demanded
    kRateLimited,      ///< too many handshakes, from this source or altogether
    kUnknownPeer,      ///< initiation from a static key that is not a peer of ours
    kBadHandshake,     ///< a handshake field does not authenticate
    kReplayedStamp,    ///< initiation not newer than the last one
    kFlood,            ///< initiations of one peer less than 20 ms apart
    kUnknownIndex,     ///< no handshake or session of ours; see Device::unknown_index_from
    kExpired,          ///< session older than 180 s or worn out
    kBadTag,           ///< transport data does not authenticate
    kReplayed,         ///< counter seen before or too old
    kCount
};

/// "unknown_index"; for metrics.
[[nodiscard]] std::string_view name(DropReason reason);

}  // namespace mesh::wg
