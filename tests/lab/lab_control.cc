// SPDX-License-Identifier: BSD-3-Clause
// lab-control: the lab's control server as a program.
#include <CLI/CLI.hpp>
#include <csignal>

#include "base/crypto/crypto.h"
#include "base/log.h"
#include "platform/file.h"
#include "platform/tls/certificate.h"
#include "tests/lab/control_server.h"

namespace {

using namespace mesh;

int fatal(const std::string& text) {
    fmt::print(stderr, "lab-control: {}\n", text);
    return 1;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{"A small control server for labs. State is in memory and gone with the program."};
    std::string listen = "127.0.0.1:8080", rules, prefix = "100.64.0.0/10", v6 = "fd7a:115c:a1e0::/48", derp_map, dns, cert, key;
    int64_t keepalive = 50, offline_delay = 10;
    int crowd = 0, stir = 0;
    bool no_magic_dns = false, no_early = false, no_zstd = false;
    lab::ControlServer::Options options;
    lab::RegistryOptions& r = options.registry;
    app.add_option("--listen", listen, "address:port")->capture_default_str();
    app.add_option("--prefix", prefix, "IPv4 addresses of nodes")->capture_default_str();
    app.add_option("--v6", v6, "IPv6 addresses of nodes, or \"off\"")->capture_default_str();
    app.add_option("--derp-map", derp_map, "JSON file with the DERP map");
    app.add_option("--auth-key", r.auth_keys, "accepted key (repeatable); none and no --require-login: everybody may join");
    app.add_option("--ephemeral-key", r.ephemeral_keys, "accepted key whose nodes vanish when they go offline");
    app.add_flag("--require-login", r.require_login, "without a key, a visit to the login URL is needed (GET approves)");
    app.add_flag("--approve-routes", r.approve_routes, "approve every offered route");
    app.add_option("--domain", r.domain, "DNS suffix of the nodes")->capture_default_str();
    app.add_option("--public-url", r.base_url, "how clients reach this server, for login URLs");
    app.add_option("--keepalive", keepalive, "seconds between keepalives")->capture_default_str();
    app.add_option("--offline-delay", offline_delay, "seconds until a node without poll counts as offline")->capture_default_str();
    app.add_option("--dns", dns, "JSON file with a DNSConfig, sent to every node");
    app.add_option("--rules", rules, "JSON file with FilterRules (a list), sent besides the one that allows everything");
    app.add_flag("--no-magic-dns", no_magic_dns, "send no MagicDNS");
    app.add_flag("--no-early-payload", no_early, "start HTTP/2 at once");
    app.add_flag("--no-zstd", no_zstd, "never compress");
    app.add_option("--tls-cert", cert, "PEM file: serve https");
    app.add_option("--tls-key", key, "PEM file");
    app.add_option("--crowd", crowd, "so many made-up peers for every node")->check(CLI::Range(0, 100'000));
    app.add_option("--stir", stir, "milliseconds between two of the crowd that come or go; 0 = never")->check(CLI::Range(0, 60'000));
    CLI11_PARSE(app, argc, argv);

    crypto::init();
    std::signal(SIGPIPE, SIG_IGN);
    const auto at = Endpoint::parse(listen);
    const auto v4 = Prefix::parse(prefix);
    if (!at) return fatal("--listen: not an address:port: " + listen);
    if (!v4 || !v4->addr.is_v4()) return fatal("--prefix: not an IPv4 prefix: " + prefix);
    options.listen = *at;
    r.v4 = *v4;
    if (v6 != "off") {
        r.v6 = Prefix::parse(v6);
        if (!r.v6 || !r.v6->addr.is_v6()) return fatal("--v6: neither an IPv6 prefix nor \"off\": " + v6);
    }
    if (!derp_map.empty()) {
        const auto text = platform::read_file(derp_map);
        if (!text) return fatal(text.error().message());
        auto j = json::parse(*text);
        if (!j || !j->is_object()) return fatal(derp_map + ": not a JSON object");
        r.derp_map = std::move(*j);
    }
    if (!dns.empty()) {
        const auto text = platform::read_file(dns);
        if (!text) return fatal(text.error().message());
        auto j = json::parse(*text);
        if (!j || !j->is_object()) return fatal(dns + ": not a JSON object");
        r.dns = std::move(*j);
    }
    if (!rules.empty()) {
        const auto text = platform::read_file(rules);
        if (!text) return fatal(text.error().message());
        auto j = json::parse(*text);
        if (!j || !j->is_array()) return fatal(rules + ": not a JSON list");
        r.rules = std::move(*j);
    }
    if (!cert.empty()) {
        auto tls = platform::TlsServerContext::load(cert, key);
        if (!tls) return fatal(tls.error().message());
        options.tls = *tls;
    }
    r.magic_dns = !no_magic_dns;
    options.keepalive = seconds(keepalive);
    options.offline_delay = seconds(offline_delay);
    options.early_payload = !no_early;
    options.zstd = !no_zstd;
    options.log = [](const std::string& line) { log::info("{}", log::printable(line, 1024)); };

    SystemRandom random;
    platform::Loop loop;
    platform::Signal term(loop, SIGTERM, [&] { loop.stop(); });
    platform::Signal interrupt(loop, SIGINT, [&] { loop.stop(); });
    auto server = lab::ControlServer::start(loop, random, std::move(options));
    if (!server) return fatal(server.error().message());
    lab::Registry& registry = (*server)->registry();
    registry.add_crowd(crowd, loop.wall());
    lab::NodeId next = 1;
    platform::Timer stirrer(loop, [&] {
        registry.set_online(next, !registry.nodes().at(next).online, loop.wall());
        (*server)->deliver();
        next = next % crowd + 1;
        stirrer.set_after(milliseconds(stir));
    });
    if (crowd > 0 && stir > 0) stirrer.set_after(milliseconds(stir));
    log::info("control server at {}", (*server)->base_url());
    loop.run();
    return 0;
}
