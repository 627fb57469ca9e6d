// SPDX-License-Identifier: BSD-3-Clause
// Load for a relay, the same for ours and the original's: real clients (magicsock/derp) on one loop.
//
//   derp_load flow  HOST PORT [options]   pairs of clients; each sender keeps a window of packets under way (as TCP inside a
//                                         tunnel would), receivers acknowledge. Prints goodput, loss and round trips of probes.
//   derp_load idle  HOST PORT [options]   connects clients, prints "ready", holds them until standard input ends
//
// Options: --plain (no TLS) --pairs N --window PACKETS --size BYTES --seconds S --probes N (pairs that send a small packet
// every 5 ms) --beside (the probes go to the receivers of the flows) --clients N --rate N (logins under way at once) --same-key
// Output: one JSON object on standard output.

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/crypto/crypto.h"
#include "magicsock/derp/client_session.h"
#include "platform/loop/loop.h"
#include "platform/net/dialer.h"
#include "platform/tls/certificate.h"

namespace mesh {
namespace {

struct Options {
    std::string mode, host;
    uint16_t port = 0;
    bool plain = false, beside = false, same_key = false;
    size_t pairs = 8, window = 24, size = 1300, probes = 0, clients = 1000, rate = 50;
    double seconds = 5;
};

/// One client; what it does with packets is the owner's business.
class Client final : private platform::ByteStream::Listener {
   public:
    Client(platform::Loop& loop, Random& random, const NodePrivate& key)
        : loop_(loop),
          key_(key),
          public_(key_.public_key()),
          session_(random, {.node_key = key_, .data_queue_bytes = 4U << 20}),
          timer_(loop, [this] { on_timer(); }) {}

    void start(platform::ByteStream stream) {
        stream_ = std::move(stream);
        derp::ClientStart begin{.host = "load"};
        if (const auto* tls = stream_.tls(); tls && tls->version() == "TLSv1.3")
            if (const auto meta = platform::find_derp_meta(tls->peer_chain())) begin.fast_start_key = meta->server_key;
        stream_.attach(loop_, *this);
        session_.start(begin, loop_.now());
        pump();
    }

    void send(const NodePublic& to, ByteSpan packet) {
        session_.send(to, packet, loop_.now());
    }
    void pump() {
        // What the socket does not take waits in the stream; the session goes on when that is gone.
        while (stream_.is_open() && stream_.queued_bytes() == 0) {
            const ByteSpan w = session_.writable(loop_.now());
            if (w.empty() || !stream_.write(w)) break;
            session_.wrote(w.size(), loop_.now());
        }
        const Time next = session_.next_timeout();
        if (!timer_.armed() || next < timer_.deadline()) timer_.set(next);
    }

    [[nodiscard]] const NodePublic& key() const { return public_; }
    [[nodiscard]] bool connected() const { return session_.connected(); }

    std::function<void(const NodePublic& from, MutByteSpan packet)> on_packet;
    std::function<void()> on_connected;
    std::function<void(const std::string&)> on_lost;

   private:
    void on_bytes(MutByteSpan bytes) override {
        session_.feed(bytes, loop_.now());
        drain();
        pump();
    }
    void on_closed(const Status& why) override {
        session_.closed(why ? "" : why.error().message());
        drain();
    }
    void on_drained() override { pump(); }
    void on_timer() {
        session_.handle_timeout(loop_.now());
        drain();
        pump();
    }
    void drain() {
        using Kind = derp::Event::Kind;
        while (const derp::Event* e = session_.next_event(loop_.now())) {
            if (e->kind == Kind::kPacket && on_packet) on_packet(e->key, e->packet);
            if (e->kind == Kind::kConnected && on_connected) on_connected();
            if (e->kind == Kind::kError && on_lost) on_lost(e->error.message());
        }
    }

    platform::Loop& loop_;
    NodePrivate key_;
    NodePublic public_;
    derp::ClientSession session_;
    platform::Timer timer_;
    platform::ByteStream stream_;
};

/// Dials a number of clients, a few at a time.
class Crowd {
   public:
    Crowd(platform::Loop& loop, Random& random, const Options& o, size_t count)
        : loop_(loop), o_(o), resolver_(loop, resolver_config()), dialer_(loop, resolver_) {
        NodePrivate key = NodePrivate::generate(random);
        for (size_t i = 0; i < count; ++i) {
            if (!o.same_key) key = NodePrivate::generate(random);
            clients_.push_back(std::make_unique<Client>(loop, random, key));
            clients_.back()->on_connected = [this] {
                --under_way_;
                if (++connected_ == clients_.size()) return on_all();
                dial_some();
            };
            clients_.back()->on_lost = [](const std::string& why) {
                std::fprintf(stderr, "derp_load: lost: %s\n", why.c_str());
                std::exit(1);
            };
        }
    }
    void connect(std::function<void()> on_all_connected) {
        on_all = std::move(on_all_connected);
        dial_some();
    }
    [[nodiscard]] Client& at(size_t i) { return *clients_[i]; }

   private:
    static platform::ResolverConfig resolver_config() {
        platform::ResolverConfig c;
        c.protect = platform::Protect::kNo;
        return c;
    }
    void dial_some() {
        while (dialled_ < clients_.size() && under_way_ < o_.rate) {
            const size_t i = dialled_++;
            ++under_way_;
            platform::DialOptions d;
            d.protect = platform::Protect::kNo;
            if (!o_.plain) {
                d.tls.emplace();
                d.tls->server_name = o_.host;
                d.tls->verify = platform::TlsVerify::kInsecure;
            }
            dials_[i] = dialer_.dial(o_.host, o_.port, std::move(d), [this, i](Result<platform::ByteStream> s) {
                const auto keep = dials_.extract(i);
                if (!s) {
                    std::fprintf(stderr, "derp_load: %s\n", s.error().message().c_str());
                    std::exit(1);
                }
                clients_[i]->start(std::move(*s));
            });
        }
    }

    platform::Loop& loop_;
    const Options& o_;
    platform::Resolver resolver_;
    platform::Dialer dialer_;
    std::vector<std::unique_ptr<Client>> clients_;
    std::unordered_map<size_t, std::unique_ptr<platform::Dial>> dials_;
    size_t dialled_ = 0, under_way_ = 0, connected_ = 0;
    std::function<void()> on_all;
};

constexpr uint8_t kData = 1, kAck = 2, kProbe = 3, kEcho = 4;

/// A sender and its receiver. Packets carry a number; every eighth is acknowledged with the highest one seen.
class Flow {
   public:
    Flow(platform::Loop& loop, const Options& o, Client& from, Client& to)
        : loop_(loop), o_(o), from_(from), to_(to), packet_(o.size), stalled_(loop, [this] { resume(); }) {}

    void go() { fill(); }
    void acknowledged(uint64_t number) {
        acked_ = std::max(acked_, number);
        fill();
    }
    void received(ByteSpan packet) {
        ++packets_;
        bytes_ += packet.size();
        const uint64_t number = load_be64(packet.data() + 1);
        if (number % 8 != 0 && number - acked_here_ < 8) return;
        acked_here_ = number;
        uint8_t ack[9] = {kAck};
        store_be64(ack + 1, number);
        to_.send(from_.key(), ack);
    }
    void start_counting() {
        packets_ = bytes_ = 0;
        sent_ = 0;
    }
    [[nodiscard]] uint64_t bytes() const { return bytes_; }
    [[nodiscard]] uint64_t packets() const { return packets_; }
    [[nodiscard]] uint64_t sent() const { return sent_; }
    [[nodiscard]] uint64_t stalls() const { return stalls_; }

   private:
    void fill() {
        while (next_ - acked_ <= o_.window) {
            packet_[0] = kData;
            store_be64(packet_.data() + 1, next_++);
            from_.send(to_.key(), packet_);
            ++sent_;
        }
        from_.pump();
        stalled_.set_after(milliseconds(500));
    }
    /// Everything under way is given up for lost.
    void resume() {
        ++stalls_;
        acked_ = next_ - 1;
        fill();
    }

    platform::Loop& loop_;
    const Options& o_;
    Client& from_;
    Client& to_;
    Bytes packet_;
    platform::Timer stalled_;
    uint64_t next_ = 1, acked_ = 0, acked_here_ = 0, packets_ = 0, bytes_ = 0, sent_ = 0, stalls_ = 0;
};

double percentile(std::vector<double>& v, double p) {
    if (v.empty()) return -1;
    std::sort(v.begin(), v.end());
    return v[std::min(v.size() - 1, static_cast<size_t>(p * static_cast<double>(v.size())))];
}

class FlowRun {
   public:
    FlowRun(platform::Loop& loop, Random& random, const Options& o)
        : loop_(loop), o_(o), crowd_(loop, random, o, 2 * o.pairs + 2 * o.probes), probe_timer_(loop, [this] { probe(); }),
          timer_(loop, [this] { next_phase(); }) {}

    void run() {
        crowd_.connect([this] { begin(); });
        loop_.run();
    }

   private:
    void begin() {
        for (size_t i = 0; i < o_.pairs; ++i) flows_.push_back(std::make_unique<Flow>(loop_, o_, crowd_.at(2 * i), crowd_.at(2 * i + 1)));
        for (size_t i = 0; i < 2 * (o_.pairs + o_.probes); ++i)
            crowd_.at(i).on_packet = [this, i](const NodePublic& from, MutByteSpan p) { packet(i, from, p); };
        for (auto& f : flows_) f->go();
        if (o_.probes > 0) probe();
        timer_.set_after(milliseconds(500));  // warm-up
    }

    void packet(size_t client, const NodePublic& from, MutByteSpan p) {
        if (p.size() < 9) return;
        switch (p[0]) {
            case kData: flows_[client / 2]->received(p); break;
            case kAck: flows_[client / 2]->acknowledged(load_be64(p.data() + 1)); break;
            case kProbe:
                p[0] = kEcho;
                crowd_.at(client).send(from, p);
                break;
            case kEcho:
                if (counting_)
                    round_trips_.push_back(static_cast<double>(platform::read_clock().ns - static_cast<int64_t>(load_be64(p.data() + 1))) / 1e6);
                break;
            default: break;
        }
    }

    void probe() {
        for (size_t i = 0; i < o_.probes; ++i) {
            const size_t sender = 2 * (o_.pairs + i);
            const size_t receiver = o_.beside && o_.pairs > 0 ? 2 * (i % o_.pairs) + 1 : sender + 1;
            Bytes p(100);
            p[0] = kProbe;
            store_be64(p.data() + 1, static_cast<uint64_t>(platform::read_clock().ns));
            crowd_.at(sender).send(crowd_.at(receiver).key(), p);
            crowd_.at(sender).pump();
            if (counting_) ++probes_sent_;
        }
        probe_timer_.set_after(milliseconds(5));
    }

    void next_phase() {
        if (!counting_) {
            counting_ = true;
            for (auto& f : flows_) f->start_counting();
            since_ = platform::read_clock();
            // Whoever measures the server's CPU does it between these two lines.
            std::puts("{\"counting\": true}");
            std::fflush(stdout);
            timer_.set_after(Duration{static_cast<int64_t>(o_.seconds * 1e9)});
            return;
        }
        const double seconds = (platform::read_clock() - since_).seconds();
        uint64_t bytes = 0, packets = 0, sent = 0, stalls = 0;
        for (auto& f : flows_) {
            bytes += f->bytes();
            packets += f->packets();
            sent += f->sent();
            stalls += f->stalls();
        }
        const double p50 = percentile(round_trips_, 0.5), p99 = percentile(round_trips_, 0.99);
        fmt::print("{{\"seconds\": {:.3f}, \"bytes\": {}, \"packets\": {}, \"sent\": {}, \"stalls\": {}, \"gbit_s\": {:.4f}, "
                   "\"probes_sent\": {}, \"probes_answered\": {}, \"rtt_ms_p50\": {:.3f}, \"rtt_ms_p99\": {:.3f}}}\n",
                   seconds, bytes, packets, sent, stalls, static_cast<double>(bytes) * 8 / seconds / 1e9, probes_sent_,
                   round_trips_.size(), p50, p99);
        std::fflush(stdout);
        std::_Exit(0);
    }

    platform::Loop& loop_;
    const Options& o_;
    Crowd crowd_;
    std::vector<std::unique_ptr<Flow>> flows_;
    std::vector<double> round_trips_;
    uint64_t probes_sent_ = 0;
    bool counting_ = false;
    Time since_;
    platform::Timer probe_timer_;
    platform::Timer timer_;
};

void run_idle(platform::Loop& loop, Random& random, const Options& o) {
    Crowd crowd(loop, random, o, o.clients);
    platform::FdPoll input(loop, 0, [](platform::FdPoll::Events) {
        char c[64];
        if (::read(0, c, sizeof c) <= 0) std::_Exit(0);
    });
    crowd.connect([&] {
        std::puts("ready");
        std::fflush(stdout);
        input.set_interest(true, false);
    });
    loop.run();
}

bool parse(int argc, char** argv, Options& o) {
    if (argc < 4) return false;
    o.mode = argv[1];
    o.host = argv[2];
    o.port = static_cast<uint16_t>(std::atoi(argv[3]));
    for (int i = 4; i < argc; ++i) {
        const std::string name = argv[i];
        if (name == "--plain") {
            o.plain = true;
        } else if (name == "--beside") {
            o.beside = true;
        } else if (name == "--same-key") {
            o.same_key = true;
        } else if (i + 1 < argc) {
            const std::string value = argv[++i];
            size_t* const field = name == "--pairs" ? &o.pairs : name == "--window" ? &o.window : name == "--size" ? &o.size
                                : name == "--probes" ? &o.probes : name == "--clients" ? &o.clients : name == "--rate" ? &o.rate : nullptr;
            if (field)
                *field = std::stoul(value);
            else if (name == "--seconds")
                o.seconds = std::stod(value);
            else
                return false;
        } else {
            return false;
        }
    }
    return o.size >= 9 && o.size <= derp::kMaxPacket && (o.mode == "flow" || o.mode == "idle");
}

}  // namespace
}  // namespace mesh

int main(int argc, char** argv) {
    using namespace mesh;
    std::signal(SIGPIPE, SIG_IGN);
    crypto::init();
    rlimit l{};
    if (getrlimit(RLIMIT_NOFILE, &l) == 0) {
        l.rlim_cur = l.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &l);
    }
    Options o;
    if (!parse(argc, argv, o)) {
        std::fputs("usage: derp_load flow|idle HOST PORT [options]; see the head of its source\n", stderr);
        return 2;
    }
    platform::Loop loop;
    SystemRandom random;
    if (o.mode == "idle") {
        run_idle(loop, random, o);
    } else {
        FlowRun(loop, random, o).run();
    }
    return 0;
}
