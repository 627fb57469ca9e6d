// SPDX-License-Identifier: BSD-3-Clause
// ping: one question to the daemon per try; stops as soon as the answer came by a direct path.

#include <fmt/format.h>

#include <chrono>
#include <ctime>
#include <thread>
#include <utility>

#include "base/json.h"
#include "base/log.h"
#include "tailscale-cli/commands.h"
#include "tailscale-cli/debug_text.h"
#include "tailscale-cli/doctor_text.h"
#include "tailscale-cli/ping_text.h"
#include "tailscale-cli/status_text.h"
#include "tailscaled/api/ping.h"

namespace mesh::cli {
namespace {

struct PingArgs {
    int64_t count = 10;
    bool icmp = false;
    bool peerapi = false;
    bool tsmp = false;
    int64_t size = 0;
    Duration timeout = seconds(5);
    bool until_direct = true;
    bool verbose = false;
    bool json = false;

    [[nodiscard]] api::PingType type() const {
        if (tsmp) return api::PingType::kTsmp;
        if (icmp) return api::PingType::kIcmp;
        if (peerapi) return api::PingType::kPeerApi;
        return api::PingType::kDisco;
    }
};

/// What the daemon tried since `since`, as lines on stderr.
void tell_events(Client& client, const Addr& ip, Time since) {
    const auto body = client.call("GET", "debug-paths?peer=" + http1::percent_encode(ip.str()));
    const auto j = body ? json::parse(*body) : Result<Json>(Json());
    if (!j || !j->is_array() || j->empty()) return;
    const Json* events = json::find(j->front(), "Events");
    if (events == nullptr || !events->is_array()) return;
    for (const Json& e : *events) {
        const Json* ago = e.is_object() ? json::find(e, "SecondsAgo") : nullptr;
        if (ago != nullptr && ago->is_number() && ago->get<double>() < (steady_now() - since).seconds())
            print_err(fmt::format("  {:.1f} s ago: {}\n", ago->get<double>(), path_event_text(e)));
    }
}

/// Why there is no direct path, by what is known now.
void tell_why(Client& client, const PingArgs& args, const Addr& ip) {
    const auto body = client.call("GET", "doctor?peer=" + http1::percent_encode(ip.str()));
    const auto j = body ? json::parse(*body) : Result<Json>(Json());
    if (!j || !j->is_object()) return;
    if (args.json)
        print_out(json::dump(*j) + "\n");
    else
        print_err(doctor_peer_text(*j));
}

int ping_peer(const Cli& cli, Client& client, const PingArgs& args, const Addr& ip) {
    bool any_pong = false;
    Time told = steady_now() - seconds(60);  // the first answer also tells how it came to be
    for (int64_t n = 1;; ++n) {
        const auto body =
            client.call("POST",
                        fmt::format("ping?ip={}&size={}&type={}", http1::percent_encode(ip.str()), args.size,
                                    api::ping_type_name(args.type())),
                        "", 200, steady_now() + args.timeout);
        const bool last = args.count > 0 && n >= args.count;
        if (!body) {
            const ApiError& e = body.error();
            if (e.kind == ApiError::Kind::kHttp && e.status == 400)
                return cli.fail(fmt::format("error 400 Bad Request: {}: ", e.body));
            if (e.kind != ApiError::Kind::kTimeout) return cli.fail(e);
            if (args.json)
                print_out(fmt::format("{{\"IP\":{},\"Err\":\"timed out\"}}\n", in_quotes(ip.str())));
            else
                print_out(fmt::format("ping {} timed out\n", in_quotes(ip.str())));
            if (args.verbose) tell_events(client, ip, std::exchange(told, steady_now()));
            if (last) return any_pong ? 0 : cli.fail("no reply");
            continue;
        }
        const auto r = api::parse_ping_result(*body);
        if (!r) return cli.fail(r.error().message());
        if (!r->err.empty()) {
            if (!r->is_local_ip) return cli.fail(log::printable(r->err));
            print_out(log::printable(r->err) + "\n");
            return 0;
        }
        any_pong = true;
        print_out(args.json ? api::compact_json(*body) + "\n" : pong_text(*r, args.type()));
        if (args.verbose) tell_events(client, ip, std::exchange(told, steady_now()));
        if (args.type() != api::PingType::kDisco) return 0;
        if (!r->endpoint.empty() && args.until_direct) return 0;
        if (last) return args.until_direct ? cli.fail("direct connection not established") : 0;
        std::this_thread::sleep_for(std::chrono::seconds(1));
    }
}

/// Ends with the reasons if asked for them.
int ping(const Cli& cli, Client& client, const PingArgs& args, const Addr& ip) {
    const int code = ping_peer(cli, client, args, ip);
    if (args.verbose && code != 0) tell_why(client, args, ip);
    return code;
}

}  // namespace

int run_ping(const Cli& cli, const Args& words) {
    PingArgs args;
    FlagSet flags("tailscale ping", "[flags] <name-or-address>", "Ping a node and see how it is reached",
                  "The first answer usually comes through a relay (DERP) while a direct path is being looked\n"
                  "for. Stops at the first direct answer, or after --c tries. An address of a subnet behind a\n"
                  "node pings that node.");
    flags.add("c", &args.count, "number of tries; 0 = no end");
    flags.add("icmp", &args.icmp, "ICMP through WireGuard, answered by the peer's daemon");
    flags.add("peerapi", &args.peerapi, "ask the peer's HTTP service");
    flags.add("size", &args.size, "bytes of the message (disco only); 0 = minimum");
    flags.add("timeout", &args.timeout, "how long to wait for each answer");
    flags.add("tsmp", &args.tsmp, "ping through WireGuard, but not the host's network stack");
    flags.add("until-direct", &args.until_direct, "stop at the first direct answer");
    flags.add("verbose", &args.verbose, "also what was tried, and why there is no direct path");
    flags.add("json", &args.json, "print each answer as a line of JSON");
    if (const auto exit = parse_or_exit(flags, words)) return *exit;
    Client client = cli.client();
    const auto status = client.status();
    if (!status) return cli.fail_explained(status.error());
    if (const auto text = not_running_text(*status)) {
        print_out(*text + "\n");
        return 1;
    }
    if (flags.rest().size() != 1 || flags.rest()[0].empty())
        return cli.fail("usage: tailscale ping <hostname-or-IP>");
    const std::string& name = flags.rest()[0];
    const auto target = find_target(*status, name);
    if (!target) return cli.fail(target.error().message());
    if (target->is_self) {
        print_out(target->ip.str() + " is local Tailscale IP\n");
        return 0;
    }
    if (args.verbose && target->ip.str() != name)
        log::info("lookup {} => {}", in_quotes(name), in_quotes(target->ip.str()));
    return ping(cli, client, args, target->ip);
}

}  // namespace mesh::cli
