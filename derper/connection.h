// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// One accepted TCP connection: TLS below, HTTP first, DERP after the upgrade. A shell: it moves bytes between the
/// stream and the pure ServerSession and keeps one timer.

#include <memory>
#include <optional>
#include <string>

#include "base/http1.h"
#include "derper/relay.h"
#include "derper/whois_check.h"
#include "magicsock/derp/server_session.h"
#include "platform/loop/loop.h"
#include "platform/net/byte_stream.h"

namespace mesh::derper {

class Connection;

/// What all connections share; implemented by Server.
class ConnectionHost {
   public:
    virtual ~ConnectionHost() = default;
    virtual platform::Loop& loop() = 0;
    virtual Random& random() = 0;
    virtual Relay& relay() = 0;
    virtual const NodePrivate& key() = 0;
    /// nullopt: everybody is admitted.
    virtual const std::optional<std::string>& whois_socket() = 0;
    /// A client whose socket takes nothing for that long is dropped.
    virtual Duration write_timeout() = 0;
    /// Writes what the relay queued at other connections.
    virtual void flush() = 0;
    /// The connection is over; it is destroyed in a later turn.
    virtual void closed(ConnId id) = 0;
};

enum class Service : uint8_t { kDerp, kPort80 };

class Connection final : private platform::ByteStream::Listener {
   public:
    Connection(ConnectionHost& host, ConnId id, Service service, platform::ByteStream stream);
    ~Connection() override;

    [[nodiscard]] ConnId id() const { return id_; }
    /// Sends what the session has, as far as the socket takes it.
    void pump();

   private:
    enum class Phase : uint8_t { kHttp, kLogin, kChecking, kOpen, kFarewell, kClosed };

    void on_bytes(MutByteSpan bytes) override;
    void on_closed(const Status& why) override;
    void on_drained() override;

    void read_http(ByteSpan bytes);
    /// False: the connection does not go on to a next request.
    bool answer(const http1::Request& request);
    void start_derp(const http1::Request& request);
    void read_frames();
    void handle(const derp::ServerEvent& event);
    void check_client();
    void admit();
    void say_goodbye();
    void close(const std::string& why);
    void arm();
    void on_timer();

    ConnectionHost& host_;
    const ConnId id_;
    const Service service_;
    const Endpoint remote_;
    Phase phase_ = Phase::kHttp;
    std::unique_ptr<http1::Parser> http_;
    std::unique_ptr<derp::ServerSession> session_;
    std::unique_ptr<WhoisCheck> check_;
    Time http_deadline_;
    size_t unconfirmed_ = 0;  // bytes of the session that the kernel has not taken yet
    platform::Timer timer_;
    platform::ByteStream stream_;
};

}  // namespace mesh::derper
