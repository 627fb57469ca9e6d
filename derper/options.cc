// SPDX-License-Identifier: BSD-3-Clause
#include "derper/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <limits>
#include <variant>

#include "base/json.h"
#include "base/log.h"
#include "derper/bootstrap_dns.h"
#include "derper/siblings.h"

namespace mesh::derper {
namespace {

/// Flags of the original without an effect here.
struct InertText {};
struct InertBool {};
using Target = std::variant<std::string Options::*, bool Options::*, int Options::*, int64_t Options::*, double Options::*,
                            Duration Options::*, InertText, InertBool>;
struct Flag {
    const char* name;
    Target target;
    const char* help;
};
constexpr uint16_t kHttps = 443;
constexpr const char* kInert = "accepted for command lines of Tailscale's derper; has no effect here";

const std::vector<Flag>& flags() {
    static const std::vector<Flag> all = {
        {"a", &Options::listen,
         "address to listen on: \":port\", \"ip:port\" or \"[ip]:port\"; without an IP on all interfaces"},
        {"accept-connection-burst", &Options::accept_burst, "how many connections may come at once above the limit"},
        {"accept-connection-limit", &Options::accept_limit, "new connections per second; more are closed at once. One address may take a twentieth of this and of the burst"},
        {"ace", InertBool{}, kInert},
        {"acme-eab-key", InertText{}, kInert},
        {"acme-eab-kid", InertText{}, kInert},
        {"acme-email", InertText{}, kInert},
        {"acme-ip-certs", InertBool{}, kInert},
        {"allow-keys", &Options::allow_keys,
         "file with node keys (nodekey:..., one a line, # for remarks): only these are admitted; read again when it changes"},
        {"bootstrap-dns-names", &Options::bootstrap_names,
         "names, comma between, whose addresses /bootstrap-dns tells to nodes whose own DNS does not work"},
        {"c", &Options::config_path, "key file; made if it does not exist"},
        {"certdir", &Options::cert_dir, "folder of the certificates <hostname>.crt and <hostname>.key"},
        {"certmode", &Options::cert_mode,
         "\"manual\": files in -certdir; \"self-signed\": one is made for this host's addresses; \"off\": plain HTTP, for "
         "use behind a proxy that does TLS. Not given: self-signed on port 443, plain HTTP on any other"},
        {"check", &Options::check, "test the relay HOST[:PORT] from outside, say what is wrong, and exit"},
        {"derp", &Options::derp, "serve DERP; false leaves STUN and the pages"},
        {"dev", &Options::dev, "for trying out on one machine: plain HTTP on port 3340, a new key at each start"},
        {"home", &Options::home, "page at /: empty for ours, \"blank\", or a URL to redirect to"},
        {"hostname", &Options::hostname, "name of this server for its certificate, or its IP address"},
        {"http-port", &Options::http_port, "port for plain HTTP beside TLS; -1 turns it off"},
        {"mesh-psk-file", &Options::mesh_psk_file, "file with the key shared by the derpers of a mesh: 64 lower-case hex digits"},
        {"mesh-with", &Options::mesh_with,
         "derpers of the same region, comma between: host[:port][/host-to-dial][#sha256-raw:hash]; this one may be among them"},
        {"metrics-from", &Options::metrics_from, "who may read /metrics: IP prefixes, comma between. /debug/ is for loopback only"},
        {"rate-config", &Options::rate_config, "JSON file with PerClientRateLimitBytesPerSec, PerClientRateBurstBytes and the same "
                                               "with Global; read again on SIGHUP"},
        {"secrets-cache-dir", InertText{}, kInert},
        {"secrets-path-prefix", InertText{}, kInert},
        {"secrets-url", InertText{}, kInert},
        {"socket", &Options::socket, "socket of the local tailscaled, for -verify-clients"},
        {"stun", &Options::stun, "run a STUN server"},
        {"stun-port", &Options::stun_port, "UDP port of the STUN server"},
        {"tcp-keepalive-time", &Options::keepalive_time, "idle time before TCP asks whether the client lives"},
        {"tcp-user-timeout", &Options::user_timeout, "a client that acknowledges nothing for that long is dropped"},
        {"tcp-write-timeout", &Options::write_timeout, "a client that takes nothing for that long is dropped; 0 = never"},
        {"threads", &Options::threads, "event loops that clients are spread over, at most 64; 0 = one for each core this program may use if there are three or more, else one"},
        {"trusted-proxies", &Options::trusted_proxies,
         "proxies whose X-Forwarded-For is believed: IP prefixes, comma between"},
        {"unpublished-bootstrap-dns-names", &Options::hidden_bootstrap_names,
         "the same, told only to those who ask for the name"},
        {"v", &Options::verbose, "1 or more: say why connections end"},
        {"verify-client-url", &Options::verify_url, "ask this URL about every client (POST of NodePublic and Source)"},
        {"verify-client-url-fail-open", &Options::verify_url_fail_open, "admit clients while that URL cannot be reached"},
        {"verify-clients", &Options::verify_clients, "admit only nodes that the local tailscaled knows"},
        {"version", &Options::version, "print the version and exit"},
    };
    return all;
}

std::optional<bool> parse_bool(std::string_view t) {
    for (const char* yes : {"1", "t", "T", "true", "TRUE", "True"})
        if (t == yes) return true;
    for (const char* no : {"0", "f", "F", "false", "FALSE", "False"})
        if (t == no) return false;
    return std::nullopt;
}

template <class T>
std::optional<T> parse_number(std::string_view t) {
    if constexpr (std::is_floating_point_v<T>)
        if (t == "Inf" || t == "+Inf" || t == "inf") return std::numeric_limits<T>::infinity();
    T v = 0;
    const auto [end, ec] = std::from_chars(t.data(), t.data() + t.size(), v);
    if (ec != std::errc{} || end != t.data() + t.size()) return std::nullopt;
    return v;
}
std::optional<int> parse_int(std::string_view t) { return parse_number<int>(t); }

tl::unexpected<Error> bad(std::string text) { return fail(Code::kInvalid, std::move(text)); }

/// Letters to add, drop or change to get from one to the other.
size_t distance(std::string_view a, std::string_view b) {
    std::vector<size_t> row(b.size() + 1);
    for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
    for (size_t i = 1; i <= a.size(); ++i) {
        size_t corner = std::exchange(row[0], i);
        for (size_t j = 1; j <= b.size(); ++j) {
            const size_t up = row[j];
            row[j] = std::min({up + 1, row[j - 1] + 1, corner + (a[i - 1] == b[j - 1] ? 0U : 1U)});
            corner = up;
        }
    }
    return row.back();
}

tl::unexpected<Error> unknown(std::string_view name) {
    constexpr size_t kMaxName = 64;
    const Flag* nearest = nullptr;
    // At most two letters, and less than a third of the word.
    size_t best = std::min<size_t>(3, (name.size() + 2) / 3);
    for (const Flag& f : flags())
        if (name.size() <= kMaxName && distance(name, f.name) < best) {
            best = distance(name, f.name);
            nearest = &f;
        }
    return bad(fmt::format("flag provided but not defined: -{}{}", name,
                           nearest ? fmt::format(" (did you mean -{}?)", nearest->name) : ""));
}

/// "" or how to write it.
std::string hint(std::string_view name, std::string_view value, bool is_duration) {
    if (is_duration) return parse_int(value) ? fmt::format(": write -{} {}s", name, value) : "";
    if (value.starts_with(':') && parse_int(value.substr(1))) return fmt::format(": write -{} {}", name, value.substr(1));
    return "";
}

Status check_hostname(Options& o) {
    std::string_view h = o.hostname;
    if (h.empty()) return bad("-hostname is empty");
    if (const size_t at = h.find("://"); at != std::string_view::npos) {
        h.remove_prefix(at + 3);
        h = h.substr(0, h.find('/'));
        return bad(fmt::format("-hostname takes a name, not a URL: write -hostname {}", h));
    }
    if (h.size() > 2 && h.front() == '[' && h.back() == ']' && Addr::parse(h.substr(1, h.size() - 2)))
        o.hostname = std::string(h.substr(1, h.size() - 2));
    else if (!Addr::parse(h) && h.find(':') != std::string_view::npos)
        return bad(fmt::format("-hostname takes a name without a port: write -hostname {} -a {}", h.substr(0, h.rfind(':')),
                               h.substr(h.rfind(':'))));
    if (o.hostname.find_first_of("/\\ ") != std::string::npos || o.hostname.starts_with('.'))
        return bad(fmt::format("-hostname \"{}\" is no host name", o.hostname));
    return {};
}

Status check_values(Options& o) {
    if (o.stun_port < 1 || o.stun_port > 65535) return bad("-stun-port must be between 1 and 65535 (-stun=false turns STUN off)");
    if (o.http_port < -1 || o.http_port > 65535) return bad("-http-port must be -1 or a port");
    if (o.threads < 0 || o.threads > static_cast<int>(kMaxLoops)) return bad("-threads must be between 0 and 64");
    if (std::isnan(o.accept_limit) || o.accept_limit <= 0) return bad("-accept-connection-limit must be above 0");
    if (o.accept_burst < 1) return bad("-accept-connection-burst must be at least 1");
    if (!o.home.empty() && o.home != "blank") {
        const auto url = http_url(o.home);
        if (!url) return bad(fmt::format("-home must be \"blank\" or a URL with http:// or https://, not \"{}\"", o.home));
    }
    if (!o.verify_url.empty() && !http_url(o.verify_url))
        return bad(fmt::format("-verify-client-url \"{}\" is no http:// or https:// URL", o.verify_url));
    if (!o.mesh_with.empty() && o.mesh_psk_file.empty()) return bad("-mesh-with needs -mesh-psk-file");
    TRY(parse_prefixes(o.trusted_proxies));
    TRY(parse_prefixes(o.metrics_from));
    TRY(parse_names(o.bootstrap_names));
    TRY(parse_names(o.hidden_bootstrap_names));
    TRY(check_hostname(o));
    if (!o.dev) TRY(parse_listen(o.listen));
    if (o.check.empty()) TRY(choose_security(o));
    return {};
}

}  // namespace

bool http_url(std::string_view text) {
    for (const std::string_view scheme : {"http://", "https://"})
        if (text.starts_with(scheme) && text.size() > scheme.size() &&
            std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7f && c != '"' && c != '<' && c != '>'; }))
            return true;
    return false;
}

Result<Options> parse_options(const std::vector<std::string>& args) {
    Options o;
    std::string_view last_bool;
    for (size_t i = 0; i < args.size(); ++i) {
        const std::string_view arg = args[i];
        if (arg.size() < 2 || arg[0] != '-') {
            if (!last_bool.empty() && parse_bool(arg))
                return bad(fmt::format("unexpected argument \"{0}\": write -{1}={0}", arg, last_bool));
            return bad(fmt::format("unexpected argument \"{}\"", arg));
        }
        if (arg == "--") {
            if (i + 1 < args.size()) return bad(fmt::format("unexpected argument \"{}\"", args[i + 1]));
            break;
        }
        last_bool = {};
        std::string_view name = arg.substr(arg[1] == '-' ? 2 : 1);
        std::optional<std::string_view> value;
        if (const size_t eq = name.find('='); eq != std::string_view::npos) {
            value = name.substr(eq + 1);
            name = name.substr(0, eq);
        }
        if (name.empty() || name[0] == '-') return bad(fmt::format("bad flag syntax: {}", arg));
        if (name == "h" || name == "help") {
            o.help = true;
            return o;
        }
        const Flag* flag = nullptr;
        for (const Flag& f : flags())
            if (name == f.name) flag = &f;
        if (!flag) return unknown(name);
        const auto* as_bool = std::get_if<bool Options::*>(&flag->target);
        if (as_bool || std::holds_alternative<InertBool>(flag->target)) {
            const auto v = value ? parse_bool(*value) : true;
            if (!v) return bad(fmt::format("invalid boolean value \"{}\" for -{}: parse error", *value, name));
            if (!value) last_bool = flag->name;
            if (as_bool)
                o.**as_bool = *v;
            else if (*v)
                o.inert.emplace_back(flag->name);
            continue;
        }
        if (!value) {
            if (i + 1 >= args.size()) return bad(fmt::format("flag needs an argument: -{}", name));
            value = args[++i];
        }
        bool good = true;
        const auto set = [&](auto& field, auto parsed) {
            good = parsed.has_value();
            if (good) field = *parsed;
        };
        if (const auto* as_int = std::get_if<int Options::*>(&flag->target))
            set(o.**as_int, parse_int(*value));
        else if (const auto* as_long = std::get_if<int64_t Options::*>(&flag->target))
            set(o.**as_long, parse_number<int64_t>(*value));
        else if (const auto* as_double = std::get_if<double Options::*>(&flag->target))
            set(o.**as_double, parse_number<double>(*value));
        else if (const auto* as_duration = std::get_if<Duration Options::*>(&flag->target))
            set(o.**as_duration, parse_duration(*value));
        else if (const auto* as_text = std::get_if<std::string Options::*>(&flag->target))
            o.**as_text = std::string(*value);
        else
            o.inert.emplace_back(flag->name);
        if (!good)
            return bad(fmt::format("invalid value \"{}\" for flag -{}: parse error{}", *value, name,
                                   hint(name, *value, std::holds_alternative<Duration Options::*>(flag->target))));
    }
    if (o.version) return o;
    TRY(check_values(o));
    return o;
}

std::string usage(std::string_view program) {
    const Options defaults;
    std::string out = fmt::format("Usage of {}:\n", program);
    for (const Flag& f : flags()) {
        const char* type = "";
        std::string shown;
        if (const auto* s = std::get_if<std::string Options::*>(&f.target)) {
            type = " string";
            if (!(defaults.**s).empty()) shown = fmt::format(" (default \"{}\")", defaults.**s);
        } else if (std::holds_alternative<InertText>(f.target)) {
            type = " string";
        } else if (const auto* n = std::get_if<int Options::*>(&f.target)) {
            type = " int";
            shown = fmt::format(" (default {})", defaults.**n);
        } else if (const auto* l = std::get_if<int64_t Options::*>(&f.target)) {
            type = " int";
            shown = fmt::format(" (default {})", defaults.**l);
        } else if (std::holds_alternative<double Options::*>(f.target)) {
            type = " float";
            shown = fmt::format(" (default {}; Inf = none)", defaults.*std::get<double Options::*>(f.target));
        } else if (const auto* d = std::get_if<Duration Options::*>(&f.target)) {
            type = " duration";
            shown = fmt::format(" (default {}s)", (defaults.**d).millis() / 1000);
        } else if (const auto* b = std::get_if<bool Options::*>(&f.target); b && defaults.**b) {
            shown = " (default true)";
        }
        out += fmt::format("  -{}{}\n    \t{}{}\n", f.name, type, f.help, shown);
    }
    return out;
}

Result<Security> choose_security(const Options& o) {
    if (o.dev) return Security::kPlain;
    const std::string& m = o.cert_mode;
    if (m == "manual") return Security::kFiles;
    if (m == "self-signed") return Security::kSelfSigned;
    if (m == "off") return Security::kPlain;
    const auto at = parse_listen(o.listen);
    const bool tls = at && at->port == kHttps;
    const bool acme = m == "letsencrypt" || m == "gcp";
    if (acme && tls)
        return fail(Code::kUnsupported,
                    fmt::format("-certmode {} is not built in: get the certificate with certbot or acme.sh, put fullchain.pem and "
                                "the key as {}.crt and .key into -certdir, and use -certmode manual",
                                m, o.hostname == kDefaultHostname ? "<hostname>" : o.hostname));
    if (!m.empty() && !acme)
        return bad(fmt::format("-certmode \"{}\" is unknown: use manual, self-signed or off", log::printable(m, 40)));
    if (!tls) return Security::kPlain;
    if (o.hostname == kDefaultHostname || Addr::parse(o.hostname)) return Security::kSelfSigned;
    return fail(Code::kUnsupported,
                fmt::format("where does the certificate for {0} come from? Put fullchain.pem and the key as {0}.crt and {0}.key "
                            "into -certdir and use -certmode manual, or -certmode off behind a proxy that does TLS",
                            o.hostname));
}

size_t loops_for(size_t cores) {
    constexpr size_t kWorthIt = 3;
    return cores < kWorthIt ? 1 : std::min(cores, kMaxLoops);
}

Result<ListenAddress> parse_listen(std::string_view text) {
    ListenAddress out;
    if (text.starts_with(':') && text.find(':', 1) == std::string_view::npos) {
        const auto port = parse_int(text.substr(1));
        if (!port || *port < 0 || *port > 65535) return bad(fmt::format("listen address \"{}\": bad port", text));
        out.port = static_cast<uint16_t>(*port);
        return out;
    }
    if (const auto e = Endpoint::parse(text)) {
        if (!e->addr.is_unspecified()) out.addr = e->addr;
        out.port = e->port;
        return out;
    }
    std::string hint;
    if (const auto port = parse_int(text); port && *port >= 0 && *port <= 65535)
        hint = fmt::format(": a port alone needs a colon, write -a :{}", *port);
    else if (const auto addr = Addr::parse(text))
        hint = fmt::format(": the port is missing, write -a {}:443", addr->is_v6() ? fmt::format("[{}]", text) : std::string(text));
    else if (const size_t colon = text.rfind(':'); colon != std::string_view::npos && Addr::parse(text.substr(0, colon)))
        hint = fmt::format(": IPv6 needs brackets, write -a [{}]{}", text.substr(0, colon), text.substr(colon));
    else if (text.find("://") != std::string_view::npos)
        hint = ": not a URL, for example -a :443";
    else if (colon != std::string_view::npos)
        hint = fmt::format(": an IP address, not a name; write -a {} to listen on all", text.substr(colon));
    return bad(fmt::format("listen address \"{}\" is not \":port\", \"ip:port\" or \"[ip]:port\"{}", text, hint));
}

Result<std::vector<Prefix>> parse_prefixes(std::string_view text) {
    std::vector<Prefix> out;
    while (!text.empty()) {
        const size_t comma = std::min(text.find(','), text.size());
        std::string_view one = text.substr(0, comma);
        text.remove_prefix(std::min(comma + 1, text.size()));
        while (one.starts_with(' ')) one.remove_prefix(1);
        while (one.ends_with(' ')) one.remove_suffix(1);
        if (one.empty()) continue;
        const auto p = Prefix::parse(one);
        if (!p) return bad(fmt::format("\"{}\" is no IP address or prefix like 10.0.0.0/8", log::printable(one, 60)));
        out.push_back(p->masked());
    }
    return out;
}

std::optional<Duration> parse_duration(std::string_view t) {
    if (t == "0") return Duration{};
    constexpr double kMax = 1e17;  // ns, three years
    double total = 0;
    if (t.empty()) return std::nullopt;
    while (!t.empty()) {
        double v = 0;
        if (t[0] != '.' && (t[0] < '0' || t[0] > '9')) return std::nullopt;
        const auto [end, ec] = std::from_chars(t.data(), t.data() + t.size(), v, std::chars_format::fixed);
        if (ec != std::errc{}) return std::nullopt;
        t.remove_prefix(static_cast<size_t>(end - t.data()));
        const std::pair<std::string_view, double> units[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"h", 3600e9}, {"m", 60e9}, {"s", 1e9}};
        const auto* unit = std::find_if(std::begin(units), std::end(units), [&](const auto& u) { return t.starts_with(u.first); });
        if (unit == std::end(units)) return std::nullopt;
        t.remove_prefix(unit->first.size());
        total += v * unit->second;
        if (!(total <= kMax)) return std::nullopt;
    }
    return Duration{static_cast<int64_t>(total)};
}

Result<NodePrivate> parse_key_file(std::string_view text) {
    TRY_ASSIGN(const Json j, json::parse(text, 64U << 10));
    const auto key = NodePrivate::parse(json::str(j, "PrivateKey"));
    if (!key || key->is_zero()) return bad("no valid PrivateKey in it");
    return *key;
}

std::string key_file_text(const NodePrivate& key) {
    Json j = Json::object();
    j["PrivateKey"] = key.secret_text();
    return json::dump(j, "\t");
}

}  // namespace mesh::derper
