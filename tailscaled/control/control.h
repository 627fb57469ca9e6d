// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What this node tells a TS2021 control server: Hostinfo, register and map requests (tailcfg types). Values and their
/// JSON; the conversation is in client.h, the codecs underneath in noise.h, h2.h, map_framing.h and map_session.h.

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/keys.h"
#include "base/result.h"
#include "base/time.h"
#include "tailscaled/netmap/netmap.h"

namespace mesh::control {

/// The protocol version this client speaks, sent in /key, the Noise prologue, register and map requests.
inline constexpr int kCapabilityVersion = 142;
inline constexpr size_t kMaxRegisterResponse = 1U << 20;

/// http or https and nothing that a terminal would obey: what may be shown to a person or given to a browser.
[[nodiscard]] bool is_web_url(std::string_view url);

/// tailcfg.NetInfo: what the last net check found.
struct NetInfo {
    std::optional<bool> mapping_varies_by_dest_ip;
    std::optional<bool> working_ipv6;
    std::optional<bool> os_has_ipv6;
    std::optional<bool> working_udp;
    std::optional<bool> working_icmpv4;
    bool have_port_map = false;
    std::optional<bool> upnp, pmp, pcp;
    int preferred_derp = 0;  ///< 0 = none; without it nobody can reach this node by relay
    std::string link_type;
    std::map<std::string, double> derp_latency;  ///< "900-v4" → seconds
    std::string firewall_mode;
    /// Equal but for latencies: such a change is not worth a message.
    [[nodiscard]] bool basically_equal(const NetInfo& o) const;
    bool operator==(const NetInfo&) const = default;
};

/// tailcfg.Hostinfo of this node. Fields of phones and hosted services are left out: they would always be empty.
struct Hostinfo {
    std::string ipn_version;
    std::string backend_log_id;  ///< 64 hex digits, random and stable
    std::string os = "linux";
    std::string os_version;
    std::optional<bool> container;
    std::string env, distro, distro_version, distro_code_name;
    std::string app;
    std::optional<bool> desktop;
    std::string package;
    std::string device_model;
    std::string hostname;
    bool shields_up = false;
    bool no_logs_no_support = false;
    bool wire_ingress = false, ingress_enabled = false;
    bool allows_update = false;
    std::string machine;  ///< uname -m
    std::string arch, arch_var, language_version;  ///< sent as GoArch, GoArchVar, GoVersion
    std::vector<Prefix> routable_ips;
    std::vector<std::string> request_tags;
    std::vector<std::string> wol_macs;
    std::vector<netmap::Service> services;
    std::optional<NetInfo> net_info;
    std::vector<std::string> ssh_host_keys;
    std::string cloud;
    std::optional<bool> userspace, userspace_router, app_connector;
    bool peer_relay = false;
    std::string exit_node_id;
    std::optional<bool> state_encrypted;
    /// Equal but for latencies in net_info.
    [[nodiscard]] bool basically_equal(const Hostinfo& o) const;
    bool operator==(const Hostinfo&) const = default;
};
/// One line, Go field order.
[[nodiscard]] std::string to_text(const Hostinfo& h);

struct RegisterRequest {
    int version = kCapabilityVersion;
    NodePublic node_key;
    NodePublic old_node_key;
    std::string auth_key;
    std::optional<WallTime> expiry;  ///< in the past = log out
    std::string followup;
    std::optional<Hostinfo> hostinfo;
    bool ephemeral = false;
};
[[nodiscard]] std::string to_text(const RegisterRequest& r);

struct RegisterResponse {
    netmap::UserProfile user;  ///< User and Login of the answer put together
    std::string login_provider;
    bool node_key_expired = false;
    bool machine_authorized = false;
    std::string auth_url;
    bool has_key_signature = false;
    std::string error;
};
[[nodiscard]] Result<RegisterResponse> parse_register_response(std::string_view body);

/// tailcfg.EndpointType.
enum class EndpointType : int { kUnknown = 0, kLocal = 1, kStun = 2, kPortMapped = 3, kStun4LocalPort = 4, kExplicit = 5 };
struct TypedEndpoint {
    Endpoint endpoint;
    EndpointType type = EndpointType::kUnknown;
    bool operator==(const TypedEndpoint&) const = default;
};

struct MapRequest {
    int version = kCapabilityVersion;
    bool compress_zstd = true;
    NodePublic node_key;
    DiscoPublic disco_key;
    bool stream = false;
    bool omit_peers = false;
    Hostinfo hostinfo;
    std::vector<TypedEndpoint> endpoints;
};
[[nodiscard]] std::string to_text(const MapRequest& r);

/// tailcfg.PingRequest.
struct PingRequest {
    std::string url;
    bool url_is_noise = false;
    std::string types;  ///< "" = HEAD, "c2n", or a list of ping types
    Addr ip;
    Bytes payload;
};

/// {"publicKey":"mkey:…"} of GET /key. An error when it is no answer of a control server with Noise.
[[nodiscard]] Result<MachinePublic> parse_server_key(std::string_view body);

}  // namespace mesh::control
