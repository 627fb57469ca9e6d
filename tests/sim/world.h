// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// A scenario as data, the run of it, and what must hold in every run.
///
/// Always:
///   nothing in clear   no datagram on a link or into a relay carries bytes or addresses of a packet of the tunnel
///   the right peer     no node ever gets a packet that is for another
///   each packet        arrives unchanged and at most once, also when datagrams are doubled or sent again much later
///   permitted          nothing arrives that control's filter forbids, or under a source that is not the sender's
///   size               no datagram is longer than an MTU of 1360 allows; over a link that is narrower, no path is trusted
/// With times counted from the moment when both nodes of a pair know each other's relay:
///   first answer       ≤ 2 s (lossy networks 4 s), whoever sends, also for packets sent before there was a path
///   direct path        ≤ 2 s (lossy 10 s; over many seeds 98 % ≤ 1 s) on both sides if direct_path_possible(), and again at
///                      the end of the run;
///                      never if not possible
///   no flapping        without loss a path once trusted stays, outside disturbances
///   silence            without loss no answer is missing outside disturbances; after a path died, a NAT lost its memory
///                      or an address changed, answers come again within 0.8 s (on slow links a few round trips more) and two
///                      intervals of the flow
/// Roll call, when all disturbances are over: every pair of nodes talks within 5 s and is direct, where predicted, within 10 s.

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "tests/sim/node.h"
#include "tests/sim/predict.h"

namespace mesh::sim {

struct SiteSpec {
    NatType v4 = kOpen;
    bool has_v6 = false;
    Depends v6_filter = Depends::kAddressAndPort;
    Link link;
};
struct NodeSpec {
    int site = 0;
    Duration join;  ///< the program starts
};
/// One host pings another. Its direction matters: who sends first.
struct FlowSpec {
    int from = 0, to = 1;
    Duration start;
    Duration interval = milliseconds(200);
    size_t size = 64;
    int as = -1;  ///< a user of `from` pretends to be this node; nothing of it may arrive
};
struct Disturbance {
    enum class Kind : uint8_t {
        kCut,           ///< no UDP between sites x and y for `length`
        kNatReboot,     ///< site x
        kRenumber,      ///< site x gets another outside address; its nodes notice
        kRestart,       ///< node x is killed and starts again after `length`, disco key kept
        kRestartNewKey, ///< the same with a new disco key
        kRelayRestart,  ///< region x
        kPollBreaks,    ///< node x hears nothing from control for `length`; nobody must feel it
        kDenied,        ///< control's filter lets node y refuse node x for `length`
    };
    Kind kind = Kind::kCut;
    Duration at;
    Duration length{};
    int x = 0, y = 0;
};
struct RegionSpec {
    Duration delay = milliseconds(2);  ///< until its relay has answered, besides the host's own link
    Duration dies{}, back{};           ///< its relay; zero: it does not
};
struct Scenario {
    uint64_t seed = 1;
    std::vector<SiteSpec> sites;
    std::vector<NodeSpec> nodes;
    std::vector<FlowSpec> flows;
    std::vector<Disturbance> disturbances;  ///< in order of time, ≥ 14 s before the end
    std::set<std::pair<int, int>> forbidden;  ///< (from, to): control's filter never lets it through
    bool roll_call = false;                   ///< in the last 12 s
    Sabotage sabotage = Sabotage::kNone;      ///< of node 1
    int regions = 2;
    std::vector<RegionSpec> far;  ///< of regions 1, 2, …; the others are as near as can be
    int liar = 0;  ///< the region whose relay lies; 0: none
    Duration control_delay = milliseconds(500);  ///< the longest
    Duration length = seconds(40);
    [[nodiscard]] bool lossy() const;
    [[nodiscard]] std::string describe() const;
};

/// 2 to 4 sites, 2 to 6 nodes, up to 4 flows (every eighth seed: up to 8 sites, 20 nodes, 12 flows), at most one
/// disturbance, with roll call; everything follows from the seed.
[[nodiscard]] Scenario random_scenario(uint64_t seed);

struct Outcome {
    std::vector<std::string> failures;  ///< empty: all that must hold held
    uint64_t trace_hash = 0;
    uint64_t datagrams = 0;
    uint64_t pings = 0, answers = 0;
    int direct_pairs = 0, relayed_pairs = 0;
    int direct_late = 0;  ///< of direct_pairs without lossy links: those that took more than a second
    /// For each flow: first answer and both sides direct, after both knew each other; never() if not reached.
    std::vector<std::pair<Duration, Duration>> reached;
};

using TraceSink = std::function<void(const std::string&)>;
[[nodiscard]] Outcome run_scenario(const Scenario& scenario, const TraceSink& trace = {});

}  // namespace mesh::sim
