// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// SipHash-2-4 by libsodium: a fast keyed hash whose values nobody can choose who does not know the key. For tables and for
/// sharing work out; not for signatures.

#include <array>
#include <cstdint>

#include "base/bytes.h"

namespace mesh::crypto {

using ShortKey = std::array<uint8_t, 16>;

[[nodiscard]] uint64_t short_hash(ByteSpan data, const ShortKey& key);

}  // namespace mesh::crypto
