// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/localapi/session.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <ctime>
#include <limits>

#include "base/log.h"
#include "tailscaled/localapi/handlers.h"

namespace mesh::localapi {
namespace {

constexpr std::string_view kBusPath = "/localapi/v0/watch-ipn-bus";
constexpr std::string_view kDialPath = "/localapi/v0/dial";
constexpr std::string_view kFilesPath = "/localapi/v0/files/";
constexpr std::string_view kPutFile = "PUT /localapi/v0/file-put/";
constexpr std::string_view kHost = "local-tailscaled.sock";

/// IMF-fixdate (RFC 9110 section 5.6.7).
std::string http_date(WallTime wall) {
    const std::time_t t = wall.unix_ns / 1'000'000'000;
    std::tm tm{};
    gmtime_r(&t, &tm);
    static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                              "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    return fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT", kDays[tm.tm_wday], tm.tm_mday, kMonths[tm.tm_mon],
                       tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

/// A web page must not reach the daemon: neither by a name that resolves to it nor by a proxy that forwards to the
/// socket. Programs that mean the daemon say so in Host and send no Origin or Referer.
bool is_from_program(const http1::Request& r) {
    const std::string_view host = r.header("Host");
    return (host.empty() || host == kHost) && !r.has_header("Origin") && !r.has_header("Referer");
}

std::string session_id(Random& random) {
    std::array<uint8_t, 8> id{};
    random.fill(id);
    return hex_encode(id);
}

std::string reason_of(const http1::Request& r) {
    const auto raw = base64_decode(r.header("X-Tailscale-Reason"));
    return raw ? log::printable(as_text(*raw)) : std::string();
}

}  // namespace

struct Session::Token {
    Session* session;  // nullptr once the session is gone
};

BusMessage::BusMessage(api::Notify notify) {
    // Watchers learn peers from PeersChanged; a whole netmap is only part of a first message.
    notify.net_map_json.clear();
    notify.initial_status_json.clear();
    if (!notify.empty()) with_peers = http1::chunk(api::notify_json(notify) + "\n");
    if (notify.peers_changed_json.empty() && notify.peers_removed.empty()) {
        plain = with_peers;
        return;
    }
    notify.peers_changed_json.clear();
    notify.peers_removed.clear();
    if (!notify.empty()) plain = http1::chunk(api::notify_json(notify) + "\n");
}

Session::Session(Context& context, Wire& wire, uid_t uid, pid_t pid)
    : context_(context),
      wire_(wire),
      uid_(uid),
      pid_(pid),
      parser_(http1::Role::kRequests, kMaxBody),
      token_(std::make_shared<Token>(Token{this})) {}

Session::~Session() { token_->session = nullptr; }

bool Session::finished() const { return cut_ || (close_when_drained_ && wire_.queued_bytes() == 0); }

void Session::handle_bytes(ByteSpan bytes) {
    if (cut_ || close_when_drained_) return;
    if (watching_) return;  // nothing more is expected; the end of the stream ends the watch
    if (busy_ && pending_.size() + bytes.size() > kMaxPipelined) {
        cut_ = true;
        return;
    }
    pending_.append(as_text(bytes));
    pump();
}

void Session::handle_eof() {
    if (busy_ || watching_) {
        cut_ = true;  // nobody waits for the answer
        return;
    }
    close_when_drained_ = true;
}

void Session::handle_drained() { pump(); }

void Session::pump() {
    if (pumping_) return;
    pumping_ = true;
    while (!cut_ && !close_when_drained_ && !busy_ && !watching_ && !pending_.empty() &&
           wire_.queued_bytes() == 0) {
        if (at_start_) {
            const std::string_view begin = std::string_view(pending_).substr(0, kPutFile.size());
            if (begin == kPutFile) {
                hand_over_put();
                break;
            }
            if (begin.size() < kPutFile.size() && kPutFile.starts_with(begin)) break;  // too little to tell
            at_start_ = false;
        }
        const auto used = parser_.feed(as_bytes(pending_));
        if (!used) {
            refuse(used.error());
            break;
        }
        pending_.erase(0, *used);
        if (!parser_.done()) {
            if (*used == 0) break;
            continue;
        }
        http1::Request request = parser_.take_request();
        parser_.reset();
        at_start_ = true;
        handle(std::move(request));
    }
    pumping_ = false;
}

void Session::refuse(const Error& error) {
    keep_alive_ = false;
    head_ = false;
    busy_ = true;
    finish(text_response(error.code == Code::kLimit ? 431 : 400, "400 Bad Request"));
}

void Session::handle(http1::Request request) {
    busy_ = true;
    keep_alive_ = request.keep_alive;
    head_ = request.method == "HEAD";
    ++sequence_;
    if (!is_from_program(request)) return finish(text_response(403, "invalid localapi request"));
    if (request.method == "CONNECT") return finish(text_response(405, "CONNECT is not supported"));
    const auto target = http1::parse_target(request.target);
    if (!target) return finish(text_response(400, "bad request target"));
    if (target->path == kBusPath) return watch_bus(*target);
    if (target->path == kDialPath && request.method == "POST" && hand_over(request)) return;
    if (request.method == "GET" && target->path.size() > kFilesPath.size() && target->path.starts_with(kFilesPath) && hand_over_file(*target)) return;
    const Exchange exchange{request, *target, Caller{uid_, pid_, reason_of(request)}};
    // The completion may come when this request, or this whole session, is long over.
    handle_request(context_, exchange, [token = token_, sequence = sequence_](http1::Response r) {
        Session* s = token->session;
        if (!s || !s->busy_ || s->sequence_ != sequence) return;
        s->finish(std::move(r));
        if (s->finished()) s->wire_.session_finished();
    });
}

bool Session::hand_over(const http1::Request& request) {
    const DialRequest wanted = parse_dial(request);
    if (!wanted.refusal.empty() || context_.backend.status(WithPeers::kNo).tun) return false;
    cut_ = true;
    platform::ByteStream client = wire_.release();
    client.unread(as_bytes(pending_));  // sent ahead
    pending_.clear();
    context_.backend.dial(wanted.host, wanted.port, std::move(client));
    return true;
}

bool Session::hand_over_file(const http1::Target& target) {
    if (!context_.may_write(uid_)) return false;
    cut_ = true;
    context_.backend.read_file(target.path.substr(kFilesPath.size()), wire_.release());
    return true;
}

void Session::hand_over_put() {
    if (!context_.may_write(uid_)) {
        busy_ = true;
        keep_alive_ = head_ = false;
        return finish(text_response(403, "file access denied"));
    }
    cut_ = true;
    platform::ByteStream client = wire_.release();
    client.unread(as_bytes(pending_));
    pending_.clear();
    context_.backend.put_file(std::move(client));
}

void Session::finish(http1::Response response) {
    busy_ = false;
    add_standard_headers(response.headers, context_);
    response.headers.emplace_back("Date", http_date(context_.wall()));
    response.keep_alive = keep_alive_;
    if (head_) {
        response.headers.emplace_back("Content-Length", fmt::format("{}", response.body.size()));
        response.body.clear();
    }
    if (!keep_alive_) close_when_drained_ = true;
    if (!wire_.write(http1::serialize(response), std::numeric_limits<size_t>::max())) cut_ = true;
    pump();
}

void Session::watch_bus(const http1::Target& target) {
    uint64_t mask = 0;
    if (const auto text = target.param("mask"); text && !text->empty()) {
        const auto [end, ec] = std::from_chars(text->data(), text->data() + text->size(), mask);
        if (ec != std::errc() || end != text->data() + text->size() || (mask & api::kWatchInProcessOnly) != 0)
            return finish(text_response(400, "bad mask"));
    }
    http1::Response r;
    r.headers.emplace_back("Content-Type", "application/json");
    add_standard_headers(r.headers, context_);
    r.headers.emplace_back("Date", http_date(context_.wall()));
    r.headers.emplace_back("Transfer-Encoding", "chunked");
    // Clients wait for the headers before they go on, so these leave even when there is nothing to say yet.
    std::string out = http1::serialize(r);
    constexpr uint64_t kAsksForAFirstMessage =
        api::kWatchInitialState | api::kWatchInitialPrefs | api::kWatchInitialNetMap | api::kWatchInitialDriveShares |
        api::kWatchInitialOutgoingFiles | api::kWatchInitialHealth | api::kWatchInitialSuggestedExitNode |
        api::kWatchInitialClientVersion | api::kWatchInitialStatus;
    if ((mask & kAsksForAFirstMessage) != 0) {
        api::Notify first = context_.backend.initial_notify(mask);
        if ((mask & api::kWatchInitialState) != 0 && first.session_id.empty()) first.session_id = session_id(context_.random);
        if (!first.empty() || !first.session_id.empty()) out += http1::chunk(api::notify_json(first) + "\n");
    }
    busy_ = false;
    watching_ = true;
    want_peers_ = (mask & (api::kWatchPeerChanges | api::kWatchPeerPatches)) != 0;
    pending_.clear();
    bus_limit_ = kMaxBusBacklog + out.size();
    if (!wire_.write(out, std::numeric_limits<size_t>::max())) cut_ = true;
}

void Session::publish(const BusMessage& message) {
    if (!watching_ || cut_) return;
    const std::string& text = want_peers_ ? message.with_peers : message.plain;
    // A reader that stands still is cut; it will connect again and ask for the state.
    if (!text.empty() && !wire_.write(text, bus_limit_)) cut_ = true;
    if (cut_) wire_.session_finished();
}

}  // namespace mesh::localapi
