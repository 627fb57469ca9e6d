// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The daemon's own look-ups of names (control server, DERP): c-ares on the loop, with marked sockets, to the servers the
/// host had before we touched its DNS. Never to our own 100.100.100.100 or fd7a:115c:a1e0::53.

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "platform/loop/loop.h"
#include "platform/net/socket_mark.h"

namespace mesh::platform {

struct ResolverConfig {
    std::vector<Endpoint> servers;  ///< port 0 = 53. Empty: 127.0.0.1.
    std::vector<std::string> search;
    int ndots = 1;
    std::string hosts_path = "/etc/hosts";
    Protect protect = Protect::kYes;
};
/// Parses resolv.conf(5) text; our own service addresses are left out.
[[nodiscard]] ResolverConfig parse_resolv_conf(std::string_view text);
/// `etc`/resolv.conf; if that one is ours, `etc`/resolv.pre-tailscale-backup.conf. If it names only a local stub
/// (127.0.0.53), the upstreams systemd-resolved knows are added behind it.
[[nodiscard]] ResolverConfig system_resolver_config(const std::string& etc = "/etc");

class Resolver {
   public:
    enum class Want : uint8_t { kBoth, kV4, kV6 };
    struct Options {
        Want want = Want::kBoth;
        Duration timeout = seconds(8);
    };
    /// Addresses: at least one, IPv6 and IPv4 each in the server's order, IPv6 first.
    using Callback = std::function<void(Result<std::vector<Addr>>)>;
    /// A look-up under way. Destruction cancels: the callback will not run.
    class Lookup {
       public:
        virtual ~Lookup() = default;
    };

    Resolver(Loop& loop, ResolverConfig config);
    ~Resolver();  ///< look-ups still under way never call back
    Resolver(const Resolver&) = delete;
    Resolver& operator=(const Resolver&) = delete;

    /// After a change of the host's network. Look-ups under way end with an error.
    void set_config(ResolverConfig config);
    [[nodiscard]] const ResolverConfig& config() const;
    /// Literals and /etc/hosts need no server. The callback always comes in a later turn.
    [[nodiscard]] std::unique_ptr<Lookup> resolve(std::string_view host, const Options& options, Callback callback);

   private:
    friend struct ResolverQuery;
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace mesh::platform
