// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Settings as flags: from the command line to prefs, from prefs back to flags, and the check that `up` does not undo
/// a setting by accident. Pure.

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "tailscale-cli/flags.h"
#include "tailscaled/api/prefs.h"
#include "tailscaled/api/status.h"

namespace mesh::cli {

/// What the vendor's service uses; stands for "not chosen" in `up`.
inline constexpr const char* kDefaultLoginServer = "https://controlplane.tailscale.com";

/// Values of all flags of `up`, `login` and `set`, with the defaults of `up`.
struct SettingArgs {
    bool accept_dns = true;
    bool accept_routes = false;
    bool advertise_connector = false;
    bool advertise_exit_node = false;
    std::string advertise_routes;
    std::string advertise_tags;
    std::string exit_node;
    bool exit_node_allow_lan_access = false;
    std::string hostname;
    std::string login_server = kDefaultLoginServer;
    std::string netfilter_mode = "on";
    std::string operator_user;
    bool report_posture = false;
    bool shields_up = false;
    bool snat_subnet_routes = true;
    bool ssh = false;
    bool stateful_filtering = false;
    // Only `set` (and nickname in `login`).
    bool auto_update = false;
    bool update_check = true;
    std::string nickname;
    bool webclient = false;
    std::string relay_server_port;
    std::string relay_server_static_endpoints;
    bool sync = true;
    bool remote_config = false;
};

/// Flags that only act and leave no setting.
struct UpArgs {
    SettingArgs settings;
    std::string auth_key;
    std::string client_id, client_secret, id_token, audience;
    bool force_reauth = false;
    bool reset = false;
    bool qr = false;
    std::string qr_format = "auto";
    bool json = false;
    Duration timeout;
    std::string accept_risk;
    bool host_routes = true;
};

enum class Command : uint8_t { kUp, kLogin, kSet };
void add_setting_flags(FlagSet& flags, SettingArgs& args, Command command);
void add_up_flags(FlagSet& flags, UpArgs& args, Command command);

struct BuiltPrefs {
    api::Prefs prefs;
    std::vector<std::string> warnings;  ///< for stdout, "Warning: " not included
};
/// Complete prefs as `up` sends them.
[[nodiscard]] Result<BuiltPrefs> prefs_from_up(const SettingArgs& args, const api::DaemonStatus& status);
/// Only what `given` names; routes and exit node are completed from `current`.
struct BuiltEdit {
    api::MaskedPrefs edit;
    std::vector<std::string> warnings;
    bool touches_routes = false;
};
[[nodiscard]] Result<BuiltEdit> edit_from_set(const SettingArgs& args, const FlagSet& flags, const api::Prefs& current,
                                              const api::DaemonStatus& status);

/// Marks the prefs behind one flag of up or set. Flags without a pref do nothing.
void mark_flag(api::MaskedPrefs& edit, const std::string& flag);

/// A setting's value as the flag shows it; booleans are "true" and "false".
[[nodiscard]] std::string setting_value(const std::string& flag, const api::Prefs& prefs,
                                        const api::DaemonStatus& status);
[[nodiscard]] bool setting_is_bool(const std::string& flag);
/// Sorted names of all settings of `up`, or of `set` and `get`.
[[nodiscard]] std::vector<std::string> up_settings();
[[nodiscard]] std::vector<std::string> get_settings();

/// Two login servers that are one.
[[nodiscard]] bool same_login_server(const std::string& a, const std::string& b);

struct UpDecision {
    bool simple = false;                     ///< no flags, known login: only WantRunning
    std::optional<api::MaskedPrefs> edit;    ///< running: change prefs, no new login
};
struct UpContext {
    std::string user;  ///< $USER
};
/// Completes `prefs` (operator kept for its own user) and decides what `up` does; the error is the text for stderr.
[[nodiscard]] Result<UpDecision> decide_up(const UpArgs& args, const FlagSet& flags, api::Prefs& prefs,
                                           const api::Prefs& current, const api::DaemonStatus& status,
                                           const UpContext& context);

/// Errors as people know them: `"x!" is not a valid DNS label: must end with a letter or number`.
[[nodiscard]] Status check_hostname(const std::string& hostname);
/// "a,b/8" → sorted prefixes; host bits and missing counterparts of default routes are errors.
[[nodiscard]] Result<std::vector<Prefix>> parse_routes(const std::string& text, bool exit_node);

}  // namespace mesh::cli
