// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// One function per subcommand. Each parses its words, talks to the daemon, prints, and returns the exit code:
/// 0 done, 1 failed (text on stderr), 2 bad flags.

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tailscale-cli/client.h"
#include "tailscale-cli/flags.h"

namespace mesh::cli {

using Args = std::vector<std::string>;

struct Cli {
    std::string socket;
    Args words;  ///< the whole command line after the program's name, for hints

    [[nodiscard]] Client client() const { return Client(socket); }
    /// Prints the error with the hints that belong to it; 1.
    [[nodiscard]] int fail(const ApiError& error) const;
    [[nodiscard]] int fail(const std::string& text) const;
    /// As fail(), but a daemon that cannot be reached is looked for first (up, status, ping).
    [[nodiscard]] int fail_explained(const ApiError& error) const;
};

/// Parses; on help or error prints and returns the exit code.
[[nodiscard]] std::optional<int> parse_or_exit(FlagSet& flags, const Args& args);
/// `too many non-flag arguments: […]` if there are any; else nullopt.
[[nodiscard]] std::optional<int> refuse_words(const Cli& cli, const FlagSet& flags);

/// Text for stdout / stderr, written at once.
void print_out(std::string_view text);
void print_err(std::string_view text);

/// You sit in an SSH session that comes through the network this command may cut: warns and counts down. Returns at
/// once if that is not so or the risk is accepted.
void warn_ssh_risk(const std::string& accepted, const std::string& what);

/// Asks the daemon whether this host can forward; prints what it has to say.
[[nodiscard]] ApiResult<void> print_forwarding_warnings(Client& client);

int run_up(const Cli& cli, const Args& args);
int run_login(const Cli& cli, const Args& args);
int run_down(const Cli& cli, const Args& args);
int run_logout(const Cli& cli, const Args& args);
int run_set(const Cli& cli, const Args& args);
int run_get(const Cli& cli, const Args& args);
int run_status(const Cli& cli, const Args& args);
int run_ip(const Cli& cli, const Args& args);
int run_whois(const Cli& cli, const Args& args);
int run_whoami(const Cli& cli, const Args& args);
int run_wait(const Cli& cli, const Args& args);
int run_nc(const Cli& cli, const Args& args);
int run_ping(const Cli& cli, const Args& args);
int run_netcheck(const Cli& cli, const Args& args);
int run_version(const Cli& cli, const Args& args);
int run_metrics(const Cli& cli, const Args& args);
int run_exit_node(const Cli& cli, const Args& args);
int run_dns(const Cli& cli, const Args& args);
int run_file(const Cli& cli, const Args& args);
int run_bugreport(const Cli& cli, const Args& args);
int run_switch(const Cli& cli, const Args& args);
int run_lock(const Cli& cli, const Args& args);
int run_serve(const Cli& cli, const Args& args);
int run_funnel(const Cli& cli, const Args& args);
int run_cert(const Cli& cli, const Args& args);
int run_syspolicy(const Cli& cli, const Args& args);
int run_appc_routes(const Cli& cli, const Args& args);
int run_completion(const Cli& cli, const Args& args);
/// What other programs of this family have and this one has not: one sentence that says what to do instead; nullopt: nobody has it.
[[nodiscard]] std::optional<std::string> absent_command(const std::string& name);
/// Those that are shown to people, with their summaries.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> command_list();
int run_doctor(const Cli& cli, const Args& args);
int run_debug(const Cli& cli, const Args& args);

/// Finds the program's subcommand and runs it. `argv[0]` is not among the words.
[[nodiscard]] int run(const Args& words);

/// Address a person means by a name or a literal: own node and peers by MagicDNS name first, then the system's resolver.
struct Target {
    Addr ip;
    bool is_self = false;
};
[[nodiscard]] Result<Target> find_target(const api::DaemonStatus& status, const std::string& name);

}  // namespace mesh::cli
