// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Who may use this relay: a list of keys, the local tailscaled, a URL; all that are configured must agree, asked in this
/// order, once at login. Closed while a verifier cannot be asked, except for the URL if its owner says so.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>

#include "base/ip.h"
#include "base/keys.h"
#include "base/result.h"
#include "derper/whois_check.h"
#include "platform/http/http_client.h"

namespace mesh::derper {

using KeySet = std::unordered_set<NodePublic>;
/// One "nodekey:<hex>" a line; blank lines, and everything from # on, are nothing. At most 1,000,000 keys. Errors name the line.
[[nodiscard]] Result<KeySet> parse_key_list(std::string_view text);

struct AdmissionPolicy {
    std::shared_ptr<const KeySet> allowed{};    ///< null = no list
    std::optional<std::string> whois_socket{};  ///< ask this tailscaled
    std::string url{};                          ///< "" = none
    bool url_fail_open = false;

    [[nodiscard]] bool admits_all() const { return !allowed && !whois_socket && url.empty(); }
};

/// Body of the question to the URL, and what its answer means.
[[nodiscard]] std::string verify_url_body(const NodePublic& key, const Addr& source);
[[nodiscard]] Status judge_verify_answer(unsigned status, std::string_view body);

/// One client under examination. Destruction cancels.
class Admission {
   public:
    using Callback = std::function<void(Status)>;
    /// `http` is needed if the policy has a URL. The callback never comes from inside the constructor, and may destroy this.
    Admission(platform::Loop& loop, platform::HttpClient* http, const AdmissionPolicy& policy, const NodePublic& key,
              const Addr& source, Callback done);

   private:
    void ask_url();
    void finish(Status verdict);

    platform::HttpClient* http_;
    std::string url_;
    bool url_fail_open_;
    NodePublic key_;
    Addr source_;
    Callback done_;
    Status early_verdict_;
    platform::Timer later_;
    std::unique_ptr<WhoisCheck> whois_;
    std::unique_ptr<platform::HttpClient::Call> call_;
};

}  // namespace mesh::derper
