// SPDX-License-Identifier: BSD-3-Clause
#include "derper/whois_check.h"

#include <fmt/format.h>

#include <utility>

#include "base/json.h"
#include "base/log.h"
#include "platform/net/dialer.h"

namespace mesh::derper {
namespace {
constexpr size_t kMaxAnswer = 4U << 20;
constexpr Duration kTimeout = seconds(5);
/// Capability version of the client library these answers are read with.
constexpr int kCapabilityVersion = 142;
}  // namespace

std::string whois_request(const NodePublic& key) {
    http1::Request r;
    r.method = "GET";
    r.target = "/localapi/v0/whois?addr=" + http1::percent_encode(key.text());
    r.headers = {{"Host", "local-tailscaled.sock"}, {"Tailscale-Cap", std::to_string(kCapabilityVersion)}};
    return http1::serialize(r);
}

Status judge_whois(const NodePublic& key, const http1::Response& answer) {
    const std::string failed = fmt::format("failed to query local tailscaled status for {}", key.text());
    if (answer.status == 404)
        return fail(Code::kDenied,
                    fmt::format("peer {} not authorized (not found in local tailscaled)", key.text()));
    if (answer.status == 400 && answer.body.find("invalid 'addr' parameter") != std::string::npos)
        return fail(Code::kUnsupported, failed + ": tailscaled version is too old to be asked for a node key");
    if (answer.status != 200)
        return fail(Code::kUnavailable, fmt::format("{}: HTTP {}: {}", failed, answer.status,
                                                    log::printable(answer.body.substr(0, answer.body.find('\n')))));
    const auto j = json::parse(answer.body, kMaxAnswer);
    if (!j || !j->is_object()) return fail(Code::kInvalid, failed + ": the answer is no JSON object");
    return {};
}

WhoisCheck::WhoisCheck(platform::Loop& loop, const std::string& socket, const NodePublic& key, Callback done)
    : key_(key),
      done_(std::move(done)),
      parser_(http1::Role::kResponses, kMaxAnswer),
      timer_(loop, [this] { finish(early_verdict_ ? failed("no answer in 5 s") : early_verdict_); }) {
    auto stream = platform::unix_connect(socket);
    if (!stream) {
        early_verdict_ = failed(log::printable(stream.error().message()));
        timer_.set(loop.now());  // not from inside the constructor
        return;
    }
    stream_ = std::move(*stream);
    stream_.attach(loop, *this);
    if (!stream_.write(whois_request(key_))) {
        early_verdict_ = failed("cannot write to its socket");
        timer_.set(loop.now());
        return;
    }
    timer_.set_after(kTimeout);
}

tl::unexpected<Error> WhoisCheck::failed(const std::string& why) const {
    return fail(Code::kUnavailable,
                fmt::format("failed to query local tailscaled status for {}: {}", key_.text(), why));
}

void WhoisCheck::finish(Status verdict) {
    // Last: the callback may destroy this object.
    if (const Callback done = std::exchange(done_, nullptr)) done(std::move(verdict));
}

void WhoisCheck::on_bytes(MutByteSpan bytes) {
    ByteSpan rest = bytes;
    while (!rest.empty() && !parser_.done()) {
        const auto used = parser_.feed(rest);
        if (!used) return finish(failed(log::printable(used.error().message())));
        if (*used == 0) break;
        rest = rest.subspan(*used);
    }
    if (parser_.done()) finish(judge_whois(key_, parser_.take_response()));
}

void WhoisCheck::on_closed(const Status& why) {
    if (why && parser_.feed_eof() && parser_.done()) return finish(judge_whois(key_, parser_.take_response()));
    finish(failed(why ? "it closed the connection" : log::printable(why.error().message())));
}

}  // namespace mesh::derper
