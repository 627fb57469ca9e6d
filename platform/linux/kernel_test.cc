// SPDX-License-Identifier: BSD-3-Clause
// TUN, netlink, router and monitor against the real kernel. Every test runs in a network namespace of its own, so the
// host's rules are never seen; needs root and /dev/net/tun, otherwise all is skipped (a failure if CI=true).
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "base/log.h"
#include "platform/fd.h"
#include "platform/linux/net_monitor.h"
#include "platform/linux/netlink.h"
#include "platform/linux/nft_tables.h"
#include "platform/linux/router.h"
#include "platform/linux/router_samples.h"
#include "platform/linux/run_command.h"
#include "platform/linux/sysctl.h"
#include "platform/loop/loop.h"
#include "platform/tun/tun_device.h"

namespace mesh::platform {
namespace {

std::string g_why_not;  // empty: everything is there

Prefix p(const char* text) { return *Prefix::parse(text); }

std::string output(const std::vector<std::string>& argv, std::string_view input = {}) {
    const auto done = run_command(argv, input);
    if (!done) return "error: " + done.error().message();
    return done->exit_code == 0 ? done->out : "error: " + done->err;
}

/// iptables-save without comments, counters and empty tables: what can be compared.
std::string saved(const char* program) {
    std::string text = output({program});
    std::string out;
    std::string table;
    bool has_content = false;
    for (size_t at = 0; at < text.size();) {
        const size_t end = std::min(text.find('\n', at), text.size());
        const std::string line = text.substr(at, end - at);
        at = end + 1;
        if (line.starts_with('*')) {
            table.clear();
            has_content = false;
        }
        const bool built_in = line.starts_with(':') && line.find(" - [") == std::string::npos;
        if (!line.starts_with('#') && !built_in && !line.empty()) table += line + "\n";
        has_content = has_content || line.starts_with("-A") || (line.starts_with(':') && !built_in);
        if (line == "COMMIT" && has_content) out += table;
    }
    return out;
}
/// Tables in one order.
std::string sorted_tables(const std::string& text) {
    std::vector<std::string> tables;
    for (size_t at = 0; at < text.size();) {
        const size_t end = text.find("COMMIT\n", at);
        if (end == std::string::npos) break;
        tables.push_back(text.substr(at, end + 7 - at));
        at = end + 7;
    }
    std::sort(tables.begin(), tables.end());
    std::string out;
    for (const std::string& t : tables) out += t;
    return out;
}

/// Everything that must be the same before and after.
std::string fingerprint() {
    std::string out;
    for (const char* family : {"-4", "-6"}) {
        out += output({"ip", family, "rule"});
        out += output({"ip", family, "route", "show", "table", "all"});
    }
    out += output({"ip", "-o", "addr"});
    out += output({"ip", "-o", "link"});
    out += saved("iptables-save") + saved("ip6tables-save");
    out += output({"nft", "list", "ruleset"});
    out += "src_valid_mark " + read_sysctl("net/ipv4/conf/all/src_valid_mark").value_or("?");
    return out;
}

RouterConfig client() {
    RouterConfig c;
    c.local_addrs = {p("100.64.0.1/32"), p("fd7a:115c:a1e0::1/128")};
    c.peer_routes = {p("100.64.0.2/32"), p("fd7a:115c:a1e0::2/128")};
    c.port_v4 = c.port_v6 = 41641;
    return c;
}

class Kernel : public ::testing::Test {
   protected:
    void SetUp() override {
        if (!g_why_not.empty()) {
            const char* ci = std::getenv("CI");
            if (ci != nullptr && std::string_view(ci) == "true") FAIL() << g_why_not;
            GTEST_SKIP() << "not tested here: " << g_why_not;
        }
        ASSERT_EQ(::unshare(CLONE_NEWNET), 0) << std::strerror(errno);
        log::set_sink([this](std::string_view line) { log_ += std::string(line) + "\n"; });
        auto nl = Netlink::open();
        ASSERT_TRUE(nl);
        const auto lo = nl->link("lo");
        ASSERT_TRUE(lo);
        ASSERT_TRUE(nl->set_link_up(lo->index, true));
    }
    void TearDown() override {
        log::set_sink({});
        if (HasFailure()) std::fputs(log_.c_str(), stderr);
    }
    std::string log_;
};

// ---- TUN ----

class Tun : public Kernel {
   protected:
    /// A TUN that is up with 10.9.0.1/24, so 10.9.0.2 is "behind" it.
    void open() {
        auto tun = TunDevice::open("tuntest0");
        ASSERT_TRUE(tun) << tun.error().message();
        tun_ = std::make_unique<TunDevice>(std::move(*tun));
        auto nl = Netlink::open();
        ASSERT_TRUE(nl);
        ASSERT_TRUE(nl->set_link_up(tun_->if_index(), true));
        ASSERT_TRUE(nl->add_address(tun_->if_index(), p("10.9.0.1/24")));
    }
    bool readable(int fd, int ms = 3000) {
        pollfd f{fd, POLLIN, 0};
        return ::poll(&f, 1, ms) == 1;
    }
    std::unique_ptr<TunDevice> tun_;
};

TEST_F(Tun, HasTheFlagsTheMtuAndTheNameThatWereAskedFor) {
    open();
    EXPECT_EQ(tun_->name(), "tuntest0");
    EXPECT_EQ(tun_->mtu().value(), 1280U);
    EXPECT_TRUE(tun_->offloads().vnet_hdr);
    const std::string shown = output({"ip", "-d", "link", "show", "dev", "tuntest0"});
    EXPECT_NE(shown.find("tun type tun pi off vnet_hdr on persist off"), std::string::npos) << shown;
    EXPECT_TRUE(tun_->set_mtu(1400));
    EXPECT_EQ(tun_->mtu().value(), 1400U);
    EXPECT_FALSE(tun_->set_mtu(67));
    EXPECT_FALSE(tun_->set_mtu(65536));
    tun_.reset();
    EXPECT_EQ(Netlink::open()->link("tuntest0").error().code, Code::kNotFound);
}

TEST_F(Tun, ErrorsNameTheCause) {
    open();
    const auto busy = TunDevice::open("tuntest0");
    ASSERT_FALSE(busy);
    EXPECT_EQ(busy.error().sys_errno, EBUSY);
    EXPECT_NE(busy.error().message().find("sudo lsof -n /dev/net/tun"), std::string::npos);
    output({"ip", "link", "add", "br7", "type", "bridge"});
    const auto bridge = TunDevice::open("br7");
    ASSERT_FALSE(bridge);
    EXPECT_EQ(bridge.error().sys_errno, EINVAL);
    EXPECT_FALSE(TunDevice::open("sixteen_bytes_xx"));
    EXPECT_FALSE(TunDevice::open("a/b"));
    EXPECT_FALSE(TunDevice::open(""));
}

TEST_F(Tun, APersistentDeviceIsTakenOver) {
    output({"ip", "tuntap", "add", "dev", "tuntest0", "mode", "tun"});
    open();
    EXPECT_TRUE(tun_->offloads().vnet_hdr);
    tun_.reset();
    EXPECT_TRUE(Netlink::open()->link("tuntest0"));
}

TEST_F(Tun, ReadsABatchOfSmallPacketsInOneCall) {
    open();
    static_cast<void>(tun_->read());  // what the kernel says by itself (router solicitation)
    const UniqueFd udp(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(9);
    to.sin_addr.s_addr = inet_addr("10.9.0.2");
    for (int i = 0; i < 100; ++i) {
        const std::string text = "packet " + std::to_string(i);
        ASSERT_GT(::sendto(udp.get(), text.data(), text.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
    }
    ASSERT_TRUE(readable(tun_->fd()));
    std::vector<std::string> texts;
    bool more = true;
    while (more && texts.size() < 100)
        more = tun_->read([&](std::span<TunRead> batch) {
            for (const TunRead& r : batch)
                if (r.bytes[0] >> 4 == 4) texts.emplace_back(as_text(r.bytes.subspan(28)));
        });
    ASSERT_EQ(texts.size(), 100U);
    EXPECT_EQ(texts.front(), "packet 0");
    EXPECT_EQ(texts.back(), "packet 99");
    EXPECT_TRUE(tun_->read().empty());
}

TEST_F(Tun, ReadsUdpSuperPackets) {
    open();
    if (!tun_->offloads().udp_coalescing) GTEST_SKIP() << "kernel before 6.2";
    static_cast<void>(tun_->read());
    const UniqueFd udp(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const int segment = 1000;
    ASSERT_EQ(::setsockopt(udp.get(), IPPROTO_UDP, 103 /*UDP_SEGMENT*/, &segment, sizeof segment), 0);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(9);
    to.sin_addr.s_addr = inet_addr("10.9.0.2");
    const Bytes payload(30 * 1000 + 17, 0xab);
    ASSERT_EQ(::sendto(udp.get(), payload.data(), payload.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof to),
              static_cast<ssize_t>(payload.size()));
    ASSERT_TRUE(readable(tun_->fd()));
    bool seen = false;
    static_cast<void>(tun_->read([&](std::span<TunRead> batch) {
        for (const TunRead& r : batch) {
            if (r.vnet.gso_type != VnetHdr::kUdpL4) continue;
            seen = true;
            EXPECT_EQ(r.bytes.size(), payload.size() + 28);
            EXPECT_EQ(r.vnet.gso_size, 1000);
            EXPECT_EQ(r.vnet.flags & VnetHdr::kNeedsCsum, VnetHdr::kNeedsCsum);
        }
    }));
    EXPECT_TRUE(seen);
}

uint16_t folded(uint32_t sum) {
    while ((sum >> 16) != 0) sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<uint16_t>(sum);
}

/// IPv4 + UDP from 10.9.0.2 to 10.9.0.1 with the pseudo-header sum where NEEDS_CSUM wants it.
Bytes udp_headers(size_t payload, uint16_t port) {
    Bytes h(28, 0);
    h[0] = 0x45;
    store_be16(&h[2], static_cast<uint16_t>(28 + payload));
    h[8] = 64;
    h[9] = 17;
    const uint8_t src[4] = {10, 9, 0, 2};
    const uint8_t dst[4] = {10, 9, 0, 1};
    std::copy_n(src, 4, &h[12]);
    std::copy_n(dst, 4, &h[16]);
    uint32_t sum = 0;
    for (size_t i = 0; i < 20; i += 2) sum += load_be16(&h[i]);
    store_be16(&h[10], static_cast<uint16_t>(~folded(sum)));
    store_be16(&h[20], 4242);
    store_be16(&h[22], port);
    store_be16(&h[24], static_cast<uint16_t>(8 + payload));
    sum = 17 + 8 + static_cast<uint32_t>(payload);
    for (size_t i = 12; i < 20; i += 2) sum += load_be16(&h[i]);
    store_be16(&h[26], folded(sum));
    return h;
}

TEST_F(Tun, WritesSuperPacketsFromPieces) {
    open();
    if (!tun_->offloads().udp_coalescing) GTEST_SKIP() << "kernel before 6.2";
    const UniqueFd udp(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_in at{};
    at.sin_family = AF_INET;
    ASSERT_EQ(::bind(udp.get(), reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
    socklen_t len = sizeof at;
    ASSERT_EQ(::getsockname(udp.get(), reinterpret_cast<sockaddr*>(&at), &len), 0);

    const Bytes one(500, 1);
    const Bytes two(500, 2);
    const Bytes tail(77, 3);
    const Bytes headers = udp_headers(1077, ntohs(at.sin_port));
    const ByteSpan pieces[] = {headers, one, two, tail};
    const TunWrite items[] = {{.vnet = {.flags = VnetHdr::kNeedsCsum,
                                        .gso_type = VnetHdr::kUdpL4,
                                        .hdr_len = 28,
                                        .gso_size = 500,
                                        .csum_start = 20,
                                        .csum_offset = 6},
                               .pieces = pieces}};
    EXPECT_EQ(tun_->write(items), 1U);
    std::vector<Bytes> got;
    while (got.size() < 3 && readable(udp.get())) {
        Bytes b(2000);
        const ssize_t n = ::recv(udp.get(), b.data(), b.size(), 0);
        if (n < 0) break;
        b.resize(static_cast<size_t>(n));
        got.push_back(std::move(b));
    }
    EXPECT_EQ(got, (std::vector<Bytes>{one, two, tail}));
}

TEST_F(Tun, ProbeKeepsCoalescingOnAGoodKernelAndIsSilent) {
    open();
    while (!tun_->read().empty()) {
    }
    const TunOffloads before = tun_->offloads();
    tun_->probe_coalescing();
    EXPECT_EQ(tun_->offloads().tcp_coalescing, before.tcp_coalescing);
    EXPECT_EQ(tun_->offloads().udp_coalescing, before.udp_coalescing);
}

TEST_F(Tun, WritesToADownLinkAreCountedAndADeletedLinkIsNoticed) {
    open();
    auto nl = Netlink::open();
    ASSERT_TRUE(nl->set_link_up(tun_->if_index(), false));
    const Bytes packet = udp_headers(0, 9);
    const ByteSpan pieces[] = {packet};
    const TunWrite items[] = {{.vnet = {}, .pieces = pieces}};
    EXPECT_EQ(tun_->write(items), 0U);
    EXPECT_EQ(tun_->counters().link_down, 1U);
    EXPECT_EQ(tun_->failed(), 0);
    output({"ip", "link", "del", "tuntest0"});
    EXPECT_TRUE(tun_->read().empty());
    EXPECT_NE(tun_->failed(), 0);
}

TEST_F(Tun, RepeatedlyRefusedSuperPacketsEndCoalescing) {
    open();
    const Bytes nonsense(60, 0x45);
    const ByteSpan pieces[] = {nonsense};
    const TunWrite bad[] = {{.vnet = {.flags = VnetHdr::kNeedsCsum,
                                      .gso_type = VnetHdr::kTcpV4,
                                      .hdr_len = 40,
                                      .gso_size = 0,  // refused
                                      .csum_start = 20,
                                      .csum_offset = 16},
                             .pieces = pieces}};
    for (int i = 0; i < 8; ++i) EXPECT_EQ(tun_->write(bad), 0U);
    EXPECT_EQ(tun_->counters().refused_gso, 8U);
    EXPECT_FALSE(tun_->offloads().tcp_coalescing);
}

// ---- router ----

class RouterKernel : public Kernel {
   protected:
    void SetUp() override {
        Kernel::SetUp();
        if (IsSkipped() || HasFatalFailure()) return;
        before_ = fingerprint();
        open_tun("tailscale0");
    }
    void open_tun(const std::string& name) {
        auto tun = TunDevice::open(name);
        ASSERT_TRUE(tun) << tun.error().message();
        tun_ = std::make_unique<TunDevice>(std::move(*tun));
    }
    void start() {
        auto router = Router::start(tun_->name());
        ASSERT_TRUE(router) << router.error().message();
        router_ = std::move(*router);
    }
    void expect_firewall(const std::string& v4, const std::string& v6) {
        EXPECT_EQ(sorted_tables(saved("iptables-save")), sorted_tables(v4));
        EXPECT_EQ(sorted_tables(saved("ip6tables-save")), sorted_tables(v6));
    }
    std::string before_;
    std::unique_ptr<TunDevice> tun_;
    std::unique_ptr<Router> router_;
};

TEST_F(RouterKernel, NeedsLoginHasRulesAndAnUpLinkButNoFirewall) {
    start();
    EXPECT_EQ(output({"ip", "-4", "rule"}), samples::kRulesV4);
    EXPECT_EQ(output({"ip", "-6", "rule"}), samples::kRulesV6);
    EXPECT_TRUE(Netlink::open()->link("tailscale0")->up);
    expect_firewall("", "");
    EXPECT_TRUE(router_->stop());
    tun_.reset();
    EXPECT_EQ(fingerprint(), before_);
}

TEST_F(RouterKernel, ClientEqualsTheOriginalAndLeavesNoTrace) {
    start();
    ASSERT_TRUE(router_->set(client()));
    EXPECT_EQ(output({"ip", "-4", "rule"}), samples::kRulesV4);
    EXPECT_EQ(output({"ip", "-6", "rule"}), samples::kRulesV6);
    EXPECT_EQ(output({"ip", "route", "show", "table", "52"}),
              "100.64.0.2 dev tailscale0 \n100.100.100.100 dev tailscale0 \n");
    EXPECT_EQ(output({"ip", "-6", "route", "show", "table", "52"}),
              "fd7a:115c:a1e0::53 dev tailscale0 metric 1024 pref medium\n"
              "fd7a:115c:a1e0::/48 dev tailscale0 metric 1024 pref medium\n");
    const std::string addrs = output({"ip", "addr", "show", "dev", "tailscale0"});
    EXPECT_NE(addrs.find("inet 100.64.0.1/32 scope global tailscale0"), std::string::npos) << addrs;
    EXPECT_NE(addrs.find("inet6 fd7a:115c:a1e0::1/128 scope global"), std::string::npos) << addrs;
    expect_firewall(samples::client_v4(), samples::client_v6());
    EXPECT_EQ(read_sysctl("net/ipv4/conf/all/src_valid_mark"), "1");
    EXPECT_TRUE(router_->problems().empty());

    EXPECT_EQ(router_->resync().value(), 0U);
    EXPECT_TRUE(router_->set(client()));
    EXPECT_EQ(router_->resync().value(), 0U);

    EXPECT_TRUE(router_->stop());
    tun_.reset();
    EXPECT_EQ(fingerprint(), before_);
}

TEST_F(RouterKernel, AcceptedRoutesEqualTheSampleAndGoAgain) {
    start();
    RouterConfig c = client();
    c.accepted_routes = {p("192.168.55.0/24"), p("fd55::/64")};
    ASSERT_TRUE(router_->set(c));
    EXPECT_EQ(output({"ip", "route", "show", "table", "52"}),
              "100.64.0.2 dev tailscale0 \n100.100.100.100 dev tailscale0 \n192.168.55.0/24 dev tailscale0 \n");
    EXPECT_EQ(output({"ip", "-6", "route", "show", "table", "52"}),
              "fd55::/64 dev tailscale0 metric 1024 pref medium\n"
              "fd7a:115c:a1e0::53 dev tailscale0 metric 1024 pref medium\n"
              "fd7a:115c:a1e0::/48 dev tailscale0 metric 1024 pref medium\n");
    ASSERT_TRUE(router_->set(client()));
    EXPECT_EQ(output({"ip", "route", "show", "table", "52"}),
              "100.64.0.2 dev tailscale0 \n100.100.100.100 dev tailscale0 \n");
}

TEST_F(RouterKernel, ThrowRoutesAndDefaultRoutes) {
    start();
    RouterConfig c = client();
    c.accepted_routes = {p("0.0.0.0/0"), p("::/0")};
    c.throw_routes = {p("127.0.0.0/8"), p("fe80::/64")};
    ASSERT_TRUE(router_->set(c));
    EXPECT_EQ(output({"ip", "route", "show", "table", "52"}),
              "default dev tailscale0 \n100.64.0.2 dev tailscale0 \n100.100.100.100 dev tailscale0 \nthrow 127.0.0.0/8 \n");
    EXPECT_EQ(router_->resync().value(), 0U);
    EXPECT_TRUE(router_->stop());
    tun_.reset();
    EXPECT_EQ(fingerprint(), before_);
}

TEST_F(RouterKernel, NetfilterModesAndKnobsEqualTheSamples) {
    start();
    RouterConfig c = client();
    c.snat_subnet_routes = false;
    c.stateful_filtering = true;
    ASSERT_TRUE(router_->set(c));
    // A chain without rules still has its jump.
    expect_firewall(samples::no_snat_stateful(samples::client_v4()), samples::no_snat_stateful(samples::client_v6()));
    c = client();
    c.netfilter = NetfilterMode::kNoDivert;
    ASSERT_TRUE(router_->set(c));
    expect_firewall(samples::no_divert(samples::client_v4()), samples::no_divert(samples::client_v6()));
    EXPECT_EQ(router_->resync().value(), 0U);
    c.netfilter = NetfilterMode::kOff;
    ASSERT_TRUE(router_->set(c));
    expect_firewall("", "");
    c.netfilter = NetfilterMode::kOn;
    ASSERT_TRUE(router_->set(c));
    expect_firewall(samples::client_v4(), samples::client_v6());
    // down
    RouterConfig down;
    down.netfilter = NetfilterMode::kOff;
    ASSERT_TRUE(router_->set(down));
    expect_firewall("", "");
    EXPECT_EQ(output({"ip", "route", "show", "table", "52"}), "");
    EXPECT_EQ(output({"ip", "-4", "rule"}), samples::kRulesV4);
    EXPECT_EQ(output({"ip", "-4", "addr", "show", "dev", "tailscale0"}), "");
    EXPECT_TRUE(router_->stop());
    tun_.reset();
    EXPECT_EQ(fingerprint(), before_);
}

TEST_F(RouterKernel, APortChangeReplacesOnlyItsRule) {
    start();
    RouterConfig c = client();
    ASSERT_TRUE(router_->set(c));
    c.port_v4 = 1234;
    ASSERT_TRUE(router_->set(c));
    expect_firewall(samples::replace_all(samples::client_v4(), "--dport 41641", "--dport 1234"), samples::client_v6());
}

TEST_F(RouterKernel, OtherPeoplesRulesSurviveOurWholeLife) {
    output({"iptables-restore", "--noflush"},
           "*filter\n:MINE - [0:0]\n-A INPUT -p tcp --dport 22 -j MINE\n-A MINE -j ACCEPT\n-A FORWARD -j DROP\nCOMMIT\n"
           "*nat\n-A POSTROUTING -o eth9 -j MASQUERADE\nCOMMIT\n");
    output({"ip", "rule", "add", "pref", "5220", "fwmark", "7", "lookup", "99"});
    tun_.reset();
    const std::string with_rules = fingerprint();
    open_tun("tailscale0");
    start();
    ASSERT_TRUE(router_->set(client()));
    const std::string v4 = saved("iptables-save");
    // Ours come first: a rule that drops everything does not beat us.
    EXPECT_LT(v4.find("-A FORWARD -j ts-forward"), v4.find("-A FORWARD -j DROP"));
    EXPECT_TRUE(router_->stop());
    tun_.reset();
    EXPECT_EQ(fingerprint(), with_rules);
}

TEST_F(RouterKernel, ResyncRepairsWhatOthersBroke) {
    start();
    ASSERT_TRUE(router_->set(client()));
    output({"ip", "rule", "del", "pref", "5270"});
    output({"ip", "-6", "rule", "del", "pref", "5210"});
    output({"ip", "link", "set", "tailscale0", "down"});
    output({"ip", "link", "set", "tailscale0", "up"});
    output({"iptables", "-F", "INPUT"});
    output({"iptables", "-F", "ts-forward"});
    output({"ip6tables", "-t", "mangle", "-F"});
    EXPECT_GT(router_->resync().value(), 0U);
    EXPECT_EQ(output({"ip", "-4", "rule"}), samples::kRulesV4);
    EXPECT_EQ(output({"ip", "-6", "rule"}), samples::kRulesV6);
    EXPECT_EQ(output({"ip", "route", "show", "table", "52"}),
              "100.64.0.2 dev tailscale0 \n100.100.100.100 dev tailscale0 \n");
    const std::string addrs = output({"ip", "addr", "show", "dev", "tailscale0"});
    EXPECT_NE(addrs.find("inet6 fd7a:115c:a1e0::1/128"), std::string::npos) << addrs;
    expect_firewall(samples::client_v4(), samples::client_v6());
    EXPECT_EQ(router_->resync().value(), 0U);
}

TEST_F(RouterKernel, CleanupAfterACrashLeavesNoTrace) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        // "Crashes": no destructor runs.
        auto router = Router::start(tun_->name());
        ::_exit(router && (*router)->set(client()) ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0);
    tun_.reset();
    // An older run may have left the same again.
    output({"ip", "rule", "add", "pref", "5210", "fwmark", "0x20000", "lookup", "main"});
    EXPECT_NE(saved("iptables-save"), "");
    EXPECT_TRUE(cleanup("tailscale0"));
    // As the original does, a crash leaves this on; nobody knows any more what it was.
    EXPECT_EQ(read_sysctl("net/ipv4/conf/all/src_valid_mark"), "1");
    EXPECT_TRUE(write_sysctl("net/ipv4/conf/all/src_valid_mark", "0"));
    EXPECT_EQ(fingerprint(), before_);
    EXPECT_TRUE(cleanup("tailscale0"));
    EXPECT_EQ(fingerprint(), before_);
}

TEST_F(RouterKernel, CleanupRemovesWhatTheOriginalsNftablesModeLeft) {
    // As that mode really loads it.
    EXPECT_EQ(output({"nft", "-f", "-"},
                     "table ip filter {\n"
                     " chain INPUT { type filter hook input priority 0; policy accept; counter jump ts-input; }\n"
                     " chain ts-input { iifname \"tailscale0*\" counter accept; }\n"
                     "}\n"
                     "table ip6 mangle {\n"
                     " chain PREROUTING { type filter hook prerouting priority -150; policy accept;\n"
                     "  ct state established,related ct mark & 0x00ff0000 != 0 meta mark set ct mark & 0x00ff0000; }\n"
                     "}\n"),
              "");
    tun_.reset();
    EXPECT_TRUE(cleanup("tailscale0"));
    EXPECT_EQ(fingerprint(), before_);
}

TEST_F(RouterKernel, AStartAfterACrashIsLikeAFirstStart) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        auto router = Router::start(tun_->name());
        ::_exit(router && (*router)->set(client()) ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0);
    ASSERT_TRUE(write_sysctl("net/ipv4/conf/all/src_valid_mark", "0"));
    tun_.reset();
    open_tun("tailscale0");
    start();
    ASSERT_TRUE(router_->set(client()));
    expect_firewall(samples::client_v4(), samples::client_v6());
    EXPECT_EQ(output({"ip", "-4", "rule"}), samples::kRulesV4);
    EXPECT_TRUE(router_->stop());
    tun_.reset();
    EXPECT_EQ(fingerprint(), before_);
}

class Beside : public RouterKernel {
   protected:
    void SetUp() override {
        RouterKernel::SetUp();
        if (IsSkipped() || HasFatalFailure()) return;
        other_tun_ = std::move(tun_);
        auto other = Router::start("tailscale0");
        ASSERT_TRUE(other);
        other_ = std::move(*other);
        ASSERT_TRUE(other_->set(client()));
        ours_.local_addrs = {p("10.1.0.1/32")};
        ours_.peer_routes = {p("10.1.0.2/32")};
        ours_.port_v4 = ours_.port_v6 = 41642;
    }
    std::unique_ptr<TunDevice> other_tun_;
    std::unique_ptr<Router> other_;
    RouterConfig ours_;
};

TEST_F(Beside, OurWholeLifeLeavesTheOtherClientUntouched) {
    const std::string with_other = fingerprint();
    open_tun("tailmesh0");
    start();
    ASSERT_TRUE(router_->set(ours_));
    EXPECT_EQ(router_->resync().value(), 0U);
    const std::string v4 = saved("iptables-save");
    EXPECT_NE(v4.find("-A ts-input -i tailscale0 -j ACCEPT"), std::string::npos) << v4;
    EXPECT_NE(v4.find("-A ts-input-tailmesh0 -i tailmesh0 -j ACCEPT"), std::string::npos) << v4;
    EXPECT_EQ(output({"ip", "-4", "rule"}), samples::kRulesV4);
    EXPECT_EQ(output({"ip", "route", "show", "table", "52"}),
              "10.1.0.2 dev tailmesh0 \n100.64.0.2 dev tailscale0 \n100.100.100.100 dev tailscale0 \n");
    EXPECT_TRUE(router_->stop());
    tun_.reset();
    EXPECT_EQ(fingerprint(), with_other);
    EXPECT_TRUE(cleanup("tailmesh0"));
    EXPECT_EQ(fingerprint(), with_other);
}

TEST_F(Beside, WhenTheOtherLeavesFirstWeStillGoWithoutATrace) {
    open_tun("tailmesh0");
    start();
    ASSERT_TRUE(router_->set(ours_));
    EXPECT_TRUE(other_->stop());
    other_tun_.reset();
    EXPECT_TRUE(router_->resync());
    EXPECT_EQ(output({"ip", "-4", "rule"}), samples::kRulesV4);
    EXPECT_EQ(output({"ip", "route", "show", "table", "52"}), "10.1.0.2 dev tailmesh0 \n100.100.100.100 dev tailmesh0 \n");
    EXPECT_TRUE(router_->stop());
    tun_.reset();
    EXPECT_TRUE(write_sysctl("net/ipv4/conf/all/src_valid_mark", "0"));
    EXPECT_EQ(fingerprint(), before_);
}

TEST_F(RouterKernel, WithoutIptablesTheRestWorksAndItSaysSo) {
    start();
    // Hidden in this process's own mount namespace.
    const std::string sbin = find_program("iptables-save");
    ASSERT_EQ(::mount("/dev/null", sbin.c_str(), nullptr, MS_BIND, nullptr), 0) << std::strerror(errno);
    const std::string sbin6 = find_program("ip6tables-save");
    const bool second = ::mount("/dev/null", sbin6.c_str(), nullptr, MS_BIND, nullptr) == 0;
    static_cast<void>(router_->set(client()));
    ::umount(sbin.c_str());
    if (second) ::umount(sbin6.c_str());
    EXPECT_EQ(output({"ip", "route", "show", "table", "52"}),
              "100.64.0.2 dev tailscale0 \n100.100.100.100 dev tailscale0 \n");
    EXPECT_FALSE(router_->problems().empty());
}

// ---- netlink, commands, monitor ----

TEST_F(Kernel, RoutesOfOneTableAreDumpedAloneAndExclusively) {
    auto nl = Netlink::open();
    output({"ip", "link", "add", "va", "type", "veth", "peer", "name", "vb"});
    output({"ip", "addr", "add", "10.5.0.1/24", "dev", "va"});
    output({"ip", "link", "set", "va", "up"});
    output({"ip", "link", "set", "vb", "up"});
    const int va = nl->link("va")->index;
    EXPECT_TRUE(nl->routes(Addr::Family::kV4, 52).value().empty());
    const IpRoute route{p("10.7.0.0/16"), IpRoute::Type::kUnicast, va, 52, {}, 0};
    ASSERT_TRUE(nl->add_route(route));
    EXPECT_EQ(nl->add_route(route).error().sys_errno, EEXIST);
    EXPECT_EQ(nl->routes(Addr::Family::kV4, 52).value(), (std::vector<IpRoute>{route}));
    ASSERT_TRUE(nl->delete_route(route));
    EXPECT_TRUE(nl->delete_route(route)) << "gone already is no error";
    EXPECT_TRUE(nl->add_address(va, p("10.5.0.9/32")));
    EXPECT_TRUE(nl->add_address(va, p("10.5.0.9/32"))) << "there already is no error";
    EXPECT_TRUE(nl->delete_address(va, p("10.5.0.9/32")));
    EXPECT_TRUE(nl->delete_address(va, p("10.5.0.9/32")));
    EXPECT_EQ(nl->route_interface(*Addr::parse("10.5.0.77"), 0).value(), va);
    EXPECT_EQ(nl->route_interface(*Addr::parse("203.0.113.1"), 0).value(), 0);
    EXPECT_EQ(nl->route_interface(*Addr::parse("2001:db8::1"), kBypassMark).value(), 0);
}

TEST_F(Kernel, DefaultInterfaceIsThatOfMarkedTraffic) {
    output({"ip", "link", "add", "va", "type", "veth", "peer", "name", "vb"});
    output({"ip", "addr", "add", "10.5.0.1/24", "dev", "va"});
    output({"ip", "link", "set", "va", "up"});
    output({"ip", "link", "set", "vb", "up"});
    EXPECT_EQ(read_net_state()->default_interface_v4, "");
    output({"ip", "route", "add", "default", "via", "10.5.0.2"});
    EXPECT_EQ(read_net_state()->default_interface_v4, "va");
    // An exit node's default route in table 52 does not deceive it.
    auto tun = TunDevice::open("tailscale0");
    ASSERT_TRUE(tun);
    auto router = Router::start("tailscale0");
    ASSERT_TRUE(router);
    RouterConfig c = client();
    c.accepted_routes = {p("0.0.0.0/0")};
    ASSERT_TRUE((*router)->set(c));
    EXPECT_EQ(read_net_state()->default_interface_v4, "va");
}

TEST_F(Kernel, MonitorTellsChangesOfTheHostAndOfTheRouter) {
    output({"ip", "link", "add", "va", "type", "veth", "peer", "name", "vb"});
    output({"ip", "link", "set", "vb", "up"});
    auto tun = TunDevice::open("tailscale0");
    ASSERT_TRUE(tun);
    auto router = Router::start("tailscale0");
    ASSERT_TRUE(router);
    ASSERT_TRUE((*router)->set(client()));
    Loop loop;
    std::vector<NetChange> changes;
    int touched = 0;
    std::unique_ptr<NetMonitor> monitor;
    Timer guard(loop, [&] { loop.stop(); });
    auto created = NetMonitor::create(loop, "tailscale0", [&](const NetEvent& e) {
        if (e.router_touched) ++touched;
        if (e.change != NetChange::kNone) changes.push_back(e.change);
        loop.stop();
    });
    ASSERT_TRUE(created) << created.error().message();
    monitor = std::move(*created);

    output({"ip", "-6", "rule", "del", "pref", "5270"});
    guard.set_after(seconds(10));
    loop.run();
    EXPECT_EQ(touched, 1);
    EXPECT_EQ((*router)->resync().value(), 1U);
    EXPECT_EQ(output({"ip", "-6", "rule"}), samples::kRulesV6);

    output({"ip", "addr", "add", "10.5.0.1/24", "dev", "va"});
    output({"ip", "link", "set", "va", "up"});
    output({"ip", "route", "add", "default", "via", "10.5.0.2"});
    loop.run();
    EXPECT_EQ(changes, (std::vector<NetChange>{NetChange::kMajor}));
    EXPECT_EQ(monitor->state().default_interface_v4, "va");
    EXPECT_TRUE(guard.armed()) << "timed out";
}

TEST_F(Kernel, MonitorMayBeDestroyedInItsOwnCallback) {
    output({"ip", "link", "add", "va", "type", "veth", "peer", "name", "vb"});
    Loop loop;
    Timer guard(loop, [&] { loop.stop(); });
    guard.set_after(seconds(10));
    std::unique_ptr<NetMonitor> monitor;
    auto created = NetMonitor::create(loop, "tailscale0", [&](const NetEvent&) {
        monitor.reset();
        loop.stop();
    });
    ASSERT_TRUE(created);
    monitor = std::move(*created);
    output({"ip", "link", "set", "va", "up"});
    loop.run();
    EXPECT_EQ(monitor, nullptr);
    EXPECT_TRUE(guard.armed());
}

TEST_F(Kernel, CommandsAreTimedOutAndMissingOnesNamed) {
    EXPECT_EQ(run_command({"no-such-program"}).error().code, Code::kNotFound);
    EXPECT_EQ(run_command({"cat"}, "through a file")->out, "through a file");
    EXPECT_EQ(run_command({"sh", "-c", "echo oops >&2; exit 3"})->exit_code, 3);
    EXPECT_EQ(run_command({"sh", "-c", "echo oops >&2; exit 3"})->err, "oops\n");
    EXPECT_EQ(run_command({"sh", "-c", "sleep 60 & sleep 60"}, {}, milliseconds(50)).error().code, Code::kTimeout);
}

}  // namespace
}  // namespace mesh::platform

int main(int argc, char** argv) {
    using mesh::platform::g_why_not;
    ::testing::InitGoogleTest(&argc, argv);
    if (::geteuid() != 0)
        g_why_not = "needs root";
    else if (::access("/dev/net/tun", R_OK | W_OK) != 0)
        g_why_not = "needs /dev/net/tun";
    else if (::unshare(CLONE_NEWNS | CLONE_NEWNET) != 0)
        g_why_not = "needs the right to make namespaces";
    else if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
        g_why_not = "needs the right to make mounts private";
    return RUN_ALL_TESTS();
}
