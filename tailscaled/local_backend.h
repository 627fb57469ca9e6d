// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The heart of the control side: holds identity, prefs, login state and network map, and steers control client, packet
/// loop and router by them. One object, one loop; what it decides by are the pure rooms (ipn, netmap, network_plan).

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/secret.h"
#include "platform/http/http_client.h"
#include "platform/linux/net_monitor.h"
#include "platform/linux/repair_limit.h"
#include "platform/linux/router.h"
#include "platform/loop/loop.h"
#include "platform/net/dialer.h"
#include "platform/net/resolver.h"
#include "tailscaled/control/client.h"
#include "tailscaled/derp_dialer.h"
#include "tailscaled/dns_service.h"
#include "tailscaled/engine.h"
#include "tailscaled/file_reads.h"
#include "tailscaled/file_sends.h"
#include "tailscaled/ipn/profile.h"
#include "tailscaled/ipn/state.h"
#include "tailscaled/localapi/backend.h"
#include "tailscaled/network_plan.h"
#include "tailscaled/outgoing_dialer.h"
#include "tailscaled/peer_api.h"
#include "tailscaled/peer_api_probe.h"
#include "tailscaled/port_mapping.h"
#include "tailscaled/relay_checks.h"
#include "tailscaled/socks_datagrams.h"
#include "tailscaled/state_file.h"
#include "tailscaled/status_view.h"
#include "tailscaled/taildrop.h"

namespace mesh::daemon {

class LocalBackend final : public localapi::Backend, public control::ControlClient::Listener, public Engine::Listener {
   public:
    struct Options {
        std::string state_dir;  ///< "" = none
        uint16_t wanted_port = 0;
        std::string default_control_url;
    };
    using Publish = std::function<void(const api::Notify&)>;
    using Fatal = std::function<void(const std::string&)>;

    LocalBackend(platform::Loop& loop, platform::Resolver& resolver, platform::Dialer& dialer, platform::HttpClient& http, Random& random,
                 Options options, StateFile& file, ipn::Profiles profiles, Publish publish, Fatal fatal);
    ~LocalBackend() override;

    /// Hands over the packet loop and the router (none: userspace networking); a node that was up goes up again.
    void run(std::unique_ptr<Engine> engine, std::unique_ptr<platform::Router> router, std::string tun_name);
    /// Joins a program's connection to the host it names, in the tailnet or not.
    void dial(const std::string& host, Outgoing what) { outgoing_->dial(host, std::move(what)); }
    /// ... and for datagrams.
    void associate(platform::ByteStream client) { datagrams_->associate(std::move(client)); }
    /// Orderly end: everything we added to the host is removed, the state written.
    void shut_down();

    // ---- localapi::Backend
    api::DaemonStatus status(localapi::WithPeers peers) override;
    const api::Prefs& prefs() override { return profiles_.prefs(); }
    std::optional<api::WhoIsResult> whois(const Addr& ip, uint16_t port, std::string_view proto) override;
    std::optional<api::WhoIsResult> whois(const NodePublic& key) override;
    std::string derp_map_json() override;
    std::optional<std::string> dns_config_json() override;
    std::string dns_os_config_json() override;
    void dns_query(const std::string& name, uint16_t type, DnsDone done) override;
    std::string net_map_json() override;
    std::string user_metrics() override;
    std::string bug_report(const std::string& note, bool diagnose) override;
    std::string drops_json() override;
    std::string port_mapping_json() override;
    std::string peer_relay_sessions_json() override;
    void check_relays(RelaysDone done) override;
    std::string paths_json(const std::optional<Addr>& peer) override;
    void doctor(const std::optional<Addr>& peer, bool measure, DoctorDone done) override;
    std::string ip_forwarding_warning() override;
    std::string udp_gro_forwarding_warning() override { return ""; }
    bool uses_so_mark() override;
    void dial(const std::string& host, uint16_t port, platform::ByteStream client) override;
    std::string state_dir() override { return options_.state_dir; }
    std::vector<api::LoginProfile> profiles() override { return profiles_.all(); }
    api::LoginProfile current_profile() override { return profiles_.current(); }
    Status switch_profile(const std::string& id) override;
    Status remove_profile(const std::string& id) override;
    api::Notify initial_notify(uint64_t mask) override;
    Result<api::Prefs> edit_prefs(const api::MaskedPrefs& change, const localapi::Caller& caller) override;
    Status check_prefs(const api::Prefs& prefs) override;
    Status start(const api::StartOptions& options, const localapi::Caller& caller) override;
    Status login_interactive(const localapi::Caller& caller) override;
    void logout(const localapi::Caller& caller, Done done) override;
    void ping(const api::PingRequest& request, PingDone done) override;
    std::optional<Result<localapi::Reply>> debug_action(std::string_view action) override;
    void reset_auth() override;
    void when_host_ready(std::function<void()> done) override;
    Result<std::string> file_targets_json() override;
    void waiting_files(Duration wait, FilesDone done) override;
    void delete_file(const std::string& name, Done done) override;
    void read_file(const std::string& name, platform::ByteStream client) override;
    void put_file(platform::ByteStream client) override;

    // ---- control::ControlClient::Listener
    void on_auth_url(const std::string& url) override;
    void on_logged_in(const control::LoggedIn& login) override;
    void on_login_error(const std::string& text) override;
    void on_netmap(std::shared_ptr<const netmap::NetMap> map, const netmap::PeerChanges& changes) override;
    void on_control_error(const std::string& text) override;
    void on_needs_login() override;
    void on_map_accepted() override;
    void on_open_browser(const std::string& url) override;

    // ---- Engine::Listener
    void on_netcheck(const netcheck::Report& report) override;
    void on_endpoints(const std::vector<magicsock::LocalEndpoint>& endpoints) override;
    void on_home_derp(int region) override;
    void on_derp_wanted(int region) override;
    void on_derp_lost(int region, const std::string& why) override;
    void on_names_wanted(const std::vector<std::string>& hosts) override;
    void on_https_wanted(const std::vector<int>& regions) override;
    void on_ping(uint64_t id, const magicsock::PingResult& result) override;
    void on_tunnel_ping(uint64_t id, const dataplane::TunnelPong& pong) override;
    void on_session() override;
    void on_path(PeerId peer, const magicsock::Path& path) override;
    void on_timestamp(int64_t unix_ns) override;
    void on_dns_query(const DnsClient& client, Bytes query) override;
    void on_datagram(uint64_t association, const Endpoint& from, const Bytes& payload) override;
    void on_fatal(const std::string& why) override;

   private:
    struct PendingPing {
        PingDone done;
        api::PingResult result;
        Time until;
        std::shared_ptr<PeerApiProbe> probe;  ///< of a peer's PeerAPI
    };

    // identity and prefs
    void set_prefs(api::Prefs prefs);
    void save();
    [[nodiscard]] api::State state() const { return state_; }
    [[nodiscard]] bool self_expired() const;
    void update_state();
    void enter(api::State next);
    [[nodiscard]] std::string control_url() const;
    /// host:port of the server if it is reached by plain http, else "".
    [[nodiscard]] std::string plain_control() const;
    // control
    void leave_login();
    void enter_login();
    void make_control();
    void drop_control();
    void log_in(std::string auth_key, bool interactive);
    void start_map();
    void send_update();
    [[nodiscard]] control::Hostinfo hostinfo() const;
    [[nodiscard]] std::vector<control::TypedEndpoint> typed_endpoints() const;
    // network
    [[nodiscard]] bool userspace() const { return engine_ && engine_->userspace(); }
    [[nodiscard]] OutgoingDialer::Hooks outgoing_hooks();
    [[nodiscard]] uint16_t peer_api_port() const { return peer_api_ ? peer_api_->port() : uint16_t{0}; }
    void on_net_event(const platform::NetEvent& event);
    void apply_local_addrs();
    void apply_port_mapping();
    void on_port_mapping();
    void apply_keys();
    void apply_map(const netmap::PeerChanges* changes);
    void queue_peers(PeerSlice slice);
    void apply_router();
    void apply_dns();
    void apply_relay();
    void serve_peers();
    void start_files();
    void apply_files();
    void repair_router();
    void take_down();
    void set_derp_map(std::shared_ptr<const derp::DerpMap> map);
    void load_cached_derp_map();
    void measure_https(int region);
    void on_derp_failure(int region, const std::string& why);
    void on_derp_link(DerpLink link);
    // views
    /// Of the packet loop; empty if there is none or it is not wanted. Until the next call.
    [[nodiscard]] const EngineSnapshot& engine_snapshot(bool wanted = true);
    [[nodiscard]] StatusInputs inputs(const EngineSnapshot& engine);
    [[nodiscard]] std::vector<std::string> health() const;
    void publish_health();
    /// The peer that has this address, or routes to it most specifically; null if none.
    [[nodiscard]] netmap::NodePtr peer_for(const Addr& ip) const;
    [[nodiscard]] std::string doctor_report(const std::optional<Addr>& peer);
    void answer_doctors();
    void expire_pings();
    void ping_peer_api(uint64_t id, const netmap::Node& target);
    void housekeeping();

    platform::Loop& loop_;
    platform::Resolver& resolver_;
    platform::Dialer& dialer_;
    platform::HttpClient& http_;
    Random& random_;
    Options options_;
    std::string tun_name_;
    StateFile& file_;
    ipn::Profiles profiles_;
    Publish publish_;
    Fatal fatal_;
    std::string hostname_;
    std::string log_id_;

    std::unique_ptr<Engine> engine_;
    std::unique_ptr<platform::Router> router_;
    std::unique_ptr<platform::NetMonitor> monitor_;
    platform::NetState net_;
    std::unique_ptr<DerpDialer> derp_dialer_;
    std::unique_ptr<control::ControlClient> control_;
    std::unique_ptr<DnsService> dns_;
    std::unique_ptr<OutgoingDialer> outgoing_;
    std::unique_ptr<Taildrop> taildrop_;
    std::unique_ptr<FileSends> sends_;
    std::unique_ptr<FileReads> reads_;
    std::unique_ptr<PeerApi> peer_api_;  ///< while we are up
    std::unique_ptr<SocksDatagrams> datagrams_;
    std::unique_ptr<PortMapping> port_mapping_;  ///< none: switched off by the environment
    std::shared_ptr<const dataplane::Tables> tables_;  ///< as the packet loop has them

    api::State state_ = api::State::kNoState;
    LockedText auth_key_;         ///< given by start(), used by the next login
    std::string refused_key_;     ///< what the server said of that key
    Time key_accepted_;           ///< when the server took it; zero since start()
    bool login_running_ = false;
    bool logged_in_ = false;      ///< the control server accepted us in this run
    bool login_needs_human_ = false;
    bool map_started_ = false;
    std::string auth_url_;
    std::string control_error_;
    std::string save_error_;
    std::shared_ptr<const netmap::NetMap> map_;
    std::shared_ptr<const derp::DerpMap> derp_map_;
    PeerIds ids_;
    bool applied_ = false;        ///< packet loop and router run by map_
    std::vector<std::string> route_notes_;
    RelayGrants relay_grants_;
    std::pair<bool, bool> relay_client_{false, false};  ///< as the packet loop was told
    std::optional<uint16_t> relay_wanted_;  ///< port of our UDP relay, 0: any; as it runs
    uint16_t relay_port_ = 0;               ///< the port it got; 0: it does not run
    std::vector<Endpoint> relay_static_;
    std::string relay_problem_;
    platform::Timer relay_timer_;           ///< its port is tried again
    WallTime next_expiry_;        ///< when the next key of a peer expires; zero: none
    bool peers_offer_routes_ = false;  ///< as of the last map that changed any

    std::optional<control::NetInfo> net_info_;
    std::optional<netcheck::Report> report_;  ///< the last one
    std::vector<magicsock::LocalEndpoint> endpoints_;
    int home_derp_ = 0;
    int64_t timestamp_floor_ = 0;  ///< WireGuard stamps of this run start above it; 0 = not known yet
    std::set<int> live_derps_;
    std::map<int, std::string> derp_problems_;
    bool any_session_ = false;
    Time starting_since_;
    bool greeted_ = false;        ///< early initiations of this run were sent
    std::vector<std::string> last_health_;

    uint64_t next_ping_ = 1;
    std::map<uint64_t, PendingPing> pings_;
    std::vector<std::pair<std::optional<Addr>, DoctorDone>> doctors_;  ///< wait for the netcheck
    platform::Timer doctor_timer_;     ///< they wait no longer
    std::map<std::string, std::unique_ptr<platform::Resolver::Lookup>> lookups_;
    std::map<int, std::unique_ptr<platform::HttpClient::Call>> https_;
    std::unique_ptr<CaptivePortalProbe> captive_probe_;
    std::optional<bool> captive_portal_;  ///< found by the last net check without UDP
    std::unique_ptr<RelayChecks> relay_checks_;
    platform::Timer map_timer_;        ///< start_map waits a moment for the first netcheck
    platform::Timer housekeeping_;
    platform::RepairLimit repair_limit_;
    platform::Timer repair_timer_;     ///< the router looks at the host again
    /// What a first map, or thousands of peers in words, needed for a moment goes back to the kernel.
    platform::Timer heap_timer_;
    static constexpr Duration kHeapRest = seconds(4);
    static constexpr size_t kManyPeers = 1000;
    bool shut_down_ = false;
};

}  // namespace mesh::daemon
