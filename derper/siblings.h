// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What the relays of one process, one on each event loop, tell each other. Every client has a home, a loop that follows
/// from its key alone, so no loop needs a directory of the others' clients.

#include <cstddef>
#include <cstdint>

#include "base/bytes.h"
#include "base/ip.h"
#include "base/keys.h"

namespace mesh::derper {

using ConnId = uint64_t;

/// The loop of the listeners, of the mesh links and of all mesh peers.
inline constexpr size_t kFront = 0;
inline constexpr size_t kMaxLoops = 64;

/// A plain value: it crosses as its bytes, with the packet behind it.
struct Note {
    enum class Kind : uint8_t {
        kPacket,     ///< for client `key` from client `source`, by its connection `conn` on loop `loop`
        kForward,    ///< the same, but a mesh peer took it from its client `source`: it goes to no mesh peer again
        kNotHere,    ///< for `conn`: nobody has `key`
        kGone,       ///< for all loops: `key` left the region
        kReached,    ///< front to home: mesh links lead to `key`, or it is a mesh peer
        kUnreached,  ///< front to home: no longer
        kList,       ///< front to all: watcher `conn` wants to hear who is there, and from now on who comes and goes
        kPresent,    ///< to the front: `key` is here, `where` and `flags` say more; for watcher `conn`, or 0 = for all
        kListed,     ///< to the front: watcher `conn` has heard of everybody who is there
        kLeft,       ///< to the front: `key` left this loop
    };
    Kind kind{};
    uint8_t flags = 0;
    uint8_t loop = 0;
    uint32_t packet_len = 0;  ///< filled in by whoever carries it
    ConnId conn = 0;
    NodePublic source{};
    NodePublic key{};
    Endpoint where{};
};

class Siblings {
   public:
    virtual ~Siblings() = default;
    [[nodiscard]] virtual size_t loops() const = 0;
    /// Of a client with that key.
    [[nodiscard]] virtual size_t home(const NodePublic& key) const = 0;
    /// Notes to one loop arrive in order. False: too much waits there already, the note is dropped; that befalls packets and
    /// what answers them, nothing else.
    virtual bool tell(size_t loop, const Note& note, ByteSpan packet) = 0;
};

}  // namespace mesh::derper
