// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/api/state.h"

#include <array>
#include <cstddef>

namespace mesh::api {
namespace {
constexpr std::array<std::string_view, 7> kNames = {"NoState", "InUseOtherUser", "NeedsLogin", "NeedsMachineAuth",
                                                    "Stopped", "Starting",       "Running"};
}

std::string_view state_name(State s) {
    const auto i = static_cast<size_t>(s);
    return i < kNames.size() ? kNames[i] : kNames[0];
}

std::optional<State> parse_state(std::string_view name) {
    for (size_t i = 0; i < kNames.size(); ++i)
        if (kNames[i] == name) return static_cast<State>(i);
    return std::nullopt;
}

}  // namespace mesh::api
