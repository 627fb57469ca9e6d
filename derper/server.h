// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Listeners, connections and the relay between them, on one loop.

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/keys.h"
#include "base/random.h"
#include "base/result.h"
#include "derper/connection.h"
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
        std::optional<std::string> whois_socket{};  ///< set: ask this tailscaled about every client
        Duration write_timeout = seconds(2);
        size_t max_connections = 65536;
    };
    /// Both must outlive the server.
    Server(platform::Loop& loop, Random& random, Config config);
    ~Server() override;

    /// TLS for connections accepted from now on; nullptr = plain HTTP.
    void set_tls(std::shared_ptr<const platform::TlsServerContext> tls) { tls_ = std::move(tls); }
    /// An address for all interfaces listens on both families, or on the one the host has.
    [[nodiscard]] Status listen(const ListenAddress& at, Service service);
    /// Of the first listener.
    [[nodiscard]] uint16_t port() const;
    [[nodiscard]] const RelayStats& stats() const { return relay_.stats(); }
    [[nodiscard]] size_t connections() const { return connections_.size(); }

   private:
    platform::Loop& loop() override { return loop_; }
    Random& random() override { return random_; }
    Relay& relay() override { return relay_; }
    const NodePrivate& key() override { return config_.key; }
    const std::optional<std::string>& whois_socket() override { return config_.whois_socket; }
    Duration write_timeout() override { return config_.write_timeout; }
    void flush() override;
    void closed(ConnId id) override;
    void accept(Service service, platform::ByteStream stream);

    platform::Loop& loop_;
    Random& random_;
    Config config_;
    std::shared_ptr<const platform::TlsServerContext> tls_;
    Relay relay_;
    ConnId next_id_ = 1;
    bool flushing_ = false;
    std::map<ConnId, std::unique_ptr<Connection>> connections_;
    std::vector<std::unique_ptr<Connection>> graveyard_;
    platform::Timer bury_;
    std::vector<std::unique_ptr<platform::Listener>> listeners_;
};

}  // namespace mesh::derper
