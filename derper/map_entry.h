// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Ready-made entries of the relay map: what an operator pastes into the control server's configuration. Pure.

#include <string>
#include <vector>

#include "base/ip.h"

namespace mesh::derper {

struct MapEntry {
    std::string hostname;     ///< DNS name or IP literal
    std::vector<Addr> addrs;  ///< empty: clients resolve `hostname`
    uint16_t derp_port = 443;
    int stun_port = 3478;     ///< −1 = no STUN
    std::string pin;          ///< "sha256-raw:…"; "" = a certificate that clients trust anyway
    bool plain = false;       ///< no TLS here: a proxy in front has to do it
};

enum class Trust : uint8_t { kPin, kInsecure };

/// One DERPNode as a line of JSON.
[[nodiscard]] std::string node_json(const MapEntry& entry, Trust trust);
/// A whole DERPMap as one line of JSON.
[[nodiscard]] std::string map_json(const MapEntry& entry, Trust trust);
/// The same for Headscale's derp.yaml, with the lower-cased field names it reads. Ends with a newline.
[[nodiscard]] std::string map_yaml(const MapEntry& entry, Trust trust);

}  // namespace mesh::derper
