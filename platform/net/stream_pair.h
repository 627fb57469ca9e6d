// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Two streams that are each other's other end, both detached: for a part of this program that talks to a far end through
/// another part.

#include <utility>

#include "platform/net/byte_stream.h"

namespace mesh::platform {

[[nodiscard]] Result<std::pair<ByteStream, ByteStream>> stream_pair();

}  // namespace mesh::platform
