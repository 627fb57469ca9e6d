// SPDX-License-Identifier: BSD-3-Clause
// The control client against the lab's control server, over loopback: one life of a node after the other.
#include "tests/lab/control_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/crypto/crypto.h"
#include "base/log.h"
#include "platform/file.h"
#include "platform/http/http_client.h"
#include "platform/net/dialer.h"
#include "platform/net/resolver.h"
#include "platform/tls/certificate.h"
#include "tailscaled/control/client.h"

namespace mesh::lab {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Events : control::ControlClient::Listener {
    std::vector<std::string> auth_urls, login_errors, control_errors;
    std::vector<control::LoggedIn> logins;
    std::shared_ptr<const netmap::NetMap> map;
    std::vector<netmap::PeerChanges> changes;
    std::vector<std::string> opened;
    int needs_login = 0, accepted = 0;
    std::function<void()> on_login, on_map;

    void on_auth_url(const std::string& url) override { auth_urls.push_back(url); }
    void on_logged_in(const control::LoggedIn& l) override {
        logins.push_back(l);
        if (on_login) on_login();
    }
    void on_login_error(const std::string& t) override { login_errors.push_back(t); }
    void on_netmap(std::shared_ptr<const netmap::NetMap> m, const netmap::PeerChanges& c) override {
        map = std::move(m);
        changes.push_back(c);
        if (on_map) on_map();
    }
    void on_control_error(const std::string& t) override { control_errors.push_back(t); }
    void on_needs_login() override { ++needs_login; }
    void on_open_browser(const std::string& url) override { opened.push_back(url); }
    void on_map_accepted() override { ++accepted; }
};

class ControlLab : public ::testing::Test {
   protected:
    ControlLab() {
        crypto::init();
        log::set_sink([](std::string_view) {});
    }
    ~ControlLab() override {
        clients_.clear();
        server_.reset();
        log::set_sink({});
    }

    void serve(ControlServer::Options options = {}) {
        options.listen = {Addr::v4(127, 0, 0, 1), 0};
        server_ = ControlServer::start(loop_, random_, std::move(options)).value();
    }
    struct Client {
        Events events;
        std::unique_ptr<control::ControlClient> client;
        DiscoPrivate disco;
        control::Hostinfo hostinfo;
        control::ControlClient* operator->() { return client.get(); }
    };
    Client& client(const std::string& hostname, std::string url = "") {
        auto c = std::make_unique<Client>();
        control::ControlClient::Config config;
        config.server_url = url.empty() ? server_->base_url() : url;
        config.machine_key = MachinePrivate::generate(random_);
        c->hostinfo.hostname = hostname;
        c->disco = DiscoPrivate::generate(random_);
        c->client = std::make_unique<control::ControlClient>(loop_, dialer_, http_, random_, config, c->events);
        clients_.push_back(std::move(c));
        return *clients_.back();
    }
    void login(Client& c, const std::string& key = "", bool interactive = true) {
        control::ControlClient::Login l;
        l.auth_key = key;
        l.interactive = interactive;
        l.hostinfo = c.hostinfo;
        c->login(std::move(l));
    }
    void start_map(Client& c, int derp = 0) {
        c.hostinfo.net_info.emplace().preferred_derp = derp;
        c->start_map(c.disco.public_key(), {{*Endpoint::parse("192.0.2.1:41641"), control::EndpointType::kLocal}}, c.hostinfo);
    }
    Client& join(const std::string& hostname) {
        Client& c = client(hostname);
        login(c);
        run_until([&] { return !c.events.logins.empty(); });
        start_map(c);
        run_until([&] { return c.events.map != nullptr; });
        return c;
    }
    /// Turns the loop until the condition holds; fails after ten seconds.
    void run_until(const std::function<bool()>& done, Duration limit = seconds(10)) {
        bool late = false;
        platform::Timer timer(loop_, [&] { late = true; });
        timer.set_after(limit);
        while (!done() && !late) loop_.run_once(true);
        EXPECT_TRUE(done());
    }
    std::string get(const std::string& path, bool post = false) {
        std::string body;
        bool done = false;
        platform::HttpRequest r;
        if (post) r.method = platform::HttpRequest::Method::kPost;
        r.url = path.starts_with("http") ? path : server_->base_url() + path;
        const auto call = http_.send(std::move(r), [&](Result<platform::HttpResponse> a) {
            if (a) body = a->body;
            done = true;
        });
        run_until([&] { return done; });
        return body;
    }

    platform::Loop loop_;
    SystemRandom random_;
    platform::Resolver resolver_{loop_, {}};
    platform::Dialer dialer_{loop_, resolver_};
    platform::HttpClient http_{loop_, resolver_};
    std::unique_ptr<ControlServer> server_;
    std::vector<std::unique_ptr<Client>> clients_;
};

TEST_F(ControlLab, ANodeJoinsAndItsFirstRequestAlreadySaysEverything) {
    serve();
    Client& a = client("alpha");
    login(a);
    run_until([&] { return !a.events.logins.empty(); });
    EXPECT_EQ(a.events.logins[0].user.login_name, "lab");
    EXPECT_TRUE(a.events.logins[0].machine_authorized);
    EXPECT_EQ(a.events.logins[0].node_key.public_key(), a->node_key());
    start_map(a, 900);
    run_until([&] { return a.events.map != nullptr; });
    const netmap::NetMap& m = *a.events.map;
    EXPECT_EQ(m.self->name, "alpha.lab.test.");
    EXPECT_EQ(m.self->home_derp, 900);
    EXPECT_EQ(m.self->disco_key, a.disco.public_key());
    ASSERT_EQ(m.self->endpoints.size(), 1U);
    EXPECT_EQ(m.domain, "lab.test");
    EXPECT_EQ(m.filter->rules.size(), 1U);
    EXPECT_TRUE(a->connected());
    EXPECT_THAT(a.events.control_errors, IsEmpty());
}

TEST_F(ControlLab, NodesSeeEachOtherComeMoveAndGo) {
    ControlServer::Options o;
    o.offline_delay = milliseconds(10);
    serve(std::move(o));
    Client& a = join("alpha");
    Client& b = join("beta");
    EXPECT_EQ(b.events.map->peers.size(), 1U);
    run_until([&] { return a.events.map->peers.size() == 1 && (*a.events.map->peers.begin())->online == true; });

    b.hostinfo.net_info->preferred_derp = 7;
    b->update(b.hostinfo, {{*Endpoint::parse("198.51.100.7:1"), control::EndpointType::kStun}}, b.disco.public_key());
    run_until([&] { return (*a.events.map->peers.begin())->home_derp == 7; });
    EXPECT_EQ((*a.events.map->peers.begin())->endpoints[0].str(), "198.51.100.7:1");

    b->stop();
    run_until([&] { return (*a.events.map->peers.begin())->online == false; });
    EXPECT_EQ(a.events.changes.back().changed.size(), 1U);
}

TEST_F(ControlLab, AnAuthKeyLetsInAndAWrongOneIsRefusedInTheServersWords) {
    ControlServer::Options o;
    o.registry.auth_keys = {"good"};
    serve(std::move(o));
    Client& a = client("alpha");
    login(a, "bad");
    run_until([&] { return !a.events.login_errors.empty(); });
    EXPECT_EQ(a.events.login_errors[0], "invalid pre auth key");
    login(a, "good");
    run_until([&] { return !a.events.logins.empty(); });
    EXPECT_THAT(a.events.auth_urls, IsEmpty());
}

TEST_F(ControlLab, AnInteractiveLoginWaitsForThePersonAndThenGoesOn) {
    ControlServer::Options o;
    o.registry.require_login = true;
    serve(std::move(o));
    Client& a = client("alpha");
    login(a);
    run_until([&] { return !a.events.auth_urls.empty(); });
    EXPECT_THAT(a.events.auth_urls[0], HasSubstr("/register/"));
    EXPECT_THAT(a.events.logins, IsEmpty());
    EXPECT_EQ(get(a.events.auth_urls[0]), "approved\n");
    run_until([&] { return !a.events.logins.empty(); });
    EXPECT_EQ(a.events.auth_urls.size(), 1U);
}

TEST_F(ControlLab, AStoredKeyLogsInAgainWithoutAPerson) {
    ControlServer::Options o;
    o.registry.auth_keys = {"k"};
    serve(std::move(o));
    Client& a = client("alpha");
    login(a, "k");
    run_until([&] { return !a.events.logins.empty(); });
    control::ControlClient::Login again;
    again.node_key = a.events.logins[0].node_key;
    again.hostinfo = a.hostinfo;
    a->stop();
    a->login(again);
    run_until([&] { return a.events.logins.size() == 2; });
    EXPECT_EQ(a.events.logins[1].node_key, a.events.logins[0].node_key);
}

TEST_F(ControlLab, AnExpiredKeyIsReplacedAndTheOldOneNamed) {
    ControlServer::Options o;
    o.registry.auth_keys = {"k"};
    serve(std::move(o));
    Client& a = client("alpha");
    login(a, "k");
    run_until([&] { return !a.events.logins.empty(); });
    const NodePrivate old = a.events.logins[0].node_key;
    server_->registry().expire(1, loop_.wall());
    server_->deliver();
    control::ControlClient::Login again;
    again.node_key = old;
    again.hostinfo = a.hostinfo;
    a->login(again);
    run_until([&] { return !a.events.auth_urls.empty(); });
    get(a.events.auth_urls[0]);
    run_until([&] { return a.events.logins.size() == 2; });
    EXPECT_FALSE(a.events.logins[1].node_key == old);
    EXPECT_EQ(a.events.logins[1].old_node_key, old);
    EXPECT_EQ(server_->registry().nodes().size(), 1U);
}

TEST_F(ControlLab, AfterALostConnectionTheMapStaysAndOnlyRealChangesAreTold) {
    serve();
    Client& a = join("alpha");
    Client& b = join("beta");
    run_until([&] { return a.events.map->peers.size() == 1; });
    run_until([&] { return (*a.events.map->peers.begin())->online == true; });
    const auto before = *a.events.map->peers.begin();
    a.events.changes.clear();
    a.events.map = nullptr;
    server_->drop_connections();
    run_until([&] { return a.events.map != nullptr && b->connected() && a->connected(); });
    EXPECT_THAT(a.events.changes[0].added, IsEmpty());
    EXPECT_THAT(a.events.changes[0].removed, IsEmpty());
    EXPECT_THAT(a.events.changes[0].changed, IsEmpty());
    EXPECT_EQ(*a.events.map->peers.begin(), before) << "an equal peer keeps its object";
}

TEST_F(ControlLab, AServerWithAnotherKeyIsFoundAgain) {
    serve();
    Client& a = join("alpha");
    a.events.map = nullptr;
    server_->change_key();
    run_until([&] { return a.events.map != nullptr; });
    EXPECT_TRUE(a->connected());
}

TEST_F(ControlLab, ANodeTheServerForgotAsksForALoginByItself) {
    ControlServer::Options o;
    o.registry.auth_keys = {"k"};
    serve(std::move(o));
    Client& a = client("alpha");
    login(a, "k");
    run_until([&] { return !a.events.logins.empty(); });
    start_map(a);
    run_until([&] { return a.events.map != nullptr; });
    server_->registry().remove(1, loop_.wall());
    server_->drop_connections();
    run_until([&] { return !a.events.auth_urls.empty(); });
    EXPECT_EQ(a.events.needs_login, 1);
    get(a.events.auth_urls[0]);
    run_until([&] { return a.events.logins.size() == 2 && a->connected(); });
}

TEST_F(ControlLab, LogoutExpiresTheNodeAndAlwaysCallsBack) {
    serve();
    Client& a = join("alpha");
    bool done = false;
    Status result;
    a->logout([&](Status s) {
        done = true;
        result = std::move(s);
    });
    run_until([&] { return done; });
    EXPECT_TRUE(result);
    EXPECT_TRUE(server_->registry().nodes().at(1).expired);
    EXPECT_FALSE(a->logged_in());
}

TEST_F(ControlLab, PingsOfTheServerAreAnsweredByHead) {
    serve();
    join("alpha");
    server_->ping(1);
    run_until([&] { return server_->answered_pings() == 1; });
}

TEST_F(ControlLab, TooManyRequestsAreWaitedOut) {
    serve();
    server_->refuse_registers(500, 2);
    Client& a = client("alpha");
    login(a);
    run_until([&] { return !a.events.logins.empty(); });
    ASSERT_FALSE(a.events.control_errors.empty());
    EXPECT_THAT(a.events.control_errors[0], HasSubstr("HTTP status 500"));
    EXPECT_EQ(a.events.control_errors.back(), "") << "all is well again";
}

TEST_F(ControlLab, PlainFramesBesideZstdEndThePollWithAClearError) {
    ControlServer::Options o;
    o.zstd = false;
    serve(std::move(o));
    Client& a = client("alpha");
    login(a);
    run_until([&] { return !a.events.logins.empty(); });
    start_map(a);
    run_until([&] { return !a.events.control_errors.empty(); });
    EXPECT_THAT(a.events.control_errors[0], HasSubstr("zstd"));
}

TEST_F(ControlLab, WithoutEarlyPayloadItWorksTheSame) {
    ControlServer::Options o;
    o.early_payload = false;
    serve(std::move(o));
    EXPECT_EQ(join("alpha").events.map->self->id, 1);
}

TEST_F(ControlLab, AddressesCanBeAnythingAndIpv6CanBeOff) {
    ControlServer::Options o;
    o.registry.v4 = *Prefix::parse("10.1.0.0/16");
    serve(std::move(o));
    Client& a = join("alpha");
    EXPECT_EQ(a.events.map->self->address(Addr::Family::kV4).str(), "10.1.0.1");
    EXPECT_FALSE(a.events.map->self->address(Addr::Family::kV6).is_valid());
}

TEST_F(ControlLab, ARouteMovesToTheSecondRouterWhenTheFirstGoesAway) {
    ControlServer::Options o;
    o.registry.approve_routes = true;
    o.offline_delay = milliseconds(10);
    serve(std::move(o));
    Client& watcher = join("watcher");
    const Prefix lan = *Prefix::parse("192.168.7.0/24");
    const auto router = [&](const std::string& name) -> Client& {
        Client& r = client(name);
        r.hostinfo.routable_ips = {lan};
        login(r);
        run_until([&] { return !r.events.logins.empty(); });
        start_map(r);
        run_until([&] { return r.events.map != nullptr; });
        return r;
    };
    const auto serves = [&](NodeId id) {
        const auto n = watcher.events.map->peers.find(id);
        return n && n->routes() == std::vector<Prefix>{lan};
    };
    Client& first = router("one");
    run_until([&] { return serves(2); });
    router("two");
    run_until([&] { return watcher.events.map->peers.find(3) != nullptr; });
    EXPECT_FALSE(serves(3));
    first->stop();
    run_until([&] { return serves(3) && !serves(2); });
}

TEST_F(ControlLab, AServerThatIsNotThereIsNamedAtOnce) {
    serve();
    const uint16_t port = server_->port();
    server_.reset();
    Client& a = client("alpha", "http://127.0.0.1:" + std::to_string(port));
    login(a);
    run_until([&] { return !a.events.control_errors.empty(); }, seconds(2));
    EXPECT_THAT(a.events.control_errors[0], HasSubstr("cannot reach the control server"));
    EXPECT_THAT(a.events.control_errors[0], HasSubstr(std::to_string(port)));
}

TEST_F(ControlLab, AServerThatGoesAwayIsNamedOnceWithTheCause) {
    serve();
    Client& a = join("alpha");
    const std::string url = server_->base_url();
    server_.reset();
    run_until([&] { return !a.events.control_errors.empty(); });
    EXPECT_THAT(a.events.control_errors[0], ::testing::StartsWith("cannot connect to the control server at " + url + ": "));
    EXPECT_EQ(a.events.control_errors[0].find(url), a.events.control_errors[0].rfind(url));
    EXPECT_NE(a.events.map, nullptr) << "the map stays";
}

TEST_F(ControlLab, AnotherHttpServerIsNotTakenForAControlServer) {
    serve();
    Client& a = client("alpha", server_->base_url() + "/nothing");
    login(a);
    run_until([&] { return !a.events.control_errors.empty(); });
    EXPECT_THAT(a.events.control_errors[0], HasSubstr("is not a control server"));
}

TEST_F(ControlLab, ATextThatIsNoUrlIsExplained) {
    serve();
    Client& a = client("alpha", "headscale.example");
    login(a);
    run_until([&] { return !a.events.control_errors.empty(); });
    EXPECT_THAT(a.events.control_errors[0], HasSubstr("http://HOST"));
}

TEST_F(ControlLab, ACertificateNobodyVouchesForStopsTheFetchOfTheKey) {
    platform::SelfSignedOptions names;
    names.names = {"127.0.0.1"};
    names.now = loop_.wall();
    const auto made = platform::make_self_signed(names).value();
    ControlServer::Options o;
    o.tls = platform::TlsServerContext::create(made.cert_pem, made.key_pem).value();
    serve(std::move(o));
    Client& a = client("alpha");
    login(a);
    run_until([&] { return !a.events.control_errors.empty(); });
    EXPECT_THAT(a.events.control_errors[0], HasSubstr("ertificate"));
    EXPECT_THAT(a.events.logins, IsEmpty());
}

TEST_F(ControlLab, HttpsForAPlainServerAndHttpForATlsServerAreToldApart) {
    serve();
    const std::string at = "127.0.0.1:" + std::to_string(server_->port());
    Client& a = client("alpha", "https://" + at);
    login(a);
    run_until([&] { return !a.events.control_errors.empty(); });
    EXPECT_THAT(a.events.control_errors[0], HasSubstr("speaks TLS"));
    EXPECT_THAT(a.events.control_errors[0], HasSubstr("--login-server=http://" + at));

    platform::SelfSignedOptions names;
    names.names = {"127.0.0.1"};
    names.now = loop_.wall();
    const auto made = platform::make_self_signed(names).value();
    ControlServer::Options o;
    o.tls = platform::TlsServerContext::create(made.cert_pem, made.key_pem).value();
    serve(std::move(o));
    const std::string tls_at = "127.0.0.1:" + std::to_string(server_->port());
    Client& b = client("beta", "http://" + tls_at);
    login(b);
    run_until([&] { return !b.events.control_errors.empty(); });
    EXPECT_THAT(b.events.control_errors[0], HasSubstr("--login-server=https://" + tls_at));
}

TEST_F(ControlLab, ACertificateTheSystemTrustsOpensTheWay) {
    platform::SelfSignedOptions names;
    names.names = {"127.0.0.1"};
    names.now = loop_.wall();
    const auto made = platform::make_self_signed(names).value();
    const std::string path = ::testing::TempDir() + "lab-roots.pem";
    ASSERT_TRUE(platform::replace_file(path, made.cert_pem));
    ::setenv("SSL_CERT_FILE", path.c_str(), 1);
    ControlServer::Options o;
    o.tls = platform::TlsServerContext::create(made.cert_pem, made.key_pem).value();
    serve(std::move(o));
    EXPECT_EQ(join("alpha").events.map->self->id, 1);
    ::unsetenv("SSL_CERT_FILE");
}

TEST_F(ControlLab, ALoginThatWaitsSurvivesALostConnection) {
    ControlServer::Options o;
    o.registry.require_login = true;
    serve(std::move(o));
    Client& a = client("alpha");
    login(a);
    run_until([&] { return !a.events.auth_urls.empty(); });
    server_->drop_connections();
    get(a.events.auth_urls[0]);
    run_until([&] { return !a.events.logins.empty(); });
    EXPECT_EQ(a.events.auth_urls.size(), 1U);
}

TEST_F(ControlLab, ManyChangesBecomeFewMessagesAndTheLastOneCounts) {
    serve();
    Client& a = join("alpha");
    a.events.accepted = 0;
    for (int derp = 1; derp <= 100; ++derp) {
        a.hostinfo.net_info->preferred_derp = derp;
        a->update(a.hostinfo, {}, a.disco.public_key());
    }
    run_until([&] { return server_->registry().nodes().at(1).home_derp == 100; });
    EXPECT_LE(a.events.accepted, 2);
}

TEST_F(ControlLab, AnUpdateWithoutNewsIsNotSent) {
    serve();
    Client& a = join("alpha");
    const int before = a.events.accepted;
    a.hostinfo.net_info->derp_latency["1-v4"] = 0.5;
    a->update(a.hostinfo, {{*Endpoint::parse("192.0.2.1:41641"), control::EndpointType::kLocal}}, a.disco.public_key());
    get("/lab/nodes");
    EXPECT_EQ(a.events.accepted, before);
}

TEST_F(ControlLab, AChangeOfTheNetworkKeepsAConnectionThatStillWorks) {
    serve();
    Client& a = join("alpha");
    const size_t maps = a.events.changes.size();
    a->network_changed();
    get("/lab/nodes");
    EXPECT_TRUE(a->connected());
    EXPECT_EQ(a.events.changes.size(), maps) << "no new poll";
}

TEST_F(ControlLab, AnEphemeralNodeIsForgottenWhenItLeaves) {
    ControlServer::Options o;
    o.registry.ephemeral_keys = {"e"};
    o.offline_delay = milliseconds(10);
    serve(std::move(o));
    Client& a = client("alpha");
    login(a, "e");
    run_until([&] { return !a.events.logins.empty(); });
    start_map(a);
    run_until([&] { return a.events.map != nullptr; });
    a->stop();
    run_until([&] { return server_->registry().nodes().empty(); });
}

TEST_F(ControlLab, ClientsMayBeDestroyedInsideAnyCallback) {
    serve();
    Client& a = client("alpha");
    a.events.on_login = [&] { a.client.reset(); };
    login(a);
    run_until([&] { return !a.events.logins.empty(); });
    EXPECT_EQ(a.client, nullptr);
    Client& b = client("beta");
    b.events.on_login = [&] { start_map(b); };
    b.events.on_map = [&] { b.client.reset(); };
    login(b);
    run_until([&] { return b.events.map != nullptr; });
    EXPECT_EQ(b.client, nullptr);
}

TEST_F(ControlLab, HostileMapMessagesEndThePollButNotTheClient) {
    serve();
    Client& a = join("alpha");
    for (const char* text : {"[]", "{", "null", R"({"Node":{"ID":"x"}})"}) {
        a.events.map = nullptr;
        server_->send_raw(text);
        run_until([&] { return a.events.map != nullptr; });
    }
    run_until([&] { return a->connected(); });
}

TEST_F(ControlLab, OnlyWebAddressesAreOpenedAndEachOnce) {
    serve();
    Client& a = join("alpha");
    server_->send_raw(R"j({"PopBrowserURL":"javascript:alert(1)"})j");
    server_->send_raw(R"({"PopBrowserURL":"https://example.org/a"})");
    server_->send_raw(R"({"PopBrowserURL":"https://example.org/a"})");
    server_->send_raw(R"({"KeepAlive":true,"PopBrowserURL":"https://example.org/b"})");
    run_until([&] { return a.events.opened.size() == 2; });
    EXPECT_EQ(a.events.opened[1], "https://example.org/b");
}

}  // namespace
}  // namespace mesh::lab
