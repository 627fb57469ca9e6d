// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// How this host's own resolver is to be changed, as values: who manages it, what /etc/resolv.conf shall say, which file
/// operations lead there and back. Pure; platform/linux/dns_manager.h reads and executes.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/time.h"

namespace mesh::platform {

/// What the host shall use. Without nameservers: what it had before us.
struct OsDnsConfig {
    std::vector<Addr> nameservers;
    std::vector<std::string> search;  ///< without final dots
    /// Only names inside these come to our nameservers; empty: all. For managers that can split.
    std::vector<std::string> match;
    [[nodiscard]] bool is_empty() const { return nameservers.empty(); }
    bool operator==(const OsDnsConfig&) const = default;
};

enum class DnsMode : uint8_t { kDirect, kResolved, kDebianResolvconf, kOpenresolv };
[[nodiscard]] std::string_view dns_mode_name(DnsMode mode);  ///< "direct", "systemd-resolved", …

enum class ResolvconfKind : uint8_t { kNone, kDebian, kOpen };

/// What decides who manages the host's resolver.
struct DnsHostFacts {
    std::optional<std::string> resolv_conf = {};  ///< /etc/resolv.conf, nullopt if missing
    std::string nsswitch = {};               ///< /etc/nsswitch.conf
    bool resolved_answers = false;           ///< org.freedesktop.resolve1 is on the bus (or can be started)
    bool nm_running = false;                 ///< org.freedesktop.NetworkManager is on the bus
    bool nm_uses_resolved = false;
    ResolvconfKind resolvconf = ResolvconfKind::kNone;
};
struct DnsChoice {
    DnsMode mode = DnsMode::kDirect;
    std::string trace;    ///< for the log: "rc=resolved nss=yes nm=no"
    std::string problem;  ///< for people; ""
};
/// By who wrote resolv.conf, checked against what really runs.
[[nodiscard]] DnsChoice choose_dns_mode(const DnsHostFacts& facts);

/// A file of this kind of client, ours or the original's.
[[nodiscard]] bool is_our_resolv_conf(std::string_view text);
/// Its nameserver and search lines.
[[nodiscard]] std::string resolv_conf_lines(const OsDnsConfig& config);
/// Whole text of a resolv.conf(5). `base`: the host's own one, whose options stay in force.
[[nodiscard]] std::string resolv_conf_text(const OsDnsConfig& config, std::string_view base);

/// /etc as far as it concerns us.
struct ResolvFiles {
    enum class Kind : uint8_t { kMissing, kOurs, kForeign };
    Kind conf = Kind::kMissing;
    std::string text;     ///< of /etc/resolv.conf
    bool backup = false;  ///< resolv.pre-tailscale-backup.conf exists
};
enum class FileOp : uint8_t {
    kKeepBackup,  ///< the present file becomes the backup too (a second name for it: it is never away)
    kWrite,       ///< our file takes its place in one step
    kRestore,     ///< the backup takes the place of whatever is there, in one step
    kRemove,      ///< ours goes; there was none before
    kDropBackup,  ///< somebody else's file is the truth now
};
/// From what is there to `wanted` (nullopt: the host's own). Every prefix of it leaves a state from which plan(…, nullopt)
/// leads back.
[[nodiscard]] std::vector<FileOp> plan_resolv_files(const ResolvFiles& now, const std::optional<std::string>& wanted);

/// Somebody else writes resolv.conf too: answer, but not for ever. After kMaxRounds within the quiet time it rests, longer
/// each time.
class FightGuard {
   public:
    static constexpr int kMaxRounds = 9;
    static constexpr Duration kQuiet = seconds(5);
    static constexpr Duration kFirstRest = minutes(1), kLongestRest = minutes(60);
    /// True: write again. False: rest until next_try().
    [[nodiscard]] bool overwritten(Time now);
    [[nodiscard]] bool resting(Time now) const { return now < next_try_; }
    [[nodiscard]] Time next_try() const { return next_try_; }
    [[nodiscard]] bool fought() const { return rounds_ > 0; }
    /// Seconds of peace forget the fight.
    void calm(Time now);

   private:
    int rounds_ = 0;
    Time last_;
    Time next_try_;
    Duration rest_ = kFirstRest;
};

}  // namespace mesh::platform
