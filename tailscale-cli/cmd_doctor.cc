// SPDX-License-Identifier: BSD-3-Clause
// doctor: makes the daemon try, asks it what it found, and adds what only a look at the routers on the way can tell.

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <chrono>
#include <memory>
#include <thread>

#include "base/json.h"
#include "magicsock/derp/derp_map_json.h"
#include "platform/net/hop_probe.h"
#include "tailscale-cli/commands.h"
#include "tailscale-cli/doctor_text.h"
#include "tailscale-cli/netcheck_text.h"
#include "tailscaled/api/ping.h"

namespace mesh::cli {
namespace {

constexpr int kTries = 3;
constexpr Duration kAnswerWithin = seconds(15);

/// The path engine looks for a path only while somebody sends.
void try_peer(Client& client, const Addr& ip) {
    for (int n = 0; n < kTries; ++n) {
        const Time began = steady_now();
        const auto body = client.call("POST", fmt::format("ping?ip={}&size=0&type=disco", http1::percent_encode(ip.str())), "", 200,
                                      began + seconds(1));
        if (!body && body.error().kind != ApiError::Kind::kTimeout) return;
        if (body) {
            const auto r = api::parse_ping_result(*body);
            if (!r || !r->err.empty() || !r->endpoint.empty()) return;
        }
        const Duration left = began + seconds(1) - steady_now();
        if (left.ns > 0) std::this_thread::sleep_for(std::chrono::nanoseconds(left.ns));
    }
}

/// An IPv4 address of some relay: the far end of the way out.
Addr outside_address(Client& client) {
    const auto body = client.call("GET", "derpmap");
    const auto j = body ? json::parse(*body) : Result<Json>(Json());
    const auto map = j && j->is_object() ? derp::parse_derp_map(*j) : Result<derp::DerpMap>(derp::DerpMap{});
    if (!map) return {};
    for (const auto& [id, region] : map->regions) {
        for (const derp::DerpNode& n : region.nodes) {
            if (n.literal_v4().is_valid()) return n.literal_v4();
            if (!n.needs_name()) continue;
            addrinfo hints{};
            hints.ai_family = AF_INET;
            hints.ai_socktype = SOCK_DGRAM;
            addrinfo* list = nullptr;
            if (::getaddrinfo(n.host_name.c_str(), nullptr, &hints, &list) != 0) continue;
            const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(list, &::freeaddrinfo);
            return Addr::v4_bytes(reinterpret_cast<const uint8_t*>(&reinterpret_cast<const sockaddr_in*>(list->ai_addr)->sin_addr));
        }
    }
    return {};
}

/// What is wrong with the relays' ports and with the router that was asked for one, as findings.
void add_port_findings(Client& client, Json& out) {
    const Time until = steady_now() + kAnswerWithin;
    const auto relays = client.call("POST", "debug-relays", "", 200, until);
    const auto ports = client.call("GET", "debug-portmap", "", 200, until);
    const Findings found = read_findings(relays.value_or(""), ports.value_or(""));
    const auto add = [&](const char* level, const char* code, const std::string& text) {
        Json f = Json::object();
        f["Level"] = level;
        f["Code"] = code;
        f["Text"] = text;
        out.push_back(std::move(f));
    };
    for (const RelayFinding& r : found.relays)
        for (const std::string& problem : r.problems)
            if (!problem.starts_with("STUN: "))  // said by the daemon, which knows whether UDP works at all
                add("problem", "relay-port", fmt::format("The relay at {}: {}", r.where, problem));
    for (const std::string& note : found.port_notes) add("note", "port-mapping", note);
}

}  // namespace

int run_doctor(const Cli& cli, const Args& words) {
    bool as_json = false;
    bool quick = false;
    FlagSet flags("tailscale doctor", "[flags] [name-or-address]", "Say why a peer is not reached, or not directly, and what to do",
                  "Without a name it examines this host alone: login, control server, UDP, relays, IPv6, NAT. With one\n"
                  "it also tries to reach that peer. Takes up to ten seconds. Exit code 1: it found a problem.");
    flags.add("json", &as_json, "print JSON");
    flags.add("quick", &quick, "judge by what is known, without asking peer, relays and routers anew");
    if (const auto exit = parse_or_exit(flags, words)) return *exit;
    if (flags.rest().size() > 1) return cli.fail("too many arguments, expected at most one peer");
    Client client = cli.client();
    const auto status = client.status();
    if (!status) return cli.fail_explained(status.error());
    std::string query = quick ? "doctor?" : "doctor?measure=true&";
    const bool running = status->backend_state == api::State::kRunning || status->backend_state == api::State::kStarting;
    if (!flags.rest().empty()) {
        const auto target = find_target(*status, flags.rest()[0]);
        if (!target) return cli.fail(target.error().message());
        if (!target->is_self) {
            query += "peer=" + http1::percent_encode(target->ip.str());
            if (running && !quick) try_peer(client, target->ip);
        }
    }
    const auto body = client.call("GET", query, "", 200, steady_now() + kAnswerWithin);
    if (!body) return cli.fail(body.error());
    auto report = json::parse(*body);
    if (!report || !report->is_object()) return cli.fail("the daemon's answer cannot be read");
    Json& own = (*report)["Node"];
    if (!own.is_array()) own = Json::array();
    if (running && !quick) add_port_findings(client, own);
    // By an exit node's network it would be the routers of somebody else.
    if (running && !quick && !status->exit_node_status)
        if (const auto hop = judge_hops(platform::first_hops(outside_address(client), 2, milliseconds(2500))))
            own.push_back(*hop);
    if (as_json)
        print_out(api::indent_json(json::dump(*report), "\t") + "\n");
    else
        print_out(doctor_text(*report));
    return doctor_found_problem(*report) ? 1 : 0;
}

}  // namespace mesh::cli
