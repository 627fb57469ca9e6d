// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The state on disk, in two generations: PATH and PATH.prev, the one before. A file that a crash or a failing disk
/// damaged is replaced by its predecessor; if both are damaged nothing is touched and the daemon does not start.

#include <string>

#include "base/result.h"
#include "base/secret.h"
#include "tailscaled/ipn/store.h"

namespace mesh::daemon {

class StateFile {
   public:
    /// "mem:" keeps nothing.
    explicit StateFile(std::string path) : path_(std::move(path)) {}
    /// Empty store if there is no file yet. Makes the folder (0700).
    [[nodiscard]] Result<ipn::StateStore> load();
    [[nodiscard]] Status save(const ipn::StateStore& store);
    [[nodiscard]] bool in_memory() const { return path_ == "mem:"; }
    [[nodiscard]] const std::string& path() const { return path_; }

   private:
    std::string path_;
    LockedText last_;  ///< what is on disk
};

}  // namespace mesh::daemon
