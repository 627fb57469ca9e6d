// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/dns/routes.h"

#include <fmt/format.h>

namespace mesh::dns {

Result<Upstream> parse_upstream(const std::string& addr, const std::vector<Addr>& bootstrap) {
    Upstream up;
    up.text = addr;
    constexpr uint16_t kPort = 53;
    if (const auto a = Addr::parse(addr)) {
        up.at = {*a, kPort};
    } else if (const auto e = Endpoint::parse(addr)) {
        up.at = {e->addr, e->port == 0 ? kPort : e->port};
    } else if (addr.starts_with("http://")) {
        up.peer_url = addr;
    } else if (addr.starts_with("https://")) {
        std::string host = addr.substr(8, addr.find('/', 8) - 8);
        if (const auto with_port = Endpoint::parse(host)) host = with_port->addr.str();
        if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
        if (const auto literal = Addr::parse(host))
            up.at = {*literal, kPort};
        else if (!bootstrap.empty())
            up.at = {bootstrap.front(), kPort};
        else
            return fail(Code::kUnsupported, fmt::format("the resolver {} is not used: encrypted DNS is not supported, and it names no address "
                                                        "that could be asked by plain DNS", addr));
    } else {
        return fail(Code::kUnsupported, fmt::format("the resolver {} is not used: only addresses and http:// of peers are supported", addr));
    }
    if (up.at.is_valid() && (up.at.addr == service_addr_v4() || up.at.addr == service_addr_v6() || up.at.addr.is_unspecified() ||
                             up.at.addr.is_multicast()))
        return fail(Code::kInvalid, fmt::format("the resolver {} is not used: it would ask ourselves or everybody", addr));
    return up;
}

void Routes::set(std::string_view suffix, std::vector<Upstream> upstreams) {
    if (upstreams.size() > kMaxUpstreams) upstreams.resize(kMaxUpstreams);
    routes_[canonical(suffix)] = std::move(upstreams);
}

const std::vector<Upstream>* Routes::find(std::string_view name) const {
    for (;;) {
        if (const auto it = routes_.find(name); it != routes_.end()) return &it->second;
        if (name.empty()) return nullptr;
        const size_t dot = name.find('.');
        name = dot == std::string_view::npos ? std::string_view() : name.substr(dot + 1);
    }
}

}  // namespace mesh::dns
