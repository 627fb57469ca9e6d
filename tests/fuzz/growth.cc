// SPDX-License-Identifier: BSD-3-Clause
#include "tests/fuzz/growth.h"

#include <malloc.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "base/sanitized.h"

#if MESH_SANITIZED
// Of the sanitizers' allocator_interface.h, which not every compiler brings.
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void*, size_t),
                                                         void (*on_free)(const volatile void*));
extern "C" int __sanitizer_get_ownership(const volatile void* p);
extern "C" size_t __sanitizer_get_allocated_size(const volatile void* p);
#endif

namespace {

std::atomic<int64_t> g_live{0}, g_peak{0};
int64_t g_base = 0;     // live bytes when the parser got to work
int64_t g_allowed = 0;  // beyond the common limit, for this input
int64_t g_kept = 0;     // by all inputs so far
bool g_warm = false;

void took(size_t bytes) {
    const int64_t live = g_live.fetch_add(static_cast<int64_t>(bytes), std::memory_order_relaxed) + static_cast<int64_t>(bytes);
    if (live > g_peak.load(std::memory_order_relaxed)) g_peak.store(live, std::memory_order_relaxed);
}

void gave(size_t bytes) { g_live.fetch_sub(static_cast<int64_t>(bytes), std::memory_order_relaxed); }

}  // namespace

#if MESH_SANITIZED

namespace {

void on_malloc(const volatile void*, size_t bytes) { took(bytes); }
void on_free(const volatile void* p) {
    if (p != nullptr && __sanitizer_get_ownership(p)) gave(__sanitizer_get_allocated_size(p));
}
[[maybe_unused]] const int g_hooks = __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);

}  // namespace

#else  // glibc's allocator, counted on its way; new and delete go through it

extern "C" {
void* __libc_malloc(size_t);
void __libc_free(void*);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

void* malloc(size_t n) {
    void* p = __libc_malloc(n);
    if (p != nullptr) took(malloc_usable_size(p));
    return p;
}
void free(void* p) {
    if (p != nullptr) gave(malloc_usable_size(p));
    __libc_free(p);
}
void* calloc(size_t n, size_t each) {
    void* p = __libc_calloc(n, each);
    if (p != nullptr) took(malloc_usable_size(p));
    return p;
}
void* realloc(void* p, size_t n) {
    const size_t before = p != nullptr ? malloc_usable_size(p) : 0;
    void* q = __libc_realloc(p, n);
    if (q == nullptr && n != 0) return q;
    gave(before);
    if (q != nullptr) took(malloc_usable_size(q));
    return q;
}
void* memalign(size_t align, size_t n) {
    void* p = __libc_memalign(align, n);
    if (p != nullptr) took(malloc_usable_size(p));
    return p;
}
void* aligned_alloc(size_t align, size_t n) { return memalign(align, n); }
int posix_memalign(void** out, size_t align, size_t n) {
    *out = memalign(align, n);
    return *out != nullptr ? 0 : ENOMEM;
}
}

#endif

extern "C" {
// The linker's --wrap: whoever calls the target comes here first.
int __real_LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
int __wrap_LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const int64_t before = g_live.load();
    g_base = before;
    g_peak = before;
    g_allowed = 0;
    const int result = __real_LLVMFuzzerTestOneInput(data, size);
    const int64_t grown = g_peak.load() - g_base;
    constexpr auto kLimit = static_cast<int64_t>(mesh::fuzz::kMaxGrowth);
    if (grown > kLimit + g_allowed) {
        std::fprintf(stderr, "\nan input of %zu bytes made memory grow by %lld bytes, %lld are allowed\n", size,
                     static_cast<long long>(grown), static_cast<long long>(kLimit + g_allowed));
        std::abort();
    }
    // The first input also pays for what a process makes once.
    if (g_warm) g_kept += g_live.load() - before;
    g_warm = true;
    if (g_kept > kLimit) {
        std::fprintf(stderr, "\ninputs have left %lld bytes behind in memory\n", static_cast<long long>(g_kept));
        std::abort();
    }
    return result;
}
}

namespace mesh::fuzz {

void equipment_ready() {
    g_base = g_live.load();
    g_peak = g_base;
}

void allow_growth(size_t bytes) { g_allowed += static_cast<int64_t>(bytes); }

}  // namespace mesh::fuzz
