// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// ControlClient keeps this node known to a control server: it fetches the server's key, dials /ts2021, registers, polls
/// the map and sends updates, for as long as it exists, and gives up on nothing but a stop(). It lives on the control
/// loop; every call and callback happens there. The map it gave last stays valid while the server is away.
///
/// Order of one life: login() → [on_auth_url]* → on_logged_in → start_map() → on_netmap*; update() at any time.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/keys.h"
#include "base/random.h"
#include "base/result.h"
#include "tailscaled/control/control.h"
#include "tailscaled/netmap/netmap.h"

namespace mesh::platform {
class Loop;
class Dialer;
class HttpClient;
}  // namespace mesh::platform

namespace mesh::control {

struct LoggedIn {
    NodePrivate node_key;  ///< the key that is registered: store it
    NodePrivate old_node_key;
    netmap::UserProfile user;
    bool machine_authorized = false;
};

class ControlClient {
   public:
    struct Config {
        std::string server_url;  ///< http(s)://host[:port]
        MachinePrivate machine_key;
        std::string user_agent = "tailmesh";
    };

    /// Must outlive the client. A callback may call any method of the client, or destroy it.
    class Listener {
       public:
        virtual ~Listener() = default;
        /// A person has to open this address; the client goes on waiting for that. Only http(s) URLs get here.
        virtual void on_auth_url(const std::string& url) = 0;
        virtual void on_logged_in(const LoggedIn& login) = 0;
        /// The server refused, in its own words. A login by auth key or by wish of a person ends here; one with a stored
        /// key is tried again.
        virtual void on_login_error(const std::string& text) = 0;
        /// `full`: first map of a poll. `changes` are those since the map given last, even over a reconnect.
        virtual void on_netmap(std::shared_ptr<const netmap::NetMap> map, const netmap::PeerChanges& changes) = 0;
        /// Trouble in plain words: what, to which URL, what happens next. "" = all is well again.
        virtual void on_control_error(const std::string& text) = 0;
        /// The server does not know this node (any more), or its key expired, and a person has to log in.
        virtual void on_needs_login() = 0;
        /// Pings other than HEAD and c2n, which the client answers itself: reply by answer_ping.
        virtual void on_ping_request(const PingRequest& /*ping*/) {}
        /// The server asks this program to end (Debug.Exit). The poll ends either way and is opened again later.
        virtual void on_exit_request(int /*code*/) {}
        virtual void on_open_browser(const std::string& /*url*/) {}
        /// The server accepted an update or a poll: it knows the endpoints and home DERP sent last.
        virtual void on_map_accepted() {}
    };

    struct Login {
        NodePrivate node_key;      ///< zero: a new one is made
        NodePrivate old_node_key;  ///< the one before it, zero if none
        std::string auth_key;
        /// A new login was asked for: makes a new node key even if there is one (it becomes the old one).
        bool interactive = false;
        Hostinfo hostinfo;
        bool ephemeral = false;
    };

    ControlClient(platform::Loop& loop, platform::Dialer& dialer, platform::HttpClient& http, Random& random,
                  Config config, Listener& listener);
    ~ControlClient();
    ControlClient(const ControlClient&) = delete;
    ControlClient& operator=(const ControlClient&) = delete;

    /// Registers; replaces a login under way.
    void login(Login login);
    /// Starts (or restarts) the map poll. All of this goes into the first request: netcheck first, then this.
    void start_map(DiscoPublic disco, std::vector<TypedEndpoint> endpoints, Hostinfo hostinfo);
    /// New facts about this node; sent once, merged with others while a message is under way.
    void update(Hostinfo hostinfo, std::vector<TypedEndpoint> endpoints, DiscoPublic disco);
    /// Sends the facts once more: a server that forgot this node says so, and on_needs_login follows.
    void check_known();
    /// Tells the server that this key is to expire. `done` runs exactly once, also on failure (within 10 s).
    void logout(std::function<void(Status)> done);
    /// Ends poll, login and connection; nothing is called back afterwards. login() or start_map() starts anew.
    void stop();
    /// The network changed: drop waits and connections that may be dead, try again now.
    void network_changed();
    /// Result of a ping from on_ping_request, a tailcfg.PingResponse as JSON text.
    void answer_ping(const PingRequest& ping, std::string json);

    [[nodiscard]] bool connected() const;   ///< a poll is open and delivered a map
    [[nodiscard]] bool logged_in() const;
    [[nodiscard]] NodePublic node_key() const;
    [[nodiscard]] const std::string& last_error() const;

   private:
    class Core;
    std::unique_ptr<Core> core_;
};

}  // namespace mesh::control
