// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Certificates from a folder (-certmode manual): <hostname>.crt and <hostname>.key. For an IP address as host name
/// they are made if they do not exist; clients then know the server by its certificate's hash.

#include <array>
#include <memory>
#include <string>

#include "base/keys.h"
#include "base/result.h"
#include "base/time.h"
#include "platform/tls/tls.h"

namespace mesh::derper {

/// Makes <dir>/<ip>.crt and .key unless both exist.
[[nodiscard]] Status ensure_self_signed(const std::string& dir, const std::string& ip, WallTime now);
/// Loads the pair and appends the meta certificate that names `key`. Call again now and then: files may be renewed,
/// and the meta certificate is good for 30 days.
[[nodiscard]] Result<std::shared_ptr<const platform::TlsServerContext>> load_tls(const std::string& dir,
                                                                                const std::string& hostname,
                                                                                const NodePublic& key, WallTime now);
/// "sha256-raw:<hex>" of the certificate in the folder.
[[nodiscard]] Result<std::string> certificate_pin(const std::string& dir, const std::string& hostname);
/// A DERPNode for the map of the control server, as one line of JSON.
[[nodiscard]] std::string node_json(const std::string& hostname, const std::string& pin, uint16_t derp_port,
                                    int stun_port);

}  // namespace mesh::derper
