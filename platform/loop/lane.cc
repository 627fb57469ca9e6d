// SPDX-License-Identifier: BSD-3-Clause
#include "platform/loop/lane.h"

#include <cstdlib>
#include <ctime>
#include <string_view>

#include "base/log.h"
#include "platform/system.h"

namespace mesh::platform {

Duration thread_cpu_time() {
    timespec t{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return seconds(t.tv_sec) + nanoseconds(t.tv_nsec);
}

LaneMode lane_mode() {
    const char* value = std::getenv("TAILMESH_LANES");
    const std::string_view wanted = value != nullptr ? value : "";
    if (wanted == "off") return LaneMode::kOff;
    if (wanted == "on") return LaneMode::kBusy;
    if (wanted == "always") return LaneMode::kAlways;
    if (!wanted.empty()) log::info("TAILMESH_LANES={} is none of on, off and always", log::printable(wanted));
    return usable_cores() >= kLaneCores ? LaneMode::kBusy : LaneMode::kOff;
}

}  // namespace mesh::platform
