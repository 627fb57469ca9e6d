// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/router.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "platform/linux/run_command.h"
#include "platform/linux/sysctl.h"

namespace mesh::platform {
namespace {

constexpr const char* kSrcValidMark = "net/ipv4/conf/all/src_valid_mark";

bool connmark_anywhere(const HostState& host) {
    return (host.iptables && has_connmark_rules(*host.iptables)) ||
           (host.ip6tables && has_connmark_rules(*host.ip6tables)) || (host.nft && has_connmark_rules(*host.nft));
}

/// OpenWrt's mwan3 puts its marks' rules from 2001 on, after which ours would never be asked.
bool mwan3_steers(const std::vector<IpRule>& rules) {
    if (::access("/etc/config/mwan3", F_OK) != 0) return false;
    return std::any_of(rules.begin(), rules.end(),
                       [](const IpRule& r) { return r.priority >= 2001 && r.priority <= 2004 && r.mark != 0; });
}

}  // namespace

Ipv6Support detect_ipv6(const std::string& tun_name) {
    const auto set = [](const std::string& key) {
        const auto v = read_sysctl(key);
        return v && *v != "0";
    };
    if (!read_sysctl("net/ipv6/conf/all/disable_ipv6")) return {false, "the kernel has no IPv6"};
    if (set("net/ipv6/conf/all/disable_ipv6")) return {false, "disable_ipv6 is set"};
    if (set("net/ipv6/conf/all/disable_policy")) return {false, "disable_policy is set"};
    if (!tun_name.empty()) {
        const std::string key = "net/ipv6/conf/" + tun_name + "/disable_ipv6";
        // The kernel takes IPv6 off an interface whose MTU is below 1280.
        if (!read_sysctl(key)) return {false, "the interface has no IPv6 (MTU below 1280?)"};
        if (set(key)) return {false, "disable_ipv6 is set on the interface"};
    }
    auto netlink = Netlink::open();
    if (!netlink || !netlink->rules(Addr::Family::kV6)) return {false, "the kernel has no IPv6 policy routing"};
    return {true, {}};
}

Router::Router(std::string tun_name, Netlink netlink) : tun_name_(std::move(tun_name)), netlink_(std::move(netlink)) {}

Result<std::unique_ptr<Router>> Router::start(const std::string& tun_name, const std::string& firewall_wish) {
    TRY_ASSIGN(Netlink netlink, Netlink::open());
    TRY_ASSIGN(const LinkInfo link, netlink.link(tun_name));
    static_cast<void>(link);
    std::unique_ptr<Router> router(new Router(tun_name, std::move(netlink)));
    const auto leftovers = remove_leftovers(router->netlink_, tun_name);
    if (!leftovers) log::info("router: cleaning up after an earlier run: {}", leftovers.error().message());

    if (auto tables = list_iptables_nft_tables()) {
        router->tables_before_ = std::move(*tables);
        router->tables_known_ = true;
    }
    RouterCapabilities& can = router->can_;
    router->firewall_ = choose_firewall(firewall_facts(firewall_wish));
    can.nft = router->firewall_.kind == FirewallKind::kNft;
    router->what_.iptables = router->firewall_.kind == FirewallKind::kIptables;
    router->what_.nft = can.nft;
    if (router->what_.iptables)
        if (const auto version = run_command({"iptables-save", "--version"}))
            router->legacy_tables_ = version->out.find("(nf_tables)") == std::string::npos;
    if (auto rules = router->netlink_.rules(Addr::Family::kV4)) {
        if (mwan3_steers(*rules)) can.rule_base = kMwan3RuleBase;
    } else {
        can.policy_routing = router->what_.policy_routing = false;
        log::info("router: running without policy routing: {}", rules.error().message());
    }
    TRY_ASSIGN(const HostState host, router->read_host());
    for (const std::string& text : router->problems_) log::info("router: {}", text);
    can.iptables = host.iptables.has_value();
    can.ip6tables = host.ip6tables.has_value();
    log::info("router: firewall by {}", can.nft ? "nftables" : can.iptables ? "iptables" : "nothing");
    const Ipv6Support v6 = detect_ipv6(tun_name);
    can.v6 = v6.usable;
    if (!v6.usable) log::info("router: disabling tunneled IPv6 due to system IPv6 config: {}", v6.reason);
    if (has_foreign_owner(host, tun_name)) {
        router->foreign_at_start_ = true;
        router->shared_rules_ = host.rules;
        router->shared_connmark_ = connmark_anywhere(host);
        log::info("router: another client is active on this host; sharing its ip rules, using chains named after {}",
                  tun_name);
    }
    router->config_.netfilter = NetfilterMode::kOff;
    if (const Status s = router->converge(nullptr); !s) log::info("router: {}", s.error().message());
    return router;
}

Router::~Router() { static_cast<void>(stop()); }

Result<HostState> Router::read_host() {
    problems_.clear();
    auto host = platform::read_host(netlink_, tun_name_, what_, problems_);
    if (config_.netfilter == NetfilterMode::kOff) problems_.clear();  // nobody asked for a firewall
    if (firewall_.kind == FirewallKind::kNone && config_.netfilter != NetfilterMode::kOff)
        problems_.emplace_back(
            "Neither iptables nor nft can be run on this host, so no firewall rules are set and subnet routes are not "
            "translated. Install nftables or iptables, or use --netfilter-mode=off.");
    if (!can_.policy_routing)
        problems_.emplace_back(
            "This kernel has no policy routing: routes go into the main table, and an exit node cannot be used.");
    problems_.insert(problems_.end(), other_firewalls_.begin(), other_firewalls_.end());
    return host;
}

void Router::note_other_firewalls() {
    other_firewalls_.clear();
    if (!config_.forwards || config_.netfilter != NetfilterMode::kOn) return;
    const auto chains = dropping_forward_chains(tun_name_);
    if (!chains) return;
    for (const std::string& chain : *chains)
        other_firewalls_.push_back(fmt::format(
            "The firewall chain \"{}\" drops forwarded packets unless a rule there accepts them, and has none for {}: subnet "
            "routing may not work. Allow the interface {} in that firewall.",
            chain, tun_name_, tun_name_));
}

Status Router::set(const RouterConfig& config) {
    if (stopped_) return fail(Code::kInvalid, "the router was stopped");
    const bool was_on = config_.netfilter == NetfilterMode::kOn;
    config_ = config;
    // Hooks are removed once when `on` ends; later ones are an administrator's own.
    drop_hooks_ = was_on && config.netfilter == NetfilterMode::kNoDivert;
    return converge(nullptr);
}

Result<size_t> Router::resync() {
    if (stopped_) return fail(Code::kInvalid, "the router was stopped");
    size_t operations = 0;
    TRY(converge(&operations));
    if (operations > 0) log::info("router: {} settings were restored after others changed them", operations);
    return operations;
}

Status Router::converge(size_t* operations) {
    note_other_firewalls();
    TRY_ASSIGN(HostState host, read_host());
    if (host.tun_index == 0) return fail(Code::kNotFound, "the interface " + tun_name_ + " is gone");
    can_.v6 = detect_ipv6(tun_name_).usable;  // an administrator may change it while we run
    config_.tun_name = tun_name_;
    WantedState wanted = wanted_state(config_, can_, host);
    wanted.own_addrs = own_addrs_;
    wanted.connmark = wanted.connmark || (wanted.foreign && shared_connmark_);
    if (drop_hooks_ && wanted.hooks == Hooks::kLeave) wanted.hooks = Hooks::kRemove;
    // With IPv6 switched off under our feet its rules may stay or go; what is not usable is not touched.
    auto todo = plan(host, wanted, tun_name_);
    if (operations != nullptr) *operations = todo.size();
    for (const Prefix& p : wanted.addrs)
        if (std::find(own_addrs_.begin(), own_addrs_.end(), p) == own_addrs_.end()) own_addrs_.push_back(p);

    Status done = execute(netlink_, host.tun_index, todo);
    if (!done) {
        // Others may have changed the same things in this moment: once more, by what is there now.
        TRY_ASSIGN(host, read_host());
        done = execute(netlink_, host.tun_index, plan(host, wanted, tun_name_));
    }
    if (wanted.connmark) set_src_valid_mark();
    if (!done) {
        problems_.push_back("router: " + done.error().message());
        return done;
    }
    drop_hooks_ = false;
    // Addresses that are no longer wanted are gone now.
    own_addrs_ = wanted.addrs;
    return {};
}

void Router::set_src_valid_mark() {
    const auto value = read_sysctl(kSrcValidMark);
    if (!value || *value != "0") return;
    if (const Status s = write_sysctl(kSrcValidMark, "1"); s)
        changed_src_valid_mark_ = true;
    else
        log::debug(1, "router: {}", s.error().message());
}

Status Router::stop() {
    if (stopped_) return {};
    stopped_ = true;
    TRY_ASSIGN(const HostState host, read_host());
    const bool foreign = has_foreign_owner(host, tun_name_);
    std::vector<IpRule> keep;
    if (foreign && foreign_at_start_) {
        keep = shared_rules_;
    } else if (foreign) {
        // It came later and found our rules there: they are its rules now.
        keep = host.rules;
    }
    WantedState nothing = nothing_wanted(host, tun_name_, std::move(keep),
                                         foreign && (shared_connmark_ || !foreign_at_start_) && connmark_anywhere(host));
    nothing.own_addrs = own_addrs_;
    Status done = execute(netlink_, host.tun_index, plan(host, nothing, tun_name_));
    if (tables_known_) {
        // Tables that a client brought which has left meanwhile are nobody's now.
        const bool orphans = foreign_at_start_ && !foreign;
        const Status tables = orphans ? delete_tables_we_used(host) : delete_new_empty_tables(tables_before_);
        if (done) done = tables;
    }
    const bool restore_mark = changed_src_valid_mark_ && (!foreign || foreign_at_start_);
    if (restore_mark && read_sysctl(kSrcValidMark) == "1") {
        const Status mark = write_sysctl(kSrcValidMark, "0");
        if (done) done = mark;
    }
    return done;
}

}  // namespace mesh::platform
