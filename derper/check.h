// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// `derper -check HOST[:PORT]`: looks at a relay as its clients do, from outside in, and says what is wrong.

#include <string>

#include "base/result.h"

namespace mesh::derper {

struct CheckTarget {
    std::string host;  ///< DNS name or IP literal
    uint16_t port = 443;
};
/// "host", "host:port", "[v6]", "[v6]:port", "v6".
[[nodiscard]] Result<CheckTarget> parse_check_target(const std::string& text);

/// Prints one line per step to standard output: TLS, certificate, upgrade, login with a fresh key, ping, STUN. True if
/// clients can use the relay (`stun_port` −1: STUN is not looked at); a certificate that only a pinned entry accepts is no failure but is said.
[[nodiscard]] bool check_relay(const CheckTarget& target, int stun_port);

}  // namespace mesh::derper
