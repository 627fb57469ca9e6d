// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What `tailscale whois` prints. Pure.

#include <string>

#include "tailscaled/api/node.h"

namespace mesh::cli {

[[nodiscard]] std::string whois_text(const api::WhoIsResult& who);

}  // namespace mesh::cli
