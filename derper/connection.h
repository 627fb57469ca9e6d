// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// One accepted TCP connection: TLS below, HTTP first, DERP after the upgrade, in WebSocket frames if that was asked for. A shell: it moves bytes between the
/// stream and the pure ServerSession and keeps one timer.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/http1.h"
#include "derper/admission.h"
#include "derper/pages.h"
#include "derper/rate.h"
#include "derper/relay.h"
#include "derper/websocket.h"
#include "magicsock/derp/server_session.h"
#include "platform/loop/loop.h"
#include "platform/net/byte_stream.h"

namespace mesh::derper {

class Connection;

/// Times of a connection that the operator may choose.
struct Patience {
    Duration write_timeout = seconds(2);  ///< a client whose socket takes nothing for that long is dropped; 0 = never
    Duration keepalive_time = minutes(10);
    Duration user_timeout = seconds(15);
};

/// What strangers meet before they are clients; on the front only. Implemented by Server.
class Door {
   public:
    virtual ~Door() = default;
    virtual const NodePrivate& key() = 0;
    virtual const AdmissionPolicy& admission() = 0;
    /// Only if the policy has a URL.
    virtual platform::HttpClient* http_client() = 0;
    virtual const LockedKey& mesh_key() = 0;
    virtual const std::vector<Prefix>& trusted_proxies() = 0;
    virtual bool serves_derp() = 0;
    /// Everything but /derp.
    virtual http1::Response page(const http1::Request& request, const Asker& who) = 0;
    virtual void count_rejected() = 0;
    virtual void count_websocket() = 0;
    /// The connection is a client's from now on.
    virtual void logged_in(ConnId id) = 0;
};

/// What a client takes along when it moves to its home loop.
struct MovingClient {
    ConnId id = 0;
    Endpoint remote;
    bool not_ideal = false;
    size_t unconfirmed = 0;
    std::unique_ptr<derp::ServerSession> session{};  ///< with what it has read and not used, before accept()
    std::unique_ptr<WebSocketReader> websocket{};
    platform::ByteStream stream{};  ///< detached
};

/// What the connections of one loop share; implemented by Shard.
class ConnectionHost {
   public:
    virtual ~ConnectionHost() = default;
    virtual platform::Loop& loop() = 0;
    virtual Random& random() = 0;
    virtual Relay& relay() = 0;
    virtual const Patience& patience() = 0;
    virtual const RateLimit& client_rate() = 0;
    /// Of all clients together.
    virtual SharedBucket& shared_bucket() = 0;
    /// On loops that take over clients only: not to be called.
    virtual Door& door() = 0;
    /// Whether clients with that key live on this loop.
    virtual bool is_home(const NodePublic& key) = 0;
    /// The client goes to its home, the connection is over.
    virtual void move_out(MovingClient client) = 0;
    /// Another loop is behind with what clients here sent it: that one shall not be read until room() is called.
    virtual bool must_wait(ConnId id) = 0;
    virtual void count_session(const derp::ServerSessionStats& stats) = 0;
    /// A mesh peer wants that client out.
    virtual void close_peer(const NodePublic& key) = 0;
    /// What the relay queued at other connections is written before the loop waits again.
    virtual void flush_soon() = 0;
    /// Writes what is queued at that connection.
    virtual void write_now(ConnId id) = 0;
    /// The connection is over; it is destroyed in a later turn.
    virtual void closed(ConnId id) = 0;
};

enum class Service : uint8_t { kDerp, kPort80 };

class Connection final : private platform::ByteStream::Listener {
   public:
    Connection(ConnectionHost& host, ConnId id, Service service, platform::ByteStream stream);
    /// At its new home; begin() once the host can find it.
    Connection(ConnectionHost& host, MovingClient client);
    void begin();
    ~Connection() override;

    [[nodiscard]] ConnId id() const { return id_; }
    /// Sends what the session has, as far as the socket takes it.
    void pump();
    /// The host's rate limit changed.
    void rate_changed();
    /// After must_wait().
    void room();
    /// nullptr before the upgrade.
    [[nodiscard]] const derp::ServerSession* session() const { return session_.get(); }
    void close(const std::string& why);
    /// Tells the client when to return, if there is one, and ends the connection when it has taken what was waiting.
    void leave(Duration reconnect_in, Duration try_for);

   private:
    enum class Phase : uint8_t { kHttp, kLogin, kChecking, kMoving, kOpen, kFarewell, kClosed };

    void on_bytes(MutByteSpan bytes) override;
    void on_closed(const Status& why) override;
    void on_drained() override;

    void read_http(MutByteSpan bytes);
    /// False: the connection does not go on to a next request.
    bool answer(const http1::Request& request);
    bool start_derp(const http1::Request& request, Upgrade upgrade);
    void feed_stream(MutByteSpan bytes);
    void feed_websocket(MutByteSpan bytes);
    void read_frames();
    void charge(size_t bytes);
    void handle(const derp::ServerEvent& event);
    void check_client();
    void let_in();
    void admit();
    void move_out();
    void resume();
    void say_goodbye();
    void arm();
    void on_timer();

    ConnectionHost& host_;
    const ConnId id_;
    const Service service_;
    bool not_ideal_ = false;
    bool waits_for_room_ = false;
    Endpoint remote_;  // behind a trusted proxy the client's address with port 0
    Phase phase_ = Phase::kHttp;
    std::unique_ptr<http1::Parser> http_;
    std::unique_ptr<derp::ServerSession> session_;
    std::unique_ptr<Admission> check_;
    std::unique_ptr<WebSocketReader> websocket_;
    std::optional<TokenBucket> bucket_;
    Time resume_at_ = Time::never();  // reading is stopped until then
    Time http_deadline_;
    size_t unconfirmed_ = 0;  // bytes of the session that the kernel has not taken yet
    platform::Timer timer_;
    platform::ByteStream stream_;
};

}  // namespace mesh::derper
