// SPDX-License-Identifier: BSD-3-Clause
#include "tests/sim/world.h"

#include <fmt/format.h>

#include <algorithm>

namespace mesh::sim {
namespace {

constexpr Duration kFirstAnswer = milliseconds(1500), kFirstAnswerLossy = seconds(4);
constexpr Duration kDirect = seconds(1), kDirectLossy = seconds(10);
constexpr Duration kLeave = milliseconds(3300);      // a dead path is left
constexpr Duration kAfterRestart = milliseconds(2500);
constexpr size_t kMaxFailures = 12;
constexpr Duration kRecovery = seconds(12);          // how long a disturbance may be felt

class World final : public Node::Listener {
   public:
    World(const Scenario& s, const TraceSink& trace) : scenario_(s), random_(s.seed ^ 0x5eedULL), net_(random_.u64()) {
        if (trace) net_.set_trace(trace);
    }
    Outcome run();

   private:
    using Pair = std::pair<int, int>;
    struct Echo {
        Time sent, arrived, answered;
    };
    struct Flow {
        FlowSpec spec;
        std::vector<Echo> echoes;
    };
    struct Trust {
        bool now = false;
        Time first{}, since{}, lost{};
        std::vector<Time> losses;
    };

    void build();
    void disturb(const Disturbance& d);
    void tick(size_t flow);
    void publish(int node);
    void deliver(int to, int about);
    void check();
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

    // Node::Listener
    void record_changed(Node& node) override { publish(node.number()); }
    void path_changed(Node& node, PeerId peer, const magicsock::Path& path) override;
    void ping_arrived(Node& node, PeerId from, uint32_t id, bool intact) override;
    void pong_arrived(Node& node, PeerId from, uint32_t id, bool intact) override;

    const Scenario& scenario_;
    SeededRandom random_;
    Network net_;
    Time start_;
    std::vector<std::unique_ptr<Node>> nodes_;
    std::vector<Record> control_;          // as control has them; zero key: not yet
    std::vector<Flow> flows_;
    std::map<Pair, Trust> trust_;
    std::map<Pair, Time> known_, known_again_;  // first time; after a restart of one of them
    Outcome outcome_;
};

// ---- building and running

void World::build() {
    start_ = net_.now();
    net_.add_regions(scenario_.regions);
    for (const SiteSpec& spec : scenario_.sites) {
        Site& s = net_.add_site(spec.v4);
        s.link = spec.link;
        if (spec.has_v6) {
            NatType firewall = kFirewall;
            firewall.filtering = spec.v6_filter;
            s.v6 = std::make_unique<Nat>(firewall, Addr{}, random_.u64());
        }
    }
    control_.resize(scenario_.nodes.size());
    for (size_t i = 0; i < scenario_.nodes.size(); ++i) {
        nodes_.push_back(std::make_unique<Node>(net_, *this, static_cast<int>(i), net_.site(scenario_.nodes[i].site), random_.u64()));
        net_.at(start_ + scenario_.nodes[i].join, [this, i] {
            nodes_[i]->start(true);
            for (size_t other = 0; other < nodes_.size(); ++other)
                if (other != i) deliver(static_cast<int>(i), static_cast<int>(other));
        });
    }
    for (size_t i = 0; i < scenario_.flows.size(); ++i) {
        flows_.push_back({scenario_.flows[i], {}});
        net_.at(start_ + scenario_.flows[i].start, [this, i] { tick(i); });
    }
    for (const Disturbance& d : scenario_.disturbances) net_.at(start_ + d.at, [this, d] { disturb(d); });
}

void World::disturb(const Disturbance& d) {
    using Kind = Disturbance::Kind;
    net_.trace("disturbance begins");
    switch (d.kind) {
        case Kind::kCut:
            net_.cut(d.x, d.y, true);
            net_.at(net_.now() + d.length, [this, d] {
                net_.trace("disturbance ends");
                net_.cut(d.x, d.y, false);
            });
            break;
        case Kind::kNatReboot: net_.site(d.x).v4.reboot(); break;
        case Kind::kRenumber:
            net_.site(d.x).v4.renumber(Addr::v4(203, 0, static_cast<uint8_t>(213 + d.x), 1));
            for (const auto& n : nodes_)
                if (n->site().number == d.x && n->running()) n->rebind();
            break;
        case Kind::kRestart:
        case Kind::kRestartNewKey: {
            const auto i = static_cast<size_t>(d.x);
            nodes_[i]->kill();
            for (auto& [pair, t] : trust_)
                if (pair.first == d.x) t.now = false;
            for (auto& [pair, t] : known_)
                if (pair.first == d.x || pair.second == d.x) known_again_[pair] = {};
            net_.at(net_.now() + d.length, [this, i, d] {
                nodes_[i]->start(d.kind == Kind::kRestartNewKey);
                for (size_t other = 0; other < nodes_.size(); ++other)
                    if (other != i) deliver(static_cast<int>(i), static_cast<int>(other));
            });
            break;
        }
        case Kind::kRelayRestart: net_.derp_restart(d.x); break;
    }
}

void World::tick(size_t flow) {
    Flow& f = flows_[flow];
    const auto id = static_cast<uint32_t>((flow << 16) | f.echoes.size());
    f.echoes.push_back({net_.now(), {}, {}});
    nodes_[static_cast<size_t>(f.spec.from)]->ping(f.spec.to, id, f.spec.size);
    // Not all at the same instants.
    net_.at(net_.now() + f.spec.interval + microseconds(random_.below(2000)), [this, flow] { tick(flow); });
}

// A node tells control; control tells everybody, one by one.
void World::publish(int node) {
    const auto i = static_cast<size_t>(node);
    net_.at(net_.now() + milliseconds(20 + random_.below(60)), [this, node, i] {
        if (!nodes_[i]->running()) return;
        control_[i] = nodes_[i]->record();
        for (size_t other = 0; other < nodes_.size(); ++other)
            if (static_cast<int>(other) != node) deliver(static_cast<int>(other), node);
    });
}

void World::deliver(int to, int about) {
    const auto spread = static_cast<uint32_t>(scenario_.control_delay.millis()) + 1;
    net_.at(net_.now() + milliseconds(30 + random_.below(spread)), [this, to, about] {
        const Record& r = control_[static_cast<size_t>(about)];
        Node& n = *nodes_[static_cast<size_t>(to)];
        if (r.key.is_zero() || !n.running()) return;
        n.learn_peer(about, r);
        if (n.knows_since(about).is_zero()) return;
        const Pair pair{to, about};
        known_.try_emplace(pair, net_.now());
        // A restarted peer counts as known again with the keys it has now.
        const auto again = known_again_.find(pair);
        const Node& peer = *nodes_[static_cast<size_t>(about)];
        if (again != known_again_.end() && again->second.is_zero() && peer.running() && r == peer.record()) again->second = net_.now();
    });
}

Outcome World::run() {
    build();
    const Time end = start_ + scenario_.length;
    uint64_t turns_at_once = 0;
    while (true) {
        Time next = net_.next_event();
        Node* node = nullptr;
        for (const auto& n : nodes_)
            if (n->next_timeout() < next) {
                next = n->next_timeout();
                node = n.get();
            }
        if (next > end) break;
        turns_at_once = next > net_.now() ? 0 : turns_at_once + 1;
        if (turns_at_once > 200'000) {
            fail("time stands still at " + at(net_.now()));
            break;
        }
        net_.advance_to(next);
        if (node != nullptr)
            node->handle_timeout();
        else
            net_.run_next();
    }
    net_.advance_to(end);
    check();
    outcome_.trace_hash = net_.trace_hash();
    outcome_.datagrams = net_.datagrams();
    return std::move(outcome_);
}

// ---- watching

void World::path_changed(Node& node, PeerId peer, const magicsock::Path& path) {
    const Pair pair{node.number(), static_cast<int>(peer)};
    Trust& t = trust_[pair];
    const Time now = net_.now();
    if (path.udp_trusted && !t.now) {
        t.since = now;
        if (t.first.is_zero()) t.first = now;
        if (!direct_path_possible(place_of(pair.first), place_of(pair.second)))
            fail(fmt::format("n{} trusts {} to n{} at {}, which cannot work", pair.first, path.udp.str(), pair.second, at(now)));
    }
    if (!path.udp_trusted && t.now) {
        t.lost = now;
        t.losses.push_back(now);
    }
    t.now = path.udp_trusted;
}

void World::ping_arrived(Node& node, PeerId from, uint32_t id, bool intact) {
    const size_t flow = id >> 16, seq = id & 0xffff;
    if (flow >= flows_.size() || seq >= flows_[flow].echoes.size()) return fail("a packet that nobody sent");
    Flow& f = flows_[flow];
    Echo& e = f.echoes[seq];
    if (!intact || f.spec.to != node.number() || f.spec.from != static_cast<int>(from)) fail("a packet arrived changed");
    if (!e.arrived.is_zero()) fail(fmt::format("{}: a packet of {} arrived twice", name(f), at(e.sent)));
    e.arrived = net_.now();
}

void World::pong_arrived(Node& node, PeerId from, uint32_t id, bool intact) {
    const size_t flow = id >> 16, seq = id & 0xffff;
    if (flow >= flows_.size() || seq >= flows_[flow].echoes.size()) return fail("an answer to nothing");
    Flow& f = flows_[flow];
    Echo& e = f.echoes[seq];
    if (!intact || f.spec.from != node.number() || f.spec.to != static_cast<int>(from)) fail("an answer arrived changed");
    if (!e.answered.is_zero()) fail(fmt::format("{}: the answer to {} arrived twice", name(f), at(e.sent)));
    e.answered = net_.now();
}

// ---- judging

Place World::place_of(int node) const {
    const int n = scenario_.nodes[static_cast<size_t>(node)].site;
    const SiteSpec& s = scenario_.sites[static_cast<size_t>(n)];
    return {.site = n, .v4 = s.v4, .has_v6 = s.has_v6, .v6_filter = s.v6_filter};
}

Duration World::round_trip(const Flow& f) const {
    const Link& a = scenario_.sites[static_cast<size_t>(place_of(f.spec.from).site)].link;
    const Link& b = scenario_.sites[static_cast<size_t>(place_of(f.spec.to).site)].link;
    return (a.delay + a.jitter + b.delay + b.jitter + milliseconds(4)) * 2;
}

bool World::touches(const Disturbance& d, const Flow& f) const {
    using Kind = Disturbance::Kind;
    const int sa = place_of(f.spec.from).site, sb = place_of(f.spec.to).site;
    switch (d.kind) {
        case Kind::kCut: return std::minmax(d.x, d.y) == std::minmax(sa, sb);
        case Kind::kNatReboot:
        case Kind::kRenumber: return sa == d.x || sb == d.x;
        case Kind::kRestart:
        case Kind::kRestartNewKey: return f.spec.from == d.x || f.spec.to == d.x;
        case Kind::kRelayRestart: return !direct_path_possible(place_of(f.spec.from), place_of(f.spec.to));
    }
    return true;
}

const Disturbance* World::disturbed(const Flow& f, Time from, Time to) const {
    for (const Disturbance& d : scenario_.disturbances)
        if (touches(d, f) && from <= start_ + d.at + d.length + kRecovery && to >= start_ + d.at) return &d;
    return nullptr;
}

void World::check() {
    for (const Flow& f : flows_) {
        outcome_.reached.emplace_back(Duration{Time::never().ns}, Duration{Time::never().ns});
        for (const Echo& e : f.echoes) {
            ++outcome_.pings;
            if (!e.answered.is_zero()) ++outcome_.answers;
        }
        const auto ab = known_.find({f.spec.from, f.spec.to}), ba = known_.find({f.spec.to, f.spec.from});
        if (ab == known_.end() || ba == known_.end() || f.echoes.empty()) {
            fail(name(f) + ": they never got to know each other");
            continue;
        }
        const Time ready = max(max(ab->second, ba->second), f.echoes.front().sent);
        check_first(f, ready);
        check_direct(f, ready);
        check_silence(f, ready);
        check_stability(f);
    }
}

void World::check_first(const Flow& f, Time ready) {
    Time first = Time::never();
    for (const Echo& e : f.echoes)
        if (!e.answered.is_zero()) first = min(first, e.answered);
    const Duration limit = scenario_.lossy() ? kFirstAnswerLossy : kFirstAnswer;
    outcome_.reached.back().first = first.is_never() ? Duration{Time::never().ns} : max(first, ready) - ready;
    if (first > ready + limit)
        fail(fmt::format("{}: first answer {}, ready at {}", name(f), first.is_never() ? "never" : "at " + at(first), at(ready)));
}

void World::check_direct(const Flow& f, Time ready) {
    if (!direct_path_possible(place_of(f.spec.from), place_of(f.spec.to))) {
        ++outcome_.relayed_pairs;
        return;
    }
    ++outcome_.direct_pairs;
    const Duration limit = scenario_.lossy() ? kDirectLossy : kDirect;
    const Trust& x = trust_[{f.spec.from, f.spec.to}];
    const Trust& y = trust_[{f.spec.to, f.spec.from}];
    const bool both = !x.first.is_zero() && !y.first.is_zero();
    const Time reached = both ? max(x.first, y.first) : Time::never();
    outcome_.reached.back().second = both ? max(reached, ready) - ready : Duration{Time::never().ns};
    if (reached > ready + limit)
        fail(fmt::format("{}: direct {}, ready at {}", name(f), both ? "at " + at(reached) : "never", at(ready)));
    // A lossy path may just be out of favour for a moment.
    const Time end = start_ + scenario_.length;
    for (const Trust* t : {&x, &y})
        if (!t->now && !(scenario_.lossy() && end - t->lost < seconds(5))) fail(name(f) + ": not direct at the end");
}

// Answers come in the order of time; what lies between two of them is silence.
void World::check_silence(const Flow& f, Time ready) {
    std::vector<Time> answers;
    for (const Echo& e : f.echoes)
        if (!e.answered.is_zero()) answers.push_back(e.answered);
    answers.push_back(start_ + scenario_.length);
    std::sort(answers.begin(), answers.end());
    for (size_t i = 1; i < answers.size(); ++i) {
        const Time from = answers[i - 1], to = answers[i];
        if (to <= ready + kFirstAnswer) continue;
        Duration limit = f.spec.interval * 2 + round_trip(f) + milliseconds(scenario_.lossy() ? 2500 : 50);
        if (const Disturbance* d = disturbed(f, from, to)) {
            limit = limit + kLeave;
            if (d->kind == Disturbance::Kind::kRestart || d->kind == Disturbance::Kind::kRestartNewKey) {
                const Time a = known_again_[{f.spec.from, f.spec.to}], b = known_again_[{f.spec.to, f.spec.from}];
                if (a.is_zero() || b.is_zero()) {
                    fail(name(f) + ": not known again after the restart");
                    continue;
                }
                limit = std::max(limit, max(a, b) - (start_ + d->at) + kAfterRestart + f.spec.interval + round_trip(f) +
                                       (scenario_.lossy() ? seconds(3) : Duration{}));
            }
        }
        if (to - from > limit)
            fail(fmt::format("{}: no answer from {} to {} (allowed {:.2f} s)", name(f), at(from), at(to), limit.seconds()));
    }
}

void World::check_stability(const Flow& f) {
    for (const Pair& pair : {Pair{f.spec.from, f.spec.to}, Pair{f.spec.to, f.spec.from}}) {
        size_t lost = 0;
        for (const Time t : trust_[pair].losses)
            if (disturbed(f, t, t) == nullptr) ++lost;
        const size_t allowed = scenario_.lossy() ? 3 : 0;
        if (lost > allowed) fail(fmt::format("n{} lost its path to n{} {} times", pair.first, pair.second, lost));
    }
}

}  // namespace

bool Scenario::lossy() const {
    return std::any_of(sites.begin(), sites.end(), [](const SiteSpec& s) { return s.link.loss_ppm > 0; });
}

Outcome run_scenario(const Scenario& scenario, const TraceSink& trace) { return World(scenario, trace).run(); }

}  // namespace mesh::sim
