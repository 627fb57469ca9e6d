// SPDX-License-Identifier: BSD-3-Clause
#include "tailscale-cli/doctor_text.h"

#include <fmt/format.h>

#include "base/log.h"

namespace mesh::cli {
namespace {

const Json* findings(const Json& report, bool of_peer) {
    const Json* at = json::find(report, of_peer ? "Peer" : "Node");
    if (at != nullptr && of_peer) at = at->is_object() ? json::find(*at, "Findings") : nullptr;
    return at != nullptr && at->is_array() ? at : nullptr;
}

std::string word(const Json& j, const char* key) { return log::printable(json::str(j, key), 2000); }

std::string findings_text(const Json& list) {
    std::string out;
    for (const Json& f : list) {
        if (!f.is_object()) continue;
        out += fmt::format("  {}: {}\n", word(f, "Level"), word(f, "Text"));
        if (const std::string advice = word(f, "Do"); !advice.empty()) out += fmt::format("      {}\n", advice);
    }
    return out;
}

}  // namespace

std::string doctor_text(const Json& report) {
    std::string out = "this host:\n";
    const Json* own = findings(report, false);
    const std::string text = own != nullptr ? findings_text(*own) : "";
    out += text.empty() ? "  nothing to say\n" : text;
    if (const Json* peer = findings(report, true)) {
        const Json& p = *json::find(report, "Peer");
        const std::string name = word(p, "Name"), address = word(p, "Address");
        out += fmt::format("\n{}:\n", name.empty() ? address : fmt::format("{} ({})", name, address)) + findings_text(*peer);
    }
    return out;
}

std::string doctor_peer_text(const Json& report) {
    const Json* list = findings(report, true);
    return list != nullptr ? findings_text(*list) : "";
}

bool doctor_found_problem(const Json& report) {
    for (const bool of_peer : {false, true})
        if (const Json* list = findings(report, of_peer))
            for (const Json& f : *list)
                if (f.is_object() && json::str(f, "Level") == "problem") return true;
    return false;
}

std::optional<Json> judge_hops(std::span<const Addr> hops) {
    if (hops.size() < 2 || !hops[0].is_v4() || !hops[1].is_v4() || !hops[0].is_private()) return std::nullopt;
    const bool carrier = Prefix{Addr::v4(100, 64, 0, 0), 10}.contains(hops[1]);
    if (!carrier && !hops[1].is_private()) return std::nullopt;
    Json f = Json::object();
    f["Level"] = "note";
    f["Code"] = carrier ? "carrier-nat" : "double-nat";
    f["Text"] = carrier ? fmt::format("Behind the router {} there is the provider's NAT ({}): this host has no public IPv4 address of its own.", hops[0].str(),
                                      hops[1].str())
                        : fmt::format("There are two routers with private addresses between this host and the internet ({}, then {}), so there are probably "
                                      "two NATs: a port that the first one forwards is not reachable from outside.",
                                      hops[0].str(), hops[1].str());
    f["Do"] = carrier ? "Port forwarding and UPnP cannot help here; IPv6 can, or a public address from the provider."
                      : "Put the inner router into bridge (access point) mode, or forward the port at both.";
    return f;
}

}  // namespace mesh::cli
