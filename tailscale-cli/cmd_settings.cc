// SPDX-License-Identifier: BSD-3-Clause
// set, get, down, logout.

#include <algorithm>

#include "base/log.h"
#include "tailscale-cli/commands.h"
#include "tailscale-cli/settings.h"
#include "tailscale-cli/table_text.h"

namespace mesh::cli {

int run_set(const Cli& cli, const Args& words) {
    SettingArgs args;
    std::string accept_risk;
    FlagSet flags("tailscale set", "[flags]", "Change single settings",
                  "Only what is named changes; there are no defaults.");
    add_setting_flags(flags, args, Command::kSet);
    flags.add("accept-risk", &accept_risk, "skip the warning of this kind: lose-ssh or all");
    if (const auto exit = parse_or_exit(flags, words)) return *exit;
    if (const auto exit = refuse_words(cli, flags)) return *exit;
    std::set<std::string> named = flags.given();
    named.erase("accept-risk");
    if (named.empty()) {
        print_err(flags.usage());
        return 0;
    }
    Client client = cli.client();
    const auto status = client.status();
    if (!status) return cli.fail(status.error());
    const auto current = client.prefs();
    if (!current) return cli.fail(current.error());
    auto built = edit_from_set(args, flags, *current, *status);
    if (!built) return cli.fail(built.error().message());
    if (built->touches_routes) {
        if (const auto ok = print_forwarding_warnings(client); !ok) return cli.fail(ok.error());
    }
    for (const std::string& w : built->warnings) print_out("Warning: " + w + "\n");
    if (flags.given("ssh") && args.ssh != current->run_ssh)
        warn_ssh_risk(accept_risk, "You are connected over this network; this may end your SSH session.");
    api::Prefs merged = *current;
    built->edit.apply_to(merged);
    if (const auto ok = client.check_prefs(merged); !ok) return cli.fail(ok.error());
    if (const auto ok = client.edit_prefs(built->edit); !ok) return cli.fail(ok.error());
    return 0;
}

int run_get(const Cli& cli, const Args& words) {
    bool as_json = false;
    bool as_flags = false;
    FlagSet flags("tailscale get", "[flags] [setting|all]", "Show settings");
    flags.add("json", &as_json, "print JSON");
    flags.add("set-flags", &as_flags, "print as flags of \"tailscale set\"");
    if (const auto exit = parse_or_exit(flags, words)) return *exit;
    if (flags.rest().size() > 1) return cli.fail("expected at most one setting name");
    Client client = cli.client();
    const auto prefs = client.prefs();
    if (!prefs) return cli.fail(prefs.error());
    const auto status = client.status();
    if (!status) return cli.fail(status.error());
    std::vector<std::string> names = get_settings();
    const bool one = !flags.rest().empty() && flags.rest()[0] != "all";
    if (one) {
        const std::string& name = flags.rest()[0];
        if (std::find(names.begin(), names.end(), name) == names.end())
            return cli.fail(
                "unknown setting " + in_quotes(name) + "; see \"tailscale set --help\" for valid settings");
        names = {name};
    }
    const auto value = [&](const std::string& name) { return setting_value(name, *prefs, *status); };
    if (as_json) {
        api::JsonText out;
        out.open_object();
        for (const std::string& n : names) {
            const auto b = setting_is_bool(n) ? parse_bool(value(n)) : std::nullopt;
            b ? out.field(n, *b) : out.field(n, value(n));
        }
        out.close_object();
        print_out(api::indent_json(out.str(), "  ") + "\n");
    } else if (as_flags) {
        std::string line;
        for (const std::string& n : names) {
            const std::string v = value(n);
            if (!line.empty()) line += ' ';
            line += setting_is_bool(n) && v == "true" ? "--" + n : "--" + n + "=" + (v.empty() ? "" : shell_quoted(v));
        }
        print_out(line + "\n");
    } else if (one) {
        print_out(value(names[0]) + "\n");
    } else {
        std::vector<std::vector<std::string>> rows{{"NAME", "VALUE"}};
        for (const std::string& n : names) rows.push_back({n, log::printable(value(n), 2000)});
        print_out(table_text(rows, 2, LastColumn::kBare));
    }
    return 0;
}

int run_down(const Cli& cli, const Args& words) {
    std::string accept_risk;
    std::string reason;
    FlagSet flags("tailscale down", "[flags]", "Disconnect from the network");
    flags.add("accept-risk", &accept_risk, "skip the warning of this kind: lose-ssh or all");
    flags.add("reason", &reason, "why; told to the daemon");
    if (const auto exit = parse_or_exit(flags, words)) return *exit;
    if (const auto exit = refuse_words(cli, flags)) return *exit;
    warn_ssh_risk(accept_risk, "You are connected over this network; disconnecting ends your SSH session.");
    Client client = cli.client();
    const auto status = client.status();
    if (!status) {
        ApiError e = status.error();
        e.text = "error fetching current status: " + e.text;
        return cli.fail(e);
    }
    if (status->backend_state == api::State::kStopped) {
        print_err("Tailscale was already stopped.\n");
        return 0;
    }
    client.set_reason(reason);
    api::MaskedPrefs edit;
    edit.prefs.want_running = false;
    edit.set(api::PrefField::kWantRunning);
    if (const auto ok = client.edit_prefs(edit); !ok) return cli.fail(ok.error());
    return 0;
}

int run_logout(const Cli& cli, const Args& words) {
    std::string reason;
    FlagSet flags("tailscale logout", "[flags]", "Disconnect and give up this node's key",
                  "The next login needs a new authentication.");
    flags.add("reason", &reason, "why; told to the daemon");
    if (const auto exit = parse_or_exit(flags, words)) return *exit;
    if (const auto exit = refuse_words(cli, flags)) return *exit;
    Client client = cli.client();
    client.set_reason(reason);
    if (const auto ok = client.call("POST", "logout", "", 204); !ok) return cli.fail(ok.error());
    return 0;
}

}  // namespace mesh::cli
