// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Inside of ControlClient, private to client.cc (connection, login, logout) and client_map.cc (poll, updates, pings).
///
/// Three activities share one connection: login, poll, update. Each has a wish (what the daemon asked for) and a state
/// (what is under way). advance() looks at all of them and starts what can be started; everything that happens ends in
/// a call of advance(). Waits are three timers: connection, login, poll.

#include <map>
#include <optional>
#include <string>

#include "platform/http/http_client.h"
#include "platform/loop/loop.h"
#include "platform/net/dialer.h"
#include "tailscaled/control/backoff.h"
#include "tailscaled/control/client.h"
#include "tailscaled/control/client_connection.h"
#include "tailscaled/control/map_framing.h"
#include "tailscaled/control/map_session.h"

namespace mesh::control {

class ControlClient::Core : public Connection::Owner {
   public:
    Core(platform::Loop& loop, platform::Dialer& dialer, platform::HttpClient& http, Random& random, Config config,
         Listener& listener);
    ~Core() override;

    void login(Login login);
    void start_map(DiscoPublic disco, std::vector<TypedEndpoint> endpoints, Hostinfo hostinfo);
    void update(Hostinfo hostinfo, std::vector<TypedEndpoint> endpoints, DiscoPublic disco);
    void check_known();
    void logout(std::function<void(Status)> done);
    void stop();
    void network_changed();
    void answer_ping(const PingRequest& ping, std::string json);

    [[nodiscard]] bool connected() const { return poll_.has_map; }
    [[nodiscard]] bool logged_in() const { return logged_in_; }
    [[nodiscard]] NodePublic node_key() const { return node_key_.is_zero() ? NodePublic{} : node_key_.public_key(); }
    [[nodiscard]] const std::string& last_error() const { return last_error_; }

   private:
    using Alive = std::weak_ptr<char>;

    /// A request with a short answer. Destroyed = cancelled.
    struct Exchange {
        int32_t stream = 0;
        int status = 0;
        H2Headers headers;
        std::string body;
    };
    using Answer = std::function<void(Result<Exchange>)>;

    /// What the server should know about this node.
    struct Facts {
        DiscoPublic disco;
        std::vector<TypedEndpoint> endpoints;
        Hostinfo hostinfo;
        [[nodiscard]] bool as_good_as(const Facts& o) const {
            return disco == o.disco && endpoints == o.endpoints && hostinfo.basically_equal(o.hostinfo);
        }
    };

    // client.cc: connection
    void advance();
    void ensure_connection();
    void fetch_key();
    void key_fetched(Result<platform::HttpResponse> result);
    void dial();
    void on_connection_up() override;
    void on_connection_down(const Error& why, bool wrong_key) override;
    void connection_failed(const Error& why);
    void drop_connection();
    [[nodiscard]] bool wants_connection() const;
    /// Tells the listener; false if it destroyed the client.
    bool report(std::string text);
    Result<int32_t> post(const std::string& path, std::string body, size_t limit, Answer answer);
    // client.cc: login
    void start_register();
    void registered(Result<Exchange> result);
    void register_failed(const std::string& text);
    void retry_register(const std::string& why, Duration wait);
    void login_succeeded(const RegisterResponse& r);
    void finish_logout(Status s);
    // client_map.cc
    void open_poll();
    void on_poll_event(H2Event& e);
    void poll_ended(const std::string& why);
    void poll_refused(int status, const std::string& text);
    void end_poll();
    [[nodiscard]] Status on_map_json(std::string_view json);
    void send_update();
    void update_answered(Result<Exchange> result);
    void handle_ping(const PingRequest& ping);
    void head_ping(const std::string& url);
    void c2n_ping(const PingRequest& ping);
    void post_to(const PingRequest& ping, std::string body);
    [[nodiscard]] std::string noise_path(const std::string& url) const;
    [[nodiscard]] MapRequest map_request(const Facts& facts) const;

    platform::Loop& loop_;
    platform::Dialer& dialer_;
    platform::HttpClient& http_;
    Random& random_;
    Config config_;
    Listener& listener_;
    std::shared_ptr<char> alive_ = std::make_shared<char>();
    std::string last_error_;

    // connection
    Result<http1::Url> url_;
    std::optional<MachinePublic> server_key_;
    std::optional<MachinePublic> known_key_;  // of this run, to notice a change
    Time last_dial_;
    Backoff connect_backoff_;
    bool waiting_to_connect_ = false;

    // login
    std::optional<Login> login_;  // the wish; gone once fulfilled or refused
    NodePrivate try_key_, try_old_key_;
    bool try_key_is_new_ = false;
    bool replaced_expired_key_ = false;
    std::string followup_;
    int32_t register_stream_ = 0;
    bool waiting_to_register_ = false;
    Backoff register_backoff_;
    bool logged_in_ = false;
    bool relogin_ = false;    // our own idea, after the server forgot this node
    bool forgotten_ = false;  // the server does not know node_key_: no poll until a login
    NodePrivate node_key_, old_node_key_;
    Hostinfo login_hostinfo_;
    std::function<void(Status)> logout_done_;
    int32_t logout_stream_ = 0;

    // poll and updates
    bool want_map_ = false;
    Facts facts_;
    struct Poll {
        int32_t stream = 0;
        bool accepted = false;
        bool has_map = false;
        int status = 0;
        std::string error_body;
        Facts sent;
    } poll_;
    MapSession session_;
    std::shared_ptr<MapFrameReader> frames_;
    Backoff poll_backoff_;
    bool waiting_to_poll_ = false;
    std::optional<Facts> known_facts_;  // what the server accepted last
    std::optional<Facts> update_sent_;
    int32_t update_stream_ = 0;
    Backoff update_backoff_;
    bool waiting_to_update_ = false;

    uint64_t next_ping_ = 0;
    std::map<uint64_t, std::unique_ptr<platform::HttpClient::Call>> pings_;

    // Last members: their callbacks must not see the rest half destroyed.
    std::unique_ptr<platform::HttpClient::Call> key_call_;
    platform::Timer connect_timer_, register_timer_, register_deadline_, poll_timer_, watchdog_, update_timer_,
        logout_timer_;
    std::unique_ptr<Connection> connection_;
};

}  // namespace mesh::control
