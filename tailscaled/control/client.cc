// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/control/client.h"

#include <fmt/format.h>

#include <charconv>

#include "base/log.h"
#include "tailscaled/control/client_core.h"

namespace mesh::control {
namespace {

constexpr Duration kRecentDial = minutes(2);
constexpr Duration kRegisterTimeout = seconds(30);  // Headscale checks keys with bcrypt: up to a second each
constexpr Duration kLogoutTimeout = seconds(10);
constexpr WallTime kLongPast{123LL * 1'000'000'000};
constexpr size_t kMaxErrorBody = 200;

std::string wait_text(Duration d) {
    return d < seconds(1) ? std::string("trying again now") : fmt::format("trying again in {} s", d.millis() / 1000);
}

/// Seconds of Retry-After; 5 to 10 s when it is missing, a date, or beyond an hour.
Duration retry_after(const H2Headers& headers, Random& random) {
    for (const auto& [name, value] : headers) {
        int n = 0;
        if (name != "retry-after") continue;
        const auto r = std::from_chars(value.data(), value.data() + value.size(), n);
        if (r.ec == std::errc() && n > 0 && n <= 3600) return seconds(n);
    }
    return milliseconds(5000 + static_cast<int64_t>(random.below(5001)));
}

}  // namespace

ControlClient::ControlClient(platform::Loop& loop, platform::Dialer& dialer, platform::HttpClient& http, Random& random,
                             Config config, Listener& listener)
    : core_(std::make_unique<Core>(loop, dialer, http, random, std::move(config), listener)) {}
ControlClient::~ControlClient() = default;
void ControlClient::login(Login login) { core_->login(std::move(login)); }
void ControlClient::start_map(DiscoPublic disco, std::vector<TypedEndpoint> endpoints, Hostinfo hostinfo) {
    core_->start_map(disco, std::move(endpoints), std::move(hostinfo));
}
void ControlClient::update(Hostinfo hostinfo, std::vector<TypedEndpoint> endpoints, DiscoPublic disco) {
    core_->update(std::move(hostinfo), std::move(endpoints), disco);
}
void ControlClient::check_known() { core_->check_known(); }
void ControlClient::logout(std::function<void(Status)> done) { core_->logout(std::move(done)); }
void ControlClient::stop() { core_->stop(); }
void ControlClient::network_changed() { core_->network_changed(); }
void ControlClient::answer_ping(const PingRequest& ping, std::string json) { core_->answer_ping(ping, std::move(json)); }
bool ControlClient::connected() const { return core_->connected(); }
bool ControlClient::logged_in() const { return core_->logged_in(); }
NodePublic ControlClient::node_key() const { return core_->node_key(); }
const std::string& ControlClient::last_error() const { return core_->last_error(); }

ControlClient::Core::Core(platform::Loop& loop, platform::Dialer& dialer, platform::HttpClient& http, Random& random,
                          Config config, Listener& listener)
    : loop_(loop),
      dialer_(dialer),
      http_(http),
      random_(random),
      config_(std::move(config)),
      listener_(listener),
      url_(parse_control_url(config_.server_url)),
      connect_timer_(loop, [this] { waiting_to_connect_ = false; advance(); }),
      register_timer_(loop, [this] { waiting_to_register_ = false; advance(); }),
      register_deadline_(loop, [this] {
          if (connection_) connection_->cancel(std::exchange(register_stream_, 0));
          retry_register("no answer to the registration", register_backoff_.next(random_));
      }),
      poll_timer_(loop, [this] { waiting_to_poll_ = false; advance(); }),
      watchdog_(loop, [this] {
          end_poll();
          // Silence of two minutes means the connection, not only this poll.
          drop_connection();
          poll_ended("nothing came from the control server for 2 minutes");
      }),
      update_timer_(loop, [this] { waiting_to_update_ = false; advance(); }),
      logout_timer_(loop, [this] { finish_logout(fail(Code::kTimeout, "the control server did not answer")); }) {}

ControlClient::Core::~Core() = default;

// ---- connection

bool ControlClient::Core::wants_connection() const { return login_ || (logged_in_ && want_map_) || logout_done_; }

void ControlClient::Core::advance() {
    if (!wants_connection()) return;
    if (!connection_ || !connection_->up()) return ensure_connection();
    const Alive alive = alive_;
    if (logout_done_) {
        if (logout_stream_ != 0) return;
        RegisterRequest r;
        r.node_key = node_key();
        r.expiry = kLongPast;
        auto sent = post("/machine/register", to_text(r), kMaxRegisterResponse, [this](Result<Exchange> result) {
            logout_stream_ = 0;
            if (!result && !(connection_ && connection_->up())) return;  // tried again over a new connection
            if (!result) return finish_logout(tl::unexpected(result.error()));
            if (result->status != 200)
                return finish_logout(fail(Code::kUnavailable, fmt::format("HTTP status {}", result->status)));
            finish_logout({});
        });
        if (sent) logout_stream_ = *sent;
        return;
    }
    if (login_ && register_stream_ == 0 && !waiting_to_register_) start_register();
    if (alive.expired() || !logged_in_ || !want_map_ || !connection_ || !connection_->up()) return;
    if (poll_.stream == 0 && !waiting_to_poll_ && !forgotten_) open_poll();
    if (poll_.accepted && update_stream_ == 0 && !waiting_to_update_ &&
        !(known_facts_ && known_facts_->as_good_as(facts_)))
        send_update();
}

void ControlClient::Core::ensure_connection() {
    if (connection_ || key_call_ || waiting_to_connect_) return;
    if (!url_) {
        report(url_.error().message());
        return;
    }
    if (server_key_)
        dial();
    else
        fetch_key();
}

void ControlClient::Core::fetch_key() {
    platform::HttpRequest r;
    std::string_view prefix = url_->path;
    if (prefix.ends_with('/')) prefix.remove_suffix(1);
    r.url = fmt::format("{}://{}{}/key?v={}", url_->scheme, url_->authority(), prefix, kCapabilityVersion);
    r.max_body_bytes = 64U << 10;
    r.headers = {{"User-Agent", config_.user_agent}};
    key_call_ = http_.send(std::move(r), [this](Result<platform::HttpResponse> result) { key_fetched(std::move(result)); });
}

void ControlClient::Core::key_fetched(Result<platform::HttpResponse> result) {
    key_call_.reset();
    // http:// and https:// taken for each other is what people get wrong most often.
    const bool tls = url_->scheme == "https";
    const std::string other_scheme = fmt::format("; if the server is meant to be reached {}, use --login-server={}://{}",
                                                 tls ? "without TLS" : "by TLS", tls ? "http" : "https", url_->authority());
    if (!result) {
        Error why = std::move(result.error());
        if (why.code == Code::kUnsupported) why.context += other_scheme;
        return connection_failed(std::move(why).with("cannot reach the control server"));
    }
    const std::string base = fmt::format("{}://{}", url_->scheme, url_->authority());
    if (result->status != 200) {
        // What the usual servers say to plain HTTP on a TLS port.
        const bool wants_tls = !tls && result->status == 400 && result->body.find("HTTPS") != std::string::npos;
        return connection_failed({Code::kUnsupported, 0,
                                  fmt::format("{} is not a control server, or does not work: GET /key gave HTTP status {}{}",
                                              base, result->status, wants_tls ? other_scheme : "")});
    }
    const auto key = parse_server_key(result->body);
    if (!key)
        return connection_failed({Code::kUnsupported, 0, fmt::format("{}: {}; check the address", base,
                                                                     key.error().message())});
    if (known_key_ && *known_key_ != *key)
        log::info("control: {} has another key now{}", base,
                  url_->scheme == "https" ? "" : ", and nothing but the network vouches for it (plain http)");
    known_key_ = server_key_ = *key;
    advance();
}

void ControlClient::Core::dial() {
    const Time now = loop_.now();
    Connection::Config c;
    c.url = *url_;
    c.server_key = *server_key_;
    c.machine_key = config_.machine_key;
    c.user_agent = config_.user_agent;
    c.recently_dialled = !last_dial_.is_zero() && now - last_dial_ < kRecentDial;
    connection_ = std::make_unique<Connection>(loop_, dialer_, random_, std::move(c), *this);
}

void ControlClient::Core::on_connection_up() {
    last_dial_ = loop_.now();
    advance();
}

void ControlClient::Core::on_connection_down(const Error& why, bool wrong_key) {
    const bool was_polling = poll_.has_map;
    const Error error = why;
    drop_connection();
    if (wrong_key) server_key_.reset();
    if (was_polling) return poll_ended(error.message());
    connection_failed(Error(error).with(fmt::format("cannot connect to the control server at {}", config_.server_url)));
}

void ControlClient::Core::connection_failed(const Error& why) {
    if (!wants_connection()) return;
    const Duration wait = connect_backoff_.next(random_);
    waiting_to_connect_ = true;
    connect_timer_.set_after(wait);
    report(fmt::format("{}; {}", log::printable(why.message(), 1024), wait_text(wait)));
}

void ControlClient::Core::drop_connection() {
    key_call_.reset();
    connection_.reset();
    register_stream_ = 0;
    logout_stream_ = 0;
    update_stream_ = 0;
    register_deadline_.cancel();
    end_poll();
}

bool ControlClient::Core::report(std::string text) {
    if (text == last_error_) return true;
    last_error_ = std::move(text);
    if (!last_error_.empty()) log::info("control: {}", last_error_);
    const Alive alive = alive_;
    listener_.on_control_error(last_error_);
    return !alive.expired();
}

void ControlClient::Core::network_changed() {
    connect_backoff_.reset();
    register_backoff_.reset();
    poll_backoff_.reset();
    update_backoff_.reset();
    last_dial_ = {};
    if (connection_ && connection_->up() && !connection_->stranded())
        connection_->probe();
    else if (connection_)
        drop_connection();  // over the old network
    for (auto [timer, flag] : {std::pair{&connect_timer_, &waiting_to_connect_}, std::pair{&poll_timer_, &waiting_to_poll_},
                               std::pair{&update_timer_, &waiting_to_update_}}) {
        timer->cancel();
        *flag = false;
    }
    advance();
}

Result<int32_t> ControlClient::Core::post(const std::string& path, std::string body, size_t limit, Answer answer) {
    auto x = std::make_shared<Exchange>();
    return connection_->send("POST", path, {}, std::move(body), [x, limit, answer = std::move(answer), this](H2Event& e) {
        switch (e.kind) {
            case H2Event::Kind::kHeaders:
                x->stream = e.stream;
                x->status = e.status;
                x->headers = std::move(e.headers);
                break;
            case H2Event::Kind::kData:
                if (x->body.size() + e.data.size() <= limit) {
                    x->body += as_text(e.data);
                    break;
                }
                connection_->cancel(e.stream);
                return answer(fail(Code::kLimit, "the answer is too long"));
            case H2Event::Kind::kEnd:
            case H2Event::Kind::kPong:
                break;
            case H2Event::Kind::kClose:
                if (e.error != 0 || x->status == 0) return answer(fail(Code::kUnavailable, "the connection was lost"));
                answer(std::move(*x));
                break;
        }
    });
}

// ---- login

void ControlClient::Core::login(Login login) {
    if (connection_) connection_->cancel(std::exchange(register_stream_, 0));
    register_deadline_.cancel();
    register_timer_.cancel();
    waiting_to_register_ = false;
    register_backoff_.reset();
    followup_.clear();
    replaced_expired_key_ = false;
    relogin_ = false;
    const bool fresh = login.node_key.is_zero() || login.interactive;
    try_key_ = fresh ? NodePrivate::generate(random_) : login.node_key;
    try_old_key_ = fresh ? login.node_key : login.old_node_key;
    try_key_is_new_ = fresh;
    login_hostinfo_ = login.hostinfo;
    login_ = std::move(login);
    waiting_to_connect_ = false;
    connect_timer_.cancel();
    advance();
}

void ControlClient::Core::start_register() {
    RegisterRequest r;
    r.node_key = try_key_.public_key();
    if (!try_old_key_.is_zero()) r.old_node_key = try_old_key_.public_key();
    r.followup = followup_;
    if (followup_.empty()) r.auth_key = login_->auth_key;
    r.hostinfo = login_->hostinfo;
    r.ephemeral = login_->ephemeral;
    auto sent = post("/machine/register", to_text(r), kMaxRegisterResponse,
                     [this](Result<Exchange> result) { registered(std::move(result)); });
    if (!sent) return;
    register_stream_ = *sent;
    if (followup_.empty()) register_deadline_.set_after(kRegisterTimeout);
}

void ControlClient::Core::retry_register(const std::string& why, Duration wait) {
    waiting_to_register_ = true;
    register_timer_.set_after(wait);
    report(fmt::format("login at {}: {}; {}", config_.server_url, why, wait_text(wait)));
}

void ControlClient::Core::register_failed(const std::string& text) {
    // With a stored key the refusal may be a passing trouble of the server; nobody sits there to try again.
    if (login_->auth_key.empty() && !login_->interactive && followup_.empty() && !try_key_is_new_)
        retry_register(text, register_backoff_.next(random_) + seconds(1));
    else
        login_.reset();
    listener_.on_login_error(text);
}

void ControlClient::Core::registered(Result<Exchange> result) {
    register_stream_ = 0;
    register_deadline_.cancel();
    if (!login_) return;
    if (!result) {
        // The connection tells its own trouble; only a stream that failed alone needs a retry from here.
        if (connection_ && connection_->up()) retry_register(result.error().message(), register_backoff_.next(random_));
        return;
    }
    connect_backoff_.reset();
    if (result->status == 429) return retry_register("too many requests", retry_after(result->headers, random_));
    if (result->status != 200)
        return retry_register(fmt::format("HTTP status {}: {}", result->status,
                                          log::printable(result->body, kMaxErrorBody)),
                              register_backoff_.next(random_));
    const auto parsed = parse_register_response(result->body);
    if (!parsed) return retry_register(parsed.error().message(), register_backoff_.next(random_));
    if (!parsed->error.empty()) return register_failed(log::printable(parsed->error, 1024));
    if (parsed->node_key_expired) {
        if (try_key_is_new_ || replaced_expired_key_) return register_failed("the server says that a new key is expired");
        replaced_expired_key_ = try_key_is_new_ = true;
        try_old_key_ = try_key_;
        try_key_ = NodePrivate::generate(random_);
        return advance();
    }
    if (parsed->auth_url.empty()) return login_succeeded(*parsed);

    if (!is_web_url(parsed->auth_url)) return register_failed("the server sent a login address that is not a web address");
    const bool repeated = followup_ == parsed->auth_url;
    followup_ = parsed->auth_url;
    const Alive alive = alive_;
    if (!report("")) return;
    if (repeated) {
        waiting_to_register_ = true;
        register_timer_.set_after(register_backoff_.next(random_));
        return;
    }
    if (relogin_) {
        relogin_ = false;
        listener_.on_needs_login();
        if (alive.expired() || followup_ != parsed->auth_url) return;  // it may have begun another login
    }
    listener_.on_auth_url(followup_);
    if (!alive.expired()) advance();
}

void ControlClient::Core::login_succeeded(const RegisterResponse& r) {
    const bool same_key = logged_in_ && node_key_ == try_key_;
    node_key_ = try_key_;
    old_node_key_ = try_old_key_;
    login_.reset();
    logged_in_ = true;
    forgotten_ = relogin_ = false;
    register_backoff_.reset();
    if (!same_key && poll_.stream != 0) {
        if (connection_) connection_->cancel(poll_.stream);
        end_poll();
    }
    known_facts_.reset();
    LoggedIn in;
    in.node_key = node_key_;
    in.old_node_key = old_node_key_;
    in.user = r.user;
    in.machine_authorized = r.machine_authorized;
    if (!report("")) return;
    const Alive alive = alive_;
    listener_.on_logged_in(in);
    if (!alive.expired()) advance();
}

// ---- logout, stop

void ControlClient::Core::logout(std::function<void(Status)> done) {
    if (logout_done_) return done(fail(Code::kUnavailable, "a logout is under way"));
    if (node_key_.is_zero()) {
        stop();
        return done({});
    }
    login_.reset();
    want_map_ = false;
    if (connection_) {
        connection_->cancel(std::exchange(register_stream_, 0));
        connection_->cancel(std::exchange(poll_.stream, 0));
    }
    end_poll();
    logout_done_ = std::move(done);
    logout_timer_.set_after(kLogoutTimeout);
    waiting_to_connect_ = false;
    connect_timer_.cancel();
    advance();
}

void ControlClient::Core::finish_logout(Status s) {
    const auto done = std::exchange(logout_done_, nullptr);
    if (!done) return;
    logged_in_ = false;
    node_key_ = old_node_key_ = {};
    session_.reset();
    stop();
    done(std::move(s));
}

void ControlClient::Core::stop() {
    login_.reset();
    want_map_ = false;
    followup_.clear();
    drop_connection();
    pings_.clear();
    for (platform::Timer* t : {&connect_timer_, &register_timer_, &poll_timer_, &update_timer_, &logout_timer_}) t->cancel();
    waiting_to_connect_ = waiting_to_register_ = waiting_to_poll_ = waiting_to_update_ = false;
    connect_backoff_.reset();
    register_backoff_.reset();
    poll_backoff_.reset();
    update_backoff_.reset();
    last_error_.clear();
    logout_done_ = nullptr;
}

}  // namespace mesh::control
