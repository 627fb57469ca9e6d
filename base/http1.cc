// SPDX-License-Identifier: BSD-3-Clause
// Beast 1.74 asserts that the last chunk, when it comes in pieces, follows another one. It need not (an empty body), and
// nothing there depends on it.
#define BOOST_DISABLE_ASSERTS
#include "base/http1.h"

#include <utility>
#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <charconv>
#include <variant>

#include "base/check.h"
#include "base/ip.h"

namespace mesh::http1 {
namespace beast_http = boost::beast::http;

namespace {

constexpr uint32_t kHeaderLimit = 16384;

bool same(std::string_view a, std::string_view b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
        return std::tolower(static_cast<unsigned char>(x)) == std::tolower(static_cast<unsigned char>(y));
    });
}

const std::string* find(const Headers& headers, std::string_view name) {
    for (const auto& [k, v] : headers)
        if (same(k, name)) return &v;
    return nullptr;
}

std::string_view view(boost::beast::string_view s) { return {s.data(), s.size()}; }

/// A text that grows with the bytes that arrive. Beast's own string body reserves whatever Content-Length announces.
struct TextBody {
    using value_type = std::string;
    class reader {
       public:
        template <bool kRequest, class Fields>
        reader(beast_http::header<kRequest, Fields>&, value_type& body) : body_(body) {}
        void init(const boost::optional<std::uint64_t>&, boost::system::error_code& ec) { ec = {}; }
        template <class Buffers>
        size_t put(const Buffers& buffers, boost::system::error_code& ec) {
            ec = {};
            size_t n = 0;
            for (auto it = boost::asio::buffer_sequence_begin(buffers); it != boost::asio::buffer_sequence_end(buffers); ++it) {
                const boost::asio::const_buffer b = *it;
                body_.append(static_cast<const char*>(b.data()), b.size());
                n += b.size();
            }
            return n;
        }
        void finish(boost::system::error_code& ec) { ec = {}; }

       private:
        value_type& body_;
    };
};

std::string hex_size(size_t n) { return fmt::format("{:x}", n); }

}  // namespace

std::string_view Request::header(std::string_view name) const {
    const std::string* v = find(headers, name);
    return v ? *v : std::string_view();
}
bool Request::has_header(std::string_view name) const { return find(headers, name) != nullptr; }
std::string_view Response::header(std::string_view name) const {
    const std::string* v = find(headers, name);
    return v ? *v : std::string_view();
}

struct Parser::State {
    using RequestParser = beast_http::parser<true, TextBody>;
    using ResponseParser = beast_http::parser<false, TextBody>;

    Role role;
    size_t body_limit;
    bool stop = false;
    std::string pending;  // header bytes that came without their end
    std::variant<std::monostate, RequestParser, ResponseParser> parser;

    void start() {
        pending.clear();
        if (role == Role::kRequests)
            prepare(parser.emplace<RequestParser>());
        else
            prepare(parser.emplace<ResponseParser>());
    }
    template <class P>
    void prepare(P& p) {
        p.eager(true);
        p.header_limit(kHeaderLimit);
        p.body_limit(body_limit);
        if (stop) p.skip(true);
    }
    template <class F>
    auto with(F&& f) {
        if (auto* r = std::get_if<RequestParser>(&parser)) return f(*r);
        return f(std::get<ResponseParser>(parser));
    }
};

Parser::Parser(Role role, size_t body_limit_bytes) : state_(std::make_unique<State>()) {
    state_->role = role;
    state_->body_limit = body_limit_bytes;
    state_->start();
}
Parser::~Parser() = default;
Parser::Parser(Parser&&) noexcept = default;
Parser& Parser::operator=(Parser&&) noexcept = default;

void Parser::reset() { state_->start(); }

void Parser::stop_at_headers() {
    state_->stop = true;
    state_->with([](auto& p) { p.skip(true); });
}

bool Parser::headers_done() const {
    return state_->with([](auto& p) { return p.is_header_done(); });
}
bool Parser::done() const {
    return state_->with([](auto& p) { return p.is_done(); });
}

Result<size_t> Parser::feed(ByteSpan bytes) {
    // Beast wants a header in one piece, so an unfinished one is collected here.
    size_t used_total = 0;
    while (used_total < bytes.size() && !done()) {
        ByteSpan rest = bytes.subspan(used_total);
        boost::system::error_code ec;
        size_t used = 0;
        const bool buffered = !state_->pending.empty();
        if (buffered) {
            const size_t before = state_->pending.size();
            state_->pending.append(reinterpret_cast<const char*>(rest.data()), rest.size());
            used = state_->with(
                [&](auto& p) { return p.put(boost::asio::buffer(state_->pending.data(), state_->pending.size()), ec); });
            if (ec == beast_http::error::need_more) {
                ec = {};
                if (used == 0) {
                    if (state_->pending.size() > kHeaderLimit) return fail(Code::kLimit, "HTTP header is too large");
                    return bytes.size();
                }
            }
            if (ec) return fail(Code::kInvalid, "malformed HTTP: " + ec.message());
            // What the parser used beyond the buffered part came from `rest`.
            if (used < before) {
                state_->pending.erase(0, used);
                // Everything of `rest` is still in `pending`; keep it there.
                return bytes.size();
            }
            used_total += used - before;
            state_->pending.clear();
            continue;
        }
        used = state_->with([&](auto& p) { return p.put(boost::asio::buffer(rest.data(), rest.size()), ec); });
        if (ec == beast_http::error::need_more) {
            if (used < rest.size()) {
                state_->pending.assign(reinterpret_cast<const char*>(rest.data()) + used, rest.size() - used);
                if (state_->pending.size() > kHeaderLimit) return fail(Code::kLimit, "HTTP header is too large");
            }
            return bytes.size();
        }
        if (ec) return fail(Code::kInvalid, "malformed HTTP: " + ec.message());
        used_total += used;
        if (used == 0) break;
    }
    return used_total;
}

Status Parser::feed_eof() {
    boost::system::error_code ec;
    // Beast asserts that there was a first byte.
    const bool started = state_->with([&](auto& p) {
        if (p.got_some()) p.put_eof(ec);
        return p.got_some();
    });
    if (!started) return fail(Code::kUnavailable, "connection closed before an HTTP message");
    if (ec) return fail(Code::kInvalid, "connection closed in the middle of an HTTP message");
    return {};
}

std::string Parser::take_body() {
    return state_->with([](auto& p) {
        std::string out;
        out.swap(p.get().body());
        return out;
    });
}

Request Parser::take_request() {
    CHECK(state_->role == Role::kRequests);
    auto& m = std::get<State::RequestParser>(state_->parser).get();
    Request r;
    r.method = std::string(view(m.method_string()));
    r.target = std::string(view(m.target()));
    r.keep_alive = m.keep_alive();
    for (const auto& f : m) r.headers.emplace_back(view(f.name_string()), view(f.value()));
    r.body = std::move(m.body());
    return r;
}

Response Parser::take_response() {
    CHECK(state_->role == Role::kResponses);
    auto& m = std::get<State::ResponseParser>(state_->parser).get();
    Response r;
    r.status = m.result_int();
    r.reason = std::string(view(m.reason()));
    r.keep_alive = m.keep_alive();
    for (const auto& f : m) r.headers.emplace_back(view(f.name_string()), view(f.value()));
    r.body = std::move(m.body());
    return r;
}

static void append_headers(std::string& out, const Headers& headers) {
    for (const auto& [k, v] : headers) {
        out += k;
        out += ": ";
        // A value must never start a new header line.
        for (const char c : v)
            if (c != '\r' && c != '\n') out += c;
        out += "\r\n";
    }
}

std::string serialize(const Request& r) {
    std::string out = r.method + " " + r.target + " HTTP/1.1\r\n";
    append_headers(out, r.headers);
    const bool sized = find(r.headers, "Content-Length") || find(r.headers, "Transfer-Encoding");
    if (!sized && (!r.body.empty() || r.method == "POST" || r.method == "PUT" || r.method == "PATCH"))
        out += fmt::format("Content-Length: {}\r\n", r.body.size());
    return out + "\r\n" + r.body;
}

Response plain_text(unsigned status, std::string_view line) {
    Response r;
    r.status = status;
    r.headers.emplace_back("Content-Type", "text/plain; charset=utf-8");
    r.body = std::string(line) + "\n";
    return r;
}

std::string serialize(const Response& r) {
    const std::string reason =
        r.reason.empty() ? std::string(view(beast_http::obsolete_reason(static_cast<beast_http::status>(r.status))))
                         : r.reason;
    std::string out = fmt::format("HTTP/1.1 {} {}\r\n", r.status, reason);
    append_headers(out, r.headers);
    const bool sized = find(r.headers, "Content-Length") || find(r.headers, "Transfer-Encoding");
    const bool bodiless = r.status < 200 || r.status == 204 || r.status == 304;
    if (!sized && !bodiless) out += fmt::format("Content-Length: {}\r\n", r.body.size());
    if (!r.keep_alive && !find(r.headers, "Connection")) out += "Connection: close\r\n";
    return out + "\r\n" + r.body;
}

std::string chunk(std::string_view data) {
    if (data.empty()) return "0\r\n\r\n";
    return hex_size(data.size()) + "\r\n" + std::string(data) + "\r\n";
}

std::optional<std::string> percent_decode(std::string_view text) {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '%') {
            out += text[i];
            continue;
        }
        uint8_t b = 0;
        if (i + 2 >= text.size() || !hex_decode(text.substr(i + 1, 2), MutByteSpan(&b, 1))) return std::nullopt;
        out += static_cast<char>(b);
        i += 2;
    }
    return out;
}

std::string percent_encode(std::string_view text) {
    std::string out;
    for (const char c : text) {
        const auto u = static_cast<unsigned char>(c);
        if (std::isalnum(u) || c == '-' || c == '_' || c == '.' || c == '~')
            out += c;
        else
            out += fmt::format("%{:02X}", u);
    }
    return out;
}

std::optional<std::string> Target::param(std::string_view name) const {
    for (const auto& [k, v] : query)
        if (k == name) return v;
    return std::nullopt;
}

std::optional<Target> parse_target(std::string_view target) {
    Target out;
    const size_t q = target.find('?');
    const auto path = percent_decode(target.substr(0, q));
    if (!path || path->empty() || path->front() != '/') return std::nullopt;
    out.path = *path;
    std::string_view rest = q == std::string_view::npos ? std::string_view() : target.substr(q + 1);
    while (!rest.empty()) {
        const size_t amp = rest.find('&');
        const std::string_view part = rest.substr(0, amp);
        rest = amp == std::string_view::npos ? std::string_view() : rest.substr(amp + 1);
        if (part.empty()) continue;
        const size_t eq = part.find('=');
        const auto k = percent_decode(part.substr(0, eq));
        std::string raw(eq == std::string_view::npos ? std::string_view() : part.substr(eq + 1));
        std::replace(raw.begin(), raw.end(), '+', ' ');
        const auto v = percent_decode(raw);
        if (!k || !v || out.query.size() >= 64) return std::nullopt;
        out.query.emplace_back(*k, *v);
    }
    return out;
}

std::string Url::authority() const {
    const bool v6 = host.find(':') != std::string::npos;
    const std::string h = v6 ? "[" + host + "]" : host;
    const bool standard = (scheme == "http" && port == 80) || (scheme == "https" && port == 443);
    return standard ? h : fmt::format("{}:{}", h, port);
}

std::optional<Url> parse_url(std::string_view text) {
    Url u;
    const size_t sep = text.find("://");
    if (sep == std::string_view::npos) return std::nullopt;
    u.scheme = std::string(text.substr(0, sep));
    std::transform(u.scheme.begin(), u.scheme.end(), u.scheme.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (u.scheme != "http" && u.scheme != "https") return std::nullopt;
    u.port = u.scheme == "http" ? 80 : 443;
    std::string_view rest = text.substr(sep + 3);
    const size_t slash = rest.find_first_of("/?#");
    std::string_view authority = rest.substr(0, slash);
    u.path = slash == std::string_view::npos ? "/" : std::string(rest.substr(slash));
    if (u.path[0] != '/') u.path.insert(0, "/");
    for (const char c : text)
        if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7f) return std::nullopt;
    if (authority.find('@') != std::string_view::npos) return std::nullopt;
    std::string_view port;
    if (!authority.empty() && authority[0] == '[') {
        const size_t close = authority.find(']');
        if (close == std::string_view::npos) return std::nullopt;
        u.host = std::string(authority.substr(1, close - 1));
        if (!Addr::parse(u.host)) return std::nullopt;
        port = authority.substr(close + 1);
        if (!port.empty() && port[0] != ':') return std::nullopt;
        if (!port.empty()) port.remove_prefix(1);
    } else {
        const size_t colon = authority.find(':');
        u.host = std::string(authority.substr(0, colon));
        if (colon != std::string_view::npos) {
            port = authority.substr(colon + 1);
            if (port.empty()) return std::nullopt;
        }
    }
    if (u.host.empty()) return std::nullopt;
    if (!port.empty()) {
        unsigned v = 0;
        const auto [p, ec] = std::from_chars(port.data(), port.data() + port.size(), v);
        if (ec != std::errc() || p != port.data() + port.size() || v == 0 || v > 65535) return std::nullopt;
        u.port = static_cast<uint16_t>(v);
        u.explicit_port = true;
    }
    return u;
}

}  // namespace mesh::http1
