// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/path/types.h"

namespace mesh::magicsock {

const char* endpoint_type_name(EndpointType t) {
    switch (t) {
        case EndpointType::kLocal: return "local";
        case EndpointType::kStun: return "stun";
        case EndpointType::kPortmapped: return "portmap";
        case EndpointType::kStun4LocalPort: return "stun4localport";
        case EndpointType::kExplicit: return "explicit";
        case EndpointType::kUnknown: break;
    }
    return "unknown";
}

std::string via_text(const Endpoint& relay, uint32_t vni) { return relay.str() + ":vni:" + std::to_string(vni); }

const char* path_event_name(PathEvent::Kind k) {
    switch (k) {
        case PathEvent::Kind::kDiscovery: return "discovery round";
        case PathEvent::Kind::kPingReceived: return "ping received";
        case PathEvent::Kind::kPong: return "pong";
        case PathEvent::Kind::kCallMeMaybeSent: return "call-me-maybe sent";
        case PathEvent::Kind::kCallMeMaybeReceived: return "call-me-maybe received";
        case PathEvent::Kind::kNowUsing: return "now using";
        case PathEvent::Kind::kSilent: return "silent under traffic";
        case PathEvent::Kind::kTrustExpired: return "trust expired";
        case PathEvent::Kind::kBestLost: return "path lost";
        case PathEvent::Kind::kNoAnswer: return "no answer";
        case PathEvent::Kind::kSendFailed: return "send failed";
        case PathEvent::Kind::kReset: return "network changed";
        case PathEvent::Kind::kRestarted: return "peer restarted";
        case PathEvent::Kind::kWholeSize: return "full packets arrive";
        case PathEvent::Kind::kTooSmall: return "full packets get lost";
    }
    return "unknown";
}

}  // namespace mesh::magicsock
