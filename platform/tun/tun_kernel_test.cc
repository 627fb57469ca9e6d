// SPDX-License-Identifier: BSD-3-Clause
// The TUN device against the real kernel.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>

#include "platform/fd.h"
#include "platform/linux/kernel_fixture.h"
#include "platform/tun/tun_device.h"

namespace mesh::platform {
namespace {

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

}  // namespace
}  // namespace mesh::platform
