// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Files that matter: read with a size limit, replaced by temp, fsync, rename, fsync of the folder.

#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace mesh::platform {

/// Whole file, at most `max_bytes`. kNotFound if it does not exist.
[[nodiscard]] Result<std::string> read_file(const std::string& path, size_t max_bytes = 64U << 20);
/// After success the new content is on disk under `path`; after failure or a crash at any point the old one still is.
[[nodiscard]] Status replace_file(const std::string& path, std::string_view content, unsigned mode = 0600);
/// mkdir -p; the last component gets `mode`. Existing folders are left as they are.
[[nodiscard]] Status make_folders(const std::string& path, unsigned mode = 0700);

}  // namespace mesh::platform
