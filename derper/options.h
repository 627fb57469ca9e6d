// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Command line and key file of derper. Flags as Go's flag package reads them: one or two dashes, -name=value or
/// -name value, booleans alone or with =true/=false. Names and defaults are those of the original program.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/keys.h"
#include "base/random.h"
#include "base/result.h"

namespace mesh::derper {

struct Options {
    std::string listen = ":443";      ///< -a
    int http_port = 80;               ///< -1 = off
    std::string hostname = "derp.tailscale.com";
    std::string cert_mode = "letsencrypt";
    std::string cert_dir;             ///< "" = ~/.cache/tailscale/derper-certs
    bool stun = true;
    int stun_port = 3478;
    std::string config_path;          ///< -c
    bool verify_clients = false;
    std::string socket = "/var/run/tailscale/tailscaled.sock";
    bool dev = false;
    bool help = false;
    bool version = false;
};

/// Error text as Go prints it, e.g. "flag provided but not defined: -x".
[[nodiscard]] Result<Options> parse_options(const std::vector<std::string>& args);
[[nodiscard]] std::string usage(std::string_view program);

/// ":port", "ip:port" or "[ip]:port". An unspecified address: all interfaces, both families.
struct ListenAddress {
    Addr addr;  ///< invalid = all
    uint16_t port = 0;
};
[[nodiscard]] Result<ListenAddress> parse_listen(std::string_view text);

/// {"PrivateKey":"privkey:<hex>"}
[[nodiscard]] Result<NodePrivate> parse_key_file(std::string_view text);
[[nodiscard]] std::string key_file_text(const NodePrivate& key);

}  // namespace mesh::derper
