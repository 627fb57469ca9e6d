// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/localapi/handlers.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "base/dns_message.h"
#include "base/json.h"
#include "base/log.h"
#include "tailscaled/localapi/debug_reports.h"

namespace mesh::localapi {
namespace {

constexpr std::string_view kPrefix = "/localapi/v0/";
constexpr std::string_view kJson = "application/json";
constexpr std::string_view kText = "text/plain; charset=utf-8";
/// Of the body "null": what a client sends back in If-Match.
constexpr std::string_view kEmptyServeEtag = "74234e98afe7498fb5daf1f36ac2d78acc339464f950703b8c019892f982b90b";

http1::Response response(unsigned status, std::string_view type, std::string body) {
    http1::Response r;
    r.status = status;
    if (!type.empty()) r.headers.emplace_back("Content-Type", std::string(type));
    r.body = std::move(body);
    return r;
}

http1::Response no_content() { return response(204, "", ""); }

http1::Response pretty(std::string_view compact, bool newline = true) {
    std::string body = api::indent_json(compact.empty() ? "null" : compact, "\t");
    if (newline) body += '\n';
    return response(200, kJson, std::move(body));
}

/// {"Error":"…"}: what clients show as it is.
http1::Response json_error(unsigned status, std::string_view text) {
    api::JsonText out;
    out.open_object().field("Error", text).close_object();
    return response(status, kJson, out.take() + "\n");
}

struct Call {
    Context& context;
    const Exchange& exchange;
    const Respond& respond;

    [[nodiscard]] const http1::Request& request() const { return exchange.request; }
    [[nodiscard]] const std::string& method() const { return exchange.request.method; }
    [[nodiscard]] std::string param(std::string_view name) const {
        return exchange.target.param(name).value_or(std::string());
    }
    /// Path below the endpoint's name.
    [[nodiscard]] std::string_view rest(std::string_view name) const {
        return std::string_view(exchange.target.path).substr(kPrefix.size() + name.size());
    }
    [[nodiscard]] bool may_write() const { return context.may_write(exchange.caller.uid); }
    Backend& backend() const { return context.backend; }
};

using Handler = http1::Response (*)(const Call&);

// ---- reading

http1::Response get_status(const Call& c) {
    const std::string peers = c.param("peers");
    const bool all = peers.empty() || peers == "true" || peers == "1";
    // Written so at once: for thousands of peers this is megabytes.
    return response(200, kJson, api::status_json(c.backend().status(all ? WithPeers::kYes : WithPeers::kNo), "\t") + "\n");
}

http1::Response get_whois(const Call& c) {
    const auto addr = c.exchange.target.param("addr");
    if (!addr || addr->empty()) return text_response(400, "missing 'addr' parameter");
    std::optional<api::WhoIsResult> found;
    if (addr->starts_with("nodekey:")) {
        const auto key = NodePublic::parse(*addr);
        if (!key) return text_response(400, "invalid 'addr' parameter");
        found = c.backend().whois(*key);
    } else if (const auto ip = Addr::parse(*addr)) {
        found = c.backend().whois(*ip, 0, c.param("proto"));
    } else if (const auto endpoint = Endpoint::parse(*addr)) {
        found = c.backend().whois(endpoint->addr, endpoint->port, c.param("proto"));
    } else {
        return text_response(400, "invalid 'addr' parameter");
    }
    if (!found) return text_response(404, "no match for IP:port");
    return pretty(api::whois_json(*found), false);
}

http1::Response get_user_profile(const Call& c) {
    const std::string text = c.param("id");
    int64_t id = 0;
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), id);
    if (ec != std::errc() || end != text.data() + text.size()) return text_response(400, "invalid 'id' parameter");
    const api::DaemonStatus s = c.backend().status(WithPeers::kYes);
    if (s.users) {
        if (const auto it = s.users->find(id); it != s.users->end()) {
            api::JsonText out;
            api::write_user_profile(out, it->second);
            return pretty(out.str());
        }
    }
    return text_response(404, "no user with that UserID");
}

http1::Response get_derp_map(const Call& c) { return pretty(c.backend().derp_map_json()); }

http1::Response get_dns_config(const Call& c) {
    const auto config = c.backend().dns_config_json();
    return config ? pretty(*config) : text_response(503, "no netmap");
}

http1::Response warning(const std::string& text) {
    api::JsonText out;
    out.open_object().field("Warning", text).close_object();
    return json_response(out.str());
}

http1::Response get_so_mark(const Call& c) {
    return json_response(c.backend().uses_so_mark() ? R"({"UseSOMark":true})" : R"({"UseSOMark":false})");
}

http1::Response get_user_metrics(const Call& c) {
    return response(200, "text/plain; version=0.0.4; charset=utf-8", c.backend().user_metrics());
}

http1::Response get_cert_domains(const Call& c) {
    const api::DaemonStatus s = c.backend().status(WithPeers::kNo);
    if (!s.cert_domains) return json_response("null");
    api::JsonText out;
    out.open_array();
    for (const std::string& d : *s.cert_domains) out.text(d);
    out.close_array();
    return json_response(out.str());
}

http1::Response get_lock_status(const Call& c) {
    const api::DaemonStatus s = c.backend().status(WithPeers::kNo);
    api::JsonText out;
    out.open_object().field("Enabled", false).key("Head").null();
    out.field("PublicKey", "nlpub:" + std::string(64, '0')).field("NodeKey", s.self.public_key.text());
    out.field("NodeKeySigned", false).key("NodeKeySignature").null().key("TrustedKeys").null();
    out.key("VisiblePeers").null().key("FilteredPeers").null().field("StateID", 0).close_object();
    return pretty(out.str(), false);
}

// ---- prefs and login

/// The answer to a change comes when the host has followed.
void respond_when_ready(const Call& c, http1::Response response) {
    c.backend().when_host_ready([respond = c.respond, response = std::move(response)]() mutable { respond(std::move(response)); });
}

void any_prefs(const Call& c) {
    if (c.method() == "GET" || c.method() == "HEAD") return c.respond(pretty(api::prefs_json(c.backend().prefs())));
    if (c.method() != "PATCH") return c.respond(text_response(405, "unsupported method"));
    if (!c.may_write()) return c.respond(text_response(403, "prefs write access denied"));
    const auto change = api::parse_masked_prefs(c.request().body);
    if (!change) {
        // The refusal of internal fields is a decision, not a syntax error.
        const std::string text = change.error().message();
        return c.respond(text == "can't set Internal fields" ? json_error(400, text) : text_response(400, text));
    }
    const auto prefs = c.backend().edit_prefs(*change, c.exchange.caller);
    if (!prefs) return c.respond(json_error(400, prefs.error().message()));
    respond_when_ready(c, pretty(api::prefs_json(*prefs)));
}

http1::Response post_check_prefs(const Call& c) {
    const auto prefs = api::parse_prefs(c.request().body);
    if (!prefs) return text_response(400, "invalid JSON body");
    if (const Status ok = c.backend().check_prefs(*prefs); !ok) return json_error(200, ok.error().message());
    return json_response("{}");
}

void post_start(const Call& c) {
    const auto options = api::parse_start_options(c.request().body);
    if (!options) return c.respond(text_response(400, options.error().message()));
    if (const Status ok = c.backend().start(*options, c.exchange.caller); !ok) return c.respond(text_response(500, ok.error().message()));
    respond_when_ready(c, no_content());
}

http1::Response post_login(const Call& c) {
    if (const Status ok = c.backend().login_interactive(c.exchange.caller); !ok)
        return text_response(500, ok.error().message());
    return no_content();
}

http1::Response post_reset_auth(const Call& c) {
    c.backend().reset_auth();
    return no_content();
}

void post_logout(const Call& c) {
    Backend& backend = c.backend();
    backend.logout(c.exchange.caller, [&backend, respond = c.respond](const Status& ok) {
        if (!ok) return respond(text_response(500, ok.error().message()));
        backend.when_host_ready([respond] { respond(no_content()); });
    });
}

void get_dns_query(const Call& c) {
    const std::string name = c.param("name");
    if (name.empty()) return c.respond(text_response(400, "missing 'name' parameter"));
    std::string word = c.param("type");
    if (word.empty()) word = "A";
    const auto type = dns::parse_type(word);
    if (!type) return c.respond(text_response(400, "unknown DNS message type: " + log::printable(word, 32)));
    c.backend().dns_query(name, *type, [respond = c.respond](const Result<std::string>& json) {
        respond(json ? json_response(*json) : text_response(json.error().code == Code::kInvalid ? 400 : 500, json.error().message()));
    });
}

void post_ping(const Call& c) {
    const auto bad = [&](std::string_view text) { c.respond(text_response(400, text)); };
    api::PingRequest ping;
    const auto ip = c.exchange.target.param("ip");
    if (!ip || ip->empty()) return bad("missing 'ip' parameter");
    const auto addr = Addr::parse(*ip);
    if (!addr) return bad("invalid IP");
    ping.ip = *addr;
    const auto type = c.exchange.target.param("type");
    if (!type || type->empty()) return bad("missing 'type' parameter");
    const auto parsed = api::parse_ping_type(*type);
    if (!parsed) return bad("invalid 'type' parameter");
    ping.type = *parsed;
    if (const std::string size = c.param("size"); !size.empty()) {
        const auto [end, ec] = std::from_chars(size.data(), size.data() + size.size(), ping.size);
        if (ec != std::errc() || end != size.data() + size.size()) return bad("invalid 'size' parameter");
        if (ping.size != 0 && ping.type != api::PingType::kDisco)
            return bad("'size' parameter is only supported with disco pings");
        if (ping.size > api::kMaxPingSize)
            return bad(fmt::format("maximum value for 'size' is {}", api::kMaxPingSize));
    }
    c.backend().ping(ping, [respond = c.respond](const api::PingResult& result) {
        respond(json_response(api::ping_result_json(result)));
    });
}

/// The parameter "peer", an address; false: it is none.
bool peer_param(const Call& c, std::optional<Addr>& out) {
    const std::string text = c.param("peer");
    if (text.empty()) return true;
    if (const auto addr = Addr::parse(text)) out = *addr;
    return out.has_value();
}

http1::Response get_paths(const Call& c) {
    std::optional<Addr> peer;
    if (!peer_param(c, peer)) return text_response(400, "invalid 'peer' parameter");
    return pretty(c.backend().paths_json(peer));
}

http1::Response get_endpoint_changes(const Call& c) {
    const auto peer = Addr::parse(c.param("ip"));
    if (!peer) return text_response(400, "invalid 'ip' parameter");
    return json_response(endpoint_changes(c.backend().paths_json(peer)));
}

void post_debug_derp_region(const Call& c) {
    c.backend().check_relays([region = c.param("region"), map = c.backend().derp_map_json(), respond = c.respond](const std::string& checks) {
        respond(json_response(derp_region_report(region, map, checks)));
    });
}

void get_doctor(const Call& c) {
    std::optional<Addr> peer;
    if (!peer_param(c, peer)) return c.respond(text_response(400, "invalid 'peer' parameter"));
    c.backend().doctor(peer, c.param("measure") == "true", [respond = c.respond](const std::string& json) { respond(pretty(json)); });
}

// ---- files of peers; what moves their content is in Session

http1::Response get_file_targets(const Call& c) {
    const auto targets = c.backend().file_targets_json();
    return targets ? json_response(*targets) : json_error(500, targets.error().message());
}

void any_files(const Call& c) {
    const std::string name(c.rest("files/"));
    if (!name.empty()) {
        if (c.method() != "DELETE") return c.respond(text_response(400, "want GET or DELETE"));
        return c.backend().delete_file(name, [respond = c.respond](const Status& ok) {
            respond(ok ? no_content() : text_response(500, ok.error().message()));
        });
    }
    if (c.method() != "GET") return c.respond(text_response(400, "want GET to list files"));
    const std::string text = c.param("waitsec");
    int64_t wait = 0;
    if (!text.empty()) {
        const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), wait);
        if (ec != std::errc() || end != text.data() + text.size()) return c.respond(text_response(400, "invalid waitsec"));
    }
    c.backend().waiting_files(seconds(std::clamp<int64_t>(wait, 0, 86'400)), [respond = c.respond](const Result<std::string>& json) {
        respond(json ? json_response(*json) : text_response(500, json.error().message()));
    });
}

// ---- profiles

http1::Response any_profiles(const Call& c) {
    const std::string_view id = c.rest("profiles/");
    const auto json_of = [](const api::LoginProfile& p) {
        api::JsonText out;
        api::write_login_profile(out, p);
        return out.take();
    };
    if (id.empty()) {
        if (c.method() == "PUT") {
            if (const Status ok = c.backend().switch_profile(""); !ok) return text_response(500, ok.error().message());
            return response(201, "", "");
        }
        if (c.method() != "GET") return text_response(405, "use GET or PUT");
        std::string list;
        for (const api::LoginProfile& p : c.backend().profiles()) list += (list.empty() ? "" : ",") + json_of(p);
        return json_response("[" + list + "]");
    }
    if (c.method() == "GET") {
        if (id == "current") return json_response(json_of(c.backend().current_profile()));
        for (const api::LoginProfile& p : c.backend().profiles())
            if (p.id == id) return json_response(json_of(p));
        return text_response(404, "Profile not found");
    }
    if (c.method() == "POST") {
        const Status ok = c.backend().switch_profile(std::string(id));
        return ok ? no_content() : text_response(500, ok.error().message());
    }
    if (c.method() == "DELETE") {
        const Status ok = c.backend().remove_profile(std::string(id));
        return ok ? no_content() : text_response(500, ok.error().message());
    }
    return text_response(405, "use GET, POST or DELETE");
}

// ---- the rest

http1::Response any_serve_config(const Call& c) {
    if (c.method() == "GET") {
        http1::Response r = response(200, kJson, "null");
        r.headers.emplace_back("Etag", std::string(kEmptyServeEtag));
        return r;
    }
    if (c.method() != "POST") return text_response(405, "unsupported method");
    if (!c.may_write()) return text_response(403, "serve config denied");
    return text_response(501, "serve is not supported");
}

http1::Response post_debug(const Call& c) {
    const std::string action = c.param("action");
    if (action == "statedir") {
        api::JsonText out;
        out.text(c.backend().state_dir());
        return json_response(out.str());
    }
    if (action == "current-netmap") return pretty(c.backend().net_map_json());
    const auto result = c.backend().debug_action(action);
    if (!result) return text_response(400, fmt::format("unknown action {}", json::dump(Json(action))));
    if (!*result) return text_response(400, result->error().message());
    return response((*result)->status, (*result)->content_type, (*result)->body);
}

http1::Response post_dial(const Call& c) {
    const DialRequest wanted = parse_dial(c.request());
    if (!wanted.refusal.empty()) return text_response(wanted.status, wanted.refusal);
    // The kernel routes to peers and to everybody else alike, so the client dials itself.
    const api::DaemonStatus s = c.backend().status(WithPeers::kYes);
    const std::string& host = wanted.host;
    std::optional<Addr> ip = Addr::parse(host);
    const auto matches = [&](const api::PeerStatus& p) {
        const std::string_view name(p.dns_name);
        return !name.empty() && (host == name || host + "." == name || host == name.substr(0, name.find('.')));
    };
    if (!ip && matches(s.self) && !s.tailscale_ips.empty()) ip = s.tailscale_ips.front();
    if (!ip && s.peers)
        for (const auto& [key, peer] : *s.peers)
            if (!ip && matches(peer) && !peer.tailscale_ips.empty()) ip = peer.tailscale_ips.front();
    http1::Response r = response(200, "", "");
    r.headers.emplace_back("Dial-Addr", ip ? Endpoint{*ip, wanted.port}.str() : fmt::format("{}:{}", host, wanted.port));
    r.headers.emplace_back("Dial-Self", "true");
    return r;
}

http1::Response component_logging(const Call& c) {
    api::JsonText out;
    out.open_object();
    out.field("Error", fmt::format("unknown component {}", json::dump(Json(c.param("component")))));
    out.close_object();
    return json_response(out.str());
}

/// One endpoint. `write_denied` set = only callers with the write right. `only` set = the one method allowed.
struct Route {
    std::string_view name;  ///< a final '/' = everything below
    const char* only = nullptr;
    const char* write_denied = nullptr;
    Handler handler = nullptr;
    void (*async)(const Call&) = nullptr;
};

constexpr std::array kRoutes = {
    Route{"status", nullptr, nullptr, get_status},
    Route{"prefs", nullptr, nullptr, nullptr, any_prefs},
    Route{"check-prefs", "POST", "checkprefs access denied", post_check_prefs},
    Route{"start", "POST", "access denied", nullptr, post_start},
    Route{"login-interactive", "POST", "login access denied", post_login},
    Route{"logout", "POST", "logout access denied", nullptr, post_logout},
    Route{"reset-auth", "POST", "reset-auth modify access denied", post_reset_auth},
    Route{"ping", "POST", nullptr, nullptr, post_ping},
    Route{"whois", nullptr, nullptr, get_whois},
    Route{"user-profile", nullptr, nullptr, get_user_profile},
    Route{"derpmap", nullptr, nullptr, get_derp_map},
    Route{"dns-config", nullptr, nullptr, get_dns_config},
    Route{"dns-osconfig", "GET", "dns-osconfig dump access denied",
          [](const Call& c) { return json_response(c.backend().dns_os_config_json()); }},
    Route{"dns-query", "GET", "dns-query access denied", nullptr, get_dns_query},
    Route{"check-ip-forwarding", nullptr, nullptr,
          [](const Call& c) { return warning(c.backend().ip_forwarding_warning()); }},
    Route{"check-udp-gro-forwarding", nullptr, nullptr,
          [](const Call& c) { return warning(c.backend().udp_gro_forwarding_warning()); }},
    Route{"check-so-mark-in-use", nullptr, nullptr, get_so_mark},
    Route{"usermetrics", nullptr, nullptr, get_user_metrics},
    Route{"metrics", nullptr, "metric access denied", get_user_metrics},
    Route{"cert-domains", nullptr, nullptr, get_cert_domains},
    Route{"tka/status", nullptr, nullptr, get_lock_status},
    Route{"serve-config", nullptr, nullptr, any_serve_config},
    Route{"profiles/", nullptr, "profiles access denied", any_profiles},
    Route{"suggest-exit-node", nullptr, nullptr,
          [](const Call&) { return json_response(R"({"ID":"","Name":""})"); }},
    Route{"debug", "POST", "debug access denied", post_debug},
    Route{"debug-drops", nullptr, nullptr, [](const Call& c) { return pretty(c.backend().drops_json()); }},
    Route{"debug-relays", "POST", nullptr, nullptr,
          [](const Call& c) { c.backend().check_relays([respond = c.respond](const std::string& json) { respond(json_response(json)); }); }},
    Route{"debug-portmap", nullptr, nullptr, [](const Call& c) { return pretty(c.backend().port_mapping_json()); }},
    Route{"debug-peer-relay-sessions", "GET", nullptr, [](const Call& c) { return json_response(c.backend().peer_relay_sessions_json()); }},
    Route{"debug-peer-endpoint-changes", "GET", nullptr, get_endpoint_changes},
    Route{"debug-derp-region", "POST", nullptr, nullptr, post_debug_derp_region},
    Route{"debug-paths", nullptr, nullptr, get_paths},
    Route{"doctor", "GET", nullptr, nullptr, get_doctor},
    Route{"component-debug-logging", nullptr, nullptr, component_logging},
    Route{"dial", "POST", nullptr, post_dial},
    Route{"reload-config", "POST", "access denied",
          [](const Call&) { return json_response(R"({"Reloaded":false,"Err":""})"); }},
    Route{"bugreport", "POST", nullptr,
          [](const Call& c) {
              return response(200, "text/plain", c.backend().bug_report(log::printable(c.param("note"), 1000), c.param("diagnose") == "true") + "\n");
          }},
    Route{"update/check", nullptr, nullptr,
          [](const Call&) { return response(200, kText, "{\"RunningLatest\":true}\n"); }},
    Route{"services", nullptr, nullptr, [](const Call&) { return json_response("{}"); }},
    Route{"policy/", nullptr, nullptr, [](const Call&) { return pretty(R"({"Summary":{"Scope":"Device"}})"); }},
    Route{"file-targets", "GET", nullptr, get_file_targets},
    Route{"files/", nullptr, "file access denied", nullptr, any_files},
    Route{"file-put/", nullptr, "file access denied", [](const Call&) { return text_response(400, "want PUT to put file"); }},
    // Asked for by programs, not offered here: an answer they understand.
    Route{"id-token", nullptr, "id-token access denied",
          [](const Call&) { return text_response(501, "Not implemented yet"); }},
    Route{"query-feature", "POST", nullptr, [](const Call&) { return text_response(501, "Not implemented yet"); }},
    Route{"cert/", nullptr, "cert access denied",
          [](const Call&) {
              return text_response(500, "your Tailscale account does not support getting TLS certs");
          }},
    Route{"drive/", nullptr, nullptr,
          [](const Call&) { return text_response(403, "sharing of folders is not supported"); }},
    Route{"goroutines", nullptr, "goroutine dump access denied",
          [](const Call&) { return text_response(501, "not supported"); }},
    Route{"logtap", nullptr, "logtap access denied", [](const Call&) { return text_response(501, "not supported"); }},
    Route{"shutdown", "POST", "shutdown access denied",
          [](const Call&) { return text_response(403, "shutdown access denied by policy"); }},
};

const Route* find_route(std::string_view path) {
    for (const Route& r : kRoutes)
        if (r.name.back() == '/' ? path.starts_with(r.name) : path == r.name) return &r;
    return nullptr;
}

}  // namespace

http1::Response text_response(unsigned status, std::string_view text) {
    return response(status, kText, std::string(text) + "\n");
}

http1::Response json_response(std::string_view compact) { return response(200, kJson, std::string(compact) + "\n"); }

void add_standard_headers(http1::Headers& headers, const Context& context) {
    headers.emplace_back("Content-Security-Policy",
                         "default-src 'none'; frame-ancestors 'none'; script-src 'none'; script-src-elem 'none'; "
                         "script-src-attr 'none'");
    headers.emplace_back("Tailscale-Cap", "142");
    if (!context.version_header.empty()) headers.emplace_back("Tailscale-Version", context.version_header);
    headers.emplace_back("X-Content-Type-Options", "nosniff");
    headers.emplace_back("X-Frame-Options", "DENY");
}

void handle_request(Context& context, const Exchange& exchange, const Respond& respond) {
    const http1::Request& request = exchange.request;
    const std::string& path = exchange.target.path;
    if (request.method == "CONNECT") return respond(text_response(405, "CONNECT is not supported"));
    if (path == "/") {
        return respond(response(200, "text/html; charset=utf-8",
                                "<html><title>Tailscale</title><body><h1>Tailscale</h1>"
                                "This is the local Tailscale daemon.\n"));
    }
    const Route* route = path.starts_with(kPrefix) ? find_route(std::string_view(path).substr(kPrefix.size())) : nullptr;
    if (!route) return respond(text_response(404, "404 page not found"));
    const Call call{context, exchange, respond};
    if (route->write_denied && !call.may_write()) return respond(text_response(403, route->write_denied));
    if (route->only && request.method != route->only) {
        const bool old_style = route->name != "bugreport";  // one endpoint words it differently
        return respond(old_style ? text_response(400, fmt::format("want {}", route->only))
                                 : text_response(405, fmt::format("only {} allowed", route->only)));
    }
    if (request.method != "GET")
        log::debug(1, "localapi: [{}] {}", log::printable(request.method, 16), log::printable(path));
    if (route->async)
        route->async(call);
    else
        respond(route->handler(call));
}

DialRequest parse_dial(const http1::Request& request) {
    DialRequest out;
    const auto refuse = [&](unsigned status, std::string why) {
        out.status = status;
        out.refusal = std::move(why);
        return out;
    };
    if (request.header("Upgrade") != "ts-dial") return refuse(400, "bad ts-dial upgrade");
    out.host = request.header("Dial-Host");
    const std::string_view port = request.header("Dial-Port");
    if (out.host.empty() || port.empty()) return refuse(400, "missing Dial-Host or Dial-Port header");
    const auto [end, ec] = std::from_chars(port.data(), port.data() + port.size(), out.port);
    if (ec != std::errc() || end != port.data() + port.size() || out.port == 0) return refuse(502, "resolve failure: bad port");
    return out;
}

}  // namespace mesh::localapi
