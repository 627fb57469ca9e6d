// SPDX-License-Identifier: BSD-3-Clause
// file: cp sends files to a node, get fetches those that peers sent here. The daemon moves the bytes.

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <optional>
#include <thread>
#include <utility>

#include "base/json.h"
#include "base/log.h"
#include "platform/inbox.h"
#include "platform/loop/loop.h"
#include "tailscale-cli/commands.h"

namespace mesh::cli {
namespace {

constexpr size_t kSniff = size_t{4} << 20;
constexpr Duration kWarnAfter = seconds(3);
/// What the daemon takes before the other node has said anything.
constexpr int64_t kTakenAhead = int64_t{1} << 20;
constexpr const char* kNewLine = "\r\x1b[K";

ApiError os_error(const std::string& what, int err) { return {ApiError::Kind::kOther, 0, fmt::format("{}: {}", what, errno_text(err)), ""}; }

/// A dated line, as the original's log.
void log_line(const std::string& text) {
    const std::time_t now = std::time(nullptr);
    std::tm tm{};
    localtime_r(&now, &tm);
    char date[32];
    std::strftime(date, sizeof date, "%Y/%m/%d %H:%M:%S", &tm);
    print_err(fmt::format("{} {}\n", date, text));
}

std::string bytes_text(double n, const char* unit) {
    for (const char* prefix : {"", "Ki", "Mi", "Gi"}) {
        if (n < 1024) return fmt::format("{:.2f}{}{}", n, prefix, unit);
        n /= 1024;
    }
    return fmt::format("{:.2f}Ti{}", n, unit);
}

/// The line on a terminal that shows how far a file is.
class Progress {
   public:
    Progress(std::string name, int64_t size, Duration interval)
        : name_(log::printable(name, 36)), size_(size), interval_(interval), shown_(interval.ns > 0 && ::isatty(STDERR_FILENO) == 1) {}
    void show(int64_t taken, bool last) {
        const Time now = steady_now();
        if (!shown_ || (!last && now - drawn_ < interval_)) return;
        drawn_ = now;
        const double span = std::max(0.001, (now - began_).seconds()), rate = static_cast<double>(taken) / span;
        std::string line = fmt::format("{}{:<36}    {:>10}    {:>12}", kNewLine, name_, bytes_text(static_cast<double>(taken), "B"), bytes_text(rate, "B/s"));
        if (size_ >= 0) {
            const double part = size_ > 0 ? 100.0 * static_cast<double>(taken) / static_cast<double>(size_) : 100.0;
            const auto left = rate >= 1 ? static_cast<int64_t>(static_cast<double>(size_ - taken) / rate) : int64_t{-1};
            line += fmt::format("    {:>6.2f}%    {}", part,
                                left < 0 || left > 359'999 ? "ETA -" : fmt::format("ETA {:02}:{:02}:{:02}", left / 3600, left / 60 % 60, left % 60));
        }
        print_err(last ? line + "\n" : line);
    }

   private:
    const std::string name_;
    const int64_t size_;
    const Duration interval_;
    const bool shown_;
    const Time began_ = steady_now();
    Time drawn_;
};

// ---- cp --------------------------------------------------------------------------------------------------------------

struct CpArgs {
    std::string name;
    bool verbose = false;
    bool targets = false;
    Duration update_interval = milliseconds(250);
};

int list_targets(const Cli& cli, Client& client) {
    const auto body = client.call("GET", "file-targets");
    if (!body) return cli.fail(body.error());
    const auto j = json::parse(*body);
    if (!j || !j->is_array()) return cli.fail("invalid file-targets JSON");
    const int64_t now = platform::read_wall_clock().unix_ns;
    std::string out;
    for (const Json& t : *j) {
        const Json* node = t.is_object() ? json::find(t, "Node") : nullptr;
        if (node == nullptr) continue;
        const auto addresses = json::strings(*node, "Addresses");
        const std::string address = addresses.empty() ? "" : addresses[0].substr(0, addresses[0].find('/'));
        const auto online = json::opt_bool(*node, "Online");
        std::string detail = !online ? "unknown-status" : *online ? "" : "offline";
        const auto seen = json::parse_time(json::str(*node, "LastSeen"));
        if (!detail.empty() && seen && !seen->is_zero()) {
            const int64_t minutes_ago = (now - seen->unix_ns + 30'000'000'000) / 60'000'000'000;
            detail += fmt::format("; last seen {} ago", duration_text(minutes(std::max<int64_t>(0, minutes_ago))));
        }
        out += fmt::format("{}\t{}{}\n", address, log::printable(json::str(*node, "ComputedName")), detail.empty() ? "" : "\t" + detail);
    }
    print_out(out);
    return 0;
}

/// Why a peer cannot be sent files, in the words scripts know; "" if it can, or may be there again by now.
std::string target_problem(int taildrop_target) {
    switch (taildrop_target) {
        case 1:
        case 5: return "";
        case 2: return "cannot send files: no netmap available on this node";
        case 3: return "cannot send files: local Tailscale is not connected to the tailnet";
        case 4: return "cannot send files: missing required Taildrop capability";
        case 6: return "cannot send files: invalid or unrecognized peer";
        case 7: return "cannot send files: target's OS does not support Taildrop";
        case 8: return "cannot send files: target is not advertising a file sharing API";
        case 9: return "cannot send files: peer is owned by a different user";
        default: return "cannot send files: unknown or indeterminate reason";
    }
}

struct CpTarget {
    std::string words;  ///< as typed
    Addr ip;
    std::string stable_id;
    bool offline = false;
};

Result<CpTarget> find_cp_target(const api::DaemonStatus& status, std::string text) {
    if (!text.ends_with(':')) return fail(Code::kInvalid, "final argument to 'tailscale file cp' must end in colon");
    text.pop_back();
    const bool brackets = text.size() > 2 && text.front() == '[' && text.back() == ']';
    if (brackets) text = text.substr(1, text.size() - 2);
    const auto literal = Addr::parse(text);
    if (literal && literal->is_v6() && !brackets) return fail(Code::kInvalid, fmt::format("an IPv6 literal must be written as [{}]", literal->str()));
    if (brackets && !(literal && literal->is_v6())) return fail(Code::kInvalid, "unexpected brackets around target");
    TRY_ASSIGN(const Target found, find_target(status, text));
    CpTarget out;
    out.words = text;
    out.ip = found.ip;
    const std::string cannot = fmt::format("can't send to {}: ", text);
    if (status.peers)
        for (const auto& [key, peer] : *status.peers) {
            if (std::find(peer.tailscale_ips.begin(), peer.tailscale_ips.end(), found.ip) == peer.tailscale_ips.end()) continue;
            if (const std::string problem = target_problem(peer.taildrop_target); !problem.empty()) return fail(Code::kUnavailable, cannot + problem);
            out.stable_id = peer.id;
            out.offline = !peer.online;
            return out;
        }
    return fail(Code::kNotFound, cannot + (is_tailscale_range(found.ip) ? std::string("unknown target; not in your Tailnet")
                                                                        : fmt::format("unknown target; {} is not a Tailscale IP address", found.ip.str())));
}

/// What is sent: a file, or standard input.
struct CpSource {
    platform::UniqueFd file;
    int fd = STDIN_FILENO;
    int64_t size = -1;
    std::string name;
    std::string sniffed;  ///< read already
};

Result<CpSource> open_source(const std::string& path, const std::string& name) {
    CpSource s;
    s.name = name;
    if (path == "-") {
        if (!name.empty()) return s;
        // A text gets a name that says so.
        s.sniffed.resize(kSniff);
        size_t have = 0;
        while (have < kSniff) {
            const ssize_t n = ::read(STDIN_FILENO, s.sniffed.data() + have, kSniff - have);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) return fail(Code::kSystem, "read standard input: " + errno_text(errno));
            if (n == 0) break;
            have += static_cast<size_t>(n);
        }
        s.sniffed.resize(have);
        s.name = have < kSniff && platform::is_utf8(s.sniffed) ? "stdin.txt" : "stdin";
        return s;
    }
    s.file.reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat st {};
    if (!s.file.valid() || ::fstat(s.file.get(), &st) != 0) return fail(Code::kSystem, fmt::format("open {}: {}", path, errno_text(errno)));
    if (S_ISDIR(st.st_mode)) return fail(Code::kInvalid, "directories not supported");
    s.fd = s.file.get();
    s.size = S_ISREG(st.st_mode) ? static_cast<int64_t>(st.st_size) : -1;
    if (s.name.empty()) s.name = path.substr(path.rfind('/') + 1);
    return s;
}

int run_cp(const Cli& cli, const Args& args) {
    CpArgs cp;
    FlagSet flags("tailscale file cp", "<files...> <target>:", "Send files to a node; \"-\" is standard input");
    flags.add("name", &cp.name, "call the file so, useful with \"-\"");
    flags.add("verbose", &cp.verbose, "say what is done");
    flags.add("targets", &cp.targets, "list the nodes that files can be sent to");
    flags.add("update-interval", &cp.update_interval, "how often the line with the progress is drawn; 0 or less: never");
    if (const auto code = parse_or_exit(flags, args)) return *code;
    const Args& words = flags.rest();
    Client client = cli.client();
    if (cp.targets) return words.empty() ? list_targets(cli, client) : cli.fail("invalid arguments with --targets");
    if (words.size() < 2) return cli.fail("usage: tailscale file cp <files...> <target>:");
    const auto status = client.status();
    if (!status) return cli.fail_explained(status.error());
    const auto target = find_cp_target(*status, words.back());
    if (!target) return cli.fail(target.error().message());
    const Args files(words.begin(), words.end() - 1);
    if (files.size() > 1 && !cp.name.empty()) return cli.fail("can't use --name= with multiple files");
    if (files.size() > 1 && std::find(files.begin(), files.end(), "-") != files.end())
        return cli.fail("can't use '-' as STDIN file when providing filename arguments");
    bool warned = false;
    for (const std::string& path : files) {
        auto source = open_source(path, cp.name);
        if (!source) return cli.fail(source.error().message());
        if (cp.verbose) log_line(fmt::format("sending {} to {}/{}/{} ...", in_quotes(source->name), target->words, target->ip.str(), target->stable_id));
        Progress progress(source->name, source->size, cp.update_interval);
        const Time began = steady_now();
        int64_t read = 0;
        const auto next = [&](MutByteSpan into) -> ApiResult<size_t> {
            if (!source->sniffed.empty()) {
                const size_t n = std::min(into.size(), source->sniffed.size());
                std::copy_n(source->sniffed.begin(), n, into.begin());
                source->sniffed.erase(0, n);
                read += static_cast<int64_t>(n);
                return n;
            }
            while (true) {
                const ssize_t n = ::read(source->fd, into.data(), into.size());
                if (n < 0 && errno == EINTR) continue;
                if (n < 0) return tl::unexpected(os_error("read " + path, errno));
                read += n;
                return static_cast<size_t>(n);
            }
        };
        const auto tick = [&](int64_t taken) {
            if (!warned && steady_now() - began > kWarnAfter && taken < kTakenAhead) {
                warned = true;
                print_err(fmt::format("{}# warning: {} is {}; trying anyway\n", ::isatty(STDERR_FILENO) == 1 ? kNewLine : "", target->words,
                                      target->offline ? "reportedly offline" : "not replying"));
            }
            progress.show(taken, false);
        };
        const auto sent = client.put_file(target->stable_id, source->name, source->size, next, tick);
        if (!sent) return cli.fail(sent.error());
        progress.show(read, true);
        if (cp.verbose) log_line(fmt::format("sent {}", in_quotes(source->name)));
    }
    return 0;
}

// ---- get -------------------------------------------------------------------------------------------------------------

struct GetArgs {
    bool wait = false;
    bool loop = false;
    bool verbose = false;
    std::string conflict = "skip";
};

struct Waiting {
    std::string name;
    int64_t size = 0;
};

ApiResult<std::vector<Waiting>> waiting_files(Client& client, const std::string& query) {
    const auto body = client.call("GET", "files/" + query);
    if (!body) return tl::unexpected(body.error());
    std::vector<Waiting> out;
    const auto j = json::parse(*body);
    if (j && j->is_array())
        for (const Json& f : *j)
            if (f.is_object()) out.push_back({json::str(f, "Name"), json::integer(f, "Size")});
    return out;
}

struct NewFile {
    platform::UniqueFd fd;
    std::string path;
};

/// A file that was not there before, by the rule for names that are taken.
Result<NewFile> make_file(const std::string& dir, const std::string& name, const std::string& conflict) {
    const auto create = [](const std::string& path) { return platform::UniqueFd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644)); };
    const std::string path = dir + (dir.ends_with('/') ? "" : "/") + name;
    platform::UniqueFd fd = create(path);
    if (fd.valid()) return NewFile{std::move(fd), path};
    int err = errno;
    struct stat st {};
    const std::string text = fmt::format("open {}: {}", path, errno_text(err));
    if (conflict == "skip") {
        const bool there = ::stat(path.c_str(), &st) == 0;
        return fail(Code::kSystem, (there ? "refusing to overwrite file: " : "failed to write; ") + text);
    }
    if (conflict == "overwrite") {
        // Removed and made anew: it may be a link that somebody planted.
        if (::unlink(path.c_str()) != 0) return fail(Code::kSystem, fmt::format("unable to remove target file: remove {}: {}", path, errno_text(errno)));
        fd = create(path);
        if (!fd.valid()) return fail(Code::kSystem, fmt::format("unable to overwrite: open {}: {}", path, errno_text(errno)));
        return NewFile{std::move(fd), path};
    }
    const size_t dot = path.rfind('.');
    const bool has_dot = dot != std::string::npos && dot > path.rfind('/');
    const std::string stem = path.substr(0, has_dot ? dot : path.size()), extension = has_dot ? path.substr(dot) : "";
    std::string numbered;
    for (int i = 1; i < 100; ++i) {
        numbered = fmt::format("{} ({}){}", stem, i, extension);
        fd = create(numbered);
        if (fd.valid()) return NewFile{std::move(fd), numbered};
        err = errno;
    }
    return fail(Code::kSystem, fmt::format("unable to find a name for writing {}, final attempt: open {}: {}", path, numbered, errno_text(err)));
}

/// The path it was written to.
Result<std::string> fetch(Client& client, const Waiting& file, const std::string& dir, const GetArgs& get) {
    if (!platform::is_valid_file_name(file.name)) return fail(Code::kInvalid, fmt::format("{} is not a name for a file", in_quotes(file.name)));
    TRY_ASSIGN(NewFile to, make_file(dir, file.name, get.conflict));
    const auto give_up = [&](std::string why) {
        ::unlink(to.path.c_str());
        return fail(Code::kSystem, std::move(why));
    };
    const auto done = client.get_file(file.name, [&](std::string_view piece) -> ApiResult<void> {
        while (!piece.empty()) {
            const ssize_t n = ::write(to.fd.get(), piece.data(), piece.size());
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) return tl::unexpected(os_error("write " + to.path, errno));
            piece.remove_prefix(static_cast<size_t>(n));
        }
        return {};
    });
    if (!done) return give_up(fmt::format("failed to write {}: {}", to.path, done.error().text));
    // The only other copy is about to be removed.
    if (::fsync(to.fd.get()) != 0 && errno != EINVAL && errno != ENOTSUP) return give_up(fmt::format("failed to write {}: {}", to.path, errno_text(errno)));
    return to.path;
}

/// Error lines; empty: all is well.
std::vector<std::string> get_batch(Client& client, const std::string& dir, const GetArgs& get) {
    std::vector<Waiting> files;
    while (true) {
        auto now = waiting_files(client, "?waitsec=0");
        if (!now) return {"getting WaitingFiles: " + now.error().text};
        files = std::move(*now);
        if (!files.empty() || !(get.wait || get.loop)) break;
        if (get.verbose) print_out("waiting for file...");
        const auto some = waiting_files(client, "?waitsec=3600");
        if (!some) return {some.error().text};
    }
    std::vector<std::string> errors;
    size_t moved = 0;
    for (const Waiting& f : files) {
        const auto path = fetch(client, f, dir, get);
        if (!path) {
            errors.push_back(path.error().message());
            continue;
        }
        if (get.verbose) print_out(fmt::format("wrote {} as {} ({} bytes)\n", f.name, *path, f.size));
        if (const auto gone = client.call("DELETE", "files/" + http1::percent_encode(f.name), "", 204); !gone) {
            errors.push_back(fmt::format("deleting {} from inbox: {}", in_quotes(f.name), gone.error().text));
            continue;
        }
        ++moved;
    }
    const std::string sum = fmt::format("moved {}/{} files", moved, files.size());
    if (moved == 0 && !files.empty())
        errors.push_back(sum);
    else if (get.verbose)
        print_out(sum + "\n");
    return errors;
}

int wipe(const Cli& cli, Client& client, const GetArgs& get) {
    if (get.wait) return cli.fail("can't use --wait with /dev/null target");
    const auto files = waiting_files(client, "?waitsec=0");
    if (!files) return cli.fail(files.error());
    for (const Waiting& f : *files) {
        if (get.verbose) print_err(fmt::format("deleting {} ...\n", f.name));
        if (const auto gone = client.call("DELETE", "files/" + http1::percent_encode(f.name), "", 204); !gone)
            return cli.fail(fmt::format("deleting {}: {}", in_quotes(f.name), gone.error().text));
    }
    if (get.verbose) print_err(fmt::format("deleted {} files\n", files->size()));
    return 0;
}

int run_get_files(const Cli& cli, const Args& args) {
    GetArgs get;
    FlagSet flags("tailscale file get", "[--wait] [--verbose] [--conflict=(skip|overwrite|rename)] <target-directory>",
                  "Move files that peers sent into a folder");
    flags.add("wait", &get.wait, "wait for a file if there is none");
    flags.add("loop", &get.loop, "go on fetching files as they come");
    flags.add("verbose", &get.verbose, "say what is done");
    flags.add("conflict", &get.conflict, "what to do when the folder has a file of that name: skip it and leave it where it is, overwrite, or rename: write under a numbered name");
    if (const auto code = parse_or_exit(flags, args)) return *code;
    std::transform(get.conflict.begin(), get.conflict.end(), get.conflict.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (get.conflict.empty()) get.conflict = "skip";
    if (get.conflict != "skip" && get.conflict != "overwrite" && get.conflict != "rename") {
        const std::string quoted = in_quotes(flags.value_text("conflict"));
        print_err(fmt::format("invalid value {} for flag -conflict: {} is not one of (skip|overwrite|rename)\n{}", quoted, quoted, flags.usage()));
        return 2;
    }
    if (flags.rest().size() != 1) return cli.fail("usage: tailscale file get <target-directory>");
    const std::string& dir = flags.rest()[0];
    Client client = cli.client();
    if (dir == "/dev/null") return wipe(cli, client, get);
    struct stat st {};
    if (::stat(dir.c_str(), &st) != 0 || !S_ISDIR(st.st_mode)) return cli.fail(fmt::format("{} is not a directory", in_quotes(dir)));
    while (true) {
        const auto errors = get_batch(client, dir, get);
        if (!get.loop) {
            for (size_t i = 0; i + 1 < errors.size(); ++i) print_out(errors[i] + "\n");
            return errors.empty() ? 0 : cli.fail(errors.back());
        }
        for (const std::string& e : errors) print_out(e + "\n");
        // Whatever it was may last; others' files can be fetched all the same.
        if (!errors.empty()) std::this_thread::sleep_for(std::chrono::seconds(5));
    }
}

}  // namespace

int run_file(const Cli& cli, const Args& args) {
    const std::string sub = args.empty() ? "" : args[0];
    const Args rest(args.begin() + (args.empty() ? 0 : 1), args.end());
    if (sub == "cp") return run_cp(cli, rest);
    if (sub == "get") return run_get_files(cli, rest);
    FlagSet flags("tailscale file", "<cp|get> ...", "Send files to nodes, and fetch those that came", "SUBCOMMANDS\n  cp   send files\n  get  fetch files");
    if (const auto code = parse_or_exit(flags, args)) return *code;
    if (flags.rest().empty()) {
        print_out(flags.usage());
        return 0;
    }
    return cli.fail("tailscale file: unknown subcommand: " + flags.rest()[0]);
}

int run_bugreport(const Cli& cli, const Args& args) {
    bool diagnose = false, record = false;
    FlagSet flags("tailscale bugreport", "[note]", "Print a mark that also stands in the daemon's log; nothing is sent to anybody");
    flags.add("diagnose", &diagnose, "write what 'tailscale doctor' finds to the log as well");
    flags.add("record", &record, "wait while the problem is shown, then print a second mark");
    if (const auto code = parse_or_exit(flags, args)) return *code;
    if (flags.rest().size() > 1) return cli.fail("unknown arguments");
    Client client = cli.client();
    const std::string note = flags.rest().empty() ? "" : flags.rest()[0];
    for (int i = 0; i < (record ? 2 : 1); ++i) {
        const auto mark = client.call("POST", fmt::format("bugreport?note={}&diagnose={}", http1::percent_encode(note), diagnose));
        if (!mark) return cli.fail(mark.error());
        print_out(trimmed(*mark) + "\n");
        if (record && i == 0) {
            print_out("Recording started; please reproduce your issue and then press Enter...\n");
            char c = 0;
            while (::read(STDIN_FILENO, &c, 1) == 1 && c != '\n') {
            }
        }
    }
    print_err("Nothing was uploaded: the mark stands in the daemon's log on this host, for whoever looks for this moment there.\n");
    return 0;
}

}  // namespace mesh::cli
