// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/router_host.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

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
    if (saved && saved->exit_code == 0) return parse_iptables_save(saved->out);
    problems.push_back(!saved ? fmt::format("{}: no firewall rules for IPv{}", saved.error().message(), v6 ? 6 : 4)
                              : fmt::format("{} failed: {}", program, log::printable(saved->err)));
    return std::nullopt;
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
    }
    return {};
}

// ---- what the original client's nftables mode left, where iptables is absent or does not see it ----

bool is_our_chain(std::string_view name) {
    return name == "ts-input" || name == "ts-forward" || name == "ts-postrouting";
}

bool is_connmark(std::string_view table, std::string_view rule) {
    return table.ends_with("mangle") && (rule.ends_with("meta mark set ct mark & 0x00ff0000") ||
                                         rule.ends_with("ct mark set meta mark & 0x00ff0000"));
}

/// From `nft -a list table FAMILY TABLE` to the commands that remove our jumps, connmark rules and chains. Lines look like
///   chain ts-input { # handle 2        counter packets 0 bytes 0 jump ts-input # handle 7
std::string nft_removal(std::string_view listing, const std::string& table) {
    std::string jumps;
    std::string chains;
    std::string chain;
    while (!listing.empty()) {
        const size_t end = std::min(listing.find('\n'), listing.size());
        std::string_view line = listing.substr(0, end);
        listing.remove_prefix(std::min(end + 1, listing.size()));
        line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
        const size_t mark = line.rfind(" # handle ");
        if (mark == std::string_view::npos) continue;
        const std::string_view handle = line.substr(mark + 10);
        uint64_t number = 0;
        if (std::from_chars(handle.data(), handle.data() + handle.size(), number).ec != std::errc()) continue;
        const std::string_view body = line.substr(0, mark);
        if (body.starts_with("chain ")) {
            chain = std::string(body.substr(6, body.find(' ', 6) - 6));
            if (is_our_chain(chain)) chains += fmt::format("flush chain {0} {1}\ndelete chain {0} {1}\n", table, chain);
            continue;
        }
        const size_t verb = body.rfind("jump ");
        const bool jump = verb != std::string_view::npos && is_our_chain(body.substr(verb + 5));
        if ((jump && !is_our_chain(chain)) || is_connmark(table, body))
            jumps += fmt::format("delete rule {} {} handle {}\n", table, chain, number);
    }
    return jumps + chains;
}

std::string table_name(const NftTable& t) { return (t.v6 ? "ip6 " : "ip ") + t.name; }

/// Appends the tables that it changed to `changed`.
Status remove_by_nft(std::vector<std::string>& changed) {
    TRY_ASSIGN(const std::vector<NftTable> tables, list_iptables_nft_tables());
    Status first;
    for (const NftTable& t : tables) {
        if (t.name != "mangle" && std::none_of(t.chains.begin(), t.chains.end(), is_our_chain)) continue;
        const auto listed = run_command({"nft", "-a", "list", "table", t.v6 ? "ip6" : "ip", t.name});
        if (!listed) return tl::unexpected(listed.error());
        const std::string script = nft_removal(listed->out, table_name(t));
        if (script.empty()) continue;
        const auto done = run_command({"nft", "-f", "-"}, script);
        if (done && done->exit_code == 0)
            changed.push_back(table_name(t));
        else if (first)
            first = fail(Code::kSystem, "nft: " + (done ? log::printable(done->err) : done.error().message()));
    }
    return first;
}

bool mentions_us(const std::optional<Iptables>& tables, const std::string& table) {
    return tables && tables->tables.contains(table);
}

}  // namespace

Result<HostState> read_host(Netlink& netlink, const std::string& tun_name, std::vector<std::string>& problems) {
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
        auto rules = netlink.rules(family);
        if (rules)
            std::copy_if(rules->begin(), rules->end(), std::back_inserter(host.rules),
                         [](const IpRule& r) { return r.priority >= 5200 && r.priority < 5300; });
        else if (family == Addr::Family::kV4)
            problems.push_back("no policy routing: " + rules.error().message());
        if (auto routes = netlink.routes(family, kRouteTable))
            host.routes.insert(host.routes.end(), routes->begin(), routes->end());
    }
    host.iptables = read_iptables(false, problems);
    if (read_sysctl("net/ipv6/conf/all/disable_ipv6")) host.ip6tables = read_iptables(true, problems);
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

Status delete_tables_we_used(const HostState& host, const std::vector<std::string>& also) {
    TRY_ASSIGN(std::vector<NftTable> others, list_iptables_nft_tables());
    std::erase_if(others, [&](const NftTable& t) {
        return mentions_us(t.v6 ? host.ip6tables : host.iptables, t.name) ||
               std::find(also.begin(), also.end(), table_name(t)) != also.end();
    });
    return delete_new_empty_tables(others);
}

Result<size_t> remove_leftovers(Netlink& netlink, const std::string& tun_name) {
    std::vector<std::string> ignored;
    TRY_ASSIGN(const HostState host, read_host(netlink, tun_name, ignored));
    const bool foreign = has_foreign_owner(host, tun_name);
    WantedState nothing = nothing_wanted(host, tun_name);
    if (foreign) {
        for (const IpRule& r : host.rules)
            if (std::find(nothing.rules.begin(), nothing.rules.end(), r) == nothing.rules.end()) nothing.rules.push_back(r);
        // Each family as it is.
        nothing.connmark = (host.iptables && has_connmark_rules(*host.iptables)) ||
                           (host.ip6tables && has_connmark_rules(*host.ip6tables));
    }
    nothing.link_up = host.link_up;  // the caller's business
    nothing.own_addrs.clear();
    const auto operations = plan(host, nothing, tun_name);
    Status done = execute(netlink, host.tun_index, operations);
    if (!foreign) {
        std::vector<std::string> changed;
        const Status nft = find_program("nft").empty() ? Status() : remove_by_nft(changed);
        if (done) done = nft;
        const Status emptied = delete_tables_we_used(host, changed);
        if (done) done = emptied;
    }
    TRY(done);
    return operations.size();
}

Status cleanup(const std::string& tun_name) {
    TRY_ASSIGN(Netlink netlink, Netlink::open());
    TRY_ASSIGN(const size_t count, remove_leftovers(netlink, tun_name));
    static_cast<void>(count);
    return {};
}

}  // namespace mesh::platform
