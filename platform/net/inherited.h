// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Listening sockets that the service manager opened for us (sd_listen_fds(3): LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES).

#include <string>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "platform/fd.h"

namespace mesh::platform {

struct InheritedListener {
    UniqueFd fd;
    std::string name;  ///< FileDescriptorName= of the unit, or what systemd puts there
    Endpoint at;       ///< where it is bound; unspecified address = all
};

/// Takes over the TCP listeners that were passed to this process; empty if there are none. The variables are removed, so that
/// children do not believe them. Anything else that was passed is an error that names it. Call once, at start.
[[nodiscard]] Result<std::vector<InheritedListener>> take_inherited_listeners();

}  // namespace mesh::platform
