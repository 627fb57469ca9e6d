// SPDX-License-Identifier: BSD-3-Clause
#include "derper/admission.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/json.h"
#include "base/log.h"

namespace mesh::derper {
namespace {
constexpr size_t kMaxKeys = 1'000'000;
constexpr size_t kMaxAnswer = 4096;
constexpr Duration kUrlTimeout = seconds(5);
}  // namespace

Result<KeySet> parse_key_list(std::string_view text) {
    KeySet out;
    for (size_t line = 1; !text.empty(); ++line) {
        const size_t end = std::min(text.find('\n'), text.size());
        std::string_view one = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        one = one.substr(0, one.find('#'));
        while (!one.empty() && (one.back() == ' ' || one.back() == '\t' || one.back() == '\r')) one.remove_suffix(1);
        while (!one.empty() && (one.front() == ' ' || one.front() == '\t')) one.remove_prefix(1);
        if (one.empty()) continue;
        const auto key = NodePublic::parse(one);
        if (!key || key->is_zero())
            return fail(Code::kInvalid, fmt::format("line {}: \"{}\" is no node key (nodekey: and 64 hex digits)", line,
                                                    log::printable(one, 40)));
        if (out.size() >= kMaxKeys) return fail(Code::kLimit, fmt::format("more than {} keys", kMaxKeys));
        out.insert(*key);
    }
    return out;
}

std::string verify_url_body(const NodePublic& key, const Addr& source) {
    Json j = Json::object();
    j["NodePublic"] = key.text();
    j["Source"] = source.str();
    return json::dump(j);
}

Status judge_verify_answer(unsigned status, std::string_view body) {
    if (status != 200) return fail(Code::kDenied, fmt::format("admission controller answered HTTP {}", status));
    const auto j = json::parse(body, kMaxAnswer);
    if (!j || !j->is_object()) return fail(Code::kInvalid, "admission controller's answer is no JSON object");
    for (const char* name : {"Allow", "allow"})
        if (json::boolean(*j, name)) return {};
    return fail(Code::kDenied, "admission controller denied it");
}

Admission::Admission(platform::Loop& loop, platform::HttpClient* http, const AdmissionPolicy& policy,
                     const NodePublic& key, const Addr& source, Callback done)
    : http_(http),
      url_(policy.url),
      url_fail_open_(policy.url_fail_open),
      key_(key),
      source_(source),
      done_(std::move(done)),
      later_(loop, [this] { early_verdict_ ? ask_url() : finish(early_verdict_); }) {
    if (policy.allowed && !policy.allowed->contains(key)) {
        early_verdict_ = fail(Code::kDenied, "its key is not in the list of -allow-keys");
        later_.set(loop.now());
    } else if (policy.whois_socket) {
        whois_ = std::make_unique<WhoisCheck>(loop, *policy.whois_socket, key, [this](Status verdict) {
            const std::unique_ptr<WhoisCheck> keep = std::move(whois_);
            verdict ? ask_url() : finish(std::move(verdict));
        });
    } else {
        later_.set(loop.now());
    }
}

void Admission::ask_url() {
    if (url_.empty() || !http_) return finish({});
    platform::HttpRequest r;
    r.method = platform::HttpRequest::Method::kPost;
    r.url = url_;
    r.body = verify_url_body(key_, source_);
    r.headers = {{"Content-Type", "application/json"}};
    r.max_body_bytes = kMaxAnswer;
    r.timeout = kUrlTimeout;
    r.protect = platform::Protect::kNo;
    call_ = http_->send(std::move(r), [this](Result<platform::HttpResponse> answer) {
        const auto keep = std::move(call_);
        if (answer) return finish(judge_verify_answer(answer->status, answer->body));
        if (url_fail_open_) {
            log::info("derp: client {} admitted unseen: {}", key_.text(), log::printable(answer.error().message()));
            return finish({});
        }
        finish(fail(Code::kUnavailable, log::printable(answer.error().message())));
    });
}

void Admission::finish(Status verdict) {
    // Last: the callback may destroy this object.
    if (const Callback done = std::exchange(done_, nullptr)) done(std::move(verdict));
}

}  // namespace mesh::derper
