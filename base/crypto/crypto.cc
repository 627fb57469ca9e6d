// SPDX-License-Identifier: BSD-3-Clause
#include "base/crypto/crypto.h"

#include <blake2.h>
#include <sodium.h>

#include "base/check.h"

namespace mesh::crypto {

void init() { CHECK(sodium_init() >= 0); }

Hash32 blake2s(ByteSpan a, ByteSpan b, ByteSpan c) {
    Hash32 out;
    blake2s_state s;
    blake2s_init(&s, out.size());
    for (ByteSpan part : {a, b, c})
        if (!part.empty()) blake2s_update(&s, part.data(), part.size());
    blake2s_final(&s, out.data(), out.size());
    return out;
}

void blake2s_mac16(uint8_t out[16], ByteSpan key, ByteSpan data) {
    ::blake2s(out, data.data(), key.data(), 16, data.size(), key.size());
}

Hash32 blake2s_mac32(ByteSpan key, ByteSpan data) {
    Hash32 out;
    ::blake2s(out.data(), data.data(), key.data(), out.size(), data.size(), key.size());
    return out;
}

Hash32 hmac_blake2s(ByteSpan key, ByteSpan a, ByteSpan b) {
    constexpr size_t kBlock = 64;
    uint8_t inner[kBlock] = {};
    uint8_t outer[kBlock];
    if (key.size() > kBlock) {
        const Hash32 h = blake2s(key);
        std::memcpy(inner, h.data(), h.size());
    } else if (!key.empty()) {
        std::memcpy(inner, key.data(), key.size());
    }
    for (size_t i = 0; i < kBlock; ++i) {
        outer[i] = inner[i] ^ 0x5c;
        inner[i] ^= 0x36;
    }
    const Hash32 h = blake2s(inner, a, b);
    const Hash32 out = blake2s(outer, h);
    sodium_memzero(inner, sizeof inner);
    sodium_memzero(outer, sizeof outer);
    return out;
}

void hkdf1(Hash32& o1, ByteSpan key, ByteSpan input) {
    Hash32 t0 = hmac_blake2s(key, input);
    const uint8_t one[1] = {1};
    o1 = hmac_blake2s(t0, one);
    wipe(t0);
}

void hkdf2(Hash32& o1, Hash32& o2, ByteSpan key, ByteSpan input) {
    Hash32 t0 = hmac_blake2s(key, input);
    const uint8_t one[1] = {1}, two[1] = {2};
    o1 = hmac_blake2s(t0, one);
    o2 = hmac_blake2s(t0, o1, two);
    wipe(t0);
}

void hkdf3(Hash32& o1, Hash32& o2, Hash32& o3, ByteSpan key, ByteSpan input) {
    Hash32 t0 = hmac_blake2s(key, input);
    const uint8_t one[1] = {1}, two[1] = {2}, three[1] = {3};
    o1 = hmac_blake2s(t0, one);
    o2 = hmac_blake2s(t0, o1, two);
    o3 = hmac_blake2s(t0, o2, three);
    wipe(t0);
}

bool x25519(Key32& out, const Key32& secret, const Key32& point) {
    return crypto_scalarmult(out.data(), secret.data(), point.data()) == 0;
}

void aead_seal(uint8_t* out, ByteSpan plain, ByteSpan aad, const uint8_t nonce[12], const Key32& key) {
    crypto_aead_chacha20poly1305_ietf_encrypt(out, nullptr, plain.data(), plain.size(), aad.data(), aad.size(),
                                              nullptr, nonce, key.data());
}

bool aead_open(uint8_t* out, ByteSpan sealed, ByteSpan aad, const uint8_t nonce[12], const Key32& key) {
    return sealed.size() >= kTagLen &&
           crypto_aead_chacha20poly1305_ietf_decrypt(out, nullptr, nullptr, sealed.data(), sealed.size(), aad.data(),
                                                     aad.size(), nonce, key.data()) == 0;
}

void xaead_seal(uint8_t* out, ByteSpan plain, ByteSpan aad, const uint8_t nonce[24], const Key32& key) {
    crypto_aead_xchacha20poly1305_ietf_encrypt(out, nullptr, plain.data(), plain.size(), aad.data(), aad.size(),
                                               nullptr, nonce, key.data());
}

bool xaead_open(uint8_t* out, ByteSpan sealed, ByteSpan aad, const uint8_t nonce[24], const Key32& key) {
    return sealed.size() >= kTagLen &&
           crypto_aead_xchacha20poly1305_ietf_decrypt(out, nullptr, nullptr, sealed.data(), sealed.size(), aad.data(),
                                                      aad.size(), nonce, key.data()) == 0;
}

bool box_precompute(Key32& shared, const Key32& their_public, const Key32& my_secret) {
    return crypto_box_beforenm(shared.data(), their_public.data(), my_secret.data()) == 0;
}

void box_seal(uint8_t* out, ByteSpan plain, const uint8_t nonce[24], const Key32& shared) {
    crypto_box_easy_afternm(out, plain.data(), plain.size(), nonce, shared.data());
}

bool box_open(uint8_t* out, ByteSpan sealed, const uint8_t nonce[24], const Key32& shared) {
    return sealed.size() >= kTagLen &&
           crypto_box_open_easy_afternm(out, sealed.data(), sealed.size(), nonce, shared.data()) == 0;
}

bool equal_constant_time(ByteSpan a, ByteSpan b) {
    return a.size() == b.size() && sodium_memcmp(a.data(), b.data(), a.size()) == 0;
}

void wipe(MutByteSpan b) { sodium_memzero(b.data(), b.size()); }

Hash32 sha256(ByteSpan b) {
    Hash32 out;
    crypto_hash_sha256(out.data(), b.data(), b.size());
    return out;
}

}  // namespace mesh::crypto
