// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The counters of a relay as text for Prometheus; names are the original's where it has the same thing. Pure.

#include <cstdint>
#include <string>

#include "derper/relay.h"

namespace mesh::derper {

struct Metrics {
    RelayStats relay;
    derp::ServerSessionStats sessions;  ///< of connections that ended and that stand
    uint64_t tcp_accepted = 0;          ///< connections, whatever became of them
    uint64_t tcp_refused_rate = 0;      ///< above -accept-connection-limit
    uint64_t tcp_refused_source = 0;    ///< too many from one address
    uint64_t tcp_refused_full = 0;      ///< too many at once
    uint64_t clients_rejected = 0;      ///< by admission
    size_t tcp_open = 0;
    size_t loops = 1;
    uint64_t mesh_links_up = 0;
    uint64_t websocket_accepts = 0;
    uint64_t stun_answered_v4 = 0, stun_answered_v6 = 0;
    uint64_t stun_ignored = 0;
    uint64_t open_files = 0;
    uint64_t resident_bytes = 0;
    double cpu_seconds = 0;  ///< user and system
    int64_t certificate_not_after = 0;  ///< Unix seconds; 0 = no TLS
    int64_t started = 0;                ///< Unix seconds
    std::string version;
};

[[nodiscard]] std::string metrics_text(const Metrics& m);

}  // namespace mesh::derper
