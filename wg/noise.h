// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The handshake Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s as WireGuard uses it (whitepaper 5.4.1-5.4.5), as four steps that
/// keep no hidden state: create and consume an initiation, create and consume a response. The preshared key is always
/// zero here. MACs, indices, stamps and who may do what when are decided above.
///
///   initiator                          responder
///   create_initiation  ── 148 ──▶      open_static, (look the peer up), open_stamp
///   consume_response   ◀── 92 ──       create_response
///
/// Everything secret lives in locked memory and wipes itself. Functions return false on hostile input: a weak point or a field that does not
/// authenticate; their outputs must not be used then.

#include <array>
#include <cstdint>

#include "base/crypto/crypto.h"
#include "base/keys.h"
#include "base/random.h"
#include "base/secret.h"
#include "wg/messages.h"

namespace mesh::wg {

using crypto::Hash32;
using crypto::Key32;
using Stamp = std::array<uint8_t, kStamp>;

/// BLAKE2s("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s") and BLAKE2s(that || "WireGuard v1 zx2c4 Jason@zx2c4.com").
extern const Hash32 kInitialChain;
extern const Hash32 kInitialHash;

using Secret = LockedKey;

/// Our own static keys.
struct Identity {
    Secret secret;
    NodePublic key;  ///< zero: none
};

/// What an initiator remembers between its initiation and the response.
struct InitiatorHandshake {
    bool active = false;
    uint32_t index = 0;  ///< ours
    Secret ephemeral, chain;
    Hash32 hash{};
    void wipe() {
        active = false;
        ephemeral.wipe();
        chain.wipe();
        crypto::wipe(hash);
    }
};

/// What a responder knows between reading an initiation and answering it.
struct OpenedInitiation {
    uint32_t remote_index = 0;
    NodePublic remote_static;
    Key32 remote_ephemeral{};
    Secret chain;
    Hash32 hash{};
    Stamp stamp{};
};

/// Result of a handshake, from our side.
struct TransportKeys {
    Secret send, receive;
};

/// Noise's static-static secret of a pair. False for a weak key.
[[nodiscard]] bool static_shared(Secret& out, const Identity& own, const NodePublic& peer);

/// Writes all but the two MACs of `msg`.
[[nodiscard]] bool create_initiation(Initiation& msg, InitiatorHandshake& state, Random& random, const Identity& own,
                                     const NodePublic& peer, const Secret& shared, uint32_t index, const Stamp& stamp);
/// Step one of two: yields remote_static, which is a claim until step two succeeds.
[[nodiscard]] bool open_static(OpenedInitiation& out, const Initiation& msg, const Identity& own);
/// Step two: proves the claim and yields the stamp. `shared` is static_shared with out.remote_static.
[[nodiscard]] bool open_stamp(OpenedInitiation& out, const Initiation& msg, const Secret& shared);
/// Writes all but the two MACs of `msg`.
[[nodiscard]] bool create_response(Response& msg, TransportKeys& keys, Random& random, const OpenedInitiation& opened,
                                   uint32_t index);
/// Leaves `state` as it is: a forged response must not end our handshake. Wipe it after success.
[[nodiscard]] bool consume_response(TransportKeys& keys, const Response& msg, const InitiatorHandshake& state,
                                    const Identity& own);

}  // namespace mesh::wg
