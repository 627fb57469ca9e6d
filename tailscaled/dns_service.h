// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// DNS of this node as one piece of the control loop: gives the packet loop its names, forwards what is not ours, and
/// keeps the host's resolver as the control server wants it, until take_down().

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "platform/linux/host_dns.h"
#include "tailscaled/dns_forwarder.h"
#include "tailscaled/dns_plan.h"
#include "tailscaled/dns_tcp.h"
#include "tailscaled/engine.h"

namespace mesh::daemon {

class DnsService {
   public:
    static constexpr Duration kPatience = seconds(2);
    struct Options {
        std::string tun_name;
        bool userspace = false;  ///< nothing comes by a TUN, and the host keeps its resolver
        std::string etc = "/etc";
        /// health() may have changed, or the host's own servers have: apply() again.
        std::function<void()> on_change;
    };
    /// All must outlive the service. `resolver`: the daemon's own look-ups, which follow the host's own servers.
    DnsService(platform::Loop& loop, platform::Resolver& resolver, platform::Dialer& dialer, platform::HttpClient& http, Random& random,
               Engine& engine, Options options);
    ~DnsService();  ///< take_down()

    struct Wanted {
        const netmap::NetMap* map = nullptr;
        const api::Prefs* prefs = nullptr;
        netmap::NodePtr exit_node;
        DnsForwarder::InTunnel in_tunnel;
        bool v6 = true;
    };
    void apply(const Wanted& wanted);
    /// For a peer that uses this node as exit node: it hears what this host would hear; names of the tailnet it knows itself.
    void answer_peer(ByteSpan query, DnsForwarder::Done done);
    /// No names, nothing forwarded, the host's resolver as it was.
    void take_down();
    /// The host's own servers may have changed: the daemon's own look-ups follow.
    void follow_host();
    /// Every half minute, and when the network changed.
    void look();
    /// `done` when the host's resolver is as last told: at once if nothing is under way, after kPatience in any case.
    void when_settled(std::function<void()> done);
    [[nodiscard]] bool settled() const { return !host_ || (host_->state() != nullptr && host_->settled()); }

    /// Addresses of a name of the tailnet, as people spell it; empty: not one.
    [[nodiscard]] std::vector<Addr> known(const std::string& host) const;

    /// From the packet loop.
    void on_query(const DnsClient& client, const Bytes& query);
    struct Answer {
        Bytes message;
        std::vector<std::string> resolvers;  ///< servers that would be, or were, asked
    };
    /// For people (local API): by names first, then by forwarding.
    void ask(const std::string& name, uint16_t type, std::function<void(Result<Answer>)> done);
    /// What the host uses, or would use without us.
    [[nodiscard]] platform::ResolverConfig host_config() const;
    [[nodiscard]] std::vector<std::string> health() const;

   private:
    void answer(ByteSpan query, DnsForwarder::Client client, DnsForwarder::Done done);
    void set_host(const platform::OsDnsConfig& config);
    void on_host_change();
    void tell_waiters();

    platform::Loop& loop_;
    platform::Resolver& resolver_;
    Engine& engine_;
    Options options_;
    std::shared_ptr<const dns::NameTable> names_;
    DnsForwarder forwarder_;
    std::unique_ptr<DnsTcp> tcp_;
    DnsForwarder peers_forwarder_;  ///< its own: peers that ask a lot leave this host's names alone
    std::vector<std::string> peers_refused_;
    std::unique_ptr<platform::HostDns> host_;  ///< only while the host's resolver is changed
    platform::OsDnsConfig os_;                 ///< as it was told
    std::vector<std::function<void()>> waiters_;
    platform::Timer patience_;
    std::vector<std::string> notes_;
    bool foreign_ = false;  ///< another client keeps this host's resolver
};

/// Another living client on this host owns 100.100.100.100: its resolv.conf is not ours to touch.
[[nodiscard]] bool foreign_dns_owner(const std::string& tun_name);

}  // namespace mesh::daemon
