// SPDX-License-Identifier: BSD-3-Clause
// status, ip, whois, whoami, wait, exit-node: what the daemon knows, printed.

#include <fmt/format.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <thread>

#include "base/log.h"
#include "platform/loop/loop.h"
#include "tailscale-cli/commands.h"
#include "tailscale-cli/status_text.h"
#include "tailscale-cli/table_text.h"
#include "tailscale-cli/whois_text.h"

namespace mesh::cli {
namespace {

std::string brackets(const std::vector<Addr>& ips) {
    std::string out = "[";
    for (const Addr& ip : ips) out += (out.size() > 1 ? " " : "") + ip.str();
    return out + "]";
}

/// True if some interface of this host has the address.
bool host_has(const Addr& ip) {
    ifaddrs* list = nullptr;
    if (::getifaddrs(&list) != 0) return true;  // cannot be known: do not wait for ever
    const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> owner(list, &::freeifaddrs);
    for (const ifaddrs* i = list; i; i = i->ifa_next) {
        if (!i->ifa_addr) continue;
        if (i->ifa_addr->sa_family == AF_INET && ip.is_v4()) {
            const auto* a = reinterpret_cast<const sockaddr_in*>(i->ifa_addr);
            if (Addr::v4_bytes(reinterpret_cast<const uint8_t*>(&a->sin_addr)) == ip) return true;
        } else if (i->ifa_addr->sa_family == AF_INET6 && ip.is_v6()) {
            const auto* a = reinterpret_cast<const sockaddr_in6*>(i->ifa_addr);
            if (Addr::v6_bytes(a->sin6_addr.s6_addr) == ip) return true;
        }
    }
    return false;
}

std::string without_dots(std::string name) {
    while (!name.empty() && name.back() == '.') name.pop_back();
    return log::printable(name);
}

int list_exit_nodes(const Cli& cli, const Args& words) {
    std::string filter;
    FlagSet flags("tailscale exit-node list", "[flags]", "List nodes that offer to be an exit node");
    flags.add("filter", &filter, "country to list; nodes of self-hosted networks have none");
    if (const auto exit = parse_or_exit(flags, words)) return *exit;
    if (!flags.rest().empty()) return cli.fail("unexpected non-flag arguments to 'tailscale exit-node list'");
    const auto status = cli.client().status();
    if (!status) return cli.fail_explained(status.error());
    std::vector<std::vector<std::string>> rows{{" IP", "HOSTNAME", "COUNTRY", "CITY", "STATUS"}};
    for (const api::PeerStatus* p : sorted_peers(*status)) {
        if (!p->exit_node_option || p->tailscale_ips.empty()) continue;
        std::string state = p->exit_node ? "selected" : p->active ? "" : "-";
        if (!p->online) state += state.empty() || state == "-" ? "offline" : ", offline";
        if (state == "-offline") state = "offline";
        rows.push_back({" " + p->tailscale_ips[0].str(), without_dots(p->dns_name), "-", "-", state.empty() ? "-" : state});
    }
    if (rows.size() == 1) return cli.fail("no exit nodes found");
    if (!filter.empty()) return cli.fail("no exit nodes found for " + in_quotes(filter));
    print_out("\n" + table_text(rows, 5, LastColumn::kPadded, 10) +
              "\n# To view the complete list of exit nodes for a country, use `tailscale exit-node list --filter=` "
              "followed by the country name.\n"
              "# To use an exit node, use `tailscale set --exit-node=` followed by the IP or hostname.\n");
    return 0;
}

int print_whois(const Cli& cli, const std::string& body, bool as_json) {
    const auto who = api::parse_whois(body);
    if (!who) return cli.fail(who.error().message());
    if (as_json)
        print_out(api::indent_json(body, "  ") + "\n");
    else
        print_out(whois_text(*who));
    return 0;
}

}  // namespace

Result<Target> find_target(const api::DaemonStatus& status, const std::string& name) {
    const auto is_own = [&](const Addr& ip) {
        return std::find(status.tailscale_ips.begin(), status.tailscale_ips.end(), ip) != status.tailscale_ips.end();
    };
    if (const auto ip = Addr::parse(name)) return Target{*ip, is_own(*ip)};
    const auto matches = [&](const api::PeerStatus& p) {
        return !p.dns_name.empty() &&
               (name == p.dns_name || name + "." == p.dns_name || name == display_name(status, p));
    };
    for (const api::PeerStatus* p : sorted_peers(status)) {
        if (!matches(*p)) continue;
        if (p->tailscale_ips.empty()) return fail(Code::kNotFound, "node found but lacks an IP");
        return Target{p->tailscale_ips[0], false};
    }
    if (matches(status.self) && !status.tailscale_ips.empty()) return Target{status.tailscale_ips[0], true};
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_DGRAM;
    addrinfo* list = nullptr;
    const int rc = ::getaddrinfo(name.c_str(), nullptr, &hints, &list);
    if (rc != 0) {
        const std::string why = rc == EAI_NONAME ? "no such host" : gai_strerror(rc);
        return fail(Code::kNotFound, fmt::format("error looking up IP of {}: lookup {}: {}", in_quotes(name), name, why));
    }
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(list, &::freeaddrinfo);
    for (const addrinfo* a = list; a; a = a->ai_next) {
        std::optional<Addr> ip;
        if (a->ai_family == AF_INET)
            ip = Addr::v4_bytes(
                reinterpret_cast<const uint8_t*>(&reinterpret_cast<const sockaddr_in*>(a->ai_addr)->sin_addr));
        else if (a->ai_family == AF_INET6)
            ip = Addr::v6_bytes(reinterpret_cast<const sockaddr_in6*>(a->ai_addr)->sin6_addr.s6_addr);
        if (ip) return Target{*ip, is_own(*ip)};
    }
    return fail(Code::kNotFound, fmt::format("no IPs found for {}", in_quotes(name)));
}

int run_status(const Cli& cli, const Args& words) {
    StatusOptions options;
    bool as_json = false;
    bool web = false;
    bool browser = true;
    std::string listen = "127.0.0.1:8384";
    FlagSet flags("tailscale status", "[flags]", "Show this node and its peers");
    flags.add("active", &options.active, "only peers with an active session");
    flags.add("browser", &browser, "not supported", Show::kHidden);
    flags.add("header", &options.header, "print column titles");
    flags.add("json", &as_json, "print JSON");
    flags.add("listen", &listen, "not supported", Show::kHidden);
    flags.add("peers", &options.peers, "show peers");
    flags.add("self", &options.self, "show this node");
    flags.add("web", &web, "not supported", Show::kHidden);
    if (const auto exit = parse_or_exit(flags, words)) return *exit;
    if (!flags.rest().empty()) return cli.fail("unexpected non-flag arguments to 'tailscale status'");
    if (web) return cli.fail("the web page is not supported; use --json");
    Client client = cli.client();
    if (as_json && !options.active) {  // the daemon's own words: nothing to read and write again
        const auto body = client.call("GET", options.peers ? "status" : "status?peers=false");
        if (!body) return cli.fail_explained(body.error());
        print_out(api::indent_json(*body, "  "));
        return 0;
    }
    auto status = client.status(options.peers);
    if (!status) return cli.fail_explained(status.error());
    if (as_json) {
        if (options.active && status->peers)
            std::erase_if(*status->peers, [](const auto& p) { return !p.second.active; });
        print_out(api::indent_json(api::status_json(*status), "  "));
        return 0;
    }
    if (const auto text = not_running_text(*status)) {
        print_out(*text + "\n");
        return 1;
    }
    print_out(status_text(*status, options, platform::read_wall_clock()));
    return 0;
}

int run_ip(const Cli& cli, const Args& words) {
    bool one = false;
    bool v4 = false;
    bool v6 = false;
    std::string assert_ip;
    FlagSet flags("tailscale ip", "[flags] [peer]", "Show addresses of this node or a peer");
    flags.add("1", &one, "only the first address");
    flags.add("4", &v4, "only IPv4");
    flags.add("6", &v6, "only IPv6");
    flags.add("assert", &assert_ip, "fail unless this node has this address");
    if (const auto exit = parse_or_exit(flags, words)) return *exit;
    if (flags.rest().size() > 1) return cli.fail("too many arguments, expected at most one peer");
    if (static_cast<int>(one) + static_cast<int>(v4) + static_cast<int>(v6) > 1)
        return cli.fail("tailscale ip -1, -4, and -6 are mutually exclusive");
    const auto status = cli.client().status();
    if (!status) return cli.fail(status.error());
    std::vector<Addr> ips = status->tailscale_ips;
    if (!assert_ip.empty()) {
        const auto wanted = Addr::parse(assert_ip);
        if (wanted && std::find(ips.begin(), ips.end(), *wanted) != ips.end()) return 0;
        return cli.fail(fmt::format("assertion failed: IP {} not found among {}", in_quotes(assert_ip), brackets(ips)));
    }
    if (!flags.rest().empty()) {
        const auto target = find_target(*status, flags.rest()[0]);
        if (!target) return cli.fail(target.error().message());
        const auto has = [&](const api::PeerStatus& p) {
            return std::find(p.tailscale_ips.begin(), p.tailscale_ips.end(), target->ip) != p.tailscale_ips.end();
        };
        bool found = target->is_self;
        for (const api::PeerStatus* p : sorted_peers(*status)) {
            if (found || !has(*p)) continue;
            ips = p->tailscale_ips;
            found = true;
        }
        if (!found) return cli.fail(fmt::format("no peer found with IP {}", target->ip.str()));
    }
    if (ips.empty())
        return cli.fail(fmt::format("no current Tailscale IPs; state: {}", api::state_name(status->backend_state)));
    std::stable_sort(ips.begin(), ips.end(), [](const Addr& a, const Addr& b) { return a.is_v4() && !b.is_v4(); });
    std::string out;
    for (const Addr& ip : ips) {
        if ((v4 && !ip.is_v4()) || (v6 && !ip.is_v6())) continue;
        out += ip.str() + "\n";
        if (one) break;
    }
    if (out.empty()) return cli.fail(v4 ? "no Tailscale IPv4 address" : "no Tailscale IPv6 address");
    print_out(out);
    return 0;
}

int run_whois(const Cli& cli, const Args& words) {
    bool as_json = false;
    std::string proto;
    FlagSet flags("tailscale whois", "[flags] ip[:port]", "Show the node and user behind an address");
    flags.add("json", &as_json, "print JSON");
    flags.add("proto", &proto, "tcp or udp; both if empty");
    if (const auto exit = parse_or_exit(flags, words)) return *exit;
    if (flags.rest().size() > 1) return cli.fail("too many arguments, expected at most one peer");
    if (flags.rest().empty()) return cli.fail("missing argument, expected one peer");
    const auto body = cli.client().call("GET", fmt::format("whois?proto={}&addr={}", http1::percent_encode(proto),
                                                           http1::percent_encode(flags.rest()[0])));
    if (!body) {
        if (body.error().status == 404) return cli.fail("peer not found");
        return cli.fail(body.error());
    }
    return print_whois(cli, *body, as_json);
}

int run_whoami(const Cli& cli, const Args& words) {
    bool as_json = false;
    FlagSet flags("tailscale whoami", "[flags]", "Show this node and its user");
    flags.add("json", &as_json, "print JSON");
    if (const auto exit = parse_or_exit(flags, words)) return *exit;
    if (const auto exit = refuse_words(cli, flags)) return *exit;
    Client client = cli.client();
    const auto status = client.status(false);
    if (!status) return cli.fail(status.error());
    if (status->tailscale_ips.empty())
        return cli.fail(fmt::format("no current Tailscale IP address; state: {}", api::state_name(status->backend_state)));
    const auto body = client.call("GET", "whois?proto=&addr=" + http1::percent_encode(status->tailscale_ips[0].str()));
    if (!body) return cli.fail(body.error());
    return print_whois(cli, *body, as_json);
}

int run_wait(const Cli& cli, const Args& words) {
    Duration timeout;
    FlagSet flags("tailscale wait", "[flags]", "Wait until this node is connected and the system has its address");
    flags.add("timeout", &timeout, "how long; 0s waits for ever");
    if (const auto exit = parse_or_exit(flags, words)) return *exit;
    if (!flags.rest().empty()) return cli.fail("unexpected arguments: " + quoted_list(flags.rest()));
    const Time deadline = timeout.ns > 0 ? steady_now() + timeout : Time{};
    const auto over = [&] { return !deadline.is_zero() && steady_now() >= deadline; };
    const auto pause = [] { std::this_thread::sleep_for(std::chrono::milliseconds(100)); };
    constexpr const char* kOver = "context deadline exceeded";
    Client client = cli.client();
    while (!client.status(false)) {
        if (over()) return cli.fail(kOver);
        pause();
    }
    auto bus = client.watch(api::kWatchInitialState, deadline);
    if (!bus) return cli.fail(bus.error());
    std::optional<api::DaemonStatus> up;
    while (!up) {
        const auto line = bus->next(deadline);
        if (!line) return cli.fail(line.error());
        const auto n = api::parse_notify(*line);
        if (!n || n->state != api::State::kRunning) continue;
        auto status = client.status(false);
        if (!status) return cli.fail(status.error());
        if (!status->tailscale_ips.empty()) up = std::move(*status);
    }
    while (up->tun && !host_has(up->tailscale_ips[0])) {
        if (over()) return cli.fail(kOver);
        pause();
    }
    return 0;
}

int run_exit_node(const Cli& cli, const Args& words) {
    FlagSet flags("tailscale exit-node", "<list | suggest>", "List nodes that offer to be an exit node");
    if (const auto exit = parse_or_exit(flags, words)) return *exit;
    if (flags.rest().empty()) {
        print_out(flags.usage());
        return 0;
    }
    const Args rest(flags.rest().begin() + 1, flags.rest().end());
    if (flags.rest()[0] == "list") return list_exit_nodes(cli, rest);
    if (flags.rest()[0] == "suggest") {
        const auto body = cli.client().call("GET", "suggest-exit-node");
        if (!body) {
            ApiError e = body.error();
            e.text = "suggest exit node: " + e.text;
            return cli.fail(e);
        }
        print_out("No exit node suggestion is available.\n");
        return 0;
    }
    return cli.fail("tailscale exit-node: unknown subcommand: " + flags.rest()[0]);
}

}  // namespace mesh::cli
