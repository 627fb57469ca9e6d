// SPDX-License-Identifier: BSD-3-Clause
#include "tailscale-cli/netcheck_text.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "magicsock/netcheck/format.h"

namespace mesh::cli {
namespace {

constexpr size_t kMaxText = 1000;

std::vector<std::string> texts(const Json& j, const char* key) {
    std::vector<std::string> out = json::strings(j, key);
    for (std::string& text : out) text = log::printable(text, kMaxText);
    return out;
}

bool is_stun(const std::string& problem) { return problem.starts_with("STUN: "); }

}  // namespace

const RelayFinding* Findings::best(int region) const {
    const RelayFinding* out = nullptr;
    for (const RelayFinding& r : relays) {
        const bool works = r.latency && std::all_of(r.problems.begin(), r.problems.end(), is_stun);
        if (r.region == region && works && (out == nullptr || *r.latency < *out->latency)) out = &r;
    }
    return out;
}

Findings read_findings(const std::string& relays, const std::string& portmap) {
    Findings out;
    if (const auto j = json::parse(portmap)) out.port_notes = texts(*j, "Notes");
    const auto j = json::parse(relays);
    if (!j) return out;
    out.captive_portal = json::opt_bool(*j, "CaptivePortal");
    const Json* list = json::find(*j, "Relays");
    if (list == nullptr || !list->is_array()) return out;
    for (const Json& r : *list) {
        if (!r.is_object()) continue;
        RelayFinding f;
        f.region = static_cast<int>(json::integer(r, "RegionID"));
        const std::string host = log::printable(json::str(r, "Host"), kMaxText);
        f.where = fmt::format("{}:{}", host.find(':') != std::string::npos ? "[" + host + "]" : host, json::integer(r, "Port"));
        f.good = json::boolean(r, "Good");
        f.v6 = json::boolean(r, "IPv6");
        if (const double s = json::number(r, "LatencySeconds", -1); s >= 0 && s < 60) f.latency = nanoseconds(static_cast<int64_t>(s * 1e9));
        f.problems = texts(r, "Problems");
        f.steps = texts(r, "Steps");
        out.relays.push_back(std::move(f));
    }
    return out;
}

std::string findings_text(const Findings& f, const derp::DerpMap& map, bool verbose) {
    std::string out;
    for (const std::string& note : f.port_notes) out += fmt::format("\t* PortMapping note: {}\n", note);
    const auto silent = std::count_if(f.relays.begin(), f.relays.end(), [](const RelayFinding& r) {
        return std::any_of(r.problems.begin(), r.problems.end(), is_stun);
    });
    // A network that drops UDP is one cause, not one per relay.
    const bool all_silent = silent > 1 && static_cast<size_t>(silent) == f.relays.size() && !verbose;
    for (const RelayFinding& r : f.relays) {
        const derp::DerpRegion* region = map.region(r.region);
        const std::string name = fmt::format("{} {}", log::printable(region ? region->code : std::to_string(r.region)), r.where);
        if (verbose && r.good)
            out += fmt::format("\t* DERP port: {}: works{}\n", name, r.latency ? ", answers in " + netcheck::duration_text(microseconds(r.latency->ns / 1000)) : "");
        for (const std::string& p : r.problems)
            if (!all_silent || !is_stun(p)) out += fmt::format("\t* DERP port: {}: {}\n", name, p);
        if (verbose)
            for (const std::string& s : r.steps) out += fmt::format("\t\t- {}\n", s);
    }
    if (all_silent)
        out += fmt::format("\t* DERP port: none of the {} relays answers STUN: this network drops UDP, so paths stay relayed\n", f.relays.size());
    return out;
}

Json findings_json(const Findings& f) {
    Json ports = Json::array();
    for (const RelayFinding& r : f.relays) {
        Json j = Json::object();
        j["RegionID"] = r.region;
        j["Address"] = r.where;
        j["Good"] = r.good;
        j["Latency"] = r.latency ? Json(r.latency->ns) : Json(nullptr);
        j["Problems"] = r.problems;
        ports.push_back(std::move(j));
    }
    Json out = Json::object();
    out["DERPPorts"] = std::move(ports);
    out["PortMappingNotes"] = f.port_notes;
    return out;
}

}  // namespace mesh::cli
