// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/local_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "base/crypto/crypto.h"
#include "base/log.h"
#include "base/version.h"
#include "platform/linux/forwarding.h"
#include "platform/system.h"

namespace mesh::daemon {

using api::Notify;
using api::State;

namespace {
/// The first map request waits this long for a net check under way, so that it can carry the home relay.
constexpr Duration kNetcheckPatience = milliseconds(300);
/// Without any relay after this long the node counts as running: direct paths may work all the same.
constexpr Duration kStartingPatience = seconds(5);
constexpr Duration kSecondCall = seconds(10);  // after start() `up` asks for a login, which may be over by then
}  // namespace

LocalBackend::LocalBackend(platform::Loop& loop, platform::Resolver& resolver, platform::Dialer& dialer, platform::HttpClient& http,
                           Random& random, Options options, StateFile& file, ipn::Profiles profiles, Publish publish, Fatal fatal)
    : loop_(loop),
      resolver_(resolver),
      dialer_(dialer),
      http_(http),
      random_(random),
      options_(std::move(options)),
      file_(file),
      profiles_(std::move(profiles)),
      publish_(std::move(publish)),
      fatal_(std::move(fatal)),
      relay_timer_(loop, [this] {
          if (!applied_) return;
          apply_relay();
          apply_router();
      }),
      doctor_timer_(loop, [this] { answer_doctors(); }),
      map_timer_(loop, [this] { start_map(); }),
      housekeeping_(loop, [this] { housekeeping(); }),
      repair_timer_(loop, [this] { repair_router(); }),
      heap_timer_(loop, [] {
          platform::give_memory_back();
          platform::let_go_of_code();
      }) {
    const platform::OsInfo os = platform::read_os_info();
    hostname_ = os.hostname;
    const std::string text = "tailmesh backend log id " + profiles_.machine_key().public_key().text();
    log_id_ = hex_encode(crypto::sha256(as_bytes(text)));
}

LocalBackend::~LocalBackend() = default;

void LocalBackend::run(std::unique_ptr<Engine> engine, std::unique_ptr<platform::Router> router, std::string tun_name) {
    engine_ = std::move(engine);
    router_ = std::move(router);
    tun_name_ = std::move(tun_name);
    derp_dialer_ = std::make_unique<DerpDialer>(
        dialer_, random_, [this](DerpLink link) { on_derp_link(std::move(link)); },
        [this](int region, const std::string& why) { on_derp_failure(region, why); });
    if (router_ && !foreign_dns_owner(tun_name_))
        if (const auto r = platform::cleanup_dns(); !r) log::info("dns: what an earlier run left could not be removed: {}", r.error().message());
    DnsService::Options dns;
    dns.tun_name = tun_name_;
    dns.userspace = userspace();
    dns.on_change = [this] {
        if (applied_) apply_dns();
        update_state();
        publish_health();
    };
    dns_ = std::make_unique<DnsService>(loop_, resolver_, dialer_, http_, random_, *engine_, std::move(dns));
    dns_->follow_host();
    const OutgoingDialer::Hooks hooks = outgoing_hooks();
    outgoing_ = std::make_unique<OutgoingDialer>(dialer_, hooks);
    datagrams_ = std::make_unique<SocksDatagrams>(
        dialer_, SocksDatagrams::Hooks{hooks.names, hooks.way,
                                       [this](uint64_t id, const Endpoint& to, ByteSpan payload) { engine_->send_datagram(id, to, to_bytes(payload)); },
                                       [this](uint64_t id) { engine_->end_association(id); }});
    start_files();
    if (const char* off = std::getenv("TS_DISABLE_PORTMAPPER"); off == nullptr || *off == '\0' || *off == '0' || *off == 'f')
        port_mapping_ = std::make_unique<PortMapping>(loop_, http_, random_, [this] { on_port_mapping(); });
    auto monitor = platform::NetMonitor::create(loop_, tun_name_, [this](const platform::NetEvent& e) { on_net_event(e); });
    if (monitor) {
        monitor_ = std::move(*monitor);
        net_ = monitor_->state();
        if (router_ && router_->uses_legacy_tables()) monitor_->watch_legacy_tables();
    } else {
        log::info("monitor: {}; network changes will not be noticed", monitor.error().message());
    }
    save();
    apply_keys();
    apply_local_addrs();
    load_cached_derp_map();
    if (profiles_.prefs().want_running && profiles_.has_node_key()) log_in("", false);
    update_state();
    housekeeping_.set_after(seconds(1));
}

void LocalBackend::shut_down() {
    if (shut_down_) return;
    shut_down_ = true;
    if (port_mapping_) port_mapping_->close();  // turns the loop: first, while everything still stands
    peer_api_.reset();  // before what it serves
    sends_.reset();
    reads_.reset();
    taildrop_.reset();
    outgoing_.reset();
    datagrams_.reset();
    control_.reset();
    derp_dialer_.reset();
    monitor_.reset();
    lookups_.clear();
    https_.clear();
    captive_probe_.reset();
    relay_checks_.reset();
    map_timer_.cancel();
    doctor_timer_.cancel();
    housekeeping_.cancel();
    repair_timer_.cancel();
    dns_.reset();  // before the router: for a moment names go where they went before us, never nowhere
    if (router_) {
        if (const auto r = router_->stop(); !r) log::info("router: {}", r.error().message());
        router_.reset();
    }
    if (engine_) {
        profiles_.note_timestamp(engine_->last_timestamp(), true);
        port_mapping_.reset();
        engine_.reset();
    }
    save();
}

// ---- identity and prefs ----------------------------------------------------------------------------------------------

void LocalBackend::save() {
    const auto r = file_.save(profiles_.store());
    const std::string error = r ? "" : r.error().message();
    if (error != save_error_) {
        save_error_ = error;
        if (!error.empty()) log::info("state: could not be saved, will be tried again: {}", error);
        publish_health();
    }
}

void LocalBackend::set_prefs(api::Prefs prefs) {
    profiles_.set_prefs(std::move(prefs), random_, loop_.wall());
    save();
    Notify n;
    n.prefs = profiles_.prefs();
    publish_(n);
}

std::string LocalBackend::control_url() const {
    const std::string& url = profiles_.prefs().control_url;
    return url.empty() ? options_.default_control_url : url;
}

std::string LocalBackend::plain_control() const {
    const auto url = http1::parse_url(control_url());
    return url && url->scheme == "http" ? fmt::format("{}:{}", url->host, url->port) : "";
}

Status LocalBackend::check_prefs(const api::Prefs& prefs) {
    TRY(api::check_prefs(prefs));
    if (!prefs.control_url.empty() && !http1::parse_url(prefs.control_url))
        return fail(Code::kInvalid, fmt::format("the login server {} is not a http:// or https:// address", log::printable(prefs.control_url)));
    if (prefs.run_ssh) return fail(Code::kUnsupported, "Unable to enable local Tailscale SSH server; this program has none. Peers reach the host's own sshd at this node's address.");
    return {};
}

Result<api::Prefs> LocalBackend::edit_prefs(const api::MaskedPrefs& change, const localapi::Caller& /*caller*/) {
    const api::Prefs before = profiles_.prefs();
    api::Prefs after = before;
    change.apply_to(after);
    TRY(check_prefs(after));
    if (after.exit_node_ip && map_) {
        if (const auto node = map_->node_by_addr(*after.exit_node_ip)) {
            after.exit_node_id = node->stable_id;
            after.exit_node_ip.reset();
        }
    }
    if (after == before) return after;
    set_prefs(after);
    if (after.control_url != before.control_url) drop_control();
    if (after.want_running && !before.want_running) {
        starting_since_ = {};
        if (profiles_.has_node_key()) log_in("", false);
    }
    update_state();
    if (applied_) apply_map(nullptr);
    send_update();
    publish_health();
    return after;
}

Status LocalBackend::start(const api::StartOptions& options, const localapi::Caller& /*caller*/) {
    const std::string url_before = control_url();
    if (options.update_prefs) {
        api::Prefs prefs = *options.update_prefs;
        TRY(check_prefs(prefs));
        prefs.persist = profiles_.prefs().persist;
        prefs.logged_out = profiles_.prefs().logged_out;
        set_prefs(std::move(prefs));
    }
    if (control_url() != url_before) drop_control();
    auth_key_ = LockedText(options.auth_key);
    refused_key_.clear();
    key_accepted_ = {};
    const bool want = profiles_.prefs().want_running;
    // A key ends the wait for a person; a known node simply comes back, and one whose key expired gets another.
    const bool in = logged_in_ && !self_expired();
    if (want && !in && (!auth_key_.empty() || (profiles_.has_node_key() && !login_running_))) log_in(std::string(auth_key_.view()), false);
    update_state();
    if (applied_) apply_map(nullptr);
    send_update();
    if (want && in && control_) control_->check_known();  // last: what changed is under way then, and asks as well
    // Whoever waits for a state on the bus must see one, also if nothing changed.
    Notify n;
    n.state = state_;
    publish_(n);
    return {};
}

Status LocalBackend::login_interactive(const localapi::Caller& /*caller*/) {
    if (!refused_key_.empty()) {
        // The key of this very `up` was refused before its second call came: that is the answer, not a login page.
        Notify n;
        n.err_message = std::exchange(refused_key_, "");
        publish_(n);
        return {};
    }
    // As well if it was accepted: another login would be one without a key.
    if (const Time then = std::exchange(key_accepted_, {}); !then.is_zero() && loop_.now() - then < kSecondCall) return {};
    if (login_running_ && !auth_key_.empty()) return {};
    if (login_running_ && !auth_url_.empty()) {
        Notify n;
        n.browse_to_url = auth_url_;
        publish_(n);
        return {};
    }
    log_in(std::string(auth_key_.view()), true);
    return {};
}

void LocalBackend::logout(const localapi::Caller& /*caller*/, Done done) {
    const auto finish = [this, done = std::move(done)](Status told) {
        if (!told) log::info("logout: the control server could not be told: {}", told.error().message());
        drop_control();
        login_needs_human_ = false;
        auth_key_ = {};
        map_.reset();
        profiles_.forget_login(random_);
        save();
        apply_keys();
        update_state();
        take_down();
        Notify n;
        n.prefs = profiles_.prefs();
        n.state = state_;
        publish_(n);
        done({});
    };
    if (profiles_.has_node_key() && !control_) make_control();
    if (profiles_.has_node_key() && control_ && logged_in_)
        control_->logout(finish);
    else
        finish({});
}

/// The node goes off this network; the control server goes on to know it.
void LocalBackend::leave_login() {
    drop_control();
    login_needs_human_ = false;
    auth_key_ = {};
    refused_key_.clear();
    take_down();
    map_.reset();
}

/// What the profile says now comes true.
void LocalBackend::enter_login() {
    save();
    apply_keys();
    apply_files();
    Notify n;
    n.prefs = profiles_.prefs();
    publish_(n);
    state_ = State::kNoState;
    if (profiles_.prefs().want_running && profiles_.has_node_key()) log_in("", false);
    update_state();
    publish_health();
}

Status LocalBackend::switch_profile(const std::string& id) {
    if (!id.empty() && id == profiles_.current().id) return {};
    if (!id.empty()) {
        const auto all = profiles_.all();
        if (std::none_of(all.begin(), all.end(), [&](const auto& p) { return p.id == id; })) return fail(Code::kNotFound, "profile not found");
    }
    leave_login();
    Status ok;
    if (id.empty())
        profiles_.begin_another(random_);
    else
        ok = profiles_.select(id, random_);
    enter_login();
    return ok;
}

Status LocalBackend::remove_profile(const std::string& id) {
    if (id != profiles_.current().id) {
        profiles_.remove(id);
        save();
        return {};
    }
    leave_login();
    profiles_.forget_login(random_);
    enter_login();
    return {};
}

void LocalBackend::reset_auth() {
    logout({}, [](const Status&) {});
}

// ---- state -----------------------------------------------------------------------------------------------------------

bool LocalBackend::self_expired() const { return map_ && map_->is_expired(*map_->self, loop_.wall()); }

void LocalBackend::update_state() {
    const api::Prefs& p = profiles_.prefs();
    const bool relayless = derp_map_ == nullptr || derp_map_->regions.empty();
    ipn::StateInputs in;
    in.current = state_;
    in.want_running = p.want_running;
    in.logged_out = p.logged_out && !profiles_.has_node_key();
    in.has_node_key = profiles_.has_node_key();
    in.has_netmap = map_ != nullptr;
    in.login_needs_human = login_needs_human_ || !auth_url_.empty();
    in.self_expired = self_expired();
    in.machine_authorized = !map_ || map_->self->machine_authorized;
    const Time now = loop_.now();
    if (map_ && p.want_running && starting_since_.is_zero()) starting_since_ = now;
    in.connected = any_session_ || !live_derps_.empty() || relayless ||
                   (!starting_since_.is_zero() && now - starting_since_ > kStartingPatience);
    // Who waits for "Running" may use the tunnel and its names at once.
    const bool names = !dns_ || dns_->settled() || now - starting_since_ > DnsService::kPatience;
    if (state_ != State::kRunning && !(applied_ && names)) in.connected = false;
    const State next = ipn::next_state(in);
    if (next == state_) return;
    enter(next);
    if (next == State::kStarting && applied_) update_state();
}

void LocalBackend::enter(State next) {
    log::info("Switching ipn state {} -> {} (WantRunning={}, nm={})", api::state_name(state_), api::state_name(next),
              profiles_.prefs().want_running, map_ != nullptr);
    state_ = next;
    if (next == State::kStarting || next == State::kRunning) {
        if (!applied_ && map_) apply_map(nullptr);
    } else {
        take_down();
    }
    if (next == State::kStopped) drop_control();
    Notify n;
    n.state = next;
    publish_(n);
    publish_health();
    const std::string user = log::printable(profiles_.current().user_profile.login_name);
    if (next == State::kRunning && map_) {
        std::string addrs;
        for (const Prefix& p : map_->self->addresses) addrs += (addrs.empty() ? "" : " ") + p.addr.str();
        platform::sd_notify("STATUS=Connected; " + user + "; " + addrs);
        log::info("active login: {}", user);
    } else if (next == State::kStopped) {
        platform::sd_notify("STATUS=Stopped; run 'tailscale up' to log in");
    } else if (next == State::kNeedsLogin) {
        platform::sd_notify("STATUS=Needs login: " + auth_url_);
    }
}

// ---- control ---------------------------------------------------------------------------------------------------------

void LocalBackend::make_control() {
    if (control_) return;
    control::ControlClient::Config config;
    config.server_url = control_url();
    config.machine_key = profiles_.machine_key();
    config.user_agent = fmt::format("tailmesh/{}", kVersion);
    control_ = std::make_unique<control::ControlClient>(loop_, dialer_, http_, random_, std::move(config), *this);
    if (derp_dialer_) derp_dialer_->set_plain_control(plain_control());
}

void LocalBackend::drop_control() {
    // The client may be on the stack: it goes in a later turn, and is silent from now on.
    if (control_) {
        control_->stop();
        loop_.post([old = std::shared_ptr<control::ControlClient>(std::move(control_))] {});
    }
    map_timer_.cancel();
    login_running_ = logged_in_ = map_started_ = false;
    auth_url_.clear();
    control_error_.clear();
}

void LocalBackend::log_in(std::string auth_key, bool interactive) {
    make_control();
    control::ControlClient::Login login;
    if (const auto& persist = profiles_.prefs().persist) {
        login.node_key = persist->private_node_key;
        login.old_node_key = persist->old_private_node_key;
    }
    login.auth_key = std::move(auth_key);
    login.interactive = interactive;
    login.hostinfo = hostinfo();
    login.ephemeral = file_.in_memory();
    login_running_ = true;
    login_needs_human_ = false;
    auth_url_.clear();
    if (engine_ && derp_map_) engine_->restun();  // measured while the server thinks
    control_->login(std::move(login));
}

void LocalBackend::on_auth_url(const std::string& url) {
    auth_url_ = url;
    log::info("control: a person has to visit the login page");  // not the URL: whoever has it can log in
    update_state();
    Notify n;
    n.browse_to_url = url;
    publish_(n);
}

void LocalBackend::on_open_browser(const std::string& url) {
    Notify n;
    n.browse_to_url = url;
    publish_(n);
}

void LocalBackend::on_logged_in(const control::LoggedIn& login) {
    login_running_ = false;
    logged_in_ = true;
    login_needs_human_ = false;
    auth_url_.clear();
    if (!auth_key_.empty()) key_accepted_ = loop_.now();
    auth_key_ = {};
    api::Prefs prefs = profiles_.prefs();
    api::Persist persist = prefs.persist.value_or(api::Persist{});
    persist.private_node_key = login.node_key;
    persist.old_private_node_key = login.old_node_key;
    if (login.user.id != 0) persist.user_profile = {login.user.id, login.user.login_name, login.user.display_name, login.user.profile_pic_url};
    prefs.persist = std::move(persist);
    prefs.logged_out = false;
    if (prefs.control_url.empty()) prefs.control_url = options_.default_control_url;
    set_prefs(std::move(prefs));
    apply_keys();
    Notify n;
    n.login_finished = true;
    publish_(n);
    if (derp_map_ && !net_info_)
        map_timer_.set_after(kNetcheckPatience);
    else
        start_map();
    update_state();
}

void LocalBackend::on_login_error(const std::string& text) {
    login_running_ = false;
    login_needs_human_ = true;
    if (!auth_key_.empty()) refused_key_ = text;
    auth_key_ = {};
    log::info("control: login refused: {}", text);
    Notify n;
    n.err_message = text;
    publish_(n);
    update_state();
}

void LocalBackend::on_needs_login() {
    logged_in_ = map_started_ = login_running_ = false;
    login_needs_human_ = true;
    map_.reset();
    log::info("control: this node is not known to the server any more, or its key expired; run 'tailscale up'");
    update_state();
    if (!auth_key_.empty()) log_in(std::string(auth_key_.view()), false);  // an `up` asked, and was too early to know
}

void LocalBackend::on_map_accepted() {
    if (logged_in_ && !login_running_ && !self_expired()) auth_key_ = {};  // not needed: the server knows us
}

void LocalBackend::on_control_error(const std::string& text) {
    if (text == control_error_) return;
    control_error_ = text;
    publish_health();
}

void LocalBackend::start_map() {
    map_timer_.cancel();
    if (!control_ || !logged_in_ || map_started_) return;
    map_started_ = true;
    control_->start_map(profiles_.disco_key().public_key(), typed_endpoints(), hostinfo());
}

void LocalBackend::send_update() {
    if (control_ && map_started_) control_->update(hostinfo(), typed_endpoints(), profiles_.disco_key().public_key());
}

std::vector<control::TypedEndpoint> LocalBackend::typed_endpoints() const {
    std::vector<control::TypedEndpoint> out;
    for (const auto& e : endpoints_) out.push_back({e.ep, static_cast<control::EndpointType>(e.type)});
    return out;
}

control::Hostinfo LocalBackend::hostinfo() const {
    static const platform::OsInfo os = platform::read_os_info();
    const api::Prefs& p = profiles_.prefs();
    control::Hostinfo h;
    h.ipn_version = kLongVersion;
    h.backend_log_id = log_id_;
    h.os_version = os.kernel;
    h.container = os.container;
    h.distro = os.distro;
    h.distro_version = os.distro_version;
    h.distro_code_name = os.distro_codename;
    h.hostname = p.hostname.empty() ? hostname_ : p.hostname;
    h.shields_up = p.shields_up;
    h.no_logs_no_support = true;
    h.machine = os.machine;
    h.arch = os.go_arch;
    h.routable_ips = p.advertise_routes.value_or(std::vector<Prefix>{});
    h.request_tags = p.advertise_tags.value_or(std::vector<std::string>{});
    h.net_info = net_info_;
    h.peer_relay = p.relay_server_port.has_value();
    if (const uint16_t port = peer_api_port(); port != 0 && map_) {
        if (map_->self->address(Addr::Family::kV4).is_valid()) h.services.push_back({"peerapi4", port, ""});
        if (map_->self->address(Addr::Family::kV6).is_valid()) h.services.push_back({"peerapi6", port, ""});
        if (p.advertises_exit_node()) h.services.push_back({"peerapi-dns-proxy", 1, ""});
    }
    h.userspace = h.userspace_router = userspace();
    h.app_connector = false;
    return h;
}

void LocalBackend::on_netmap(std::shared_ptr<const netmap::NetMap> map, const netmap::PeerChanges& changes) {
    const bool first = map_ == nullptr;
    map_ = std::move(map);
    if (map_->derp_map && (changes.derp_map || first)) set_derp_map(map_->derp_map);
    if (first || changes.self) {
        api::Prefs prefs = profiles_.prefs();
        if (prefs.persist && prefs.persist->node_id != map_->self->stable_id) {
            prefs.persist->node_id = map_->self->stable_id;
            if (const auto* u = map_->user(map_->self->user))
                prefs.persist->user_profile = {u->id, u->login_name, u->display_name, u->profile_pic_url};
            set_prefs(std::move(prefs));
        }
        if (profiles_.note_network(map_->magic_dns_suffix(), map_->domain)) save();
        Notify n;
        n.self_change_json = api::node_json(api_node(*map_->self));
        publish_(n);
    }
    update_state();
    if (state_ == State::kStarting || state_ == State::kRunning) apply_map(first || !applied_ ? nullptr : &changes);
    update_state();
    publish_health();
}

// ---- every second ----------------------------------------------------------------------------------------------------

void LocalBackend::housekeeping() {
    housekeeping_.set_after(state_ == State::kStarting || !pings_.empty() ? seconds(1) : seconds(30));
    expire_pings();
    update_state();
    if (!save_error_.empty()) save();
    if (applied_ && map_ && !next_expiry_.is_zero() && loop_.wall() >= next_expiry_) apply_map(nullptr);
    if (applied_ && dns_) {
        dns_->look();
        publish_health();
    }
    // Not every change of others is told to us (iptables-legacy): look, and mend what is ours.
    if (!repair_timer_.armed()) repair_timer_.set_after(Duration{});
}

}  // namespace mesh::daemon
