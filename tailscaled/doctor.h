// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Why there is no direct path to a peer, or no connection at all, in sentences a person at home can act on. Functions of
/// values: what the daemon knows of itself, the last netcheck, what the map says of the peer, what was tried on its paths.
///
/// A cause is named only if something seen speaks for it; what fits several causes says so. Codes are for scripts and do
/// not change; the texts may.

#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "magicsock/netcheck/netcheck.h"
#include "magicsock/portmap/mapper.h"
#include "tailscaled/status_view.h"

namespace mesh::daemon {

struct Finding {
    enum class Level : uint8_t { kOk, kNote, kProblem };
    Level level = Level::kProblem;
    std::string code;    ///< "udp-blocked"
    std::string text;    ///< what is, in one or two sentences
    std::string advice;  ///< what to do; "" if nothing
};

struct DoctorInputs {
    const StatusInputs* status = nullptr;
    std::string control_url;
    std::string control_error;  ///< "" = fine
    const netcheck::Report* report = nullptr;  ///< null before the first
    const derp::DerpMap* derp_map = nullptr;
    const std::set<int>* live_derps = nullptr;
    const std::map<int, std::string>* derp_problems = nullptr;  ///< region → why it cannot be connected to
    std::span<const portmap::Note> port_mapping;  ///< what keeps the router from opening a port
    uint16_t port = 41641;      ///< UDP port of this host
    bool have_network = true;   ///< some interface has an address of use
    bool default_route = true;
};

/// Of this host: login, control server, clock, UDP, relays, IPv6, NAT.
[[nodiscard]] std::vector<Finding> examine_host(const DoctorInputs& in);

struct PeerDiagnosis {
    enum class Path : uint8_t { kNone, kRelay, kPeerRelay, kDirect };
    Path path = Path::kNone;
    std::vector<Finding> findings;  ///< the first says how the peer is reached
};
/// `peer`: what the packet loop knows of it; null: nothing.
[[nodiscard]] PeerDiagnosis examine_peer(const DoctorInputs& in, const netmap::Node& node, const PeerSnapshot* peer);

/// Compact JSON for `tailscale doctor`: {"Node":[findings],"Peer":{…} or null}. `asked`: the address that `node` has or
/// routes to; both null or none: about this host alone.
[[nodiscard]] std::string doctor_json(const DoctorInputs& in, const netmap::NodePtr& node, const std::optional<Addr>& asked);

}  // namespace mesh::daemon
