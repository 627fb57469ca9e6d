// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/api/ping.h"

#include <algorithm>

#include "base/json.h"

namespace mesh::api {

std::string_view ping_type_name(PingType t) {
    switch (t) {
        case PingType::kDisco: return "disco";
        case PingType::kTsmp: return "TSMP";
        case PingType::kIcmp: return "ICMP";
        case PingType::kPeerApi: return "peerapi";
    }
    return "disco";
}

std::optional<PingType> parse_ping_type(std::string_view name) {
    for (const auto t : {PingType::kDisco, PingType::kTsmp, PingType::kIcmp, PingType::kPeerApi})
        if (ping_type_name(t) == name) return t;
    return std::nullopt;
}

std::string ping_result_json(const PingResult& r) {
    JsonText out;
    out.open_object().field("IP", r.ip).field("NodeIP", r.node_ip).field("NodeName", r.node_name).field("Err", r.err);
    out.key("LatencySeconds").number(r.latency_seconds);
    out.field("Endpoint", r.endpoint).field("PeerRelay", r.peer_relay).field("DERPRegionID", r.derp_region_id);
    out.field("DERPRegionCode", r.derp_region_code);
    if (r.peer_api_port != 0) out.field("PeerAPIPort", int{r.peer_api_port});
    if (!r.peer_api_url.empty()) out.field("PeerAPIURL", r.peer_api_url);
    if (r.is_local_ip) out.field("IsLocalIP", true);
    out.close_object();
    return out.take();
}

Result<PingResult> parse_ping_result(std::string_view text) {
    TRY_ASSIGN(const Json j, json::parse(text));
    if (!j.is_object()) return fail(Code::kInvalid, "ping result is no JSON object");
    PingResult r;
    r.ip = json::str(j, "IP");
    r.node_ip = json::str(j, "NodeIP");
    r.node_name = json::str(j, "NodeName");
    r.err = json::str(j, "Err");
    r.latency_seconds = json::number(j, "LatencySeconds");
    r.endpoint = json::str(j, "Endpoint");
    r.peer_relay = json::str(j, "PeerRelay");
    r.derp_region_id = json::integer(j, "DERPRegionID");
    r.derp_region_code = json::str(j, "DERPRegionCode");
    r.peer_api_port = static_cast<uint16_t>(std::clamp<int64_t>(json::integer(j, "PeerAPIPort"), 0, 65535));
    r.peer_api_url = json::str(j, "PeerAPIURL");
    r.is_local_ip = json::boolean(j, "IsLocalIP");
    return r;
}

}  // namespace mesh::api
