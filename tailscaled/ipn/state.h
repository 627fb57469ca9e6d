// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The daemon's state as users see it, and the rule that decides it (facts: control-protocol 10.6).

#include "tailscaled/api/state.h"

namespace mesh::ipn {

using api::State;

/// Everything the decision depends on.
struct StateInputs {
    State current = State::kNoState;
    bool want_running = false;
    bool logged_out = false;
    bool has_node_key = false;
    bool has_netmap = false;
    bool login_needs_human = false;   ///< control answered with an AuthURL or refused the key
    bool self_expired = false;
    bool machine_authorized = true;
    bool connected = false;           ///< a live peer session or an established DERP connection, or no relay to wait for
};

[[nodiscard]] State next_state(const StateInputs& in);

}  // namespace mesh::ipn
