// SPDX-License-Identifier: BSD-3-Clause
// Messages as the kernel dumps them (first byte: message type), and the text of iptables-save (first byte '*'): what is
// read is in range and inside the input, and a firewall's text written again reads the same.

#include <linux/rtnetlink.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/check.h"
#include "platform/linux/netlink_wire.h"
#include "platform/linux/router_plan.h"

using namespace mesh;
using namespace mesh::platform;

namespace {

void message(uint16_t type, const uint8_t* body, size_t len) {
    int kinds = 0;
    if (const auto link = parse_link(type, body, len)) {
        ++kinds;
        CHECK(link->name.size() <= len && link->kind.size() <= len && link->name.find('\0') == std::string::npos);
    }
    if (const auto a = parse_address(type, body, len)) {
        ++kinds;
        CHECK(a->prefix.is_valid() && a->prefix.len <= a->prefix.addr.bits());
        CHECK(!a->temporary || a->prefix.addr.is_v6());
    }
    if (const auto route = parse_route(type, body, len)) {
        ++kinds;
        CHECK(route->dst.is_valid() && route->dst.len <= route->dst.addr.bits());
        CHECK(route->type != IpRoute::Type::kThrow || route->oif == 0);
        (void)route->dst.masked().str();
    }
    if (const auto rule = parse_rule(type, body, len)) {
        ++kinds;
        CHECK(rule->family != Addr::Family::kNone && (rule->action == IpRule::Action::kLookup || rule->table == 0));
    }
    CHECK(kinds <= 1);
}

void firewall(std::string_view text) {
    const Iptables tables = parse_iptables_save(text);
    std::string again;
    size_t rules = 0;
    for (const auto& [name, chains] : tables.tables) {
        CHECK(!chains.empty());
        again += "*" + name + "\n";
        for (const auto& [chain, lines] : chains) {
            if (chain.starts_with("ts-")) again += ":" + chain + " - [0:0]\n";
            CHECK(chain.starts_with("ts-") || !lines.empty());
            for (const std::string& line : lines) again += "-A " + chain + " " + line + "\n";
            rules += lines.size();
        }
        again += "COMMIT\n";
    }
    CHECK(rules * 4 <= text.size());
    CHECK(parse_iptables_save(again) == tables);
    // Taking our part down touches no chain of others but for the rules that lead to ours.
    HostState host;
    host.iptables = tables;
    for (const Operation& op : plan(host, nothing_wanted(host, "tailscale0"), "tailscale0"))
        CHECK(op.kind == Operation::Kind::kIptables && op.script.starts_with('*') && op.script.ends_with("COMMIT\n"));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size == 0) return 0;
    if (data[0] == '*') {
        firewall(as_text({data, size}));
        return 0;
    }
    constexpr uint16_t kTypes[] = {RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_DELADDR, RTM_NEWROUTE, RTM_DELROUTE, RTM_NEWRULE, RTM_DELRULE, 3};
    message(kTypes[data[0] % 9], data + 1, size - 1);
    return 0;
}
