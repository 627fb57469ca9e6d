// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "base/log.h"

namespace mesh::daemon {
namespace {

std::optional<int> number(std::string_view text, int max) {
    int v = 0;
    const auto [p, ec] = std::from_chars(text.data(), text.data() + text.size(), v);
    if (ec != std::errc() || p != text.data() + text.size() || v < 0 || v > max) return std::nullopt;
    return v;
}

std::optional<bool> boolean(std::string_view text) {
    for (const char* t : {"1", "t", "T", "true", "TRUE", "True"})
        if (text == t) return true;
    for (const char* f : {"0", "f", "F", "false", "FALSE", "False"})
        if (text == f) return false;
    return std::nullopt;
}

/// "203.0.113.7:41641,[2001:db8::1]:41641". Addresses that peers never try are refused, so that a slip of the pen is noticed.
Result<std::vector<Endpoint>> endpoint_list(std::string_view text) {
    std::vector<Endpoint> out;
    while (!text.empty()) {
        const std::string_view word = text.substr(0, text.find(','));
        text.remove_prefix(std::min(text.size(), word.size() + 1));
        const auto bad = [&](std::string_view why) {
            return fail(Code::kInvalid, fmt::format("invalid value \"{}\" for flag -static-endpoints: {}", log::printable(word), why));
        };
        const auto e = Endpoint::parse(word);
        if (!e || e->port == 0) return bad("give address:port, for example 203.0.113.7:41641 or [2001:db8::1]:41641");
        const Addr& a = e->addr;
        if (a.is_unspecified() || a.is_loopback() || a.is_multicast() || a.is_link_local() || is_tailscale_range(a))
            return bad("peers cannot reach such an address; give the one that the router forwards from");
        if (std::find(out.begin(), out.end(), *e) == out.end()) out.push_back(*e);
        if (out.size() > kMaxStaticEndpoints) return bad(fmt::format("at most {} endpoints", kMaxStaticEndpoints));
    }
    return out;
}

/// "localhost:1055", "127.0.0.1:1055", "[::1]:1055", ":1055" (every address of this host).
Result<std::optional<Endpoint>> listen_address(const std::string& flag, std::string_view text) {
    if (text.empty()) return std::optional<Endpoint>{};
    std::string spelled(text);
    if (spelled.starts_with("localhost:")) spelled.replace(0, 9, "127.0.0.1");
    if (spelled[0] == ':') spelled.insert(0, "[::]");
    const auto e = Endpoint::parse(spelled);
    if (!e)
        return fail(Code::kInvalid, fmt::format("invalid value \"{}\" for flag -{}: give address:port, for example localhost:1055",
                                                log::printable(text), flag));
    return e;
}

Result<std::vector<std::string>> tun_names(std::string_view text) {
    std::vector<std::string> out;
    for (bool more = true; more;) {
        const size_t comma = text.find(',');
        const std::string_view name = text.substr(0, comma);
        more = comma != std::string_view::npos;
        if (more) text.remove_prefix(comma + 1);
        const bool good = !name.empty() && name.size() <= 15 && name.find_first_of("/ \t\n:") == std::string_view::npos;
        if (name != kUserspace && !good)
            return fail(Code::kInvalid, fmt::format("invalid value \"{}\" for flag -tun: an interface name has 1 to 15 characters", log::printable(name)));
        if (out.size() >= 8) return fail(Code::kInvalid, "invalid value for flag -tun: at most 8 names");
        out.emplace_back(name);
    }
    return out;
}

std::string parent(const std::string& path) {
    const size_t slash = path.rfind('/');
    return slash == std::string::npos ? "" : path.substr(0, slash);
}

}  // namespace

std::string Flags::state_path() const {
    if (!state.empty()) return state;
    if (!statedir.empty()) return statedir + "/tailscaled.state";
    return "/var/lib/tailscale/tailscaled.state";
}

std::string Flags::state_folder() const {
    if (!statedir.empty()) return statedir;
    if (state_path() == "mem:") return "";
    const std::string folder = parent(state_path());
    // As the original: only a folder that is plainly ours gets other files.
    return folder.substr(folder.rfind('/') + 1) == "tailscale" ? folder : "";
}

std::string usage() {
    return "Usage of tailscaled:\n"
           "  -cleanup\n"
           "    \tremove what an earlier run left in routes, rules and firewall, then exit\n"
           "  -no-logs-no-support\n"
           "    \taccepted and always so: this program uploads no logs\n"
           "  -outbound-http-proxy-listen string\n"
           "    \taddress:port of an HTTP proxy into the tailnet, such as localhost:8080\n"
           "  -port value\n"
           "    \tUDP port for WireGuard and peer-to-peer traffic; 0 picks one (default $PORT or 0)\n"
           "  -socket string\n"
           "    \tpath of the Unix socket that the tailscale command talks to (default \"/var/run/tailscale/tailscaled.sock\")\n"
           "  -socks5-server string\n"
           "    \taddress:port of a SOCKS5 proxy into the tailnet, such as localhost:1055\n"
           "  -state string\n"
           "    \tstate file, or mem: to keep nothing (default \"/var/lib/tailscale/tailscaled.state\")\n"
           "  -statedir string\n"
           "    \tfolder for the state file and other files\n"
           "  -static-endpoints value\n"
           "    \taddress:port,... that peers may reach this node by, such as a port forwarded by hand in the router\n"
           "  -tun string\n"
           "    \tname of the tunnel interface; \"userspace-networking\" needs neither interface nor root; of several, separated by\n"
           "    \tcommas, the first that works (default \"tailscale0\")\n"
           "  -verbose int\n"
           "    \tlog verbosity; 0 is the least\n"
           "  -version\n"
           "    \tprint the version and exit\n";
}

Result<Flags> parse_flags(const std::vector<std::string>& args, const std::string& port_env, const std::string& verbosity_env) {
    Flags f;
    if (const auto p = number(port_env, 65535)) f.port = static_cast<uint16_t>(*p);
    if (const auto v = number(verbosity_env, 100)) f.verbose = *v;
    for (size_t i = 0; i < args.size(); ++i) {
        const std::string& arg = args[i];
        if (arg.size() < 2 || arg[0] != '-' || arg == "--") {
            std::string rest;
            for (size_t k = i; k < args.size(); ++k) rest += fmt::format("{}\"{}\"", rest.empty() ? "" : " ", log::printable(args[k]));
            return fail(Code::kUnsupported, fmt::format("tailscaled does not take non-flag arguments: [{}]", rest));
        }
        std::string name = arg.substr(arg[1] == '-' ? 2 : 1);
        std::optional<std::string> value;
        if (const size_t eq = name.find('='); eq != std::string::npos) {
            value = name.substr(eq + 1);
            name.resize(eq);
        }
        if (name == "h" || name == "help") {
            f.help = true;
            return f;
        }
        bool ignored = false;
        bool* flag = name == "cleanup" ? &f.cleanup : name == "version" ? &f.version : name == "no-logs-no-support" ? &ignored : nullptr;
        if (flag) {
            const auto b = boolean(value.value_or("true"));
            if (!b) return fail(Code::kInvalid, fmt::format("invalid boolean value \"{}\" for -{}: parse error", log::printable(*value), name));
            *flag = *b;
            continue;
        }
        const bool known = name == "tun" || name == "port" || name == "state" || name == "statedir" || name == "socket" || name == "verbose" ||
                           name == "static-endpoints" || name == "socks5-server" || name == "outbound-http-proxy-listen";
        if (!known) return fail(Code::kInvalid, fmt::format("flag provided but not defined: -{}", log::printable(name)));
        if (!value) {
            if (i + 1 >= args.size()) return fail(Code::kInvalid, fmt::format("flag needs an argument: -{}", name));
            value = args[++i];
        }
        if (name == "port" || name == "verbose") {
            const auto n = number(*value, name == "port" ? 65535 : 100);
            if (!n) return fail(Code::kInvalid, fmt::format("invalid value \"{}\" for flag -{}: parse error", log::printable(*value), name));
            if (name == "port")
                f.port = static_cast<uint16_t>(*n);
            else
                f.verbose = *n;
        } else if (name == "static-endpoints") {
            TRY_ASSIGN(f.static_endpoints, endpoint_list(*value));
        } else if (name == "socks5-server") {
            TRY_ASSIGN(f.socks5, listen_address(name, *value));
        } else if (name == "outbound-http-proxy-listen") {
            TRY_ASSIGN(f.http_proxy, listen_address(name, *value));
        } else if (name == "tun") {
            TRY_ASSIGN(f.tuns, tun_names(*value));
        } else {
            (name == "state" ? f.state : name == "statedir" ? f.statedir : f.socket) = *value;
        }
    }
    if (f.state != "mem:" && (f.state.starts_with("kube:") || f.state.starts_with("arn:")))
        return fail(Code::kUnsupported, "this version keeps its state in a file: give --state=PATH or --state=mem:");
    if (f.socket.empty() || f.socket.size() > 107)
        return fail(Code::kInvalid, "invalid value for flag -socket: a Unix socket path has 1 to 107 bytes");
    return f;
}

}  // namespace mesh::daemon
