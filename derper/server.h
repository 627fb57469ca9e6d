// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Listeners, connections and the relay between them, on one loop.

#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/keys.h"
#include "base/random.h"
#include "base/result.h"
#include "derper/connection.h"
#include "derper/gate.h"
#include "derper/metrics.h"
#include "derper/options.h"
#include "derper/relay.h"
#include "platform/loop/loop.h"
#include "platform/net/listener.h"
#include "platform/tls/tls.h"

namespace mesh::derper {

class Server final : private ConnectionHost {
   public:
    struct Config {
        NodePrivate key{};
        AdmissionPolicy admission{};
        platform::HttpClient* http = nullptr;  ///< for the URL of the policy; must outlive the server
        Patience patience{};
        LockedKey mesh_key{};                  ///< zero: no mesh
        RateConfig rate{};
        double accept_rate = std::numeric_limits<double>::infinity();  ///< connections a second; see Gate
        double accept_burst = 1e18;
        std::vector<Prefix> trusted_proxies{};
        std::vector<Prefix> metrics_from{};
        std::string home{};
        bool derp = true;
        size_t max_connections = 65536;
        std::string version{};
    };
    /// Both must outlive the server.
    Server(platform::Loop& loop, Random& random, Config config);
    ~Server() override;

    /// TLS for connections accepted from now on; nullptr = plain HTTP.
    void set_tls(std::shared_ptr<const platform::TlsServerContext> tls) { tls_ = std::move(tls); }
    /// Who is in and not on the new list is disconnected, mesh peers excepted.
    void set_allowed(std::shared_ptr<const KeySet> keys);
    void set_rate(const RateConfig& rate);
    /// What the server does not know itself is added to the metrics here.
    void on_metrics(std::function<void(Metrics&)> add) { add_metrics_ = std::move(add); }
    /// Answers /bootstrap-dns.
    void on_bootstrap(std::function<http1::Response(const http1::Request&)> answer) { bootstrap_ = std::move(answer); }
    /// Called at the end of every flush, once a turn at most: mesh links send what they were given.
    void on_flush(std::function<void()> then) { after_flush_ = std::move(then); }
    [[nodiscard]] Relay& relay() override { return relay_; }
    void flush_soon() override { turn_end_.want(); }
    /// An address for all interfaces listens on both families, or on the one the host has.
    [[nodiscard]] Status listen(const ListenAddress& at, Service service);
    /// A socket that listens already.
    [[nodiscard]] Status adopt(platform::UniqueFd listening, Service service);
    /// Takes nobody new and sends everybody away, with a word about when to return; over when connections() is 0.
    void leave();
    /// Of the first listener.
    [[nodiscard]] uint16_t port() const;
    [[nodiscard]] const RelayStats& stats() const { return relay_.stats(); }
    [[nodiscard]] size_t connections() const { return connections_.size(); }
    /// The most there were at once since the last call.
    [[nodiscard]] size_t take_peak_connections() { return std::exchange(peak_, connections_.size()); }

   private:
    platform::Loop& loop() override { return loop_; }
    Random& random() override { return random_; }
    const NodePrivate& key() override { return config_.key; }
    const AdmissionPolicy& admission() override { return config_.admission; }
    platform::HttpClient* http_client() override { return config_.http; }
    const Patience& patience() override { return config_.patience; }
    const LockedKey& mesh_key() override { return config_.mesh_key; }
    const RateLimit& client_rate() override { return config_.rate.client; }
    TokenBucket* shared_bucket() override { return shared_ ? &*shared_ : nullptr; }
    void logged_in(ConnId id) override { strangers_.erase(id); }
    const std::vector<Prefix>& trusted_proxies() override { return config_.trusted_proxies; }
    bool serves_derp() override { return config_.derp; }
    http1::Response page(const http1::Request& request, const Asker& who) override;
    void count_rejected() override { ++counts_.clients_rejected; }
    void count_websocket() override { ++counts_.websocket_accepts; }
    void count_session(const derp::ServerSessionStats& stats) override;
    void close_peer(const NodePublic& key) override;
    [[nodiscard]] Metrics metrics() const;
    void flush();
    void write_now(ConnId id) override;
    void closed(ConnId id) override;
    [[nodiscard]] platform::Listener::OnAccept acceptor(Service service);
    void accept(Service service, platform::ByteStream stream);
    [[nodiscard]] bool lets_in(const Addr& source);

    platform::Loop& loop_;
    Random& random_;
    Config config_;
    std::shared_ptr<const platform::TlsServerContext> tls_;
    Relay relay_;
    Gate gate_;
    std::optional<TokenBucket> shared_;
    Metrics counts_;
    std::function<void(Metrics&)> add_metrics_;
    std::function<http1::Response(const http1::Request&)> bootstrap_;
    std::function<void()> after_flush_;
    ConnId next_id_ = 1;
    bool flushing_ = false;
    size_t peak_ = 0;
    std::unordered_map<ConnId, std::unique_ptr<Connection>> connections_;
    std::set<ConnId> strangers_;  // connections that are no client's (yet), oldest first
    std::vector<std::unique_ptr<Connection>> graveyard_;
    platform::Timer bury_;
    platform::TurnEnd turn_end_;
    std::vector<std::unique_ptr<platform::Listener>> listeners_;
};

}  // namespace mesh::derper
