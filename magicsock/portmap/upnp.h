// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What is said to a UPnP Internet gateway (IGD 1 and 2) and what it answers: device description and SOAP. XML is read by
/// pugixml, which knows no external entities and expands none of a document's own; sizes and depths are bounded here.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ip.h"
#include "base/result.h"

namespace mesh::portmap::upnp {

inline constexpr size_t kMaxXml = size_t{64} << 10;
inline constexpr size_t kMaxServices = 8;  ///< those beyond are ignored

/// A service that can forward ports.
struct Service {
    std::string type;          ///< one of the types known here, from WANIPConnection:2 down
    std::string control_path;  ///< "/ctl/IPConn"; the host is always the gateway, whatever the document says
    bool operator==(const Service&) const = default;
    [[nodiscard]] bool is_v2() const { return type.ends_with("WANIPConnection:2"); }
};
/// Best first. An empty list: a device that forwards nothing. Error: not such a document.
[[nodiscard]] Result<std::vector<Service>> parse_description(std::string_view xml);

/// Names and values, in the order that the service's description demands.
using Args = std::vector<std::pair<std::string_view, std::string>>;
struct Call {
    std::string soap_action;  ///< value of the SOAPAction header
    std::string body;
};
[[nodiscard]] Call make_call(const Service& service, std::string_view action, const Args& args = {});
/// AddPortMapping, or AddAnyPortMapping with a WANIPConnection:2. Lease 0: for ever.
[[nodiscard]] Call add_mapping(const Service& service, uint16_t external, const Endpoint& internal, uint32_t lease_s);
[[nodiscard]] Call delete_mapping(const Service& service, uint16_t external);

/// UPnP error codes that lead to another try (WANIPConnection:1 and :2, 2.4.16).
inline constexpr int kInvalidArgs = 402, kConflict = 718, kOnlyPermanentLeases = 725;

struct Reply {
    int error = 0;            ///< UPnP error code; 0 = done
    std::string error_text;   ///< for people
    std::string external_ip;  ///< NewExternalIPAddress
    std::string status;       ///< NewConnectionStatus
    std::string reserved_port;
};
/// Error: not a SOAP envelope.
[[nodiscard]] Result<Reply> parse_reply(std::string_view xml);

}  // namespace mesh::portmap::upnp
