// SPDX-License-Identifier: BSD-3-Clause
// lab-flood: handshake initiations with a valid mac1 from invented sources, at a steady rate and for as little processor
// time as can be, so that what it does to the receiver can be measured on the same machine. Everything is computed before
// the first one leaves. Prints how many left and what they cost.
#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <array>
#include <ctime>
#include <vector>

#include "base/crypto/crypto.h"
#include "base/keys.h"
#include "base/random.h"
#include "platform/fd.h"
#include "platform/loop/loop.h"
#include "platform/net/sockaddr.h"
#include "wg/cookie.h"

namespace {

using namespace mesh;

constexpr size_t kHead = 28;  // IPv4 and UDP
constexpr size_t kPool = 4096;
constexpr size_t kBurst = 64;
using Packet = std::array<uint8_t, kHead + sizeof(wg::Initiation)>;

/// From 198.18.0.0/15, which nobody owns (RFC 2544). No UDP checksum; the kernel fills in that of the IP header.
Packet invent(Random& random, const Endpoint& to, const crypto::Hash32& mac1_key) {
    Packet p{};
    random.fill(p);
    std::fill_n(p.data(), kHead, uint8_t{0});
    p[0] = 0x45;
    store_be16(p.data() + 2, p.size());
    p[8] = 64;
    p[9] = IPPROTO_UDP;
    store_be32(p.data() + 12, 0xc6120000U | random.below(1U << 17));
    std::memcpy(p.data() + 16, to.addr.bytes().data(), 4);
    store_be16(p.data() + 20, static_cast<uint16_t>(1024 + random.below(60000)));
    store_be16(p.data() + 22, to.port);
    store_be16(p.data() + 24, static_cast<uint16_t>(p.size() - 20));
    auto& m = *reinterpret_cast<wg::Initiation*>(p.data() + kHead);
    store_le32(m.type, wg::kTypeInitiation);
    crypto::blake2s_mac16(m.mac1, mac1_key, ByteSpan(p).subspan(kHead, offsetof(wg::Initiation, mac1)));
    std::fill_n(m.mac2, sizeof m.mac2, uint8_t{0});
    return p;
}

double cpu_seconds() {
    rusage u{};
    ::getrusage(RUSAGE_SELF, &u);
    const auto s = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6; };
    return s(u.ru_utime) + s(u.ru_stime);
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{"Floods a WireGuard port with initiations that it must look at."};
    std::string to_text, key_text;
    int64_t rate = 10'000;
    double length = 5;
    app.add_option("--to", to_text, "IPv4 address:port")->required();
    app.add_option("--key", key_text, "public key of the node there, 64 hex digits")->required();
    app.add_option("--rate", rate, "per second")->capture_default_str();
    app.add_option("--seconds", length)->capture_default_str();
    CLI11_PARSE(app, argc, argv);
    crypto::init();
    const auto to = Endpoint::parse(to_text);
    const auto key = NodePublic::parse("nodekey:" + key_text);
    if (!to || !to->addr.is_v4() || !key || rate < 1) return fmt::print(stderr, "lab-flood: malformed argument\n"), 1;
    const platform::UniqueFd fd(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
    if (fd.get() < 0) return fmt::print(stderr, "lab-flood: raw socket: {}\n", std::strerror(errno)), 1;

    SeededRandom random(1);
    std::vector<Packet> pool;
    for (size_t i = 0; i < kPool; ++i) pool.push_back(invent(random, *to, wg::mac1_key(*key)));
    sockaddr_storage address;
    const socklen_t address_len = platform::to_sockaddr({to->addr, 0}, Addr::Family::kV4, address);
    std::array<mmsghdr, kBurst> messages{};
    std::array<iovec, kBurst> pieces{};
    for (size_t i = 0; i < kBurst; ++i) {
        messages[i].msg_hdr.msg_name = &address;
        messages[i].msg_hdr.msg_namelen = address_len;
        messages[i].msg_hdr.msg_iov = &pieces[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }

    fmt::print("flood begins\n");
    std::fflush(stdout);
    const double cpu_before = cpu_seconds();
    const Time begin = platform::read_clock();
    int64_t done = 0, failed = 0;
    for (double passed = 0; passed < length; passed = (platform::read_clock() - begin).seconds()) {
        const auto due = static_cast<int64_t>(passed * static_cast<double>(rate));
        while (done < due) {
            const auto n = static_cast<size_t>(std::min<int64_t>(due - done, kBurst));
            for (size_t i = 0; i < n; ++i) {
                Packet& p = pool[(static_cast<size_t>(done) + i) % kPool];
                pieces[i] = {p.data(), p.size()};
            }
            const int sent = ::sendmmsg(fd.get(), messages.data(), static_cast<unsigned>(n), 0);
            if (sent <= 0) ++failed;
            done += std::max(sent, 1);
        }
        const timespec pause{0, 1'000'000};
        ::nanosleep(&pause, nullptr);
    }
    fmt::print("{} initiations in {:.1f} s, {} not taken by the kernel, {:.0f} ms of processor time\n", done, length, failed,
               (cpu_seconds() - cpu_before) * 1e3);
    return 0;
}
