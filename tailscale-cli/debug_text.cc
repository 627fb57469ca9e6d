// SPDX-License-Identifier: BSD-3-Clause
#include "tailscale-cli/debug_text.h"

#include <fmt/format.h>

#include <vector>

#include "base/json.h"
#include "base/log.h"
#include "tailscale-cli/table_text.h"

namespace mesh::cli {
namespace {

std::string scalar(const Json& v) {
    return log::printable(v.is_string() ? v.get_ref<const std::string&>() : json::dump(v), 500);
}

bool matches(const Json& peer, const std::string& wanted) {
    if (wanted.empty()) return true;
    for (const auto& [key, value] : peer.items()) {
        if (value.is_string()) {
            const auto& s = value.get_ref<const std::string&>();
            if (s == wanted || s.starts_with(wanted + ".")) return true;
        } else if (value.is_array()) {
            for (const Json& e : value)
                if (e.is_string() && e.get_ref<const std::string&>() == wanted) return true;
        }
    }
    return false;
}

}  // namespace

std::string drops_text(std::string_view text, bool all) {
    const auto j = json::parse(text);
    if (!j || !j->is_object()) return "";
    std::vector<std::vector<std::string>> rows;
    for (const auto& [reason, count] : j->items()) {
        if (!count.is_number_integer()) continue;
        if (all || count.get<int64_t>() != 0)
            rows.push_back({log::printable(reason), json::dump(count)});
    }
    if (rows.empty()) return "no packet was dropped\n";
    return table_text(rows, 2, LastColumn::kBare);
}

std::string paths_text(std::string_view text, const std::string& peer) {
    const auto j = json::parse(text);
    if (!j || !j->is_array()) return "";
    std::string out;
    for (const Json& p : *j) {
        if (!p.is_object() || !matches(p, peer)) continue;
        if (!out.empty()) out += "\n";
        bool first = true;
        for (const auto& [key, value] : p.items()) {
            if (value.is_null() || (value.is_string() && value.get_ref<const std::string&>().empty())) continue;
            if (first) {  // the first field names the peer
                out += scalar(value) + "\n";
                first = false;
            } else if (value.is_array()) {
                if (value.empty()) continue;
                out += fmt::format("  {}:\n", log::printable(key));
                for (const Json& e : value) out += "    " + scalar(e) + "\n";
            } else {
                out += fmt::format("  {}: {}\n", log::printable(key), scalar(value));
            }
        }
    }
    if (out.empty()) return peer.empty() ? "no peers\n" : "no such peer\n";
    return out;
}

}  // namespace mesh::cli
