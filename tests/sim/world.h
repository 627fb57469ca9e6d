// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// A scenario as data, the run of it, and what must hold in every run.
///
/// Held in each run, with times counted from the moment when both nodes of a pair know each other's relay:
///   first answer      ≤ 1.5 s (lossy networks 4 s), whoever sends, also for packets sent before there was a path
///   direct path       ≤ 1 s (lossy 10 s) on both sides if direct_path_possible(), and again at the end of the run;
///                     never if not possible
///   no flapping       without loss a path once trusted stays, outside disturbances
///   silence           without loss no answer is missing outside disturbances; after a path died, a NAT lost its memory
///                     or an address changed, answers come again within 3.3 s
///   each packet       arrives unchanged and at most once

#include <functional>
#include <map>
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
};
struct Disturbance {
    enum class Kind : uint8_t {
        kCut,           ///< no UDP between sites x and y for `length`
        kNatReboot,     ///< site x
        kRenumber,      ///< site x gets another outside address; its nodes notice
        kRestart,       ///< node x is killed and starts again after `length`, disco key kept
        kRestartNewKey, ///< the same with a new disco key
        kRelayRestart,  ///< region x
    };
    Kind kind = Kind::kCut;
    Duration at;
    Duration length{};
    int x = 0, y = 0;
};
struct Scenario {
    uint64_t seed = 1;
    std::vector<SiteSpec> sites;
    std::vector<NodeSpec> nodes;
    std::vector<FlowSpec> flows;
    std::vector<Disturbance> disturbances;  ///< in order of time, ≥ 14 s before the end
    int regions = 2;
    Duration control_delay = milliseconds(500);  ///< the longest
    Duration length = seconds(40);
    [[nodiscard]] bool lossy() const;
    [[nodiscard]] std::string describe() const;
};

/// 2 to 4 sites, 2 to 6 nodes, up to 4 flows, at most one disturbance; everything follows from the seed.
[[nodiscard]] Scenario random_scenario(uint64_t seed);

struct Outcome {
    std::vector<std::string> failures;  ///< empty: all that must hold held
    uint64_t trace_hash = 0;
    uint64_t datagrams = 0;
    uint64_t pings = 0, answers = 0;
    int direct_pairs = 0, relayed_pairs = 0;
    /// For each flow: first answer and both sides direct, after both knew each other; never() if not reached.
    std::vector<std::pair<Duration, Duration>> reached;
};

using TraceSink = std::function<void(const std::string&)>;
[[nodiscard]] Outcome run_scenario(const Scenario& scenario, const TraceSink& trace = {});

}  // namespace mesh::sim
