// SPDX-License-Identifier: BSD-3-Clause
// Linked into the programs: what C++ gives back to the heap is wiped first. Keys live in locked memory (base/secret.h), but
// they pass through strings on their way to and from the state file, the control server and the command; this is what ends
// those. No packet allocates, so no packet pays.

#include <malloc.h>

#include <cstdlib>
#include <cstring>
#include <new>

#include "base/sanitized.h"

// The sanitizers bring their own.
#if !MESH_SANITIZED

void operator delete(void* p) noexcept {
    if (p == nullptr) return;
    ::explicit_bzero(p, ::malloc_usable_size(p));
    std::free(p);
}
void operator delete(void* p, std::size_t) noexcept { operator delete(p); }
void operator delete(void* p, std::align_val_t) noexcept { operator delete(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { operator delete(p); }

#endif
