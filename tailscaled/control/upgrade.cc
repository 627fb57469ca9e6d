// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/control/upgrade.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "base/ip.h"
#include "base/log.h"

namespace mesh::control {
namespace {

bool equal_ignoring_case(std::string_view a, std::string_view b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
        return std::tolower(static_cast<unsigned char>(x)) == std::tolower(static_cast<unsigned char>(y));
    });
}

bool is_near(const std::string& host) {
    if (host == "localhost") return true;
    const auto a = Addr::parse(host);
    return a && (a->is_private() || a->is_loopback());
}

}  // namespace

std::vector<UpgradeTarget> upgrade_targets(const http1::Url& url, bool recently_dialled) {
    const UpgradeTarget plain{false, url.scheme == "http" ? url.port : uint16_t{80}};
    if (url.scheme == "http" && is_near(url.host)) return {plain};
    const UpgradeTarget tls{true, url.scheme == "https" ? url.port : uint16_t{443}};
    if (recently_dialled) return {tls, plain};
    return {plain, tls};
}

Result<http1::Url> parse_control_url(std::string_view text) {
    const auto url = http1::parse_url(text);
    if (!url || url->host.empty() || log::printable(text, 2048) != text || text.find('@') != std::string_view::npos)
        return fail(Code::kInvalid, fmt::format("\"{}\" is not the URL of a control server: expected "
                                                "http://HOST[:PORT] or https://HOST[:PORT]",
                                                log::printable(text)));
    return *url;
}

std::string upgrade_request(const http1::Url& url, const UpgradeTarget& target, ByteSpan initiation,
                            std::string_view user_agent) {
    http1::Url at = url;
    at.scheme = target.tls ? "https" : "http";
    at.port = target.port;
    http1::Request r;
    r.method = "POST";
    r.target = kUpgradePath;
    r.headers = {{"Host", at.authority()},
                 {"User-Agent", std::string(user_agent)},
                 {"Upgrade", std::string(kUpgradeProtocol)},
                 {"Connection", "upgrade"},
                 {std::string(kHandshakeHeader), base64_encode(initiation)},
                 {"Content-Length", "0"}};
    return http1::serialize(r);
}

UpgradeReader::UpgradeReader(NoiseInitiator noise) : noise_(std::move(noise)), parser_(http1::Role::kResponses, 0) {
    parser_.stop_at_headers();
}

Result<std::optional<NoiseKeys>> UpgradeReader::feed(ByteSpan bytes) {
    if (!upgraded_) {
        TRY_ASSIGN(const size_t used, parser_.feed(bytes));
        bytes = bytes.subspan(used);
        if (!parser_.headers_done()) return std::optional<NoiseKeys>();
        const http1::Response r = parser_.take_response();
        if (r.status != 101)
            return fail(Code::kUnsupported, fmt::format("the upgrade was answered with HTTP status {}", r.status));
        if (r.header("Upgrade") != kUpgradeProtocol)
            return fail(Code::kUnsupported, "the upgrade went to another protocol");
        upgraded_ = true;
    }
    TRY_ASSIGN(const size_t used, response_.feed(bytes));
    if (!response_.done()) return std::optional<NoiseKeys>();
    rest_ = to_bytes(bytes.subspan(used));
    TRY_ASSIGN(NoiseKeys keys, noise_.finish(response_.frame()));
    return std::optional(keys);
}

Result<Bytes> upgrade_initiation(const http1::Request& request) {
    if (request.method != "POST" && request.method != "GET") return fail(Code::kInvalid, "POST required");
    if (!equal_ignoring_case(request.header("Upgrade"), kUpgradeProtocol))
        return fail(Code::kInvalid, "unknown next protocol");
    if (!request.has_header(kHandshakeHeader)) return fail(Code::kInvalid, "missing Tailscale handshake header");
    auto bytes = base64_decode(request.header(kHandshakeHeader));
    if (!bytes || bytes->size() != kInitiationLen) return fail(Code::kInvalid, "invalid tailscale handshake header");
    return std::move(*bytes);
}

std::string upgrade_response() {
    return fmt::format("HTTP/1.1 101 Switching Protocols\r\nUpgrade: {}\r\nConnection: upgrade\r\n\r\n", kUpgradeProtocol);
}

}  // namespace mesh::control
