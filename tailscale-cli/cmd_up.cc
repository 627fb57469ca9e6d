// SPDX-License-Identifier: BSD-3-Clause
// up, login: decide what has to happen (settings.h), tell the daemon, and wait on the bus until the node runs.

#include <fmt/format.h>

#include <cstdlib>

#include "base/bytes.h"
#include "base/json.h"
#include "base/log.h"
#include "platform/file.h"
#include "tailscale-cli/commands.h"
#include "tailscale-cli/qr.h"
#include "tailscale-cli/settings.h"

namespace mesh::cli {
namespace {

constexpr const char* kTimeoutText =
    "timeout waiting for Tailscale service to enter a Running state; check health with \"tailscale status\"";

std::string environment(const char* name) {
    const char* v = std::getenv(name);
    return v ? v : "";
}

/// "file:PATH" → content without white space around it.
Result<std::string> read_auth_key(const std::string& given) {
    if (!given.starts_with("file:")) return given;
    const std::string path = given.substr(5);
    auto text = platform::read_file(path, 64U << 10);
    if (!text) {
        const std::string why = text.error().sys_errno != 0 ? errno_text(text.error().sys_errno)
                                : text.error().code == Code::kNotFound ? std::string("no such file or directory")
                                                                        : text.error().message();
        return fail(Code::kNotFound, fmt::format("open {}: {}", path, why));
    }
    return trimmed(*text);
}

void print_url_json(const std::string& url, api::State state) {
    api::JsonText out;
    out.open_object().field("AuthURL", url);
    const std::string png = qr_png(url);
    if (!png.empty()) out.field("QR", "data:image/png;base64," + base64_encode(as_bytes(png)));
    out.field("BackendState", api::state_name(state)).close_object();
    print_out(api::indent_json(out.str(), "\t") + "\n");
}

void print_final_json(api::State state) {
    api::JsonText out;
    out.open_object().field("BackendState", api::state_name(state)).close_object();
    print_out(api::indent_json(out.str(), "  ") + "\n");
}

/// Health lines that have to do with what `up` just did.
void print_worthy_warnings(Client& client) {
    const auto s = client.status(false);
    if (!s) return;
    std::vector<std::string> worthy;
    for (const std::string& h : s->health) {
        for (const std::string_view part :
             {"--accept-routes is false", "Tailscale SSH enabled, but", "locked out", "pdate available: "}) {
            if (h.find(part) == std::string::npos) continue;
            worthy.push_back(log::printable(h, 2000));
            break;
        }
    }
    if (worthy.size() == 1) print_out(worthy[0] + "\n");
    if (worthy.size() < 2) return;
    std::string out = "# Health check warnings:\n";
    for (const std::string& w : worthy) out += "#     - " + w + "\n";
    print_out(out);
}

/// Follows a login to its end.
class Wait {
   public:
    Wait(const Cli& cli, Client& client, const UpArgs& args, const api::DaemonStatus& before, Time deadline)
        : cli_(cli), client_(client), args_(args), before_(before), deadline_(deadline) {}

    int run(Bus& bus, bool ask_login) {
        bool asked = !ask_login;
        while (true) {
            if (!asked) {
                asked = true;
                if (auto ok = client_.call("POST", "login-interactive", "", 204, deadline_); !ok)
                    return failed(ok.error());
            }
            const auto line = bus.next(deadline_);
            if (!line) return failed(line.error());
            const auto n = api::parse_notify(*line);
            if (!n) continue;  // unknown things are for newer programs
            if (const auto exit = handle(*n)) return *exit;
        }
    }

   private:
    [[nodiscard]] int failed(const ApiError& error) const {
        if (error.kind != ApiError::Kind::kTimeout) return cli_.fail(error);
        // Why it took too long, if the daemon knows; the last line is the one scripts wait for.
        if (const auto s = client_.status(false))
            for (const std::string& h : s->health)
                if (h != "Tailscale is starting. Please wait." && !h.starts_with("You are logged out."))
                    print_err(log::printable(h, 2000) + "\n");
        return cli_.fail(kTimeoutText);
    }

    std::optional<int> handle(const api::NotifySummary& n) {
        if (n.err_message) return cli_.fail("backend error: " + log::printable(*n.err_message, 2000));
        if (n.self_key && *n.self_key != before_.self.public_key) new_key_ = true;
        if (n.state) state_ = *n.state;
        if (n.state == api::State::kNeedsMachineAuth) tell_approval();
        // Under --force-reauth the daemon still is Running with the old key when the new login starts.
        const bool over = !args_.force_reauth || new_key_;
        if (state_ == api::State::kRunning && over) {
            if (args_.json)
                print_final_json(api::State::kRunning);
            else if (printed_)
                print_err("Success.\n");
            return 0;
        }
        if (n.browse_to_url && !n.browse_to_url->empty()) tell_url(*n.browse_to_url);
        return std::nullopt;
    }

    void tell_url(const std::string& raw) {
        // A key was given, so nobody should be sent to a browser; an old URL is no use for a new login.
        if (!args_.auth_key.empty() || raw == told_url_) return;
        if (args_.force_reauth && raw == before_.auth_url) return;
        told_url_ = raw;
        const std::string url = log::printable(raw, 2000);
        printed_ = true;
        if (args_.json) return print_url_json(url, state_.value_or(before_.backend_state));
        print_err(fmt::format("\nTo authenticate, visit:\n\n\t{}\n\n", url));
        if (args_.qr) {
            const auto format = parse_qr_format(args_.qr_format);
            print_err(qr_text(url, format.value_or(QrFormat::kSmall)) + "\n");
        }
    }

    void tell_approval() {
        printed_ = true;
        if (args_.json) return print_final_json(api::State::kNeedsMachineAuth);
        print_err(fmt::format("\nTo approve your machine, visit (as admin):\n\n\t{}/admin/machines\n\n",
                              log::printable(args_.settings.login_server, 2000)));
    }

    const Cli& cli_;
    Client& client_;
    const UpArgs& args_;
    const api::DaemonStatus& before_;
    const Time deadline_;
    std::optional<api::State> state_;
    std::string told_url_;
    bool printed_ = false;
    bool new_key_ = false;
};

int up(const Cli& cli, Command command, const UpArgs& args, const FlagSet& flags) {
    Client client = cli.client();
    if (!parse_qr_format(args.qr_format))
        return cli.fail(fmt::format("invalid value {} for --qr-format; use auto, ascii, large or small",
                                    in_quotes(args.qr_format)));
    if (!args.client_id.empty() || !args.client_secret.empty() || !args.id_token.empty() || !args.audience.empty())
        return cli.fail("keys by OAuth or workload identity exist at the vendor's service only; use --auth-key");
    if (!args.host_routes) return cli.fail("--host-routes=false is not supported");

    const auto status = client.status();
    if (!status) return cli.fail_explained(status.error());
    auto built = prefs_from_up(args.settings, *status);
    if (!built) return cli.fail(built.error().message());
    for (const std::string& w : built->warnings) print_out("Warning: " + w + "\n");
    api::Prefs& prefs = built->prefs;
    if (prefs.advertise_routes || prefs.app_connector_advertise) {
        if (const auto ok = print_forwarding_warnings(client); !ok) return cli.fail(ok.error());
    }
    const auto current = client.prefs();
    if (!current) return cli.fail(current.error());

    const Time deadline = args.timeout.ns > 0 ? steady_now() + args.timeout : Time{};
    UpDecision decision;
    if (command == Command::kUp) {
        auto decided = decide_up(args, flags, prefs, *current, *status, {environment("USER")});
        if (!decided) return cli.fail(decided.error().message());
        decision = std::move(*decided);
        if (args.force_reauth)
            warn_ssh_risk(args.accept_risk,
                          "You are connected over this network; logging in again may end your SSH session.");
        else if (prefs.run_ssh != current->run_ssh)
            warn_ssh_risk(args.accept_risk, "You are connected over this network; this may end your SSH session.");
    }
    if (decision.edit) {
        if (const auto ok = client.edit_prefs(*decision.edit); !ok) return cli.fail(ok.error());
        print_worthy_warnings(client);
        return 0;
    }
    // Nothing to wait for: up already and nothing asked.
    if (decision.simple && status->backend_state == api::State::kRunning) {
        api::MaskedPrefs edit;
        edit.prefs.want_running = true;
        edit.set(api::PrefField::kWantRunning);
        if (const auto ok = client.edit_prefs(edit); !ok) return cli.fail(ok.error());
        if (args.json) print_final_json(api::State::kRunning);
        print_worthy_warnings(client);
        return 0;
    }

    auto key = read_auth_key(args.auth_key);
    if (!key) return cli.fail(key.error().message());
    catch_interrupts();
    auto bus = client.watch(0, deadline);
    if (!bus) return cli.fail(bus.error());
    bool ask_login = false;
    if (decision.simple) {
        api::MaskedPrefs edit;
        edit.prefs.want_running = true;
        edit.set(api::PrefField::kWantRunning);
        if (const auto ok = client.edit_prefs(edit); !ok) return cli.fail(ok.error());
    } else {
        if (const auto ok = client.check_prefs(prefs); !ok) return cli.fail(ok.error());
        api::StartOptions options;
        options.auth_key = *key;
        options.update_prefs = prefs;
        if (const auto ok = client.call("POST", "start", api::start_options_json(options), 204); !ok)
            return cli.fail(ok.error());
        ask_login = args.force_reauth || !status->have_node_key || command == Command::kLogin;
    }
    // A node that was up and needs no login is up again (or still) without a word on the bus.
    if (!ask_login && !decision.simple && status->backend_state == api::State::kRunning) {
        const auto now = client.status(false);
        if (now && now->backend_state == api::State::kRunning) {
            if (args.json) print_final_json(api::State::kRunning);
            print_worthy_warnings(client);
            return 0;
        }
    }
    Wait wait(cli, client, args, *status, deadline);
    const int exit = wait.run(*bus, ask_login);
    if (exit == 0) print_worthy_warnings(client);
    return exit;
}

}  // namespace

ApiResult<void> print_forwarding_warnings(Client& client) {
    for (const char* endpoint : {"check-ip-forwarding", "check-udp-gro-forwarding"}) {
        const auto body = client.call("GET", endpoint);
        if (!body) return tl::unexpected(body.error());
        const auto j = json::parse(*body);
        const std::string warning = j ? json::str(*j, "Warning") : "";
        if (warning.empty()) continue;
        std::string text = "Warning: ";
        for (const std::string& line : split(warning, '\n')) text += log::printable(line, 2000) + "\n";
        print_out(text);
    }
    return {};
}

int run_up(const Cli& cli, const Args& words) {
    UpArgs args;
    FlagSet flags("tailscale up", "[flags]", "Connect to the network, logging in if needed",
                  "Without flags, connects with the settings there are.\n\n"
                  "With flags, these are the complete settings: a setting that would change because its flag\n"
                  "was left out is an error, unless --reset is given. Use \"tailscale set\" to change single\n"
                  "settings. --auth-key, --force-reauth and --qr are actions, not settings.");
    add_up_flags(flags, args, Command::kUp);
    if (const auto exit = parse_or_exit(flags, words)) return *exit;
    if (const auto exit = refuse_words(cli, flags)) return *exit;
    return up(cli, Command::kUp, args, flags);
}

int run_login(const Cli& cli, const Args& words) {
    UpArgs args;
    FlagSet flags("tailscale login", "[flags]", "Log in to one more account; 'tailscale switch' goes back to the others",
                  "Logs this node in with the settings given; settings not named get their defaults.");
    add_up_flags(flags, args, Command::kLogin);
    if (const auto exit = parse_or_exit(flags, words)) return *exit;
    if (const auto exit = refuse_words(cli, flags)) return *exit;
    // An account of its own: the one in use stays in the list of `switch`.
    if (const auto fresh = cli.client().call("PUT", "profiles/", "", 201); !fresh) return cli.fail_explained(fresh.error());
    args.force_reauth = true;
    return up(cli, Command::kLogin, args, flags);
}

}  // namespace mesh::cli
