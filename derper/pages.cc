// SPDX-License-Identifier: BSD-3-Clause
#include "derper/pages.h"

#include <algorithm>

namespace mesh::derper {
namespace {

using http1::Request;
using http1::Response;

constexpr std::string_view kHome =
    "<html><body>\n"
    "<h1>DERP</h1>\n"
    "<p>This is a DERP relay with STUN. It carries end-to-end encrypted packets between the nodes of a mesh\n"
    "network that have no direct path to each other yet.</p>\n"
    "</body></html>\n";
constexpr std::string_view kNoStore = "no-cache, no-store, must-revalidate, no-transform, max-age=0";
constexpr size_t kMaxChallenge = 64;

std::string lower(std::string_view s) {
    std::string out(s);
    for (char& c : out)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    return out;
}

bool is_challenge(std::string_view s) {
    return !s.empty() && s.size() <= kMaxChallenge && std::all_of(s.begin(), s.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ||
               c == '_' || c == ':';
    });
}

Response text(unsigned status, std::string_view body, std::string_view type = "text/plain; charset=utf-8") {
    Response r;
    r.status = status;
    r.headers = {{"Content-Type", std::string(type)}, {"X-Content-Type-Options", "nosniff"}};
    r.body = std::string(body);
    return r;
}

Response page(std::string_view body, std::string_view type) {
    Response r = text(200, body, type);
    r.headers.emplace_back("Content-Security-Policy",
                           "default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'self'; "
                           "block-all-mixed-content; object-src 'none'");
    r.headers.emplace_back("X-Frame-Options", "DENY");
    return r;
}

Response no_content(const Request& q) {
    Response r;
    r.status = 204;
    r.headers = {{"Cache-Control", std::string(kNoStore)}};
    const std::string_view challenge = q.header("X-Tailscale-Challenge");
    if (is_challenge(challenge)) r.headers.emplace_back("X-Tailscale-Response", "response " + std::string(challenge));
    return r;
}

Response probe() {
    Response r;
    r.headers = {{"Access-Control-Allow-Origin", "*"}};
    return r;
}

bool contains(const std::vector<Prefix>& prefixes, const Addr& a) {
    return std::any_of(prefixes.begin(), prefixes.end(), [&a](const Prefix& p) { return p.contains(a); });
}

Response home_page(const std::string& home) {
    if (home.empty()) return page(kHome, "text/html; charset=utf-8");
    if (home == "blank") return page("", "text/html; charset=utf-8");
    Response r = text(302, "");
    r.headers.emplace_back("Location", home);
    return r;
}

}  // namespace

std::string_view path_of(const Request& q) {
    const std::string_view target = q.target;
    return target.substr(0, target.find_first_of("?#"));
}

Response text_page(unsigned status, std::string_view body) { return text(status, body); }

Asker real_client(const Request& q, const Addr& peer, const std::vector<Prefix>& trusted) {
    constexpr int kMaxHops = 16;
    Asker out{peer, !q.has_header("X-Forwarded-For") && !q.has_header("Forwarded") && !q.has_header("X-Real-IP")};
    std::string all;  // several headers are one list
    for (const auto& [name, value] : q.headers)
        if (lower(name) == "x-forwarded-for") all += (all.empty() ? "" : ",") + value;
    std::string_view rest = all;
    for (int hop = 0; hop < kMaxHops && !rest.empty() && contains(trusted, out.addr); ++hop) {
        const size_t comma = rest.rfind(',');
        std::string_view one = comma == std::string_view::npos ? rest : rest.substr(comma + 1);
        rest = comma == std::string_view::npos ? std::string_view() : rest.substr(0, comma);
        while (one.starts_with(' ')) one.remove_prefix(1);
        while (one.ends_with(' ')) one.remove_suffix(1);
        const auto addr = Addr::parse(one);
        const auto with_port = addr ? std::nullopt : Endpoint::parse(one);
        if (!addr && !with_port) break;
        out.addr = addr ? *addr : with_port->addr;
        out.certain = true;
    }
    return out;
}

Response answer_page(const Request& q, const std::string& home) {
    const std::string_view path = path_of(q);
    const bool reading = q.method == "GET" || q.method == "HEAD";
    Response r;
    if (path == "/derp/probe" || path == "/derp/latency-check")
        r = reading ? probe() : text(405, "bogus probe method");
    else if (path == "/generate_204")
        r = no_content(q);
    else if (!reading)
        r = text(405, "method not allowed\n");
    else if (path == "/")
        r = home_page(home);
    else if (path == "/robots.txt")
        r = page("User-agent: *\nDisallow: /\n", "text/plain; charset=utf-8");
    else
        r = text(404, "404 page not found\n");
    if (q.method == "HEAD") r.body.clear();
    return r;
}

Response answer_port_80(const Request& q) {
    if (path_of(q) == "/generate_204") return no_content(q);
    if (q.method != "GET" && q.method != "HEAD") return text(400, "Use HTTPS\n");
    std::string host(q.header("Host"));
    // The port of this listener is not the one of HTTPS.
    const size_t colon = host.rfind(':');
    if (colon != std::string::npos && host.find(']', colon) == std::string::npos) host.resize(colon);
    const bool clean = !host.empty() && std::all_of(host.begin(), host.end(), [](char c) {
        return c > ' ' && c < 0x7f && c != '/' && c != '\\' && c != '"' && c != '<';
    });
    if (!clean || !q.target.starts_with('/')) return text(400, "Use HTTPS\n");
    Response r;
    r.status = 302;
    r.headers = {{"Location", "https://" + host + q.target}};
    return r;
}

Upgrade wanted_upgrade(const Request& q) {
    const std::string upgrade = lower(q.header("Upgrade"));
    if (upgrade == "derp") return Upgrade::kDerp;
    if (upgrade != "websocket") return Upgrade::kNone;
    // Old clients said WebSocket and meant DERP; those that mean WebSocket name the subprotocol.
    return lower(q.header("Sec-WebSocket-Protocol")).find("derp") == std::string::npos ? Upgrade::kDerp
                                                                                       : Upgrade::kWebSocket;
}

Response refusal(Upgrade asked) {
    if (asked == Upgrade::kWebSocket) return text(400, "malformed WebSocket handshake\n");
    return text(426, "DERP requires connection upgrade\n");
}

bool wants_fast_start(const Request& q) { return q.header("Derp-Fast-Start") == "1"; }

std::string switching_protocols(const NodePublic& server_key) {
    return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nDerp-Version: 2\r\n"
           "Derp-Public-Key: " +
           hex_encode(server_key.bytes()) + "\r\n\r\n";
}

}  // namespace mesh::derper
