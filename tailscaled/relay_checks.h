// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Tries the relays of the map by the ways this daemon has: DERP port and STUN port of each node, and whether a captive portal
/// stands in between. For `tailscale netcheck`, whose command is too small to carry TLS.

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/random.h"
#include "magicsock/derp/derp_map.h"
#include "platform/http/http_client.h"
#include "platform/net/dialer.h"
#include "relaycheck/relay_check.h"

namespace mesh::daemon {

/// How a node of the map is checked. `plain_control`: host:port of a control server reached by plain http, or "".
[[nodiscard]] Result<relaycheck::Target> relay_target(const derp::DerpNode& node, const std::string& plain_control);

/// GET /generate_204 on port 80 of relays that offer it: an answer that no relay gave is a captive portal's.
class CaptivePortalProbe {
   public:
    static constexpr size_t kMaxAsked = 5;
    static constexpr Duration kPatience = seconds(3);
    /// nullopt: nobody to ask, or nobody answered. Comes in a later turn.
    using Done = std::function<void(std::optional<bool> found)>;
    CaptivePortalProbe(platform::Loop& loop, platform::HttpClient& http, const derp::DerpMap& map, Done done);

   private:
    void answered(size_t i, const std::string& challenge, const Result<platform::HttpResponse>& r);
    void finish();

    Done done_;
    size_t waiting_ = 0;
    std::optional<bool> found_;
    std::vector<std::unique_ptr<platform::HttpClient::Call>> calls_;
    platform::Timer timer_;
};

class RelayChecks {
   public:
    static constexpr size_t kMaxNodes = 64;   ///< further ones are not looked at
    static constexpr size_t kAtOnce = 8;
    static constexpr size_t kMaxWaiting = 16; ///< callers
    static constexpr Duration kPatience = seconds(4);
    static constexpr Duration kStunPatience = milliseconds(1500);
    /// JSON: {"Relays":[{"RegionID","Node","Host","Port","Good","LatencySeconds","IPv6","Problems":[…],"Steps":[…]}],"CaptivePortal":bool|null}
    using Done = std::function<void(const std::string& json)>;

    RelayChecks(platform::Dialer& dialer, platform::HttpClient& http, Random& random) : dialer_(dialer), http_(http), random_(random) {}
    ~RelayChecks();

    /// Callers during a round get its result. False: too many wait.
    [[nodiscard]] bool run(std::shared_ptr<const derp::DerpMap> map, const std::string& plain_control, Done done);

   private:
    struct Entry {
        int region = 0;
        std::string node;
        relaycheck::Target target;
        bool good = true;
        std::optional<Duration> latency;
        Endpoint reached;
        std::vector<std::string> problems, steps;
        std::unique_ptr<relaycheck::RelayCheck> check;
    };
    void start_more();
    void finish_if_over();

    platform::Dialer& dialer_;
    platform::HttpClient& http_;
    Random& random_;
    std::deque<Entry> entries_;
    size_t next_ = 0, running_ = 0;
    std::unique_ptr<CaptivePortalProbe> portal_;
    std::optional<bool> captive_;
    std::vector<Done> waiting_;
};

}  // namespace mesh::daemon
