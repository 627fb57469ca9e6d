// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Errors outside the packet path. Input from the outside is never CHECKed: a failure is a value that says what
/// happened, to what, and (where the system knows) the errno.

#include <cstdint>
#include <cstring>
#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace mesh {

/// Kinds a caller may branch on. `context` is for people.
enum class Code : uint8_t {
    kInvalid,      ///< malformed input
    kNotFound,
    kDenied,       ///< authentication or permission
    kUnavailable,  ///< refused, unreachable, closed
    kTimeout,
    kLimit,        ///< a bound was reached
    kSystem,       ///< see sys_errno
    kUnsupported,
    kInternal,
};

struct Error {
    Code code = Code::kInternal;
    int sys_errno = 0;
    std::string context;

    /// "open /dev/net/tun: Operation not permitted"
    [[nodiscard]] std::string message() const {
        if (sys_errno == 0) return context;
        return context + ": " + std::strerror(sys_errno);
    }
    [[nodiscard]] Error with(const std::string& what) && {
        context = what + ": " + context;
        return std::move(*this);
    }
};

template <class T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

[[nodiscard]] inline tl::unexpected<Error> fail(Code code, std::string context, int sys_errno = 0) {
    return tl::unexpected<Error>(Error{code, sys_errno, std::move(context)});
}
[[nodiscard]] inline tl::unexpected<Error> fail_errno(std::string context, int sys_errno) {
    return fail(Code::kSystem, std::move(context), sys_errno);
}

}  // namespace mesh

#define MESH_CONCAT2(a, b) a##b
#define MESH_CONCAT(a, b) MESH_CONCAT2(a, b)
/// TRY(f()): return the error of a Status or Result from this function.
#define TRY(expr)                                                            \
    do {                                                                     \
        auto mesh_try_result = (expr);                                       \
        if (!mesh_try_result)                                                \
            return ::tl::unexpected(std::move(mesh_try_result.error()));     \
    } while (false)
/// TRY_ASSIGN(auto x, f()): x = value, or return the error.
#define TRY_ASSIGN(decl, expr)                                               \
    auto MESH_CONCAT(mesh_try_, __LINE__) = (expr);                          \
    if (!MESH_CONCAT(mesh_try_, __LINE__))                                   \
        return ::tl::unexpected(std::move(MESH_CONCAT(mesh_try_, __LINE__).error())); \
    decl = std::move(*MESH_CONCAT(mesh_try_, __LINE__))
