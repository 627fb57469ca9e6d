// SPDX-License-Identifier: BSD-3-Clause
#include "tailscale-cli/settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <map>

#include "tailscale-cli/status_text.h"

namespace mesh::cli {
namespace {

using api::PrefField;
using api::Prefs;

template <class T>
std::string joined(const std::vector<T>& values) {
    std::string out;
    for (const T& v : values) {
        if (!out.empty()) out += ',';
        if constexpr (std::is_same_v<T, std::string>)
            out += v;
        else
            out += v.str();
    }
    return out;
}

std::string bool_text(bool b) { return b ? "true" : "false"; }

/// One setting: its flag, the prefs behind it, its value as text.
struct Setting {
    const char* flag;
    bool is_bool;
    bool in_up;
    bool in_get;
    std::vector<PrefField> fields;
    std::function<std::string(const Prefs&, const api::DaemonStatus&)> value;
};

std::string exit_node_text(const Prefs& p, const api::DaemonStatus& s) {
    if (!p.auto_exit_node.empty()) return "auto:" + p.auto_exit_node;
    if (p.exit_node_ip) return p.exit_node_ip->str();
    if (p.exit_node_id.empty()) return "";
    if (s.peers)
        for (const auto& [key, peer] : *s.peers)
            if (peer.id == p.exit_node_id && !peer.tailscale_ips.empty()) return peer.tailscale_ips[0].str();
    return "";
}

const std::vector<Setting>& settings() {
    using S = const api::DaemonStatus&;
    static const std::vector<Setting> kAll = {
        {"accept-dns", true, true, true, {PrefField::kCorpDns}, [](const Prefs& p, S) { return bool_text(p.corp_dns); }},
        {"accept-routes", true, true, true, {PrefField::kRouteAll}, [](const Prefs& p, S) { return bool_text(p.route_all); }},
        {"advertise-connector", true, true, true, {PrefField::kAppConnector}, [](const Prefs& p, S) { return bool_text(p.app_connector_advertise); }},
        {"advertise-exit-node", true, true, true, {PrefField::kAdvertiseRoutes}, [](const Prefs& p, S) { return bool_text(p.advertises_exit_node()); }},
        {"advertise-routes", false, true, true, {PrefField::kAdvertiseRoutes}, [](const Prefs& p, S) { return joined(p.subnet_routes()); }},
        {"advertise-tags", false, true, false, {PrefField::kAdvertiseTags}, [](const Prefs& p, S) { return p.advertise_tags ? joined(*p.advertise_tags) : ""; }},
        {"auto-update", true, false, true, {PrefField::kAutoUpdateApply}, [](const Prefs& p, S) { return bool_text(p.auto_update_apply.value_or(false)); }},
        {"exit-node", false, true, true, {PrefField::kExitNodeId, PrefField::kExitNodeIp, PrefField::kAutoExitNode}, exit_node_text},
        {"exit-node-allow-lan-access", true, true, true, {PrefField::kExitNodeAllowLanAccess}, [](const Prefs& p, S) { return bool_text(p.exit_node_allow_lan_access); }},
        {"hostname", false, true, true, {PrefField::kHostname}, [](const Prefs& p, S) { return p.hostname; }},
        {"login-server", false, true, false, {PrefField::kControlUrl}, [](const Prefs& p, S) { return p.control_url.empty() ? kDefaultLoginServer : p.control_url; }},
        {"netfilter-mode", false, true, true, {PrefField::kNetfilterMode}, [](const Prefs& p, S) { return std::string(netfilter_mode_name(p.netfilter_mode)); }},
        {"nickname", false, false, true, {PrefField::kProfileName}, [](const Prefs& p, S) { return p.profile_name; }},
        {"operator", false, true, true, {PrefField::kOperatorUser}, [](const Prefs& p, S) { return p.operator_user; }},
        {"relay-server-port", false, false, true, {PrefField::kRelayServerPort}, [](const Prefs& p, S) { return p.relay_server_port ? fmt::format("{}", *p.relay_server_port) : ""; }},
        {"relay-server-static-endpoints", false, false, true, {PrefField::kRelayServerStaticEndpoints}, [](const Prefs& p, S) { return joined(p.relay_server_static_endpoints); }},
        {"remote-config", true, false, false, {PrefField::kRemoteConfig}, [](const Prefs& p, S) { return bool_text(p.remote_config); }},
        {"report-posture", true, true, true, {PrefField::kPostureChecking}, [](const Prefs& p, S) { return bool_text(p.posture_checking); }},
        {"shields-up", true, true, true, {PrefField::kShieldsUp}, [](const Prefs& p, S) { return bool_text(p.shields_up); }},
        {"snat-subnet-routes", true, true, true, {PrefField::kNoSnat}, [](const Prefs& p, S) { return bool_text(!p.no_snat); }},
        {"ssh", true, true, true, {PrefField::kRunSsh}, [](const Prefs& p, S) { return bool_text(p.run_ssh); }},
        {"stateful-filtering", true, true, true, {PrefField::kNoStatefulFiltering}, [](const Prefs& p, S) { return bool_text(!p.no_stateful_filtering.value_or(true)); }},
        {"sync", true, false, false, {PrefField::kSync}, [](const Prefs& p, S) { return bool_text(p.sync.value_or(true)); }},
        {"update-check", true, false, true, {PrefField::kAutoUpdateCheck}, [](const Prefs& p, S) { return bool_text(p.auto_update_check); }},
        {"webclient", true, false, true, {PrefField::kRunWebClient}, [](const Prefs& p, S) { return bool_text(p.run_web_client); }},
    };
    return kAll;
}

const Setting* find_setting(const std::string& flag) {
    for (const Setting& s : settings())
        if (flag == s.flag) return &s;
    return nullptr;
}

bool is_alnum(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

Result<std::vector<std::string>> parse_tags(const std::string& text) {
    std::vector<std::string> out;
    if (text.empty()) return out;
    for (std::string tag : split(text, ',')) {
        if (!tag.starts_with("tag:")) tag = "tag:" + tag;
        if (const Status ok = api::check_tag(tag); !ok)
            return fail(Code::kInvalid, fmt::format("tag: {}: {}", in_quotes(tag), ok.error().context));
        out.push_back(std::move(tag));
    }
    return out;
}

Result<std::optional<std::string>> set_netfilter(Prefs& prefs, const std::string& mode) {
    const auto parsed = api::parse_netfilter_mode(mode);
    if (!parsed) return fail(Code::kInvalid, fmt::format("invalid value --netfilter-mode={}", in_quotes(mode)));
    prefs.netfilter_mode = *parsed;
    if (*parsed == api::NetfilterMode::kNoDivert)
        return std::string("netfilter=nodivert; add iptables calls to ts-* chains manually.");
    if (*parsed == api::NetfilterMode::kOff) return std::string("netfilter=off; configure iptables yourself.");
    return std::optional<std::string>();
}

Status set_exit_node(Prefs& prefs, const std::string& text, const api::DaemonStatus& status) {
    prefs.exit_node_id.clear();
    prefs.exit_node_ip.reset();
    prefs.auto_exit_node.clear();
    if (text.empty()) return {};
    if (text.starts_with("auto:")) {
        if (text.size() == 5) return fail(Code::kInvalid, "the automatic choice needs a name: auto:any");
        prefs.auto_exit_node = text.substr(5);
        return {};
    }
    const auto ip = Addr::parse(text);
    const auto not_offered = [](const std::string& name) {
        return fail(Code::kInvalid, fmt::format("node {} is not advertising an exit node", name));
    };
    if (ip) {
        const auto& own = status.tailscale_ips;
        if (std::find(own.begin(), own.end(), *ip) != own.end())
            return fail(Code::kInvalid,
                        fmt::format("cannot use {} as an exit node as it is a local IP address to this machine; "
                                    "did you mean --advertise-exit-node?",
                                    ip->str()));
        if (status.backend_state == api::State::kRunning) {
            const api::PeerStatus* found = nullptr;
            if (status.peers)
                for (const auto& [key, p] : *status.peers)
                    if (std::find(p.tailscale_ips.begin(), p.tailscale_ips.end(), *ip) != p.tailscale_ips.end())
                        found = &p;
            if (!found) return fail(Code::kInvalid, fmt::format("no node found in netmap with IP {}", ip->str()));
            if (!found->exit_node_option) return not_offered(ip->str());
        }
        prefs.exit_node_ip = ip;
        return {};
    }
    if (status.backend_state != api::State::kRunning)
        return fail(Code::kInvalid,
                    "cannot resolve exit node by hostname while Tailscale is starting up; please use its Tailscale "
                    "IP address instead");
    std::vector<const api::PeerStatus*> matches;
    for (const api::PeerStatus* p : sorted_peers(status)) {
        std::string fqdn = p->dns_name;
        if (!fqdn.empty() && fqdn.back() == '.') fqdn.pop_back();
        if (fqdn == text || p->dns_name == text || display_name(status, *p) == text) matches.push_back(p);
    }
    if (matches.empty())
        return fail(Code::kInvalid,
                    fmt::format("invalid value {} for --exit-node; must be IP or peer hostname", in_quotes(text)));
    if (matches.size() > 1) return fail(Code::kInvalid, fmt::format("ambiguous exit node name {}", in_quotes(text)));
    if (!matches[0]->exit_node_option) return not_offered(in_quotes(text));
    if (matches[0]->tailscale_ips.empty())
        return fail(Code::kInvalid, fmt::format("cannot determine a Tailscale IP for {}", in_quotes(text)));
    prefs.exit_node_ip = matches[0]->tailscale_ips[0];
    return {};
}

/// Flag values that differ between what is stored and what `up` would store, without having been named.
std::vector<std::string> missing_settings(const FlagSet& flags, const Prefs& wanted, const Prefs& current,
                                          const api::DaemonStatus& status) {
    std::vector<std::string> out;
    for (const Setting& s : settings()) {
        if (!s.in_up || flags.given(s.flag)) continue;
        const std::string old_value = s.value(current, status);
        const std::string new_value = s.value(wanted, status);
        if (old_value == new_value) continue;
        const std::string flag = s.flag;
        if (flag == "login-server" && same_login_server(old_value, new_value)) continue;
        // Long on by default in old releases; nobody chose it.
        if (flag == "stateful-filtering" && old_value == "true") continue;
        if (s.is_bool && old_value == "true")
            out.push_back("--" + flag);
        else if (old_value.empty())
            out.push_back("--" + flag + "=");
        else
            out.push_back("--" + flag + "=" + shell_quoted(old_value));
    }
    std::sort(out.begin(), out.end());
    return out;
}

std::string given_flag_text(const FlagSet& flags, const std::string& name) {
    const std::string value = flags.value_text(name);
    if (flags.is_bool(name) && value == "true") return "--" + name;
    if (value.empty()) return "--" + name + "=";
    // A key typed on the command line need not be shown again, in a build log for instance.
    const bool secret = name == "auth-key" || name == "client-secret" || name == "id-token";
    if (secret && !value.starts_with("file:")) return "--" + name + "=(hidden)";
    return "--" + name + "=" + shell_quoted(value);
}

}  // namespace

bool same_login_server(const std::string& a, const std::string& b) {
    const auto vendor = [](const std::string& url) {
        return url.empty() || url == kDefaultLoginServer || url == "https://login.tailscale.com";
    };
    return a == b || (vendor(a) && vendor(b));
}

void add_setting_flags(FlagSet& f, SettingArgs& a, Command command) {
    const bool set = command == Command::kSet;
    f.add("accept-dns", &a.accept_dns, "use the DNS settings of the control server");
    f.add("accept-routes", &a.accept_routes, "use routes to subnets behind other nodes");
    f.add("advertise-connector", &a.advertise_connector, "offer to be an app connector");
    f.add("advertise-exit-node", &a.advertise_exit_node, "offer to carry other nodes' internet traffic");
    f.add("advertise-routes", &a.advertise_routes,
          "subnets behind this node, comma-separated (\"10.0.0.0/8,192.168.0.0/24\"); empty for none");
    f.add("exit-node", &a.exit_node, "node that carries this machine's internet traffic: address, name or auto:any; empty for none");
    f.add("exit-node-allow-lan-access", &a.exit_node_allow_lan_access,
          "reach the local network directly while an exit node is used");
    f.add("hostname", &a.hostname, "name to use instead of the operating system's");
    f.add("netfilter-mode", &a.netfilter_mode, "firewall rules: on, nodivert or off");
    f.add("operator", &a.operator_user, "user who may control the daemon without root");
    f.add("report-posture", &a.report_posture, "let the control server ask for device posture");
    f.alias("posture-checking", "report-posture");
    f.add("shields-up", &a.shields_up, "refuse incoming connections");
    f.add("snat-subnet-routes", &a.snat_subnet_routes, "hide the addresses of nodes from advertised subnets (source NAT)");
    f.add("ssh", &a.ssh, "run an SSH server for nodes the control server allows");
    f.add("stateful-filtering", &a.stateful_filtering, "filter forwarded packets by connection state");
    if (command != Command::kUp) f.add("nickname", &a.nickname, "name of this account in lists");
    if (!set) {
        f.add("advertise-tags", &a.advertise_tags, "tags to ask for, comma-separated (\"tag:web,tag:db\")");
        f.add("login-server", &a.login_server, "URL of the control server");
        return;
    }
    f.add("auto-update", &a.auto_update, "accepted and stored; updates are the package manager's work");
    f.add("update-check", &a.update_check, "accepted and stored");
    f.add("webclient", &a.webclient, "accepted and stored");
    f.add("relay-server-port", &a.relay_server_port, "UDP port of the peer relay; empty turns it off");
    f.add("relay-server-static-endpoints", &a.relay_server_static_endpoints, "ip:port of the peer relay, comma-separated");
    f.add("sync", &a.sync, "keep the connection to the control server", Show::kHidden);
    f.add("remote-config", &a.remote_config, "accepted and stored", Show::kHidden);
}

void add_up_flags(FlagSet& f, UpArgs& a, Command command) {
    add_setting_flags(f, a.settings, command);
    f.add("auth-key", &a.auth_key, "key to log in with; \"file:PATH\" reads it from a file");
    f.alias("authkey", "auth-key");
    f.add("client-id", &a.client_id, "for the vendor's service only");
    f.add("client-secret", &a.client_secret, "for the vendor's service only");
    f.add("id-token", &a.id_token, "for the vendor's service only");
    f.add("audience", &a.audience, "for the vendor's service only");
    f.add("qr", &a.qr, "show login URLs as QR codes too");
    f.add("qr-format", &a.qr_format, "QR code for the terminal: auto, ascii, large or small");
    f.add("timeout", &a.timeout, "how long to wait for the node to be up; 0s waits for ever");
    f.add("host-routes", &a.host_routes, "must be true", Show::kHidden);
    if (command == Command::kLogin) return;
    f.add("accept-risk", &a.accept_risk, "skip the warning of this kind: lose-ssh, mac-app-connector or all");
    f.add("force-reauth", &a.force_reauth, "log in again (over SSH this may cut the connection)");
    f.add("json", &a.json, "print JSON (the format may change)");
    f.add("reset", &a.reset, "set everything that is not named back to its default");
}

void mark_flag(api::MaskedPrefs& edit, const std::string& flag) {
    if (const Setting* s = find_setting(flag))
        for (const PrefField f : s->fields) edit.set(f);
}

std::string setting_value(const std::string& flag, const Prefs& prefs, const api::DaemonStatus& status) {
    const Setting* s = find_setting(flag);
    return s ? s->value(prefs, status) : std::string();
}

bool setting_is_bool(const std::string& flag) {
    const Setting* s = find_setting(flag);
    return s && s->is_bool;
}

std::vector<std::string> up_settings() {
    std::vector<std::string> out;
    for (const Setting& s : settings())
        if (s.in_up) out.emplace_back(s.flag);
    return out;
}

std::vector<std::string> get_settings() {
    std::vector<std::string> out;
    for (const Setting& s : settings())
        if (s.in_get) out.emplace_back(s.flag);
    return out;
}

Status check_hostname(const std::string& hostname) {
    if (hostname.empty()) return {};
    if (hostname.size() > 256)
        return fail(Code::kInvalid, fmt::format("hostname too long: {} bytes (max 256)", hostname.size()));
    std::string name = hostname;
    if (name.back() == '.') name.pop_back();
    for (const std::string& label : split(name, '.')) {
        if (label.empty()) return fail(Code::kInvalid, "empty DNS label");
        if (label.size() > 63)
            return fail(Code::kInvalid, fmt::format("{} is too long, max length is 63 bytes", in_quotes(label)));
        const auto bad = [&](const std::string& why) {
            return fail(Code::kInvalid, fmt::format("{} is not a valid DNS label: {}", in_quotes(label), why));
        };
        if (!is_alnum(label.front())) return bad("must start with a letter or number");
        if (!is_alnum(label.back())) return bad("must end with a letter or number");
        for (const char c : label)
            if (!is_alnum(c) && c != '-') return bad(fmt::format("contains invalid character '{}'", c));
    }
    return {};
}

Result<std::vector<Prefix>> parse_routes(const std::string& text, bool exit_node) {
    std::vector<Prefix> out;
    bool default_v4 = false;
    bool default_v6 = false;
    if (!text.empty()) {
        for (const std::string& part : split(text, ',')) {
            const auto p = Prefix::parse(part);
            if (!p || part.find('/') == std::string::npos)
                return fail(Code::kInvalid, fmt::format("{} is not a valid IP address or CIDR prefix", in_quotes(part)));
            if (*p != p->masked())
                return fail(Code::kInvalid, fmt::format("{} has non-address bits set; expected {}", p->str(),
                                                        p->masked().str()));
            if (p->is_default()) (p->addr.is_v4() ? default_v4 : default_v6) = true;
            if (std::find(out.begin(), out.end(), *p) == out.end()) out.push_back(*p);
        }
    }
    if (default_v4 != default_v6)
        return fail(Code::kInvalid,
                    fmt::format("{} advertised without its {} counterpart, please also advertise {}",
                                default_v4 ? "0.0.0.0/0" : "::/0", default_v4 ? "IPv6" : "IPv4",
                                default_v4 ? "::/0" : "0.0.0.0/0"));
    if (exit_node && !default_v4) {
        Prefs p;
        p.set_advertise_exit_node(true);
        out.insert(out.end(), p.advertise_routes->begin(), p.advertise_routes->end());
    }
    std::sort(out.begin(), out.end(), [](const Prefix& a, const Prefix& b) {
        return a.len != b.len ? a.len < b.len : a.addr < b.addr;
    });
    return out;
}

Result<BuiltPrefs> prefs_from_up(const SettingArgs& a, const api::DaemonStatus& status) {
    BuiltPrefs out;
    Prefs& p = out.prefs;
    TRY_ASSIGN(const std::vector<Prefix> routes, parse_routes(a.advertise_routes, a.advertise_exit_node));
    if (a.exit_node.empty() && a.exit_node_allow_lan_access)
        return fail(Code::kInvalid, "--exit-node-allow-lan-access can only be used with --exit-node");
    TRY_ASSIGN(const std::vector<std::string> tags, parse_tags(a.advertise_tags));
    TRY(check_hostname(a.hostname));
    TRY(set_exit_node(p, a.exit_node, status));
    if (a.login_server.find("://") == std::string::npos)
        return fail(Code::kInvalid, fmt::format("{} is not a URL: it must begin with http:// or https://",
                                                in_quotes(a.login_server)));
    p.control_url = a.login_server;
    p.want_running = true;
    p.logged_out = false;
    p.route_all = a.accept_routes;
    p.exit_node_allow_lan_access = a.exit_node_allow_lan_access;
    p.corp_dns = a.accept_dns;
    p.shields_up = a.shields_up;
    p.run_ssh = a.ssh;
    if (!tags.empty()) p.advertise_tags = tags;
    if (!routes.empty()) p.advertise_routes = routes;
    p.hostname = a.hostname;
    p.no_snat = !a.snat_subnet_routes;
    p.no_stateful_filtering = !a.stateful_filtering;
    p.operator_user = a.operator_user;
    p.app_connector_advertise = a.advertise_connector;
    p.posture_checking = a.report_posture;
    p.profile_name = a.nickname;
    TRY_ASSIGN(const std::optional<std::string> warning, set_netfilter(p, a.netfilter_mode));
    if (warning) out.warnings.push_back(*warning);
    return out;
}

Result<BuiltEdit> edit_from_set(const SettingArgs& a, const FlagSet& flags, const Prefs& current,
                                const api::DaemonStatus& status) {
    BuiltEdit out;
    Prefs& p = out.edit.prefs;
    // Not masked and so not applied; what clients put there when they set nothing.
    p.control_url.clear();
    p.logged_out = false;
    p.corp_dns = a.accept_dns;
    p.route_all = a.accept_routes;
    p.exit_node_allow_lan_access = a.exit_node_allow_lan_access;
    p.shields_up = a.shields_up;
    p.run_ssh = a.ssh;
    p.run_web_client = a.webclient;
    p.hostname = a.hostname;
    p.operator_user = a.operator_user;
    p.profile_name = a.nickname;
    p.no_snat = !a.snat_subnet_routes;
    p.no_stateful_filtering = !a.stateful_filtering;
    p.auto_update_check = a.update_check;
    p.auto_update_apply = a.auto_update;
    p.app_connector_advertise = a.advertise_connector;
    p.posture_checking = a.report_posture;
    p.remote_config = a.remote_config;
    if (flags.given("sync")) p.sync = a.sync;
    if (flags.given("netfilter-mode")) {
        TRY_ASSIGN(const std::optional<std::string> warning, set_netfilter(p, a.netfilter_mode));
        if (warning) out.warnings.push_back(*warning);
    }
    if (flags.given("exit-node")) TRY(set_exit_node(p, a.exit_node, status));
    const bool routes = flags.given("advertise-routes");
    const bool exit = flags.given("advertise-exit-node");
    if (routes || exit) {
        const std::string subnets = routes ? a.advertise_routes : joined(current.subnet_routes());
        TRY_ASSIGN(std::vector<Prefix> wanted,
                   parse_routes(subnets, exit ? a.advertise_exit_node : current.advertises_exit_node()));
        if (!wanted.empty()) p.advertise_routes = std::move(wanted);
        out.touches_routes = p.advertise_routes.has_value();
    }
    if (!a.relay_server_port.empty()) {
        unsigned port = 0;
        const char* end = a.relay_server_port.data() + a.relay_server_port.size();
        const auto [at, ec] = std::from_chars(a.relay_server_port.data(), end, port);
        if (ec != std::errc() || at != end || port > 65535)
            return fail(Code::kInvalid, fmt::format("failed to set relay server port: {} is no port",
                                                    in_quotes(a.relay_server_port)));
        p.relay_server_port = static_cast<uint16_t>(port);
    }
    if (!a.relay_server_static_endpoints.empty()) {
        for (const std::string& part : split(a.relay_server_static_endpoints, ',')) {
            const auto e = Endpoint::parse(part);
            if (!e) return fail(Code::kInvalid, fmt::format("{} is no ip:port", in_quotes(part)));
            p.relay_server_static_endpoints.push_back(*e);
        }
    }
    for (const std::string& name : flags.given()) mark_flag(out.edit, name);
    return out;
}

Result<UpDecision> decide_up(const UpArgs& args, const FlagSet& flags, Prefs& prefs, const Prefs& current,
                             const api::DaemonStatus& status, const UpContext& context) {
    UpDecision out;
    if (!args.reset) {
        if (prefs.operator_user.empty() && !context.user.empty() && current.operator_user == context.user)
            prefs.operator_user = current.operator_user;
        if (!current.control_url.empty()) {
            const bool known = current.persist && !current.persist->user_profile.login_name.empty();
            out.simple = flags.given().empty() && known && status.backend_state != api::State::kNeedsLogin;
            const std::vector<std::string> missing =
                out.simple ? std::vector<std::string>() : missing_settings(flags, prefs, current, status);
            if (!missing.empty()) {
                std::string text =
                    "Error: changing settings via 'tailscale up' requires mentioning all\n"
                    "non-default flags. To proceed, either re-run your command with --reset or\n"
                    "use the command below to explicitly mention the current value of\n"
                    "all non-default settings:\n\n\ttailscale up";
                for (const std::string& name : flags.given()) text += " " + given_flag_text(flags, name);
                for (const std::string& flag : missing) text += " " + flag;
                return fail(Code::kInvalid, text + "\n");
            }
        }
    }
    // Without flags nothing is asked of the login server, so a node that is up already simply stays up.
    if (out.simple) return out;
    const bool running = status.backend_state == api::State::kRunning;
    const bool server_changed = current.control_url != prefs.control_url &&
                                !same_login_server(current.control_url, prefs.control_url);
    if (server_changed && running && !args.force_reauth)
        return fail(Code::kInvalid, "can't change --login-server without --force-reauth");
    const bool tags_changed = current.advertise_tags != prefs.advertise_tags;
    if (running && !args.force_reauth && args.auth_key.empty() && !server_changed && !tags_changed) {
        out.edit.emplace();
        out.edit->prefs = prefs;
        out.edit->set(PrefField::kWantRunning);
        if (args.reset) {
            for (const std::string& name : up_settings()) mark_flag(*out.edit, name);
        } else {
            for (const std::string& name : flags.given()) mark_flag(*out.edit, name);
        }
    }
    return out;
}

}  // namespace mesh::cli
