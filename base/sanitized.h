// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// MESH_SANITIZED: 1 if AddressSanitizer or ThreadSanitizer owns the heap. GCC says so by macros, Clang by __has_feature.

#if defined(__has_feature)
#define MESH_HAS_FEATURE(x) __has_feature(x)
#else
#define MESH_HAS_FEATURE(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || MESH_HAS_FEATURE(address_sanitizer) || \
    MESH_HAS_FEATURE(thread_sanitizer)
#define MESH_SANITIZED 1
#else
#define MESH_SANITIZED 0
#endif
#undef MESH_HAS_FEATURE
