// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What lwIP is given in place of an operating system. There is one lwIP per process, hence these.

#include <cstddef>
#include <cstdint>

#include "base/random.h"

namespace mesh::netstack::lwip_port {

inline Random* random = nullptr;  ///< set while lwIP is in use
inline uint32_t now_ms = 0;
inline size_t heap = 0;           ///< bytes that lwIP has
inline size_t heap_limit = 0;

}  // namespace mesh::netstack::lwip_port
