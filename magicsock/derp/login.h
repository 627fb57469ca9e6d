// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The two sealed messages of the DERP login: NaCl boxes between the client's node key and the server's key, nonce
/// in front. The client's proves that it owns its node key. Source: tailscale/tailscale derp/derp_client.go.

#include <cstdint>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/keys.h"
#include "base/random.h"
#include "base/result.h"

namespace mesh::derp {

struct ClientInfo {
    LockedKey mesh_key{};  ///< zero: none; 64 lower-case hex digits on the wire
    int64_t version = 0;
    bool can_ack_pings = false;
    bool is_prober = false;
    std::string app_name{};
};

struct ServerInfo {
    int64_t version = 0;
    int64_t token_bucket_bytes_per_second = 0;  ///< 0 = no limit
    int64_t token_bucket_bytes_burst = 0;
};

/// Payload of a ClientInfo frame: key 32, nonce 24, box.
[[nodiscard]] Result<Bytes> seal_client_info(const ClientInfo& info, const NodePrivate& client,
                                             const NodePublic& server, Random& random);
/// Opens and checks it. The key is the client's, proven.
struct OpenedClientInfo {
    NodePublic key;
    ClientInfo info;
};
[[nodiscard]] Result<OpenedClientInfo> open_client_info(ByteSpan payload, const NodePrivate& server);

/// Payload of a ServerInfo frame: nonce 24, box.
[[nodiscard]] Result<Bytes> seal_server_info(const ServerInfo& info, const NodePrivate& server,
                                             const NodePublic& client, Random& random);
[[nodiscard]] Result<ServerInfo> open_server_info(ByteSpan payload, const NodePrivate& client,
                                                  const NodePublic& server);

/// The key in a ServerKey frame. nullopt: wrong magic or too short.
[[nodiscard]] std::optional<NodePublic> parse_server_key(ByteSpan payload);

}  // namespace mesh::derp
