// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The daemon's command line: the original's flags, one or two dashes, Go style booleans.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/result.h"

namespace mesh::daemon {

struct Flags {
    /// --tun: names to try in their order; kUserspace stands for no TUN at all.
    std::vector<std::string> tuns{"tailscale0"};
    uint16_t port = 0;  ///< 0 = any
    std::string state;
    std::string statedir;
    std::string socket = "/var/run/tailscale/tailscaled.sock";
    int verbose = 0;
    std::optional<Endpoint> socks5, http_proxy;  ///< where programs of this host may ask for connections
    std::vector<Endpoint> static_endpoints;  ///< of ours, told to peers as they are: ports forwarded by hand
    bool cleanup = false;
    bool version = false;
    bool help = false;

    /// The state file: --state, else <statedir>/tailscaled.state, else the default. "mem:" keeps nothing.
    [[nodiscard]] std::string state_path() const;
    /// Folder for other files; "" = none (they are then not kept).
    [[nodiscard]] std::string state_folder() const;
};
inline constexpr size_t kMaxStaticEndpoints = 16;
inline constexpr std::string_view kUserspace = "userspace-networking";

/// `port_env` is $PORT, `verbosity_env` is $TS_LOG_VERBOSITY ("" if unset). Error kInvalid: a flag is wrong (exit 2);
/// kUnsupported or kLimit: other refusals (exit 1). The text is the whole message.
[[nodiscard]] Result<Flags> parse_flags(const std::vector<std::string>& args, const std::string& port_env,
                                        const std::string& verbosity_env);
[[nodiscard]] std::string usage();

}  // namespace mesh::daemon
