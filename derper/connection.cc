// SPDX-License-Identifier: BSD-3-Clause
#include "derper/connection.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace mesh::derper {
namespace {

constexpr Duration kHttpTimeout = seconds(30);
constexpr Duration kFarewellTimeout = seconds(5);
constexpr size_t kMaxBody = 16U << 10;
constexpr Duration kMeshWriteTimeout = seconds(30);

void tune(int fd, const Patience& patience) {
    const auto set = [fd](int level, int name, int value) { (void)setsockopt(fd, level, name, &value, sizeof value); };
    set(IPPROTO_TCP, TCP_NODELAY, 1);
    set(SOL_SOCKET, SO_KEEPALIVE, 1);
    const auto bounded = [](int64_t v) { return static_cast<int>(std::clamp<int64_t>(v, 1, 1 << 30)); };
    set(IPPROTO_TCP, TCP_KEEPIDLE, bounded(std::min<int64_t>(patience.keepalive_time.millis() / 1000, 32767)));
    set(IPPROTO_TCP, TCP_USER_TIMEOUT, patience.user_timeout.ns > 0 ? bounded(patience.user_timeout.millis()) : 0);
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
    tune(stream_.fd(), host.patience());
    stream_.attach(host_.loop(), *this);
    arm();
}

Connection::Connection(ConnectionHost& host, MovingClient client)
    : host_(host),
      id_(client.id),
      service_(Service::kDerp),
      not_ideal_(client.not_ideal),
      remote_(client.remote),
      phase_(Phase::kMoving),
      session_(std::move(client.session)),
      websocket_(std::move(client.websocket)),
      unconfirmed_(client.unconfirmed),
      timer_(host.loop(), [this] { on_timer(); }),
      stream_(std::move(client.stream)) {}

void Connection::begin() {
    stream_.attach(host_.loop(), *this);
    admit();
    read_frames();
}

Connection::~Connection() {
    if (phase_ == Phase::kOpen) host_.relay().remove(id_, host_.loop().now());
}

void Connection::on_bytes(MutByteSpan bytes) {
    switch (phase_) {
        case Phase::kHttp: read_http(bytes); break;
        case Phase::kLogin:
        case Phase::kOpen: feed_stream(bytes); break;
        case Phase::kChecking: feed_stream(bytes); break;  // what was under way when reading was stopped
        case Phase::kMoving:
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

void Connection::feed_stream(MutByteSpan bytes) {
    if (websocket_)
        feed_websocket(bytes);
    else
        session_->lend(bytes);
    if (phase_ == Phase::kLogin || phase_ == Phase::kOpen) {
        charge(bytes.size());
        read_frames();
    }
    session_->settle();
    if (phase_ == Phase::kMoving) move_out();
}

void Connection::feed_websocket(MutByteSpan bytes) {
    using Event = WebSocketReader::Event;
    for (;;) {
        switch (websocket_->next(bytes)) {
            case Event::kNeedMore: return;
            case Event::kData: session_->feed(websocket_->data()); break;
            case Event::kReply:
                // A client that asks and asks without reading the answers is not served further.
                if (stream_.queued_bytes() < kMaxBody) stream_.write(websocket_->reply());
                break;
            case Event::kClose:
            case Event::kError:
                if (phase_ == Phase::kOpen) host_.relay().remove(id_, host_.loop().now());
                check_.reset();
                stream_.write(websocket_->reply());
                say_goodbye();
                return host_.flush_soon();
        }
    }
}

void Connection::charge(size_t bytes) {
    if (phase_ != Phase::kOpen || session_->is_mesh_peer()) return;
    const Time now = host_.loop().now();
    Time free = host_.shared_bucket().take(static_cast<double>(bytes), now);
    if (bucket_) {
        bucket_->take(static_cast<double>(bytes), now);
        free = max(free, bucket_->free_at(now));
    }
    if (free <= now) return;
    resume_at_ = free;
    stream_.set_reading(false);
}

void Connection::rate_changed() {
    if (phase_ != Phase::kOpen || session_->is_mesh_peer()) return;
    const Time now = host_.loop().now();
    const RateLimit& rate = host_.client_rate();
    if (rate.bytes_per_second <= 0)
        bucket_.reset();
    else if (bucket_)
        bucket_->set(rate.bytes_per_second, rate.burst_bytes, now);
    else
        bucket_.emplace(rate.bytes_per_second, rate.burst_bytes, now);
    if (resume_at_.is_never()) return;
    resume_at_ = bucket_ ? bucket_->free_at(now) : now;
    arm();
}

void Connection::resume() {
    if (resume_at_.is_never() && !waits_for_room_) stream_.set_reading(true);
}

void Connection::room() {
    waits_for_room_ = false;
    if (phase_ == Phase::kOpen) resume();
}

void Connection::read_http(MutByteSpan bytes) {
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
    if (session_ && phase_ == Phase::kLogin) feed_stream(bytes);
}

bool Connection::answer(const http1::Request& request) {
    const Asker who = real_client(request, remote_.addr, host_.door().trusted_proxies());
    const bool is_derp = service_ == Service::kDerp && request.method == "GET" && path_of(request) == "/derp";
    http1::Response r;
    if (service_ == Service::kPort80) {
        r = answer_port_80(request);
    } else if (!is_derp) {
        r = host_.door().page(request, who);
    } else if (!host_.door().serves_derp()) {
        r = text_page(404, "derp server disabled\n");
    } else {
        const Upgrade upgrade = wanted_upgrade(request);
        if (who.addr != remote_.addr) remote_ = {who.addr, 0};
        if (upgrade != Upgrade::kNone && start_derp(request, upgrade)) return false;
        r = refusal(upgrade);
    }
    r.keep_alive = request.keep_alive;
    // A client that asks and asks without reading the answers is not served further.
    const bool written = stream_.queued_bytes() == 0 && stream_.write(http1::serialize(r));
    if (written && r.keep_alive) return true;
    say_goodbye();
    return false;
}

bool Connection::start_derp(const http1::Request& request, Upgrade upgrade) {
    if (upgrade == Upgrade::kWebSocket) {
        const std::string head = websocket_accept(request);
        if (head.empty()) return false;
        stream_.write(head);
        websocket_ = std::make_unique<WebSocketReader>();
        host_.door().count_websocket();
    } else if (!wants_fast_start(request)) {
        stream_.write(switching_protocols(host_.door().key().public_key()));
    }
    derp::ServerSessionConfig config;
    config.server_key = host_.door().key();
    config.mesh_key = host_.door().mesh_key();
    config.write_timeout = host_.patience().write_timeout;
    session_ = std::make_unique<derp::ServerSession>(host_.random(), std::move(config), host_.loop().now());
    not_ideal_ = request.has_header("Ideal-Node");
    http_.reset();
    phase_ = Phase::kLogin;
    pump();
    return true;
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
    host_.flush_soon();
    if (phase_ != Phase::kOpen || !host_.must_wait(id_)) return;
    waits_for_room_ = true;
    stream_.set_reading(false);
}

void Connection::handle(const derp::ServerEvent& event) {
    using Kind = derp::ServerEvent::Kind;
    Relay& relay = host_.relay();
    const auto write_if_full = [this](ConnId full) {
        if (full != 0) host_.write_now(full);
    };
    if (phase_ == Phase::kOpen && event.kind != Kind::kPacket) relay.activity(id_);
    switch (event.kind) {
        case Kind::kLogin: check_client(); break;
        case Kind::kPacket: write_if_full(relay.packet(id_, event.key, event.packet, host_.loop().now())); break;
        case Kind::kNotePreferred: relay.note_preferred(id_, event.preferred); break;
        case Kind::kError: close(event.error->message()); break;
        // The session lets these three pass for mesh peers only.
        case Kind::kForward: write_if_full(relay.forwarded(event.source, event.key, event.packet, host_.loop().now())); break;
        case Kind::kWatchConns: relay.watch(id_, host_.loop().now()); break;
        case Kind::kClosePeer: host_.close_peer(event.key); break;
        case Kind::kAlive: break;
    }
}

void Connection::check_client() {
    // Who has the mesh key is one of us.
    if (host_.door().admission().admits_all() || session_->is_mesh_peer()) return let_in();
    phase_ = Phase::kChecking;
    stream_.set_reading(false);
    check_ = std::make_unique<Admission>(
        host_.loop(), host_.door().http_client(), host_.door().admission(), session_->key(), remote_.addr, [this](Status verdict) {
            const std::unique_ptr<Admission> keep = std::move(check_);
            if (phase_ != Phase::kChecking) return;
            if (!verdict) {
                host_.door().count_rejected();
                log::info("derp: {}: client {} rejected: {}", remote_.str(), session_->key().text(),
                          verdict.error().message());
                return close("");
            }
            stream_.set_reading(true);
            let_in();
            read_frames();
            if (phase_ == Phase::kMoving) move_out();
        });
}

void Connection::let_in() {
    host_.door().logged_in(id_);
    if (session_->is_mesh_peer() || host_.is_home(session_->key())) return admit();
    phase_ = Phase::kMoving;  // once nobody up the stack works on these bytes
}

void Connection::move_out() {
    phase_ = Phase::kClosed;
    timer_.cancel();
    stream_.detach();
    host_.move_out({.id = id_,
                    .remote = remote_,
                    .not_ideal = not_ideal_,
                    .unconfirmed = unconfirmed_,
                    .session = std::move(session_),
                    .websocket = std::move(websocket_),
                    .stream = std::move(stream_)});
}

void Connection::admit() {
    const Time now = host_.loop().now();
    phase_ = Phase::kOpen;
    if (session_->is_mesh_peer() && host_.patience().write_timeout.ns > 0) session_->set_write_timeout(kMeshWriteTimeout);
    session_->accept(now);
    host_.relay().add(id_, *session_, remote_, now, not_ideal_);
    rate_changed();
}

void Connection::pump() {
    if (!session_ || phase_ == Phase::kClosed || phase_ == Phase::kFarewell) return;
    const Time now = host_.loop().now();
    while (unconfirmed_ == 0) {
        const ByteSpan bytes = session_->writable(now);
        if (bytes.empty()) break;
        const size_t n = bytes.size();
        if (websocket_) {
            Bytes head;
            put_websocket_header(head, n);
            stream_.write_later(head);
        }
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

void Connection::leave(Duration reconnect_in, Duration try_for) {
    if (phase_ == Phase::kFarewell || phase_ == Phase::kClosed) return;
    if (phase_ != Phase::kOpen) return close("");
    session_->restarting(reconnect_in, try_for, host_.loop().now());
    pump();
    if (phase_ != Phase::kOpen) return;
    host_.relay().remove(id_, host_.loop().now());
    if (websocket_) stream_.write_later(websocket_goodbye());
    say_goodbye();
}

void Connection::close(const std::string& why) {
    if (phase_ == Phase::kClosed) return;
    if (!why.empty()) log::debug(1, "derp: {}: closed: {}", remote_.str(), why);
    if (phase_ == Phase::kOpen) host_.relay().remove(id_, host_.loop().now());
    phase_ = Phase::kClosed;
    if (session_) {
        derp::ServerSessionStats last = session_->stats();
        last.dropped_gone = session_->waiting();
        host_.count_session(last);
    }
    check_.reset();
    timer_.cancel();
    stream_.close();
    host_.flush_soon();
    host_.closed(id_);
}

void Connection::arm() {
    if (phase_ == Phase::kClosed) return;
    const Time want =
        session_ && phase_ != Phase::kFarewell ? min(session_->next_timeout(), resume_at_) : http_deadline_;
    // A timer that fires too early does no harm; this saves re-arming it for every packet.
    if (!timer_.armed() || want < timer_.deadline()) timer_.set(want);
}

void Connection::on_timer() {
    const Time now = host_.loop().now();
    if (!session_ || phase_ == Phase::kFarewell) {
        if (now >= http_deadline_) return close("no request in 30 s");
        return arm();
    }
    if (now >= resume_at_) {
        resume_at_ = Time::never();
        resume();
    }
    session_->handle_timeout(now);
    if (session_->failed()) {
        const derp::ServerEvent* e = session_->next_event(now);
        return close(e ? e->error->message() : "");
    }
    pump();
}

}  // namespace mesh::derper
