// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Datagrams on their way out, with all that is needed to let them leave from another thread, later.

#include <array>
#include <memory>
#include <span>

#include "base/crypto/aead_stream.h"
#include "base/packet.h"

namespace mesh {

/// Packets to be sealed later, by whoever has them then. Keeps the key as long.
struct LateSeals {
    static constexpr size_t kMax = 16;
    std::shared_ptr<const crypto::AeadStream> key;
    std::array<crypto::AeadJob, kMax> jobs;
    size_t count = 0;

    void run() {
        key->seal(std::span(jobs).first(count));
        count = 0;
    }
};

/// Valid during the call that hands it over.
struct UdpBatch {
    using Memory = std::unique_ptr<uint8_t[]>;
    std::span<const UdpSend> sends;
    /// What the datagrams lie in. Who goes on reading it after the call puts other memory of this size, or null, in its place.
    std::span<Memory> memory;
    /// To be run before anything is sent; they may be moved from.
    std::span<LateSeals> seals;
};

}  // namespace mesh
