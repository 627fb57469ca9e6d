// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Notes between loops as they cross: one behind the other in a buffer, each with its packet. Pure.

#include <cstring>
#include <type_traits>

#include "derper/siblings.h"

namespace mesh::derper {

static_assert(std::is_trivially_copyable_v<Note>);

inline void put_note(Bytes& out, const Note& note, ByteSpan packet) {
    Note head = note;
    head.packet_len = static_cast<uint32_t>(packet.size());
    const auto* bytes = reinterpret_cast<const uint8_t*>(&head);
    out.insert(out.end(), bytes, bytes + sizeof head);
    out.insert(out.end(), packet.begin(), packet.end());
}

/// The next of `in`, which moves on behind it. False at the end.
inline bool take_note(ByteSpan& in, Note& note, ByteSpan& packet) {
    if (in.size() < sizeof note) return false;
    std::memcpy(&note, in.data(), sizeof note);
    packet = in.subspan(sizeof note, note.packet_len);
    in = in.subspan(sizeof note + note.packet_len);
    return true;
}

}  // namespace mesh::derper
