// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// CHECK is for bugs in this program, on in every build. Never for input.

namespace mesh {
[[noreturn]] void check_failed(const char* expression, const char* file, int line);
}

#define CHECK(cond) \
    do {            \
        if (!(cond)) [[unlikely]] ::mesh::check_failed(#cond, __builtin_FILE(), __builtin_LINE()); \
    } while (false)
#ifdef NDEBUG
#define DCHECK(cond) \
    do {             \
    } while (false)
#else
#define DCHECK(cond) CHECK(cond)
#endif
