// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/dataplane/drop.h"

namespace mesh::dataplane {

std::string_view name(Drop d) {
    switch (d) {
        case Drop::kMalformed: return "malformed";
        case Drop::kUnknownProto: return "unknown_protocol";
        case Drop::kMulticast: return "multicast";
        case Drop::kLinkLocal: return "link_local";
        case Drop::kNotLocal: return "not_local";
        case Drop::kNoRule: return "no_rule";
        case Drop::kSource: return "source";
        case Drop::kNoRoute: return "no_route";
        case Drop::kNoPath: return "no_path";
        case Drop::kNoSession: return "no_session";
        case Drop::kRelayQueue: return "relay_queue";
        case Drop::kBadOffload: return "bad_offload";
        case Drop::kTooBig: return "too_big";
        case Drop::kTsmp: return "tsmp";
        case Drop::kService: return "service";
        case Drop::kCount: break;
    }
    return "none";
}

std::string_view metric_reason(Drop d) {
    switch (d) {
        case Drop::kNotLocal:
        case Drop::kNoRule: return "acl";
        case Drop::kMulticast: return "multicast";
        case Drop::kLinkLocal: return "link_local_unicast";
        case Drop::kMalformed: return "too_short";
        case Drop::kUnknownProto: return "unknown_protocol";
        default: return "error";
    }
}

std::string_view name(PathKind k) {
    switch (k) {
        case PathKind::kDerp: return "derp";
        case PathKind::kDirect4: return "direct_ipv4";
        case PathKind::kDirect6: return "direct_ipv6";
        case PathKind::kPeerRelay4: return "peer_relay_ipv4";
        case PathKind::kPeerRelay6: return "peer_relay_ipv6";
        case PathKind::kCount: break;
    }
    return "none";
}

}  // namespace mesh::dataplane
