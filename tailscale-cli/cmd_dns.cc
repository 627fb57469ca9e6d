// SPDX-License-Identifier: BSD-3-Clause
// dns: what the resolver of this node is told and what it answers.

#include <fmt/format.h>

#include "base/http1.h"
#include "base/json.h"
#include "tailscale-cli/commands.h"
#include "tailscale-cli/dns_text.h"

namespace mesh::cli {
namespace {

int dns_status(const Cli& cli, const Args& words) {
    bool all = false, as_json = false;
    FlagSet flags("tailscale dns status", "[--all] [--json]", "Show how names are resolved on this host");
    flags.add("all", &all, "show also what is only of interest when something is wrong");
    flags.add("json", &as_json, "print JSON");
    if (const auto exit = parse_or_exit(flags, words)) return *exit;
    if (const auto exit = refuse_words(cli, flags)) return *exit;
    Client client = cli.client();
    DnsStatus s;
    const auto status = client.status(false);
    if (!status) return cli.fail_explained(status.error());
    s.status = *status;
    const auto prefs = client.prefs();
    if (!prefs) return cli.fail(prefs.error());
    s.accept_dns = prefs->corp_dns;
    if (const auto config = client.call("GET", "dns-config")) {
        if (const auto j = json::parse(*config)) s.config = *j;
    } else if (config.error().status != 503) {
        return cli.fail(config.error());
    }
    if (const auto os = client.call("GET", "dns-osconfig")) {
        if (const auto j = json::parse(*os)) s.os = *j;
    } else {
        s.os_error = os.error().text;
    }
    print_out(as_json ? dns_status_json(s) : dns_status_text(s, all));
    return 0;
}

int dns_query(const Cli& cli, const Args& words) {
    bool as_json = false;
    FlagSet flags("tailscale dns query", "[--json] <name> [type]", "Ask this node's resolver, as programs on this host would",
                  "Type is A unless given: AAAA, CNAME, MX, PTR, SRV, TXT, …");
    flags.add("json", &as_json, "print JSON");
    if (const auto exit = parse_or_exit(flags, words)) return *exit;
    if (flags.rest().empty()) return cli.fail("missing required argument: name");
    if (flags.rest().size() > 2) return cli.fail("unexpected extra arguments: " + quoted_list(flags.rest()));
    DnsQueryAnswer q;
    q.name = flags.rest()[0];
    q.type = flags.rest().size() > 1 ? flags.rest()[1] : "A";
    for (char& c : q.type)
        if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    if (!dns::parse_type(q.type)) return cli.fail("invalid DNS record type: " + in_quotes(q.type));
    Client client = cli.client();
    const auto body = client.call("GET", fmt::format("dns-query?name={}&type={}", http1::percent_encode(q.name), http1::percent_encode(q.type)));
    if (!body) return cli.fail_explained(body.error());
    const auto j = json::parse(*body);
    if (!j) return cli.fail("the daemon's answer is not JSON");
    const auto message = base64_decode(json::str(*j, "Bytes"));
    if (!message) return cli.fail("the daemon's answer is not a DNS message");
    q.message = *message;
    if (const Json* list = json::find(*j, "Resolvers"); list && list->is_array())
        for (const Json& r : *list) q.resolvers.push_back(json::str(r, "Addr"));
    const auto parsed = dns::parse_message(q.message);
    if (!parsed) return cli.fail("the daemon's answer is not a DNS message");
    print_out(as_json ? dns_query_json(q, *parsed) : dns_query_text(q, *parsed));
    return 0;
}

}  // namespace

int run_dns(const Cli& cli, const Args& args) {
    if (!args.empty() && args[0] == "status") return dns_status(cli, {args.begin() + 1, args.end()});
    if (!args.empty() && args[0] == "query") return dns_query(cli, {args.begin() + 1, args.end()});
    const std::string usage =
        "Look into how names are resolved\n\nUSAGE\n  tailscale dns <subcommand> [command flags]\n\nSUBCOMMANDS\n"
        "  status  Show how names are resolved on this host\n  query   Ask this node's resolver\n";
    if (args.empty() || args[0] == "--help" || args[0] == "-h") {
        print_out(usage);
        return 0;
    }
    return cli.fail("tailscale dns: unknown subcommand: " + args[0]);
}

}  // namespace mesh::cli
