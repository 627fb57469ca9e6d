// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The run of one scenario: nodes, control and flows on the network (world.cc), and what is held against them (judge.cc).

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "tests/lab/registry.h"
#include "tests/sim/network.h"
#include "tests/sim/node.h"
#include "tests/sim/predict.h"
#include "tests/sim/world.h"

namespace mesh::sim {

inline constexpr size_t kMaxFailures = 12;

class World final : public Node::Listener {
   public:
    World(const Scenario& s, const TraceSink& trace);
    Outcome run();

   private:
    using Pair = std::pair<int, int>;
    struct Echo {
        Time sent, arrived, answered;
    };
    struct Flow {
        FlowSpec spec;
        bool roll_call = false;
        std::vector<Echo> echoes{};
    };
    struct Poll {
        bool open = false;
        uint64_t number = 0;  // what was sent in an earlier one is lost
        Time last, last_request;  // messages come in order, and so do requests
        std::set<int> denied;  // whom the filter that arrived last refuses
    };
    struct Trust {
        bool now = false;
        Time first{}, since{}, lost{};
        std::vector<Time> losses;
    };

    void build();
    void disturb(const Disturbance& d);
    void tick(size_t flow);
    void call_the_roll();
    void close_poll(size_t node);
    void open_poll(size_t node, const std::string& body);
    void keep_alive(size_t node, uint64_t number);
    void forward_messages();
    void send(size_t to, Json message);
    void send_filter(size_t to);
    [[nodiscard]] std::set<int> refused_by(size_t node) const;
    [[nodiscard]] Json filter_of(const std::set<int>& refused) const;
    void note_known(int node);
    void check();
    void check_safety();
    void check_roll_call(const Flow& f);
    void check_first(const Flow& f, Time ready);
    void check_direct(const Flow& f, Time ready);
    void check_silence(const Flow& f, Time ready);
    void check_stability(const Flow& f);
    void fail(std::string what) {
        if (outcome_.failures.size() < kMaxFailures) outcome_.failures.push_back(std::move(what));
    }

    [[nodiscard]] Time start() const { return start_; }
    [[nodiscard]] Place place_of(int node) const;
    [[nodiscard]] bool touches(const Disturbance& d, const Flow& f) const;
    /// True if something that concerns this flow was going on at any time in between.
    [[nodiscard]] const Disturbance* disturbed(const Flow& f, Time from, Time to) const;
    [[nodiscard]] std::string at(Time t) const { return fmt::format("{:.3f} s", (t - start_).seconds()); }
    [[nodiscard]] std::string name(const Flow& f) const {
        return fmt::format("n{} ({}) to n{} ({})", f.spec.from, place_of(f.spec.from).v4.name, f.spec.to, place_of(f.spec.to).v4.name);
    }
    [[nodiscard]] Duration round_trip(const Flow& f) const;
    /// A NAT that lost its memory gave the next mapping of this node a port that it likes to give, and that peers may have
    /// learnt from STUN before: luck that direct_path_possible() does not count on.
    [[nodiscard]] bool ports_shuffled(int node) const;
    [[nodiscard]] bool may_lapse(const Flow& f) const { return direct_path_may_lapse(place_of(f.spec.from), place_of(f.spec.to)); }

    [[nodiscard]] const Addr& addr(int node) const { return addrs_[static_cast<size_t>(node)]; }
    [[nodiscard]] size_t number_of(const Addr& a) const {
        return static_cast<size_t>(std::find(addrs_.begin(), addrs_.end(), a) - addrs_.begin());
    }
    [[nodiscard]] bool lossy() const { return scenario_.lossy() || net_.queue_drops() > 0; }
    [[nodiscard]] bool forbidden(int from, int to) const { return scenario_.forbidden.contains({from, to}); }

    // Node::Listener
    void control_request(Node& node, Node::Request kind, const std::string& body) override;
    void control_error(Node& node, const std::string& why) override { fail(fmt::format("n{}: {}", node.number(), why)); }
    void path_changed(Node& node, const Addr& peer, const magicsock::Path& path) override;
    void ping_arrived(Node& node, const Addr& from, uint32_t id, bool intact) override;
    void pong_arrived(Node& node, const Addr& from, uint32_t id, bool intact) override;

    const Scenario& scenario_;
    SeededRandom random_;
    Network net_;
    Time start_;
    std::vector<std::unique_ptr<Node>> nodes_;
    std::vector<Addr> addrs_;              // control gives them in the order of joining
    std::unique_ptr<lab::Registry> control_;
    std::vector<Poll> polls_;
    std::set<Pair> denied_now_;            // besides those that are forbidden
    std::vector<Flow> flows_;
    std::map<Pair, Trust> trust_;
    std::map<Pair, Time> known_, known_again_;  // first time; after a restart of one of them
    Outcome outcome_;
};

}  // namespace mesh::sim
