// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/user/lwip_port.h"

#include <malloc.h>

#include <cstdlib>
#include <cstring>

#include "base/check.h"
#include "lwip/sys.h"

namespace port = mesh::netstack::lwip_port;

extern "C" {

void mesh_lwip_assert(const char* what, const char* file, int line) { mesh::check_failed(what, file, line); }

void* mesh_lwip_malloc(size_t bytes) {
    if (port::heap + bytes > port::heap_limit) return nullptr;
    void* memory = std::malloc(bytes);
    if (memory != nullptr) port::heap += malloc_usable_size(memory);
    return memory;
}
void* mesh_lwip_calloc(size_t count, size_t bytes) {
    void* memory = mesh_lwip_malloc(count * bytes);
    if (memory != nullptr) std::memset(memory, 0, count * bytes);
    return memory;
}
void mesh_lwip_free(void* memory) {
    if (memory != nullptr) port::heap -= malloc_usable_size(memory);
    std::free(memory);
}
uint32_t mesh_lwip_random(void) { return port::random->u32(); }
u32_t sys_now(void) { return port::now_ms; }
}
