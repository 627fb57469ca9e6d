// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/proxy_handshake.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/http1.h"

namespace mesh::netstack {

namespace {

constexpr char kSocks5 = 5;
enum SocksReply : char { kOk = 0, kFailed = 1, kHostUnreachable = 4, kConnectionRefused = 5, kBadCommand = 7, kBadAddress = 8 };

/// ATYP, address and port, as requests, replies and datagrams carry them.
std::string socks_address(const Endpoint& e) {
    std::string out(1, e.addr.is_v4() ? 1 : 4);
    out.append(as_text(e.addr.bytes()));
    out += static_cast<char>(e.port >> 8);
    out += static_cast<char>(e.port & 0xFF);
    return out;
}

/// Reads that. Its length; 0: more is needed; nullopt: malformed.
std::optional<size_t> read_socks_address(ByteSpan b, std::string& host, uint16_t& port) {
    if (b.size() < 2) return 0;
    const size_t address = b[0] == 1 ? 4 : b[0] == 4 ? 16 : b[0] == 3 ? size_t{1} + b[1] : 0;
    if (address < 2) return std::nullopt;  // a name has at least one byte
    if (b.size() < 1 + address + 2) return 0;
    if (b[0] == 1) host = Addr::v4_bytes(b.data() + 1).str();
    if (b[0] == 4) host = Addr::v6_bytes(b.data() + 1).str();
    if (b[0] == 3) host = as_text(b.subspan(2, address - 1));
    port = load_be16(b.data() + 1 + address);
    return 1 + address + 2;
}

std::string socks_reply(SocksReply code) { return {kSocks5, code, 0, 1, 0, 0, 0, 0, 0, 0}; }

std::string http_reply(std::string_view status, std::string_view why) {
    std::string body(why);
    std::replace_if(body.begin(), body.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; }, ' ');
    return "HTTP/1.1 " + std::string(status) + "\r\nTailscale-Connect-Error: " + body +
           "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: " + std::to_string(body.size() + 1) + "\r\n\r\n" + body + "\n";
}

bool same(std::string_view a, std::string_view b) {
    return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) {
               const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
               return lower(x) == lower(y);
           });
}

/// "host:port" or "[v6]:port".
bool split_authority(std::string_view text, std::string& host, uint16_t& port) {
    const size_t colon = text.rfind(':');
    if (colon == std::string_view::npos) return false;
    std::string_view name = text.substr(0, colon);
    const std::string_view number = text.substr(colon + 1);
    const auto [end, ec] = std::from_chars(number.data(), number.data() + number.size(), port);
    if (ec != std::errc() || end != number.data() + number.size() || port == 0) return false;
    if (name.size() > 2 && name.front() == '[' && name.back() == ']') name = name.substr(1, name.size() - 2);
    host = name;
    return !name.empty() && name.size() <= 255;
}

}  // namespace

std::string ProxyHandshake::take_reply() { return std::exchange(reply_, {}); }
std::string ProxyHandshake::take_first() { return std::exchange(first_, {}); }

ProxyHandshake::Step ProxyHandshake::refuse(std::string reply) {
    reply_ += reply;
    return Step::kRefused;
}

ProxyHandshake::Step ProxyHandshake::feed(ByteSpan bytes) {
    in_.append(as_text(bytes));
    if (in_.empty()) return Step::kMore;
    if (greeted_ || in_[0] == kSocks5) return socks_ ? socks() : refuse("");
    return http_ ? http() : refuse("");
}

ProxyHandshake::Step ProxyHandshake::socks() {
    if (!greeted_) {
        if (in_.size() < 2) return Step::kMore;
        const size_t methods = static_cast<uint8_t>(in_[1]);
        if (in_.size() < 2 + methods) return Step::kMore;
        if (in_.find('\0', 2) >= 2 + methods) return refuse({kSocks5, '\xFF'});
        reply_ += std::string{kSocks5, 0};
        in_.erase(0, 2 + methods);
        greeted_ = true;
    }
    if (in_.size() < 5) return Step::kMore;
    const ByteSpan b = as_bytes(in_);
    if (b[0] != kSocks5) return refuse("");
    const auto address = read_socks_address(b.subspan(3), host_, port_);
    if (!address) return refuse(socks_reply(kBadAddress));
    if (*address == 0) return Step::kMore;
    const uint8_t command = b[1];
    first_ = in_.substr(3 + *address);
    in_.clear();
    if (command == 3) return Step::kAssociate;  // the address is where the program will send from; it seldom knows
    if (command != 1) return refuse(socks_reply(kBadCommand));
    return port_ == 0 ? refuse(socks_reply(kFailed)) : Step::kConnect;
}

ProxyHandshake::Step ProxyHandshake::http() {
    const size_t end = in_.find("\r\n\r\n");
    if (end == std::string::npos || end > kMaxHead)
        return std::min(end, in_.size()) > kMaxHead ? refuse(http_reply("431 Request Header Fields Too Large", "the request is too long")) : Step::kMore;
    const std::string head = in_.substr(0, end + 2);  // each line with its end
    first_ = in_.substr(end + 4);
    in_.clear();
    const size_t line = head.find("\r\n");
    const std::string_view start = std::string_view(head).substr(0, line);
    const size_t space = start.find(' '), last = start.rfind(' ');
    if (space == std::string_view::npos || space == last || start.substr(last + 1).substr(0, 7) != "HTTP/1.")
        return refuse(http_reply("400 Bad Request", "this is no HTTP/1 request"));
    const std::string_view method = start.substr(0, space), target = start.substr(space + 1, last - space - 1);
    if (method == "CONNECT") {
        tunnel_ = true;
        if (!split_authority(target, host_, port_)) return refuse(http_reply("400 Bad Request", "CONNECT wants host:port"));
        return Step::kConnect;
    }
    const auto url = http1::parse_url(target);
    if (!url || url->scheme != "http" || url->host.empty() || url->host.size() > 255)
        return refuse(http_reply("400 Bad Request", "this is a proxy: ask it for http://host/path, or use CONNECT"));
    host_ = url->host;
    port_ = url->port;
    // One request per connection: the next one may be for another host.
    std::string out = std::string(method) + " " + url->path + " " + std::string(start.substr(last + 1)) + "\r\n";
    bool upgrade = false;
    for (size_t at = line + 2; at < head.size();) {
        const size_t stop = head.find("\r\n", at);
        const std::string_view field = std::string_view(head).substr(at, stop - at);
        const std::string_view name = field.substr(0, field.find(':'));
        at = stop + 2;
        if (same(name, "Upgrade")) upgrade = true;
        const bool hop = same(name, "Connection") || same(name, "Proxy-Connection") || same(name, "Proxy-Authorization") || same(name, "Keep-Alive");
        if (!hop) out.append(field).append("\r\n");
    }
    out += upgrade ? "Connection: Upgrade\r\n\r\n" : "Connection: close\r\n\r\n";
    first_.insert(0, out);
    return Step::kConnect;
}

std::string ProxyHandshake::greeting() const {
    if (greeted_) return socks_reply(kOk);
    return tunnel_ ? "HTTP/1.1 200 OK\r\n\r\n" : "";
}

std::string ProxyHandshake::refusal(const Error& why) const {
    if (!greeted_) return http_reply("502 Bad Gateway", why.message());
    switch (why.code) {
        case Code::kUnavailable: return socks_reply(kConnectionRefused);
        case Code::kNotFound:
        case Code::kTimeout: return socks_reply(kHostUnreachable);
        default: return socks_reply(kFailed);
    }
}

std::string socks_associated(const Endpoint& relay) { return std::string{kSocks5, kOk, 0} + socks_address(relay); }
std::string socks_failure() { return socks_reply(kFailed); }

std::optional<SocksDatagram> parse_socks_datagram(ByteSpan datagram) {
    if (datagram.size() < 3 || datagram[2] != 0) return std::nullopt;
    SocksDatagram out;
    const auto used = read_socks_address(datagram.subspan(3), out.host, out.port);
    if (!used || *used == 0 || out.port == 0) return std::nullopt;
    out.payload = datagram.subspan(3 + *used);
    return out;
}

Bytes socks_datagram(const Endpoint& from, ByteSpan payload) {
    Bytes out(3);
    const std::string address = socks_address(from);
    out.insert(out.end(), address.begin(), address.end());
    out.insert(out.end(), payload.begin(), payload.end());
    return out;
}

}  // namespace mesh::netstack
