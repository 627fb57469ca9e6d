// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/router_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <tuple>

namespace mesh::platform {
namespace {

constexpr uint32_t kTableDefault = 253;

const Prefix& tailscale_ula() {
    static const Prefix p = *Prefix::parse("fd7a:115c:a1e0::/48");
    return p;
}

template <class T>
void sort_unique(std::vector<T>& v) {
    std::sort(v.begin(), v.end());
    v.erase(std::unique(v.begin(), v.end()), v.end());
}

template <class T>
bool contains(const std::vector<T>& v, const T& x) {
    return std::find(v.begin(), v.end(), x) != v.end();
}

/// A rule that some version of this client made: our priorities and targets, whatever the mark.
bool looks_like_ours(const IpRule& r) {
    if (!r.plain) return false;
    // Below mwan3's an administrator may have rules of that shape: only exactly ours.
    if (contains(policy_rules(r.family, kMwan3RuleBase), r)) return true;
    switch (r.priority) {
        case kRuleBase + 10: return r.table == kMainTable;
        case kRuleBase + 30: return r.table == kTableDefault;
        case kRuleBase + 50: return r.action == IpRule::Action::kUnreachable;
        case kRuleBase + 70: return r.table == kRouteTable;
        default: return false;
    }
}

const LinkInfo* living_link(const HostState& host, std::string_view name) {
    for (const LinkInfo& l : host.links)
        if (l.name == name) return &l;
    return nullptr;
}

/// The TUN that a ts-input chain accepts from: "-i NAME -j ACCEPT".
std::string owner_of(const Iptables& tables) {
    const auto* rules = tables.chain("filter", "ts-input");
    if (rules == nullptr) return {};
    for (const std::string& r : *rules) {
        constexpr std::string_view kHead = "-i ";
        constexpr std::string_view kTail = " -j ACCEPT";
        if (!r.starts_with(kHead) || !r.ends_with(kTail) || r.size() <= kHead.size() + kTail.size()) continue;
        std::string name = r.substr(kHead.size(), r.size() - kHead.size() - kTail.size());
        if (name.ends_with('+')) name.pop_back();  // the original's nftables mode matches a prefix
        return name;
    }
    return {};
}

std::string owner_of(const NftHost& host, bool v6) {
    const NftChain* chain = host.chain(v6, "filter", "ts-input");
    if (chain == nullptr) return {};
    for (const NftRule& r : chain->rules)
        if (r.accepts && !r.in.empty() && r.in != "lo") return r.in;
    return {};
}

bool chains_are_foreign(const HostState& host, const std::string& tun_name) {
    for (const bool v6 : {false, true}) {
        if (!host.nft) break;
        const std::string owner = owner_of(*host.nft, v6);
        if (!owner.empty() && owner != tun_name && living_link(host, owner) != nullptr) return true;
    }
    for (const auto* tables : {&host.iptables, &host.ip6tables}) {
        if (!*tables) continue;
        const std::string owner = owner_of(**tables);
        if (!owner.empty() && owner != tun_name && living_link(host, owner) != nullptr) return true;
    }
    return false;
}

// ---- firewall ----

/// Text as iptables-save prints it: wanted and real are compared as strings.
Iptables iptables_chains(const FirewallRules& rules, const ChainNames& names) {
    const auto texts = [](const std::vector<FirewallRule>& list) {
        std::vector<std::string> out;
        for (const FirewallRule& r : list) out.push_back(r.iptables());
        return out;
    };
    Iptables out;
    out.tables["filter"][names.input] = texts(rules.input);
    out.tables["filter"][names.forward] = texts(rules.forward);
    out.tables["nat"][names.postrouting] = texts(rules.postrouting);
    return out;
}

/// Names that may be ours. The standard ones may belong to a living foreigner; then only the suffixed ones are.
std::vector<ChainNames> managed_chains(const WantedState& wanted, const std::string& tun_name) {
    std::vector<ChainNames> out{suffixed_chains(tun_name)};
    if (!(wanted.chains == out[0])) out.push_back(ChainNames{});
    return out;
}

/// Builds one `iptables-restore --noflush` input.
class Script {
   public:
    Script(const Iptables& have, const WantedState& wanted, const Iptables& chains, const std::string& tun_name)
        : have_(have), wanted_(wanted), chains_(chains), managed_(managed_chains(wanted, tun_name)) {}

    std::string build() {
        std::string out;
        for (const char* table : {"filter", "nat", "mangle"}) {
            declare_.clear();
            change_.clear();
            remove_.clear();
            if (std::string_view(table) == "mangle")
                connmark();
            else
                chains(table);
            if (declare_.empty() && change_.empty() && remove_.empty()) continue;
            out += fmt::format("*{}\n{}{}{}COMMIT\n", table, declare_, change_, remove_);
        }
        return out;
    }

   private:
    void chains(const std::string& table) {
        for (const ChainNames& names : managed_) {
            for (const FirewallHook& hook : kFirewallHooks) {
                if (hook.table != table) continue;
                const std::string& name = names.*hook.chain;
                const auto* have = have_.chain(table, name);
                const auto* want = chains_.chain(table, name);
                if (want != nullptr) {
                    if (have == nullptr || *have != *want) {
                        // Declaring a chain that exists empties it.
                        declare_ += fmt::format(":{} - [0:0]\n", name);
                        for (const std::string& rule : *want) change_ += fmt::format("-A {} {}\n", name, rule);
                    }
                    this->hook(table, hook.parent, name);
                } else if (have != nullptr) {
                    drop_jumps(table, name);
                    remove_ += fmt::format("-F {0}\n-X {0}\n", name);
                }
            }
        }
    }

    void hook(const std::string& table, const std::string& parent, const std::string& name) {
        const std::string jump = "-j " + name;
        const auto* rules = have_.chain(table, parent);
        const auto count = rules == nullptr ? 0 : std::count(rules->begin(), rules->end(), jump);
        if (wanted_.hooks == Hooks::kLeave || (wanted_.hooks == Hooks::kInstall && count == 1)) return;
        for (long i = 0; i < count; ++i) change_ += fmt::format("-D {} {}\n", parent, jump);
        if (wanted_.hooks == Hooks::kInstall) change_ += fmt::format("-I {} 1 {}\n", parent, jump);
    }

    /// A chain can only go when nothing refers to it, an administrator's jumps included.
    void drop_jumps(const std::string& table, const std::string& name) {
        const auto t = have_.tables.find(table);
        if (t == have_.tables.end()) return;
        for (const auto& [parent, rules] : t->second)
            for (const std::string& rule : rules)
                if (const std::string padded = " " + rule + " ";
                    padded.find(" -j " + name + " ") != std::string::npos ||
                    padded.find(" -g " + name + " ") != std::string::npos)
                    change_ += fmt::format("-D {} {}\n", parent, rule);
    }

    void connmark() {
        for (const ConnmarkRule& m : kConnmark) {
            const auto* rules = have_.chain("mangle", m.chain);
            const auto have = [&](const char* rule) { return rules == nullptr ? 0 : std::count(rules->begin(), rules->end(), rule); };
            const auto drop = [&](const char* rule) {
                for (auto left = have(rule); left > 0; --left) change_ += fmt::format("-D {} {}\n", m.chain, rule);
            };
            const long original = m.iptables_original == nullptr ? 0 : have(m.iptables_original);
            if (original > 0 && wanted_.foreign) continue;  // its rule serves us as well
            if (original > 0) drop(m.iptables_original);
            if (have(m.iptables) == (wanted_.connmark ? 1 : 0)) continue;
            drop(m.iptables);
            if (wanted_.connmark) change_ += fmt::format("-I {} 1 {}\n", m.chain, m.iptables);
        }
    }

    const Iptables& have_;
    const WantedState& wanted_;
    const Iptables& chains_;
    std::vector<ChainNames> managed_;
    std::string declare_;
    std::string change_;
    std::string remove_;
};

Operation address_op(Operation::Kind kind, const Prefix& p) {
    return {.kind = kind, .address = p, .rule = {}, .route = {}, .script = {}};
}
Operation rule_op(Operation::Kind kind, const IpRule& r) {
    return {.kind = kind, .address = {}, .rule = r, .route = {}, .script = {}};
}
Operation route_op(Operation::Kind kind, const IpRoute& r) {
    return {.kind = kind, .address = {}, .rule = {}, .route = r, .script = {}};
}

Operation script_op(Operation::Kind kind, std::string script) {
    return {.kind = kind, .address = {}, .rule = {}, .route = {}, .script = std::move(script)};
}

/// Both families in one.
std::string nft_transaction(const NftHost& have, const WantedState& wanted, const std::string& tun_name) {
    std::string out;
    for (const bool v6 : {false, true}) {
        const auto& want = v6 ? wanted.nft_v6 : wanted.nft_v4;
        if (!want) continue;
        out += nft_script(have, {.v6 = v6,
                                 .wanted = *want,
                                 .install_hooks = wanted.hooks == Hooks::kInstall,
                                 .remove_hooks = wanted.hooks == Hooks::kRemove,
                                 .connmark = wanted.connmark,
                                 .managed = managed_chains(wanted, tun_name)});
    }
    return out;
}

/// Routes by what makes two of them the same for us; tailnets have thousands.
class RouteSet {
   public:
    explicit RouteSet(const std::vector<IpRoute>& routes) {
        keys_.reserve(routes.size());
        for (const IpRoute& r : routes) keys_.push_back(key(r));
        std::sort(keys_.begin(), keys_.end());
    }
    [[nodiscard]] bool has(const IpRoute& r) const { return std::binary_search(keys_.begin(), keys_.end(), key(r)); }

   private:
    using Key = std::tuple<Prefix, IpRoute::Type, int>;
    static Key key(const IpRoute& r) { return {r.dst, r.type, r.oif}; }
    std::vector<Key> keys_;
};

}  // namespace

const std::vector<std::string>* Iptables::chain(const std::string& table, const std::string& name) const {
    const auto t = tables.find(table);
    if (t == tables.end()) return nullptr;
    const auto c = t->second.find(name);
    return c == t->second.end() ? nullptr : &c->second;
}

Iptables parse_iptables_save(std::string_view text) {
    Iptables out;
    std::map<std::string, std::vector<std::string>>* table = nullptr;
    while (!text.empty()) {
        const size_t end = std::min(text.find('\n'), text.size());
        const std::string_view line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        if (line.starts_with('*')) {
            table = &out.tables[std::string(line.substr(1))];
        } else if (line.starts_with(':') && table != nullptr) {
            const std::string_view name = line.substr(1, line.find(' ') - 1);
            if (name.starts_with("ts-")) (*table)[std::string(name)];
        } else if (line.starts_with("-A ") && table != nullptr) {
            const std::string_view rest = line.substr(3);
            const size_t space = rest.find(' ');
            if (space == std::string_view::npos) continue;
            const std::string_view name = rest.substr(0, space);
            const std::string_view rule = rest.substr(space + 1);
            const bool jump = rule.find("-j ts-") != std::string_view::npos || rule.find("-g ts-") != std::string_view::npos;
            const bool mark = rule.find("CONNMARK") != std::string_view::npos &&
                              rule.find("0xff0000") != std::string_view::npos;
            if (name.starts_with("ts-") || jump || mark) (*table)[std::string(name)].emplace_back(rule);
        }
    }
    // Empty tables say nothing.
    std::erase_if(out.tables, [](const auto& t) { return t.second.empty(); });
    return out;
}

ChainNames suffixed_chains(const std::string& tun_name) {
    // 28 bytes is the longest name that iptables-legacy takes; a TUN's name has up to 15.
    return {"ts-input-" + tun_name, "ts-forward-" + tun_name, "ts-postnat-" + tun_name};
}

bool has_connmark_rules(const Iptables& tables) {
    for (const ConnmarkRule& m : kConnmark) {
        const auto* rules = tables.chain("mangle", m.chain);
        if (rules == nullptr) return false;
        if (contains(*rules, std::string(m.iptables))) continue;
        if (m.iptables_original == nullptr || !contains(*rules, std::string(m.iptables_original))) return false;
    }
    return true;
}

bool has_foreign_owner(const HostState& host, const std::string& tun_name) {
    if (chains_are_foreign(host, tun_name)) return true;
    for (const LinkInfo& l : host.links)
        if (l.name != tun_name && l.kind == "tun" && l.up && l.name.starts_with("tailscale")) return true;
    return std::any_of(host.routes.begin(), host.routes.end(), [&](const IpRoute& r) {
        if (r.oif == 0 || r.oif == host.tun_index) return false;
        return std::any_of(host.links.begin(), host.links.end(),
                           [&](const LinkInfo& l) { return l.index == r.oif && l.kind == "tun"; });
    });
}

ChainNames choose_chains(const HostState& host, const std::string& tun_name) {
    return chains_are_foreign(host, tun_name) ? suffixed_chains(tun_name) : ChainNames{};
}

std::vector<Prefix> tun_routes(const RouterConfig& config) {
    std::vector<Prefix> out;
    for (const Prefix& p : config.peer_routes)
        out.push_back(p.addr.is_v6() && tailscale_ula().contains(p.addr) ? tailscale_ula() : p.masked());
    for (const Prefix& p : config.accepted_routes) out.push_back(p.masked());
    for (const Prefix& p : config.local_addrs) {
        if (p.addr.is_v4()) out.push_back(Prefix::single(service_addr_v4()));
        if (p.addr.is_v6()) out.push_back(Prefix::single(service_addr_v6()));
    }
    std::erase_if(out, [](const Prefix& p) { return !p.is_valid(); });
    sort_unique(out);
    return out;
}

std::vector<IpRule> policy_rules(Addr::Family family, uint32_t base) {
    using Action = IpRule::Action;
    return {{family, base + 10, kBypassMark, kMarkMask, kMainTable, Action::kLookup, true},
            {family, base + 30, kBypassMark, kMarkMask, kTableDefault, Action::kLookup, true},
            {family, base + 50, kBypassMark, kMarkMask, 0, Action::kUnreachable, true},
            {family, base + 70, 0, 0, kRouteTable, Action::kLookup, true}};
}

WantedState wanted_state(const RouterConfig& config, const RouterCapabilities& can, const HostState& host) {
    WantedState out;
    const auto usable = [&](const Prefix& p) { return p.is_valid() && (p.addr.is_v4() || can.v6); };
    out.link_up = true;
    out.chains = choose_chains(host, config.tun_name);
    out.foreign = has_foreign_owner(host, config.tun_name);
    for (const Prefix& p : config.local_addrs)
        if (usable(p)) out.addrs.push_back(Prefix::single(p.addr));
    sort_unique(out.addrs);

    if (can.policy_routing) out.rules = policy_rules(Addr::Family::kV4, can.rule_base);
    if (can.v6 && can.policy_routing)
        for (const IpRule& r : policy_rules(Addr::Family::kV6, can.rule_base)) out.rules.push_back(r);

    // In the main table there is nothing to fall back to.
    const uint32_t table = can.policy_routing ? kRouteTable : kMainTable;
    std::set<Prefix> thrown;
    for (const Prefix& p : config.throw_routes)
        if (can.policy_routing && usable(p) && thrown.insert(p.masked()).second)
            out.routes.push_back({.dst = p.masked(), .type = IpRoute::Type::kThrow, .oif = 0, .table = table,
                                  .gateway = {}, .metric = 0});
    for (const Prefix& p : tun_routes(config))
        if (usable(p) && !thrown.contains(p))
            out.routes.push_back({.dst = p, .type = IpRoute::Type::kUnicast, .oif = host.tun_index,
                                  .table = table, .gateway = {}, .metric = 0});

    const bool chains = config.netfilter != NetfilterMode::kOff;
    const auto rules = [&](Addr::Family family) { return firewall_rules(config, family, out.foreign); };
    if (can.nft) {
        out.nft_v4 = chains ? nft_wanted(rules(Addr::Family::kV4), out.chains) : NftWanted{};
        if (can.v6) out.nft_v6 = chains ? nft_wanted(rules(Addr::Family::kV6), out.chains) : NftWanted{};
    } else {
        if (can.iptables) out.iptables = chains ? iptables_chains(rules(Addr::Family::kV4), out.chains) : Iptables{};
        if (can.ip6tables && can.v6)
            out.ip6tables = chains ? iptables_chains(rules(Addr::Family::kV6), out.chains) : Iptables{};
    }
    out.hooks = config.netfilter == NetfilterMode::kOn         ? Hooks::kInstall
                : config.netfilter == NetfilterMode::kNoDivert ? Hooks::kLeave
                                                               : Hooks::kRemove;
    out.connmark = config.netfilter == NetfilterMode::kOn;
    return out;
}

WantedState nothing_wanted(const HostState& host, const std::string& tun_name, std::vector<IpRule> keep_rules,
                           bool keep_connmark) {
    WantedState out;
    out.rules = std::move(keep_rules);
    out.connmark = keep_connmark;
    out.foreign = has_foreign_owner(host, tun_name);
    out.chains = choose_chains(host, tun_name);
    if (host.iptables) out.iptables = Iptables{};
    if (host.ip6tables) out.ip6tables = Iptables{};
    if (host.nft) {
        out.nft_v4.emplace();
        out.nft_v6.emplace();
    }
    return out;
}

std::string Operation::str() const {
    switch (kind) {
        case Kind::kLinkUp: return "link up";
        case Kind::kLinkDown: return "link down";
        case Kind::kAddAddress: return "add address " + address.str();
        case Kind::kDeleteAddress: return "delete address " + address.str();
        case Kind::kAddRule:
        case Kind::kDeleteRule:
            return fmt::format("{} IPv{} rule {}", kind == Kind::kAddRule ? "add" : "delete",
                               rule.family == Addr::Family::kV4 ? 4 : 6, rule.priority);
        case Kind::kAddRoute:
        case Kind::kDeleteRoute:
            return fmt::format("{} {}route {}", kind == Kind::kAddRoute ? "add" : "delete",
                               route.type == IpRoute::Type::kThrow ? "throw " : "", route.dst.str());
        case Kind::kIptables: return "iptables-restore:\n" + script;
        case Kind::kIp6tables: return "ip6tables-restore:\n" + script;
        case Kind::kNft: return "nft:\n" + script;
    }
    return {};
}

std::vector<Operation> plan(const HostState& host, const WantedState& wanted, const std::string& tun_name) {
    using Kind = Operation::Kind;
    std::vector<Operation> out;
    const auto simple = [&](Kind kind) { out.push_back(address_op(kind, {})); };

    if (wanted.link_up && !host.link_up && host.tun_index != 0) simple(Kind::kLinkUp);

    // Rules come before routes: own sockets must be out of the tunnel's reach before it has any.
    for (const IpRule& r : wanted.rules)
        if (!contains(host.rules, r)) out.push_back(rule_op(Kind::kAddRule, r));

    // The firewall is there before the first address.
    const auto firewall = [&](Kind kind, const std::optional<Iptables>& have, const std::optional<Iptables>& want) {
        if (!have || !want) return;
        std::string script = Script(*have, wanted, *want, tun_name).build();
        if (script.empty()) return;
        out.push_back(script_op(kind, std::move(script)));
    };
    firewall(Kind::kIptables, host.iptables, wanted.iptables);
    firewall(Kind::kIp6tables, host.ip6tables, wanted.ip6tables);
    if (std::string script = host.nft ? nft_transaction(*host.nft, wanted, tun_name) : ""; !script.empty())
        out.push_back(script_op(Kind::kNft, std::move(script)));

    // New addresses before old ones go: with its last address an interface loses its routes.
    for (const Prefix& p : wanted.addrs)
        if (!contains(host.addrs, p)) out.push_back(address_op(Kind::kAddAddress, p));

    const RouteSet have(host.routes), want(wanted.routes);
    std::vector<Prefix> taken;  // a destination that somebody else routes stays with them
    for (const IpRoute& r : host.routes)
        if ((r.oif != host.tun_index || host.tun_index == 0) && (r.type != IpRoute::Type::kThrow || wanted.foreign)) taken.push_back(r.dst);
    std::sort(taken.begin(), taken.end());
    for (const IpRoute& r : host.routes) {
        const bool through_us = host.tun_index != 0 && r.oif == host.tun_index;
        const bool our_throw = r.type == IpRoute::Type::kThrow && !wanted.foreign;
        if ((through_us || our_throw) && !want.has(r)) out.push_back(route_op(Kind::kDeleteRoute, r));
    }
    for (const IpRoute& r : wanted.routes) {
        if (have.has(r) || (r.type == IpRoute::Type::kUnicast && host.tun_index == 0)) continue;
        if (!std::binary_search(taken.begin(), taken.end(), r.dst)) out.push_back(route_op(Kind::kAddRoute, r));
    }

    for (const Prefix& p : host.addrs)
        if (!contains(wanted.addrs, p) && (contains(wanted.own_addrs, p) || is_tailscale_range(p.addr)))
            out.push_back(address_op(Kind::kDeleteAddress, p));

    std::vector<IpRule> seen;
    for (const IpRule& r : host.rules) {
        const bool duplicate = contains(seen, r);
        seen.push_back(r);
        if (!looks_like_ours(r) || (contains(wanted.rules, r) && !duplicate)) continue;
        // Beside a living foreigner only what we certainly added ourselves goes.
        const bool exact = contains(policy_rules(r.family), r) || contains(policy_rules(r.family, kMwan3RuleBase), r);
        if (wanted.foreign && (duplicate || !exact)) continue;
        out.push_back(rule_op(Kind::kDeleteRule, r));
    }

    if (!wanted.link_up && host.link_up) simple(Kind::kLinkDown);
    return out;
}

}  // namespace mesh::platform
