// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What the daemon knows about itself and its peers, as `GET status` shows it and `tailscale status` prints it.
/// Key order, presence and zero values follow the recorded samples (tests/vectors/cli).

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/ip.h"
#include "base/keys.h"
#include "base/result.h"
#include "base/time.h"
#include "tailscaled/api/json_text.h"
#include "tailscaled/api/prefs.h"
#include "tailscaled/api/state.h"

namespace mesh::api {

/// Capability → JSON array of arguments as compact text ("[]" if none). Sorted by name when written.
using CapMap = std::map<std::string, std::string>;
/// Empty map is "null".
void write_cap_map(JsonText& out, const CapMap& caps);

struct PeerStatus {
    std::string id;  ///< stable id
    int64_t node_id = 0;
    NodePublic public_key;
    std::string host_name;
    std::string dns_name;  ///< with the final dot
    std::string os;
    int64_t user_id = 0;
    int64_t alt_sharer_user_id = 0;
    std::vector<Addr> tailscale_ips;
    std::vector<Prefix> allowed_ips;
    std::vector<std::string> tags;
    std::vector<Prefix> primary_routes;
    std::optional<std::vector<std::string>> addrs;  ///< "ip:port"; nullopt is null, as for peers
    std::string cur_addr;                           ///< "ip:port" while a direct path is used
    std::string relay;                              ///< code of the home DERP region
    std::string peer_relay;
    int64_t rx_bytes = 0;
    int64_t tx_bytes = 0;
    WallTime created;
    WallTime last_write;
    WallTime last_seen;
    WallTime last_handshake;
    bool online = false;
    bool exit_node = false;
    bool exit_node_option = false;
    bool active = false;
    std::vector<std::string> peer_api_url;
    int taildrop_target = 0;
    std::string no_file_sharing_reason;
    std::vector<std::string> capabilities;  ///< without the deprecation marker; it is written first
    CapMap cap_map;
    std::vector<std::string> ssh_host_keys;
    bool sharee_node = false;
    bool in_network_map = false;
    bool in_magic_sock = false;
    bool in_engine = false;
    bool expired = false;
    std::optional<WallTime> key_expiry;
    std::string location_json;  ///< "" = absent
};

struct ExitNodeStatus {
    std::string id;
    bool online = false;
    std::vector<Prefix> tailscale_ips;
};

struct TailnetStatus {
    std::string name;
    std::string magic_dns_suffix;
    bool magic_dns_enabled = false;
};

struct DnsRecord {
    std::string name;
    std::string type;
    std::string value;
};

/// ("Status" alone is the Result<void> of base.)
struct DaemonStatus {
    std::string version;
    bool tun = false;
    State backend_state = State::kNoState;
    bool have_node_key = false;
    std::string auth_url;
    std::vector<Addr> tailscale_ips;
    PeerStatus self;  ///< always present; before login only HostName, OS and a zero key
    std::optional<ExitNodeStatus> exit_node_status;
    std::vector<std::string> health;
    std::string magic_dns_suffix;
    std::optional<TailnetStatus> current_tailnet;
    std::optional<std::vector<std::string>> cert_domains;
    std::vector<DnsRecord> extra_records;
    std::optional<std::map<NodePublic, PeerStatus>> peers;  ///< nullopt is null (not logged in, or not asked for)
    std::optional<std::map<int64_t, UserProfile>> users;
};

/// Compact JSON, or indented: clients get "\t".
void write_status(JsonText& out, const DaemonStatus& status);
[[nodiscard]] std::string status_json(const DaemonStatus& status, std::string_view indent = "");
/// For the CLI: takes what any daemon of this kind sends; unknown keys are ignored.
[[nodiscard]] Result<DaemonStatus> parse_status(std::string_view json);

}  // namespace mesh::api
