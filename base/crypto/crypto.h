// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The primitives that WireGuard, Noise and disco are built of. BLAKE2s by libb2, the rest by libsodium.
/// Functions that can fail on hostile input return bool; the output is then unspecified and must not be used.

#include <array>
#include <cstdint>

#include "base/bytes.h"

namespace mesh::crypto {

using Key32 = std::array<uint8_t, 32>;
using Hash32 = std::array<uint8_t, 32>;
inline constexpr size_t kTagLen = 16;

/// BLAKE2s-256 of up to three parts, unkeyed.
[[nodiscard]] Hash32 blake2s(ByteSpan a, ByteSpan b = {}, ByteSpan c = {});
/// Keyed BLAKE2s with a 16-byte output (WireGuard's MAC). key ≤ 32 bytes.
void blake2s_mac16(uint8_t out[16], ByteSpan key, ByteSpan data);
/// Keyed BLAKE2s with a 32-byte output.
[[nodiscard]] Hash32 blake2s_mac32(ByteSpan key, ByteSpan data);
/// HMAC over BLAKE2s-256 (64-byte block).
[[nodiscard]] Hash32 hmac_blake2s(ByteSpan key, ByteSpan a, ByteSpan b = {});
/// Noise HKDF: out[i] for n = 1..3 outputs.
void hkdf1(Hash32& o1, ByteSpan key, ByteSpan input);
void hkdf2(Hash32& o1, Hash32& o2, ByteSpan key, ByteSpan input);
void hkdf3(Hash32& o1, Hash32& o2, Hash32& o3, ByteSpan key, ByteSpan input);

/// X25519; false if the result is all zeros.
[[nodiscard]] bool x25519(Key32& out, const Key32& secret, const Key32& point);

/// ChaCha20-Poly1305 (RFC 8439). out = plain.size() + 16 bytes; may start where plain starts.
void aead_seal(uint8_t* out, ByteSpan plain, ByteSpan aad, const uint8_t nonce[12], const Key32& key);
/// sealed includes the tag; out = sealed.size() - 16 bytes; in place allowed. False: forged or too short.
[[nodiscard]] bool aead_open(uint8_t* out, ByteSpan sealed, ByteSpan aad, const uint8_t nonce[12], const Key32& key);
/// XChaCha20-Poly1305.
void xaead_seal(uint8_t* out, ByteSpan plain, ByteSpan aad, const uint8_t nonce[24], const Key32& key);
[[nodiscard]] bool xaead_open(uint8_t* out, ByteSpan sealed, ByteSpan aad, const uint8_t nonce[24], const Key32& key);

/// Nonce of WireGuard transport: four zero bytes, then the counter, little endian.
inline void nonce_le(uint8_t nonce[12], uint64_t counter) {
    store_le32(nonce, 0);
    store_le64(nonce + 4, counter);
}
/// Nonce of TS2021 records: four zero bytes, then the counter, BIG endian.
inline void nonce_be(uint8_t nonce[12], uint64_t counter) {
    store_le32(nonce, 0);
    store_be64(nonce + 4, counter);
}

/// NaCl box with a precomputed key (crypto_box_beforenm). False if the point is weak.
[[nodiscard]] bool box_precompute(Key32& shared, const Key32& their_public, const Key32& my_secret);
/// out = plain.size() + 16 bytes (tag first).
void box_seal(uint8_t* out, ByteSpan plain, const uint8_t nonce[24], const Key32& shared);
[[nodiscard]] bool box_open(uint8_t* out, ByteSpan sealed, const uint8_t nonce[24], const Key32& shared);

[[nodiscard]] bool equal_constant_time(ByteSpan a, ByteSpan b);
void wipe(MutByteSpan b);
[[nodiscard]] Hash32 sha256(ByteSpan b);

/// Must be called once before anything else; aborts if the library cannot start.
void init();

}  // namespace mesh::crypto
