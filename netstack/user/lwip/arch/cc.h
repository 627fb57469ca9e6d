// SPDX-License-Identifier: BSD-3-Clause
// What lwIP wants to know of its surroundings (C). All of it is given by netstack/user/lwip_port.cc.
#ifndef MESH_LWIP_CC_H
#define MESH_LWIP_CC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
void mesh_lwip_assert(const char* what, const char* file, int line);
void* mesh_lwip_malloc(size_t bytes);
void* mesh_lwip_calloc(size_t count, size_t bytes);
void mesh_lwip_free(void* memory);
uint32_t mesh_lwip_random(void);
#ifdef __cplusplus
}
#endif

#define LWIP_PLATFORM_DIAG(x)
#define LWIP_PLATFORM_ASSERT(x) mesh_lwip_assert(x, __FILE__, __LINE__)
#define LWIP_NO_UNISTD_H 1

#endif
