// SPDX-License-Identifier: BSD-3-Clause
#include "derper/options.h"

#include <fmt/format.h>

#include <charconv>
#include <functional>
#include <variant>

#include "base/json.h"

namespace mesh::derper {
namespace {

using Target = std::variant<std::string Options::*, bool Options::*, int Options::*>;
struct Flag {
    const char* name;
    Target target;
    const char* help;
};

const std::vector<Flag>& flags() {
    static const std::vector<Flag> all = {
        {"a", &Options::listen,
         "address to listen on: \":port\", \"ip:port\" or \"[ip]:port\"; without an IP on all interfaces. TLS if the "
         "port is 443 or -certmode is manual, plain HTTP otherwise"},
        {"c", &Options::config_path, "key file; made if it does not exist"},
        {"certdir", &Options::cert_dir, "folder of the certificates <hostname>.crt and <hostname>.key"},
        {"certmode", &Options::cert_mode, "where certificates come from; this program knows \"manual\""},
        {"dev", &Options::dev, "for trying out on one machine: plain HTTP on port 3340, a new key at each start"},
        {"hostname", &Options::hostname,
         "name of this server for its certificate; an IP address gets a self-signed one made"},
        {"http-port", &Options::http_port, "port for plain HTTP beside TLS; -1 turns it off"},
        {"socket", &Options::socket, "socket of the local tailscaled, for -verify-clients"},
        {"stun", &Options::stun, "run a STUN server"},
        {"stun-port", &Options::stun_port, "UDP port of the STUN server"},
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

std::optional<int> parse_int(std::string_view t) {
    int v = 0;
    const auto [end, ec] = std::from_chars(t.data(), t.data() + t.size(), v);
    if (ec != std::errc{} || end != t.data() + t.size()) return std::nullopt;
    return v;
}

tl::unexpected<Error> bad(std::string text) { return fail(Code::kInvalid, std::move(text)); }

}  // namespace

Result<Options> parse_options(const std::vector<std::string>& args) {
    Options o;
    for (size_t i = 0; i < args.size(); ++i) {
        const std::string_view arg = args[i];
        if (arg.size() < 2 || arg[0] != '-') return bad(fmt::format("unexpected argument \"{}\"", arg));
        if (arg == "--") {
            if (i + 1 < args.size()) return bad(fmt::format("unexpected argument \"{}\"", args[i + 1]));
            break;
        }
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
        if (!flag) return bad(fmt::format("flag provided but not defined: -{}", name));
        if (const auto* as_bool = std::get_if<bool Options::*>(&flag->target)) {
            const auto v = value ? parse_bool(*value) : true;
            if (!v) return bad(fmt::format("invalid boolean value \"{}\" for -{}: parse error", *value, name));
            o.**as_bool = *v;
            continue;
        }
        if (!value) {
            if (i + 1 >= args.size()) return bad(fmt::format("flag needs an argument: -{}", name));
            value = args[++i];
        }
        if (const auto* as_int = std::get_if<int Options::*>(&flag->target)) {
            const auto v = parse_int(*value);
            if (!v) return bad(fmt::format("invalid value \"{}\" for flag -{}: parse error", *value, name));
            o.**as_int = *v;
        } else {
            o.*std::get<std::string Options::*>(flag->target) = std::string(*value);
        }
    }
    if (o.stun_port < 1 || o.stun_port > 65535) return bad("-stun-port must be between 1 and 65535");
    if (o.http_port < -1 || o.http_port > 65535) return bad("-http-port must be -1 or a port");
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
        } else if (const auto* n = std::get_if<int Options::*>(&f.target)) {
            type = " int";
            shown = fmt::format(" (default {})", defaults.**n);
        } else if (defaults.*std::get<bool Options::*>(f.target)) {
            shown = " (default true)";
        }
        out += fmt::format("  -{}{}\n    \t{}{}\n", f.name, type, f.help, shown);
    }
    return out;
}

Result<ListenAddress> parse_listen(std::string_view text) {
    ListenAddress out;
    if (text.starts_with(':')) {
        const auto port = parse_int(text.substr(1));
        if (!port || *port < 0 || *port > 65535) return bad(fmt::format("listen address \"{}\": bad port", text));
        out.port = static_cast<uint16_t>(*port);
        return out;
    }
    const auto e = Endpoint::parse(text);
    if (!e) return bad(fmt::format("listen address \"{}\" is not \":port\", \"ip:port\" or \"[ip]:port\"", text));
    if (!e->addr.is_unspecified()) out.addr = e->addr;
    out.port = e->port;
    return out;
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
