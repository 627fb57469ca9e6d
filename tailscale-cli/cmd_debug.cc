// SPDX-License-Identifier: BSD-3-Clause
// version, metrics, debug.

#include <fmt/format.h>

#include <array>
#include <cstdio>

#include "base/json.h"
#include "base/log.h"
#include "base/version.h"
#include "platform/file.h"
#include "tailscale-cli/commands.h"
#include "tailscale-cli/debug_text.h"

namespace mesh::cli {
namespace {

constexpr int kCapabilityVersion = 142;

std::string version_block() {
    return fmt::format("{}\n  long version: {}\n  compiler: gcc {}.{}\n", kVersion, kLongVersion, __GNUC__,
                       __GNUC_MINOR__);
}

/// GET endpoint, tab-indented JSON as it comes.
int print_json(const Cli& cli, const std::string& method, const std::string& endpoint) {
    const auto body = cli.client().call(method, endpoint);
    if (!body) return cli.fail(body.error());
    print_out(*body);
    if (body->empty() || body->back() != '\n') print_out("\n");
    return 0;
}

int debug_prefs(const Cli& cli, const Args&) {
    const auto prefs = cli.client().prefs();
    if (!prefs) return cli.fail(prefs.error());
    print_out(api::indent_json(api::prefs_json(*prefs), "\t") + "\n");
    return 0;
}
int debug_derp_map(const Cli& cli, const Args&) {
    const auto body = cli.client().call("GET", "derpmap");
    if (!body) return cli.fail(body.error());
    print_out(trimmed(*body) == "null" ? "{\n\t\"Regions\": null\n}\n" : *body);
    return 0;
}
int debug_derp(const Cli& cli, const Args& args) {
    FlagSet flags("tailscale debug derp", "<region>", "Try the relays of a region: its number or its code");
    if (const auto exit = parse_or_exit(flags, args)) return *exit;
    if (flags.rest().size() != 1) return cli.fail("usage: tailscale debug derp <region>");
    const auto body = cli.client().call("POST", "debug-derp-region?region=" + http1::percent_encode(flags.rest()[0]));
    if (!body) return cli.fail(body.error());
    print_out(api::indent_json(*body, " ") + "\n");
    return 0;
}
int debug_netmap(const Cli& cli, const Args&) { return print_json(cli, "POST", "debug?action=current-netmap"); }
int debug_metrics(const Cli& cli, const Args&) { return print_json(cli, "GET", "metrics"); }
int debug_statedir(const Cli& cli, const Args&) {
    const auto body = cli.client().call("POST", "debug?action=statedir");
    if (!body) return cli.fail(body.error());
    const auto j = json::parse(*body);
    print_out((j && j->is_string() ? j->get<std::string>() : std::string()) + "\n");
    return 0;
}

int action(const Cli& cli, const char* name) {
    const auto body = cli.client().call("POST", std::string("debug?action=") + name);
    if (!body) return cli.fail(body.error());
    return 0;
}
int debug_rebind(const Cli& cli, const Args&) { return action(cli, "rebind"); }
int debug_restun(const Cli& cli, const Args&) { return action(cli, "restun"); }

int debug_reload(const Cli& cli, const Args&) {
    const auto body = cli.client().call("POST", "reload-config");
    if (!body) return cli.fail(body.error());
    const auto j = json::parse(*body);
    if (j && !json::str(*j, "Err").empty()) return cli.fail(log::printable(json::str(*j, "Err"), 2000));
    print_out(j && json::boolean(*j, "Reloaded") ? "config reloaded\n" : "config mode not in use\n");
    return j && json::boolean(*j, "Reloaded") ? 0 : 1;
}

int debug_local_creds(const Cli& cli, const Args&) {
    print_out(fmt::format("curl --unix-socket {} http://local-tailscaled.sock/localapi/v0/status\n",
                          shell_quoted(cli.socket)));
    return 0;
}

int debug_drops(const Cli& cli, const Args& args) {
    bool as_json = false;
    bool all = false;
    FlagSet flags("tailscale debug drops", "[flags]", "Packets that were dropped, by reason");
    flags.add("json", &as_json, "print JSON");
    flags.add("all", &all, "also reasons that never happened");
    if (const auto exit = parse_or_exit(flags, args)) return *exit;
    const auto body = cli.client().call("GET", "debug-drops");
    if (!body) return cli.fail(body.error());
    print_out(as_json ? *body : drops_text(*body, all));
    return 0;
}

int debug_paths(const Cli& cli, const Args& args) {
    bool as_json = false;
    FlagSet flags("tailscale debug paths", "[flags] [peer]", "How each peer is reached, and why not directly");
    flags.add("json", &as_json, "print JSON");
    if (const auto exit = parse_or_exit(flags, args)) return *exit;
    if (flags.rest().size() > 1) return cli.fail("too many arguments, expected at most one peer");
    const auto body = cli.client().call("GET", "debug-paths");
    if (!body) return cli.fail(body.error());
    print_out(as_json ? *body : paths_text(*body, flags.rest().empty() ? "" : flags.rest()[0]));
    return 0;
}

int debug_peer_relay_sessions(const Cli& cli, const Args&) {
    const auto body = cli.client().call("GET", "debug-peer-relay-sessions");
    if (!body) return cli.fail(body.error());
    print_out(relay_sessions_text(*body));
    return 0;
}

int debug_localapi(const Cli& cli, const Args& args) {
    FlagSet flags("tailscale debug localapi", "[method] path [body|-]", "Ask the local API directly");
    if (const auto exit = parse_or_exit(flags, args)) return *exit;
    Args words = flags.rest();
    if (words.empty()) return cli.fail("expected at least one argument");
    std::string method = "GET";
    if (words.size() > 1 && words[0].find('/') == std::string::npos) {
        method = words[0];
        words.erase(words.begin());
    }
    std::string path = words[0];
    if (!path.starts_with("/localapi/")) path = "/localapi/v0/" + (path[0] == '/' ? path.substr(1) : path);
    std::string body = words.size() > 1 ? words[1] : "";
    if (body == "-") {
        body.clear();
        char buffer[4096];
        size_t n = 0;
        while ((n = std::fread(buffer, 1, sizeof buffer, stdin)) > 0 && body.size() < (1U << 20)) body.append(buffer, n);
    }
    print_err(fmt::format("# doing request {} {}\n", method, path));
    const auto r = cli.client().raw(method, path, body);
    if (!r) return cli.fail(r.error());
    if (r->status / 100 != 2) print_err(fmt::format("# Response status {} {}\n", r->status, r->reason));
    print_out(r->body);
    return r->status / 100 == 2 ? 0 : cli.fail(fmt::format("{} {}", r->status, r->reason));
}

int debug_watch(const Cli& cli, const Args& args) {
    bool initial = false;
    bool netmap = true;
    int64_t count = 0;
    FlagSet flags("tailscale debug watch-ipn", "[flags]", "Follow the messages of the daemon");
    flags.add("initial", &initial, "begin with the state as it is");
    flags.add("netmap", &netmap, "with the network map");
    flags.add("count", &count, "end after so many messages; 0 = never");
    if (const auto exit = parse_or_exit(flags, args)) return *exit;
    uint64_t mask = api::kWatchPeerChanges;
    if (initial) mask |= api::kWatchInitialState | api::kWatchInitialPrefs;
    if (initial && netmap) mask |= api::kWatchInitialNetMap;
    if (!netmap) mask |= api::kWatchNoNetMap;
    auto bus = cli.client().watch(mask);
    if (!bus) return cli.fail(bus.error());
    print_err("Connected.\n");
    for (int64_t n = 0; count == 0 || n < count; ++n) {
        const auto line = bus->next({});
        if (!line) return cli.fail(line.error());
        print_out(api::indent_json(*line, "\t") + "\n");
    }
    return 0;
}

struct DebugCommand {
    const char* name;
    const char* summary;
    int (*run)(const Cli&, const Args&);
};
constexpr std::array kDebug = {
    DebugCommand{"derp", "Try the relays of a region: port, TLS, upgrade, STUN", debug_derp},
    DebugCommand{"derp-map", "Print the map of relays", debug_derp_map},
    DebugCommand{"drops", "Packets that were dropped, by reason", debug_drops},
    DebugCommand{"local-creds", "How to reach the local API", debug_local_creds},
    DebugCommand{"localapi", "Ask the local API directly", debug_localapi},
    DebugCommand{"metrics", "Print internal metrics", debug_metrics},
    DebugCommand{"netmap", "Print the network map", debug_netmap},
    DebugCommand{"paths", "How each peer is reached, and why not directly", debug_paths},
    DebugCommand{"peer-relay-sessions", "Print the current set of active peer relay sessions relayed through this node", debug_peer_relay_sessions},
    DebugCommand{"prefs", "Print the settings", debug_prefs},
    DebugCommand{"rebind", "Open the UDP sockets again", debug_rebind},
    DebugCommand{"reload-config", "Read the configuration file again", debug_reload},
    DebugCommand{"restun", "Learn the public endpoints again", debug_restun},
    DebugCommand{"statedir", "Print the daemon's state folder", debug_statedir},
    DebugCommand{"watch-ipn", "Follow the messages of the daemon", debug_watch},
};

}  // namespace

int run_version(const Cli& cli, const Args& words) {
    bool daemon = false;
    bool as_json = false;
    bool upstream = false;
    std::string track;
    FlagSet flags("tailscale version", "[flags]", "Print the version");
    flags.add("daemon", &daemon, "also the daemon's");
    flags.add("json", &as_json, "print JSON");
    flags.add("track", &track, "not supported", Show::kHidden);
    flags.add("upstream", &upstream, "not supported", Show::kHidden);
    if (const auto exit = parse_or_exit(flags, words)) return *exit;
    if (const auto exit = refuse_words(cli, flags)) return *exit;
    if (upstream) return cli.fail("releases are the package manager's work; --upstream is not supported");
    std::string daemon_version;
    if (daemon) {
        const auto status = cli.client().status(false);
        if (!status) return cli.fail(status.error());
        daemon_version = log::printable(status->version);
    }
    if (as_json) {
        api::JsonText out;
        out.open_object().field("majorMinorPatch", kVersion).field("short", kVersion).field("long", kLongVersion);
        if (daemon) out.field("daemonLong", daemon_version);
        out.field("cap", kCapabilityVersion).close_object();
        print_out(api::indent_json(out.str(), "\t") + "\n");
    } else if (daemon) {
        print_out("Client: " + version_block() + "Daemon: " + daemon_version + "\n");
    } else {
        print_out(version_block());
    }
    return 0;
}

int run_metrics(const Cli& cli, const Args& words) {
    FlagSet flags("tailscale metrics", "[print | write PATH]", "Show metrics in Prometheus text format");
    if (const auto exit = parse_or_exit(flags, words)) return *exit;
    const Args& rest = flags.rest();
    const bool write = !rest.empty() && rest[0] == "write";
    if (!rest.empty() && !write && rest[0] != "print")
        return cli.fail("tailscale metrics: unknown subcommand: " + rest[0]);
    if (write && rest.size() != 2) return cli.fail("usage: tailscale metrics write <path>");
    const auto body = cli.client().call("GET", "usermetrics");
    if (!body) return cli.fail(body.error());
    if (!write) {
        print_out(*body);
        return 0;
    }
    // Whole or not at all: a collector may read at any moment.
    if (const Status ok = platform::replace_file(rest[1], *body, 0644); !ok) return cli.fail(ok.error().message());
    return 0;
}

int run_debug(const Cli& cli, const Args& words) {
    FlagSet flags("tailscale debug", "<subcommand>", "Look inside");
    if (const auto exit = parse_or_exit(flags, words)) {
        if (*exit == 0) {
            std::string list = "\nSUBCOMMANDS\n";
            for (const DebugCommand& c : kDebug) list += fmt::format("  {:<14} {}\n", c.name, c.summary);
            print_out(list);
        }
        return *exit;
    }
    if (flags.rest().empty()) return cli.fail("tailscale debug: subcommand or flag required");
    const Args rest(flags.rest().begin() + 1, flags.rest().end());
    for (const DebugCommand& c : kDebug)
        if (flags.rest()[0] == c.name) return c.run(cli, rest);
    return cli.fail("tailscale debug: unknown subcommand: " + flags.rest()[0]);
}

}  // namespace mesh::cli
