// SPDX-License-Identifier: BSD-3-Clause
// Takes the place of base/crypto/aead_stream.cc in one program for measuring, bench-floor: the daemon as it is, but packets are copied where
// the others seal and open them, with zeros for a tag. It speaks with its like only. What it costs is the floor under any engine.
#include <cstring>

#include "base/crypto/aead_stream.h"

namespace mesh::crypto {

namespace {

void copy(const AeadJob& j) {
    if (j.dst != j.src && j.len > 0) std::memcpy(j.dst, j.src, j.len);
}

constinit const AeadFunctions kNothing = {
    [](const uint8_t*, AeadJob* jobs, size_t count) {
        for (AeadJob& j : std::span(jobs, count)) {
            copy(j);
            std::memset(j.dst + j.len, 0, kTagLen);
            j.ok = true;
        }
    },
    [](const uint8_t*, AeadJob* jobs, size_t count) {
        for (AeadJob& j : std::span(jobs, count)) {
            static constexpr uint8_t kNoTag[kTagLen] = {};
            j.ok = std::memcmp(j.src + j.len, kNoTag, kTagLen) == 0;
            copy(j);
        }
    }};

}  // namespace

const char* name(AeadEngine) { return "none"; }
bool aead_usable(AeadEngine) { return true; }
AeadEngine aead_engine() { return AeadEngine::kSodium; }
AeadStream::AeadStream(const Key32& key, AeadEngine) : locked_(key), key_(&locked_.bytes()), functions_(&kNothing) {}

}  // namespace mesh::crypto
