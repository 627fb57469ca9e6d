// SPDX-License-Identifier: BSD-3-Clause
// netcheck: the daemon gives the map of relays, the probes run here on sockets of our own, so the report also tells
// what this user's packets meet while the daemon is down or stuck. Where UDP is blocked the relays are measured by connecting
// to their TCP port: the same round trip as a request by HTTPS, without loading a TLS library into every command.

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <ctime>
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
#include "platform/net/udp_socket.h"
#include "tailscale-cli/commands.h"

namespace mesh::cli {
namespace {

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

/// Whether the kernel has a route to the wide world for that family: connecting a UDP socket sends nothing.
bool has_route(int family) {
    const platform::UniqueFd fd(::socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return false;
    if (family == AF_INET) {
        sockaddr_in to{};
        to.sin_family = AF_INET;
        to.sin_port = htons(9);
        to.sin_addr.s_addr = htonl(0xc0000201);  // TEST-NET-1
        return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0;
    }
    sockaddr_in6 to{};
    to.sin6_family = AF_INET6;
    to.sin6_port = htons(9);
    to.sin6_addr.s6_addr[0] = 0x20;
    to.sin6_addr.s6_addr[1] = 0x01;
    to.sin6_addr.s6_addr[2] = 0x0d;
    to.sin6_addr.s6_addr[3] = 0xb8;
    to.sin6_addr.s6_addr[15] = 1;
    return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0;
}

bool os_has_ipv6() {
    const platform::UniqueFd fd(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    return fd.valid();
}

/// One report: the shell around netcheck::Netcheck.
class Check final : UdpSocket::Listener {
   public:
    struct Options {
        Addr bind_addr;
        uint16_t bind_port = 0;
    };

    Check(std::shared_ptr<const derp::DerpMap> map, const Options& options)
        : map_(std::move(map)), machine_(random_), timer_(loop_, [this] { on_timer(); }) {
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
        start.have_v4 = v4_ && has_route(AF_INET);
        start.have_v6 = v6_ && has_route(AF_INET6);
        start.os_has_ipv6 = os_has_ipv6();
        start.full = true;
        machine_.start(start, loop_.now());
        for (const std::string& host : machine_.names_needed()) machine_.addresses(host, resolve(host), loop_.now());
        drive();
        std::optional<netcheck::Report> report;
        while (!(report = machine_.take_report())) loop_.run_once(true);
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
        for (const int region : machine_.take_https_wanted()) connect_relay(region);
        timer_.set(machine_.next_timeout());
    }
    void connect_relay(int region) {
        const derp::DerpNode* node = nullptr;
        for (const derp::DerpNode& n : map_->region(region)->nodes)
            if (!n.stun_only && node == nullptr) node = &n;
        std::vector<Addr> addresses;
        if (node != nullptr) addresses = node->needs_name() ? resolve(node->host_name) : std::vector{node->literal_v4(), node->literal_v6()};
        for (const Addr& a : addresses) {
            if (!a.is_valid() || !has_route(a.is_v4() ? AF_INET : AF_INET6)) continue;
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
    SystemRandom random_;
    netcheck::Netcheck machine_;
    platform::Loop loop_;
    platform::Timer timer_;
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
        Check check(shared, options);
        const auto report = check.run();
        if (!report) return cli.fail("netcheck: " + check.error());
        if (format == "json")
            print_out(netcheck::format_json(*report) + "\n");
        else if (format == "json-line")
            print_out(netcheck::format_json_line(*report) + "\n");
        else
            print_out(netcheck::format_text(*report, *shared, verbose, utc_offset(report->now)));
        if (every.ns <= 0) return 0;
        std::this_thread::sleep_for(std::chrono::nanoseconds(every.ns));
    }
}

}  // namespace mesh::cli
