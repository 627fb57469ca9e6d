// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/relay_checks.h"

#include <fmt/format.h>

#include "tailscaled/api/json_text.h"

namespace mesh::daemon {

Result<relaycheck::Target> relay_target(const derp::DerpNode& node, const std::string& plain_control) {
    relaycheck::Target t;
    t.host = node.host_name;
    t.port = node.effective_derp_port();
    for (const Addr& a : {node.literal_v4(), node.literal_v6()})
        if (a.is_valid()) t.addresses.push_back(a);
    t.stun_port = node.effective_stun_port().value_or(0);
    TRY_ASSIGN(t.tls, platform::derp_tls_options(node.host_name, node.cert_name, node.insecure_for_tests));
    t.plain_is_fine = node.insecure_for_tests || plain_control == fmt::format("{}:{}", t.host, t.port);
    t.login = false;
    t.protect = platform::Protect::kYes;
    t.patience = RelayChecks::kPatience;
    t.stun_patience = RelayChecks::kStunPatience;
    return t;
}

// ---- captive portal --------------------------------------------------------------------------------------------------

CaptivePortalProbe::CaptivePortalProbe(platform::Loop& loop, platform::HttpClient& http, const derp::DerpMap& map, Done done)
    : done_(std::move(done)), timer_(loop, [this] { finish(); }) {
    for (const auto& [id, region] : map.regions)
        for (const derp::DerpNode& n : region.nodes) {
            const Addr at = n.literal_v4();
            if (!n.can_port_80 || !at.is_valid() || calls_.size() >= kMaxAsked) continue;
            const std::string challenge = "ts_" + n.host_name;
            platform::HttpRequest request;
            request.url = "http://" + at.str() + "/generate_204";
            request.headers = {{"X-Tailscale-Challenge", challenge}};
            request.timeout = kPatience;
            request.max_body_bytes = 4096;  // a longer one fails, and says nothing
            ++waiting_;
            calls_.push_back(http.send(std::move(request), [this, i = calls_.size(), challenge](const Result<platform::HttpResponse>& r) {
                answered(i, challenge, r);
            }));
        }
    timer_.set_after(waiting_ == 0 ? Duration{} : kPatience);
}

void CaptivePortalProbe::answered(size_t i, const std::string& challenge, const Result<platform::HttpResponse>& r) {
    calls_[i].reset();
    --waiting_;
    // Too long an answer is an answer too, and none of a relay.
    if (r) found_ = found_.value_or(false) || r->status != 204 || r->header("X-Tailscale-Response") != "response " + challenge;
    if (!r && r.error().code == Code::kLimit) found_ = true;
    if (waiting_ == 0 || found_.value_or(false)) timer_.set_after({});
}

void CaptivePortalProbe::finish() {
    calls_.clear();
    const Done done = std::move(done_);
    done(found_);  // last
}

// ---- relays ----------------------------------------------------------------------------------------------------------

RelayChecks::~RelayChecks() = default;

bool RelayChecks::run(std::shared_ptr<const derp::DerpMap> map, const std::string& plain_control, Done done) {
    if (waiting_.size() >= kMaxWaiting) return false;
    waiting_.push_back(std::move(done));
    if (waiting_.size() > 1) return true;
    entries_.clear();
    next_ = running_ = 0;
    captive_.reset();
    if (!map) map = std::make_shared<const derp::DerpMap>();
    for (const auto& [id, region] : map->regions)
        for (const derp::DerpNode& n : region.nodes) {
            if (n.stun_only || entries_.size() >= kMaxNodes) continue;
            Entry e;
            e.region = id;
            e.node = n.name;
            if (auto target = relay_target(n, plain_control)) {
                e.target = std::move(*target);
            } else {
                e.target.host = n.host_name;
                e.target.port = n.effective_derp_port();
                e.good = false;
                e.problems.push_back("map: " + target.error().message());
            }
            entries_.push_back(std::move(e));
        }
    portal_ = std::make_unique<CaptivePortalProbe>(dialer_.loop(), http_, *map, [this](std::optional<bool> found) {
        captive_ = found;
        dialer_.loop().post([old = std::shared_ptr<CaptivePortalProbe>(std::move(portal_))] {});
        finish_if_over();
    });
    start_more();
    return true;
}

void RelayChecks::start_more() {
    for (; running_ < kAtOnce && next_ < entries_.size(); ++next_) {
        Entry& e = entries_[next_];
        if (!e.good) continue;  // its entry in the map is
        ++running_;
        e.check = std::make_unique<relaycheck::RelayCheck>(
            dialer_, random_, e.target,
            [&e](const relaycheck::Step& s) { (s.kind == relaycheck::Kind::kBad ? e.problems : e.steps).push_back(s.text); },
            [this, &e] {
                e.good = e.check->good();
                e.latency = e.check->latency();
                e.reached = e.check->reached();
                e.check.reset();
                --running_;
                start_more();
                finish_if_over();
            });
    }
}

void RelayChecks::finish_if_over() {
    if (portal_ || running_ > 0 || next_ < entries_.size() || waiting_.empty()) return;
    api::JsonText out;
    out.open_object().key("Relays").open_array();
    for (const Entry& e : entries_) {
        out.open_object().field("RegionID", static_cast<int64_t>(e.region)).field("Node", e.node).field("Host", e.target.host);
        out.field("Port", static_cast<int64_t>(e.target.port)).field("Good", e.good);
        if (e.latency) out.key("LatencySeconds").number(e.latency->seconds());
        if (e.latency) out.field("IPv6", e.reached.addr.is_v6());
        using Empty = api::JsonText::Empty;
        out.list("Problems", e.problems, Empty::kArray).list("Steps", e.steps, Empty::kArray).close_object();
    }
    out.close_array().raw_field("CaptivePortal", !captive_ ? "null" : *captive_ ? "true" : "false").close_object();
    const std::string json = out.take();
    entries_.clear();
    for (const Done& done : std::exchange(waiting_, {})) done(json);
}

}  // namespace mesh::daemon
