// SPDX-License-Identifier: BSD-3-Clause
// systemd-resolved: our nameservers and domains belong to the tunnel's link (org.freedesktop.resolve1(5)). They vanish with
// the link, so a killed run leaves nothing.

#include <sys/socket.h>

#include <algorithm>

#include "base/log.h"
#include "platform/linux/dns_manager.h"
#include "platform/linux/system_bus.h"

namespace mesh::platform {
namespace {

constexpr BusTarget kResolved{"org.freedesktop.resolve1", "/org/freedesktop/resolve1", "org.freedesktop.resolve1.Manager"};
constexpr BusTarget kResolvedPeer{"org.freedesktop.resolve1", "/org/freedesktop/resolve1", "org.freedesktop.DBus.Peer"};
constexpr BusTarget kNmDns{"org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager/DnsManager",
                           "org.freedesktop.NetworkManager.DnsManager"};

constexpr Duration kPatience = seconds(1);  // for all calls of one change together

class ResolvedDns final : public DnsManager {
   public:
    ResolvedDns(Loop& loop, const DnsManagerOptions& options)
        : loop_(loop), etc_(options.etc), link_(options.tun_index), on_change_(options.on_change) {}
    ~ResolvedDns() override { static_cast<void>(set({})); }

    Status set(const OsDnsConfig& config) override {
        config_ = config;
        const Status s = apply();
        error_ = s ? "" : s.error().message();
        return s;
    }
    /// The servers behind its stub: asked through the stub, a name could come to us and back.
    [[nodiscard]] ResolverConfig base() const override {
        ResolverConfig out = system_resolver_config(etc_);
        std::vector<Endpoint> behind = out.servers;
        std::erase_if(behind, [](const Endpoint& e) { return e.addr.is_loopback(); });
        if (!behind.empty()) out.servers = std::move(behind);
        return out;
    }
    [[nodiscard]] bool can_split() const override { return true; }
    [[nodiscard]] DnsMode mode() const override { return DnsMode::kResolved; }
    [[nodiscard]] std::vector<std::string> problems() const override {
        if (error_.empty()) return {};
        return {"systemd-resolved could not be told the DNS settings (" + error_ + "). Names of the tailnet are answered at 100.100.100.100."};
    }
    void look() override {
        if (!error_.empty()) static_cast<void>(set(config_));
    }

   private:
    Status apply() {
        const BusArg link = BusArg::integer(link_);
        if (config_.is_empty()) {
            if (!told_) return {};
            if (!bus_) {
                TRY_ASSIGN(bus_, SystemBus::open());
            }
            bus_->limit(kPatience);
            const Status s = bus_->call(kResolved, "RevertLink", {link});
            bus_.reset();
            told_ = !s;
            return s;
        }
        if (!bus_) {
            TRY_ASSIGN(bus_, SystemBus::open());
            // A resolved that was restarted knows nothing of us.
            const Status watching = bus_->watch_owner(loop_, kResolved.service, [this, alive = std::weak_ptr<bool>(alive_)] {
                if (alive.expired() || config_.is_empty()) return;
                log::info("dns: systemd-resolved was restarted; telling it our settings again");
                static_cast<void>(set(config_));
                if (on_change_) on_change_();
            });
            if (!watching) log::info("dns: {}; a restart of systemd-resolved will be noticed late", watching.error().message());
        }
        bus_->limit(kPatience);
        told_ = true;
        std::vector<std::pair<int32_t, std::vector<uint8_t>>> servers;
        for (const Addr& a : config_.nameservers) servers.emplace_back(a.is_v4() ? AF_INET : AF_INET6, to_bytes(a.bytes()));
        TRY(bus_->call(kResolved, "SetLinkDNS", {link, BusArg::address_list(std::move(servers))}));
        std::vector<std::pair<std::string, bool>> domains;  // true: only for routing, not for searching
        for (const std::string& d : config_.search) domains.emplace_back(d, false);
        for (const std::string& d : config_.match)
            if (std::find(config_.search.begin(), config_.search.end(), d) == config_.search.end()) domains.emplace_back(d, true);
        if (config_.match.empty()) domains.emplace_back(".", true);
        if (const Status s = bus_->call(kResolved, "SetLinkDomains", {link, BusArg::domain_list(domains)}); !s) {
            // Old editions take fewer domains than the reverse zones need.
            std::erase_if(domains, [](const auto& d) { return d.first.ends_with(".arpa"); });
            TRY(bus_->call(kResolved, "SetLinkDomains", {link, BusArg::domain_list(domains)}));
        }
        // The rest is good to have, and missing in old editions.
        static_cast<void>(bus_->call(kResolved, "SetLinkDefaultRoute", {link, BusArg::boolean(config_.match.empty())}));
        for (const char* off : {"SetLinkLLMNR", "SetLinkMulticastDNS", "SetLinkDNSSEC", "SetLinkDNSOverTLS"})
            static_cast<void>(bus_->call(kResolved, off, {link, BusArg::string("no")}));
        static_cast<void>(bus_->call(kResolved, "FlushCaches", {}));
        return {};
    }

    Loop& loop_;
    std::string etc_;
    int link_;
    std::function<void()> on_change_;
    OsDnsConfig config_;
    std::string error_;
    bool told_ = false;  ///< resolved may have settings of ours
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
    std::unique_ptr<SystemBus> bus_;
};

}  // namespace

void ask_bus(DnsHostFacts& facts) {
    const auto bus = SystemBus::open();
    if (!bus) return;
    (*bus)->limit(kPatience);
    facts.resolved_answers = (*bus)->call(kResolvedPeer, "Ping", {}).has_value();  // starts it if need be
    facts.nm_running = (*bus)->has_owner(kNmDns.service);
    if (facts.nm_running) facts.nm_uses_resolved = (*bus)->string_property(kNmDns, "Mode").value_or("") == "systemd-resolved";
}

std::unique_ptr<DnsManager> make_resolved_dns(Loop& loop, const DnsManagerOptions& options) {
    return std::make_unique<ResolvedDns>(loop, options);
}

}  // namespace mesh::platform
