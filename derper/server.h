// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The relay as a whole: listeners, what strangers meet (TLS, pages, admission), and the loops on which clients live. The
/// loop it is made on is the front and has its share of the clients; every further one has a thread.

#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
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
#include "derper/shard.h"
#include "platform/loop/loop.h"
#include "platform/net/listener.h"
#include "platform/tls/tls.h"

namespace mesh::derper {

class Server final : private Door {
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
        size_t loops = 1;  ///< 1..kMaxLoops
        std::string version{};
    };
    /// Both must outlive the server; `random` is threadsafe if there are several loops.
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
    void on_flush(std::function<void()> then) { front().on_flush(std::move(then)); }
    /// The front's, which mesh links deal with.
    [[nodiscard]] Relay& relay() { return front().relay(); }
    void flush_soon() { front().flush_soon(); }
    /// An address for all interfaces listens on both families, or on the one the host has.
    [[nodiscard]] Status listen(const ListenAddress& at, Service service);
    /// A socket that listens already.
    [[nodiscard]] Status adopt(platform::UniqueFd listening, Service service);
    /// Takes nobody new and sends everybody away, with a word about when to return; over when connections() is 0.
    void leave();
    /// Of the first listener.
    [[nodiscard]] uint16_t port() const;
    /// Of all loops together; those that do not answer at once count as they did before.
    [[nodiscard]] RelayStats stats() { return everything().relay; }
    [[nodiscard]] size_t connections() const { return crew_.connections; }
    /// The most there were at once since the last call.
    [[nodiscard]] size_t take_peak_connections() { return std::exchange(peak_, connections()); }

   private:
    /// A loop beside the front.
    struct Helper {
        std::unique_ptr<platform::Loop> loop;
        std::unique_ptr<Shard> shard;
        std::thread thread;
    };

    const NodePrivate& key() override { return config_.key; }
    const AdmissionPolicy& admission() override { return config_.admission; }
    platform::HttpClient* http_client() override { return config_.http; }
    const LockedKey& mesh_key() override { return config_.mesh_key; }
    const std::vector<Prefix>& trusted_proxies() override { return config_.trusted_proxies; }
    bool serves_derp() override { return config_.derp; }
    http1::Response page(const http1::Request& request, const Asker& who) override;
    void count_rejected() override { ++counts_.clients_rejected; }
    void count_websocket() override { ++counts_.websocket_accepts; }
    void logged_in(ConnId id) override { strangers_.erase(id); }

    [[nodiscard]] Shard& front() { return *front_; }
    /// On every loop, here at once.
    void post_all(const Shard::Task& task);
    /// The same, and waits until all are through, but not forever.
    void ask_all(const Shard::Task& task);
    /// What all loops counted.
    [[nodiscard]] Metrics everything();
    [[nodiscard]] Metrics metrics();
    [[nodiscard]] platform::Listener::OnAccept acceptor(Service service);
    void accept(Service service, platform::ByteStream stream);
    [[nodiscard]] bool lets_in(const Addr& source);

    platform::Loop& loop_;
    Config config_;
    std::shared_ptr<const platform::TlsServerContext> tls_;
    Gate gate_;
    Metrics counts_;
    std::function<void(Metrics&)> add_metrics_;
    std::function<http1::Response(const http1::Request&)> bootstrap_;
    ConnId next_id_ = 1;
    size_t peak_ = 0;
    std::set<ConnId> strangers_;  // connections that are no client's (yet), oldest first
    Crew crew_;
    std::unique_ptr<Shard> front_;
    std::vector<Helper> helpers_;
    std::vector<Metrics> last_;  // what each loop counted when it was asked last
    std::vector<std::unique_ptr<platform::Listener>> listeners_;
};

}  // namespace mesh::derper
