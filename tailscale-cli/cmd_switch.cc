// SPDX-License-Identifier: BSD-3-Clause
// switch: several accounts on one installation, one at a time.

#include <algorithm>
#include <chrono>
#include <thread>

#include <fmt/format.h>

#include "base/json.h"
#include "base/log.h"
#include "tailscale-cli/commands.h"
#include "tailscale-cli/table_text.h"

namespace mesh::cli {
namespace {

struct Profile {
    std::string id, name, account, tailnet, domain, display;
};

Profile parse_profile(const Json& j) {
    Profile p;
    p.id = json::str(j, "ID");
    p.name = json::str(j, "Name");
    if (const Json* u = json::find(j, "UserProfile")) p.account = json::str(*u, "LoginName");
    if (const Json* n = json::find(j, "NetworkProfile")) {
        p.domain = json::str(*n, "DomainName");
        p.display = json::str(*n, "DisplayName");
    }
    p.tailnet = p.display.empty() ? p.domain : p.display;
    return p;
}

struct Profiles {
    std::string current;  ///< id
    std::vector<Profile> all;

    /// By id, tailnet, account, display name, in this order.
    [[nodiscard]] const Profile* find(const std::string& word) const {
        for (const auto field : {&Profile::id, &Profile::domain, &Profile::name, &Profile::display})
            for (const Profile& p : all)
                if (p.*field == word && !word.empty()) return &p;
        return nullptr;
    }
};

ApiResult<Profiles> read_profiles(Client& client) {
    Profiles out;
    const auto current = client.call("GET", "profiles/current");
    if (!current) return tl::unexpected(current.error());
    const auto list = client.call("GET", "profiles/");
    if (!list) return tl::unexpected(list.error());
    if (const auto j = json::parse(*current); j && j->is_object()) out.current = json::str(*j, "ID");
    if (const auto j = json::parse(*list); j && j->is_array())
        for (const Json& p : *j)
            if (p.is_object()) out.all.push_back(parse_profile(p));
    return out;
}

std::string table(const Profiles& profiles) {
    std::vector<std::vector<std::string>> rows{{"ID", "Tailnet", "Account"}};
    for (const Profile& p : profiles.all)
        rows.push_back({log::printable(p.id), log::printable(p.tailnet), log::printable(p.name) + (p.id == profiles.current ? "*" : "")});
    return table_text(rows, 2, LastColumn::kBare);
}

std::string list_json(const Profiles& profiles) {
    Json out = Json::array();
    for (const Profile& p : profiles.all)
        out.push_back({{"id", p.id}, {"nickname", p.name}, {"tailnet", p.tailnet}, {"account", p.account}, {"selected", p.id == profiles.current}});
    return json::dump(out, "  ") + "\n";
}

ApiError prefixed(ApiError e, const std::string& what) {
    e.text = what + e.text;
    return e;
}

int wait_for_it(const Cli& cli, Client& client) {
    while (true) {
        const auto status = client.status(false);
        if (!status) return cli.fail(prefixed(status.error(), "Error getting status: "));
        switch (status->backend_state) {
            case api::State::kNoState:
            case api::State::kStarting: std::this_thread::sleep_for(std::chrono::milliseconds(100)); continue;
            case api::State::kRunning: print_out("Success.\n"); return 0;
            case api::State::kNeedsLogin: print_out("Logged out.\nTo log in, run:\n  tailscale up\n"); return 0;
            case api::State::kStopped: print_out("Tailscale is stopped.\n"); return 1;
            case api::State::kNeedsMachineAuth: print_out("Machine is not yet approved by tailnet admin.\n"); return 1;
            default: print_out(fmt::format("unexpected state: {}\n", api::state_name(status->backend_state))); return 1;
        }
    }
}

/// Texts of the original for what went wrong before anything was done; they stand on stdout.
int usage_error(const char* text) {
    print_out(text);
    return 1;
}

}  // namespace

int run_switch(const Cli& cli, const Args& args) {
    bool list = false, as_json = false;
    FlagSet flags("tailscale switch", "<id>", "Switch to another account of this installation",
                  "\"tailscale login\" adds an account, \"tailscale switch --list\" lists them, \"tailscale switch remove <id>\" forgets one.\n"
                  "An account is named by its id, tailnet or name.");
    flags.add("list", &list, "list the accounts");
    flags.add("json", &as_json, "list the accounts as JSON");
    if (const auto code = parse_or_exit(flags, args)) return *code;
    const Args& words = flags.rest();
    Client client = cli.client();
    const bool remove = !words.empty() && words[0] == "remove";
    if (!list && as_json) return usage_error("--json argument cannot be used with tailscale switch NAME\n");
    if (!list && remove && words.size() != 2) return usage_error("usage: tailscale switch remove NAME\n");
    if (!list && !remove && words.size() != 1) return usage_error("usage: tailscale switch NAME\n");
    const auto profiles = read_profiles(client);
    if (!profiles) return cli.fail(list ? profiles.error() : prefixed(profiles.error(), remove ? "Failed to remove account: " : "Failed to switch to account: "));
    if (list) {
        print_out(as_json ? list_json(*profiles) : table(*profiles));
        return 0;
    }
    const std::string& word = words.back();
    const Profile* chosen = profiles->find(word);
    if (chosen == nullptr) return cli.fail(fmt::format("No profile named {}", in_quotes(word)));
    if (chosen->id == profiles->current) {
        print_out(fmt::format("Already on account {}\n", in_quotes(word)));
        return 0;
    }
    const std::string endpoint = "profiles/" + http1::percent_encode(chosen->id);
    if (remove) {
        const auto done = client.call("DELETE", endpoint, "", 204);
        return done ? 0 : cli.fail(done.error());
    }
    if (const auto done = client.call("POST", endpoint, "", 204); !done) return cli.fail(prefixed(done.error(), "Failed to switch to account: "));
    print_out(fmt::format("Switching to account {}\n", in_quotes(word)));
    return wait_for_it(cli, client);
}

}  // namespace mesh::cli
