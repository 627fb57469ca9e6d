// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// HTTP/1.1 messages, parsed incrementally and serialised (RFC 9112). Boost.Beast does the work behind http1.cc, the
/// only file that includes it. Pure: bytes in, messages out. Headers ≤ 16 KiB, bodies up to a limit the caller sets.

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace mesh::http1 {

using Headers = std::vector<std::pair<std::string, std::string>>;

struct Request {
    std::string method;
    std::string target;  ///< as sent: path with query
    Headers headers;
    std::string body;
    bool keep_alive = true;
    /// First header of that name, any case; "" if absent.
    [[nodiscard]] std::string_view header(std::string_view name) const;
    [[nodiscard]] bool has_header(std::string_view name) const;
};

struct Response {
    unsigned status = 200;
    std::string reason;  ///< "" = the standard phrase
    Headers headers;
    std::string body;
    bool keep_alive = true;
    [[nodiscard]] std::string_view header(std::string_view name) const;
};

enum class Role : uint8_t { kRequests, kResponses };

/// Reads one message; call reset() (or make a new one) for the next on the same connection.
class Parser {
   public:
    Parser(Role role, size_t body_limit_bytes);
    ~Parser();
    Parser(Parser&&) noexcept;
    Parser& operator=(Parser&&) noexcept;

    /// Takes bytes, returns how many were used. Unused bytes belong to what follows (next message, upgraded protocol).
    /// For 1xx/101/204/304 responses and when stop_at_headers() was called, parsing ends after the headers.
    [[nodiscard]] Result<size_t> feed(ByteSpan bytes);
    /// The stream ended: completes a response whose length is given by the end of the connection.
    [[nodiscard]] Status feed_eof();
    [[nodiscard]] bool headers_done() const;
    [[nodiscard]] bool done() const;
    /// Do not read a body even if one is announced (upgrades, HEAD). Call before the headers are complete.
    void stop_at_headers();
    /// Body bytes since the last call, for streams without end (map polls, bus). Otherwise the body stays in the message.
    [[nodiscard]] std::string take_body();

    /// Valid after headers_done(); body complete after done(). Moves the content out.
    [[nodiscard]] Request take_request();
    [[nodiscard]] Response take_response();
    /// Back to the start for the next message.
    void reset();

   private:
    struct State;
    std::unique_ptr<State> state_;
};

/// Adds Content-Length (unless Transfer-Encoding or Content-Length is given, or the status forbids a body).
[[nodiscard]] std::string serialize(const Request& r);
[[nodiscard]] std::string serialize(const Response& r);
/// An answer for people: one line of text/plain, to which the line end is added.
[[nodiscard]] Response plain_text(unsigned status, std::string_view line);
/// One chunk of a chunked body; empty data gives the last chunk.
[[nodiscard]] std::string chunk(std::string_view data);

/// "%3A" → ":", '+' stays. nullopt if malformed.
[[nodiscard]] std::optional<std::string> percent_decode(std::string_view text);
[[nodiscard]] std::string percent_encode(std::string_view text);

/// A target or URL split up; query values decoded.
struct Target {
    std::string path;  ///< decoded
    std::vector<std::pair<std::string, std::string>> query;
    [[nodiscard]] std::optional<std::string> param(std::string_view name) const;
};
[[nodiscard]] std::optional<Target> parse_target(std::string_view target);

/// http(s)://host[:port][/path]. Port is filled in from the scheme.
struct Url {
    std::string scheme;  ///< "http" or "https"
    std::string host;    ///< without brackets
    uint16_t port = 0;
    bool explicit_port = false;
    std::string path;  ///< "/" at least, with query
    /// host[:port] as for the Host header: brackets for IPv6, port when not the scheme's default.
    [[nodiscard]] std::string authority() const;
};
[[nodiscard]] std::optional<Url> parse_url(std::string_view text);

}  // namespace mesh::http1
