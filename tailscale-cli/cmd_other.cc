// SPDX-License-Identifier: BSD-3-Clause
// Commands of other programs of this family that scripts may call: small ones, and a clear word about those that are not here.

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/json.h"
#include "tailscale-cli/commands.h"

namespace mesh::cli {
namespace {

struct Absent {
    const char* name;
    const char* instead;
};
constexpr std::array kAbsent = {
    Absent{"ssh", "there is no SSH of its own; use ssh USER@NODE (without a tunnel interface: ssh -o ProxyCommand=\"tailscale nc %h %p\" USER@NODE)"},
    Absent{"web", "there is no web interface; use 'tailscale status' and 'tailscale set'"},
    Absent{"update", "updates are the package manager's work"},
    Absent{"configure", "there is nothing to configure outside of 'tailscale set'"},
    Absent{"drive", "folders are not shared; use 'tailscale file cp', or any file server at this node's address"},
    Absent{"systray", "there is no desktop icon; use 'tailscale status'"},
    Absent{"licenses", "this program is under the BSD-3-Clause licence; those of its libraries come with their packages"},
    Absent{"service", "services with addresses of their own are not supported; peers reach every port of this host at its address"},
    Absent{"id-token", "the control server hands out no identity tokens"},
};

int refuse(const Cli& cli, const char* name, const char* instead) { return cli.fail(fmt::format("tailscale {}: {}", name, instead)); }

constexpr const char* kNoServe = "serving is not supported; peers reach every port of this host at its Tailscale address, so let the program listen there";

int serve(const Cli& cli, const Args& args, const char* name) {
    const std::string sub = args.empty() ? "" : args[0];
    if (sub == "reset") return 0;
    if (sub != "status") return refuse(cli, name, kNoServe);
    bool as_json = false;
    FlagSet flags(fmt::format("tailscale {} status", name), "[flags]", "Show what is served: nothing");
    flags.add("json", &as_json, "print JSON");
    if (const auto code = parse_or_exit(flags, Args(args.begin() + 1, args.end()))) return *code;
    print_out(as_json ? "{}\n" : "No serve config\n");
    return 0;
}

constexpr const char* kBash = R"SCRIPT(# bash completion for tailscale; load it by: source <(tailscale completion bash)
_tailscale() {
    local cur=${COMP_WORDS[COMP_CWORD]} sub= i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        --socket) ((i++)) ;;
        -*) ;;
        *) sub=${COMP_WORDS[i]}; break ;;
        esac
    done
    if [[ -z $sub ]]; then
        COMPREPLY=($(compgen -W "{names} --socket" -- "$cur"))
    elif [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" "$sub" --help 2>/dev/null | sed -n 's/^  \(--[a-z0-9-]*\).*/\1/p')" -- "$cur"))
    else
        COMPREPLY=($(compgen -f -- "$cur"))
    fi
}
complete -o filenames -F _tailscale tailscale
)SCRIPT";
constexpr const char* kZsh = R"SCRIPT(#compdef tailscale
# zsh completion for tailscale; load it by: source <(tailscale completion zsh)
_tailscale() {
    local -a names flags
    local sub i
    for ((i = 2; i < CURRENT; i++)); do
        case ${words[i]} in
        --socket) ((i++)) ;;
        -*) ;;
        *) sub=${words[i]}; break ;;
        esac
    done
    if [[ -z $sub ]]; then
        names=({names})
        _describe command names
    elif [[ ${words[CURRENT]} == -* ]]; then
        flags=(${(f)"$(${words[1]} $sub --help 2>/dev/null | sed -n 's/^  \(--[a-z0-9-]*\).*/\1/p')"})
        compadd -- $flags
    else
        _files
    fi
}
compdef _tailscale tailscale
)SCRIPT";
constexpr const char* kFish = R"SCRIPT(# fish completion for tailscale; load it by: tailscale completion fish | source
{names}complete -c tailscale -n 'not __fish_use_subcommand; and string match -q -- "-*" (commandline -ct)' -f -a '(set -l w (commandline -opc); $w[1] $w[2] --help 2>/dev/null | string match -rg "^  (--[a-z0-9-]+)")'
)SCRIPT";

std::string with_names(std::string script, const std::string& names) {
    constexpr std::string_view kMark = "{names}";
    return script.replace(script.find(kMark), kMark.size(), names);
}

/// In single quotes for any of the three shells.
std::string quoted(std::string text) {
    std::replace(text.begin(), text.end(), '\'', ' ');
    return "'" + text + "'";
}

}  // namespace

std::optional<std::string> absent_command(const std::string& name) {
    for (const Absent& a : kAbsent)
        if (name == a.name) return fmt::format("tailscale {}: {}", a.name, a.instead);
    return std::nullopt;
}

int run_serve(const Cli& cli, const Args& args) { return serve(cli, args, "serve"); }
int run_funnel(const Cli& cli, const Args& args) { return serve(cli, args, "funnel"); }

int run_lock(const Cli& cli, const Args& args) {
    if (!args.empty() && args[0] != "status" && args[0].front() != '-') return refuse(cli, "lock", "Tailnet Lock is not supported");
    bool as_json = false;
    FlagSet flags("tailscale lock status", "[flags]", "Show whether keys of nodes have to be signed: they have not");
    flags.add("json", &as_json, "print JSON");
    const auto begin = args.begin() + (!args.empty() && args[0] == "status" ? 1 : 0);
    if (const auto code = parse_or_exit(flags, Args(begin, args.end()))) return *code;
    const auto status = cli.client().call("GET", "tka/status");
    if (!status) return cli.fail(status.error());
    print_out(as_json ? *status + "\n" : "Tailnet Lock is NOT enabled.\n\n");
    return 0;
}

int run_cert(const Cli& cli, const Args& args) {
    std::string cert_file, key_file, min_validity;
    bool serve_demo = false;
    FlagSet flags("tailscale cert", "[flags] <domain>", "Ask for a certificate; control servers of one's own give none");
    flags.add("cert-file", &cert_file, "where it would go");
    flags.add("key-file", &key_file, "where its key would go");
    flags.add("min-validity", &min_validity, "how long it must be valid");
    flags.add("serve-demo", &serve_demo, "not supported", Show::kHidden);
    if (const auto code = parse_or_exit(flags, args)) return *code;
    if (flags.rest().size() != 1) return cli.fail("Usage: tailscale cert [flags] <domain>");
    const auto answer = cli.client().call("GET", "cert/" + http1::percent_encode(flags.rest()[0]) + "?type=pair");
    return cli.fail(answer ? ApiError{ApiError::Kind::kOther, 0, "the daemon's answer is no certificate", ""} : answer.error());
}

int run_syspolicy(const Cli& cli, const Args& args) {
    if (args.empty() || (args[0] != "list" && args[0] != "reload")) return cli.fail("usage: tailscale syspolicy <list|reload>");
    print_out("No policy settings\n");
    return 0;
}

int run_appc_routes(const Cli& /*cli*/, const Args& /*args*/) {
    print_out("not a connector\n");
    return 0;
}

int run_completion(const Cli& cli, const Args& args) {
    bool complete_flags = true, descriptions = true;
    FlagSet flags("tailscale completion", "<bash|zsh|fish>", "Print a script that completes commands");
    flags.add("flags", &complete_flags, "taken and not needed", Show::kHidden);
    flags.add("descs", &descriptions, "taken and not needed", Show::kHidden);
    if (const auto code = parse_or_exit(flags, args)) return *code;
    const std::string name = flags.rest().empty() ? "" : flags.rest()[0];
    std::string names;
    if (name == "bash") {
        for (const auto& [command, summary] : command_list()) names += (names.empty() ? "" : " ") + command;
        print_out(with_names(kBash, names));
    } else if (name == "zsh") {
        for (const auto& [command, summary] : command_list()) names += (names.empty() ? "" : " ") + quoted(command + ":" + summary);
        print_out(with_names(kZsh, names));
    } else if (name == "fish") {
        for (const auto& [command, summary] : command_list()) names += fmt::format("complete -c tailscale -n __fish_use_subcommand -f -a {} -d {}\n", command, quoted(summary));
        print_out(with_names(kFish, names));
    } else {
        return cli.fail("usage: tailscale completion <bash|zsh|fish>");
    }
    return 0;
}

}  // namespace mesh::cli
