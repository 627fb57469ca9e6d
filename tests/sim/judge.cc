// SPDX-License-Identifier: BSD-3-Clause
// What is held against a run once it is over: the list at the head of world.h.
#include "tests/sim/run.h"

namespace mesh::sim {
namespace {

// Longer than one repetition of an initiation: the first may have met a peer that control had not told yet.
constexpr Duration kFirstAnswer = seconds(2), kFirstAnswerLossy = seconds(5);  // lossy: three tries of a handshake
constexpr Duration kDirect = seconds(2), kDirectLossy = seconds(10);
constexpr Duration kDirectSoon = seconds(1);            // what all but a few reach
constexpr Duration kAfterRestart = milliseconds(2500);
constexpr Duration kRecovery = seconds(12);          // how long a disturbance may be felt
constexpr Duration kRollCallAnswer = seconds(5), kRollCallDirect = seconds(10);

// How long a dead path may be felt: until it is asked, and until its pong is overdue.
Duration gone_round(Duration rtt) { return std::max(milliseconds(500), rtt * 2) + std::max(milliseconds(250), rtt * 2) + milliseconds(50); }

}  // namespace

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
        case Kind::kPollBreaks: return false;
        case Kind::kDenied: return f.spec.from == d.x && f.spec.to == d.y;
    }
    return true;
}

const Disturbance* World::disturbed(const Flow& f, Time from, Time to) const {
    for (const Disturbance& d : scenario_.disturbances)
        if (touches(d, f) && from <= start_ + d.at + d.length + kRecovery && to >= start_ + d.at) return &d;
    return nullptr;
}

void World::check_safety() {
    const bool narrow = std::any_of(scenario_.sites.begin(), scenario_.sites.end(), [](const SiteSpec& s) { return s.link.mtu < kFullPacketV6; });
    if (net_.too_long() > 0 && !narrow) fail(fmt::format("{} datagrams were longer than an MTU", net_.too_long()));
    const bool liars = std::any_of(flows_.begin(), flows_.end(), [](const Flow& f) { return f.spec.as >= 0; });
    for (const auto& n : nodes_) {
        if (n->dropped_in(dataplane::Drop::kNotLocal) > 0) fail(fmt::format("n{} got packets that are for another", n->number()));
        if (!liars && n->dropped_in(dataplane::Drop::kSource) > 0) fail(fmt::format("n{} got packets with a wrong source", n->number()));
    }
}

void World::check() {
    check_safety();
    for (const Flow& f : flows_) {
        if (f.spec.as >= 0) continue;
        if (f.roll_call) {
            check_roll_call(f);
            continue;
        }
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
        check_direct(f, ready);
        check_stability(f);
        if (forbidden(f.spec.from, f.spec.to)) continue;
        check_first(f, ready);
        check_silence(f, ready);
    }
}

void World::check_roll_call(const Flow& f) {
    const Time begin = f.echoes.front().sent;
    Time first = Time::never();
    for (const Echo& e : f.echoes)
        if (!e.answered.is_zero()) first = min(first, e.answered);
    if (first > begin + kRollCallAnswer)
        fail(fmt::format("roll call, {}: first answer {}, called at {}", name(f), first.is_never() ? "never" : "at " + at(first), at(begin)));
    if (!direct_path_possible(place_of(f.spec.from), place_of(f.spec.to))) return;
    for (const Pair& pair : {Pair{f.spec.from, f.spec.to}, Pair{f.spec.to, f.spec.from}}) {
        const Trust& t = trust_[pair];
        // A lossy path, or one that lapsed, may just be out of favour for a moment.
        const bool restless = lossy() || may_lapse(f);
        const bool good = (t.now && (t.since <= begin + kRollCallDirect || restless)) || (restless && t.lost > begin);
        if (!good) fail(fmt::format("roll call, {}: n{} has no direct path after 10 s", name(f), pair.first));
    }
}

void World::check_first(const Flow& f, Time ready) {
    Time first = Time::never();
    for (const Echo& e : f.echoes)
        if (!e.answered.is_zero()) first = min(first, e.answered);
    const Duration limit = lossy() ? kFirstAnswerLossy : kFirstAnswer;
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
    const Duration limit = lossy() ? kDirectLossy : kDirect;
    const Trust& x = trust_[{f.spec.from, f.spec.to}];
    const Trust& y = trust_[{f.spec.to, f.spec.from}];
    const bool both = !x.first.is_zero() && !y.first.is_zero();
    const Time reached = both ? max(x.first, y.first) : Time::never();
    outcome_.reached.back().second = both ? max(reached, ready) - ready : Duration{Time::never().ns};
    if (!lossy() && reached > ready + kDirectSoon) ++outcome_.direct_late;
    if (reached > ready + limit)
        fail(fmt::format("{}: direct {}, ready at {}", name(f), both ? "at " + at(reached) : "never", at(ready)));
    // A lossy path may just be out of favour for a moment.
    const Time end = start_ + scenario_.length;
    for (const Trust* t : {&x, &y})
        if (!t->now && !(lossy() && end - t->lost < seconds(5))) fail(name(f) + ": not direct at the end");
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
        Duration limit = f.spec.interval * 2 + round_trip(f) + milliseconds(lossy() ? 2500 : 50);
        if (may_lapse(f)) limit = limit + gone_round(round_trip(f));
        if (const Disturbance* d = disturbed(f, from, to)) {
            limit = limit + gone_round(round_trip(f));
            if (d->kind == Disturbance::Kind::kDenied) limit = limit + d->length + scenario_.control_delay + milliseconds(100);
            if (d->kind == Disturbance::Kind::kRestart || d->kind == Disturbance::Kind::kRestartNewKey) {
                const Time a = known_again_[{f.spec.from, f.spec.to}], b = known_again_[{f.spec.to, f.spec.from}];
                if (a.is_zero() || b.is_zero()) {
                    fail(name(f) + ": not known again after the restart");
                    continue;
                }
                limit = std::max(limit, max(a, b) - (start_ + d->at) + kAfterRestart + f.spec.interval + round_trip(f) +
                                       (lossy() ? seconds(3) : Duration{}));
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
        const size_t allowed = lossy() ? 3 : may_lapse(f) ? 2 : 0;
        if (lost > allowed) fail(fmt::format("n{} lost its path to n{} {} times", pair.first, pair.second, lost));
    }
}

}  // namespace mesh::sim
