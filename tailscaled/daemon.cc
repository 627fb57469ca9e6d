// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/daemon.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/log.h"
#include "base/version.h"
#include "platform/http/http_client.h"
#include "platform/linux/router.h"
#include "platform/loop/loop.h"
#include "platform/net/dialer.h"
#include "platform/net/resolver.h"
#include "platform/net/socket_mark.h"
#include "platform/system.h"
#include "tailscaled/local_backend.h"
#include "tailscaled/localapi/server.h"
#include "tailscaled/proxy_server.h"

namespace mesh::daemon {

namespace {

constexpr const char* kDefaultControlUrl = "https://controlplane.tailscale.com";

class Daemon {
   public:
    explicit Daemon(const Flags& flags) : flags_(flags), file_(flags.state_path()) {}
    ~Daemon() { server_.reset(); }

    /// Each step leaves nothing behind if a later one fails. The socket comes first: whoever holds it owns the names that
    /// all daemons share (chains, rules, table 52), so a second daemon stops here, before it has touched anything.
    [[nodiscard]] Status start() {
        TRY_ASSIGN(ipn::StateStore store, file_.load());
        auto profiles = ipn::Profiles::load(std::move(store), random_);
        if (!profiles) return tl::unexpected(std::move(profiles.error()).with(file_.path()));
        LocalBackend::Options options;
        options.state_dir = flags_.state_folder();
        options.wanted_port = flags_.port;
        options.default_control_url = kDefaultControlUrl;
        backend_ = std::make_unique<LocalBackend>(
            loop_, resolver_, dialer_, http_, random_, std::move(options), file_, std::move(*profiles),
            [this](const api::Notify& n) {
                if (server_) server_->publish(n);
            },
            [this](const std::string& why) { end(why); });
        server_ = std::make_unique<localapi::Server>(loop_, *backend_, random_, localapi::ServerOptions{"", ::geteuid()});
        TRY(server_->listen(flags_.socket));

        Engine::Options engine_options;
        engine_options.port = flags_.port;
        engine_options.static_endpoints = flags_.static_endpoints;
        if (const char* mtu = std::getenv("TS_DEBUG_MTU")) engine_options.mtu = static_cast<unsigned>(std::strtoul(mtu, nullptr, 10));
        if (engine_options.mtu < 576 || engine_options.mtu > 9000) engine_options.mtu = 1280;
        TRY_ASSIGN(auto engine, start_engine(engine_options));
        if (flags_.port != 0 && engine->port_v4() != flags_.port)
            log::info("magicsock: UDP port {} is taken by another program; using port {}", flags_.port, engine->port_v4());
        std::unique_ptr<platform::Router> router;
        if (!engine->userspace()) {
            const char* firewall = std::getenv("TS_DEBUG_FIREWALL_MODE");
            TRY_ASSIGN(router, platform::Router::start(tun_, firewall ? firewall : ""));
        }
        backend_->run(std::move(engine), std::move(router), tun_);
        if (flags_.socks5 || flags_.http_proxy) {
            auto open = [this](const std::string& host, Outgoing what) { backend_->dial(host, std::move(what)); };
            auto associate = [this](platform::ByteStream client) { backend_->associate(std::move(client)); };
            TRY_ASSIGN(proxy_, ProxyServer::start(loop_, flags_.socks5, flags_.http_proxy, std::move(open), std::move(associate)));
        }
        return {};
    }

    /// By the first of the --tun names that works.
    [[nodiscard]] Result<std::unique_ptr<Engine>> start_engine(Engine::Options options) {
        for (size_t i = 0;; ++i) {
            tun_ = options.tun_name = flags_.tuns[i];
            options.userspace = tun_ == kUserspace;
            if (options.userspace) platform::protect_no_sockets();
            auto engine = Engine::start(loop_, options, *backend_);
            if (engine || i + 1 == flags_.tuns.size()) return engine;
            log::info("{}; trying {}", engine.error().message(), flags_.tuns[i + 1]);
        }
    }

    int run() {
        const auto stop = [this](const char* name) {
            log::info("tailscaled got signal {}; shutting down", name);
            end("");
        };
        platform::Signal term(loop_, SIGTERM, [&] { stop("terminated"); });
        platform::Signal interrupt(loop_, SIGINT, [&] { stop("interrupt"); });
        platform::Signal hangup(loop_, SIGHUP, [&] { stop("hangup"); });
        if (const Status r = start(); !r) {
            log::info("{}", r.error().message());
            proxy_.reset();
            if (backend_) backend_->shut_down();
            return 1;
        }
        platform::sd_notify("READY=1");
        log::info("tailscaled is ready: socket {}, tunnel {}", flags_.socket, tun_);
        loop_.run();
        platform::sd_notify("STOPPING=1");
        proxy_.reset();
        backend_->shut_down();
        return exit_code_;
    }

   private:
    void end(const std::string& why) {
        if (!why.empty()) {
            log::info("fatal: {}", why);
            exit_code_ = 1;
        }
        loop_.stop();
    }

    const Flags& flags_;
    int exit_code_ = 0;
    SystemRandom random_;
    StateFile file_;
    platform::Loop loop_;
    platform::Resolver resolver_{loop_, platform::system_resolver_config()};
    platform::Dialer dialer_{loop_, resolver_};
    platform::HttpClient http_{loop_, resolver_};
    std::unique_ptr<LocalBackend> backend_;
    std::unique_ptr<localapi::Server> server_;
    std::unique_ptr<ProxyServer> proxy_;
    std::string tun_;
};

}  // namespace

int run_daemon(const Flags& flags) {
    ::signal(SIGPIPE, SIG_IGN);
    log::info("Program starting: v{}", kLongVersion);
    if (const auto r = platform::forbid_core_dumps(); !r) log::info("core dumps could not be switched off: {}", r.error().message());
    Daemon daemon(flags);
    return daemon.run();
}

int run_cleanup(const Flags& flags) {
    if (platform::unix_connect(flags.socket)) {
        log::info("a tailscaled is running on {}; stop it first, it cleans up by itself", flags.socket);
        return 1;
    }
    const auto tun = std::find_if(flags.tuns.begin(), flags.tuns.end(), [](const std::string& t) { return t != kUserspace; });
    if (tun == flags.tuns.end()) return 0;  // userspace networking leaves nothing
    const bool foreign_dns = foreign_dns_owner(*tun);
    const auto dns = foreign_dns ? Status{} : platform::cleanup_dns();
    if (!dns) log::info("cleanup: {}", dns.error().message());
    const auto routes = platform::cleanup(*tun);
    if (!routes) log::info("cleanup: {}", routes.error().message());
    return dns && routes ? 0 : 1;
}

}  // namespace mesh::daemon
