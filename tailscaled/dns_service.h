// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// DNS of this node as one piece of the control loop: gives the packet loop its names, forwards what is not ours, and
/// keeps the host's resolver as the control server wants it, until take_down().

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "platform/linux/dns_manager.h"
#include "tailscaled/dns_forwarder.h"
#include "tailscaled/dns_plan.h"
#include "tailscaled/dns_tcp.h"
#include "tailscaled/engine.h"

namespace mesh::daemon {

class DnsService {
   public:
    struct Options {
        std::string tun_name;
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
    /// No names, nothing forwarded, the host's resolver as it was.
    void take_down();
    /// The host's own servers may have changed: the daemon's own look-ups follow.
    void follow_host();
    /// Every half minute.
    void look();

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

    platform::Loop& loop_;
    platform::Resolver& resolver_;
    Engine& engine_;
    Options options_;
    std::shared_ptr<const dns::NameTable> names_;
    DnsForwarder forwarder_;
    std::unique_ptr<DnsTcp> tcp_;
    std::unique_ptr<platform::DnsManager> manager_;  ///< only while the host's resolver is changed
    platform::OsDnsConfig os_;
    std::vector<std::string> notes_;
    bool foreign_ = false;  ///< another client keeps this host's resolver
};

/// Another living client on this host owns 100.100.100.100: its resolv.conf is not ours to touch.
[[nodiscard]] bool foreign_dns_owner(const std::string& tun_name);

}  // namespace mesh::daemon
