// SPDX-License-Identifier: BSD-3-Clause
// The map side of ControlClient: the streaming poll, updates beside it, and pings that come with the map.
#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "tailscaled/control/client_core.h"

namespace mesh::control {
namespace {

constexpr size_t kMaxErrorBody = 200;
constexpr size_t kMaxPings = 16;
constexpr Duration kPingTimeout = seconds(15);

}  // namespace

MapRequest ControlClient::Core::map_request(const Facts& facts) const {
    MapRequest r;
    r.node_key = node_key();
    r.disco_key = facts.disco;
    r.hostinfo = facts.hostinfo;
    r.endpoints = facts.endpoints;
    return r;
}

void ControlClient::Core::start_map(DiscoPublic disco, std::vector<TypedEndpoint> endpoints, Hostinfo hostinfo) {
    facts_ = {disco, std::move(endpoints), std::move(hostinfo)};
    want_map_ = true;
    if (poll_.stream != 0) {
        if (connection_) connection_->cancel(poll_.stream);
        end_poll();
    }
    waiting_to_poll_ = false;
    poll_timer_.cancel();
    advance();
}

void ControlClient::Core::update(Hostinfo hostinfo, std::vector<TypedEndpoint> endpoints, DiscoPublic disco) {
    facts_ = {disco, std::move(endpoints), std::move(hostinfo)};
    advance();
}

// ---- poll

void ControlClient::Core::open_poll() {
    MapRequest r = map_request(facts_);
    r.stream = true;
    auto sent = connection_->send("POST", "/machine/map", {}, to_text(r), [this](H2Event& e) { on_poll_event(e); });
    if (!sent) return;
    poll_ = {};
    poll_.stream = *sent;
    poll_.sent = facts_;
    frames_ = std::make_shared<MapFrameReader>(MapFrameReader::Coding::kZstd);
    session_.begin_poll(loop_.now());
    watchdog_.set(session_.next_timeout());
}

/// Forgets the poll; the map stays.
void ControlClient::Core::end_poll() {
    poll_ = {};
    frames_.reset();
    watchdog_.cancel();
}

void ControlClient::Core::on_poll_event(H2Event& e) {
    const Alive alive = alive_;
    switch (e.kind) {
        case H2Event::Kind::kHeaders:
            poll_.status = e.status;
            if (e.status != 200) return;
            poll_.accepted = true;
            known_facts_ = poll_.sent;
            listener_.on_map_accepted();
            if (!alive.expired()) advance();
            return;
        case H2Event::Kind::kData: {
            if (!poll_.accepted) {
                if (poll_.error_body.size() < kMaxErrorBody) poll_.error_body += as_text(e.data);
                return;
            }
            // The callback may end this poll or this client: then nothing here may be touched any more.
            const std::shared_ptr<MapFrameReader> frames = frames_;
            const int32_t stream = poll_.stream;
            const Status s = frames->feed(e.data, [&](std::string_view json) -> Status {
                if (alive.expired() || poll_.stream != stream) return fail(Code::kUnavailable, "");
                return on_map_json(json);
            });
            if (alive.expired() || poll_.stream != stream) return;
            if (s) return;
            connection_->cancel(stream);
            end_poll();
            return poll_ended(s.error().message());
        }
        case H2Event::Kind::kEnd:
        case H2Event::Kind::kPong:
            return;
        case H2Event::Kind::kClose: {
            const int status = poll_.status;
            const std::string body = log::printable(poll_.error_body, kMaxErrorBody);
            const bool lost = e.error != 0 && !(connection_ && connection_->up());
            const bool refused = status != 200 && status != 0;
            if (lost && !refused) return;  // on_connection_down follows
            end_poll();
            if (refused) return poll_refused(status, body);
            return poll_ended("the server ended the map stream");
        }
    }
}

void ControlClient::Core::poll_ended(const std::string& why) {
    if (!logged_in_ || !want_map_) return;
    const Duration wait = poll_backoff_.next(random_);
    waiting_to_poll_ = true;
    poll_timer_.set_after(wait);
    // The first loss is everyday life (a server that restarts): it is reported when the next attempt fails too.
    if (poll_backoff_.failures() > 1)
        report(fmt::format("map of {}: {}; {}", config_.server_url, log::printable(why, 1024),
                           wait < seconds(1) ? "trying again now" : fmt::format("trying again in {} s", wait.millis() / 1000)));
    else
        log::info("control: map of {}: {}; connecting again", config_.server_url, log::printable(why, 1024));
}

void ControlClient::Core::poll_refused(int status, const std::string& text) {
    if (status == 404 && !login_) {
        // The server does not know this node: registering with the stored key shows what it thinks of it.
        log::info("control: {} does not know this node ({}): registering again", config_.server_url, text);
        login_.emplace();
        login_->node_key = try_key_ = node_key_;
        login_->old_node_key = try_old_key_ = old_node_key_;
        login_->hostinfo = facts_.hostinfo;
        try_key_is_new_ = replaced_expired_key_ = false;
        followup_.clear();
        relogin_ = forgotten_ = true;
    }
    poll_ended(fmt::format("HTTP status {}: {}", status, text));
    // No poll before the login is settled.
    advance();
}

Status ControlClient::Core::on_map_json(std::string_view json) {
    const Time now = loop_.now();
    TRY_ASSIGN(MapUpdate u, session_.handle_message(json, loop_.wall(), now));
    watchdog_.set(session_.next_timeout());
    if (u.exit_code) {
        listener_.on_exit_request(*u.exit_code);
        return fail(Code::kUnavailable, "the server asked this program to end");
    }
    if (u.sleep.ns > 0 && connection_) {
        watchdog_.set(session_.next_timeout() + u.sleep);
        connection_->pause(u.sleep);
    }
    const Alive alive = alive_;
    if (u.ping) {
        handle_ping(*u.ping);
        if (alive.expired()) return {};
    }
    if (!u.open_url.empty()) {
        listener_.on_open_browser(u.open_url);
        if (alive.expired()) return {};
    }
    if (!u.map) return {};
    poll_backoff_.reset();
    connect_backoff_.reset();
    poll_.has_map = true;
    if (!report("")) return {};
    listener_.on_netmap(std::move(u.map), u.changes);
    return {};
}

// ---- updates

void ControlClient::Core::send_update() {
    MapRequest r = map_request(facts_);
    r.omit_peers = true;
    r.compress_zstd = false;
    update_sent_ = facts_;
    auto sent = post("/machine/map", to_text(r), 64U << 10, [this](Result<Exchange> x) { update_answered(std::move(x)); });
    if (sent) update_stream_ = *sent;
}

void ControlClient::Core::update_answered(Result<Exchange> result) {
    update_stream_ = 0;
    if (result && result->status == 200) {
        known_facts_ = std::exchange(update_sent_, std::nullopt);
        update_backoff_.reset();
        const Alive alive = alive_;
        listener_.on_map_accepted();
        if (!alive.expired()) advance();
        return;
    }
    waiting_to_update_ = true;
    update_timer_.set_after(update_backoff_.next(random_));
    if (!result) return;
    const std::string why = fmt::format("an update was refused: HTTP status {}: {}", result->status, log::printable(result->body, kMaxErrorBody));
    log::info("control: {}", why);
    if (result->status != 404 || poll_.stream == 0) return;
    // A node that was deleted keeps its stream at some servers: a new one shows what the server thinks of us.
    connection_->cancel(poll_.stream);
    end_poll();
    poll_ended(why);
}

void ControlClient::Core::check_known() {
    known_facts_.reset();
    advance();
}

// ---- pings

void ControlClient::Core::handle_ping(const PingRequest& ping) {
    if (ping.types.empty()) return ping.url_is_noise ? post_to(ping, "") : head_ping(ping.url);
    if (ping.types == "c2n") return c2n_ping(ping);
    listener_.on_ping_request(ping);
}

/// The server only looks whether the request arrives (Headscale: a router that does not answer loses its routes).
void ControlClient::Core::head_ping(const std::string& url) {
    if (pings_.size() >= kMaxPings || !http1::parse_url(url)) return;
    platform::HttpRequest r;
    r.method = platform::HttpRequest::Method::kHead;
    r.url = url;
    r.timeout = kPingTimeout;
    const uint64_t id = next_ping_++;
    pings_[id] = http_.send(std::move(r), [this, id](Result<platform::HttpResponse>) { pings_.erase(id); });
}

/// Path and query of a URL that is to be asked over this connection.
std::string ControlClient::Core::noise_path(const std::string& url) const {
    const auto u = http1::parse_url(url);
    return u ? u->path : std::string();
}

void ControlClient::Core::post_to(const PingRequest& ping, std::string body) {
    if (!ping.url_is_noise && ping.types != "c2n") {
        if (pings_.size() >= kMaxPings || !http1::parse_url(ping.url)) return;
        platform::HttpRequest r;
        r.method = platform::HttpRequest::Method::kPost;
        r.url = ping.url;
        r.body = std::move(body);
        r.timeout = kPingTimeout;
        const uint64_t id = next_ping_++;
        pings_[id] = http_.send(std::move(r), [this, id](Result<platform::HttpResponse>) { pings_.erase(id); });
        return;
    }
    const std::string path = noise_path(ping.url);
    if (path.empty() || !connection_ || !connection_->up()) return;
    const bool head = ping.types.empty();
    (void)connection_->send(head ? "HEAD" : "POST", path, {}, std::move(body), [](H2Event&) {});
}

void ControlClient::Core::answer_ping(const PingRequest& ping, std::string json) { post_to(ping, std::move(json)); }

/// An HTTP request of the server to this client, carried in a ping. Only /echo is offered; everything else gets a clear no.
void ControlClient::Core::c2n_ping(const PingRequest& ping) {
    http1::Parser parser(http1::Role::kRequests, 64U << 10);
    http1::Response answer;
    if (!parser.feed(ping.payload) || !parser.done()) {
        answer.status = 400;
        answer.body = "malformed request\n";
    } else {
        const http1::Request request = parser.take_request();
        if (request.target == "/echo" && request.method == "POST") {
            answer.body = request.body;
        } else {
            answer.status = 404;
            answer.body = "unknown c2n path\n";
        }
    }
    answer.headers = {{"Content-Type", "text/plain; charset=utf-8"}};
    post_to(ping, http1::serialize(answer));
}

}  // namespace mesh::control
