// SPDX-License-Identifier: BSD-3-Clause
// netcheck: the daemon gives the map of relays, the probes run here on sockets of our own, so the report also tells
// what this user's packets meet. What needs TLS is done by the daemon meanwhile (the relays' own ports, HTTPS latency where UDP is
// blocked), as a TLS library would slow every command down; if it does not answer, relays are measured by connecting to their port.

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <ctime>
#include <future>
#include <map>
#include <memory>
#include <thread>

#include "base/json.h"
#include "base/random.h"
#include "magicsock/derp/derp_map_json.h"
#include "magicsock/netcheck/format.h"
#include "magicsock/netcheck/netcheck.h"
#include "platform/loop/loop.h"
#include "platform/net/sockaddr.h"
#include "platform/net/source_address.h"
#include "platform/net/udp_socket.h"
#include "tailscale-cli/commands.h"
#include "tailscale-cli/netcheck_text.h"
#include "tailscale-cli/port_probe.h"

namespace mesh::cli {
namespace {

constexpr Duration kDaemonPatience = seconds(12);
constexpr Duration kDaemonPoll = milliseconds(20);

using platform::UdpSocket;

std::vector<Addr> resolve(const std::string& host) {
    std::vector<Addr> out;
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_DGRAM;
    addrinfo* list = nullptr;
    if (::getaddrinfo(host.c_str(), nullptr, &hints, &list) != 0) return out;
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(list, &::freeaddrinfo);
    for (const addrinfo* a = list; a && out.size() < 16; a = a->ai_next) {
        if (a->ai_family == AF_INET)
            out.push_back(Addr::v4_bytes(
                reinterpret_cast<const uint8_t*>(&reinterpret_cast<const sockaddr_in*>(a->ai_addr)->sin_addr)));
        else if (a->ai_family == AF_INET6)
            out.push_back(Addr::v6_bytes(reinterpret_cast<const sockaddr_in6*>(a->ai_addr)->sin6_addr.s6_addr));
    }
    return out;
}

/// Whether the kernel has a route to the wide world by that family, or at least to a relay.
bool has_route(const derp::DerpMap& map, int family) {
    const auto reaches = [](const Addr& a) { return a.is_valid() && platform::source_address(a, platform::Protect::kNo).is_valid(); };
    if (reaches(family == AF_INET ? Addr::v4(192, 0, 2, 1) : *Addr::parse("2001:db8::1"))) return true;  // documentation
    for (const auto& [id, region] : map.regions)
        for (const derp::DerpNode& n : region.nodes)
            if (reaches(family == AF_INET ? n.literal_v4() : n.literal_v6())) return true;
    return false;
}

bool os_has_ipv6() {
    const platform::UniqueFd fd(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    return fd.valid();
}

/// The daemon's part, asked for in a thread of its own.
class DaemonsPart {
   public:
    explicit DaemonsPart(const Cli& cli) {
        answer_ = std::async(std::launch::async, [&cli] {
            const Time until = steady_now() + kDaemonPatience;
            const auto relays = cli.client().call("POST", "debug-relays", "", 200, until);
            const auto ports = cli.client().call("GET", "debug-portmap", "", 200, until);
            return read_findings(relays.value_or(""), ports.value_or(""));
        });
    }
    [[nodiscard]] bool ready() const { return !answer_.valid() || answer_.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }
    /// Waits for it.
    [[nodiscard]] const Findings& get() {
        if (answer_.valid()) findings_ = answer_.get();
        return findings_;
    }

   private:
    std::future<Findings> answer_;
    Findings findings_;
};

/// One report: the shell around netcheck::Netcheck.
class Check final : UdpSocket::Listener {
   public:
    struct Options {
        Addr bind_addr;
        uint16_t bind_port = 0;
    };

    /// `daemon` must outlive the check.
    Check(std::shared_ptr<const derp::DerpMap> map, const Options& options, DaemonsPart& daemon)
        : map_(std::move(map)), daemon_(daemon), machine_(random_), timer_(loop_, [this] { on_timer(); }), poll_timer_(loop_, [this] { drive(); }) {
        const auto open = [&](Addr::Family family) -> std::unique_ptr<UdpSocket> {
            UdpSocket::Options o;
            o.family = family;
            o.protect = platform::Protect::kNo;
            o.bulk = false;
            o.port = options.bind_port;
            o.exact_port = options.bind_port != 0;
            const bool same = family == Addr::Family::kV4 ? options.bind_addr.is_v4() : options.bind_addr.is_v6();
            if (options.bind_addr.is_valid() && !same) return nullptr;
            o.bind_addr = options.bind_addr;
            auto socket = UdpSocket::open(o);
            if (!socket) {
                error_ = socket.error().message();
                return nullptr;
            }
            (*socket)->attach(loop_, *this);
            return std::move(*socket);
        };
        v4_ = open(Addr::Family::kV4);
        if (os_has_ipv6()) v6_ = open(Addr::Family::kV6);
    }

    /// nullopt: no socket could be opened, see error().
    std::optional<netcheck::Report> run() {
        if (!v4_ && !v6_) return std::nullopt;
        netcheck::StartOptions start;
        start.map = map_;
        start.wall = platform::read_wall_clock();
        start.have_v4 = v4_ && has_route(*map_, AF_INET);
        start.have_v6 = v6_ && has_route(*map_, AF_INET6);
        start.os_has_ipv6 = os_has_ipv6();
        start.full = true;
        machine_.start(start, loop_.now());
        const PortProbe ports(loop_);
        for (const std::string& host : machine_.names_needed()) machine_.addresses(host, resolve(host), loop_.now());
        drive();
        std::optional<netcheck::Report> report;
        while (!report || !ports.done()) {
            if (!report) report = machine_.take_report();
            if (!report || !ports.done()) loop_.run_once(true);
        }
        report->upnp = ports.found().upnp();
        report->pmp = ports.found().natpmp;
        report->pcp = ports.found().pcp;
        return report;
    }
    [[nodiscard]] const std::string& error() const { return error_; }

   private:
    void drive() {
        while (const auto send = machine_.next_send(loop_.now())) {
            UdpSocket* socket = send->to.addr.is_v4() ? v4_.get() : v6_.get();
            failed_ = {};
            if (socket) socket->send(send->to, send->datagram);
            if (!socket || failed_.is_valid()) machine_.send_failed(send->to, loop_.now());
        }
        for (const int region : machine_.take_https_wanted()) unmeasured_.push_back(region);
        if (!unmeasured_.empty() && daemon_.ready())
            for (const int region : std::exchange(unmeasured_, {})) measure(region);
        if (!unmeasured_.empty()) poll_timer_.set_after(kDaemonPoll);
        timer_.set(machine_.next_timeout());
    }
    void measure(int region) {
        const Findings& found = daemon_.get();
        if (const RelayFinding* r = found.best(region))
            machine_.https_latency(region, *r->latency, r->v6 ? Addr::Family::kV6 : Addr::Family::kV4, loop_.now());
        else if (found.relays.empty())
            connect_relay(region);
        else
            machine_.https_failed(region, loop_.now());
    }
    void connect_relay(int region) {
        const derp::DerpNode* node = nullptr;
        for (const derp::DerpNode& n : map_->region(region)->nodes)
            if (!n.stun_only && node == nullptr) node = &n;
        std::vector<Addr> addresses;
        if (node != nullptr) addresses = node->needs_name() ? resolve(node->host_name) : std::vector{node->literal_v4(), node->literal_v6()};
        for (const Addr& a : addresses) {
            if (!a.is_valid() || !platform::source_address(a, platform::Protect::kNo).is_valid()) continue;
            sockaddr_storage to{};
            const Addr::Family family = a.is_v4() ? Addr::Family::kV4 : Addr::Family::kV6;
            const socklen_t size = platform::to_sockaddr({a, node->effective_derp_port()}, family, to);
            platform::UniqueFd fd(::socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
            const Time began = steady_now();
            if (!fd.valid() || (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), size) != 0 && errno != EINPROGRESS)) continue;
            const int raw = fd.get();
            auto poll = std::make_unique<platform::FdPoll>(loop_, raw, [this, region, raw, began, family](platform::FdPoll::Events) {
                connected(region, raw, began, family);
            });
            poll->set_interest(false, true);
            relays_[region] = {std::move(fd), std::move(poll)};
            return;
        }
        machine_.https_failed(region, loop_.now());
    }
    void connected(int region, int fd, Time began, Addr::Family family) {
        int err = 0;
        socklen_t size = sizeof err;
        if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &size) == 0 && err == 0)
            machine_.https_latency(region, steady_now() - began, family, loop_.now());
        else
            machine_.https_failed(region, loop_.now());
        relays_[region].poll->set_interest(false, false);
        drive();
    }

    void on_timer() {
        machine_.handle_timeout(loop_.now());
        drive();
    }
    void on_datagrams(std::span<UdpReceive> batch) override {
        for (const UdpReceive& r : batch) (void)machine_.handle_stun(r.bytes, r.from, loop_.now());
        drive();
    }
    void on_send_error(const Endpoint& to, int) override { failed_ = to; }

    std::shared_ptr<const derp::DerpMap> map_;
    DaemonsPart& daemon_;
    std::vector<int> unmeasured_;  ///< asked for by the machine, waiting for the daemon
    SystemRandom random_;
    netcheck::Netcheck machine_;
    platform::Loop loop_;
    platform::Timer timer_, poll_timer_;
    std::unique_ptr<UdpSocket> v4_, v6_;
    struct Connecting {
        platform::UniqueFd fd;
        std::unique_ptr<platform::FdPoll> poll;
    };
    std::map<int, Connecting> relays_;  // until the end: a region is asked once per report
    Endpoint failed_;
    std::string error_;
};

Duration utc_offset(WallTime now) {
    const std::time_t t = now.unix_ns / 1'000'000'000;
    std::tm local{};
    ::localtime_r(&t, &local);
    return seconds(local.tm_gmtoff);
}

}  // namespace

int run_netcheck(const Cli& cli, const Args& words) {
    std::string bind_address;
    std::string format;
    int64_t bind_port = 0;
    Duration every;
    bool verbose = false;
    FlagSet flags("tailscale netcheck", "[flags]", "Examine the local network: UDP, NAT, relays");
    flags.add("bind-address", &bind_address, "send from this address");
    flags.add("bind-port", &bind_port, "send from this port; 0 = any");
    flags.add("every", &every, "report again and again, with this pause");
    flags.add("format", &format, "\"\", json or json-line");
    flags.add("verbose", &verbose, "with the numbers of regions");
    if (const auto exit = parse_or_exit(flags, words)) return *exit;
    if (const auto exit = refuse_words(cli, flags)) return *exit;
    if (!format.empty() && format != "json" && format != "json-line")
        return cli.fail("unknown output format " + in_quotes(format));
    Check::Options options;
    if (!bind_address.empty()) {
        const auto addr = Addr::parse(bind_address);
        if (!addr) return cli.fail("invalid --bind-address: " + in_quotes(bind_address));
        options.bind_addr = *addr;
    }
    if (bind_port < 0 || bind_port > 65535) return cli.fail("invalid --bind-port");
    options.bind_port = static_cast<uint16_t>(bind_port);

    const auto body = cli.client().call("GET", "derpmap");
    if (!body) return cli.fail_explained(body.error());
    const auto json_map = json::parse(*body);
    if (!json_map || !json_map->is_object())
        return cli.fail("no DERP map: this node has not been connected yet, so there is nothing to probe; "
                        "run \"tailscale up\" first");
    auto map = derp::parse_derp_map(*json_map);
    if (!map) return cli.fail("netcheck: " + map.error().message());
    const auto shared = std::make_shared<const derp::DerpMap>(std::move(*map));
    if (!format.empty()) print_err("# Warning: this JSON format is not yet considered a stable interface\n");
    while (true) {
        DaemonsPart daemon(cli);
        Check check(shared, options, daemon);
        auto report = check.run();
        if (!report) return cli.fail("netcheck: " + check.error());
        const Findings& found = daemon.get();
        if (!report->udp) report->captive_portal = found.captive_portal;
        if (format == "json")
            print_out(netcheck::format_json(*report, findings_json(found)) + "\n");
        else if (format == "json-line")
            print_out(netcheck::format_json_line(*report, findings_json(found)) + "\n");
        else
            print_out(netcheck::format_text(*report, *shared, verbose, utc_offset(report->now)) + findings_text(found, *shared, verbose));
        if (every.ns <= 0) return 0;
        std::this_thread::sleep_for(std::chrono::nanoseconds(every.ns));
    }
}

}  // namespace mesh::cli
