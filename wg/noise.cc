// SPDX-License-Identifier: BSD-3-Clause
#include "wg/noise.h"

namespace mesh::wg {

const Hash32 kInitialChain = {0x60, 0xe2, 0x6d, 0xae, 0xf3, 0x27, 0xef, 0xc0, 0x2e, 0xc3, 0x35, 0xe2, 0xa0, 0x25, 0xd2, 0xd0,
                              0x16, 0xeb, 0x42, 0x06, 0xf8, 0x72, 0x77, 0xf5, 0x2d, 0x38, 0xd1, 0x98, 0x8b, 0x78, 0xcd, 0x36};
const Hash32 kInitialHash = {0x22, 0x11, 0xb3, 0x61, 0x08, 0x1a, 0xc5, 0x66, 0x69, 0x12, 0x43, 0xdb, 0x45, 0x8a, 0xd5, 0x32,
                             0x2d, 0x9c, 0x6c, 0x66, 0x22, 0x93, 0xe8, 0xb7, 0x0e, 0xe1, 0x9c, 0x65, 0xba, 0x07, 0x9e, 0xf3};

namespace {

constexpr uint8_t kNonceZero[12] = {};

struct EphemeralTag { [[maybe_unused]] static constexpr std::string_view kPublicPrefix = ""; };
using EphemeralPrivate = PrivateKey<EphemeralTag>;

void mix_hash(Hash32& hash, ByteSpan data) { hash = crypto::blake2s(hash, data); }
void mix_key1(Secret& chain, ByteSpan input) { crypto::hkdf1(chain.bytes(), chain.bytes(), input); }
void mix_key2(Secret& chain, Secret& key, ByteSpan input) {
    crypto::hkdf2(chain.bytes(), key.bytes(), chain.bytes(), input);
}

bool mix_dh1(Secret& chain, const Key32& secret, const Key32& point) {
    Secret dh;
    if (!crypto::x25519(dh.bytes(), secret, point)) return false;
    mix_key1(chain, dh.bytes());
    return true;
}

Key32 key_from(const uint8_t (&field)[32]) {
    Key32 k;
    std::memcpy(k.data(), field, k.size());
    return k;
}

/// The end of both roles: preshared key (zeros), then the empty field's key. `hash` becomes its associated data.
void mix_psk(Secret& chain, Hash32& hash, Secret& key) {
    static constexpr Key32 kNoPsk{};
    Secret tau;
    crypto::hkdf3(chain.bytes(), tau.bytes(), key.bytes(), chain.bytes(), kNoPsk);
    mix_hash(hash, tau.bytes());
}

}  // namespace

bool static_shared(Secret& out, const Identity& own, const NodePublic& peer) {
    return crypto::x25519(out.bytes(), own.secret.bytes(), peer.raw);
}

bool create_initiation(Initiation& msg, InitiatorHandshake& state, Random& random, const Identity& own,
                       const NodePublic& peer, const Secret& shared, uint32_t index, const Stamp& stamp) {
    const EphemeralPrivate ephemeral = EphemeralPrivate::generate(random);
    const auto ephemeral_public = ephemeral.public_key();

    std::memset(&msg, 0, sizeof msg);
    store_le32(msg.type, kTypeInitiation);
    store_le32(msg.sender, index);
    std::memcpy(msg.ephemeral, ephemeral_public.raw.data(), 32);

    state.index = index;
    state.ephemeral.bytes() = ephemeral.secret();
    state.chain.bytes() = kInitialChain;
    state.hash = kInitialHash;
    mix_hash(state.hash, peer.raw);
    mix_key1(state.chain, msg.ephemeral);
    mix_hash(state.hash, msg.ephemeral);

    Secret key, dh;
    if (!crypto::x25519(dh.bytes(), state.ephemeral.bytes(), peer.raw)) return false;
    mix_key2(state.chain, key, dh.bytes());
    crypto::aead_seal(msg.sealed_static, own.key.raw, state.hash, kNonceZero, key.bytes());
    mix_hash(state.hash, msg.sealed_static);

    mix_key2(state.chain, key, shared.bytes());
    crypto::aead_seal(msg.sealed_stamp, stamp, state.hash, kNonceZero, key.bytes());
    mix_hash(state.hash, msg.sealed_stamp);
    state.active = true;
    return true;
}

bool open_static(OpenedInitiation& out, const Initiation& msg, const Identity& own) {
    out.remote_index = load_le32(msg.sender);
    out.remote_ephemeral = key_from(msg.ephemeral);
    out.chain.bytes() = kInitialChain;
    out.hash = kInitialHash;
    mix_hash(out.hash, own.key.raw);
    mix_key1(out.chain, msg.ephemeral);
    mix_hash(out.hash, msg.ephemeral);

    Secret key, dh;
    if (!crypto::x25519(dh.bytes(), own.secret.bytes(), out.remote_ephemeral)) return false;
    mix_key2(out.chain, key, dh.bytes());
    if (!crypto::aead_open(out.remote_static.raw.data(), msg.sealed_static, out.hash, kNonceZero, key.bytes())) return false;
    mix_hash(out.hash, msg.sealed_static);
    return true;
}

bool open_stamp(OpenedInitiation& out, const Initiation& msg, const Secret& shared) {
    Secret key;
    mix_key2(out.chain, key, shared.bytes());
    if (!crypto::aead_open(out.stamp.data(), msg.sealed_stamp, out.hash, kNonceZero, key.bytes())) return false;
    mix_hash(out.hash, msg.sealed_stamp);
    return true;
}

bool create_response(Response& msg, TransportKeys& keys, Random& random, const OpenedInitiation& opened, uint32_t index) {
    const EphemeralPrivate ephemeral = EphemeralPrivate::generate(random);
    const auto ephemeral_public = ephemeral.public_key();

    std::memset(&msg, 0, sizeof msg);
    store_le32(msg.type, kTypeResponse);
    store_le32(msg.sender, index);
    store_le32(msg.receiver, opened.remote_index);
    std::memcpy(msg.ephemeral, ephemeral_public.raw.data(), 32);

    Secret chain = opened.chain;
    Hash32 hash = opened.hash;
    mix_key1(chain, msg.ephemeral);
    mix_hash(hash, msg.ephemeral);
    if (!mix_dh1(chain, ephemeral.secret(), opened.remote_ephemeral)) return false;
    if (!mix_dh1(chain, ephemeral.secret(), opened.remote_static.raw)) return false;
    Secret key;
    mix_psk(chain, hash, key);
    crypto::aead_seal(msg.sealed_empty, {}, hash, kNonceZero, key.bytes());
    crypto::hkdf2(keys.receive.bytes(), keys.send.bytes(), chain.bytes(), {});
    return true;
}

bool consume_response(TransportKeys& keys, const Response& msg, const InitiatorHandshake& state, const Identity& own) {
    const Key32 remote_ephemeral = key_from(msg.ephemeral);
    Secret chain = state.chain;
    Hash32 hash = state.hash;
    mix_key1(chain, msg.ephemeral);
    mix_hash(hash, msg.ephemeral);
    if (!mix_dh1(chain, state.ephemeral.bytes(), remote_ephemeral)) return false;
    if (!mix_dh1(chain, own.secret.bytes(), remote_ephemeral)) return false;
    Secret key;
    mix_psk(chain, hash, key);
    uint8_t nothing[1];
    if (!crypto::aead_open(nothing, msg.sealed_empty, hash, kNonceZero, key.bytes())) return false;
    crypto::hkdf2(keys.send.bytes(), keys.receive.bytes(), chain.bytes(), {});
    return true;
}

}  // namespace mesh::wg
