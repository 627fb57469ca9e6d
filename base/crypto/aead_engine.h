// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What aead_stream.cc and its engines agree on. Plain data only: the engines are compiled for processors that this one
/// may not be, so nothing inline that the linker could share between translation units may come from here.

#include <cstddef>
#include <cstdint>

namespace mesh::crypto {

/// One packet. `len` counts plaintext bytes on both ways; the tag lies behind them at the sealed side.
struct AeadJob {
    const uint8_t* src;
    uint8_t* dst;
    size_t len;
    uint64_t counter;
    bool ok;  ///< result of opening
};

struct AeadFunctions {
    void (*seal)(const uint8_t key[32], AeadJob* jobs, size_t count);
    void (*open)(const uint8_t key[32], AeadJob* jobs, size_t count);
};

#if defined(MESH_AEAD_VEC128)
extern const AeadFunctions kAeadVec128;
#endif
#if defined(MESH_AEAD_X86)
extern const AeadFunctions kAeadAvx2;
extern const AeadFunctions kAeadAvx512;
#endif

}  // namespace mesh::crypto
