// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What the user wants. Prefs travel over the local API, lie in the state file and are compared by the CLI; one table
/// (prefs.cc) names every key once, in the order clients see. Values only, no I/O.

#include <bitset>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/keys.h"
#include "base/result.h"
#include "tailscaled/api/json_text.h"

namespace mesh::api {

struct UserProfile {
    int64_t id = 0;
    std::string login_name;
    std::string display_name;
    std::string profile_pic_url;
    bool operator==(const UserProfile&) const = default;
};
void write_user_profile(JsonText& out, const UserProfile& user);

enum class NetfilterMode : uint8_t { kOff = 0, kNoDivert = 1, kOn = 2 };
[[nodiscard]] std::string_view netfilter_mode_name(NetfilterMode m);
[[nodiscard]] std::optional<NetfilterMode> parse_netfilter_mode(std::string_view name);

/// The login that belongs to the prefs: `Config` in JSON. Never shown to clients with its keys.
struct Persist {
    NodePrivate private_node_key;
    NodePrivate old_private_node_key;
    UserProfile user_profile;
    std::string network_lock_key;  ///< "nlpriv:" + 128 hex digits, or "" (written as zeros)
    std::string node_id;           ///< stable id
    bool operator==(const Persist&) const = default;
};

struct Prefs {
    std::string control_url;
    bool route_all = false;
    std::string exit_node_id;
    std::optional<Addr> exit_node_ip;
    std::string auto_exit_node;  ///< "any" or ""
    std::string internal_exit_node_prior;
    bool exit_node_allow_lan_access = false;
    bool corp_dns = true;
    bool run_ssh = false;
    bool run_web_client = false;
    bool want_running = false;
    bool logged_out = true;
    bool shields_up = false;
    std::optional<std::vector<std::string>> advertise_tags;
    std::string hostname;
    bool notepad_urls = false;
    bool force_daemon = false;
    bool egg = false;
    std::optional<std::vector<Prefix>> advertise_routes;
    std::optional<std::vector<std::string>> advertise_services;
    std::optional<bool> sync;
    bool no_snat = false;
    std::optional<bool> no_stateful_filtering = true;
    NetfilterMode netfilter_mode = NetfilterMode::kOn;
    std::string operator_user;
    std::string profile_name;
    bool auto_update_check = true;
    std::optional<bool> auto_update_apply;
    bool app_connector_advertise = false;
    bool posture_checking = false;
    std::string netfilter_kind;
    bool remote_config = false;
    std::string drive_shares_json = "null";  ///< kept as given, not interpreted
    std::optional<uint16_t> relay_server_port;
    std::vector<Endpoint> relay_server_static_endpoints;
    std::optional<Persist> persist;

    bool operator==(const Prefs&) const = default;

    /// 0.0.0.0/0 and ::/0 both advertised.
    [[nodiscard]] bool advertises_exit_node() const;
    /// Adds or removes the two default routes.
    void set_advertise_exit_node(bool on);
    /// Advertised routes without the two default routes.
    [[nodiscard]] std::vector<Prefix> subnet_routes() const;
    [[nodiscard]] bool has_exit_node() const { return !exit_node_id.empty() || exit_node_ip.has_value(); }
};

/// What the fields of `Config` show. The state file needs the keys, everybody else gets zeros.
enum class Secrets : uint8_t { kRedacted, kShown };

/// All keys in the order clients expect, compact.
void write_prefs(JsonText& out, const Prefs& prefs, Secrets secrets);
[[nodiscard]] std::string prefs_json(const Prefs& prefs, Secrets secrets = Secrets::kRedacted);

/// Unknown keys are ignored, absent ones keep the value of `base`. A wrong type or a malformed address is an error
/// whose text names the key or, for addresses, equals `ParseAddr("x"): unable to parse IP`.
[[nodiscard]] Result<Prefs> parse_prefs(std::string_view json, const Prefs& base = {});

/// One per maskable key; AutoUpdate has two.
enum class PrefField : uint8_t {
    kControlUrl,
    kRouteAll,
    kExitNodeId,
    kExitNodeIp,
    kAutoExitNode,
    kInternalExitNodePrior,
    kExitNodeAllowLanAccess,
    kCorpDns,
    kRunSsh,
    kRunWebClient,
    kWantRunning,
    kLoggedOut,
    kShieldsUp,
    kAdvertiseTags,
    kHostname,
    kNotepadUrls,
    kForceDaemon,
    kEgg,
    kAdvertiseRoutes,
    kAdvertiseServices,
    kSync,
    kNoSnat,
    kNoStatefulFiltering,
    kNetfilterMode,
    kOperatorUser,
    kProfileName,
    kAutoUpdateCheck,
    kAutoUpdateApply,
    kAppConnector,
    kPostureChecking,
    kNetfilterKind,
    kRemoteConfig,
    kDriveShares,
    kRelayServerPort,
    kRelayServerStaticEndpoints,
    kCount,
};
using PrefMask = std::bitset<static_cast<size_t>(PrefField::kCount)>;

/// A change of some keys: body of PATCH prefs.
struct MaskedPrefs {
    Prefs prefs;
    PrefMask mask;

    void set(PrefField f) { mask.set(static_cast<size_t>(f)); }
    [[nodiscard]] bool has(PrefField f) const { return mask.test(static_cast<size_t>(f)); }
    /// Copies the masked fields into `target`; everything else, `Config` above all, stays.
    void apply_to(Prefs& target) const;
};
/// Errors as parse_prefs(); a mask on an internal field is refused with "can't set Internal fields".
[[nodiscard]] Result<MaskedPrefs> parse_masked_prefs(std::string_view json);
/// The body the CLI sends: all keys, then the true mask keys.
[[nodiscard]] std::string masked_prefs_json(const MaskedPrefs& m);

/// Fields whose values differ.
[[nodiscard]] PrefMask differing_fields(const Prefs& a, const Prefs& b);

/// Body of POST start.
struct StartOptions {
    std::string frontend_log_id;
    std::optional<Prefs> update_prefs;  ///< full prefs; `persist` is not taken over
    std::string auth_key;               ///< secret
};
[[nodiscard]] Result<StartOptions> parse_start_options(std::string_view json);
[[nodiscard]] std::string start_options_json(const StartOptions& options);

/// Rules that need no knowledge of the node: routes without host bits, no exit node while advertising one, tag syntax.
[[nodiscard]] Status check_prefs(const Prefs& prefs);
/// "tag:" + a letter + letters, digits, dashes.
[[nodiscard]] Status check_tag(std::string_view tag);

/// One login the daemon can switch to.
struct LoginProfile {
    std::string id;
    std::string name;
    std::string magic_dns_name;
    std::string domain_name;
    std::string display_name;
    std::string key;  ///< key in the state file
    UserProfile user_profile;
    std::string node_id;
    std::string local_user_id;
    std::string control_url;
    WallTime created;
};
void write_login_profile(JsonText& out, const LoginProfile& p);

}  // namespace mesh::api
