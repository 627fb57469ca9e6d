// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "tailscale-cli/client.h"
#include "tailscale-cli/commands.h"
#include "tailscale-cli/debug_text.h"
#include "tailscale-cli/dns_text.h"
#include "tailscale-cli/doctor_text.h"
#include "tailscale-cli/flags.h"
#include "tailscale-cli/netcheck_text.h"
#include "tailscale-cli/ping_text.h"
#include "tailscale-cli/qr.h"
#include "tailscale-cli/settings.h"
#include "tailscale-cli/status_text.h"
#include "tailscale-cli/table_text.h"
#include "tailscale-cli/whois_text.h"

namespace mesh::cli {
namespace {

std::string vector_file(const std::string& name) {
    std::ifstream in(MESH_VECTORS + name);
    EXPECT_TRUE(in.good()) << name;
    std::stringstream s;
    s << in.rdbuf();
    return s.str();
}

/// What a recorded session printed after `command`, up to the recorder's marks. `nth` counts from 0.
std::string recorded(const std::string& file, const std::string& command, int nth = 0) {
    const std::string text = "\n" + vector_file(file);
    const std::string line = "\n$ " + command + "\n";
    size_t at = 0;
    for (int i = 0; i <= nth; ++i) {
        at = text.find(line, i == 0 ? 0 : at + 1);
        EXPECT_NE(at, std::string::npos) << command;
        if (at == std::string::npos) return "";
    }
    const size_t from = at + line.size();
    std::string out = text.substr(from, text.find("[exit ", from) - from);
    if (out.starts_with("[stderr]\n")) out.erase(0, 9);
    return out;
}

api::DaemonStatus sample_status() { return *api::parse_status(vector_file("status.json")); }

/// Three peers as in the first recordings of status-text.txt.
api::DaemonStatus small_status() {
    api::DaemonStatus s;
    s.backend_state = api::State::kRunning;
    s.magic_dns_suffix = "mesh.test";
    s.users = {{1, {1, "alice", "alice", ""}}, {2, {2, "bob@example.com", "Bob B", ""}}};
    const auto fill = [](api::PeerStatus& p, const char* name, const char* ip, int64_t user) {
        p.dns_name = std::string(name) + ".mesh.test.";
        p.host_name = name;
        p.os = "linux";
        p.user_id = user;
        p.tailscale_ips = {*Addr::parse(ip)};
        p.online = true;
    };
    fill(s.self, "node-a", "100.64.0.1", 1);
    s.tailscale_ips = s.self.tailscale_ips;
    s.peers.emplace();
    const auto add = [&](uint8_t key, const char* name, const char* ip, int64_t user) -> api::PeerStatus& {
        NodePublic k;
        k.raw[0] = key;
        fill((*s.peers)[k], name, ip, user);
        return (*s.peers)[k];
    };
    add(9, "derp-hs", "100.64.0.3", 1);
    api::PeerStatus& c = add(8, "laptop-c", "100.64.0.4", 2);
    c.active = true;
    c.relay = "lab";
    api::PeerStatus& b = add(7, "router-b", "100.64.0.2", 2);
    b.active = true;
    b.relay = "lab";
    b.cur_addr = "10.211.0.3:41641";
    b.tx_bytes = 1132;
    b.rx_bytes = 700;
    return s;
}

constexpr WallTime kNow{1795224570'000000000};  // 2026-11-21T01:29:30Z

TEST(StatusText, EqualsTheRecordedTable) {
    EXPECT_EQ(status_text(small_status(), {}, kNow), recorded("status-text.txt", "tailscale status", 2));
}

TEST(StatusText, OptionsFilterRowsAsRecorded) {
    StatusOptions o;
    o.header = true;
    EXPECT_EQ(status_text(small_status(), o, kNow), recorded("status-text.txt", "tailscale status --header"));
    o = {};
    o.self = false;
    EXPECT_EQ(status_text(small_status(), o, kNow), recorded("status-text.txt", "tailscale status --self=false"));
    o = {};
    o.peers = false;
    EXPECT_EQ(status_text(small_status(), o, kNow), recorded("status-text.txt", "tailscale status --peers=false"));
    o = {};
    o.active = true;
    auto s = small_status();
    for (auto& [key, p] : *s.peers)
        if (p.dns_name.starts_with("laptop")) p.active = false;
    const std::string text = status_text(s, o, kNow);
    EXPECT_EQ(text.find("laptop-c"), std::string::npos);
    EXPECT_NE(text.find("router-b"), std::string::npos);
}

TEST(StatusText, ShowsOfflinePeersHealthAndTaggedOwners) {
    auto s = sample_status();
    for (auto& [key, p] : *s.peers)
        if (p.dns_name.starts_with("laptop-c2")) p.tx_bytes = 1716;
    EXPECT_EQ(status_text(s, {}, kNow), recorded("status-text.txt", "tailscale status", 7));
}

TEST(StatusText, ShowsExitNodes) {
    auto s = small_status();
    for (auto& [key, p] : *s.peers) {
        if (p.dns_name.starts_with("laptop")) p.active = false;
        if (!p.dns_name.starts_with("router")) continue;
        p.exit_node_option = true;
        p.tx_bytes = 1784;
        p.rx_bytes = 1240;
    }
    EXPECT_EQ(status_text(s, {}, kNow), recorded("exit-node.txt", "tailscale status"));
    for (auto& [key, p] : *s.peers)
        if (p.dns_name.starts_with("router")) p.exit_node = true;
    EXPECT_EQ(status_text(s, {}, kNow), recorded("exit-node.txt", "tailscale status", 1));
}

TEST(StatusText, NamesOfOthersCannotSpeakToTheTerminal) {
    auto s = small_status();
    s.self.dns_name = "a\x1b[2Jb.mesh.test.";
    EXPECT_EQ(status_text(s, {}, kNow).find('\x1b'), std::string::npos);
}

TEST(StatusText, TellsWhyThereIsNoTable) {
    api::DaemonStatus s;
    s.backend_state = api::State::kRunning;
    EXPECT_FALSE(not_running_text(s));
    s.backend_state = api::State::kStarting;
    EXPECT_FALSE(not_running_text(s));
    s.backend_state = api::State::kStopped;
    EXPECT_EQ(not_running_text(s), "Tailscale is stopped.");
    s.backend_state = api::State::kNeedsLogin;
    EXPECT_EQ(not_running_text(s), "Logged out.");
    s.auth_url = "http://x/y";
    EXPECT_EQ(not_running_text(s), "Logged out.\nLog in at: http://x/y");
    s.backend_state = api::State::kNeedsMachineAuth;
    EXPECT_EQ(not_running_text(s), "Machine is not yet approved by tailnet admin.");
    s.backend_state = api::State::kNoState;
    EXPECT_EQ(not_running_text(s), "unexpected state: NoState");
}

TEST(StatusText, LastSeenCountsMinutesHoursDays) {
    const WallTime seen{1'000'000'000'000};
    EXPECT_EQ(last_seen_text({}, seen), "");
    EXPECT_EQ(last_seen_text(seen, seen), ", last seen 1m ago");
    EXPECT_EQ(last_seen_text(seen, seen + minutes(59)), ", last seen 59m ago");
    EXPECT_EQ(last_seen_text(seen, seen + minutes(60)), ", last seen 1h ago");
    EXPECT_EQ(last_seen_text(seen, seen + minutes(60 * 49)), ", last seen 2d ago");
}

TEST(WhoIsText, EqualsTheRecordingButShowsTheSubnet) {
    const auto who = api::parse_whois(vector_file("whois.json"));
    ASSERT_TRUE(who);
    std::string expected = recorded("whois.txt", "tailscale whois 100.64.0.2");
    const size_t at = expected.find("AllowedIPs:     [") + 17;
    expected.replace(at, expected.find(']', at) - at, "192.168.77.0/24");
    EXPECT_EQ(whois_text(*who), expected);
}

TEST(PingText, EqualsTheRecordedLines) {
    api::PingResult r;
    r.node_name = "router-b";
    r.node_ip = "100.64.0.2";
    r.latency_seconds = 0.0004;
    r.endpoint = "10.211.0.3:41641";
    EXPECT_EQ(pong_text(r, api::PingType::kDisco), recorded("ping.txt", "tailscale ping router-b"));
    r.endpoint.clear();
    r.latency_seconds = 0.0012;
    r.peer_api_port = 46590;
    EXPECT_EQ(pong_text(r, api::PingType::kTsmp), recorded("ping.txt", "tailscale ping --tsmp -c 2 router-b"));
    r.peer_api_port = 0;
    EXPECT_EQ(pong_text(r, api::PingType::kIcmp), recorded("ping.txt", "tailscale ping --icmp -c 2 router-b"));
    r.node_name = "router-b.mesh.test.";
    r.peer_api_url = "http://100.64.0.2:46590";
    r.latency_seconds = 0.0016;
    EXPECT_EQ(pong_text(r, api::PingType::kPeerApi), recorded("ping.txt", "tailscale ping --peerapi -c 1 router-b"));
    r.node_name = "laptop-c";
    r.node_ip = "100.64.0.4";
    r.derp_region_id = 900;
    r.derp_region_code = "lab";
    r.latency_seconds = 0.001;
    EXPECT_EQ(pong_text(r, api::PingType::kDisco), "pong from laptop-c (100.64.0.4) via DERP(lab) in 1ms\n");
}

TEST(Flags, OneAndTwoDashesEqualsAndSeparateValues) {
    bool b = false;
    std::string s;
    int64_t n = 0;
    Duration d;
    FlagSet f("tailscale x", "", "");
    f.add("bool", &b, "");
    f.add("text", &s, "");
    f.add("n", &n, "");
    f.add("wait", &d, "");
    ASSERT_EQ(f.parse({"-bool", "--text", "a b", "-n=3", "--wait=1m30s", "word", "--bool=false"}),
              FlagSet::Outcome::kOk);
    EXPECT_TRUE(b);
    EXPECT_EQ(s, "a b");
    EXPECT_EQ(n, 3);
    EXPECT_EQ(d, seconds(90));
    EXPECT_EQ(f.rest(), (std::vector<std::string>{"word", "--bool=false"}));
    EXPECT_TRUE(f.given("text"));
}

TEST(Flags, ErrorsAreTheOnesPeopleKnow) {
    const auto error = [](const std::vector<std::string>& args) {
        bool b = false;
        std::string s;
        int64_t n = 0;
        FlagSet f("tailscale x", "", "");
        f.add("ssh", &b, "");
        f.add("hostname", &s, "");
        f.add("c", &n, "");
        f.alias("host", "hostname");
        EXPECT_EQ(f.parse(args), FlagSet::Outcome::kBad);
        return f.error();
    };
    EXPECT_EQ(error({"--nosuch"}), "flag provided but not defined: -nosuch");
    EXPECT_EQ(error({"-c1"}), "flag provided but not defined: -c1");
    EXPECT_EQ(error({"-c"}), "flag needs an argument: -c");
    EXPECT_EQ(error({"-c", "x"}), "invalid value \"x\" for flag -c: parse error");
    EXPECT_EQ(error({"--ssh=maybe"}), "invalid boolean value \"maybe\" for -ssh: parse error");
    EXPECT_EQ(error({"--ssh", "--ssh"}), "invalid boolean flag ssh: flag provided multiple times");
    EXPECT_EQ(error({"--hostname=a", "--host=b"}), "invalid value \"b\" for flag -hostname: flag provided multiple times");
    EXPECT_EQ(error({"--=x"}), "bad flag syntax: --=x");
}

TEST(Flags, DurationsAreReadAsGoReadsThem) {
    EXPECT_EQ(parse_duration("300ms"), milliseconds(300));
    EXPECT_EQ(parse_duration("1.5h"), minutes(90));
    EXPECT_EQ(parse_duration("-2s"), Duration{-2'000'000'000});
    EXPECT_EQ(parse_duration("0"), Duration{});
    for (const char* bad : {"", "5", "s", "1x", "1..5s", "1e3s", "9999999999h"}) EXPECT_FALSE(parse_duration(bad)) << bad;
}

TEST(Flags, WordsAreQuotedForShellsOnlyWhenNeeded) {
    EXPECT_EQ(shell_quoted("http://10.0.0.1:8080"), "http://10.0.0.1:8080");
    EXPECT_EQ(shell_quoted("a b"), "'a b'");
    EXPECT_EQ(shell_quoted("it's"), "'it'\\''s'");
    EXPECT_EQ(in_quotes("a\"\n"), "\"a\\\"\\x0a\"");
}

/// `up` with these words against a node with those prefs.
Result<UpDecision> decide(const std::vector<std::string>& words, const api::Prefs& current,
                          const api::DaemonStatus& status, api::Prefs* wanted = nullptr, const char* user = "root") {
    UpArgs args;
    FlagSet flags("tailscale up", "[flags]", "");
    add_up_flags(flags, args, Command::kUp);
    EXPECT_EQ(flags.parse(words), FlagSet::Outcome::kOk) << flags.error();
    auto built = prefs_from_up(args.settings, status);
    if (!built) return tl::unexpected(built.error());
    auto decision = decide_up(args, flags, built->prefs, current, status, {user});
    if (wanted) *wanted = built->prefs;
    return decision;
}

api::Prefs lab_prefs() {
    api::Prefs p;
    p.control_url = "http://10.211.0.1:8080";
    p.route_all = true;
    p.hostname = "node-a";
    p.want_running = true;
    p.logged_out = false;
    p.persist.emplace().user_profile.login_name = "alice";
    return p;
}

TEST(Up, RefusesToUndoSettingsThatWereNotNamed) {
    const auto status = small_status();
    api::Prefs current = lab_prefs();
    current.hostname.clear();
    const std::vector<std::string> foo{"--hostname=foo"};
    auto r = decide(foo, current, status);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().message() + "\n", recorded("up-errors.txt", "tailscale up --hostname=foo"));

    current = lab_prefs();
    current.advertise_tags = {"tag:x", "tag:y"};
    current.shields_up = true;
    r = decide({"--login-server=http://10.211.0.1:8080", "--hostname=node-a", "--accept-routes", "--authkey=file:/nonexist"},
               current, status);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().message() + "\n",
              recorded("up-errors.txt", "tailscale up --login-server=http://10.211.0.1:8080 --hostname=node-a "
                                        "--accept-routes --auth-key=file:/nonexist"));

    current = lab_prefs();
    current.set_advertise_exit_node(true);
    current.operator_user = "nobody";
    r = decide({"--login-server=http://10.211.0.1:8080", "--hostname=node-a"}, current, status);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().message() + "\n",
              recorded("up-errors.txt", "tailscale up --login-server=http://10.211.0.1:8080 --hostname=node-a"));
}

TEST(Up, DoesNotPrintAKeyThatWasTyped) {
    const auto r = decide({"--auth-key=hskey-auth-secret"}, lab_prefs(), small_status());
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().message().find("secret"), std::string::npos);
}

TEST(Up, WithoutFlagsOnlyWantsToRun) {
    auto status = small_status();
    auto r = decide({}, lab_prefs(), status);
    ASSERT_TRUE(r);
    EXPECT_TRUE(r->simple);
    status.backend_state = api::State::kStopped;
    EXPECT_TRUE(decide({}, lab_prefs(), status)->simple);
    status.backend_state = api::State::kNeedsLogin;
    EXPECT_FALSE(decide({}, lab_prefs(), status));  // would undo settings
    EXPECT_FALSE(decide({}, api::Prefs{}, status)->simple);
}

TEST(Up, EditsARunningNodeAndLogsInOtherwise) {
    auto status = small_status();
    const std::vector<std::string> words{"--login-server=http://10.211.0.1:8080", "--hostname=b", "--accept-routes"};
    auto r = decide(words, lab_prefs(), status);
    ASSERT_TRUE(r);
    ASSERT_TRUE(r->edit);
    EXPECT_TRUE(r->edit->has(api::PrefField::kHostname));
    EXPECT_TRUE(r->edit->has(api::PrefField::kWantRunning));
    EXPECT_FALSE(r->edit->has(api::PrefField::kShieldsUp));
    auto with = words;
    with.emplace_back("--force-reauth");
    EXPECT_FALSE(decide(with, lab_prefs(), status)->edit);
    with.back() = "--auth-key=k";
    EXPECT_FALSE(decide(with, lab_prefs(), status)->edit);
    with.back() = "--advertise-tags=x";
    EXPECT_FALSE(decide(with, lab_prefs(), status)->edit);
    with.back() = "--reset";
    EXPECT_TRUE(decide(with, lab_prefs(), status)->edit->has(api::PrefField::kShieldsUp));
    status.backend_state = api::State::kStopped;
    EXPECT_FALSE(decide(words, lab_prefs(), status)->edit);
}

TEST(Up, ChangingTheServerOfARunningNodeNeedsANewLogin) {
    const std::vector<std::string> words{"--login-server=http://10.211.0.9:8080", "--hostname=node-a", "--accept-routes"};
    const auto r = decide(words, lab_prefs(), small_status());
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().message(), "can't change --login-server without --force-reauth");
}

TEST(Up, TheOperatorStaysTheOperatorWhenHeAsksHimself) {
    api::Prefs current = lab_prefs();
    current.operator_user = "bob";
    api::Prefs wanted;
    const std::vector<std::string> words{"--login-server=http://10.211.0.1:8080", "--hostname=node-a", "--accept-routes"};
    EXPECT_TRUE(decide(words, current, small_status(), &wanted, "bob"));
    EXPECT_EQ(wanted.operator_user, "bob");
    EXPECT_FALSE(decide(words, current, small_status(), &wanted, "root"));
}

TEST(Up, BadValuesAreRefusedInTheKnownWords) {
    const auto error = [](const std::vector<std::string>& words) {
        const auto r = decide(words, api::Prefs{}, small_status());
        return r ? std::string("accepted") : r.error().message();
    };
    EXPECT_EQ(error({"--advertise-routes=10.0.0.5/8"}), "10.0.0.5/8 has non-address bits set; expected 10.0.0.0/8");
    EXPECT_EQ(error({"--exit-node=1.2.3.4"}), "no node found in netmap with IP 1.2.3.4");
    EXPECT_EQ(error({"--exit-node=nosuch"}), "invalid value \"nosuch\" for --exit-node; must be IP or peer hostname");
    EXPECT_EQ(error({"--exit-node=laptop-c"}), "node \"laptop-c\" is not advertising an exit node");
    EXPECT_EQ(error({"--exit-node=100.64.0.2"}), "node 100.64.0.2 is not advertising an exit node");
    EXPECT_EQ(error({"--exit-node=100.64.0.1"}),
              "cannot use 100.64.0.1 as an exit node as it is a local IP address to this machine; did you mean "
              "--advertise-exit-node?");
    EXPECT_EQ(error({"--exit-node-allow-lan-access"}), "--exit-node-allow-lan-access can only be used with --exit-node");
    EXPECT_EQ(error({"--netfilter-mode=bogus"}), "invalid value --netfilter-mode=\"bogus\"");
    EXPECT_EQ(error({"--hostname=bad_host!"}),
              "\"bad_host!\" is not a valid DNS label: must end with a letter or number");
    EXPECT_EQ(error({"--advertise-routes=0.0.0.0/0"}),
              "0.0.0.0/0 advertised without its IPv6 counterpart, please also advertise ::/0");
    EXPECT_NE(error({"--advertise-tags=a_b"}), "accepted");
    EXPECT_NE(error({"--login-server=foo"}), "accepted");
    EXPECT_EQ(error({"--advertise-tags=web,tag:db", "--advertise-routes=10.0.0.0/8"}), "accepted");
}

TEST(Set, KeepsTheOtherHalfOfTheRoutes) {
    api::Prefs current;
    current.advertise_routes = {*Prefix::parse("10.0.0.0/8")};
    SettingArgs args;
    FlagSet flags("tailscale set", "[flags]", "");
    add_setting_flags(flags, args, Command::kSet);
    ASSERT_EQ(flags.parse({"--advertise-exit-node"}), FlagSet::Outcome::kOk);
    const auto e = edit_from_set(args, flags, current, small_status());
    ASSERT_TRUE(e);
    EXPECT_EQ(e->edit.prefs.subnet_routes().size(), 1U);
    EXPECT_TRUE(e->edit.prefs.advertises_exit_node());
    EXPECT_TRUE(e->touches_routes);
    EXPECT_EQ(e->edit.mask.count(), 1U);
}

TEST(Get, ShowsSettingsAsRecorded) {
    api::Prefs p = lab_prefs();
    std::vector<std::vector<std::string>> rows{{"NAME", "VALUE"}};
    for (const std::string& n : get_settings()) rows.push_back({n, setting_value(n, p, small_status())});
    EXPECT_EQ(table_text(rows, 2, LastColumn::kBare), recorded("get.txt", "tailscale get"));
}

TEST(Target, PeersAreFoundByNameBeforeTheSystemIsAsked) {
    const auto s = small_status();
    EXPECT_EQ(find_target(s, "router-b")->ip.str(), "100.64.0.2");
    EXPECT_EQ(find_target(s, "router-b.mesh.test")->ip.str(), "100.64.0.2");
    EXPECT_EQ(find_target(s, "router-b.mesh.test.")->ip.str(), "100.64.0.2");
    EXPECT_TRUE(find_target(s, "node-a")->is_self);
    EXPECT_TRUE(find_target(s, "100.64.0.1")->is_self);
    EXPECT_FALSE(find_target(s, "192.168.77.1")->is_self);
}

TEST(Qr, HasAQuietZoneAndSquareShape) {
    const std::string art = qr_text("http://10.211.0.1:8080/register/hskey-authreq-ccbbbb7a0fa22a3b34898f45", QrFormat::kSmall);
    std::istringstream in(art);
    std::string line;
    std::getline(in, line);
    EXPECT_EQ(text_width(line), 45U);
    for (const char c : {'\n'}) EXPECT_EQ(std::count(art.begin(), art.end(), c), 23);
    const std::string png = qr_png("http://x/");
    EXPECT_EQ(png.substr(1, 3), "PNG");
    EXPECT_EQ(qr_text(std::string(5000, 'x'), QrFormat::kSmall), "");
    EXPECT_FALSE(parse_qr_format("huge"));
}

TEST(DebugText, ToleratesWhatItDoesNotKnow) {
    EXPECT_EQ(drops_text(R"({"no_route":3,"filtered":0})", false), "no_route  3\n");
    EXPECT_EQ(drops_text(R"({"filtered":0})", false), "no packet was dropped\n");
    EXPECT_EQ(drops_text("[", false), "");
    const char* paths =
        R"([{"Peer":"b","Name":"b.mesh.test.","Addresses":["100.64.0.2"],"Direct":"","Relay":"lab","SecondsSinceSend":0.5,"Candidates":[)"
        R"({"Endpoint":"192.0.2.7:41641","Source":"netmap","Pings":4,"Pongs":0,"Recent":3,"RecentLost":3,"SecondsSinceProbe":0.25,)"
        R"("SecondsSincePong":-1,"LatencySeconds":0,"BestLatencySeconds":0},)"
        R"({"Endpoint":"10.0.0.7:1","Source":"ping","Pings":2,"Pongs":1,"Recent":2,"RecentLost":1,"SecondsSinceProbe":300,)"
        R"("SecondsSincePong":300,"LatencySeconds":0.0123,"BestLatencySeconds":0.0111}],)"
        R"("Events":[{"What":"no answer","SecondsAgo":1.5,"Endpoint":"192.0.2.7:41641"}]},{"Peer":"c"}])";
    EXPECT_EQ(paths_text(paths, "100.64.0.2"),
              "b: by relay (relay lab)\n"
              "  addresses:\n"
              "    192.0.2.7:41641  netmap  4 pings, 0 answered; last 0.2 s ago\n"
              "    10.0.0.7:1       ping    2 pings, 1 answered; 1 of the last 2 lost; 12.3 ms, best 11.1 ms; last 5 min ago\n"
              "  what happened:\n"
              "    1.5 s ago  no answer 192.0.2.7:41641\n");
    EXPECT_EQ(paths_text(paths, "b").substr(0, 2), "b:");
    EXPECT_EQ(paths_text(R"([{"Peer":"b","PeerRelay":"192.0.2.1:7:vni:3","PeerRelayLatencySeconds":0.01,"Relay":"lab","PeerRelays":[{"VNI":3,)"
                         R"("Endpoint":"192.0.2.1:7","Bound":true,"Pings":2,"Pongs":1},{"VNI":4,"Endpoint":""},{"VNI":5,"Endpoint":"192.0.2.2:7"}]}])", ""),
              "b: by peer relay 192.0.2.1:7:vni:3 in 10.0 ms (relay lab)\n"
              "  peer relays:\n"
              "    192.0.2.1:7:vni:3  2 pings, 1 pongs\n"
              "    :vni:4             has not answered\n"
              "    192.0.2.2:7:vni:5  the peer was not heard through it\n");
    EXPECT_EQ(relay_sessions_text(R"({"UDPPort":null,"Sessions":null})"),
              "Server port: not configured (you can configure the port with 'tailscale set --relay-server-port=<PORT>')\nSessions count: 0\n");
    EXPECT_EQ(relay_sessions_text(R"({"UDPPort":40000,"Sessions":[{"VNI":3,"Client1":{"Endpoint":"10.50.1.1:10901","ShortDisco":"d:a7866adb64281f29",)"
                                  R"("PacketsTx":10,"BytesTx":1268},"Client2":{"Endpoint":"","ShortDisco":"d:daa27ce49e4759af","PacketsTx":0,"BytesTx":0}}]})"),
              "Server port: 40000\nSessions count: 1\n\nVNI: 3\n"
              "  10.50.1.1:10901(d:a7866adb64281f29) --> <no handshake>(d:daa27ce49e4759af), Packets: 10 Bytes: 1268\n"
              "  <no handshake>(d:daa27ce49e4759af) --> 10.50.1.1:10901(d:a7866adb64281f29), Packets: 0 Bytes: 0\n");
    EXPECT_EQ(paths_text(R"([{"Peer":"b","SecondsSinceSend":1,"Candidates":[)"
                         R"({"Endpoint":"192.0.2.7:1","Source":"netmap","Pings":3,"Pongs":0,"Size":"","CarriesBytes":0,"FullBytes":1340},)"
                         R"({"Endpoint":"192.0.2.8:1","Source":"netmap","Pings":0,"Size":"too small","CarriesBytes":1280,"FullBytes":1340},)"
                         R"({"Endpoint":"192.0.2.9:1","Source":"netmap","Pings":0,"Size":"whole","CarriesBytes":1340,"FullBytes":1340}],)"
                         R"("Events":[{"What":"full packets get lost","SecondsAgo":1,"Endpoint":"192.0.2.8:1","Bytes":1280}]}])", ""),
              "b: by relay\n"
              "  addresses:\n"
              "    192.0.2.7:1  netmap  3 pings, 0 answered\n"
              "    192.0.2.8:1  netmap  not tried; not used: packets of 1340 bytes get lost, 1280 bytes arrive\n"
              "    192.0.2.9:1  netmap  not tried; carries full packets (1340 bytes)\n"
              "  what happened:\n"
              "    1.0 s ago  full packets get lost 192.0.2.8:1, 1280 bytes arrive\n");
    EXPECT_EQ(paths_text(paths, "c"), "c: idle\n");
    EXPECT_EQ(paths_text(paths, "zzz"), "no such peer\n");
    EXPECT_EQ(paths_text(R"([{"Peer":7,"Candidates":{},"Events":[1,{"SecondsAgo":"x"}]},[]])", "").substr(0, 2), ": ");
}

TEST(Doctor, SaysWhatItFoundAndWhatToDo) {
    const auto j = json::parse(R"({"Node":[{"Level":"ok","Code":"udp-works","Text":"UDP works."},7],"Peer":{"Name":"b","Address":"100.64.0.2",)"
                               R"("Findings":[{"Level":"problem","Code":"firewall","Text":"A firewall.","Do":"Open it."}]}})");
    ASSERT_TRUE(j);
    EXPECT_EQ(doctor_text(*j), "this host:\n  ok: UDP works.\n\nb (100.64.0.2):\n  problem: A firewall.\n      Open it.\n");
    EXPECT_EQ(doctor_peer_text(*j), "  problem: A firewall.\n      Open it.\n");
    EXPECT_TRUE(doctor_found_problem(*j));
    const auto well = json::parse(R"({"Node":[],"Peer":null})");
    EXPECT_EQ(doctor_text(*well), "this host:\n  nothing to say\n");
    EXPECT_FALSE(doctor_found_problem(*well));
}

TEST(Doctor, TwoPrivateRoutersAreProbablyTwoNats) {
    const auto code = [](std::vector<const char*> hops) {
        std::vector<Addr> list;
        for (const char* h : hops) list.push_back(Addr::parse(h).value_or(Addr{}));
        const auto f = judge_hops(list);
        return f ? (*f)["Code"].get<std::string>() : "";
    };
    EXPECT_EQ(code({"192.168.1.1", "192.168.100.1"}), "double-nat");
    EXPECT_EQ(code({"192.168.1.1", "100.70.0.1"}), "carrier-nat");
    EXPECT_EQ(code({"192.168.1.1", "203.0.113.1"}), "");
    EXPECT_EQ(code({"203.0.113.1", "10.0.0.1"}), "") << "a provider's own addresses";
    EXPECT_EQ(code({"192.168.1.1", "silent"}), "");
    EXPECT_EQ(code({"192.168.1.1"}), "");
    EXPECT_EQ(code({}), "");
}

TEST(Dns, QueryAsRecorded) {
    DnsQueryAnswer a;
    a.name = "router-b.mesh.test";
    a.type = "A";
    a.resolvers = {"10.211.0.254"};
    dns::Query q;
    ASSERT_EQ(dns::parse_query(dns::make_query(0, a.name, dns::kTypeA), q), dns::QueryError::kNone);
    dns::Reply reply(q, dns::kNoError, true);
    reply.add_address(Addr::v4(100, 64, 0, 2), 5);
    a.message = reply.finish();
    const auto m = dns::parse_message(a.message);
    ASSERT_TRUE(m);
    EXPECT_EQ(dns_query_text(a, *m), recorded("dns.txt", "tailscale dns query router-b.mesh.test"));
    EXPECT_EQ(dns_query_json(a, *m), recorded("dns.txt", "tailscale dns query --json router-b.mesh.test"));
    a.resolvers.push_back("10.211.0.253");
    a.message = dns::error_reply(q, dns::kNxDomain);
    const std::string text = dns_query_text(a, *dns::parse_message(a.message));
    EXPECT_NE(text.find("Multiple resolvers available:\n  - 10.211.0.254\n  - 10.211.0.253\n"), std::string::npos) << text;
    EXPECT_NE(text.find("Response code: RCodeNameError\n\nNo answers found.\n"), std::string::npos) << text;
}

TEST(Dns, StatusAsRecorded) {
    DnsStatus s;
    s.accept_dns = true;
    s.status.current_tailnet = api::TailnetStatus{"mesh.test", "mesh.test", true};
    s.status.self.dns_name = "node-a.mesh.test.";
    s.config = *json::parse(R"({"Routes":{"64.100.in-addr.arpa":[]},"Domains":["mesh.test"],"Proxied":true})");
    s.os = *json::parse(R"({"Nameservers":["10.211.0.254"],"SearchDomains":[],"MatchDomains":[]})");
    EXPECT_EQ(dns_status_json(s), recorded("dns.txt", "tailscale dns status --json"));
    // The lines that scripts look for; the prose around them is our own.
    const std::string ours = dns_status_text(s, false), theirs = recorded("dns.txt", "tailscale dns status");
    for (const char* line : {"=== 'Use Tailscale DNS' status ===", "Tailscale DNS: enabled.", "=== MagicDNS configuration ===",
                             "MagicDNS: enabled tailnet-wide (suffix = mesh.test)", "Resolvers (in preference order):", "Split DNS Routes:",
                             "  (no routes configured: split DNS disabled)", "Search Domains:", "  - mesh.test", "=== System DNS configuration ===",
                             "Nameservers:", "  - 10.211.0.254", "Search domains:", "  (no search domains found)"}) {
        EXPECT_NE(theirs.find(std::string(line) + "\n"), std::string::npos) << line;
        EXPECT_NE(ours.find(std::string(line) + "\n"), std::string::npos) << line;
    }
    s.config["Domains"].push_back("a\x1b[2Jb");
    EXPECT_EQ(dns_status_text(s, true).find('\x1b'), std::string::npos) << "names from outside do not reach the terminal";
}

TEST(Client, ErrorBodiesAreRead) {
    EXPECT_EQ(json_error_text(R"({"Error":"no"})"), "no");
    EXPECT_EQ(json_error_text(R"({"error":"no"})"), "no");
    EXPECT_FALSE(json_error_text("{}"));
    EXPECT_FALSE(json_error_text("plain"));
    EXPECT_EQ(errno_text(2), "no such file or directory");
    EXPECT_EQ(trimmed(" a b \n"), "a b");
}

// ---- netcheck --------------------------------------------------------------------------------------------------------

derp::DerpMap two_regions() {
    derp::DerpMap map;
    for (const auto& [id, code] : {std::pair(900, "lab"), std::pair(901, "lab2")}) {
        map.regions[id].id = id;
        map.regions[id].code = code;
    }
    return map;
}

constexpr const char* kRelays =
    R"({"Relays":[{"RegionID":900,"Node":"900a","Host":"10.50.0.2","Port":12345,"Good":true,"LatencySeconds":0.0012,"IPv6":false,"Problems":[],)"
    R"("Steps":["TLS: TLSv1.3 from 10.50.0.2:12345"]},)"
    R"({"RegionID":901,"Node":"901a","Host":"2001:db8::2","Port":443,"Good":false,"Problems":["connection: refused\u001b[31m"],"Steps":[]}],)"
    R"("CaptivePortal":true})";

TEST(Netcheck, OnlyWhatIsWrongIsSaidUnlessAskedForMore) {
    const Findings f = read_findings(kRelays, R"({"Endpoint":"","Notes":["another NAT"]})");
    EXPECT_EQ(findings_text(f, two_regions(), false),
              "\t* PortMapping note: another NAT\n\t* DERP port: lab2 [2001:db8::2]:443: connection: refused?[31m\n");
    EXPECT_EQ(findings_text(f, two_regions(), true),
              "\t* PortMapping note: another NAT\n\t* DERP port: lab 10.50.0.2:12345: works, answers in 1.2ms\n"
              "\t\t- TLS: TLSv1.3 from 10.50.0.2:12345\n\t* DERP port: lab2 [2001:db8::2]:443: connection: refused?[31m\n");
    EXPECT_EQ(f.captive_portal, true);
    ASSERT_NE(f.best(900), nullptr);
    EXPECT_EQ(f.best(901), nullptr);
    EXPECT_EQ(json::dump(findings_json(f)),
              R"({"DERPPorts":[{"RegionID":900,"Address":"10.50.0.2:12345","Good":true,"Latency":1200000,"Problems":[]},)"
              R"({"RegionID":901,"Address":"[2001:db8::2]:443","Good":false,"Latency":null,"Problems":["connection: refused?[31m"]}],)"
              R"("PortMappingNotes":["another NAT"]})");
}

TEST(Netcheck, ANetworkWithoutUdpIsOneLineNotOnePerRelay) {
    Findings f = read_findings(kRelays, "");
    for (RelayFinding& r : f.relays) r.problems = {"STUN: no answer from x"};
    EXPECT_EQ(findings_text(f, two_regions(), false),
              "\t* DERP port: none of the 2 relays answers STUN: this network drops UDP, so paths stay relayed\n");
    EXPECT_NE(f.best(900), nullptr) << "its TCP port answers";
    f.relays.pop_back();
    EXPECT_EQ(findings_text(f, two_regions(), false), "\t* DERP port: lab 10.50.0.2:12345: STUN: no answer from x\n");
}

TEST(Netcheck, AnswersThatAreNoneAreLeftOut) {
    for (const char* bad : {"", "{", "[]", "null", R"({"Relays":{}})", R"({"Relays":[1,null,"x"]})", R"({"Relays":[],"CaptivePortal":"yes"})"}) {
        const Findings f = read_findings(bad, bad);
        EXPECT_TRUE(f.relays.empty() && !f.captive_portal && f.port_notes.empty()) << bad;
        EXPECT_EQ(findings_text(f, two_regions(), true), "");
    }
    EXPECT_FALSE(read_findings(R"({"Relays":[{"LatencySeconds":1e300}]})", "").relays.front().latency);
}

}  // namespace
}  // namespace mesh::cli
