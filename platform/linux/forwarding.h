// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Does this host forward packets? The daemon never turns forwarding on; it says what is missing, in the words that the
/// original uses.

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/ip.h"

namespace mesh::platform {

struct ForwardingHost {
    /// Content of a file below /proc/sys, e.g. "net/ipv4/ip_forward"; nullopt: cannot be read.
    std::function<std::optional<std::string>(const std::string& key)> read_sysctl;
    std::vector<std::string> interfaces;  ///< all names
    std::vector<Addr> own_addrs;          ///< of all interfaces
};
/// Of the host we run on.
[[nodiscard]] ForwardingHost this_host();

/// Empty if forwarding is on for what `advertised` needs; else lines for people that end with where to read more.
/// `broken`: no subnet route can work (an error of the original, otherwise a warning).
struct ForwardingCheck {
    std::string text;
    bool broken = false;
};
[[nodiscard]] ForwardingCheck check_forwarding(const std::vector<Prefix>& advertised, const ForwardingHost& host);

}  // namespace mesh::platform
