// SPDX-License-Identifier: BSD-3-Clause
// lab-wg: the WireGuard engine of the release with one peer, a TUN and a UDP socket, and nothing else: what the
// conformance tests put opposite the original (tests/interop/test_wireguard.py). Follows the peer's address as plain
// WireGuard does. A line on the control socket is a command, answered by a line of JSON:
//   stats          what the engine knows
//   advance SEC    the engine's monotonic clock goes ahead
//   wall SEC       the wall clock is that far off from now on, as after somebody set it
//   counter N      the session in use leaves counters out up to N
//   raw HEX        seals these bytes as they are, IP packet or not (empty: a keepalive)
#include <CLI/CLI.hpp>
#include <charconv>
#include <csignal>

#include "base/crypto/crypto.h"
#include "base/json.h"
#include "base/log.h"
#include "netstack/packet.h"
#include "netstack/segment.h"
#include "platform/net/listener.h"
#include "platform/net/udp_socket.h"
#include "platform/tun/tun_device.h"
#include "tailscaled/ipn/profile.h"
#include "tailscaled/state_file.h"
#include "wg/device.h"

namespace {

using namespace mesh;

constexpr PeerId kPeer = 0;

struct Options {
    std::string tun = "wg0", control, state = "mem:";
    NodePrivate key;
    NodePublic peer;
    Endpoint endpoint;
    uint16_t port = 0;
    unsigned mtu = 1420;
    int64_t wall_offset = 0;  // seconds
};

class Program final : wg::Output, platform::UdpSocket::Listener, platform::ByteStream::Listener {
   public:
    Program(Options options, platform::TunDevice tun, std::unique_ptr<platform::UdpSocket> udp, ipn::Profiles profiles,
            daemon::StateFile file)
        : options_(std::move(options)),
          wall_offset_(seconds(options_.wall_offset)),
          tun_(std::move(tun)),
          udp_(std::move(udp)),
          profiles_(std::move(profiles)),
          file_(std::move(file)),
          to_(options_.endpoint),
          device_(random_, *this),
          timer_(loop_, [this] {
              device_.handle_timeout(now());
              finish_turn();
          }),
          tun_poll_(loop_, tun_.fd(), [this](platform::FdPoll::Events) { on_tun(); }),
          term_(loop_, SIGTERM, [this] { loop_.stop(); }) {
        set_wall_clock();
        // As the daemon: once per run, and on disk before the first use.
        const int64_t floor = profiles_.timestamp_floor(wall());
        if (floor > 0) {
            device_.set_timestamp_floor(static_cast<uint64_t>(floor));
            note_timestamp(floor + 1, false);
        }
        device_.set_private_key(options_.key, now());
        device_.add_peer(kPeer, options_.peer);
        udp_->attach(loop_, *this);
        tun_poll_.set_interest(true, false);
    }

    Status listen() {
        TRY_ASSIGN(listener_, platform::Listener::unix_socket(loop_, options_.control, [this](platform::ByteStream s) {
                       control_ = std::move(s);
                       line_.clear();
                       control_.attach(loop_, *this);
                   }));
        return {};
    }

    void run() {
        loop_.run();
        note_timestamp(static_cast<int64_t>(device_.last_timestamp()), true);
    }

   private:
    [[nodiscard]] Time now() const { return loop_.now() + ahead_; }
    [[nodiscard]] WallTime wall() const { return loop_.wall() + wall_offset_; }
    void set_wall_clock() { device_.set_wall_clock(wall(), now()); }

    // ---- wg::Output
    bool send_to_peer(PeerId, ByteSpan datagram, Time) override {
        if (!to_.is_valid()) return false;
        udp_->send(to_, datagram);
        return true;
    }
    void reply(const Source& to, ByteSpan datagram, Time) override { udp_->send(to.udp, datagram); }
    bool knows(const Source& source) const override { return source.udp == to_; }
    void session_ready(PeerId, Time at) override {
        Bytes packet;
        while (device_.take_staged(kPeer, packet)) transmit(packet, at);
    }
    void authenticated(PeerId, const Source& from, Time) override { to_ = from.udp; }

    // ---- the straight line, packet by packet
    void transmit(ByteSpan packet, Time at) {
        wg::Session* const session = device_.send_session(kPeer, at);
        if (session == nullptr) return device_.stage(kPeer, packet, at);
        slot_.resize(packet.size() + wg::kDataOverhead + wg::kPadding);
        if (!packet.empty()) std::memcpy(slot_.data() + wg::kDataHeader, packet.data(), packet.size());
        const size_t n = device_.seal(*session, slot_.data(), packet.size(), options_.mtu);
        if (n == 0) return;
        udp_->send(to_, ByteSpan(slot_.data(), n));
        device_.sent_data(kPeer, n, at);
    }
    void on_tun() {
        for (TunRead& read : tun_.read()) {
            netstack::Parsed p;
            if (!netstack::parse(read.bytes, p) || p.dst.is_multicast() || !segmenter_.begin(read, p)) continue;
            for (size_t i = 0; i < segmenter_.count(); ++i) {
                packet_.resize(segmenter_.length(i));
                segmenter_.write(i, packet_.data());
                transmit(packet_, now());
            }
        }
        finish_turn();
    }
    void on_datagrams(std::span<UdpReceive> batch) override {
        for (const UdpReceive& r : batch) {
            Source from;
            from.udp = r.from;
            r.each([&](MutByteSpan datagram) { take(datagram, from); });
        }
    }
    void take(MutByteSpan datagram, const Source& from) {
        using Kind = wg::Device::Opened::Kind;
        const wg::Device::Opened opened = device_.receive(datagram, from, now());
        if (opened.kind == Kind::kDropped) ++drops_[static_cast<size_t>(opened.drop)];
        if (opened.kind == Kind::kKeepalive) ++keepalives_;
        if (opened.kind != Kind::kKeepalive && opened.kind != Kind::kData) return;
        to_ = from.udp;
        if (opened.kind == Kind::kKeepalive) return;
        device_.received_data(kPeer, datagram.size(), now());
        netstack::Parsed p;
        if (!netstack::parse(opened.plain, p)) {
            ++no_packets_;
            return;
        }
        const ByteSpan packet = opened.plain.first(p.total);
        const TunWrite write{{}, {&packet, 1}};
        tun_.write({&write, 1});
    }
    void on_batch_end() override { finish_turn(); }
    void on_send_error(const Endpoint& to, int err) override { log::info("to {}: {}", to.str(), std::strerror(err)); }

    void finish_turn() {
        const auto stamp = static_cast<int64_t>(device_.last_timestamp());
        if (stamp - stamp_told_ > minutes(1).ns) {
            stamp_told_ = stamp;
            note_timestamp(stamp, false);
        }
        const Time next = device_.next_timeout();
        timer_.set(next.is_never() ? next : next - ahead_);
    }
    void note_timestamp(int64_t stamp, bool clean_stop) {
        if (!profiles_.note_timestamp(stamp, clean_stop)) return;
        if (const Status s = file_.save(profiles_.store()); !s) log::info("state: {}", s.error().message());
    }

    // ---- control
    void on_bytes(MutByteSpan bytes) override {
        line_ += as_text(bytes);
        for (size_t end; (end = line_.find('\n')) != std::string::npos; line_.erase(0, end + 1)) {
            const std::string_view line(line_.data(), end);
            const size_t space = std::min(line.find(' '), line.size());
            const Json answer = command(line.substr(0, space), line.substr(std::min(space + 1, line.size())));
            if (!control_.write(json::dump(answer) + "\n")) return;
        }
    }
    void on_closed(const Status&) override { control_.close(); }

    Json command(std::string_view name, std::string_view argument) {
        int64_t signed_number = 0;
        uint64_t number = 0;
        std::from_chars(argument.data(), argument.data() + argument.size(), signed_number);
        std::from_chars(argument.data(), argument.data() + argument.size(), number);
        if (name == "advance") {
            ahead_ = ahead_ + seconds(signed_number);
            device_.handle_timeout(now());
            finish_turn();
        } else if (name == "wall") {
            wall_offset_ = seconds(signed_number);
            set_wall_clock();
        } else if (name == "counter") {
            if (wg::Session* const s = device_.send_session(kPeer, now())) s->skip_to_counter(number);
        } else if (name == "raw") {
            Bytes plain(argument.size() / 2);
            if (!hex_decode(argument, plain)) return {{"error", "not hex"}};
            transmit(plain, now());
            finish_turn();
        } else if (name != "stats") {
            return {{"error", "unknown command"}};
        }
        return stats();
    }
    Json stats() {
        const wg::PeerStats s = device_.stats(kPeer, now());
        const wg::DeviceCounters& c = device_.counters();
        Json drops = Json::object();
        for (size_t i = 1; i < drops_.size(); ++i)
            if (drops_[i] > 0) drops[std::string(wg::name(static_cast<wg::DropReason>(i)))] = drops_[i];
        return {{"rx_bytes", s.rx_bytes}, {"tx_bytes", s.tx_bytes}, {"session", s.has_session},
                {"age", s.session_age.seconds()}, {"pending", s.handshake_pending}, {"sessions", c.sessions},
                {"initiations", c.initiations_sent}, {"responses", c.responses_sent}, {"cookies", c.cookie_replies_sent},
                {"keepalives", keepalives_}, {"no_packets", no_packets_}, {"drops", drops}, {"endpoint", to_.str()},
                {"stamp", device_.last_timestamp()}};
    }

    Options options_;
    Duration ahead_{};
    Duration wall_offset_;
    SystemRandom random_;
    platform::Loop loop_;
    platform::TunDevice tun_;
    std::unique_ptr<platform::UdpSocket> udp_;
    ipn::Profiles profiles_;
    daemon::StateFile file_;
    Endpoint to_;
    wg::Device device_;
    netstack::Segmenter segmenter_;
    Bytes slot_, packet_;
    std::array<uint64_t, static_cast<size_t>(wg::DropReason::kCount)> drops_{};
    uint64_t keepalives_ = 0;
    uint64_t no_packets_ = 0;
    int64_t stamp_told_ = 0;
    platform::Timer timer_;
    platform::FdPoll tun_poll_;
    platform::Signal term_;
    std::unique_ptr<platform::Listener> listener_;
    platform::ByteStream control_;
    std::string line_;
};

Status run(const Options& o) {
    TRY_ASSIGN(platform::TunDevice tun, platform::TunDevice::open(o.tun, o.mtu));
    platform::UdpSocket::Options u;
    u.port = o.port;
    u.exact_port = true;
    TRY_ASSIGN(std::unique_ptr<platform::UdpSocket> udp, platform::UdpSocket::open(u));
    daemon::StateFile file(o.state);
    TRY_ASSIGN(ipn::StateStore store, file.load());
    SystemRandom random;
    TRY_ASSIGN(ipn::Profiles profiles, ipn::Profiles::load(std::move(store), random));
    Program program(o, std::move(tun), std::move(udp), std::move(profiles), std::move(file));
    TRY(program.listen());
    program.run();
    return {};
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{"One WireGuard peer against another, with hooks for tests."};
    Options o;
    std::string key, peer, endpoint;
    app.add_option("--tun", o.tun)->capture_default_str();
    app.add_option("--mtu", o.mtu)->capture_default_str();
    app.add_option("--key", key, "our private key, 64 hex digits; a throw-away one, it shows in the list of processes")->required();
    app.add_option("--peer", peer, "the peer's public key, 64 hex digits")->required();
    app.add_option("--endpoint", endpoint, "where the peer is; without it we wait for it");
    app.add_option("--port", o.port, "UDP port to listen on")->required();
    app.add_option("--control", o.control, "path of the control socket")->required();
    app.add_option("--state", o.state, "file that keeps the timestamp floor over restarts");
    app.add_option("--wall", o.wall_offset, "seconds the wall clock is off at start");
    CLI11_PARSE(app, argc, argv);
    crypto::init();
    std::signal(SIGPIPE, SIG_IGN);
    const auto private_key = NodePrivate::parse("privkey:" + key);
    const auto public_key = NodePublic::parse("nodekey:" + peer);
    const auto to = endpoint.empty() ? std::optional<Endpoint>(Endpoint{}) : Endpoint::parse(endpoint);
    if (!private_key || !public_key || !to) return fmt::print(stderr, "lab-wg: --key, --peer or --endpoint is malformed\n"), 1;
    o.key = *private_key;
    o.peer = *public_key;
    o.endpoint = *to;
    if (const Status s = run(o); !s) return fmt::print(stderr, "lab-wg: {}\n", s.error().message()), 1;
    return 0;
}
