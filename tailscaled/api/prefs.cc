// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/api/prefs.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/json.h"
#include "tailscaled/api/read_json.h"

namespace mesh::api {
namespace {

// ---- one codec per type of value; `get` is only called for values that are not null

Status wrong(const char* what) { return fail(Code::kInvalid, what); }

void put(JsonText& out, const std::string& v) { out.text(v); }
void put(JsonText& out, bool v) { out.boolean(v); }
void put(JsonText& out, NetfilterMode v) { out.integer(static_cast<int64_t>(v)); }
void put(JsonText& out, const std::optional<bool>& v) { v ? out.boolean(*v) : out.null(); }
void put(JsonText& out, const std::optional<Addr>& v) { out.text(v ? v->str() : std::string()); }
void put(JsonText& out, const std::optional<uint16_t>& v) { v ? out.integer(*v) : out.null(); }
void put(JsonText& out, const std::optional<std::vector<std::string>>& v) {
    if (!v) {
        out.null();
        return;
    }
    out.open_array();
    for (const std::string& s : *v) out.text(s);
    out.close_array();
}
void put(JsonText& out, const std::optional<std::vector<Prefix>>& v) {
    if (!v) {
        out.null();
        return;
    }
    out.open_array();
    for (const Prefix& p : *v) out.text(p.str());
    out.close_array();
}
void put(JsonText& out, const std::vector<Endpoint>& v) {
    out.open_array();
    for (const Endpoint& e : v) out.text(e.str());
    out.close_array();
}

Status get(const Json& j, std::string& v) {
    if (!j.is_string()) return wrong("want a string");
    v = j.get<std::string>();
    return {};
}
Status get(const Json& j, bool& v) {
    if (!j.is_boolean()) return wrong("want true or false");
    v = j.get<bool>();
    return {};
}
Status get(const Json& j, std::optional<bool>& v) {
    bool b = false;
    TRY(get(j, b));
    v = b;
    return {};
}
Status get(const Json& j, NetfilterMode& v) {
    if (!j.is_number_integer()) return wrong("want a number");
    const auto n = j.get<int64_t>();
    if (n < 0 || n > 2) return wrong("want 0, 1 or 2");
    v = static_cast<NetfilterMode>(n);
    return {};
}
Status get(const Json& j, std::optional<Addr>& v) {
    std::string s;
    TRY(get(j, s));
    v.reset();
    if (s.empty()) return {};
    v = Addr::parse(s);
    if (!v) return fail(Code::kInvalid, fmt::format("ParseAddr({}): unable to parse IP", json::dump(Json(s))));
    return {};
}
Status get(const Json& j, std::optional<uint16_t>& v) {
    if (!j.is_number_integer()) return wrong("want a number");
    const auto n = j.get<int64_t>();
    if (n < 0 || n > 65535) return wrong("want a port");
    v = static_cast<uint16_t>(n);
    return {};
}
constexpr size_t kMaxListed = 4096;  // routes, tags: a bound against senseless input
Status get(const Json& j, std::optional<std::vector<std::string>>& v) {
    if (!j.is_array() || j.size() > kMaxListed) return wrong("want a list of strings");
    std::vector<std::string> out;
    for (const Json& e : j) {
        std::string s;
        TRY(get(e, s));
        out.push_back(std::move(s));
    }
    v = std::move(out);
    return {};
}
Status get(const Json& j, std::optional<std::vector<Prefix>>& v) {
    if (!j.is_array() || j.size() > kMaxListed) return wrong("want a list of prefixes");
    std::vector<Prefix> out;
    for (const Json& e : j) {
        std::string s;
        TRY(get(e, s));
        const auto p = Prefix::parse(s);
        if (!p || s.find('/') == std::string::npos)
            return fail(Code::kInvalid, fmt::format("{} is no prefix", json::dump(Json(s))));
        out.push_back(*p);
    }
    v = std::move(out);
    return {};
}
Status get(const Json& j, std::vector<Endpoint>& v) {
    if (!j.is_array() || j.size() > kMaxListed) return wrong("want a list of ip:port");
    std::vector<Endpoint> out;
    for (const Json& e : j) {
        std::string s;
        TRY(get(e, s));
        const auto p = Endpoint::parse(s);
        if (!p) return fail(Code::kInvalid, fmt::format("{} is no ip:port", json::dump(Json(s))));
        out.push_back(*p);
    }
    v = std::move(out);
    return {};
}

template <class T>
bool absent(const T& v) {
    return v == T{};
}

// ---- the table

struct Entry {
    PrefField field;
    const char* key;
    void (*write)(JsonText&, const char* key, const Prefs&);
    Status (*read)(const Json&, Prefs&);
    bool (*equal)(const Prefs&, const Prefs&);
    void (*copy)(const Prefs& from, Prefs& to);
};

enum class Presence { kAlways, kOmitEmpty };

template <auto Member, Presence presence = Presence::kAlways>
constexpr Entry entry(PrefField field, const char* key) {
    return {field, key,
            [](JsonText& out, const char* k, const Prefs& p) {
                if (presence == Presence::kOmitEmpty && absent(p.*Member)) return;
                out.key(k);
                put(out, p.*Member);
            },
            [](const Json& j, Prefs& p) { return get(j, p.*Member); },
            [](const Prefs& a, const Prefs& b) { return a.*Member == b.*Member; },
            [](const Prefs& from, Prefs& to) { to.*Member = from.*Member; }};
}

/// `AutoUpdate` holds two maskable values; the first entry reads and writes the object for both.
constexpr Entry auto_update_check() {
    Entry e = entry<&Prefs::auto_update_check>(PrefField::kAutoUpdateCheck, "AutoUpdate");
    e.write = [](JsonText& out, const char* k, const Prefs& p) {
        out.key(k).open_object().field("Check", p.auto_update_check).key("Apply");
        put(out, p.auto_update_apply);
        out.close_object();
    };
    e.read = [](const Json& j, Prefs& p) -> Status {
        if (!j.is_object()) return wrong("want an object");
        p.auto_update_check = json::boolean(j, "Check", p.auto_update_check);
        if (j.contains("Apply")) p.auto_update_apply = json::opt_bool(j, "Apply");
        return {};
    };
    return e;
}
constexpr Entry auto_update_apply() {
    Entry e = entry<&Prefs::auto_update_apply>(PrefField::kAutoUpdateApply, nullptr);
    e.write = nullptr;
    e.read = nullptr;
    return e;
}
constexpr Entry app_connector() {
    Entry e = entry<&Prefs::app_connector_advertise>(PrefField::kAppConnector, "AppConnector");
    e.write = [](JsonText& out, const char* k, const Prefs& p) {
        out.key(k).open_object().field("Advertise", p.app_connector_advertise).close_object();
    };
    e.read = [](const Json& j, Prefs& p) -> Status {
        if (!j.is_object()) return wrong("want an object");
        p.app_connector_advertise = json::boolean(j, "Advertise", p.app_connector_advertise);
        return {};
    };
    return e;
}
constexpr Entry drive_shares() {
    Entry e = entry<&Prefs::drive_shares_json>(PrefField::kDriveShares, "DriveShares");
    e.write = [](JsonText& out, const char* k, const Prefs& p) { out.key(k).raw(p.drive_shares_json); };
    e.read = [](const Json& j, Prefs& p) -> Status {
        if (!j.is_array()) return wrong("want a list");
        p.drive_shares_json = json::dump(j);
        return {};
    };
    return e;
}

constexpr auto kOmit = Presence::kOmitEmpty;
constexpr std::array<Entry, static_cast<size_t>(PrefField::kCount)> kTable = {{
    entry<&Prefs::control_url>(PrefField::kControlUrl, "ControlURL"),
    entry<&Prefs::route_all>(PrefField::kRouteAll, "RouteAll"),
    entry<&Prefs::exit_node_id>(PrefField::kExitNodeId, "ExitNodeID"),
    entry<&Prefs::exit_node_ip>(PrefField::kExitNodeIp, "ExitNodeIP"),
    entry<&Prefs::auto_exit_node, kOmit>(PrefField::kAutoExitNode, "AutoExitNode"),
    entry<&Prefs::internal_exit_node_prior>(PrefField::kInternalExitNodePrior, "InternalExitNodePrior"),
    entry<&Prefs::exit_node_allow_lan_access>(PrefField::kExitNodeAllowLanAccess, "ExitNodeAllowLANAccess"),
    entry<&Prefs::corp_dns>(PrefField::kCorpDns, "CorpDNS"),
    entry<&Prefs::run_ssh>(PrefField::kRunSsh, "RunSSH"),
    entry<&Prefs::run_web_client>(PrefField::kRunWebClient, "RunWebClient"),
    entry<&Prefs::want_running>(PrefField::kWantRunning, "WantRunning"),
    entry<&Prefs::logged_out>(PrefField::kLoggedOut, "LoggedOut"),
    entry<&Prefs::shields_up>(PrefField::kShieldsUp, "ShieldsUp"),
    entry<&Prefs::advertise_tags>(PrefField::kAdvertiseTags, "AdvertiseTags"),
    entry<&Prefs::hostname>(PrefField::kHostname, "Hostname"),
    entry<&Prefs::notepad_urls>(PrefField::kNotepadUrls, "NotepadURLs"),
    entry<&Prefs::force_daemon, kOmit>(PrefField::kForceDaemon, "ForceDaemon"),
    entry<&Prefs::egg, kOmit>(PrefField::kEgg, "Egg"),
    entry<&Prefs::advertise_routes>(PrefField::kAdvertiseRoutes, "AdvertiseRoutes"),
    entry<&Prefs::advertise_services>(PrefField::kAdvertiseServices, "AdvertiseServices"),
    entry<&Prefs::sync>(PrefField::kSync, "Sync"),
    entry<&Prefs::no_snat>(PrefField::kNoSnat, "NoSNAT"),
    entry<&Prefs::no_stateful_filtering, kOmit>(PrefField::kNoStatefulFiltering, "NoStatefulFiltering"),
    entry<&Prefs::netfilter_mode>(PrefField::kNetfilterMode, "NetfilterMode"),
    entry<&Prefs::operator_user, kOmit>(PrefField::kOperatorUser, "OperatorUser"),
    entry<&Prefs::profile_name, kOmit>(PrefField::kProfileName, "ProfileName"),
    auto_update_check(),
    auto_update_apply(),
    app_connector(),
    entry<&Prefs::posture_checking>(PrefField::kPostureChecking, "PostureChecking"),
    entry<&Prefs::netfilter_kind>(PrefField::kNetfilterKind, "NetfilterKind"),
    entry<&Prefs::remote_config>(PrefField::kRemoteConfig, "RemoteConfig"),
    drive_shares(),
    entry<&Prefs::relay_server_port, kOmit>(PrefField::kRelayServerPort, "RelayServerPort"),
    entry<&Prefs::relay_server_static_endpoints, kOmit>(PrefField::kRelayServerStaticEndpoints,
                                                        "RelayServerStaticEndpoints"),
}};

Status read_all(const Json& j, Prefs& prefs) {
    if (!j.is_object()) return fail(Code::kInvalid, "prefs must be a JSON object");
    for (const Entry& e : kTable) {
        if (!e.read) continue;
        const Json* v = json::find(j, e.key);
        if (!v) {
            // An explicit null resets what can be unset.
            if (e.field == PrefField::kNoStatefulFiltering && j.contains(e.key)) prefs.no_stateful_filtering.reset();
            continue;
        }
        if (Status s = e.read(*v, prefs); !s) {
            if (e.field == PrefField::kExitNodeIp) return s;  // clients know this text
            return fail(Code::kInvalid, fmt::format("{}: {}", e.key, s.error().context));
        }
    }
    return {};
}

std::string no_lock_key() { return "nlpriv:" + std::string(128, '0'); }

void write_persist(JsonText& out, const Persist& p, Secrets secrets) {
    const bool shown = secrets == Secrets::kShown;
    const NodePrivate none;
    out.open_object();
    out.field("PrivateNodeKey", (shown ? p.private_node_key : none).secret_text());
    out.field("OldPrivateNodeKey", (shown ? p.old_private_node_key : none).secret_text());
    out.key("UserProfile");
    write_user_profile(out, p.user_profile);
    out.field("NetworkLockKey", shown && !p.network_lock_key.empty() ? p.network_lock_key : no_lock_key());
    out.field("NodeID", p.node_id);
    out.close_object();
}

std::optional<Persist> read_persist(const Json& j) {
    const Json* c = json::find(j, "Config");
    if (!c || !c->is_object()) return std::nullopt;
    Persist p;
    if (const auto k = NodePrivate::parse(json::str(*c, "PrivateNodeKey"))) p.private_node_key = *k;
    if (const auto k = NodePrivate::parse(json::str(*c, "OldPrivateNodeKey"))) p.old_private_node_key = *k;
    if (const Json* u = json::find(*c, "UserProfile")) p.user_profile = read_user_profile(*u);
    p.network_lock_key = json::str(*c, "NetworkLockKey");
    if (p.network_lock_key == no_lock_key()) p.network_lock_key.clear();
    p.node_id = json::str(*c, "NodeID");
    return p;
}

void write_keys(JsonText& out, const Prefs& prefs, Secrets secrets) {
    for (const Entry& e : kTable)
        if (e.write) e.write(out, e.key, prefs);
    out.key("Config");
    if (prefs.persist)
        write_persist(out, *prefs.persist, secrets);
    else
        out.null();
}

const Prefix kDefaultV4{Addr::v4(0), 0};
Prefix default_v6() {
    const uint8_t zeros[16] = {};
    return {Addr::v6_bytes(zeros, false), 0};
}

bool is_tag_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
}

}  // namespace

void write_user_profile(JsonText& out, const UserProfile& user) {
    out.open_object();
    out.field("ID", user.id).field("LoginName", user.login_name).field("DisplayName", user.display_name);
    if (!user.profile_pic_url.empty()) out.field("ProfilePicURL", user.profile_pic_url);
    out.close_object();
}

std::string_view netfilter_mode_name(NetfilterMode m) {
    switch (m) {
        case NetfilterMode::kOff: return "off";
        case NetfilterMode::kNoDivert: return "nodivert";
        case NetfilterMode::kOn: return "on";
    }
    return "on";
}

std::optional<NetfilterMode> parse_netfilter_mode(std::string_view name) {
    for (const auto m : {NetfilterMode::kOff, NetfilterMode::kNoDivert, NetfilterMode::kOn})
        if (netfilter_mode_name(m) == name) return m;
    return std::nullopt;
}

bool Prefs::advertises_exit_node() const {
    if (!advertise_routes) return false;
    const auto& r = *advertise_routes;
    return std::find(r.begin(), r.end(), kDefaultV4) != r.end() &&
           std::find(r.begin(), r.end(), default_v6()) != r.end();
}

void Prefs::set_advertise_exit_node(bool on) {
    if (on == advertises_exit_node()) return;
    std::vector<Prefix> routes = subnet_routes();
    if (on) {
        routes.push_back(kDefaultV4);
        routes.push_back(default_v6());
    }
    if (routes.empty())
        advertise_routes.reset();
    else
        advertise_routes = std::move(routes);
}

std::vector<Prefix> Prefs::subnet_routes() const {
    std::vector<Prefix> out;
    if (advertise_routes)
        for (const Prefix& p : *advertise_routes)
            if (!p.is_default()) out.push_back(p);
    return out;
}

void write_prefs(JsonText& out, const Prefs& prefs, Secrets secrets) {
    out.open_object();
    write_keys(out, prefs, secrets);
    out.close_object();
}

std::string prefs_json(const Prefs& prefs, Secrets secrets) {
    JsonText out;
    write_prefs(out, prefs, secrets);
    return out.take();
}

Result<Prefs> parse_prefs(std::string_view text, const Prefs& base) {
    TRY_ASSIGN(const Json j, json::parse(text));
    Prefs prefs = base;
    TRY(read_all(j, prefs));
    if (j.contains("Config")) prefs.persist = read_persist(j);
    return prefs;
}

void MaskedPrefs::apply_to(Prefs& target) const {
    for (const Entry& e : kTable)
        if (has(e.field)) e.copy(prefs, target);
}

Result<MaskedPrefs> parse_masked_prefs(std::string_view text) {
    TRY_ASSIGN(const Json j, json::parse(text));
    MaskedPrefs m;
    TRY(read_all(j, m.prefs));
    for (const Entry& e : kTable) {
        if (!e.key || e.field == PrefField::kAutoUpdateCheck) continue;
        if (json::boolean(j, (std::string(e.key) + "Set").c_str())) m.set(e.field);
    }
    if (const Json* a = json::find(j, "AutoUpdateSet")) {
        if (json::boolean(*a, "CheckSet")) m.set(PrefField::kAutoUpdateCheck);
        if (json::boolean(*a, "ApplySet")) m.set(PrefField::kAutoUpdateApply);
    }
    if (m.has(PrefField::kInternalExitNodePrior)) return fail(Code::kInvalid, "can't set Internal fields");
    return m;
}

std::string masked_prefs_json(const MaskedPrefs& m) {
    JsonText out;
    out.open_object();
    write_keys(out, m.prefs, Secrets::kRedacted);
    for (const Entry& e : kTable) {
        if (e.field == PrefField::kAutoUpdateCheck) {
            const bool check = m.has(PrefField::kAutoUpdateCheck);
            const bool apply = m.has(PrefField::kAutoUpdateApply);
            if (!check && !apply) continue;
            out.key("AutoUpdateSet").open_object();
            if (check) out.field("CheckSet", true);
            if (apply) out.field("ApplySet", true);
            out.close_object();
        } else if (e.key && m.has(e.field)) {
            out.field(std::string(e.key) + "Set", true);
        }
    }
    out.close_object();
    return out.take();
}

PrefMask differing_fields(const Prefs& a, const Prefs& b) {
    PrefMask out;
    for (const Entry& e : kTable)
        if (!e.equal(a, b)) out.set(static_cast<size_t>(e.field));
    return out;
}

Result<StartOptions> parse_start_options(std::string_view text) {
    TRY_ASSIGN(const Json j, json::parse(text));
    if (!j.is_object()) return fail(Code::kInvalid, "options must be a JSON object");
    StartOptions o;
    o.frontend_log_id = json::str(j, "FrontendLogID");
    o.auth_key = json::str(j, "AuthKey");
    if (const Json* p = json::find(j, "UpdatePrefs")) {
        Prefs prefs;
        TRY(read_all(*p, prefs));
        o.update_prefs = std::move(prefs);
    }
    return o;
}

std::string start_options_json(const StartOptions& options) {
    JsonText out;
    out.open_object().field("FrontendLogID", options.frontend_log_id);
    if (options.update_prefs) {
        out.key("UpdatePrefs");
        write_prefs(out, *options.update_prefs, Secrets::kRedacted);
    }
    if (!options.auth_key.empty()) out.field("AuthKey", options.auth_key);
    out.close_object();
    return out.take();
}

Status check_prefs(const Prefs& prefs) {
    if (prefs.advertise_routes) {
        for (const Prefix& p : *prefs.advertise_routes) {
            if (!p.is_valid()) return fail(Code::kInvalid, "an advertised route is not valid");
            if (p != p.masked())
                return fail(Code::kInvalid, fmt::format("{} has non-address bits set; expected {}", p.str(),
                                                        p.masked().str()));
        }
    }
    if (prefs.advertises_exit_node() && prefs.has_exit_node())
        return fail(Code::kInvalid, "Cannot advertise an exit node and use an exit node at the same time.");
    if (prefs.advertise_tags) {
        for (const std::string& tag : *prefs.advertise_tags)
            if (Status s = check_tag(tag); !s) return s;
    }
    return {};
}

Status check_tag(std::string_view tag) {
    if (!tag.starts_with("tag:")) return fail(Code::kInvalid, "tags must start with 'tag:'");
    const std::string_view name = tag.substr(4);
    if (name.empty()) return fail(Code::kInvalid, "tag names must not be empty");
    if (!is_tag_char(name[0]) || name[0] == '-' || (name[0] >= '0' && name[0] <= '9'))
        return fail(Code::kInvalid, "tag names must start with a letter, after 'tag:'");
    if (!std::all_of(name.begin(), name.end(), is_tag_char))
        return fail(Code::kInvalid, "tag names can only contain numbers, letters, or dashes");
    return {};
}

void write_login_profile(JsonText& out, const LoginProfile& p) {
    out.open_object().field("ID", p.id).field("Name", p.name);
    out.key("NetworkProfile").open_object();
    out.field("MagicDNSName", p.magic_dns_name).field("DomainName", p.domain_name);
    out.field("DisplayName", p.display_name).close_object();
    out.field("Key", p.key).key("UserProfile");
    write_user_profile(out, p.user_profile);
    out.field("NodeID", p.node_id).field("LocalUserID", p.local_user_id).field("ControlURL", p.control_url);
    out.field("Created", p.created).close_object();
}

}  // namespace mesh::api
