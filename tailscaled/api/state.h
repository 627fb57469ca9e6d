// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The states of the daemon as the local API shows them: integers on the bus, words in the status.

#include <cstdint>
#include <optional>
#include <string_view>

namespace mesh::api {

enum class State : uint8_t {
    kNoState = 0,
    kInUseOtherUser = 1,
    kNeedsLogin = 2,
    kNeedsMachineAuth = 3,
    kStopped = 4,
    kStarting = 5,
    kRunning = 6,
};

[[nodiscard]] std::string_view state_name(State s);
[[nodiscard]] std::optional<State> parse_state(std::string_view name);

}  // namespace mesh::api
