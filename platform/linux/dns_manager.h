// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Changes the resolver of this host and puts it back: /etc/resolv.conf itself, systemd-resolved over D-Bus, or
/// resolvconf in both its forms. Calls block for some milliseconds (a file, a program, a bus call), and seconds if the one
/// called hangs: the daemon keeps its manager on a thread of its own (host_dns.h).

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "platform/linux/dns_plan.h"
#include "platform/loop/loop.h"
#include "platform/net/resolver.h"

namespace mesh::platform {

class DnsManager {
   public:
    virtual ~DnsManager() = default;
    /// Makes the host use `config`; an empty one gives it back its own. Errors are also among problems().
    virtual Status set(const OsDnsConfig& config) = 0;
    /// What the host uses, or would use without us.
    [[nodiscard]] virtual ResolverConfig base() const = 0;
    /// Are only names of OsDnsConfig::match sent to our nameservers?
    [[nodiscard]] virtual bool can_split() const { return false; }
    [[nodiscard]] virtual DnsMode mode() const = 0;
    /// Sentences for `status`.
    [[nodiscard]] virtual std::vector<std::string> problems() const { return {}; }
    /// Now and then (30 s): what no event tells.
    virtual void look() {}
};

struct DnsManagerOptions {
    std::string etc = "/etc";
    std::string tun_name;
    int tun_index = 0;
    /// base() or problems() changed by somebody else's doing. Comes in a turn of its own; may destroy the manager.
    std::function<void()> on_change;
};
/// Finds out who manages the resolver here and takes the manager for it. Changes nothing yet.
[[nodiscard]] std::unique_ptr<DnsManager> open_dns_manager(Loop& loop, DnsManagerOptions options);

/// What a run that was killed has left: our resolv.conf, our entry in resolvconf. Whatever was not ours stays. Call it only
/// while owning the daemon's socket. Goes on after errors, returns the first.
Status cleanup_dns(const std::string& etc = "/etc");

// ---- the parts

/// resolv.conf and its backup on disk.
class ResolvFile {
   public:
    explicit ResolvFile(std::string etc) : etc_(std::move(etc)) {}
    [[nodiscard]] std::string path() const { return etc_ + "/resolv.conf"; }
    [[nodiscard]] std::string backup_path() const { return etc_ + "/resolv.pre-tailscale-backup.conf"; }
    [[nodiscard]] ResolvFiles read() const;
    /// nullopt: the host's own again.
    Status apply(const std::optional<std::string>& wanted);
    /// Text of the host's own file.
    [[nodiscard]] std::string base_text() const;

   private:
    Status execute(FileOp op, const std::string& text);
    std::string etc_;
};

[[nodiscard]] std::unique_ptr<DnsManager> make_direct_dns(Loop& loop, const DnsManagerOptions& options);
[[nodiscard]] std::unique_ptr<DnsManager> make_resolvconf_dns(ResolvconfKind kind, const DnsManagerOptions& options);
[[nodiscard]] std::unique_ptr<DnsManager> make_resolved_dns(Loop& loop, const DnsManagerOptions& options);

/// Which resolvconf is installed?
[[nodiscard]] ResolvconfKind find_resolvconf();
/// Takes our entry out of resolvconf; nothing to do is no error.
Status cleanup_resolvconf(const std::string& etc);
/// Fills the parts of `facts` that are asked over D-Bus.
void ask_bus(DnsHostFacts& facts);

}  // namespace mesh::platform
