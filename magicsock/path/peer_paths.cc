// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/path/peer_paths.h"

#include <algorithm>
#include <array>
#include <bit>

namespace mesh::magicsock {
namespace {

constexpr std::array<Duration, 3> kBurst{milliseconds(500), seconds(1), seconds(2)};
constexpr size_t kNoBurst = SIZE_MAX;
constexpr size_t kMaxOutstanding = kMaxPingsPerSecond * 6;
// A fresh start: nothing was tried for this long.
constexpr Duration kBurstRest = seconds(45);

}  // namespace

// ---- candidates

bool PeerPaths::Candidate::outcome(bool lost) {
    const bool first = lost && (outcomes == 0 || (lost_bits & 1) == 0);
    lost_bits = static_cast<uint16_t>(lost_bits << 1 | (lost ? 1 : 0));
    if (outcomes < 16) ++outcomes;
    return first;
}

PeerPaths::Candidate* PeerPaths::find(const Endpoint& e) {
    const auto it = std::find_if(candidates_.begin(), candidates_.end(), [&](const Candidate& c) { return c.ep == e; });
    return it == candidates_.end() ? nullptr : &*it;
}

// nullptr if the table is full of candidates with a better claim than a learnt one.
PeerPaths::Candidate* PeerPaths::add(const Endpoint& e) {
    if (Candidate* c = find(e)) return c;
    if (candidates_.size() >= kMaxCandidates) {
        auto oldest = candidates_.end();
        for (auto it = candidates_.begin(); it != candidates_.end(); ++it) {
            if (it->netmap || it->call || it->ep == best_.ep) continue;
            if (oldest == candidates_.end() || it->learnt < oldest->learnt) oldest = it;
        }
        if (oldest == candidates_.end()) return nullptr;
        candidates_.erase(oldest);
    }
    candidates_.push_back(Candidate{.ep = e});
    return &candidates_.back();
}

void PeerPaths::prune(Time now) {
    std::erase_if(candidates_, [&](const Candidate& c) {
        if (c.netmap || c.call) return false;
        if (c.ep == best_.ep && trusted(now)) return false;
        return now - c.learnt >= kLearntLifetime;
    });
    if (best_.ep.is_valid() && find(best_.ep) == nullptr) best_ = {};
}

void PeerPaths::set_netmap(std::span<const Endpoint> endpoints, Time now, Todo& todo) {
    for (Candidate& c : candidates_) c.netmap = false;
    bool fresh = false;
    for (const Endpoint& e : endpoints) {
        Candidate* c = add(e);
        if (c == nullptr) break;
        if (c->last_probe.is_zero()) fresh = true;
        c->netmap = true;
    }
    // What proved itself may go on as a learnt one.
    for (Candidate& c : candidates_)
        if (!c.netmap && !c.call && c.learnt.is_zero()) c.learnt = c.last_pong;
    prune(now);
    if (fresh && active(now) && !trusted(now)) round(now, Ask::kCallMeMaybe, todo);
}

// ---- sending pings

size_t PeerPaths::room(Time now) const {
    const size_t in_window = now - window_ >= seconds(1) ? 0 : window_pings_;
    return std::min(kMaxPingsPerSecond - in_window, kMaxOutstanding - outstanding_.size());
}

bool PeerPaths::take_token(Time now) {
    if (window_.is_zero() || now - window_ >= seconds(1)) {
        window_ = now;
        window_pings_ = 0;
    }
    if (window_pings_ >= kMaxPingsPerSecond) return false;
    ++window_pings_;
    return true;
}

bool PeerPaths::probe(Candidate& c, Time now, Todo& todo, size_t size) {
    if (outstanding_.size() >= kMaxOutstanding || !take_token(now)) return false;
    Todo::Probe p{.to = c.ep, .size = size};
    random_.fill(p.tx);
    outstanding_.push_back({p.tx, c.ep, now, size});
    todo.probes.push_back(p);
    c.last_probe = now;
    ++c.pings;
    if (c.ep == best_.ep) {
        note_unanswered(now);
        if (size == 0) note_asked(now);
    }
    return true;
}

// Pings every candidate that rule 2 allows; what rule 7 holds back stays due.
void PeerPaths::probe_due(Time now, Todo& todo) {
    backlog_at_ = Time::never();
    for (Candidate& c : candidates_) {
        if (!c.last_probe.is_zero() && now - c.last_probe < kProbeInterval) continue;
        if (!probe(c, now, todo)) {
            backlog_at_ = max(window_ + seconds(1), now + milliseconds(100));
            return;
        }
    }
}

void PeerPaths::round(Time now, Ask ask, Todo& todo) {
    prune(now);
    note(PathEvent::Kind::kDiscovery, now);
    last_round_ = now;
    next_round_ = now + kProbeInterval;
    probe_due(now, todo);
    if (ask == Ask::kCallMeMaybe) ask_call_me_maybe(now, todo);
    if (!trusted(now) && (last_burst_.is_zero() || now - last_burst_ >= kBurstRest)) start_burst(now);
}

void PeerPaths::ask_call_me_maybe(Time now, Todo& todo) {
    if (last_call_me_maybe_.is_zero() || now - last_call_me_maybe_ >= kCallMeMaybeInterval) todo.call_me_maybe = true;
}

void PeerPaths::call_me_maybe_sent(Time now) {
    last_call_me_maybe_ = now;
    note(PathEvent::Kind::kCallMeMaybeSent, now);
}

void PeerPaths::start_burst(Time now) {
    last_burst_ = now;
    burst_step_ = 0;
}

void PeerPaths::run_burst(Time now, Todo& todo) {
    if (burst_step_ >= kBurst.size()) return;
    if (trusted(now)) {
        burst_step_ = kNoBurst;
        return;
    }
    if (now < last_burst_ + kBurst[burst_step_]) return;
    // Late wakers do not fire several steps at once.
    while (burst_step_ < kBurst.size() && now >= last_burst_ + kBurst[burst_step_]) ++burst_step_;
    const bool unheard = last_disco_ < last_burst_;
    if (burst_step_ >= 2 && unheard && now - last_call_me_maybe_ >= milliseconds(900)) todo.call_me_maybe = true;
    force_all();
    probe_due(now, todo);
    next_round_ = now + kProbeInterval;
    if (burst_step_ >= kBurst.size()) burst_step_ = kNoBurst;
}

void PeerPaths::force_all() {
    for (Candidate& c : candidates_) c.last_probe = {};
}

bool PeerPaths::round_wanted(Time now) const {
    if (last_round_.is_zero() || !trusted(now)) return true;
    return best_.latency > kGoodEnough && now - last_round_ >= kUpgradeInterval;
}

// ---- straight line

bool PeerPaths::note_sent(Time now, Todo& todo) {
    const bool rested = !active(now);
    last_send_ = now;
    bool moved = false;
    if (heartbeat_at_.is_never()) {
        // Trust that came before there was traffic may end sooner than the first heartbeat.
        heartbeat_at_ = now + kHeartbeat;
        if (trusted(now)) heartbeat_at_ = min(heartbeat_at_, max(now, trust_until_ - kHeartbeat));
        moved = true;
    }
    if (trusted(now)) {
        if (silence_.since.is_zero()) {
            note_unanswered(now);
            moved = true;
        }
        return moved;
    }
    if (rested || now >= next_round_) {
        round(now, Ask::kCallMeMaybe, todo);
        moved = true;
    }
    return moved;
}

bool PeerPaths::note_received(const Endpoint& from, Time now) {
    last_heard_ = now;
    if (!from.is_valid()) return heard_by_relay(now);
    if (from != best_.ep) return false;
    last_answer_ = last_data_ = now;
    if (!silence_.doubt) silence_.since = {};
    return false;
}

// ---- disco

bool PeerPaths::heard_ping(const Endpoint& from, const disco::TxId& tx, size_t padding, Time now, Todo& todo) {
    last_heard_ = last_disco_ = now;
    if (padding > 0) peer_measures_ = true;
    Candidate* c = add(from);
    if (c == nullptr) return true;  // answered, not remembered
    const bool repeated = !c->learnt.is_zero() && c->last_tx == tx;
    c->last_tx = tx;
    c->learnt = now;
    if (repeated) return false;
    note(PathEvent::Kind::kPingReceived, now, from);
    const bool answer = peer_measures_ || !c->size.mute(now);
    if (trusted(now)) return answer;
    if (c->last_ping_back.is_zero() || now - c->last_ping_back >= kPingBackInterval) {
        if (probe(*c, now, todo)) c->last_ping_back = now;
    }
    ask_call_me_maybe(now, todo);
    return answer;
}

std::optional<Endpoint> PeerPaths::target_of(const disco::TxId& tx) const {
    for (const Outstanding& o : outstanding_)
        if (o.tx == tx) return o.to;
    return std::nullopt;
}

std::optional<Duration> PeerPaths::heard_pong(const disco::TxId& tx, Time now, Todo& todo) {
    const auto it =
        std::find_if(outstanding_.begin(), outstanding_.end(), [&](const Outstanding& o) { return o.tx == tx; });
    if (it == outstanding_.end()) return std::nullopt;
    const Outstanding o = *it;
    outstanding_.erase(it);
    last_heard_ = last_disco_ = now;
    const Duration latency = std::max(now - o.sent, nanoseconds(1));
    Candidate* c = find(o.to);
    if (c == nullptr) return latency;  // pruned meanwhile
    c->last_pong = now;
    ++c->pongs;
    c->outcome(false);
    // A long ping takes longer on a slow line.
    if (o.size == 0 || c->latency.ns == 0) c->latency = latency;
    if (c->best_latency.ns == 0 || latency < c->best_latency) c->best_latency = latency;
    if (!c->learnt.is_zero()) c->learnt = now;
    note(PathEvent::Kind::kPong, now, o.to, latency);
    if (full_datagram_ > 0) measure(*c, o.size, now, todo);
    if (full_datagram_ == 0 || c->size.good())
        choose(*c, now, todo);
    else
        keep_for_want_of_better(*c, todo);
    return latency;
}

bool PeerPaths::would_be_chosen(const Candidate& c, Time now) const {
    return !trusted(now) || withdrawn_ || c.ep == best_.ep || better_addr({.ep = c.ep, .latency = c.latency}, best_);
}

// It answered, and carries all.
void PeerPaths::choose(const Candidate& c, Time now, Todo& todo) {
    if (!would_be_chosen(c, now)) return;
    if (c.ep != best_.ep || !trusted(now)) return set_best({.ep = c.ep, .latency = c.latency}, now, todo);
    best_.latency = c.latency;
    trust_until_ = now + kTrustAfterPong;
    note_pong(now);
}

// It answered, and does not carry all, or that is not known yet: data goes there beside the relay.
void PeerPaths::keep_for_want_of_better(const Candidate& c, Todo& todo) {
    if (c.ep == best_.ep) best_.latency = c.latency;
    const bool worse = best_.ep.is_valid() && (!too_small(best_.ep) || c.size.too_small());
    if (worse || c.ep == best_.ep) return;
    best_ = {.ep = c.ep, .latency = c.latency};
    withdrawn_ = false;
    trust_until_ = {};
    todo.path_changed = true;
}

void PeerPaths::set_best(const ScoredAddr& a, Time now, Todo& todo) {
    best_ = a;
    withdrawn_ = false;
    trust_until_ = now + kTrustAfterPong;
    trust_told_ = true;
    note_pong(now);
    if (!fell_silent_.is_zero() && now - fell_silent_ < kDeathRemembered) probation_until_ = now + kProbation;
    burst_step_ = kNoBurst;
    note(PathEvent::Kind::kNowUsing, now, a.ep, a.latency);
    todo.path_changed = true;
}

void PeerPaths::heard_call_me_maybe(std::span<const Endpoint> endpoints, Time now, Todo& todo) {
    last_heard_ = last_disco_ = now;
    note(PathEvent::Kind::kCallMeMaybeReceived, now);
    const Candidate* const used = find(best_.ep);
    const bool best_was_listed = used != nullptr && (used->netmap || used->call);
    for (Candidate& c : candidates_) c.call = false;
    bool fresh = false;
    for (const Endpoint& e : endpoints) {
        const bool known = find(e) != nullptr;
        Candidate* c = add(e);
        if (c == nullptr) break;
        c->call = true;
        fresh = fresh || !known;
    }
    for (Candidate& c : candidates_)
        if (!c.netmap && !c.call && c.learnt.is_zero()) c.learnt = c.last_pong;
    const Candidate* const best = find(best_.ep);
    if (best_was_listed || withdrawn_) withdrawn_ = best != nullptr && !best->call && !endpoints.empty();
    force_all();
    if (!trusted(now)) {
        ask_call_me_maybe(now, todo);
        if (fresh && (last_burst_.is_zero() || now - last_burst_ >= kProbeInterval)) start_burst(now);
    }
    round(now, Ask::kNo, todo);
}

// ---- events

void PeerPaths::learn(const Endpoint& from, Time now, Todo& todo) {
    last_heard_ = now;
    if (trusted(now)) return;
    Candidate* c = add(from);
    if (c == nullptr) return;
    if (!c->netmap && !c->call) c->learnt = now;
    if (c->last_ping_back.is_zero() || now - c->last_ping_back >= kPingBackInterval) {
        if (probe(*c, now, todo)) c->last_ping_back = now;
    }
}

void PeerPaths::propose(const Endpoint& e, Time now, Todo& todo) {
    Candidate* c = add(e);
    if (c == nullptr) return;
    if (!c->netmap && !c->call) c->learnt = now;
    probe(*c, now, todo);
}

void PeerPaths::forget(const Endpoint& e, Time now, Todo& todo) {
    std::erase_if(outstanding_, [&](const Outstanding& o) { return o.to == e; });
    std::erase_if(candidates_, [&](const Candidate& c) { return c.ep == e; });
    if (e == best_.ep) lose_best(PathEvent::Kind::kBestLost, now, todo);
}

void PeerPaths::cli_probe(size_t size, Time now, Todo& todo) {
    // Keeps the session awake like data, so that the path found stays for the traffic that follows.
    last_send_ = now;
    if (heartbeat_at_.is_never()) heartbeat_at_ = now + kHeartbeat;
    if (trusted(now)) {
        if (Candidate* c = find(best_.ep)) probe(*c, now, todo, size);
        return;
    }
    prune(now);
    for (Candidate& c : candidates_)
        if (!probe(c, now, todo, size)) break;
    next_round_ = now + kProbeInterval;
    ask_call_me_maybe(now, todo);
    if (last_burst_.is_zero() || now - last_burst_ >= kBurstRest) start_burst(now);
}

void PeerPaths::send_failed(const Endpoint& to, Time now, Todo& todo) {
    note(PathEvent::Kind::kSendFailed, now, to);
    std::erase_if(outstanding_, [&](const Outstanding& o) { return o.to == to; });
    if (Candidate* c = find(to)) {
        c->last_pong = {};
        c->latency = {};
        c->size.stop();
        c->outcome(true);
    }
    if (to == best_.ep) lose_best(PathEvent::Kind::kBestLost, now, todo);
}

void PeerPaths::lose_best(PathEvent::Kind why, Time now, Todo& todo) {
    note(why, now, best_.ep);
    best_ = {};
    trust_until_ = {};
    trust_told_ = false;
    silence_ = {};
    next_round_ = {};
    todo.path_changed = true;
}

void PeerPaths::peer_restarted(Time now, Todo& todo) {
    note(PathEvent::Kind::kRestarted, now);
    outstanding_.clear();  // sealed to the old key
    last_disco_ = {};
    for (Candidate& c : candidates_) c.last_tx = {};
    if (!active(now)) return;
    force_all();
    last_call_me_maybe_ = {};
    start_burst(now);
    if (trusted(now)) {
        if (Candidate* c = find(best_.ep)) probe(*c, now, todo);
        return;
    }
    round(now, Ask::kCallMeMaybe, todo);
}

void PeerPaths::reset(Time now, Todo& todo) {
    note(PathEvent::Kind::kReset, now);
    const bool had = best_.ep.is_valid();
    best_ = {};
    trust_until_ = {};
    trust_told_ = false;
    silence_ = {};
    outstanding_.clear();
    force_all();
    for (Candidate& c : candidates_) {
        c.last_pong = {};
        c.latency = {};
        c.last_ping_back = {};
        c.size = {};
    }
    last_call_me_maybe_ = last_burst_ = next_round_ = {};
    if (had) todo.path_changed = true;
    if (active(now)) round(now, Ask::kCallMeMaybe, todo);
}

void PeerPaths::relay_appeared(Time now, Todo& todo) {
    if (active(now) && !trusted(now)) {
        last_burst_ = {};
        force_all();
        round(now, Ask::kCallMeMaybe, todo);
    }
}

// ---- time

Time PeerPaths::next_timeout() const {
    Time t = heartbeat_at_;
    if (!outstanding_.empty()) t = min(t, outstanding_.front().sent + kPingTimeout);
    if (burst_step_ < kBurst.size()) t = min(t, last_burst_ + kBurst[burst_step_]);
    t = min(t, backlog_at_);
    for (const Candidate& c : candidates_) t = min(t, c.size.next_timeout());
    t = min(t, silence_timeout());
    if (trust_told_) t = min(t, trust_until_);
    return t;
}

void PeerPaths::handle_timeout(Time now, Todo& todo) {
    if (trust_told_ && !trusted(now)) {
        trust_told_ = false;
        silence_ = {};
        note(PathEvent::Kind::kTrustExpired, now, best_.ep);
        todo.path_changed = true;
    }
    expire_outstanding(now, todo);
    watch_silence(now, todo);
    if (now >= heartbeat_at_) heartbeat(now, todo);
    run_burst(now, todo);
    if (now >= backlog_at_) probe_due(now, todo);
    ask_sizes(now, todo);
    // Nobody uses the path: its slow end is no news, and news would wake up those who hear it.
    if (!active(now)) todo.path_changed = todo.check_network = false;
}

void PeerPaths::expire_outstanding(Time now, Todo& todo) {
    bool best_missed = false;
    size_t n = 0;
    while (n < outstanding_.size() && now - outstanding_[n].sent >= kPingTimeout) {
        const Outstanding& o = outstanding_[n++];
        Candidate* c = find(o.to);
        if (c == nullptr || o.size > 0) continue;  // a lost long one says something else, see path_size.h
        best_missed = best_missed || (o.to == best_.ep && c->last_pong < o.sent);
        if (c->outcome(true)) note(PathEvent::Kind::kNoAnswer, now, c->ep);
    }
    outstanding_.erase(outstanding_.begin(), outstanding_.begin() + static_cast<std::ptrdiff_t>(n));
    if (best_missed && best_.ep.is_valid() && !trusted(now)) lose_best(PathEvent::Kind::kBestLost, now, todo);
}

void PeerPaths::heartbeat(Time now, Todo& todo) {
    if (!active(now)) {
        heartbeat_at_ = Time::never();
        silence_ = {};
        burst_step_ = kNoBurst;
        backlog_at_ = Time::never();
        return;
    }
    heartbeat_at_ = now + kHeartbeat;
    if (Candidate* c = find(best_.ep)) probe(*c, now, todo);
    if (round_wanted(now) && now >= next_round_) round(now, Ask::kCallMeMaybe, todo);
}

// ---- telling

void PeerPaths::note(PathEvent::Kind kind, Time now, const Endpoint& e, Duration latency, size_t size) {
    const PathEvent event{.at = now, .kind = kind, .ep = e, .latency = latency, .size = size};
    if (events_.size() < kMaxPathEvents) {
        events_.push_back(event);
        return;
    }
    events_[event_next_] = event;
    event_next_ = (event_next_ + 1) % kMaxPathEvents;
}

void PeerPaths::fill(PeerPathStatus& status, Time now) const {
    if (trusted(now)) status.cur_addr = best_.ep;
    status.best = best_.ep;
    status.latency = best_.latency;
    status.last_send = last_send_;
    status.last_receive = last_heard_;
    for (const Candidate& c : candidates_)
        status.candidates.push_back({.ep = c.ep,
                                     .from_netmap = c.netmap,
                                     .from_call_me_maybe = c.call,
                                     .learned = !c.learnt.is_zero(),
                                     .last_probe = c.last_probe,
                                     .last_pong = c.last_pong,
                                     .latency = c.latency,
                                     .best_latency = c.best_latency,
                                     .pings = c.pings,
                                     .pongs = c.pongs,
                                     .recent = c.outcomes,
                                     .recent_lost = static_cast<unsigned>(std::popcount(c.lost_bits)),
                                     .size = c.size.verdict(),
                                     .carries = c.size.carries(),
                                     .full = full_datagram_ > 0 ? full_size(c.ep) : 0});
    for (size_t i = 0; i < events_.size(); ++i) status.events.push_back(events_[(event_next_ + i) % events_.size()]);
}

}  // namespace mesh::magicsock
