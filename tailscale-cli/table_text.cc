// SPDX-License-Identifier: BSD-3-Clause
#include "tailscale-cli/table_text.h"

#include <algorithm>

namespace mesh::cli {

size_t text_width(const std::string& text) {
    return static_cast<size_t>(
        std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string table_text(const std::vector<std::vector<std::string>>& rows, size_t gap, LastColumn last,
                       size_t min_width) {
    std::vector<size_t> widths;
    for (const auto& row : rows) {
        if (widths.size() < row.size()) widths.resize(row.size());
        for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], text_width(row[i]));
    }
    std::string out;
    for (const auto& row : rows) {
        for (size_t i = 0; i < row.size(); ++i) {
            out += row[i];
            if (i + 1 == row.size() && last == LastColumn::kBare) break;
            out.append(std::max(widths[i] + gap, min_width) - text_width(row[i]), ' ');
        }
        out += '\n';
    }
    return out;
}

}  // namespace mesh::cli
