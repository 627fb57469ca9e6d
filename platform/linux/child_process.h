// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// A program that runs beside the loop.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "platform/loop/loop.h"

namespace mesh::platform {

/// Destruction kills it (SIGKILL), and its end is not told any more.
class ChildProcess {
   public:
    /// `ok`: it ended by itself with exit code 0. May destroy the object.
    using OnExit = std::function<void(bool ok)>;
    /// argv[0] is looked up with find_program(). Without input or output. kNotFound: not installed.
    [[nodiscard]] static Result<std::unique_ptr<ChildProcess>> start(Loop& loop, const std::vector<std::string>& argv, OnExit on_exit);
    ~ChildProcess();
    ChildProcess(const ChildProcess&) = delete;
    ChildProcess& operator=(const ChildProcess&) = delete;

   private:
    struct State;
    explicit ChildProcess(State* state) : state_(state) {}
    State* state_;
};

}  // namespace mesh::platform
