// SPDX-License-Identifier: BSD-3-Clause
// The outbound half of the packet path without a TUN: super-packets are cut, sealed and sent, by one thread or with a lane
// (platform/net/send_lane.h), in turns. So a lane has a core of its own on a machine of two: see tests/bench/bench_lanes.py.
//
//   lane_load ENDPOINT ROUNDS MILLISECONDS    one line per measurement: mode, Gbit/s of payload, CPU seconds per GiB
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/random.h"
#include "platform/net/send_lane.h"
#include "tailscaled/dataplane/seal_queue.h"
#include "wg/session.h"

namespace {

using namespace mesh;

constexpr size_t kSegment = 1240, kSegments = 51;  // a TCP super-packet at MTU 1280
constexpr size_t kPerTurn = 4;                     // as many as one read of the TUN brings
constexpr size_t kMtu = 1280;

double cpu_seconds() {
    rusage u{};
    ::getrusage(RUSAGE_SELF, &u);
    return static_cast<double>(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + static_cast<double>(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

struct Kernel final : dataplane::SendBatch::Sink {
    Kernel(platform::Loop& loop, platform::UdpSocket& socket, platform::LaneMode mode)
        : lane(loop, &socket, nullptr, mode, {.failed = [](const Endpoint&, int) {}, .news = [] {}}) {}
    void send_udp(std::span<const UdpSend> sends) override { lane.send(sends); }
    void send_batch(UdpBatch& batch) override { lane.send(batch, platform::read_clock()); }
    [[nodiscard]] bool seals_too() const override { return lane.in_use(); }
    platform::SendLane lane;
};

void measure(const char* name, platform::LaneMode mode, const Endpoint& to, Duration length) {
    platform::Loop loop;
    platform::UdpSocket::Options options;
    options.protect = platform::Protect::kNo;
    auto socket = platform::UdpSocket::open(options);
    if (!socket) std::exit(1);
    Kernel kernel(loop, **socket, mode);
    dataplane::SealQueue queue(kernel);
    dataplane::SendBatch batch(queue);
    wg::TransportKeys keys;
    keys.send.bytes()[0] = 1;
    wg::Session session(keys, wg::Role::kInitiator, 1, 2, 0, Time{1});
    Bytes super(kSegment * kSegments, uint8_t{7});

    const double cpu = cpu_seconds();
    const Time begin = platform::read_clock();
    size_t bytes = 0;
    while (platform::read_clock() - begin < length) {
        for (size_t p = 0; p < kPerTurn; ++p)
            for (size_t i = 0; i < kSegments; ++i) {
                uint8_t* const slot = batch.reserve(to, kMtu + wg::kDataOverhead);
                std::memcpy(slot + wg::kDataHeader, super.data() + i * kSegment, kSegment);
                batch.commit(queue.add(session, slot, kSegment, kMtu, true));
                bytes += kSegment;
            }
        batch.flush();
    }
    kernel.lane.drain();
    const double took = (platform::read_clock() - begin).seconds();
    std::printf("%s %.4f %.4f\n", name, static_cast<double>(bytes) * 8 / took / 1e9,
                (cpu_seconds() - cpu) / (static_cast<double>(bytes) / (1 << 30)));
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
    const auto to = argc == 4 ? Endpoint::parse(argv[1]) : std::nullopt;
    if (!to) return std::fprintf(stderr, "usage: lane_load ENDPOINT ROUNDS MILLISECONDS\n"), 2;
    crypto::init();
    const Duration length = milliseconds(std::atoi(argv[3]));
    for (int i = std::atoi(argv[2]); i-- > 0;) {
        measure("one", platform::LaneMode::kOff, *to, length);
        measure("lane", platform::LaneMode::kAlways, *to, length);
        measure("again", platform::LaneMode::kOff, *to, length);
    }
    return 0;
}
