// SPDX-License-Identifier: BSD-3-Clause
// /etc/resolv.conf itself. At every instant there is a whole file of that name: the host's own one gets a second name as
// backup, ours takes its place by one rename, and one rename brings the other back.

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "base/log.h"
#include "platform/fd.h"
#include "platform/file.h"
#include "platform/linux/dns_manager.h"

namespace mesh::platform {
namespace {

constexpr size_t kMaxFileBytes = size_t{1} << 20;
constexpr unsigned kMode = 0644;

/// Where rename is refused (a file mounted into a container): the same bytes into the same file, the shorter way never
/// empty in between.
Status overwrite(const std::string& path, const std::string& text) {
    const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, kMode));
    if (!fd.valid()) return fail_errno("write " + path, errno);
    for (size_t done = 0; done < text.size();) {
        const ssize_t n = ::pwrite(fd.get(), text.data() + done, text.size() - done, static_cast<off_t>(done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return fail_errno("write " + path, errno);
        done += static_cast<size_t>(n);
    }
    if (::ftruncate(fd.get(), static_cast<off_t>(text.size())) != 0 || ::fsync(fd.get()) != 0) return fail_errno("write " + path, errno);
    return {};
}

bool cannot_rename(const Status& s) { return !s && (s.error().sys_errno == EBUSY || s.error().sys_errno == EXDEV); }

class DirectDns final : public DnsManager {
   public:
    DirectDns(Loop& loop, const DnsManagerOptions& options)
        : loop_(loop), file_(options.etc), etc_(options.etc), on_change_(options.on_change), retry_(loop, [this] { look(); }) {}

    ~DirectDns() override { static_cast<void>(set({})); }

    Status set(const OsDnsConfig& config) override {
        if (config.is_empty() && config_.is_empty()) return {};
        config_ = config;
        retry_.cancel();
        if (config.is_empty()) {
            watch_.reset();
            fd_.reset();
            error_.clear();
            guard_ = {};
            return file_.apply(std::nullopt);
        }
        watch();
        return write();
    }
    [[nodiscard]] ResolverConfig base() const override { return system_resolver_config(etc_); }
    [[nodiscard]] DnsMode mode() const override { return DnsMode::kDirect; }
    [[nodiscard]] std::vector<std::string> problems() const override {
        std::vector<std::string> out;
        if (!error_.empty()) out.push_back("The DNS settings of this host could not be changed (" + error_ + "). Names of the tailnet are answered at 100.100.100.100.");
        if (guard_.fought())
            out.push_back("System DNS config not ideal. " + file_.path() + " overwritten. See https://tailscale.com/s/dns-fight");
        return out;
    }
    void look() override {
        if (config_.is_empty()) return;
        const bool fought = guard_.fought();
        guard_.calm(loop_.now());
        check();
        if (fought != guard_.fought() && on_change_) loop_.post(on_change_);
    }

   private:
    Status write() {
        const Status s = file_.apply(resolv_conf_text(config_, file_.base_text()));
        error_ = s ? "" : s.error().message();
        return s;
    }
    /// Did somebody put another file there?
    void check() {
        if (config_.is_empty() || !error_.empty()) {
            if (!config_.is_empty() && write() && on_change_) loop_.post(on_change_);
            return;
        }
        const ResolvFiles now = file_.read();
        if (now.conf == ResolvFiles::Kind::kOurs && now.text == resolv_conf_text(config_, file_.base_text())) return;
        if (!guard_.overwritten(loop_.now())) {
            if (!retry_.armed()) {
                log::info("dns: {} is written by others again and again; leaving it alone for a while", file_.path());
                retry_.set(guard_.next_try());
            }
        } else {
            log::info("dns: {} was overwritten by another program; what it says is asked for other names from now on", file_.path());
            static_cast<void>(write());
        }
        if (on_change_) loop_.post(on_change_);
    }
    void watch() {
        if (watch_) return;
        fd_ = UniqueFd(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
        if (!fd_.valid() || ::inotify_add_watch(fd_.get(), etc_.c_str(), IN_MOVED_TO | IN_MOVED_FROM | IN_CLOSE_WRITE | IN_DELETE | IN_CREATE) < 0) {
            fd_.reset();
            return;  // look() comes every half minute all the same
        }
        watch_ = std::make_unique<FdPoll>(loop_, fd_.get(), [this](FdPoll::Events) { on_inotify(); });
        watch_->set_interest(true, false);
    }
    void on_inotify() {
        alignas(inotify_event) char buffer[4096];
        bool ours = false;
        ssize_t n = 0;
        while ((n = ::read(fd_.get(), buffer, sizeof buffer)) > 0)
            for (ssize_t at = 0; at < n;) {
                const auto* e = reinterpret_cast<const inotify_event*>(buffer + at);
                ours = ours || (e->len > 0 && std::string_view(e->name) == "resolv.conf");
                at += static_cast<ssize_t>(sizeof(inotify_event) + e->len);
            }
        if (ours) check();
    }

    Loop& loop_;
    ResolvFile file_;
    std::string etc_;
    std::function<void()> on_change_;
    OsDnsConfig config_;
    std::string error_;
    FightGuard guard_;
    UniqueFd fd_;
    std::unique_ptr<FdPoll> watch_;
    Timer retry_;
};

}  // namespace

ResolvFiles ResolvFile::read() const {
    ResolvFiles out;
    struct stat st{};
    out.backup = ::lstat(backup_path().c_str(), &st) == 0;
    if (::lstat(path().c_str(), &st) != 0) return out;
    const auto text = read_file(path(), kMaxFileBytes);
    if (text) out.text = *text;
    // A link is never ours, whatever it leads to: the original's file of another namespace, for one.
    out.conf = S_ISREG(st.st_mode) && is_our_resolv_conf(out.text) ? ResolvFiles::Kind::kOurs : ResolvFiles::Kind::kForeign;
    return out;
}

std::string ResolvFile::base_text() const {
    const ResolvFiles now = read();
    if (now.conf == ResolvFiles::Kind::kForeign) return now.text;
    const auto text = read_file(backup_path(), kMaxFileBytes);
    return text ? *text : "";
}

Status ResolvFile::apply(const std::optional<std::string>& wanted) {
    for (const FileOp op : plan_resolv_files(read(), wanted)) TRY(execute(op, wanted.value_or("")));
    return {};
}

Status ResolvFile::execute(FileOp op, const std::string& text) {
    const std::string conf = path(), backup = backup_path();
    switch (op) {
        case FileOp::kKeepBackup: {
            const std::string temp = backup + ".new";
            ::unlink(temp.c_str());
            // A second name for the very file (or link) that is there.
            if (::linkat(AT_FDCWD, conf.c_str(), AT_FDCWD, temp.c_str(), 0) == 0) {
                if (::rename(temp.c_str(), backup.c_str()) != 0) return fail_errno("rename " + temp, errno);
                ::unlink(temp.c_str());  // rename of two names of one file leaves both
                return {};
            }
            TRY_ASSIGN(const std::string before, read_file(conf, kMaxFileBytes));
            const Status s = replace_file(backup, before, kMode);
            return cannot_rename(s) ? overwrite(backup, before) : s;
        }
        case FileOp::kWrite: {
            const Status s = replace_file(conf, text, kMode);
            if (!cannot_rename(s)) return s;
            // Two names of one file would change together.
            struct stat a{}, b{};
            if (::stat(conf.c_str(), &a) == 0 && ::stat(backup.c_str(), &b) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev) {
                TRY_ASSIGN(const std::string before, read_file(conf, kMaxFileBytes));
                TRY(replace_file(backup, before, kMode));
            }
            return overwrite(conf, text);
        }
        case FileOp::kRestore: {
            if (::rename(backup.c_str(), conf.c_str()) == 0) {
                ::unlink(backup.c_str());
                return {};
            }
            if (errno != EBUSY && errno != EXDEV) return fail_errno("rename " + backup, errno);
            TRY_ASSIGN(const std::string before, read_file(backup, kMaxFileBytes));
            TRY(overwrite(conf, before));
            return execute(FileOp::kDropBackup, "");
        }
        case FileOp::kDropBackup:
            if (::unlink(backup.c_str()) != 0 && errno != ENOENT) return fail_errno("remove " + backup, errno);
            return {};
        case FileOp::kRemove:
            if (::unlink(conf.c_str()) == 0 || errno == ENOENT) return {};
            // Mounted into a container and empty before: as good as gone.
            if (errno == EBUSY) return overwrite(conf, "");
            return fail_errno("remove " + conf, errno);
    }
    return {};
}

std::unique_ptr<DnsManager> make_direct_dns(Loop& loop, const DnsManagerOptions& options) { return std::make_unique<DirectDns>(loop, options); }

}  // namespace mesh::platform
