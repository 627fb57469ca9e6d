// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/derp_dialer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "base/log.h"
#include "platform/tls/certificate.h"

namespace mesh::daemon {

using derp::DerpNode;
using derp::Reach;

namespace {
constexpr Duration kLoginTimeout = seconds(10);
constexpr Duration kRetryMax = seconds(5);
constexpr Duration kStable = seconds(10);  // a connection that lasted this long was a good one

platform::DialOptions::Family families(const DerpNode& node) {
    using F = platform::DialOptions::Family;
    if (node.reach_v6() == Reach::kNever) return F::kOnlyV4;
    if (node.reach_v4() == Reach::kNever) return F::kOnlyV6;
    return F::kPreferV4;
}
}  // namespace

/// One pass over the nodes of a region. Calls its dialer exactly once at the end; that call may destroy it.
class DerpDialer::Attempt final : public platform::ByteStream::Listener {
   public:
    Attempt(DerpDialer& owner, const derp::DerpRegion& region)
        : owner_(owner), region_(region), timeout_(owner.dialer_.loop(), [this] { next_or_fail("no answer within 10 s"); }) {}

    void start() { dial(); }

   private:
    void dial() {
        while (index_ < region_.nodes.size() && region_.nodes[index_].stun_only) ++index_;
        if (index_ >= region_.nodes.size()) {
            const std::string why = error_.empty() ? fmt::format("region {} has no DERP node", region_.id) : error_;
            owner_.failed(region_.id, why);
            return;
        }
        const DerpNode& node = region_.nodes[index_];
        platform::DialOptions options;
        options.family = families(node);
        options.timeout = kLoginTimeout;
        for (const Addr& a : {node.literal_v4(), node.literal_v6()})
            if (a.is_valid()) options.addresses.push_back(a);
        if (!plain_) {
            auto tls = platform::derp_tls_options(node.host_name, node.cert_name, node.insecure_for_tests);
            if (!tls) return next_or_fail(tls.error().message());
            options.tls = std::move(*tls);
        }
        dial_ = owner_.dialer_.dial(node.host_name, node.effective_derp_port(), std::move(options),
                                    [this](Result<platform::ByteStream> r) {
                                        if (!r) return next_or_fail(r.error().message());
                                        connected(std::move(*r));
                                    });
    }

    void connected(platform::ByteStream stream) {
        const DerpNode& node = region_.nodes[index_];
        dial_.reset();
        stream_ = std::move(stream);
        derp::ClientConfig config;
        config.node_key = owner_.node_key_;
        session_ = std::make_unique<derp::ClientSession>(owner_.random_, std::move(config));
        derp::ClientStart start;
        start.host = node.http_host();
        if (index_ > 0) start.ideal_node = region_.nodes[0].name;
        where_ = stream_.remote_endpoint().str() + (stream_.tls() ? " (" + stream_.tls()->version() + ")" : " (plain HTTP)");
        if (const auto* tls = stream_.tls(); tls && tls->version() == "TLSv1.3")
            if (const auto meta = platform::find_derp_meta(tls->peer_chain()); meta && meta->version == platform::kDerpMetaVersion)
                start.fast_start_key = meta->server_key;
        const Time now = owner_.dialer_.loop().now();
        timeout_.set(now + kLoginTimeout);
        stream_.attach(owner_.dialer_.loop(), *this);
        session_->start(start, now);
        pump(now);
    }

    void pump(Time now) {
        for (ByteSpan out = session_->writable(now); !out.empty(); out = session_->writable(now)) {
            const size_t n = out.size();
            if (!stream_.write(out)) break;
            session_->wrote(n, now);
        }
    }

    void on_bytes(MutByteSpan bytes) override {
        const Time now = owner_.dialer_.loop().now();
        session_->feed(bytes, now);
        // Everything after the login stays in the session; the packet loop asks for it.
        while (const derp::Event* e = session_->next_event(now)) {
            if (e->kind == derp::Event::Kind::kError) return next_or_fail(e->error.message());
            if (e->kind != derp::Event::Kind::kConnected) continue;
            stream_.detach();
            owner_.done(region_.id, DerpLink{region_.id, std::move(stream_), std::move(session_), where_});
            return;
        }
        pump(now);
    }

    void on_closed(const Status& why) override {
        next_or_fail(why ? fmt::format("{} closed the connection before the login was complete (a relay with -verify-clients "
                                       "does that to nodes it does not know)", where_)
                         : why.error().message());
    }

    void next_or_fail(const std::string& why) {
        dial_.reset();
        timeout_.cancel();
        const bool reached = stream_.is_open();
        stream_.close();
        session_.reset();
        if (!plain_ && owner_.may_be_plain(region_.nodes[index_]) && !reached) {
            plain_ = true;
            tls_error_ = why;
            return dial();
        }
        if (!error_.empty()) error_ += "; ";
        error_ += tls_error_.empty() ? why : tls_error_;
        tls_error_.clear();
        plain_ = false;
        ++index_;
        dial();
    }

    DerpDialer& owner_;
    const derp::DerpRegion region_;
    size_t index_ = 0;
    bool plain_ = std::getenv("TS_DEBUG_USE_DERP_HTTP") != nullptr;
    std::string error_, tls_error_, where_;
    std::unique_ptr<derp::ClientSession> session_;
    std::unique_ptr<platform::Dial> dial_;
    platform::Timer timeout_;
    platform::ByteStream stream_;  // last: dies first
};

DerpDialer::DerpDialer(platform::Dialer& dialer, Random& random, OnLink on_link, OnFailure on_failure)
    : dialer_(dialer), random_(random), on_link_(std::move(on_link)), on_failure_(std::move(on_failure)) {}
DerpDialer::~DerpDialer() = default;

bool DerpDialer::may_be_plain(const DerpNode& node) const {
    // Never a silent downgrade: only where the owner of the map gave up on certificates anyway, or where the relay is
    // the very server whose control channel is plain http.
    return node.insecure_for_tests ||
           (!plain_control_.empty() && plain_control_ == fmt::format("{}:{}", node.host_name, node.effective_derp_port()));
}

void DerpDialer::set_node_key(const NodePrivate& key) {
    if (key == node_key_) return;
    node_key_ = key;
    forget_all();
}

void DerpDialer::set_map(std::shared_ptr<const derp::DerpMap> map) { map_ = std::move(map); }

void DerpDialer::want(int region) {
    if (node_key_.is_zero() || !map_ || !map_->region(region)) return;
    auto [it, fresh] = regions_.try_emplace(region);
    Region& state = it->second;
    if (!fresh && (state.attempt || (state.retry && state.retry->armed()))) return;
    // A relay that lets us in and hangs up is as good as one that does not let us in.
    const bool lasted = dialer_.loop().now() - state.connected_at >= kStable;
    if (!state.connected_at.is_zero()) state.failures = lasted ? 0 : state.failures + 1;
    state.connected_at = {};
    if (state.failures == 0)
        begin(region);
    else
        retry_later(region, state);
}

void DerpDialer::begin(int region) {
    const derp::DerpRegion* r = map_ ? map_->region(region) : nullptr;
    if (!r || node_key_.is_zero()) {
        forget(region);
        return;
    }
    Region& state = regions_[region];
    state.attempt = std::make_unique<Attempt>(*this, *r);
    state.attempt->start();
}

void DerpDialer::failed(int region, const std::string& why) {
    const auto it = regions_.find(region);
    if (it == regions_.end()) return;
    Region& state = it->second;
    // The attempt is on the stack: let it go in a later turn.
    dialer_.loop().post([old = std::shared_ptr<Attempt>(std::move(state.attempt))] {});
    ++state.failures;
    retry_later(region, state);
    on_failure_(region, why);
}

void DerpDialer::retry_later(int region, Region& state) {
    const int64_t base_ms = std::min(kRetryMax.millis(), 50 * state.failures * state.failures);
    const auto jitter = static_cast<int64_t>(random_.below(1001));
    if (!state.retry) state.retry = std::make_unique<platform::Timer>(dialer_.loop(), [this, region] { begin(region); });
    state.retry->set_after(milliseconds(base_ms / 2 + base_ms * jitter / 1000));
}

void DerpDialer::done(int region, DerpLink link) {
    const auto it = regions_.find(region);
    if (it == regions_.end()) return;
    dialer_.loop().post([old = std::shared_ptr<Attempt>(std::move(it->second.attempt))] {});
    it->second.connected_at = dialer_.loop().now();
    on_link_(std::move(link));
}

void DerpDialer::forget(int region) { regions_.erase(region); }
void DerpDialer::forget_all() { regions_.clear(); }

void DerpDialer::retry_now() {
    for (auto& [id, state] : regions_) {
        state.failures = 0;
        state.connected_at = {};  // whatever ends now ends because of the network
        if (state.retry && state.retry->armed()) state.retry->set_after(nanoseconds(0));
    }
}

}  // namespace mesh::daemon
