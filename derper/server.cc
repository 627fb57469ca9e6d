// SPDX-License-Identifier: BSD-3-Clause
#include "derper/server.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "derper/bootstrap_dns.h"

namespace mesh::derper {
namespace {
/// Connections that are no client's (yet) may be this part of all.
constexpr size_t kStrangersShare = 4;
constexpr size_t kMinStrangers = 64;
/// After a restart one client a millisecond returns.
constexpr size_t kLeastSpreadMs = 100;
constexpr size_t kMostSpreadMs = 10'000;
/// A loop whose turn takes longer is not waited for.
constexpr std::chrono::milliseconds kAnswerWithin{250};
}  // namespace

Server::Server(platform::Loop& loop, Random& random, Config config)
    : loop_(loop),
      config_(std::move(config)),
      gate_(random, config_.accept_rate, config_.accept_burst, loop.now()),
      crew_{.random = random, .patience = config_.patience} {
    counts_.started = loop.wall().unix_ns / 1'000'000'000;
    counts_.version = config_.version;
    CHECK(config_.loops >= 1 && config_.loops <= kMaxLoops);
    random.fill(crew_.home_key);
    crew_.shards.resize(config_.loops);
    last_.resize(config_.loops);
    Door* const door = this;  // make_unique has no access to the private base
    front_ = std::make_unique<Shard>(loop, crew_, kFront, door);
    crew_.shards[kFront] = front_.get();
    for (size_t i = kFront + 1; i < config_.loops; ++i) {
        Helper& h = helpers_.emplace_back();
        h.loop = std::make_unique<platform::Loop>();
        h.shard = std::make_unique<Shard>(*h.loop, crew_, i, nullptr);
        crew_.shards[i] = h.shard.get();
    }
    for (Helper& h : helpers_) h.thread = std::thread([l = h.loop.get()] { l->run(); });
    set_rate(config_.rate);
}

Server::~Server() {
    for (Helper& h : helpers_) h.loop->stop();
    for (Helper& h : helpers_) h.thread.join();
}

void Server::post_all(const Shard::Task& task) {
    task(*front_);
    for (Helper& h : helpers_) h.shard->post(task);
}

void Server::ask_all(const Shard::Task& task) {
    struct Answers {
        std::mutex mutex;
        std::condition_variable all;
        size_t missing = 0;
    };
    const auto answers = std::make_shared<Answers>();
    answers->missing = helpers_.size();
    for (Helper& h : helpers_)
        h.shard->post([task, answers](Shard& shard) {
            task(shard);
            const std::lock_guard lock(answers->mutex);
            if (--answers->missing == 0) answers->all.notify_one();
        });
    task(*front_);
    std::unique_lock lock(answers->mutex);
    answers->all.wait_for(lock, kAnswerWithin, [&] { return answers->missing == 0; });
}

platform::Listener::OnAccept Server::acceptor(Service service) {
    return [this, service](platform::ByteStream stream) { accept(service, std::move(stream)); };
}

Status Server::adopt(platform::UniqueFd listening, Service service) {
    TRY_ASSIGN(auto listener, platform::Listener::adopt(loop_, std::move(listening), acceptor(service)));
    listeners_.push_back(std::move(listener));
    return {};
}

Status Server::listen(const ListenAddress& at, Service service) {
    const auto on_accept = acceptor(service);
    if (at.addr.is_valid()) {
        TRY_ASSIGN(auto listener, platform::Listener::tcp(loop_, {at.addr, at.port}, on_accept));
        listeners_.push_back(std::move(listener));
        return {};
    }
    const uint8_t any6[16] = {};
    auto both = platform::Listener::tcp(loop_, {Addr::v6_bytes(any6), at.port}, on_accept,
                                        platform::Listener::TcpOptions{.v6_only = false});
    if (!both) both = platform::Listener::tcp(loop_, {Addr::v4(0), at.port}, on_accept);
    if (!both) return tl::unexpected(std::move(both.error()));
    listeners_.push_back(std::move(*both));
    return {};
}

uint16_t Server::port() const { return listeners_.front()->port(); }

void Server::accept(Service service, platform::ByteStream stream) {
    // Refusing is better than running out of descriptors, which would hurt those who are in.
    ++counts_.tcp_accepted;
    if (connections() >= config_.max_connections) {
        ++counts_.tcp_refused_full;
        return;
    }
    if (service == Service::kDerp && !lets_in(stream.remote_endpoint().addr)) return;
    if (service == Service::kDerp && tls_) {
        auto tls = platform::TlsSession::server(tls_);
        if (!tls) {
            log::info("derper: TLS: {}", tls.error().message());
            return;
        }
        stream.start_tls(std::move(*tls));
    }
    const ConnId id = next_id_++;
    front().accept(id, service, std::move(stream));
    peak_ = std::max(peak_, ++crew_.connections);
    strangers_.insert(id);
    if (strangers_.size() <= std::max<size_t>(config_.max_connections / kStrangersShare, kMinStrangers)) return;
    // Whoever holds connections without logging in loses the oldest; who logs in is in long before.
    ++counts_.tcp_refused_full;
    front().connection(*strangers_.begin()).close("too many connections that did not log in");
}

bool Server::lets_in(const Addr& source) {
    const bool is_proxy = source.is_loopback() || std::any_of(config_.trusted_proxies.begin(), config_.trusted_proxies.end(),
                                                              [&source](const Prefix& p) { return p.contains(source); });
    switch (gate_.ask(is_proxy ? Addr() : source, loop_.now())) {
        case Gate::Verdict::kOpen: return true;
        case Gate::Verdict::kTooManyOfSource: ++counts_.tcp_refused_source; break;
        case Gate::Verdict::kTooMany: ++counts_.tcp_refused_rate; break;
    }
    return false;
}

void Server::leave() {
    listeners_.clear();
    // First everything that is under way from loop to loop; then nobody tells of anybody's departure, before the first departs.
    ask_all([](Shard& s) { s.flush(); });
    front().read_inbox();
    ask_all([](Shard& s) { s.fall_silent(); });
    // All at once would be a stampede.
    const auto spread = static_cast<uint32_t>(std::clamp<size_t>(connections(), kLeastSpreadMs, kMostSpreadMs));
    post_all([spread](Shard& s) { s.leave(spread); });
}

http1::Response Server::page(const http1::Request& request, const Asker& who) {
    const std::string_view path = path_of(request);
    if (path == "/bootstrap-dns") return bootstrap_ ? bootstrap_(request) : answer_bootstrap(request, {}, {});
    const bool is_debug = path == "/debug" || path.starts_with("/debug/");
    if (!is_debug && path != "/metrics") return answer_page(request, config_.home);
    const bool allowed =
        who.certain && (is_debug ? who.addr.is_loopback()
                                 : std::any_of(config_.metrics_from.begin(), config_.metrics_from.end(),
                                               [&who](const Prefix& p) { return p.contains(who.addr); }));
    if (!allowed) return text_page(403, is_debug ? "for loopback only\n" : "not for this address; see -metrics-from\n");
    if (request.method != "GET" && request.method != "HEAD") return text_page(405, "method not allowed\n");
    http1::Response r;
    if (path == "/metrics" || path == "/debug/varz")
        r = text_page(200, metrics_text(metrics()));
    else if (path == "/debug" || path == "/debug/")
        r = text_page(200, "/debug/varz\n");
    else
        r = text_page(404, "404 page not found\n");
    if (request.method == "HEAD") r.body.clear();
    return r;
}

Metrics Server::everything() {
    struct Counted {
        std::mutex mutex;
        std::vector<Metrics> by_loop;  // guarded by mutex
    };
    const auto counted = std::make_shared<Counted>();
    counted->by_loop = last_;
    ask_all([counted](Shard& s) {
        Metrics m;
        s.add_metrics(m);
        const std::lock_guard lock(counted->mutex);
        counted->by_loop[s.index()] = std::move(m);
    });
    const std::lock_guard lock(counted->mutex);
    last_ = counted->by_loop;
    Metrics sum = counts_;
    for (const Metrics& m : last_) {
        sum.relay += m.relay;
        sum.sessions += m.sessions;
    }
    return sum;
}

Metrics Server::metrics() {
    Metrics m = everything();
    m.loops = config_.loops;
    m.tcp_open = connections();
    if (add_metrics_) add_metrics_(m);
    return m;
}

void Server::set_allowed(std::shared_ptr<const KeySet> keys) {
    config_.admission.allowed = std::move(keys);
    if (const auto& allowed = config_.admission.allowed) post_all([allowed](Shard& s) { s.set_allowed(*allowed); });
}

void Server::set_rate(const RateConfig& rate) {
    config_.rate = rate;
    crew_.bucket.set(rate.all, loop_.now());
    post_all([each = rate.client](Shard& s) { s.set_rate(each); });
}

}  // namespace mesh::derper
