// SPDX-License-Identifier: BSD-3-Clause
#include "platform/tun/tun_device.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

// Older kernel headers lack these; the kernel's answer decides.
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#endif
#ifndef TUN_F_USO6
#define TUN_F_USO6 0x40
#endif

namespace mesh::platform {
namespace {

constexpr size_t kHeader = sizeof(VnetHdr);  // laid out as virtio_net_hdr
static_assert(kHeader == 10);
constexpr size_t kAlign = 16;                        // IP headers start at multiples of this
constexpr size_t kSlot = kAlign + TunDevice::kMaxPacket;
constexpr size_t kSlab = size_t{5} * 65536;          // at least four super-packets, or 128 of up to 2 KiB
constexpr size_t kMaxPieces = 1023;                  // + the header = the kernel's limit of 1,024
constexpr unsigned kRefusalsToGiveUp = 8;

bool env_is_true(const char* name) {
    const char* v = std::getenv(name);
    if (v == nullptr) return false;
    const std::string_view s(v);
    return s == "1" || s == "true" || s == "t" || s == "T" || s == "TRUE" || s == "True";
}

/// ioctl(2) on a throw-away socket with the interface's name.
Result<ifreq> interface_ioctl(const std::string& name, unsigned long request, int mtu, const char* what) {
    const UniqueFd sock(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!sock.valid()) return fail_errno("socket", errno);
    ifreq ifr{};
    std::memcpy(ifr.ifr_name, name.data(), std::min(name.size(), size_t{IFNAMSIZ - 1}));
    ifr.ifr_mtu = mtu;
    if (::ioctl(sock.get(), request, &ifr) < 0) return fail_errno(fmt::format("{} {}", what, name), errno);
    return ifr;
}

Error open_error(const std::string& name, int err) {
    const std::string head = fmt::format("CreateTUN(\"{}\") failed; ", name);
    switch (err) {
        case ENOENT:
        case ENODEV:
        case ENXIO:
            return {Code::kUnsupported, 0, head + "/dev/net/tun does not exist (is CONFIG_TUN enabled in your kernel, "
                                                  "the module loaded, the device passed to the container?)"};
        case EBUSY:
            return {Code::kSystem, err, head + "another process probably still has it open; find it with: "
                                               "sudo lsof -n /dev/net/tun"};
        case EINVAL:
            return {Code::kSystem, err, head + "a network interface of that name exists and is not a TUN device"};
        case EPERM:
        case EACCES:
            return {Code::kDenied, err, head + "needs root or CAP_NET_ADMIN"};
        default:
            return {Code::kSystem, err, head + "/dev/net/tun"};
    }
}

}  // namespace

Result<TunDevice> TunDevice::open(const std::string& name, unsigned mtu) {
    if (name.empty() || name.size() >= IFNAMSIZ || name.find_first_of("/ %:") != std::string::npos)
        return fail(Code::kInvalid, fmt::format("\"{}\" is no name for a TUN device (1 to 15 bytes)", name));
    TunDevice tun;
    tun.name_ = name;
    tun.fd_.reset(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
    if (!tun.fd_.valid()) return tl::unexpected(open_error(name, errno));

    unsigned features = 0;
    if (::ioctl(tun.fd(), TUNGETFEATURES, &features) < 0) features = IFF_VNET_HDR;
    ifreq ifr{};
    std::memcpy(ifr.ifr_name, name.data(), name.size());
    ifr.ifr_flags = static_cast<short>(IFF_TUN | IFF_NO_PI | ((features & IFF_VNET_HDR) != 0 ? IFF_VNET_HDR : 0));
    if (::ioctl(tun.fd(), TUNSETIFF, &ifr) < 0) return tl::unexpected(open_error(name, errno));
    if (::ioctl(tun.fd(), TUNGETIFF, &ifr) < 0) return fail_errno("TUNGETIFF " + name, errno);
    tun.offloads_.vnet_hdr = (static_cast<unsigned>(ifr.ifr_flags) & IFF_VNET_HDR) != 0;
    TRY(tun.set_offloads());

    // Only now: the order of TUNSETIFF and O_NONBLOCK, then the poller, matters to the driver's poll.
    const int flags = ::fcntl(tun.fd(), F_GETFL);
    if (flags < 0 || ::fcntl(tun.fd(), F_SETFL, flags | O_NONBLOCK) < 0) return fail_errno("O_NONBLOCK " + name, errno);

    tun.if_index_ = static_cast<int>(::if_nametoindex(name.c_str()));
    if (tun.if_index_ == 0) return fail_errno("index of " + name, errno);
    TRY(tun.set_mtu(mtu));
    tun.slab_.reset(new uint8_t[kSlab]);  // pages come into being when packets do
    tun.batch_.reserve(kMaxBatch);
    return tun;
}

Status TunDevice::set_offloads() {
    if (!offloads_.vnet_hdr) return {};
    const unsigned tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    if (::ioctl(fd(), TUNSETOFFLOAD, static_cast<unsigned long>(tcp)) < 0)
        return fail_errno("TUNSETOFFLOAD " + name_, errno);
    offloads_.tcp_coalescing = !env_is_true("TS_TUN_DISABLE_TCP_GRO");
    const unsigned udp = tcp | TUN_F_USO4 | TUN_F_USO6;
    if (::ioctl(fd(), TUNSETOFFLOAD, static_cast<unsigned long>(udp)) == 0)
        offloads_.udp_coalescing = !env_is_true("TS_TUN_DISABLE_UDP_GRO");
    return {};
}

Result<unsigned> TunDevice::mtu() const {
    TRY_ASSIGN(const ifreq ifr, interface_ioctl(name_, SIOCGIFMTU, 0, "read MTU of"));
    return static_cast<unsigned>(ifr.ifr_mtu);
}

Status TunDevice::set_mtu(unsigned mtu) {
    if (mtu < 68 || mtu > kMaxPacket) return fail(Code::kInvalid, fmt::format("MTU {} is not in 68..65535", mtu));
    TRY_ASSIGN(const ifreq ifr, interface_ioctl(name_, SIOCSIFMTU, static_cast<int>(mtu), "set MTU of"));
    static_cast<void>(ifr);
    return {};
}

std::span<TunRead> TunDevice::read() {
    batch_.clear();
    const size_t header = offloads_.vnet_hdr ? kHeader : 0;
    size_t at = 0;
    while (batch_.size() < kMaxBatch && at + kSlot <= kSlab && failed_ == 0) {
        uint8_t* const packet = slab_.get() + at + kAlign;
        const ssize_t n = ::read(fd(), packet - header, header + kMaxPacket);
        if (n < 0) {
            if (errno == EINTR) continue;
            if (errno == EAGAIN) break;
            ++counters_.read_errors;
            if (errno == EBADFD || errno == EBADF || errno == ENODEV) failed_ = errno;
            break;
        }
        if (static_cast<size_t>(n) <= header) {
            ++counters_.read_errors;
            break;
        }
        TunRead& item = batch_.emplace_back();
        if (header != 0) std::memcpy(&item.vnet, packet - header, header);
        item.bytes = {packet, static_cast<size_t>(n) - header};
        at += kAlign + (item.bytes.size() + kAlign - 1) / kAlign * kAlign;
    }
    counters_.reads += batch_.size();
    return batch_;
}

size_t TunDevice::write(std::span<const TunWrite> batch) {
    size_t taken = 0;
    for (const TunWrite& item : batch) {
        iovec iov[kMaxPieces + 1];
        size_t count = 0;
        // Without the header there is no way to say "complete the checksum" or "split this".
        if (item.pieces.size() > kMaxPieces || (!offloads_.vnet_hdr && (item.vnet.gso_type != VnetHdr::kNone ||
                                                                         item.vnet.flags != 0))) {
            ++counters_.other_errors;
            continue;
        }
        // writev only reads.
        if (offloads_.vnet_hdr) iov[count++] = {const_cast<VnetHdr*>(&item.vnet), kHeader};
        for (const ByteSpan piece : item.pieces) iov[count++] = {const_cast<uint8_t*>(piece.data()), piece.size()};
        ssize_t n = 0;
        do {
            n = ::writev(fd(), iov, static_cast<int>(count));
        } while (n < 0 && errno == EINTR);
        if (n >= 0) {
            ++taken;
            if (item.vnet.gso_type == VnetHdr::kUdpL4) udp_refusals_ = 0;
            if (item.vnet.gso_type == VnetHdr::kTcpV4 || item.vnet.gso_type == VnetHdr::kTcpV6) tcp_refusals_ = 0;
        } else if (errno == EIO) {
            ++counters_.link_down;
        } else if (errno == EINVAL && item.vnet.gso_type != VnetHdr::kNone) {
            ++counters_.refused_gso;
            refused(item.vnet);
        } else {
            ++counters_.other_errors;
        }
    }
    counters_.writes += taken;
    return taken;
}

void TunDevice::refused(const VnetHdr& vnet) {
    if (vnet.gso_type == VnetHdr::kUdpL4) {
        if (++udp_refusals_ >= kRefusalsToGiveUp) offloads_.udp_coalescing = false;
    } else if (++tcp_refusals_ >= kRefusalsToGiveUp) {
        offloads_.tcp_coalescing = false;
    }
}

void TunDevice::probe_coalescing() {
    if (!offloads_.tcp_coalescing && !offloads_.udp_coalescing) return;
    constexpr size_t kPayload = 23;  // of each of the two segments
    struct {
        VnetHdr vnet;
        uint8_t packet[40 + 2 * kPayload];
    } probe{};
    probe.vnet = {.flags = VnetHdr::kNeedsCsum,
                  .gso_type = VnetHdr::kTcpV4,
                  .hdr_len = 40,
                  .gso_size = kPayload,
                  .csum_start = 20,
                  .csum_offset = 16};
    uint8_t* const ip = probe.packet;
    ip[0] = 0x45;
    store_be16(ip + 2, sizeof probe.packet);
    ip[9] = 6;  // TCP; TTL stays 0: the kernel drops it
    const Addr self = service_addr_v4();
    std::copy_n(self.bytes().data(), 4, ip + 12);
    std::copy_n(self.bytes().data(), 4, ip + 16);
    const auto fold = [](uint32_t sum) {
        while ((sum >> 16) != 0) sum = (sum & 0xffff) + (sum >> 16);
        return static_cast<uint16_t>(sum);
    };
    uint32_t sum = 0;
    for (size_t i = 0; i < 20; i += 2) sum += load_be16(ip + i);
    store_be16(ip + 10, static_cast<uint16_t>(~fold(sum)));
    uint8_t* const tcp = ip + 20;
    store_be16(tcp, 1);
    store_be16(tcp + 2, 1);
    tcp[12] = 5 << 4;
    tcp[13] = 0x10;  // ACK
    // The field carries the folded pseudo-header sum, not its complement: the kernel completes it.
    sum = 6 + 20 + 2 * kPayload;
    for (size_t i = 12; i < 20; i += 2) sum += load_be16(ip + i);
    store_be16(tcp + 16, fold(sum));

    const iovec iov[2] = {{&probe.vnet, kHeader}, {probe.packet, sizeof probe.packet}};
    if (::writev(fd(), iov, 2) < 0 && errno == EINVAL) offloads_.tcp_coalescing = offloads_.udp_coalescing = false;
}

}  // namespace mesh::platform
