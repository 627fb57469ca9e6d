// SPDX-License-Identifier: BSD-3-Clause
#include "derper/program.h"

#include <dirent.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "base/log.h"
#include "derper/addresses.h"
#include "derper/bootstrap_dns.h"
#include "derper/certificates.h"
#include "derper/map_entry.h"
#include "derper/mesh.h"
#include "derper/server.h"
#include "derper/stun_server.h"
#include "platform/file.h"
#include "platform/loop/loop.h"
#include "platform/net/inherited.h"
#include "platform/system.h"

namespace mesh::derper {
namespace {

constexpr const char* kRootKeyFile = "/var/lib/derper/derper.key";
constexpr const char* kSelfSignedName = "self-signed";
constexpr const char* kPagesSocket = "http";  // FileDescriptorName= of the socket in -http-port's place
constexpr rlim_t kSpareDescriptors = 64;
constexpr size_t kMaxKeyList = 128U << 20;
constexpr size_t kMemoryPerClient = 24U << 10;
constexpr Duration kLookAtFiles = seconds(15);
constexpr Duration kLeaveFor = seconds(1);
constexpr Duration kLookWhoIsLeft = milliseconds(10);
constexpr Duration kDay = seconds(24LL * 3600);

std::string environment(const char* name) {
    const char* v = std::getenv(name);
    return v ? v : "";
}

/// The original's place, or the service's folder under systemd.
std::string default_cert_dir() {
    if (const std::string state = environment("STATE_DIRECTORY"); !state.empty()) return state + "/certs";
    if (const std::string cache = environment("XDG_CACHE_HOME"); !cache.empty()) return cache + "/tailscale/derper-certs";
    return environment("HOME") + "/.cache/tailscale/derper-certs";
}

std::string default_key_file() {
    if (const std::string state = environment("STATE_DIRECTORY"); !state.empty()) return state + "/derper.key";
    if (geteuid() == 0) return kRootKeyFile;
    if (const std::string state = environment("XDG_STATE_HOME"); !state.empty()) return state + "/derper/derper.key";
    return environment("HOME") + "/.local/state/derper/derper.key";
}

Result<NodePrivate> load_or_make_key(const std::string& path, Random& random) {
    const auto text = platform::read_file(path, 64U << 10);
    if (text) {
        auto key = parse_key_file(*text);
        if (!key) return tl::unexpected(std::move(key.error()).with(path));
        return key;
    }
    if (text.error().code != Code::kNotFound) return tl::unexpected(text.error());
    const NodePrivate key = NodePrivate::generate(random);
    if (const size_t slash = path.rfind('/'); slash != std::string::npos && slash > 0)
        TRY(platform::make_folders(path.substr(0, slash)));
    TRY(platform::replace_file(path, key_file_text(key), 0600));
    return key;
}

/// Takes what the hard limit allows and leaves some descriptors for the program itself; and no more than half of the
/// machine's memory has room for, so that a crowd is turned away before the kernel kills us.
size_t connection_limit() {
    rlimit l{};
    if (getrlimit(RLIMIT_NOFILE, &l) != 0) return 512;
    l.rlim_cur = l.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &l);
    (void)getrlimit(RLIMIT_NOFILE, &l);
    const size_t files = l.rlim_cur > 2 * kSpareDescriptors ? static_cast<size_t>(l.rlim_cur - kSpareDescriptors) : 64;
    const auto memory = static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
    return std::max<size_t>(64, std::min(files, memory / 2 / kMemoryPerClient));
}

/// A port below 1024 is what most people stumble over.
Status explain_port(Status s, uint16_t port) {
    if (!s && s.error().sys_errno == EACCES && port < 1024)
        return tl::unexpected(Error{Code::kDenied, 0,
                                    s.error().message() + " (ports below 1024 need root, or: setcap cap_net_bind_service=+ep on "
                                                          "this program, or AmbientCapabilities=CAP_NET_BIND_SERVICE in its unit)"});
    if (!s && s.error().sys_errno == EADDRINUSE)
        return tl::unexpected(Error{Code::kUnavailable, 0,
                                    s.error().message() + fmt::format(" (see who has it: ss -ltnup 'sport = :{}')", port)});
    return s;
}

uint64_t count_open_files() {
    uint64_t n = 0;
    if (DIR* d = ::opendir("/proc/self/fd")) {
        while (::readdir(d)) ++n;
        ::closedir(d);
    }
    return n > 3 ? n - 3 : 0;  // ".", ".." and the folder itself
}

uint64_t resident_bytes() {
    const auto statm = platform::read_file("/proc/self/statm", 4096);
    unsigned long long all = 0, resident = 0;
    if (!statm || std::sscanf(statm->c_str(), "%llu %llu", &all, &resident) != 2) return 0;
    return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

double cpu_seconds() {
    rusage used{};
    getrusage(RUSAGE_SELF, &used);
    const auto of = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6; };
    return of(used.ru_utime) + of(used.ru_stime);
}

class Program {
   public:
    Program(const Options& options, const std::string& version)
        : o_(options),
          version_(version),
          watch_files_(loop_, [this] { look_at_files(false); }),
          look_who_is_left_(loop_, [this] { wait_for_the_last(); }) {}

    Status run() {
        if (const auto r = platform::forbid_core_dumps(); !r) log::info("derper: core dumps could not be switched off: {}", r.error().message());
        TRY(prepare());
        TRY(open());
        announce();
        (void)platform::sd_notify("READY=1");
        for (const MeshTarget& t : mesh_targets_) links_.push_back(std::make_unique<MeshLink>(*mesh_, t));
        watch_files_.set_after(kLookAtFiles);
        platform::Signal on_int(loop_, SIGINT, [this] { leave(); });
        platform::Signal on_term(loop_, SIGTERM, [this] { leave(); });
        platform::Signal on_hup(loop_, SIGHUP, [this] { look_at_files(true); });
        loop_.run();
        server_->on_flush({});
        return {};
    }

   private:
    /// The first signal sends clients away in peace, the second ends it.
    void leave() {
        if (!leave_until_.is_never()) return loop_.stop();
        (void)platform::sd_notify("STOPPING=1");
        leave_until_ = loop_.now() + kLeaveFor;
        server_->leave();
        wait_for_the_last();
    }

    void wait_for_the_last() {
        if (server_->connections() == 0 || loop_.now() >= leave_until_) return loop_.stop();
        look_who_is_left_.set_after(kLookWhoIsLeft);
    }

    Status prepare() {
        log::set_verbosity(o_.verbose);
        TRY(adopt_sockets());
        for (const std::string& flag : o_.inert) log::info("derper: -{} has no effect in this program", flag);
        Server::Config c;
        if (o_.dev) {
            o_.listen = ":3340";
            c.key = NodePrivate::generate(random_);
            log::info("Running in dev mode.");
        } else {
            if (o_.config_path.empty()) {
                o_.config_path = default_key_file();
                log::info("no config path specified; using {}", o_.config_path);
            }
            TRY_ASSIGN(c.key, load_or_make_key(o_.config_path, random_));
        }
        public_key_ = c.key.public_key();
        TRY_ASSIGN(at_, parse_listen(o_.listen));
        TRY_ASSIGN(security_, choose_security(o_));
        if (o_.cert_dir.empty()) o_.cert_dir = default_cert_dir();
        c.max_connections = connection_limit();
        c.version = version_;
        c.loops = o_.threads > 0 ? static_cast<size_t>(o_.threads) : loops_for(platform::usable_cores());
        c.patience = {o_.write_timeout, o_.keepalive_time, o_.user_timeout};
        c.accept_rate = o_.accept_limit;
        c.accept_burst = static_cast<double>(o_.accept_burst);
        c.home = o_.home;
        c.derp = o_.derp;
        TRY_ASSIGN(c.trusted_proxies, parse_prefixes(o_.trusted_proxies));
        TRY_ASSIGN(c.metrics_from, parse_prefixes(o_.metrics_from));
        if (o_.verify_clients) c.admission.whois_socket = o_.socket;
        c.admission.url = o_.verify_url;
        c.admission.url_fail_open = o_.verify_url_fail_open;
        if (!o_.mesh_psk_file.empty()) {
            TRY_ASSIGN(const std::string text, platform::read_file(o_.mesh_psk_file, 4096));
            auto key = parse_mesh_key(text);
            if (!key) return tl::unexpected(std::move(key.error()).with(o_.mesh_psk_file));
            c.mesh_key = std::move(*key);
        }
        log::info("{}", c.mesh_key.is_zero() ? "No mesh key configured" : "DERP mesh key configured");
        c.rate = default_rates();
        TRY_ASSIGN(const auto names, parse_names(o_.bootstrap_names));
        TRY_ASSIGN(const auto hidden_names, parse_names(o_.hidden_bootstrap_names));
        TRY_ASSIGN(mesh_targets_, parse_mesh_with(o_.mesh_with));
        if (!o_.verify_url.empty() || !mesh_targets_.empty() || !names.empty() || !hidden_names.empty()) {
            auto config = platform::system_resolver_config();
            config.protect = platform::Protect::kNo;
            resolver_ = std::make_unique<platform::Resolver>(loop_, std::move(config));
        }
        if (!o_.verify_url.empty()) {
            log::info("derper: while the service of -verify-client-url does not answer, {} is admitted",
                      o_.verify_url_fail_open ? "everybody" : "nobody new");
            http_ = std::make_unique<platform::HttpClient>(loop_, *resolver_);
            c.http = http_.get();
        }
        if (!o_.allow_keys.empty()) {
            TRY_ASSIGN(c.admission.allowed, load_keys());
        }
        if (!o_.rate_config.empty()) {
            TRY_ASSIGN(c.rate, load_rate());
        }
        const NodePrivate key = c.key;
        const LockedKey mesh_key = c.mesh_key;
        server_ = std::make_unique<Server>(loop_, random_, std::move(c));
        server_->on_metrics([this](Metrics& m) { add_metrics(m); });
        if (!names.empty() || !hidden_names.empty()) {
            bootstrap_ = std::make_unique<BootstrapDns>(loop_, *resolver_, random_, names, hidden_names);
            server_->on_bootstrap([this](const http1::Request& request) { return bootstrap_->answer(request); });
        }
        if (mesh_targets_.empty()) return {};
        dialer_ = std::make_unique<platform::Dialer>(loop_, *resolver_);
        mesh_ = std::make_unique<MeshContext>(MeshContext{loop_, *dialer_, random_, server_->relay(), key, mesh_key,
                                                          [this] { server_->flush_soon(); }});
        server_->on_flush([this] {
            for (const auto& link : links_) link->flush();
        });
        return {};
    }

    /// Sockets of a .socket unit take the place of -a and -http-port.
    Status adopt_sockets() {
        TRY_ASSIGN(inherited_, platform::take_inherited_listeners());
        for (const platform::InheritedListener& s : inherited_) {
            const Endpoint at{s.at.addr.is_unspecified() ? Addr() : s.at.addr, s.at.port};
            if (s.name != kPagesSocket) o_.listen = at.addr.is_valid() ? at.str() : fmt::format(":{}", at.port);
            log::info("derper: socket {} comes from the service manager", s.at.str());
        }
        return {};
    }

    Status listen(Service service, const ListenAddress& at) {
        bool adopted = false;
        for (platform::InheritedListener& s : inherited_) {
            if ((s.name == kPagesSocket) != (service == Service::kPort80)) continue;
            TRY(server_->adopt(std::move(s.fd), service));
            adopted = true;
        }
        return adopted ? Status() : explain_port(server_->listen(at, service), at.port);
    }

    Status open() {
        if (security_ != Security::kPlain) TRY(open_tls());
        TRY(listen(Service::kDerp, at_));
        if (o_.stun) {
            auto stun = StunServer::open(loop_, at_.addr, static_cast<uint16_t>(o_.stun_port));
            if (!stun) return explain_port(tl::unexpected(std::move(stun.error())), static_cast<uint16_t>(o_.stun_port));
            stun_ = std::move(*stun);
            log::info("STUN server listening on {}:{}", at_.addr.is_valid() ? at_.addr.str() : "", stun_->port());
        }
        if (security_ == Security::kPlain || o_.http_port < 0) return {};
        const auto port = static_cast<uint16_t>(o_.http_port);
        const Status s = listen(Service::kPort80, {at_.addr, port});
        // Without a domain that port is a convenience (captive portal checks) and not worth failing for.
        if (s || security_ == Security::kFiles) return s;
        log::info("derper: no page on port {}: {}; -http-port -1 turns it off", port, s.error().message());
        return {};
    }

    Status open_tls() {
        const bool is_ip = Addr::parse(o_.hostname).has_value();
        const bool own_name = security_ == Security::kSelfSigned && !is_ip;
        cert_ = cert_paths(o_.cert_dir, own_name ? kSelfSignedName : o_.hostname);
        name_ = o_.hostname;
        if (security_ == Security::kSelfSigned || is_ip) {
            TRY_ASSIGN(const OwnAddresses own, read_addresses(at_.addr));
            std::vector<std::string> names;
            if (is_ip) names.push_back(o_.hostname);
            for (const Addr& a : own.addrs)
                if (a.str() != o_.hostname) names.push_back(a.str());
            const bool has_domain = own_name && o_.hostname != kDefaultHostname;
            if (has_domain) names.insert(names.begin(), o_.hostname);
            if (names.empty())
                return fail(Code::kInvalid, "this host has no address that clients could reach: give it with -hostname <IP>");
            TRY(ensure_self_signed(cert_, names, loop_.wall(), own_name));
            // The name in the map must be one the certificate is for; a certificate is kept while one address still fits.
            const auto fits = std::find_if(names.begin(), names.end(), [this](const auto& n) { return certificate_covers(cert_, n); });
            name_ = fits == names.end() ? names.front() : *fits;
            for (const std::string& n : names) {
                if (!certificate_covers(cert_, n)) {
                    if (own_name) log::info("derper: {} is not for {}; remove it and start again for a new one (its hash will be new too)", cert_.crt, n);
                } else if (const auto a = Addr::parse(n)) {
                    addrs_.push_back(*a);
                }
            }
            if (own.only_private && !is_ip && !has_domain)
                log::info("derper: this host has private addresses only; behind a NAT give the public one: -hostname <IP>");
        }
        stamp_ = files_stamp({cert_.crt, cert_.key});
        TRY(load_tls());
        return {};
    }

    Status load_tls() {
        TRY_ASSIGN(Certificate c, load_certificate(cert_, name_, public_key_, loop_.wall()));
        for (const std::string& w : c.warnings) log::info("derper: {}", w);
        pin_ = std::move(c.pin);
        not_after_ = c.not_after;
        self_signed_ = c.self_signed && (security_ == Security::kSelfSigned || Addr::parse(name_));
        server_->set_tls(std::move(c.tls));
        tls_loaded_ = loop_.now();
        return {};
    }

    Result<std::shared_ptr<const KeySet>> load_keys() {
        keys_stamp_ = files_stamp({o_.allow_keys});
        TRY_ASSIGN(const std::string text, platform::read_file(o_.allow_keys, kMaxKeyList));
        auto keys = parse_key_list(text);
        if (!keys) return tl::unexpected(std::move(keys.error()).with(o_.allow_keys));
        log::info("derper: {} keys are admitted ({})", keys->size(), o_.allow_keys);
        return std::make_shared<const KeySet>(std::move(*keys));
    }

    Result<RateConfig> load_rate() {
        TRY_ASSIGN(const std::string text, platform::read_file(o_.rate_config, 64U << 10));
        auto rate = parse_rate_config(text);
        if (!rate) return tl::unexpected(std::move(rate.error()).with(o_.rate_config));
        return rate;
    }

    /// New files are taken without dropping anybody; what cannot be read leaves the old state and is said once.
    void look_at_files(bool asked) {
        if (security_ != Security::kPlain) {
            const std::string stamp = files_stamp({cert_.crt, cert_.key});
            const bool changed = stamp != stamp_;
            stamp_ = stamp;
            // Once a day anyway: the meta certificate is good for 30 days.
            if (asked || changed || loop_.now() - tls_loaded_ > kDay) {
                const std::string before = pin_;
                const Status s = load_tls();
                if (!s) {
                    log::info("derper: still serving the old certificate: {}", s.error().message());
                    tls_loaded_ = loop_.now();
                } else if (pin_ != before) {
                    log::info("derper: serving a new certificate, {}", pin_);
                }
            }
        }
        if (!o_.allow_keys.empty() && (asked || files_stamp({o_.allow_keys}) != keys_stamp_)) {
            if (auto keys = load_keys())
                server_->set_allowed(std::move(*keys));
            else
                log::info("derper: still using the old list of keys: {}", keys.error().message());
        }
        if (asked && !o_.rate_config.empty()) {
            if (const auto rate = load_rate()) {
                server_->set_rate(*rate);
                log::info("derper: rate limit is now {} bytes/s, burst {} for a client; {} bytes/s, burst {} for all",
                          rate->client.bytes_per_second, rate->client.burst_bytes, rate->all.bytes_per_second, rate->all.burst_bytes);
            } else {
                log::info("derper: still using the old rate limit: {}", rate.error().message());
            }
        }
        give_memory_back();
        watch_files_.set_after(kLookAtFiles);
    }

    /// After the start, and after a crowd has come or left, the allocator would keep what it used: a login takes several times what a client does.
    void give_memory_back() {
        constexpr size_t kCrowd = 200, kFew = 32;
        const size_t now = server_->connections(), peak = server_->take_peak_connections();
        if (std::exchange(started_, true) && std::max(peak, trimmed_at_) - std::min(now, trimmed_at_) < std::min(kCrowd, std::max(kFew, trimmed_at_ / 2))) return;
        trimmed_at_ = now;
        platform::give_memory_back();
        platform::let_go_of_code();
    }

    void announce() {
        log::info("derper: serving on {}{}", o_.listen, security_ == Security::kPlain ? "" : " with TLS");
        if (security_ == Security::kPlain && o_.cert_mode != "off" && !o_.dev)
            log::info("derper: this is plain HTTP, for a proxy that does TLS; for clients on this port add -certmode self-signed or manual");
        if (!self_signed_) return;
        MapEntry e;
        e.hostname = name_;
        e.addrs = addrs_;
        e.derp_port = server_->port();
        e.stun_port = stun_ ? stun_->port() : -1;
        e.pin = pin_;
        const std::string yaml = map_yaml(e, Trust::kPin);
        log::info("Using self-signed certificate for IP address \"{}\". Configure it in DERPMap using:\n  {}", name_,
                  node_json(e, Trust::kPin));
        std::string text = fmt::format("Certificate hash: {}\n\nFor Headscale (derp.paths: a file with this):\n\n{}\n", pin_, yaml);
        text += fmt::format("For a JSON map:\n  {}\nFor clients that do not know CertName, without protection against imposters:\n  {}\n"
                            "(in YAML: insecurefortests: true in place of certname)\n",
                            map_json(e, Trust::kPin), node_json(e, Trust::kInsecure));
        std::fputs(text.c_str(), stderr);
        const std::string path = o_.cert_dir + "/derp.yaml";
        if (platform::replace_file(path, yaml, 0644)) log::info("derper: the entry for Headscale is also in {}", path);
    }

    void add_metrics(Metrics& m) const {
        if (stun_) {
            m.stun_answered_v4 = stun_->answered_v4();
            m.stun_answered_v6 = stun_->answered_v6();
            m.stun_ignored = stun_->ignored();
        }
        m.mesh_links_up = static_cast<uint64_t>(
            std::count_if(links_.begin(), links_.end(), [](const auto& l) { return l->up(); }));
        m.open_files = count_open_files();
        m.resident_bytes = resident_bytes();
        m.cpu_seconds = cpu_seconds();
        m.certificate_not_after = not_after_.unix_ns / 1'000'000'000;
    }

    Options o_;
    const std::string version_;
    SystemRandom random_;
    platform::Loop loop_;
    ListenAddress at_;
    Security security_ = Security::kPlain;
    NodePublic public_key_;

    CertPaths cert_;
    std::string name_;          // what clients dial and the certificate must be for
    std::vector<Addr> addrs_;   // of a relay without a domain
    bool self_signed_ = false;
    std::string pin_;
    WallTime not_after_;
    std::string stamp_, keys_stamp_;
    Time tls_loaded_;
    size_t trimmed_at_ = 0;  // connections when memory was given back last
    bool started_ = false;    // given back once since the start
    Time leave_until_ = Time::never();
    std::vector<platform::InheritedListener> inherited_;

    std::unique_ptr<platform::Resolver> resolver_;
    std::unique_ptr<platform::HttpClient> http_;
    std::unique_ptr<BootstrapDns> bootstrap_;
    std::unique_ptr<Server> server_;
    std::unique_ptr<StunServer> stun_;
    std::vector<MeshTarget> mesh_targets_;
    std::unique_ptr<platform::Dialer> dialer_;
    std::unique_ptr<MeshContext> mesh_;
    std::vector<std::unique_ptr<MeshLink>> links_;
    platform::Timer watch_files_;
    platform::Timer look_who_is_left_;
};

}  // namespace

Status run_relay(const Options& options, const std::string& version) { return Program(options, version).run(); }

}  // namespace mesh::derper
