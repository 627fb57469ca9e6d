// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// SSDP (UPnP Device Architecture 1.1, 1.3): who is an Internet gateway here, and where is its description?

#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/ip.h"

namespace mesh::portmap::ssdp {

inline constexpr uint16_t kPort = 1900;
inline constexpr size_t kMaxAnswer = 2048;  ///< longer ones are ignored
inline constexpr std::string_view kAll = "ssdp:all";
inline constexpr std::string_view kGateway = "urn:schemas-upnp-org:device:InternetGatewayDevice:1";

/// 239.255.255.250:1900.
[[nodiscard]] Endpoint multicast();
/// One M-SEARCH.
[[nodiscard]] std::string search(std::string_view target);

/// Where an Internet gateway's description is.
struct Answer {
    Endpoint at;       ///< of the URL: an IP literal and a port
    std::string path;  ///< "/rootDesc.xml", with query
    bool operator==(const Answer&) const = default;
};
/// nullopt: not an answer to a search, not an Internet gateway, or a location that is no plain http URL of an address.
[[nodiscard]] std::optional<Answer> parse(ByteSpan datagram);

}  // namespace mesh::portmap::ssdp
