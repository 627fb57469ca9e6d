// SPDX-License-Identifier: BSD-3-Clause
// derper: a DERP relay and STUN server.

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "base/crypto/crypto.h"
#include "base/log.h"
#include "derper/certificates.h"
#include "derper/options.h"
#include "derper/server.h"
#include "derper/stun_server.h"
#include "platform/file.h"
#include "platform/loop/loop.h"

namespace {

using namespace mesh;

constexpr const char* kRootKeyFile = "/var/lib/derper/derper.key";
constexpr rlim_t kSpareDescriptors = 64;

std::string default_cert_dir() {
    const char* cache = std::getenv("XDG_CACHE_HOME");
    if (cache && *cache) return std::string(cache) + "/tailscale/derper-certs";
    const char* home = std::getenv("HOME");
    return std::string(home ? home : "") + "/.cache/tailscale/derper-certs";
}

Result<NodePrivate> load_or_make_key(std::string path, Random& random) {
    if (path.empty()) {
        if (geteuid() != 0) return fail(Code::kInvalid, "-c <config path> not specified");
        path = kRootKeyFile;
    }
    const auto text = platform::read_file(path, 64U << 10);
    if (text) {
        auto key = derper::parse_key_file(*text);
        if (!key) return tl::unexpected(std::move(key.error()).with(path));
        return key;
    }
    if (text.error().code != Code::kNotFound) return tl::unexpected(text.error());
    const NodePrivate key = NodePrivate::generate(random);
    if (const size_t slash = path.rfind('/'); slash != std::string::npos && slash > 0)
        TRY(platform::make_folders(path.substr(0, slash)));
    TRY(platform::replace_file(path, derper::key_file_text(key), 0600));
    return key;
}

/// Takes what the hard limit allows and leaves some descriptors for the program itself.
size_t connection_limit() {
    rlimit l{};
    if (getrlimit(RLIMIT_NOFILE, &l) != 0) return 512;
    l.rlim_cur = l.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &l);
    (void)getrlimit(RLIMIT_NOFILE, &l);
    return l.rlim_cur > 2 * kSpareDescriptors ? static_cast<size_t>(l.rlim_cur - kSpareDescriptors) : 64;
}

Status run(derper::Options o) {
    SystemRandom random;
    NodePrivate key;
    if (o.dev) {
        o.listen = ":3340";
        key = NodePrivate::generate(random);
        log::info("Running in dev mode.");
    } else {
        TRY_ASSIGN(key, load_or_make_key(o.config_path, random));
    }
    TRY_ASSIGN(const derper::ListenAddress at, derper::parse_listen(o.listen));
    const bool manual = o.cert_mode == "manual";
    const bool serve_tls = !o.dev && (at.port == 443 || manual);
    if (serve_tls && !manual)
        return fail(Code::kUnsupported, fmt::format("-certmode {} is not available here; use -certmode manual with "
                                                    "-certdir, or an IP address as -hostname for a self-signed "
                                                    "certificate", log::printable(o.cert_mode)));
    if (o.cert_dir.empty()) o.cert_dir = default_cert_dir();

    platform::Loop loop;
    derper::Server::Config config;
    config.key = key;
    config.max_connections = connection_limit();
    if (o.verify_clients) config.whois_socket = o.socket;
    derper::Server server(loop, random, std::move(config));

    const bool ip_hostname = Addr::parse(o.hostname).has_value();
    const auto load = [&] { return derper::load_tls(o.cert_dir, o.hostname, key.public_key(), loop.wall()); };
    // Renewed certificate files are picked up, and the meta certificate stays young.
    platform::Timer reload(loop, [&] {
        if (auto tls = load())
            server.set_tls(std::move(*tls));
        else
            log::info("derper: certificate not reloaded: {}", tls.error().message());
        reload.set_after(seconds(24 * 3600));
    });
    if (serve_tls) {
        if (ip_hostname) TRY(derper::ensure_self_signed(o.cert_dir, o.hostname, loop.wall()));
        TRY_ASSIGN(auto tls, load());
        server.set_tls(std::move(tls));
        reload.set_after(seconds(24 * 3600));
    }
    TRY(server.listen(at, derper::Service::kDerp));

    std::unique_ptr<derper::StunServer> stun;
    if (o.stun) {
        TRY_ASSIGN(stun, derper::StunServer::open(loop, at.addr, static_cast<uint16_t>(o.stun_port)));
        log::info("STUN server listening on {}:{}", at.addr.is_valid() ? at.addr.str() : "", stun->port());
    }
    if (serve_tls && o.http_port > 0)
        TRY(server.listen({at.addr, static_cast<uint16_t>(o.http_port)}, derper::Service::kPort80));
    log::info("derper: serving on {}{}", o.listen, serve_tls ? " with TLS" : "");
    if (serve_tls && ip_hostname) {
        TRY_ASSIGN(const std::string pin, derper::certificate_pin(o.cert_dir, o.hostname));
        log::info("Using self-signed certificate for IP address \"{}\". Configure it in DERPMap using:\n  {}",
                  o.hostname, derper::node_json(o.hostname, pin, server.port(), o.stun ? stun->port() : -1));
    }

    platform::Signal on_int(loop, SIGINT, [&] { loop.stop(); });
    platform::Signal on_term(loop, SIGTERM, [&] { loop.stop(); });
    loop.run();
    return {};
}

}  // namespace

int main(int argc, char** argv) {
    std::signal(SIGPIPE, SIG_IGN);
    mesh::crypto::init();
    const std::string program = argc > 0 ? argv[0] : "derper";
    const auto options = derper::parse_options(std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc));
    if (!options) {
        std::fputs((options.error().message() + "\n" + derper::usage(program)).c_str(), stderr);
        return 2;
    }
    if (options->help) {
        std::fputs(derper::usage(program).c_str(), stderr);
        return 0;
    }
    if (options->version) {
        std::puts(DERPER_VERSION);
        return 0;
    }
    if (const Status s = run(*options); !s) {
        log::info("derper: {}", s.error().message());
        return 1;
    }
    return 0;
}
