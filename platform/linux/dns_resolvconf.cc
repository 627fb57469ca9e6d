// SPDX-License-Identifier: BSD-3-Clause
// resolvconf in its two forms, by their command line (resolvconf(8) of each).

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <sstream>

#include "platform/file.h"
#include "platform/linux/dns_manager.h"
#include "platform/linux/run_command.h"

namespace mesh::platform {
namespace {

constexpr const char* kDebianRecord = "tun-tailscale.inet";
constexpr const char* kOpenRecord = "tailscale";
constexpr const char* kDebianFolder = "/run/resolvconf/interface/";
/// Where openresolv keeps its records, up to and from version 3.13.
constexpr const char* kOpenFolders[] = {"/run/resolvconf/interfaces/", "/run/resolvconf/keys/"};
constexpr Duration kLimit = seconds(5);

/// Debian's resolvconf mixes all records. This hook of its own interface lets ours stand alone: other servers do not know
/// our names, and some C libraries ask all at once and take the first answer.
constexpr std::string_view kHook =
    "#!/bin/sh\n"
    "# Written by tailscaled, removed when it stops: while its record exists, resolv.conf says only that.\n"
    "record=/run/resolvconf/interface/tun-tailscale.inet\n"
    "conf=/run/resolvconf/resolv.conf\n"
    "[ -f \"$record\" ] || exit 0\n"
    "{ cat /etc/resolvconf/resolv.conf.d/head 2>/dev/null; cat \"$record\"; } >\"$conf.tailscale\" && mv \"$conf.tailscale\" \"$conf\"\n";

std::string hook_path(const std::string& etc) { return etc + "/resolvconf/update-libc.d/tailscale"; }

Status run(const std::vector<std::string>& argv, std::string_view input = {}) {
    TRY_ASSIGN(const CommandOutput done, run_command(argv, input, kLimit));
    if (done.exit_code == 0) return {};
    return fail(Code::kUnavailable, fmt::format("{} ended with {}: {}", fmt::join(argv, " "), done.exit_code, done.err.substr(0, 200)));
}

class ResolvconfDns final : public DnsManager {
   public:
    ResolvconfDns(ResolvconfKind kind, std::string etc) : kind_(kind), etc_(std::move(etc)), base_(read_base()) {}
    ~ResolvconfDns() override {
        if (set_) static_cast<void>(set({}));
    }

    Status set(const OsDnsConfig& config) override {
        const Status s = config.is_empty() ? cleanup_resolvconf(etc_) : add(config);
        set_ = !config.is_empty();
        error_ = s ? "" : s.error().message();
        return s;
    }
    [[nodiscard]] ResolverConfig base() const override { return base_; }
    [[nodiscard]] DnsMode mode() const override {
        return kind_ == ResolvconfKind::kDebian ? DnsMode::kDebianResolvconf : DnsMode::kOpenresolv;
    }
    [[nodiscard]] std::vector<std::string> problems() const override {
        if (error_.empty()) return {};
        return {"The DNS settings of this host could not be changed (" + error_ + "). Names of the tailnet are answered at 100.100.100.100."};
    }
    void look() override { base_ = read_base(); }

   private:
    Status add(const OsDnsConfig& config) {
        base_ = read_base();
        const std::string text = resolv_conf_lines(config);
        if (kind_ == ResolvconfKind::kOpen) return run({"resolvconf", "-m", "0", "-x", "-a", kOpenRecord}, text);
        TRY(make_folders(etc_ + "/resolvconf/update-libc.d", 0755));
        TRY(replace_file(hook_path(etc_), kHook, 0755));
        return run({"resolvconf", "-a", kDebianRecord}, text);
    }
    /// All records but ours, in resolvconf's own order where it tells one.
    [[nodiscard]] ResolverConfig read_base() const {
        std::vector<std::string> names;
        std::string folder = kDebianFolder;
        if (kind_ == ResolvconfKind::kDebian) {
            if (const auto listed = run_command({"/lib/resolvconf/list-records"}, {}, kLimit); listed && listed->exit_code == 0) {
                std::istringstream lines(listed->out);
                for (std::string line; std::getline(lines, line);) names.push_back(line);
            }
        } else {
            // Not "resolvconf -l": while our record is exclusive it shows nothing else.
            for (const char* f : kOpenFolders) {
                std::error_code missing;
                for (const auto& e : std::filesystem::directory_iterator(f, missing)) names.push_back(e.path().filename());
                if (!missing) folder = f;
            }
            std::sort(names.begin(), names.end());
        }
        std::string text;
        for (const std::string& name : names) {
            if (name.empty() || name == kDebianRecord || name == kOpenRecord || name.find('/') != std::string::npos) continue;
            if (const auto record = read_file(folder + name, size_t{1} << 16)) text += *record + "\n";
        }
        ResolverConfig out = parse_resolv_conf(text);
        if (out.servers.empty()) out = system_resolver_config(etc_);
        out.hosts_path = etc_ + "/hosts";
        return out;
    }

    ResolvconfKind kind_;
    std::string etc_;
    ResolverConfig base_;
    std::string error_;
    bool set_ = false;
};

}  // namespace

ResolvconfKind find_resolvconf() {
    if (find_program("resolvconf").empty()) return ResolvconfKind::kNone;
    // openresolv has -v and says its variables; Debian's knows --version only in newer editions and fails on -v.
    const auto version = run_command({"resolvconf", "--version"}, {}, kLimit);
    if (version && (version->out + version->err).find("openresolv") != std::string::npos) return ResolvconfKind::kOpen;
    return ResolvconfKind::kDebian;
}

Status cleanup_resolvconf(const std::string& etc) {
    struct stat st{};
    const bool hook = ::lstat(hook_path(etc).c_str(), &st) == 0;
    const bool debian = ::lstat((std::string(kDebianFolder) + kDebianRecord).c_str(), &st) == 0;
    Status first;
    if (hook && ::unlink(hook_path(etc).c_str()) != 0 && errno != ENOENT) first = fail_errno("remove " + hook_path(etc), errno);
    if (hook || debian) {
        // Also when only the hook was left: resolv.conf may still say what it wrote.
        const Status s = run({"resolvconf", "-d", kDebianRecord});
        if (!s && first) first = s;
        if (!debian) static_cast<void>(run({"resolvconf", "-u"}));
        return first;
    }
    for (const char* folder : kOpenFolders)
        if (::lstat((std::string(folder) + kOpenRecord).c_str(), &st) == 0) return run({"resolvconf", "-f", "-d", kOpenRecord});
    return first;
}

std::unique_ptr<DnsManager> make_resolvconf_dns(ResolvconfKind kind, const DnsManagerOptions& options) {
    return std::make_unique<ResolvconfDns>(kind, options.etc);
}

}  // namespace mesh::platform
