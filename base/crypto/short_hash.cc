// SPDX-License-Identifier: BSD-3-Clause
#include "base/crypto/short_hash.h"

#include <sodium.h>

namespace mesh::crypto {

uint64_t short_hash(ByteSpan data, const ShortKey& key) {
    static_assert(crypto_shorthash_KEYBYTES == std::tuple_size_v<ShortKey> && crypto_shorthash_BYTES == 8);
    uint8_t out[crypto_shorthash_BYTES];
    crypto_shorthash(out, data.data(), data.size(), key.data());
    return load_le64(out);
}

}  // namespace mesh::crypto
