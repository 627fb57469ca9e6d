// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What `dns status` and `dns query` print. Functions of values.

#include <optional>
#include <string>
#include <vector>

#include "base/dns_message.h"
#include "base/json.h"
#include "tailscaled/api/status.h"

namespace mesh::cli {

struct DnsStatus {
    bool accept_dns = false;
    api::DaemonStatus status;
    Json config = Json::object();  ///< tailcfg.DNSConfig; empty without a network map
    std::optional<Json> os;        ///< Nameservers, SearchDomains, MatchDomains
    std::string os_error;          ///< why `os` is missing
};
[[nodiscard]] std::string dns_status_text(const DnsStatus& s, bool all);
[[nodiscard]] std::string dns_status_json(const DnsStatus& s);

struct DnsQueryAnswer {
    std::string name;
    std::string type;  ///< "A"
    std::vector<std::string> resolvers;
    Bytes message;
};
/// `m` is a.message, parsed.
[[nodiscard]] std::string dns_query_text(const DnsQueryAnswer& a, const dns::Message& m);
[[nodiscard]] std::string dns_query_json(const DnsQueryAnswer& a, const dns::Message& m);

}  // namespace mesh::cli
