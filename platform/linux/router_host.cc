// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/router_host.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "base/log.h"
#include "platform/linux/nft_tables.h"
#include "platform/linux/router.h"
#include "platform/linux/run_command.h"
#include "platform/linux/sysctl.h"

namespace mesh::platform {
namespace {

std::optional<Iptables> read_iptables(bool v6, std::vector<std::string>& problems) {
    const std::string program = v6 ? "ip6tables-save" : "iptables-save";
    const auto saved = run_command({program});
    if (!saved) {
        problems.push_back(fmt::format("{}: no firewall rules for IPv{}", saved.error().message(), v6 ? 6 : 4));
        return std::nullopt;
    }
    if (saved->exit_code != 0) {
        problems.push_back(fmt::format("{} failed: {}", program, log::printable(saved->err)));
        return std::nullopt;
    }
    // It says so in a comment and leaves the table out, as if it were empty.
    if (saved->out.find(" is incompatible, use 'nft' tool") != std::string::npos) {
        problems.push_back(fmt::format("{} cannot show what nft put into its tables: no firewall rules for IPv{}", program, v6 ? 6 : 4));
        return std::nullopt;
    }
    return parse_iptables_save(saved->out);
}

Status run_restore(bool v6, const std::string& script) {
    // --wait: other programs hold the lock for a moment (iptables-legacy).
    const std::string program = v6 ? "ip6tables-restore" : "iptables-restore";
    TRY_ASSIGN(const CommandOutput done, run_command({program, "--noflush", "--wait=5"}, script));
    if (done.exit_code == 0) return {};
    return fail(Code::kSystem, fmt::format("{}: {}", program, log::printable(done.err)));
}

/// One restore for all tables; if the kernel refuses, table by table, so that a missing nat table costs only that.
Status restore(bool v6, const std::string& script) {
    Status all = run_restore(v6, script);
    if (all) return all;
    Status first;
    constexpr std::string_view kEnd = "COMMIT\n";
    for (size_t at = 0; at < script.size();) {
        size_t end = script.find(kEnd, at);
        end = end == std::string::npos ? script.size() : end + kEnd.size();
        const Status one = run_restore(v6, script.substr(at, end - at));
        if (!one && first) first = one;
        at = end;
    }
    return first;
}

Status run_nft(const std::string& script) {
    TRY_ASSIGN(const CommandOutput done, run_command({"nft", "-f", "-"}, script));
    if (done.exit_code == 0) return {};
    return fail(Code::kSystem, "nft: " + log::printable(done.err, 300));
}

/// One transaction; if it is refused, table by table, so that a kernel without NAT for IPv6 loses only that.
Status apply_nft(const std::string& script) {
    if (run_nft(script)) return {};
    std::vector<std::pair<std::string, std::string>> parts;  // "ip filter" → its commands
    for (size_t at = 0; at < script.size();) {
        const size_t end = std::min(script.find('\n', at), script.size() - 1) + 1;
        const std::string line = script.substr(at, end - at);
        at = end;
        size_t from = 0;  // "add rule ip filter …": the third and fourth words
        for (int word = 0; word < 2; ++word) from = line.find(' ', from) + 1;
        size_t to = line.find(' ', from) + 1;
        to = line.find_first_of(" \n", to);
        const std::string table = line.substr(from, to - from);
        const auto it = std::find_if(parts.begin(), parts.end(), [&](const auto& p) { return p.first == table; });
        if (it == parts.end())
            parts.emplace_back(table, line);
        else
            it->second += line;
    }
    Status first;
    for (const auto& [table, commands] : parts)
        if (const Status one = run_nft(commands); !one && first) first = one;
    return first;
}

Status execute_one(Netlink& netlink, int tun_index, const Operation& op) {
    using Kind = Operation::Kind;
    switch (op.kind) {
        case Kind::kLinkUp: return netlink.set_link_up(tun_index, true);
        case Kind::kLinkDown: return netlink.set_link_up(tun_index, false);
        case Kind::kAddAddress: return netlink.add_address(tun_index, op.address);
        case Kind::kDeleteAddress: return netlink.delete_address(tun_index, op.address);
        case Kind::kAddRule: return netlink.add_rule(op.rule);
        case Kind::kDeleteRule: return netlink.delete_rule(op.rule);
        case Kind::kAddRoute: {
            Status s = netlink.add_route(op.route);
            // Somebody else added it since we looked.
            if (!s && s.error().sys_errno == EEXIST) return {};
            return s;
        }
        case Kind::kDeleteRoute: return netlink.delete_route(op.route);
        case Kind::kIptables: return restore(false, op.script);
        case Kind::kIp6tables: return restore(true, op.script);
        case Kind::kNft: return apply_nft(op.script);
    }
    return {};
}

bool mentions_us(const std::optional<Iptables>& tables, const std::string& table) {
    return tables && tables->tables.contains(table);
}

}  // namespace

Result<HostState> read_host(Netlink& netlink, const std::string& tun_name, const HostRead& what,
                            std::vector<std::string>& problems) {
    HostState host;
    TRY_ASSIGN(host.links, netlink.links());
    for (const LinkInfo& l : host.links) {
        if (l.name != tun_name) continue;
        host.tun_index = l.index;
        host.link_up = l.up;
    }
    if (host.tun_index != 0) {
        TRY_ASSIGN(const std::vector<LinkAddr> addrs, netlink.addresses(host.tun_index));
        for (const LinkAddr& a : addrs)
            if (!a.prefix.addr.is_link_local()) host.addrs.push_back(a.prefix);
    }
    for (const Addr::Family family : {Addr::Family::kV4, Addr::Family::kV6}) {
        // A kernel without this family, or without policy routing, has none.
        if (auto rules = netlink.rules(family))
            std::copy_if(rules->begin(), rules->end(), std::back_inserter(host.rules), [](const IpRule& r) {
                return (r.priority >= kRuleBase && r.priority < kRuleBase + 100) ||
                       (r.priority >= kMwan3RuleBase && r.priority < kMwan3RuleBase + 100);
            });
        const auto routes = what.policy_routing        ? netlink.routes(family, kRouteTable)
                            : host.tun_index != 0 ? netlink.routes(family, kMainTable, host.tun_index)
                                                  : Result<std::vector<IpRoute>>{};
        if (routes) std::copy_if(routes->begin(), routes->end(), std::back_inserter(host.routes), [&](const IpRoute& r) {
            return what.policy_routing || !(r.dst.addr.is_link_local() || r.dst.addr.is_multicast());
        });
    }
    if (what.iptables) {
        host.iptables = read_iptables(false, problems);
        if (read_sysctl("net/ipv6/conf/all/disable_ipv6")) host.ip6tables = read_iptables(true, problems);
    }
    if (what.nft) {
        if (auto nft = read_nft_host())
            host.nft = std::move(*nft);
        else
            problems.push_back("nftables: " + nft.error().message());
    }
    return host;
}

Status execute(Netlink& netlink, int tun_index, const std::vector<Operation>& operations) {
    Status first;
    for (const Operation& op : operations) {
        log::debug(2, "router: {}", op.str());
        const Status s = execute_one(netlink, tun_index, op);
        if (s) continue;
        log::info("router: {}", s.error().message());
        if (first) first = s;
    }
    return first;
}

FirewallFacts firewall_facts(const std::string& wish) {
    FirewallFacts f;
    f.wish = wish;
    f.iptables_found = !find_program("iptables-save").empty() || !find_program("ip6tables-save").empty();
    std::vector<std::string> why;
    f.iptables_works = f.iptables_found && read_iptables(false, why).has_value();
    f.nft_works = !find_program("nft").empty() && list_iptables_nft_tables().has_value();
    if (wish != "auto") return f;
    for (const char* program : {"iptables-save", "ip6tables-save"})
        if (const auto saved = run_command({program}); saved && saved->exit_code == 0)
            for (size_t at = 0; (at = saved->out.find("\n-A ", at)) != std::string::npos; ++at) ++f.iptables_rules;
    f.nft_rules = count_nft_rules().value_or(0);
    return f;
}

Status delete_tables_we_used(const HostState& host) {
    TRY_ASSIGN(std::vector<NftTable> others, list_iptables_nft_tables());
    const auto in_nft = [&](const NftTable& t) {
        return host.nft && std::any_of(host.nft->chains.begin(), host.nft->chains.end(), [&](const NftChain& c) {
                   return c.v6 == t.v6 && c.table == t.name && (!c.rules.empty() || c.name.starts_with("ts-"));
               });
    };
    std::erase_if(others, [&](const NftTable& t) { return mentions_us(t.v6 ? host.ip6tables : host.iptables, t.name) || in_nft(t); });
    return delete_new_empty_tables(others);
}

Result<size_t> remove_leftovers(Netlink& netlink, const std::string& tun_name) {
    std::vector<std::string> ignored;
    const bool has_nft = !find_program("nft").empty();
    TRY_ASSIGN(const HostState host, read_host(netlink, tun_name, {.iptables = true, .nft = has_nft}, ignored));
    const bool foreign = has_foreign_owner(host, tun_name);
    const auto nothing_of = [&](const HostState& now) {
        WantedState nothing = nothing_wanted(now, tun_name);
        if (foreign) {
            for (const IpRule& r : now.rules)
                if (std::find(nothing.rules.begin(), nothing.rules.end(), r) == nothing.rules.end()) nothing.rules.push_back(r);
            // Each family as it is.
            nothing.connmark = (now.iptables && has_connmark_rules(*now.iptables)) ||
                               (now.ip6tables && has_connmark_rules(*now.ip6tables)) ||
                               (now.nft && has_connmark_rules(*now.nft));
        }
        nothing.link_up = now.link_up;  // the caller's business
        nothing.own_addrs.clear();
        return nothing;
    };
    HostState first = host;
    first.nft.reset();
    const auto operations = plan(first, nothing_of(first), tun_name);
    Status done = execute(netlink, host.tun_index, operations);
    size_t count = operations.size();
    if (has_nft) {
        // What iptables made and has removed by now shows in both views: look again.
        std::vector<std::string> none;
        TRY_ASSIGN(const HostState rest, read_host(netlink, tun_name, {.iptables = false, .nft = true}, none));
        WantedState nothing = nothing_of(rest);
        const auto more = plan(rest, nothing, tun_name);
        const Status by_nft = execute(netlink, rest.tun_index, more);
        if (done) done = by_nft;
        count += more.size();
    }
    if (!foreign) {
        const Status emptied = delete_tables_we_used(host);
        if (done) done = emptied;
    }
    TRY(done);
    return count;
}

Status cleanup(const std::string& tun_name) {
    TRY_ASSIGN(Netlink netlink, Netlink::open());
    TRY_ASSIGN(const size_t count, remove_leftovers(netlink, tun_name));
    static_cast<void>(count);
    return {};
}

}  // namespace mesh::platform
