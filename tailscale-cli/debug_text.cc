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

/// How long packets may be there.
std::string size_text(const Json& c) {
    const std::string size = word(c, "Size");
    if (size == "whole") return fmt::format("carries full packets ({:.0f} bytes)", number(c, "CarriesBytes"));
    if (size == "not told") return "does not tell how long packets may be";
    if (size != "too small") return "";
    return fmt::format("not used: packets of {:.0f} bytes get lost, {:.0f} bytes arrive", number(c, "FullBytes"), number(c, "CarriesBytes"));
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
    if (const std::string size = size_text(c); !size.empty()) result += "; " + size;
    return {"    " + word(c, "Endpoint"), word(c, "Source"), result};
}

std::string peer_relay_text(const Json& v) {
    if (word(v, "Endpoint").empty()) return "has not answered";
    if (!json::boolean(v, "Bound")) return "the peer was not heard through it";
    return fmt::format("{:.0f} pings, {:.0f} pongs", number(v, "Pings"), number(v, "Pongs"));
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

std::string relay_sessions_text(std::string_view text) {
    const auto j = json::parse(text);
    if (!j || !j->is_object()) return "";
    const Json* port = json::find(*j, "UDPPort");
    const Json* list = json::find(*j, "Sessions");
    const size_t count = list != nullptr && list->is_array() ? list->size() : 0;
    std::string out = fmt::format("Server port: {}\nSessions count: {}\n",
                                  port != nullptr && port->is_number_integer()
                                      ? json::dump(*port)
                                      : "not configured (you can configure the port with 'tailscale set --relay-server-port=<PORT>')",
                                  count);
    if (count == 0) return out;
    out += "\n";
    const auto end = [](const Json& client) {
        const std::string at = word(client, "Endpoint");
        return fmt::format("{}({})", at.empty() ? "<no handshake>" : at, word(client, "ShortDisco"));
    };
    for (const Json& s : *list) {
        const Json* one = json::find(s, "Client1");
        const Json* other = json::find(s, "Client2");
        if (one == nullptr || other == nullptr) continue;
        out += fmt::format("VNI: {:.0f}\n", number(s, "VNI"));
        for (const auto& [from, to] : {std::pair{one, other}, std::pair{other, one}})
            out += fmt::format("  {} --> {}, Packets: {:.0f} Bytes: {:.0f}\n", end(*from), end(*to), number(*from, "PacketsTx"), number(*from, "BytesTx"));
    }
    return out;
}

std::string path_event_text(const Json& e) {
    std::string out = word(e, "What");
    if (const std::string ep = word(e, "Endpoint"); !ep.empty()) out += " " + ep;
    if (const double latency = number(e, "LatencySeconds"); latency > 0) out += ", " + ms(latency);
    if (const double bytes = number(e, "Bytes"); bytes > 0) out += fmt::format(", {:.0f} bytes arrive", bytes);
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
        else if (const std::string via = word(p, "PeerRelay"); !via.empty())
            how = fmt::format("by peer relay {} in {}", via, ms(number(p, "PeerRelayLatencySeconds")));
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
        if (const Json* list = json::find(p, "PeerRelays"); list != nullptr && list->is_array())
            for (const Json& v : *list)
                if (v.is_object()) rows.push_back({"    " + word(v, "Endpoint") + fmt::format(":vni:{:.0f}", number(v, "VNI")), peer_relay_text(v)});
        if (!rows.empty()) out += "  peer relays:\n" + table_text(rows, 2, LastColumn::kBare);
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
