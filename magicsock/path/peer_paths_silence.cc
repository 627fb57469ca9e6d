// SPDX-License-Identifier: BSD-3-Clause
// Rule 5: what happens when the best address does not answer.
#include <algorithm>

#include "magicsock/path/peer_paths.h"

namespace mesh::magicsock {

Duration PeerPaths::patience(Time now) const {
    const bool talking = !last_data_.is_zero() && now - last_data_ < seconds(1);
    return std::clamp(best_.latency * 2, talking ? kSilenceProbeTalking : kSilenceProbe, seconds(1));
}

Duration PeerPaths::pong_time() const { return std::max(best_.latency * 2, kSilenceProbeSpacing); }

void PeerPaths::note_unanswered(Time now) {
    if (!silence_.since.is_zero() || !trusted(now)) return;
    silence_.since = now;
    if (!silence_.doubt) silence_.next_probe = now + patience(now);
}

void PeerPaths::note_asked(Time now) {
    if (silence_.asked.is_zero() && trusted(now)) silence_.asked = now;
}

void PeerPaths::note_pong(Time now) {
    silence_ = {};
    last_answer_ = now;
}

// Shortly after a switch to the direct path, late data by the relay is no sign of anything.
bool PeerPaths::heard_by_relay(Time now) {
    if (!trusted(now) || now - last_answer_ < std::max(patience(now), kSilenceProbe)) return false;
    const Duration grace = std::clamp(best_.latency * 3, milliseconds(300), seconds(1));
    const Time since = now - (kSilenceLeave - grace);
    if (!silence_.since.is_zero() && silence_.since <= since) return false;
    silence_.since = since;
    silence_.next_probe = now;
    if (!silence_.doubt && (last_hint_.is_zero() || now - last_hint_ >= kHintRest)) {
        silence_.doubt = true;
        last_hint_ = now;
    }
    return true;
}

Time PeerPaths::silence_timeout() const {
    Time t = Time::never();
    if (!silence_.since.is_zero()) t = silence_.since + kSilenceLeave;
    if (!silence_.since.is_zero() || silence_.doubt) t = min(t, silence_.next_probe);
    if (!silence_.asked.is_zero()) t = min(t, silence_.asked + (silence_.doubt ? kSilenceLeave : pong_time()));
    return t;
}

void PeerPaths::watch_silence(Time now, Todo& todo) {
    Silence& s = silence_;
    if (s.since.is_zero() && s.asked.is_zero()) return;
    if (!active(now) || !trusted(now)) {
        s = {};
        return;
    }
    if (!s.doubt && !s.asked.is_zero() && now - s.asked >= pong_time()) {
        s.doubt = true;
        s.next_probe = now;
    }
    const auto for_too_long = [now](Time t) { return !t.is_zero() && now - t >= kSilenceLeave; };
    if (for_too_long(s.since) || (s.doubt && for_too_long(s.asked))) {
        leave(now, todo);
    } else if ((s.doubt || !s.since.is_zero()) && now >= s.next_probe) {
        s.next_probe = now + kSilenceProbeSpacing;
        if (Candidate* c = find(best_.ep)) probe(*c, now, todo);
    }
}

void PeerPaths::leave(Time now, Todo& todo) {
    note(PathEvent::Kind::kSilent, now, best_.ep);
    trust_until_ = fell_silent_ = now;
    trust_told_ = false;
    silence_ = {};
    todo.path_changed = todo.check_network = true;
    force_all();
    round(now, Ask::kCallMeMaybe, todo);
    if (now - last_call_me_maybe_ >= seconds(1)) todo.call_me_maybe = true;  // something changed at one of us
}

}  // namespace mesh::magicsock
