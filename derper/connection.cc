// SPDX-License-Identifier: BSD-3-Clause
#include "derper/connection.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <utility>

#include "base/log.h"
#include "derper/pages.h"

namespace mesh::derper {
namespace {

constexpr Duration kHttpTimeout = seconds(30);
constexpr Duration kFarewellTimeout = seconds(5);
constexpr size_t kMaxBody = 16U << 10;
constexpr int kKeepaliveSeconds = 600;
constexpr int kUserTimeoutMs = 15000;

void tune(int fd) {
    const auto set = [fd](int level, int name, int value) { (void)setsockopt(fd, level, name, &value, sizeof value); };
    set(IPPROTO_TCP, TCP_NODELAY, 1);
    set(SOL_SOCKET, SO_KEEPALIVE, 1);
    set(IPPROTO_TCP, TCP_KEEPIDLE, kKeepaliveSeconds);
    set(IPPROTO_TCP, TCP_USER_TIMEOUT, kUserTimeoutMs);
}

}  // namespace

Connection::Connection(ConnectionHost& host, ConnId id, Service service, platform::ByteStream stream)
    : host_(host),
      id_(id),
      service_(service),
      remote_(stream.remote_endpoint()),
      http_(std::make_unique<http1::Parser>(http1::Role::kRequests, kMaxBody)),
      http_deadline_(host.loop().now() + kHttpTimeout),
      timer_(host.loop(), [this] { on_timer(); }),
      stream_(std::move(stream)) {
    tune(stream_.fd());
    stream_.attach(host_.loop(), *this);
    arm();
}

Connection::~Connection() {
    if (phase_ == Phase::kOpen) host_.relay().remove(id_, host_.loop().now());
}

void Connection::on_bytes(MutByteSpan bytes) {
    switch (phase_) {
        case Phase::kHttp: read_http(bytes); break;
        case Phase::kLogin:
        case Phase::kOpen:
            session_->feed(bytes);
            read_frames();
            break;
        case Phase::kChecking: session_->feed(bytes); break;  // what was under way when reading was stopped
        case Phase::kFarewell:
        case Phase::kClosed: break;
    }
}

void Connection::on_closed(const Status& why) {
    close(why ? "" : log::printable(why.error().message()));
}

void Connection::on_drained() {
    if (session_ && unconfirmed_ > 0) session_->wrote(std::exchange(unconfirmed_, 0), host_.loop().now());
    pump();
}

void Connection::read_http(ByteSpan bytes) {
    while (!bytes.empty() && phase_ == Phase::kHttp) {
        const auto used = http_->feed(bytes);
        if (!used) {
            http1::Response r;
            r.status = 400;
            r.keep_alive = false;
            stream_.write(http1::serialize(r));
            return say_goodbye();
        }
        bytes = bytes.subspan(*used);
        if (!http_->done()) {
            if (*used == 0) return close("HTTP parser stalled");
            continue;
        }
        const http1::Request request = http_->take_request();
        http_->reset();
        http_deadline_ = host_.loop().now() + kHttpTimeout;
        if (!answer(request)) break;
    }
    if (session_ && phase_ == Phase::kLogin) {
        session_->feed(bytes);
        read_frames();
    }
}

bool Connection::answer(const http1::Request& request) {
    const bool is_derp = service_ == Service::kDerp && request.method == "GET" &&
                         std::string_view(request.target).substr(0, request.target.find('?')) == "/derp";
    if (is_derp && wanted_upgrade(request) == Upgrade::kDerp) {
        start_derp(request);
        return false;
    }
    http1::Response r = service_ == Service::kPort80 ? answer_port_80(request)
                        : is_derp                    ? refusal(wanted_upgrade(request))
                                                     : answer_page(request);
    r.keep_alive = request.keep_alive;
    // A client that asks and asks without reading the answers is not served further.
    const bool written = stream_.queued_bytes() == 0 && stream_.write(http1::serialize(r));
    if (written && r.keep_alive) return true;
    say_goodbye();
    return false;
}

void Connection::start_derp(const http1::Request& request) {
    if (!wants_fast_start(request)) stream_.write(switching_protocols(host_.key().public_key()));
    derp::ServerSessionConfig config;
    config.server_key = host_.key();
    config.write_timeout = host_.write_timeout();
    session_ = std::make_unique<derp::ServerSession>(host_.random(), std::move(config), host_.loop().now());
    http_.reset();
    phase_ = Phase::kLogin;
    pump();
}

void Connection::read_frames() {
    const Time now = host_.loop().now();
    while (phase_ == Phase::kLogin || phase_ == Phase::kOpen) {
        const derp::ServerEvent* event = session_->next_event(now);
        if (!event) break;
        handle(*event);
    }
    if (phase_ == Phase::kClosed) return;
    pump();
    host_.flush();
    arm();
}

void Connection::handle(const derp::ServerEvent& event) {
    using Kind = derp::ServerEvent::Kind;
    Relay& relay = host_.relay();
    if (phase_ == Phase::kOpen) relay.activity(id_);
    switch (event.kind) {
        case Kind::kLogin: check_client(); break;
        case Kind::kPacket: relay.packet(id_, event.key, event.packet, host_.loop().now()); break;
        case Kind::kNotePreferred: relay.note_preferred(id_, event.preferred); break;
        case Kind::kError: close(event.error.message()); break;
        case Kind::kForward:
        case Kind::kWatchConns:
        case Kind::kClosePeer:  // no mesh key is configured, so the session refuses these itself
        case Kind::kAlive: break;
    }
}

void Connection::check_client() {
    if (!host_.whois_socket()) return admit();
    phase_ = Phase::kChecking;
    stream_.set_reading(false);
    check_ = std::make_unique<WhoisCheck>(host_.loop(), *host_.whois_socket(), session_->key(), [this](Status verdict) {
        const std::unique_ptr<WhoisCheck> keep = std::move(check_);
        if (phase_ != Phase::kChecking) return;
        if (!verdict) {
            log::info("derp: {}: client {} rejected: {}", remote_.str(), session_->key().text(),
                      verdict.error().message());
            return close("");
        }
        stream_.set_reading(true);
        admit();
        read_frames();
    });
}

void Connection::admit() {
    const Time now = host_.loop().now();
    phase_ = Phase::kOpen;
    session_->accept(now);
    host_.relay().add(id_, *session_, remote_, now);
}

void Connection::pump() {
    if (!session_ || phase_ == Phase::kClosed) return;
    const Time now = host_.loop().now();
    while (unconfirmed_ == 0) {
        const ByteSpan bytes = session_->writable(now);
        if (bytes.empty()) break;
        const size_t n = bytes.size();
        if (!stream_.write(bytes)) return close("write queue is full");
        // The session's write deadline runs on what the kernel took, not on what waits in the stream.
        if (stream_.queued_bytes() > 0)
            unconfirmed_ = n;
        else
            session_->wrote(n, now);
    }
    arm();
}

void Connection::say_goodbye() {
    phase_ = Phase::kFarewell;
    http_deadline_ = host_.loop().now() + kFarewellTimeout;
    stream_.finish_writing();
    arm();
}

void Connection::close(const std::string& why) {
    if (phase_ == Phase::kClosed) return;
    if (!why.empty()) log::debug(1, "derp: {}: closed: {}", remote_.str(), why);
    if (phase_ == Phase::kOpen) host_.relay().remove(id_, host_.loop().now());
    phase_ = Phase::kClosed;
    check_.reset();
    timer_.cancel();
    stream_.close();
    host_.flush();
    host_.closed(id_);
}

void Connection::arm() {
    if (phase_ == Phase::kClosed) return;
    const Time want = session_ && phase_ != Phase::kFarewell ? session_->next_timeout() : http_deadline_;
    // A timer that fires too early does no harm; this saves re-arming it for every packet.
    if (!timer_.armed() || want < timer_.deadline()) timer_.set(want);
}

void Connection::on_timer() {
    const Time now = host_.loop().now();
    if (!session_ || phase_ == Phase::kFarewell) {
        if (now >= http_deadline_) return close("no request in 30 s");
        return arm();
    }
    session_->handle_timeout(now);
    if (session_->failed()) {
        const derp::ServerEvent* e = session_->next_event(now);
        return close(e ? e->error.message() : "");
    }
    pump();
}

}  // namespace mesh::derper
