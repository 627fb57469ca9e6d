// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Ping of a peer: what is asked and what came back.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/ip.h"
#include "base/result.h"
#include "tailscaled/api/json_text.h"

namespace mesh::api {

enum class PingType : uint8_t { kDisco, kTsmp, kIcmp, kPeerApi };
[[nodiscard]] std::string_view ping_type_name(PingType t);  ///< "disco", "TSMP", "ICMP", "peerapi"
[[nodiscard]] std::optional<PingType> parse_ping_type(std::string_view name);

inline constexpr size_t kMaxPingSize = 65467;

struct PingRequest {
    Addr ip;
    PingType type = PingType::kDisco;
    size_t size = 0;  ///< bytes of the disco ping; 0 = minimum
};

struct PingResult {
    std::string ip;
    std::string node_ip;
    std::string node_name;  ///< first label of the DNS name
    std::string err;        ///< "no matching peer", "… is local Tailscale IP"
    double latency_seconds = 0;
    std::string endpoint;  ///< "ip:port" if the pong came directly
    std::string peer_relay;
    int64_t derp_region_id = 0;
    std::string derp_region_code;
    uint16_t peer_api_port = 0;
    std::string peer_api_url;
    bool is_local_ip = false;
};
[[nodiscard]] std::string ping_result_json(const PingResult& r);
[[nodiscard]] Result<PingResult> parse_ping_result(std::string_view json);

}  // namespace mesh::api
