// SPDX-License-Identifier: BSD-3-Clause
// Which candidates are asked how long packets they carry, and what follows from the answer. How they are asked: path_size.h.
#include <algorithm>

#include "magicsock/path/peer_paths.h"

namespace mesh::magicsock {

size_t PeerPaths::full_size(const Endpoint& e) const { return full_datagram_ + 8 + (e.addr.is_v6() ? 40 : 20); }

bool PeerPaths::too_small(const Endpoint& e) const {
    const auto it = std::find_if(candidates_.begin(), candidates_.end(), [&](const Candidate& c) { return c.ep == e; });
    return it != candidates_.end() && it->size.too_small();
}

// After each pong.
void PeerPaths::measure(Candidate& c, size_t answered, Time now, Todo& todo) {
    const size_t full = full_size(c.ep);
    if (c.size.answered(answered, full, now)) note(PathEvent::Kind::kWholeSize, now, c.ep, {}, answered);
    const bool again = c.size.due(now);
    const bool whole = c.size.verdict() == PathSize::Verdict::kWhole;
    if (again && !whole) {
        if (probe(c, now, todo, full)) c.size.asked_once(now);
    } else if ((again && c.ep == best_.ep) || (c.size.verdict() == PathSize::Verdict::kUnknown && would_be_chosen(c, now))) {
        c.size.ask(c.latency, now);
        ask_sizes(now, todo);
    }
}

void PeerPaths::ask_sizes(Time now, Todo& todo) {
    for (Candidate& c : candidates_) {
        if (c.size.next_timeout() > now) continue;
        if (c.size.all_tried()) {
            conclude_size(c, now, todo);
        } else if (const std::vector<size_t> pings = c.size.pings(full_size(c.ep)); room(now) < pings.size()) {
            c.size.postpone(now);
        } else {
            for (const size_t size : pings) probe(c, now, todo, size);
            c.size.tried(now);
        }
    }
}

void PeerPaths::conclude_size(Candidate& c, Time now, Todo& todo) {
    const PathSize::Verdict before = c.size.verdict();
    c.size.conclude(now);
    if (c.size.verdict() == before) return;
    if (c.size.good()) return choose(c, now, todo);
    note(PathEvent::Kind::kTooSmall, now, c.ep, {}, c.size.carries());
    if (c.ep != best_.ep) return;
    trust_until_ = {};
    trust_told_ = false;
    silence_ = {};
    next_round_ = {};
    todo.path_changed = true;
}

void PeerPaths::too_long(const Endpoint& to, Time now, Todo& todo) {
    Candidate* c = find(to);
    if (c == nullptr || full_datagram_ == 0 || c->size.too_small()) return;
    c->size.ask(c->latency, now);
    ask_sizes(now, todo);
}

}  // namespace mesh::magicsock
