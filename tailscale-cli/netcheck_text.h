// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What the daemon found beside a net check: the ports of the relays and of the router. Printed behind the original's lines.

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/time.h"
#include "magicsock/derp/derp_map.h"

namespace mesh::cli {

/// One node of the map.
struct RelayFinding {
    int region = 0;
    std::string where;  ///< host:port
    bool good = false;
    bool v6 = false;
    std::optional<Duration> latency;  ///< of an answer behind TLS
    std::vector<std::string> problems, steps;
};
struct Findings {
    std::vector<RelayFinding> relays;
    std::optional<bool> captive_portal;
    std::vector<std::string> port_notes;
    /// The best of a region that answers as it should; nullptr if none does.
    [[nodiscard]] const RelayFinding* best(int region) const;
};

/// Bodies of the local API's debug-relays and debug-portmap; whatever is not as expected is left out.
[[nodiscard]] Findings read_findings(const std::string& relays, const std::string& portmap);
/// Lines as of `tailscale netcheck`: what is wrong, and with `verbose` also what is right. "" if there is nothing to say.
[[nodiscard]] std::string findings_text(const Findings& f, const derp::DerpMap& map, bool verbose);
/// Extra keys of the JSON report.
[[nodiscard]] Json findings_json(const Findings& f);

}  // namespace mesh::cli
