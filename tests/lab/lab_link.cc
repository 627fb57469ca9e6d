// SPDX-License-Identifier: BSD-3-Clause
// lab-link: a cable between two TAP interfaces, with the simulator's link type: delay, jitter, loss, reordering, duplication,
// rate, queue, MTU. It makes both interfaces in its own namespace; whoever started it moves them to where they are to end.
//
// A link that does nothing to packets hands the kernel's super-packets of up to 64 KiB through; one that does gets every
// packet by itself.
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <queue>
#include <vector>

#include "base/bytes.h"
#include "platform/fd.h"
#include "platform/loop/loop.h"
#include "tests/sim/link.h"

namespace {

using namespace mesh;

constexpr size_t kEthernet = 14;
constexpr size_t kLongest = 65536 + 64;
constexpr size_t kMostWaiting = 256U << 20;  // bytes of frames under way; what comes on top is lost

volatile sig_atomic_t ended = 0;

platform::UniqueFd open_tap(const std::string& name, bool whole) {
    platform::UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
    ifreq request{};
    request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | (whole ? IFF_VNET_HDR : 0));
    name.copy(request.ifr_name, IFNAMSIZ - 1);
    if (!fd.valid() || ::ioctl(fd.get(), TUNSETIFF, &request) != 0) {
        std::fprintf(stderr, "lab-link: %s: %s\n", name.c_str(), std::strerror(errno));
        return {};
    }
    if (whole) ::ioctl(fd.get(), TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6);
    return fd;
}

struct Counters {
    uint64_t frames = 0, bytes = 0, lost = 0, queue_full = 0, too_long = 0;
};

class Cable {
   public:
    Cable(platform::UniqueFd a, platform::UniqueFd b, const sim::Link& link, uint64_t seed, bool whole)
        : ends_{std::move(a), std::move(b)}, link_(link), random_(seed), whole_(whole), buffer_(kLongest) {}

    void run() {
        while (ended == 0) {
            pollfd fds[2] = {{ends_[0].get(), POLLIN, 0}, {ends_[1].get(), POLLIN, 0}};
            timespec wait{};
            const Time now = platform::read_clock();
            if (!under_way_.empty()) wait.tv_nsec = static_cast<long>(std::clamp<int64_t>((under_way_.top().at - now).ns, 0, 999'999'999));
            if (::ppoll(fds, 2, under_way_.empty() ? nullptr : &wait, nullptr) < 0 && errno != EINTR) break;
            for (size_t from : {size_t{0}, size_t{1}})
                if (fds[from].revents != 0 && !drain(from)) return;
            deliver(platform::read_clock());
        }
    }
    void tell() const {
        for (size_t i : {size_t{0}, size_t{1}})
            std::printf("from %c: %llu frames, %llu bytes, %llu lost, %llu for a full queue, %llu too long\n", i == 0 ? 'a' : 'b', u(count_[i].frames),
                        u(count_[i].bytes), u(count_[i].lost), u(count_[i].queue_full), u(count_[i].too_long));
    }

   private:
    struct Frame {
        Time at;
        uint64_t seq;
        size_t to;
        Bytes bytes;
        bool operator<(const Frame& o) const { return at != o.at ? o.at < at : o.seq < seq; }
    };
    static unsigned long long u(uint64_t n) { return n; }

    bool drain(size_t from) {
        for (int i = 0; i < 64; ++i) {
            const ssize_t n = ::read(ends_[from].get(), buffer_.data(), buffer_.size());
            if (n < 0) return errno == EAGAIN || errno == EINTR || errno == EIO;  // EIO: not up yet
            const ByteSpan frame(buffer_.data(), static_cast<size_t>(n));
            ++count_[from].frames;
            count_[from].bytes += frame.size();
            if (whole_)
                write(1 - from, frame);
            else
                impair(from, frame);
        }
        return true;
    }
    void impair(size_t from, ByteSpan frame) {
        const Time now = platform::read_clock();
        const uint32_t loss = link_.loss_ppm + (from == 1 ? link_.loss_in_ppm : 0);
        const int copies = random_.below(1'000'000) < link_.duplicate_ppm ? 2 : 1;
        for (int i = 0; i < copies; ++i) {
            const sim::Lane::Passage p = lanes_[from].pass(link_, loss, frame.size() - std::min(frame.size(), kEthernet), now, random_);
            Counters& c = count_[from];
            if (p.fate == sim::Lane::Fate::kLost) ++c.lost;
            if (p.fate == sim::Lane::Fate::kTooLong) ++c.too_long;
            if (p.fate == sim::Lane::Fate::kQueueFull || waiting_ > kMostWaiting) ++c.queue_full;
            else if (p.fate == sim::Lane::Fate::kThrough) {
                waiting_ += frame.size();
                under_way_.push({now + p.delay, seq_++, 1 - from, to_bytes(frame)});
            }
        }
    }
    void deliver(Time now) {
        while (!under_way_.empty() && under_way_.top().at <= now) {
            const Frame& f = under_way_.top();
            write(f.to, f.bytes);
            waiting_ -= f.bytes.size();
            under_way_.pop();
        }
    }
    void write(size_t to, ByteSpan frame) {
        if (::write(ends_[to].get(), frame.data(), frame.size()) < 0) ++count_[1 - to].lost;
    }

    platform::UniqueFd ends_[2];
    const sim::Link link_;
    SeededRandom random_;
    const bool whole_;
    Bytes buffer_;
    sim::Lane lanes_[2];  // by the end that sends
    Counters count_[2];
    std::priority_queue<Frame> under_way_;
    uint64_t seq_ = 0;
    size_t waiting_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{"A cable between two TAP interfaces. Ends on SIGTERM and prints what passed."};
    std::string a = "linka", b = "linkb";
    double delay = 0, jitter = 0, loss = 0, loss_in = 0, duplicate = 0, reorder = 0;
    uint64_t seed = 1;
    sim::Link link;
    app.add_option("--a", a, "name of the first interface")->capture_default_str();
    app.add_option("--b", b, "name of the second interface")->capture_default_str();
    app.add_option("--delay", delay, "ms each way");
    app.add_option("--jitter", jitter, "up to so many ms more");
    app.add_option("--loss", loss, "percent, each way")->check(CLI::Range(0.0, 100.0));
    app.add_option("--loss-in", loss_in, "percent more from b to a")->check(CLI::Range(0.0, 100.0));
    app.add_option("--duplicate", duplicate, "percent")->check(CLI::Range(0.0, 100.0));
    app.add_option("--reorder", reorder, "percent that stay behind for 2 to 20 ms")->check(CLI::Range(0.0, 100.0));
    app.add_option("--kbit", link.kbit_per_s, "kbit/s each way; 0: no limit");
    app.add_option("--queue", link.queue, "bytes that wait when there is a limit")->capture_default_str();
    app.add_option("--mtu", link.mtu, "bytes of the longest IP packet")->capture_default_str();
    app.add_option("--seed", seed, "of the dice");
    CLI11_PARSE(app, argc, argv);
    const auto ppm = [](double percent) { return static_cast<uint32_t>(percent * 1e4); };
    link.delay = microseconds(static_cast<int64_t>(delay * 1000));
    link.jitter = microseconds(static_cast<int64_t>(jitter * 1000));
    link.loss_ppm = ppm(loss);
    link.loss_in_ppm = ppm(loss_in);
    link.duplicate_ppm = ppm(duplicate);
    link.reorder_ppm = ppm(reorder);
    const bool whole = delay <= 0 && jitter <= 0 && loss <= 0 && loss_in <= 0 && duplicate <= 0 && reorder <= 0 && link.kbit_per_s == 0 && link.mtu >= 1500;

    platform::UniqueFd fa = open_tap(a, whole), fb = open_tap(b, whole);
    if (!fa.valid() || !fb.valid()) return 1;
    struct sigaction action{};
    action.sa_handler = [](int) { ended = 1; };
    ::sigaction(SIGTERM, &action, nullptr);
    ::sigaction(SIGINT, &action, nullptr);
    std::printf("ready: %s and %s%s\n", a.c_str(), b.c_str(), whole ? ", nothing is done to packets" : "");
    std::fflush(stdout);
    Cable cable(std::move(fa), std::move(fb), link, seed, whole);
    cable.run();
    cable.tell();
    return 0;
}
