// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Columns padded with spaces: each cell but the last of a row is followed by `gap` spaces beyond the widest of its
/// column. Widths are counted in characters, not bytes.

#include <string>
#include <vector>

namespace mesh::cli {

enum class LastColumn { kBare, kPadded };

[[nodiscard]] std::string table_text(const std::vector<std::vector<std::string>>& rows, size_t gap, LastColumn last,
                                     size_t min_width = 0);
[[nodiscard]] size_t text_width(const std::string& text);

}  // namespace mesh::cli
