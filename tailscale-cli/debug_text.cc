// SPDX-License-Identifier: BSD-3-Clause
#include "tailscale-cli/debug_text.h"

#include <fmt/format.h>

#include <vector>

#include "base/json.h"
#include "base/log.h"
#include "tailscale-cli/table_text.h"

namespace mesh::cli {
namespace {

double number(const Json& j, const char* key, double otherwise = 0) {
    const Json* v = json::find(j, key);
    return v != nullptr && v->is_number() ? v->get<double>() : otherwise;
}

std::string word(const Json& j, const char* key) { return log::printable(json::str(j, key), 200); }

std::string ms(double seconds) { return fmt::format("{:.1f} ms", seconds * 1000); }

std::string ago(double seconds) {
    return seconds < 120 ? fmt::format("{:.1f} s ago", seconds) : fmt::format("{:.0f} min ago", seconds / 60);
}

/// The words of a candidate's row.
std::vector<std::string> candidate_row(const Json& c) {
    const auto pings = static_cast<int64_t>(number(c, "Pings")), pongs = static_cast<int64_t>(number(c, "Pongs"));
    std::string result = "not tried";
    if (pings > 0) result = fmt::format("{} ping{}, {} answered", pings, pings == 1 ? "" : "s", pongs);
    if (const double recent = number(c, "Recent"); pongs > 0 && recent > 0)
        result += fmt::format("; {:.0f} of the last {:.0f} lost", number(c, "RecentLost"), recent);
    if (pongs > 0) result += fmt::format("; {}, best {}", ms(number(c, "LatencySeconds")), ms(number(c, "BestLatencySeconds")));
    if (const double last = number(c, "SecondsSinceProbe", -1); last >= 0) result += "; last " + ago(last);
    return {"    " + word(c, "Endpoint"), word(c, "Source"), result};
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

std::string path_event_text(const Json& e) {
    std::string out = word(e, "What");
    if (const std::string ep = word(e, "Endpoint"); !ep.empty()) out += " " + ep;
    if (const double latency = number(e, "LatencySeconds"); latency > 0) out += ", " + ms(latency);
    return out;
}

std::string paths_text(std::string_view text, const std::string& peer) {
    const auto j = json::parse(text);
    if (!j || !j->is_array()) return "";
    std::string out;
    for (const Json& p : *j) {
        if (!p.is_object() || !matches(p, peer)) continue;
        if (!out.empty()) out += "\n";
        const std::string direct = word(p, "Direct"), relay = word(p, "Relay");
        std::string how = "idle";
        if (!direct.empty()) how = fmt::format("direct {} in {}", direct, ms(number(p, "LatencySeconds")));
        else if (number(p, "SecondsSinceSend", -1) >= 0) how = "by relay";
        out += fmt::format("{}: {}{}\n", word(p, "Peer"), how, relay.empty() ? "" : fmt::format(" (relay {})", relay));
        if (const double gone = number(p, "SecondsSinceRelayGone", -1); gone >= 0)
            out += fmt::format("  the relay said {} that it is not connected there\n", ago(gone));
        std::vector<std::vector<std::string>> rows;
        if (const Json* list = json::find(p, "Candidates"); list != nullptr && list->is_array())
            for (const Json& c : *list)
                if (c.is_object()) rows.push_back(candidate_row(c));
        if (!rows.empty()) out += "  addresses:\n" + table_text(rows, 2, LastColumn::kBare);
        rows.clear();
        if (const Json* list = json::find(p, "Events"); list != nullptr && list->is_array())
            for (const Json& e : *list)
                if (e.is_object()) rows.push_back({fmt::format("    {:>9}", ago(number(e, "SecondsAgo"))), path_event_text(e)});
        if (!rows.empty()) out += "  what happened:\n" + table_text(rows, 2, LastColumn::kBare);
    }
    if (out.empty()) return peer.empty() ? "no peers\n" : "no such peer\n";
    return out;
}

}  // namespace mesh::cli
