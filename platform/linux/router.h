// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Executes router plans: reads what the kernel really has, plans (platform/linux/router_plan.h), does it.
/// Lives on the control loop; calls block for some milliseconds (netlink, one iptables-restore per family and change).
///
/// Only the process that owns the daemon's socket may use this: the names are shared with the original client.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "platform/linux/firewall_choice.h"
#include "platform/linux/netlink.h"
#include "platform/linux/nft_tables.h"
#include "platform/linux/router_host.h"
#include "platform/linux/router_plan.h"

namespace mesh::platform {

/// Is IPv6 usable inside the tunnel? `tun_name` empty: the host in general. False with a reason for people.
struct Ipv6Support {
    bool usable = false;
    std::string reason;  ///< "disable_ipv6 is set" ...; empty if usable
};
[[nodiscard]] Ipv6Support detect_ipv6(const std::string& tun_name);

class Router {
   public:
    /// The TUN must exist. Removes what a crashed run left (never a living foreigner's), then installs the ip rules and
    /// sets the link up: the state of NeedsLogin.
    /// `firewall_wish`: TS_DEBUG_FIREWALL_MODE.
    [[nodiscard]] static Result<std::unique_ptr<Router>> start(const std::string& tun_name, const std::string& firewall_wish = "");
    /// stop(), unless that was done.
    ~Router();
    Router(const Router&) = delete;
    Router& operator=(const Router&) = delete;

    /// Makes the host as `config` says. Goes on after a failing operation and returns the first error: half a router is
    /// better than none. `config.tun_name` is ignored. `down` is a config without addresses and with kOff.
    Status set(const RouterConfig& config);
    /// The same wanted state against what the kernel has now: for link changes, deleted rules, flushed firewalls.
    /// Returns how many operations it took.
    Result<size_t> resync();
    /// Everything as before start(): rules, routes, addresses, chains, src_valid_mark, empty tables that came with
    /// our chains.
    Status stop();

    [[nodiscard]] const RouterCapabilities& capabilities() const { return can_; }
    /// As Hostinfo tells it: "ipt-default", "nft-noipt" ...; empty: none.
    [[nodiscard]] const std::string& firewall_mode() const { return firewall_.mode; }
    /// The firewall is iptables-legacy, whose changes nobody announces.
    [[nodiscard]] bool uses_legacy_tables() const { return legacy_tables_; }
    /// Sentences for `status` (health); empty if all is well.
    [[nodiscard]] const std::vector<std::string>& problems() const { return problems_; }

   private:
    Router(std::string tun_name, Netlink netlink);
    Result<HostState> read_host();
    Status converge(size_t* operations);
    void set_src_valid_mark();
    void note_other_firewalls();

    std::string tun_name_;
    FirewallChoice firewall_;
    HostRead what_;
    bool legacy_tables_ = false;
    Netlink netlink_;
    RouterCapabilities can_;
    RouterConfig config_;
    std::vector<Prefix> own_addrs_;      ///< that we put on the TUN
    bool drop_hooks_ = false;            ///< `on` became `nodivert`
    bool foreign_at_start_ = false;
    std::vector<IpRule> shared_rules_;   ///< were there at start and belong to a living foreigner
    bool shared_connmark_ = false;
    std::vector<NftTable> tables_before_;
    bool tables_known_ = false;
    bool changed_src_valid_mark_ = false;
    std::vector<std::string> problems_;
    std::vector<std::string> other_firewalls_;
    bool stopped_ = false;
};

/// `tailscaled --cleanup`, and after a crash: removes ip rules (all duplicates), routes and stale addresses of the TUN,
/// ts-* chains with their hooks and the connmark rules, of iptables and, where the binary exists, of nft. Leaves a living
/// foreigner's alone. Call it only while owning the daemon's socket. Goes on after errors, returns the first.
Status cleanup(const std::string& tun_name);

}  // namespace mesh::platform
