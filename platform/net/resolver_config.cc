// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <charconv>
#include <sstream>

#include "platform/file.h"
#include "platform/net/resolver.h"

namespace mesh::platform {
namespace {

constexpr size_t kMaxServers = 8;
constexpr size_t kMaxSearch = 16;
constexpr size_t kMaxFileBytes = size_t{1} << 20;

bool is_ours(const Addr& a) { return a == service_addr_v4() || a == service_addr_v6(); }

struct ResolvConf {
    ResolverConfig config;
    bool ours = false;  // names our own service and no other server
};

ResolvConf parse(std::string_view text) {
    ResolvConf out;
    bool saw_ours = false;
    std::istringstream lines{std::string(text)};
    std::string line;
    while (std::getline(lines, line)) {
        line.resize(std::min(line.find_first_of("#;"), line.size()));
        std::istringstream words(line);
        std::string key, value;
        if (!(words >> key)) continue;
        if (key == "nameserver" && (words >> value)) {
            const auto addr = Addr::parse(value);
            if (!addr) continue;
            if (is_ours(*addr))
                saw_ours = true;
            else if (out.config.servers.size() < kMaxServers)
                out.config.servers.push_back({*addr, 53});
        } else if (key == "search" || key == "domain") {
            out.config.search.clear();  // the last line of either kind counts
            while (words >> value && out.config.search.size() < kMaxSearch) out.config.search.push_back(value);
        } else if (key == "options") {
            while (words >> value) {
                int n = 0;
                if (value.starts_with("ndots:") &&
                    std::from_chars(value.data() + 6, value.data() + value.size(), n).ec == std::errc())
                    out.config.ndots = std::clamp(n, 0, 15);
            }
        }
    }
    out.ours = saw_ours && out.config.servers.empty();
    return out;
}

}  // namespace

ResolverConfig parse_resolv_conf(std::string_view text) { return parse(text).config; }

ResolverConfig system_resolver_config(const std::string& etc) {
    ResolvConf conf;
    if (const auto text = read_file(etc + "/resolv.conf", kMaxFileBytes)) conf = parse(*text);
    if (conf.ours) {
        conf = {};
        if (const auto text = read_file(etc + "/resolv.pre-tailscale-backup.conf", kMaxFileBytes)) conf = parse(*text);
    }
    auto& servers = conf.config.servers;
    const bool only_stub = !servers.empty() && std::all_of(servers.begin(), servers.end(), [](const Endpoint& e) {
        return e.addr == Addr::v4(127, 0, 0, 53) || e.addr == Addr::v4(127, 0, 0, 54);
    });
    if (only_stub)
        if (const auto text = read_file(etc + "/../run/systemd/resolve/resolv.conf", kMaxFileBytes))
            for (const Endpoint& e : parse(*text).config.servers)
                if (servers.size() < kMaxServers) servers.push_back(e);
    conf.config.hosts_path = etc + "/hosts";
    return conf.config;
}

}  // namespace mesh::platform
