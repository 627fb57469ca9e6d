// SPDX-License-Identifier: BSD-3-Clause
#include "tailscale-cli/whois_text.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"
#include "base/log.h"
#include "tailscale-cli/table_text.h"

namespace mesh::cli {
namespace {

std::string brackets(const std::vector<Prefix>& prefixes) {
    std::string out = "[";
    for (const Prefix& p : prefixes) out += (out.size() > 1 ? " " : "") + p.str();
    return out + "]";
}

std::string block(const std::vector<std::vector<std::string>>& rows) {
    return table_text(rows, 5, LastColumn::kBare, 10);
}

}  // namespace

std::string whois_text(const api::WhoIsResult& who) {
    const api::Node& n = who.node;
    std::string name = n.name;
    while (!name.empty() && name.back() == '.') name.pop_back();
    std::vector<std::vector<std::string>> rows{{"  Name:", log::printable(name)},
                                               {"  ID:", log::printable(n.stable_id)},
                                               {"  Addresses:", brackets(n.addresses)}};
    // What the node may send beyond its own addresses. (The original leaves out the first two entries whatever they
    // are, which hides a subnet when the list is sorted.)
    std::vector<Prefix> further;
    for (const Prefix& p : n.allowed_ips)
        if (std::find(n.addresses.begin(), n.addresses.end(), p) == n.addresses.end()) further.push_back(p);
    if (!further.empty()) rows.push_back({"  AllowedIPs:", brackets(further)});
    std::string tags;
    for (const std::string& t : n.tags) tags += (tags.empty() ? "" : ", ") + log::printable(t);
    if (!tags.empty()) rows.push_back({"  Tags:", tags});
    std::string out = "Machine:\n" + block(rows);
    if (tags.empty())
        out += "User:\n" + block({{"  Name:", log::printable(who.user.login_name)}, {"  ID:", fmt::format("{}", who.user.id)}});
    if (!who.cap_map.empty()) out += "Capabilities:\n";
    for (const auto& [capability, arguments] : who.cap_map) {
        out += "  - " + log::printable(capability);
        const auto values = json::parse(arguments);
        if (!values || !values->is_array() || values->empty()) {
            out += "\n";
            continue;
        }
        out += ":\n";
        for (const Json& v : *values) out += "      " + log::printable(json::dump(v), 2000) + "\n";
    }
    return out;
}

}  // namespace mesh::cli
