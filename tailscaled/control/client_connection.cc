// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/control/client_connection.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "tailscaled/control/control.h"

namespace mesh::control {
namespace {

constexpr Duration kSecondAttemptDelay = milliseconds(500);
constexpr Duration kProbeTimeout = seconds(5);

std::string describe(const http1::Url& url, const UpgradeTarget& t) {
    http1::Url at = url;
    at.scheme = t.tls ? "https" : "http";
    at.port = t.port;
    return fmt::format("{}://{}", at.scheme, at.authority());
}

}  // namespace

/// One way to /ts2021, from dial to handshake.
class Connection::Attempt : private platform::ByteStream::Listener {
   public:
    Attempt(Connection& owner, const UpgradeTarget& target)
        : owner_(owner), target_(target), where_(describe(owner.config_.url, target)) {}

    void start() {
        platform::DialOptions options;
        options.timeout = owner_.config_.timeout;
        if (target_.tls) {
            options.tls.emplace();
            // The Noise handshake tells who the server is; a certificate that does not is worth a line in the log.
            options.tls->verify = platform::TlsVerify::kWarn;
        }
        dial_ = owner_.dialer_.dial(owner_.config_.url.host, target_.port, std::move(options),
                                    [this](Result<platform::ByteStream> r) { dialled(std::move(r)); });
    }
    [[nodiscard]] const std::string& where() const { return where_; }
    [[nodiscard]] uint16_t port() const { return target_.port; }
    [[nodiscard]] bool upgraded() const { return reader_ && reader_->upgraded(); }
    [[nodiscard]] platform::ByteStream take_stream() {
        stream_.detach();
        return std::move(stream_);
    }
    [[nodiscard]] ByteSpan rest() const { return reader_->rest(); }

   private:
    void dialled(Result<platform::ByteStream> result) {
        if (!result) return owner_.attempt_done(*this, tl::unexpected(std::move(result.error())));
        stream_ = std::move(*result);
        if (stream_.tls() && !stream_.tls()->certificate_problem().empty())
            log::info("control: {}: {} (goes on: the server is known by its key)", where_,
                      log::printable(stream_.tls()->certificate_problem()));
        NoiseInitiator noise(owner_.config_.machine_key, owner_.config_.server_key, kVersion);
        const auto initiation = noise.start(owner_.random_);
        if (!initiation) return owner_.attempt_done(*this, tl::unexpected(initiation.error()));
        reader_.emplace(std::move(noise));
        stream_.attach(owner_.loop_, *this);
        stream_.write(upgrade_request(owner_.config_.url, target_, *initiation, owner_.config_.user_agent));
    }
    void on_bytes(MutByteSpan bytes) override {
        auto r = reader_->feed(bytes);
        if (!r) return owner_.attempt_done(*this, tl::unexpected(std::move(r.error())));
        if (*r) owner_.attempt_done(*this, **r);
    }
    void on_closed(const Status& why) override {
        const char* text = upgraded() ? "the server closed the connection instead of finishing the handshake (it has "
                                        "another key by now, or does not accept this version)"
                                      : "the server closed the connection";
        if (why)
            owner_.attempt_done(*this, fail(Code::kUnavailable, text));
        else
            owner_.attempt_done(*this, tl::unexpected(Error(why.error())));
    }

    static constexpr int kVersion = kCapabilityVersion;
    Connection& owner_;
    UpgradeTarget target_;
    std::string where_;
    std::optional<UpgradeReader> reader_;
    std::unique_ptr<platform::Dial> dial_;
    platform::ByteStream stream_;
};

Connection::Connection(platform::Loop& loop, platform::Dialer& dialer, Random& random, Config config, Owner& owner)
    : loop_(loop),
      dialer_(dialer),
      random_(random),
      config_(std::move(config)),
      owner_(owner),
      targets_(upgrade_targets(config_.url, config_.recently_dialled)),
      next_attempt_timer_(loop, [this] { start_next_attempt(); }),
      deadline_timer_(loop,
                      [this] {
                          if (up()) return go_down({Code::kTimeout, 0, "the server does not answer any more"}, false);
                          failures_ += fmt::format("{}no answer within {} s", failures_.empty() ? "" : "; ",
                                                   config_.timeout.millis() / 1000);
                          go_down({Code::kTimeout, 0, failures_}, wrong_key_);
                      }),
      resume_timer_(loop, [this] { stream_.set_reading(true); }) {
    deadline_timer_.set_after(config_.timeout);
    start_next_attempt();
}

Connection::~Connection() = default;

void Connection::start_next_attempt() {
    if (next_target_ == targets_.size()) return;
    attempts_.push_back(std::make_unique<Attempt>(*this, targets_[next_target_++]));
    attempts_.back()->start();
    if (next_target_ < targets_.size()) next_attempt_timer_.set_after(kSecondAttemptDelay);
}

void Connection::attempt_done(Attempt& attempt, Result<NoiseKeys> result) {
    if (result) {
        platform::ByteStream stream = attempt.take_stream();
        const Bytes rest = to_bytes(attempt.rest());
        next_attempt_timer_.cancel();
        attempts_.clear();
        return become_up(std::move(stream), *result, rest);
    }
    // A server that took the upgrade and then refused is the control server; others may be anything on that port.
    wrong_key_ |= attempt.upgraded();
    // The dialer names the address too; once is enough, and with a single way there is nothing to tell apart.
    std::string cause = result.error().message();
    const std::string dialled = fmt::format("{}:{}: ", config_.url.host, attempt.port());
    if (cause.starts_with(dialled)) cause.erase(0, dialled.size());
    if (!failures_.empty()) failures_ += "; ";
    failures_ += targets_.size() > 1 ? fmt::format("{}: {}", attempt.where(), cause) : cause;
    std::erase_if(attempts_, [&](const auto& a) { return a.get() == &attempt; });
    if (next_target_ < targets_.size()) return start_next_attempt();
    if (attempts_.empty()) go_down({result.error().code, 0, failures_}, wrong_key_);
}

void Connection::become_up(platform::ByteStream stream, const NoiseKeys& keys, ByteSpan rest) {
    deadline_timer_.cancel();
    noise_ = std::make_unique<NoiseStream>(keys);
    h2_ = std::make_unique<H2Session>(H2Session::Role::kClient);
    stream_ = std::move(stream);
    stream_.unread(rest);
    stream_.attach(loop_, *this);
    const std::weak_ptr<char> alive = alive_;
    flush();
    if (alive.expired() || !up()) return;
    owner_.on_connection_up();
}

void Connection::go_down(Error why, bool wrong_key) {
    attempts_.clear();
    next_attempt_timer_.cancel();
    deadline_timer_.cancel();
    resume_timer_.cancel();
    stream_.close();
    h2_.reset();
    const std::weak_ptr<char> alive = alive_;
    while (!streams_.empty()) {
        const auto node = streams_.extract(streams_.begin());
        H2Event e;
        e.kind = H2Event::Kind::kClose;
        e.stream = node.key();
        e.error = 2;  // INTERNAL_ERROR: any value but 0
        node.mapped()(e);
        if (alive.expired()) return;
    }
    owner_.on_connection_down(why, wrong_key);
}

Result<int32_t> Connection::send(std::string_view method, std::string_view path, const H2Headers& headers,
                                 std::string body, StreamCallback callback) {
    if (!up()) return fail(Code::kUnavailable, "not connected to the control server");
    TRY_ASSIGN(const int32_t id, h2_->request(method, config_.url.authority(), path, headers, std::move(body)));
    streams_.emplace(id, std::move(callback));
    flush();
    return id;
}

void Connection::cancel(int32_t stream) {
    if (streams_.erase(stream) == 0 || !up()) return;
    h2_->reset(stream);
    flush();
}

void Connection::probe() {
    if (!up()) return;
    h2_->ping();
    deadline_timer_.set_after(kProbeTimeout);
    flush();
}

void Connection::pause(Duration d) {
    if (!up()) return;
    stream_.set_reading(false);
    resume_timer_.set_after(d);
}

/// Everything HTTP/2 wants to send goes out. Failure is told by the loop, not from inside a call of the owner.
void Connection::flush() {
    if (!up()) return;
    Bytes plain, wire;
    Status s = h2_->take_output(plain);
    if (s) s = noise_->seal(plain, wire);
    if (s && !wire.empty() && !stream_.write(wire)) s = fail(Code::kLimit, "too much waits to be sent to the control server");
    if (!s) {
        const std::weak_ptr<char> alive = alive_;
        loop_.post([this, alive, error = s.error()] {
            if (!alive.expired() && up()) go_down(error, false);
        });
    }
}

void Connection::on_bytes(MutByteSpan bytes) {
    Bytes plain, http2;
    Status s = noise_->open(bytes, plain);
    if (s) s = early_.feed(plain, http2);
    if (s) s = h2_->receive(http2);
    if (!s) return go_down(s.error(), false);
    drain_events();
}

void Connection::drain_events() {
    if (draining_) return;
    draining_ = true;
    const std::weak_ptr<char> alive = alive_;
    H2Event e;
    while (up() && h2_->next_event(e)) {
        if (e.kind == H2Event::Kind::kPong) {
            deadline_timer_.cancel();
            continue;
        }
        const auto it = streams_.find(e.stream);
        if (it == streams_.end()) continue;
        if (e.kind == H2Event::Kind::kClose) {
            const StreamCallback last = std::move(it->second);
            streams_.erase(it);
            last(e);
        } else {
            // A copy: the callback may cancel its own stream.
            const StreamCallback callback = it->second;
            callback(e);
        }
        if (alive.expired()) return;
    }
    draining_ = false;
    if (!up()) return;
    flush();
    if (h2_->finished()) go_down({Code::kUnavailable, 0, "the server ended the connection"}, false);
}

void Connection::on_closed(const Status& why) {
    go_down(why ? Error{Code::kUnavailable, 0, "the server closed the connection"} : why.error(), false);
}

}  // namespace mesh::control
