// SPDX-License-Identifier: BSD-3-Clause
// The program's frame: subcommands, global flags, and how errors are told.

#include <dirent.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "platform/file.h"
#include "tailscale-cli/commands.h"

namespace mesh::cli {
namespace {

constexpr const char* kDefaultSocket = "/var/run/tailscale/tailscaled.sock";

struct Command {
    const char* name;
    const char* summary;  ///< null: not listed
    int (*run)(const Cli&, const Args&);
};

constexpr std::array kCommands = {
    Command{"up", "Connect to the network, logging in if needed", run_up},
    Command{"down", "Disconnect from the network", run_down},
    Command{"set", "Change single settings", run_set},
    Command{"get", "Show settings", run_get},
    Command{"login", "Log in to one more account", run_login},
    Command{"switch", "Switch to another account", run_switch},
    Command{"logout", "Disconnect and give up this node's key", run_logout},
    Command{"netcheck", "Examine the local network: UDP, NAT, relays", run_netcheck},
    Command{"ip", "Show addresses", run_ip},
    Command{"status", "Show this node and its peers", run_status},
    Command{"dns", "Show how names are resolved", run_dns},
    Command{"metrics", "Show metrics", run_metrics},
    Command{"doctor", "Say why a peer is not reached, or not directly, and what to do", run_doctor},
    Command{"ping", "Ping a node and see how it is reached", run_ping},
    Command{"nc", "Join standard input and output to a port of a node", run_nc},
    Command{"file", "Send files to nodes, and fetch those that came", run_file},
    Command{"exit-node", "List nodes that offer to be an exit node", run_exit_node},
    Command{"version", "Print the version", run_version},
    Command{"whois", "Show the node and user behind an address", run_whois},
    Command{"whoami", "Show this node and its user", run_whoami},
    Command{"wait", "Wait until this node has its addresses", run_wait},
    Command{"completion", "Print a script that completes commands for bash, zsh or fish", run_completion},
    Command{"bugreport", "Print a mark for the log", run_bugreport},
    Command{"debug", "Look inside", run_debug},
    // Scripts ask these, and hear that there is nothing.
    Command{"lock", nullptr, run_lock},
    Command{"serve", nullptr, run_serve},
    Command{"funnel", nullptr, run_funnel},
    Command{"cert", nullptr, run_cert},
    Command{"syspolicy", nullptr, run_syspolicy},
    Command{"appc-routes", nullptr, run_appc_routes},
};

std::string overview() {
    std::string out =
        "Full-mesh VPN: this program controls the daemon tailscaled.\n\nUSAGE\n"
        "  tailscale [flags] <subcommand> [command flags]\n\nSUBCOMMANDS\n";
    for (const auto& [name, summary] : command_list()) out += fmt::format("  {:<12} {}\n", name, summary);
    return out + fmt::format("\nFLAGS\n  --socket value\n    \tpath of the daemon's socket (default {})\n\n"
                             "\"tailscale <subcommand> --help\" tells more.\n",
                             kDefaultSocket);
}

/// Pid of some process named tailscaled; 0 if none.
long daemon_pid() {
    DIR* proc = ::opendir("/proc");
    if (!proc) return 0;
    long found = 0;
    while (const dirent* e = ::readdir(proc)) {
        char* end = nullptr;
        const long pid = std::strtol(e->d_name, &end, 10);
        if (pid <= 0 || *end != '\0') continue;
        const auto name = platform::read_file(fmt::format("/proc/{}/comm", pid), 64);
        if (name && *name == "tailscaled\n") {
            found = pid;
            break;
        }
    }
    ::closedir(proc);
    return found;
}

bool have_systemctl() {
    for (const char* path : {"/bin/systemctl", "/usr/bin/systemctl", "/usr/sbin/systemctl"})
        if (::access(path, X_OK) == 0) return true;
    return false;
}

}  // namespace

std::vector<std::pair<std::string, std::string>> command_list() {
    std::vector<std::pair<std::string, std::string>> out;
    for (const Command& c : kCommands)
        if (c.summary != nullptr) out.emplace_back(c.name, c.summary);
    return out;
}

void print_out(std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
}
void print_err(std::string_view text) {
    std::fflush(stdout);
    std::fwrite(text.data(), 1, text.size(), stderr);
}

int Cli::fail(const std::string& text) const {
    print_err(text + "\n");
    return 1;
}

int Cli::fail(const ApiError& error) const {
    if (error.kind != ApiError::Kind::kDenied || ::getuid() == 0) return fail(error.text);
    std::string command;
    for (const std::string& w : words) command += (command.empty() ? "" : " ") + w;
    return fail(fmt::format("{}\n\nUse 'sudo tailscale {}'.\nTo not require root, use "
                            "'sudo tailscale set --operator=$USER' once.",
                            error.text, command));
}

int Cli::fail_explained(const ApiError& error) const {
    if (error.kind != ApiError::Kind::kNoDaemon) return fail(error);
    if (const long pid = daemon_pid(); pid != 0)
        return fail(fmt::format("failed to connect to local tailscaled (which appears to be running as tailscaled, "
                                "pid {}). Got error: {}",
                                pid, error.text));
    return fail(fmt::format("failed to connect to local tailscaled; it doesn't appear to be running{}",
                            have_systemctl() ? " (sudo systemctl start tailscaled ?)" : ""));
}

std::optional<int> parse_or_exit(FlagSet& flags, const Args& args) {
    switch (flags.parse(args)) {
        case FlagSet::Outcome::kOk: return std::nullopt;
        case FlagSet::Outcome::kHelp: print_out(flags.usage()); return 0;
        case FlagSet::Outcome::kBad: print_err(flags.error() + "\n" + flags.usage()); return 2;
    }
    return 2;
}

std::optional<int> refuse_words(const Cli& cli, const FlagSet& flags) {
    if (flags.rest().empty()) return std::nullopt;
    return cli.fail("too many non-flag arguments: " + quoted_list(flags.rest()));
}

void warn_ssh_risk(const std::string& accepted, const std::string& what) {
    const char* from = std::getenv("SSH_CLIENT");
    if (!from) return;
    const std::string client = std::string(from).substr(0, std::string_view(from).find(' '));
    const auto ip = Addr::parse(client);
    if (!ip || !is_tailscale_range(*ip)) return;
    for (const std::string& risk : split(accepted, ','))
        if (risk == "lose-ssh" || risk == "all") return;
    print_out(what + "\nTo skip this warning, use --accept-risk=lose-ssh\n");
    for (int left = 5; left > 0; --left) {
        print_out(fmt::format("\rContinuing in {} second{}... (Ctrl-C stops)", left, left == 1 ? "" : "s"));
        std::this_thread::sleep_for(std::chrono::seconds(1));
    }
    print_out("\n");
}

int run(const Args& words) {
    Cli cli;
    cli.socket = kDefaultSocket;
    cli.words = words;
    FlagSet flags("tailscale", "[flags] <subcommand> [command flags]", "");
    bool version = false;
    flags.add("socket", &cli.socket, "path of the daemon's socket");
    flags.add("version", &version, "print the version", Show::kHidden);
    flags.alias("V", "version");
    switch (flags.parse(words)) {
        case FlagSet::Outcome::kOk: break;
        case FlagSet::Outcome::kHelp: print_out(overview()); return 0;
        case FlagSet::Outcome::kBad: print_err(flags.error() + "\n" + overview()); return 2;
    }
    if (cli.socket.empty()) cli.socket = kDefaultSocket;
    if (version) return run_version(cli, {});
    Args rest = flags.rest();
    if (!rest.empty() && rest[0] == "help") {
        // "help up" is "up --help".
        rest.erase(rest.begin());
        if (!rest.empty()) rest.emplace_back("--help");
    }
    if (rest.empty()) {
        print_out(overview());
        return 0;
    }
    const Args args(rest.begin() + 1, rest.end());
    for (const Command& c : kCommands)
        if (rest[0] == c.name) return c.run(cli, args);
    return cli.fail(absent_command(rest[0]).value_or("tailscale: unknown subcommand: " + rest[0]));
}

}  // namespace mesh::cli
