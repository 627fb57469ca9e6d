// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Files that matter: read with a size limit, replaced by temp, fsync, rename, fsync of the folder.

#include <cstdint>
#include <functional>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace mesh::platform {

/// Whole file, at most `max_bytes`. kNotFound if it does not exist.
[[nodiscard]] Result<std::string> read_file(const std::string& path, size_t max_bytes = 64U << 20);
/// After success the new content is on disk under `path`. After a crash at any point the old one or the new one is, whole.
/// After a failure the old one is, except if only the folder could not be synced: then it may be either.
[[nodiscard]] Status replace_file(const std::string& path, std::string_view content, unsigned mode = 0600);
/// mkdir -p; the last component gets `mode`. Existing folders are left as they are.
[[nodiscard]] Status make_folders(const std::string& path, unsigned mode = 0700);

/// What replace_file does, in this order. kWrite may come several times.
enum class FileStep : uint8_t { kCreate, kWrite, kMode, kSync, kRename, kSyncFolder };
/// For tests: asked before each step with the path it works on. 0 lets the step happen, anything else is the errno it fails
/// with instead. Empty: no faults. Not for use while another thread writes files.
void set_file_fault(std::function<int(FileStep, const std::string& path)> fault);

}  // namespace mesh::platform
