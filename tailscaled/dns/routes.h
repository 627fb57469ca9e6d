// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Which servers are asked for which name: split DNS by the longest suffix. Pure values.

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/dns_message.h"
#include "base/result.h"

namespace mesh::dns {

/// A server that names are forwarded to.
struct Upstream {
    Endpoint at;            ///< plain DNS; invalid: a DNS-over-HTTP server of a peer
    std::string peer_url;   ///< "http://100.64.0.5:41234/dns-query"
    std::string text;       ///< as configured, for people and the local API
    bool operator==(const Upstream&) const = default;
};

/// From a resolver as the control server writes it: "8.8.8.8", "[::1]:5353", "http://100.64.0.5:4001/dns-query", or
/// "https://…" with an address in it or in `bootstrap`, which is then asked by plain DNS. An error says what is not
/// supported, in words for people.
[[nodiscard]] Result<Upstream> parse_upstream(const std::string& addr, const std::vector<Addr>& bootstrap);

/// Suffix ("" = everything) → servers, tried together. At most 4 per suffix are kept.
class Routes {
   public:
    static constexpr size_t kMaxUpstreams = 4;
    void set(std::string_view suffix, std::vector<Upstream> upstreams);
    /// Servers for a canonical name; nullptr: nobody knows.
    [[nodiscard]] const std::vector<Upstream>* find(std::string_view name) const;
    [[nodiscard]] const std::map<std::string, std::vector<Upstream>, std::less<>>& all() const { return routes_; }
    bool operator==(const Routes&) const = default;

   private:
    std::map<std::string, std::vector<Upstream>, std::less<>> routes_;
};

}  // namespace mesh::dns
