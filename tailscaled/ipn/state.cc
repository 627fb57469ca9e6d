// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/ipn/state.h"

namespace mesh::ipn {

State next_state(const StateInputs& in) {
    if (!in.want_running && !in.logged_out && in.has_node_key) return State::kStopped;
    if (!in.has_netmap) {
        if (in.logged_out || in.login_needs_human || !in.has_node_key) return State::kNeedsLogin;
        if (in.current == State::kNoState || in.current == State::kStopped) return State::kStarting;
        return in.current;
    }
    if (!in.want_running) return State::kStopped;
    if (in.self_expired) return State::kNeedsLogin;
    if (!in.machine_authorized) return State::kNeedsMachineAuth;
    if (in.current == State::kRunning) return State::kRunning;
    return in.connected ? State::kRunning : State::kStarting;
}

}  // namespace mesh::ipn
