// SPDX-License-Identifier: BSD-3-Clause
// ping: one question to the daemon per try; stops as soon as the answer came by a direct path.

#include <fmt/format.h>

#include <chrono>
#include <ctime>
#include <thread>

#include "base/log.h"
#include "tailscale-cli/commands.h"
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

    [[nodiscard]] api::PingType type() const {
        if (tsmp) return api::PingType::kTsmp;
        if (icmp) return api::PingType::kIcmp;
        if (peerapi) return api::PingType::kPeerApi;
        return api::PingType::kDisco;
    }
};

int ping(const Cli& cli, Client& client, const PingArgs& args, const Addr& ip) {
    bool any_pong = false;
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
            print_out(fmt::format("ping {} timed out\n", in_quotes(ip.str())));
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
        print_out(pong_text(*r, args.type()));
        if (args.type() != api::PingType::kDisco) return 0;
        if (!r->endpoint.empty() && args.until_direct) return 0;
        if (last) return args.until_direct ? cli.fail("direct connection not established") : 0;
        std::this_thread::sleep_for(std::chrono::seconds(1));
    }
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
    flags.add("verbose", &args.verbose, "say more");
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
