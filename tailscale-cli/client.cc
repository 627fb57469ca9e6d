// SPDX-License-Identifier: BSD-3-Clause
#include "tailscale-cli/client.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <utility>

#include "base/json.h"
#include "platform/loop/loop.h"

namespace mesh::cli {
namespace {

constexpr size_t kMaxAnswer = 256U << 20;
constexpr size_t kMaxMessage = 64U << 20;
constexpr std::string_view kPrefix = "/localapi/v0/";

ApiError other(std::string text) { return {ApiError::Kind::kOther, 0, std::move(text), ""}; }
ApiError timeout() { return {ApiError::Kind::kTimeout, 0, "context deadline exceeded", ""}; }

/// Readable when SIGINT or SIGTERM came; -1: not caught (poll leaves it out).
int g_interrupts = -1;

/// Waits until readable.
ApiResult<void> wait_readable(int fd, Time deadline) {
    while (true) {
        int ms = -1;
        if (!deadline.is_zero()) {
            const Duration left = deadline - steady_now();
            if (left.ns <= 0) return tl::unexpected(timeout());
            ms = static_cast<int>(std::min<int64_t>(left.millis() + 1, 60'000));
        }
        pollfd p[] = {{fd, POLLIN, 0}, {g_interrupts, POLLIN, 0}};
        const int n = ::poll(p, 2, ms);
        if (n > 0 && p[1].revents != 0) return tl::unexpected(other("context canceled"));
        if (n > 0) return {};
        if (n < 0 && errno != EINTR) return {};  // the read will say what is wrong
    }
}

ApiResult<void> send_all(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t n = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return tl::unexpected(other("write: " + errno_text(errno)));
        bytes.remove_prefix(static_cast<size_t>(n));
    }
    return {};
}

/// 0 at the end of the stream.
ApiResult<size_t> receive(int fd, MutByteSpan into, Time deadline) {
    if (auto ok = wait_readable(fd, deadline); !ok) return tl::unexpected(ok.error());
    while (true) {
        const ssize_t n = ::recv(fd, into.data(), into.size(), 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return tl::unexpected(other("read: " + errno_text(errno)));
        return static_cast<size_t>(n);
    }
}

/// More of the answer to the parser; what it leaves over lies in `buffer`.
ApiResult<ByteSpan> read_some(int fd, http1::Parser& parser, MutByteSpan buffer) {
    auto n = receive(fd, buffer, {});
    if (!n) return tl::unexpected(n.error());
    if (*n == 0) return tl::unexpected(other("unexpected EOF"));
    const ByteSpan got = buffer.first(*n);
    const auto used = parser.feed(got);
    if (!used) return tl::unexpected(other(used.error().message()));
    return got.subspan(*used);
}

std::string reason_phrase(const http1::Response& r) {
    return r.reason.empty() ? fmt::format("{}", r.status) : fmt::format("{} {}", r.status, r.reason);
}

}  // namespace

Time steady_now() { return platform::read_clock(); }

void catch_interrupts() {
    if (g_interrupts >= 0) return;
    sigset_t both;
    sigemptyset(&both);
    sigaddset(&both, SIGINT);
    sigaddset(&both, SIGTERM);
    g_interrupts = ::signalfd(-1, &both, SFD_CLOEXEC | SFD_NONBLOCK);
    if (g_interrupts >= 0) ::sigprocmask(SIG_BLOCK, &both, nullptr);
}

std::string errno_text(int err) {
    std::string text = std::strerror(err);
    if (!text.empty()) text[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(text[0])));
    return text;
}

std::string trimmed(std::string_view text) {
    const size_t from = text.find_first_not_of(" \t\r\n");
    if (from == std::string_view::npos) return "";
    return std::string(text.substr(from, text.find_last_not_of(" \t\r\n") - from + 1));
}

std::optional<std::string> json_error_text(std::string_view body) {
    const auto j = json::parse(body);
    if (!j) return std::nullopt;
    for (const char* key : {"Error", "error"})
        if (const Json* e = json::find(*j, key); e && e->is_string()) return e->get<std::string>();
    return std::nullopt;
}

Bus::Bus(platform::UniqueFd fd) : fd_(std::move(fd)), parser_(http1::Role::kResponses, kMaxAnswer) {}

ApiResult<void> Bus::read_more(Time deadline) {
    uint8_t buffer[16384];
    auto n = receive(fd_.get(), buffer, deadline);
    if (!n) return tl::unexpected(n.error());
    if (*n == 0) return tl::unexpected(other("lost connection to the local Tailscale daemon"));
    const auto used = parser_.feed({buffer, *n});
    if (!used) return tl::unexpected(other(used.error().message()));
    lines_ += parser_.take_body();
    if (lines_.size() > kMaxMessage) return tl::unexpected(other("bus message is too large"));
    return {};
}

ApiResult<void> Bus::begin(Time deadline) {
    while (!parser_.headers_done())
        if (auto ok = read_more(deadline); !ok) return ok;
    return {};
}

ApiResult<std::string> Bus::next(Time deadline) {
    while (true) {
        const size_t end = lines_.find('\n');
        if (end != std::string::npos) {
            std::string line = lines_.substr(0, end);
            lines_.erase(0, end + 1);
            if (!line.empty()) return line;
            continue;
        }
        if (parser_.done()) return tl::unexpected(other("lost connection to the local Tailscale daemon"));
        if (auto ok = read_more(deadline); !ok) return tl::unexpected(ok.error());
    }
}

ApiResult<platform::UniqueFd> Client::connect(const std::string& target) {
    const auto no_daemon = [&](int err) {
        const std::string endpoint = target.substr(0, target.find('?'));
        return tl::unexpected(ApiError{
            ApiError::Kind::kNoDaemon, 0,
            fmt::format("Failed to connect to local Tailscale daemon for {}; not running? Error: dial unix {}: connect: {}",
                        endpoint, path_, errno_text(err)),
            ""});
    };
    sockaddr_un addr{};
    addr.sun_family = AF_UNIX;
    if (path_.size() >= sizeof addr.sun_path) return no_daemon(EINVAL);
    std::memcpy(addr.sun_path, path_.data(), path_.size());
    platform::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return no_daemon(errno);
    const auto* generic = reinterpret_cast<const sockaddr*>(&addr);
    while (::connect(fd.get(), generic, sizeof addr) != 0)
        if (errno != EINTR) return no_daemon(errno);
    return fd;
}

http1::Request Client::request(const std::string& method, const std::string& target, const std::string& body) const {
    http1::Request r;
    r.method = method;
    r.target = target;
    r.headers.emplace_back("Host", "local-tailscaled.sock");
    r.headers.emplace_back("Tailscale-Cap", "142");
    if (!reason_.empty()) r.headers.emplace_back("X-Tailscale-Reason", base64_encode(as_bytes(reason_)));
    r.body = body;
    return r;
}

ApiResult<http1::Response> Client::raw(const std::string& method, const std::string& target, const std::string& body,
                                       Time deadline) {
    auto fd = connect(target);
    if (!fd) return tl::unexpected(fd.error());
    http1::Request r = request(method, target, body);
    r.headers.emplace_back("Connection", "close");
    if (auto ok = send_all(fd->get(), http1::serialize(r)); !ok) return tl::unexpected(ok.error());
    http1::Parser parser(http1::Role::kResponses, kMaxAnswer);
    if (method == "HEAD") parser.stop_at_headers();
    uint8_t buffer[65536];
    while (!parser.done()) {
        auto n = receive(fd->get(), buffer, deadline);
        if (!n) return tl::unexpected(n.error());
        if (*n == 0) {
            if (const Status end = parser.feed_eof(); !end) return tl::unexpected(other("unexpected EOF"));
            break;
        }
        const auto used = parser.feed({buffer, *n});
        if (!used) return tl::unexpected(other(used.error().message()));
    }
    return parser.take_response();
}

ApiResult<std::string> Client::call(const std::string& method, const std::string& endpoint, const std::string& body,
                                    unsigned want, Time deadline) {
    auto r = raw(method, std::string(kPrefix) + endpoint, body, deadline);
    if (!r) return tl::unexpected(r.error());
    if (want == 0 ? r->status / 100 == 2 : r->status == want) return std::move(r->body);
    const std::string text = trimmed(r->body);
    const auto from_json = json_error_text(text);
    if (r->status == 403)
        return tl::unexpected(
            ApiError{ApiError::Kind::kDenied, 403, "Access denied: " + from_json.value_or(text), text});
    return tl::unexpected(ApiError{ApiError::Kind::kHttp, r->status,
                                   from_json.value_or(reason_phrase(*r) + ": " + text), text});
}

ApiResult<api::DaemonStatus> Client::status(bool peers) {
    auto body = call("GET", peers ? "status" : "status?peers=false");
    if (!body) return tl::unexpected(body.error());
    auto s = api::parse_status(*body);
    if (!s) return tl::unexpected(other(s.error().message()));
    return std::move(*s);
}

ApiResult<api::Prefs> Client::prefs() {
    auto body = call("GET", "prefs");
    if (!body) return tl::unexpected(body.error());
    auto p = api::parse_prefs(*body);
    if (!p) return tl::unexpected(other("invalid prefs JSON: " + p.error().message()));
    return std::move(*p);
}

ApiResult<api::Prefs> Client::edit_prefs(const api::MaskedPrefs& edit) {
    auto body = call("PATCH", "prefs", api::masked_prefs_json(edit));
    if (!body) return tl::unexpected(body.error());
    auto p = api::parse_prefs(*body);
    if (!p) return tl::unexpected(other("invalid prefs JSON: " + p.error().message()));
    return std::move(*p);
}

ApiResult<void> Client::check_prefs(const api::Prefs& prefs) {
    auto body = call("POST", "check-prefs", api::prefs_json(prefs));
    if (!body) return tl::unexpected(body.error());
    if (const auto text = json_error_text(*body); text && !text->empty()) return tl::unexpected(other(*text));
    return {};
}

ApiResult<Client::Dialled> Client::dial(const std::string& host, uint16_t port) {
    const std::string target = std::string(kPrefix) + "dial";
    auto fd = connect(target);
    if (!fd) return tl::unexpected(fd.error());
    http1::Request r = request("POST", target, "");
    r.headers.insert(r.headers.end(), {{"Connection", "upgrade"}, {"Upgrade", "ts-dial"}, {"Dial-Host", host},
                                       {"Dial-Port", fmt::format("{}", port)}, {"Dial-Network", "tcp"}});
    if (auto ok = send_all(fd->get(), http1::serialize(r)); !ok) return tl::unexpected(ok.error());
    http1::Parser parser(http1::Role::kResponses, kMaxAnswer);
    Dialled out;
    uint8_t buffer[16384];
    while (!parser.done()) {
        const auto rest = read_some(fd->get(), parser, buffer);
        if (!rest) return tl::unexpected(rest.error());
        out.early = as_text(*rest);
    }
    const http1::Response answer = parser.take_response();
    if (answer.status == 101) {
        out.fd = std::move(*fd);
    } else if (answer.status == 200 && answer.header("Dial-Self") == "true") {
        out.elsewhere = answer.header("Dial-Addr");
    } else {
        return tl::unexpected(ApiError{ApiError::Kind::kHttp, answer.status, trimmed(answer.body), trimmed(answer.body)});
    }
    return out;
}

ApiResult<void> Client::put_file(const std::string& stable_id, const std::string& name, int64_t size, const Source& next,
                                 const std::function<void(int64_t taken)>& tick) {
    const std::string target = fmt::format("{}file-put/{}/{}", kPrefix, http1::percent_encode(stable_id), http1::percent_encode(name));
    auto fd = connect(target);
    if (!fd) return tl::unexpected(fd.error());
    http1::Request head = request("PUT", target, "");
    head.headers.emplace_back("Connection", "close");
    head.headers.emplace_back(size < 0 ? "Transfer-Encoding" : "Content-Length", size < 0 ? "chunked" : fmt::format("{}", size));
    std::string out = http1::serialize(head);
    std::string buffer(size_t{64} << 10, '\0');
    http1::Parser parser(http1::Role::kResponses, kMaxAnswer);
    int64_t taken = 0, read = 0;
    for (bool ended = false; !parser.done();) {
        while (out.empty() && !ended) {
            const size_t want = size < 0 ? buffer.size() : std::min<size_t>(buffer.size(), static_cast<size_t>(size - read));
            const auto n = want > 0 ? next(MutByteSpan(reinterpret_cast<uint8_t*>(buffer.data()), want)) : ApiResult<size_t>(0);
            if (!n) return tl::unexpected(n.error());
            if (*n == 0 && read < size) return tl::unexpected(other("the file became shorter while it was sent"));
            ended = *n == 0;
            read += static_cast<int64_t>(*n);
            const std::string_view piece = std::string_view(buffer).substr(0, *n);
            out = size < 0 ? http1::chunk(piece) : std::string(piece);
        }
        pollfd p[] = {{fd->get(), static_cast<short>(out.empty() ? POLLIN : POLLIN | POLLOUT), 0}, {g_interrupts, POLLIN, 0}};
        if (::poll(p, 2, 250) < 0 && errno != EINTR) return tl::unexpected(other("poll: " + errno_text(errno)));
        if (p[1].revents != 0) return tl::unexpected(other("context canceled"));
        tick(taken);
        if ((p[0].revents & POLLIN) != 0) {  // an answer, maybe before the end of the file
            const ssize_t n = ::recv(fd->get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
            if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) return tl::unexpected(other("unexpected EOF"));
            if (n > 0 && !parser.feed(as_bytes(std::string_view(buffer).substr(0, static_cast<size_t>(n))))) return tl::unexpected(other("malformed HTTP response"));
            continue;
        }
        if ((p[0].revents & (POLLHUP | POLLERR)) != 0 && (p[0].revents & POLLOUT) == 0) return tl::unexpected(other("unexpected EOF"));
        if ((p[0].revents & POLLOUT) == 0) continue;
        const ssize_t n = ::send(fd->get(), out.data(), out.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            taken = std::min(read, taken + n);
            out.erase(0, static_cast<size_t>(n));
        } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
            out.clear();  // refused before its end: the answer is on its way
            ended = true;
        }
    }
    const http1::Response r = parser.take_response();
    if (r.status == 200) return {};
    const std::string text = trimmed(r.body);
    if (r.status == 403 && text == "file access denied") return tl::unexpected(ApiError{ApiError::Kind::kDenied, 403, "Access denied: " + text, text});
    return tl::unexpected(ApiError{ApiError::Kind::kHttp, r.status, json_error_text(text).value_or(reason_phrase(r) + ": " + text), text});
}

ApiResult<uint64_t> Client::get_file(const std::string& name, const std::function<ApiResult<void>(std::string_view)>& sink) {
    const std::string target = fmt::format("{}files/{}", kPrefix, http1::percent_encode(name));
    auto fd = connect(target);
    if (!fd) return tl::unexpected(fd.error());
    if (auto ok = send_all(fd->get(), http1::serialize(request("GET", target, ""))); !ok) return tl::unexpected(ok.error());
    http1::Parser parser(http1::Role::kResponses, SIZE_MAX);
    std::optional<http1::Response> head;
    uint64_t size = 0;
    uint8_t buffer[65536];
    while (!parser.done()) {
        if (const auto rest = read_some(fd->get(), parser, buffer); !rest) return tl::unexpected(rest.error());
        std::string piece;
        if (!head && parser.headers_done()) {
            head = parser.take_response();
            piece = std::exchange(head->body, {});
        }
        piece += parser.take_body();
        if (head && head->status != 200) {
            head->body += piece;
            if (head->body.size() > kMaxMessage) break;
        } else if (!piece.empty()) {
            size += piece.size();
            if (auto ok = sink(piece); !ok) return tl::unexpected(ok.error());
        }
    }
    if (!head || head->status != 200) {
        const std::string text = head ? trimmed(head->body) : "";
        return tl::unexpected(ApiError{ApiError::Kind::kHttp, head ? head->status : 0, head ? fmt::format("HTTP {}: {}", reason_phrase(*head), text) : text, text});
    }
    return size;
}

ApiResult<Bus> Client::watch(uint64_t mask, Time deadline) {
    const std::string target = fmt::format("{}watch-ipn-bus?mask={}", kPrefix, mask);
    auto fd = connect(target);
    if (!fd) return tl::unexpected(fd.error());
    if (auto ok = send_all(fd->get(), http1::serialize(request("GET", target, ""))); !ok)
        return tl::unexpected(ok.error());
    Bus bus(std::move(*fd));
    if (auto ok = bus.begin(deadline); !ok) return tl::unexpected(ok.error());
    return bus;
}

}  // namespace mesh::cli
