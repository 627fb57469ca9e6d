// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <sstream>

#include "tailscaled/api/node.h"
#include "tailscaled/api/notify.h"
#include "tailscaled/api/ping.h"
#include "tailscaled/api/prefs.h"
#include "tailscaled/api/status.h"

namespace mesh::api {
namespace {

std::string vector_file(const std::string& name) {
    std::ifstream in(MESH_VECTORS + name);
    EXPECT_TRUE(in.good()) << name;
    std::stringstream s;
    s << in.rdbuf();
    return s.str();
}

std::vector<std::string> lines(const std::string& text) {
    std::vector<std::string> out;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) out.push_back(line);
    return out;
}

TEST(JsonText, WritesNumbersAsGoDoes) {
    const auto n = [](double v) { return JsonText().number(v).take(); };
    EXPECT_EQ(n(0), "0");
    EXPECT_EQ(n(0.000325748), "0.000325748");
    EXPECT_EQ(n(0.0005693), "0.0005693");
    EXPECT_EQ(n(1e-7), "1e-7");
    EXPECT_EQ(n(2.5), "2.5");
    EXPECT_EQ(n(1e21), "1e+21");
}

TEST(JsonText, WrittenWithIndentationIsAsIndentedAfterwards) {
    const auto write = [](JsonText out) {
        out.open_object().field("a", 1).key("empty").open_object().close_object().key("none").open_array().close_array();
        out.key("deep").open_array().open_object().field("x", "y: {\"").close_object().open_array().integer(1).null().close_array().close_array();
        out.raw_field("raw", R"({"b":[1,{"c":""}],"d":{},"e":[]})").raw_field("nothing", "").list("list", std::vector<std::string>{"1", "2"}, JsonText::Empty::kNull);
        return out.close_object().take();
    };
    for (const char* indent : {"\t", "  "}) EXPECT_EQ(write(JsonText(indent)), indent_json(write(JsonText()), indent));
    EXPECT_EQ(JsonText("\t").raw(R"({"a":[]})").take(), "{\n\t\"a\": []\n}");
    EXPECT_EQ(JsonText("\t").text("x").take(), "\"x\"");
}

TEST(JsonText, EscapesWhatGoEscapes) {
    EXPECT_EQ(JsonText().text("a<b>&\"\\\n\x01").take(), R"("a\u003cb\u003e\u0026\"\\\n\u0001")");
    EXPECT_EQ(JsonText().text("Zürich").take(), "\"Zürich\"");
}

TEST(JsonText, IndentAndCompactAreInverse) {
    const std::string c = R"({"a":[],"b":{},"c":[1,{"d":"x, {y}: \" "}],"e":null})";
    EXPECT_EQ(compact_json(indent_json(c, "\t")), c);
    EXPECT_EQ(indent_json(R"({"a":[1]})", "  "), "{\n  \"a\": [\n    1\n  ]\n}");
    EXPECT_EQ(indent_json(indent_json(c, "\t") + "\n", "  "), indent_json(c, "  ")) << "whatever the input's own white space is";
    for (const char* broken : {"\"", "\"\\", "]", "{", "[ ", "}}}{", ":,"}) EXPECT_EQ(compact_json(indent_json(broken, "\t")), compact_json(broken));
}

TEST(Status, ParsedAndWrittenAgainEqualsTheRecordedSample) {
    const std::string sample = vector_file("status.json");
    const auto s = parse_status(sample);
    ASSERT_TRUE(s);
    EXPECT_EQ(s->peers->size(), 6U);
    EXPECT_EQ(indent_json(status_json(*s), "  "), sample);
    EXPECT_EQ(status_json(*s, "  "), sample);
}

TEST(Status, OfManyPeersIsReadInLinearTime) {
    const auto text_of = [](uint32_t peers) {
        DaemonStatus s;
        s.peers.emplace();
        s.users.emplace();
        for (uint32_t n = 1; n <= peers; ++n) {
            NodePublic key;
            store_be32(key.raw.data(), n);
            PeerStatus p;
            p.public_key = key;
            p.host_name = "host-" + std::to_string(n);
            (*s.peers)[key] = p;
            (*s.users)[n] = {n, p.host_name, "", ""};
        }
        return indent_json(status_json(s), "\t");
    };
    const auto seconds_for = [](const std::string& text, size_t peers) {
        const std::clock_t begin = std::clock();
        const auto s = parse_status(text);
        EXPECT_TRUE(s && s->peers->size() == peers && s->users->size() == peers);
        return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
    };
    const std::string few = text_of(1'000), many = text_of(10'000);
    const double one = std::min(seconds_for(few, 1'000), seconds_for(few, 1'000));
    const double ten = seconds_for(many, 10'000);
    RecordProperty("milliseconds_for_10000", std::to_string(ten * 1e3));
    EXPECT_LT(ten, one * 40) << "ten times as many must not cost a hundred times as much: " << one << " s, " << ten << " s";
}

TEST(Status, MalformedTextIsAnError) {
    for (const char* text : {"", "[]", "{", R"({"Peer":{"nodekey:00":}})", R"({"Peer":{"x":1}} x)"}) EXPECT_FALSE(parse_status(text)) << text;
    EXPECT_FALSE(parse_status(R"({"Peer":null})")->peers);
    EXPECT_TRUE(parse_status("{}"));
}

TEST(Status, OfAFreshDaemonEqualsTheRecordedBody) {
    DaemonStatus s;
    s.version = "1.102.5-ERR-BuildInfo";
    s.tun = true;
    s.backend_state = State::kNeedsLogin;
    s.self.host_name = "vm";
    s.self.os = "linux";
    s.self.addrs.emplace();
    s.health = {"Tailscale is stopped."};
    EXPECT_EQ(indent_json(status_json(s), "\t") + "\n", vector_file("api-status-needslogin.json"));
}

TEST(Status, UsersAreSortedAsText) {
    DaemonStatus s;
    s.users = {{2, {2, "b", "", ""}}, {10, {10, "c", "", ""}}};
    const std::string j = status_json(s);
    EXPECT_LT(j.find("\"10\""), j.find("\"2\""));
}

TEST(Prefs, OfAFreshDaemonEqualTheRecordedBody) {
    EXPECT_EQ(indent_json(prefs_json(Prefs{}), "\t") + "\n", vector_file("api-prefs-fresh.json"));
}

TEST(Prefs, StartOptionsOfTheOriginalClientAreReadAndWrittenByteForByte) {
    const std::string sample = vector_file("start.json");
    const auto o = parse_start_options(sample);
    ASSERT_TRUE(o);
    EXPECT_EQ(o->update_prefs->hostname, "node-a");
    EXPECT_FALSE(o->update_prefs->logged_out);
    EXPECT_EQ(start_options_json(*o) + "\n", sample);
}

TEST(Prefs, OnlyMaskedFieldsAreApplied) {
    const auto m = parse_masked_prefs(
        R"({"Hostname":"x","RouteAll":true,"RouteAllSet":true,"AutoUpdate":{"Check":false,"Apply":true},)"
        R"("AutoUpdateSet":{"ApplySet":true},"AdvertiseRoutes":["10.0.0.0/8"],"AdvertiseRoutesSet":true})");
    ASSERT_TRUE(m);
    Prefs p;
    p.hostname = "keep";
    p.persist.emplace().node_id = "7";
    m->apply_to(p);
    EXPECT_EQ(p.hostname, "keep");
    EXPECT_TRUE(p.route_all);
    EXPECT_TRUE(p.auto_update_check);
    EXPECT_EQ(p.auto_update_apply, true);
    EXPECT_EQ(p.advertise_routes->size(), 1U);
    EXPECT_EQ(p.persist->node_id, "7");
}

TEST(Prefs, MaskSurvivesWritingAndReading) {
    for (size_t i = 0; i < static_cast<size_t>(PrefField::kCount); ++i) {
        if (static_cast<PrefField>(i) == PrefField::kInternalExitNodePrior) continue;
        MaskedPrefs m;
        m.set(static_cast<PrefField>(i));
        const auto back = parse_masked_prefs(masked_prefs_json(m));
        ASSERT_TRUE(back) << i;
        EXPECT_EQ(back->mask, m.mask) << i;
    }
}

TEST(Prefs, WrongTypesAndInternalFieldsAreRefused) {
    EXPECT_FALSE(parse_masked_prefs("notjson"));
    EXPECT_FALSE(parse_masked_prefs("[]"));
    EXPECT_FALSE(parse_masked_prefs(R"({"RouteAll":"yes","RouteAllSet":true})"));
    EXPECT_FALSE(parse_masked_prefs(R"({"NetfilterMode":9})"));
    EXPECT_EQ(parse_masked_prefs(R"({"ExitNodeIPSet":true,"ExitNodeIP":"x"})").error().message(),
              "ParseAddr(\"x\"): unable to parse IP");
    EXPECT_EQ(parse_masked_prefs(R"({"InternalExitNodePriorSet":true})").error().message(),
              "can't set Internal fields");
    EXPECT_TRUE(parse_masked_prefs("{}"));
}

TEST(Prefs, KeysAreShownOnlyWhereTheStateFileNeedsThem) {
    SeededRandom random(1);
    Prefs p;
    p.persist.emplace();
    p.persist->private_node_key = NodePrivate::generate(random);
    p.persist->network_lock_key = "nlpriv:" + std::string(128, 'a');
    const std::string secret = p.persist->private_node_key.secret_text();
    EXPECT_EQ(prefs_json(p).find(secret), std::string::npos);
    EXPECT_EQ(prefs_json(p).find("aaaa"), std::string::npos);
    const auto back = parse_prefs(prefs_json(p, Secrets::kShown));
    ASSERT_TRUE(back);
    EXPECT_EQ(*back, p);
}

TEST(Prefs, DifferingFieldsAreNamed) {
    Prefs a;
    Prefs b;
    b.hostname = "x";
    b.run_ssh = true;
    const PrefMask d = differing_fields(a, b);
    EXPECT_EQ(d.count(), 2U);
    EXPECT_TRUE(d.test(static_cast<size_t>(PrefField::kHostname)));
}

TEST(Prefs, ChecksRoutesTagsAndExitNode) {
    Prefs p;
    EXPECT_TRUE(check_prefs(p));
    p.advertise_routes = {*Prefix::parse("10.0.0.5/8")};
    EXPECT_EQ(check_prefs(p).error().message(), "10.0.0.5/8 has non-address bits set; expected 10.0.0.0/8");
    p.advertise_routes.reset();
    p.set_advertise_exit_node(true);
    EXPECT_TRUE(p.advertises_exit_node());
    EXPECT_TRUE(check_prefs(p));
    p.exit_node_id = "3";
    EXPECT_FALSE(check_prefs(p));
    EXPECT_TRUE(check_tag("tag:a-1"));
    EXPECT_FALSE(check_tag("a"));
    EXPECT_FALSE(check_tag("tag:"));
    EXPECT_FALSE(check_tag("tag:1a"));
    EXPECT_FALSE(check_tag("tag:a_b"));
}

TEST(Notify, WritesTheRecordedMessagesOfALogin) {
    const auto recorded = lines(vector_file("bus.jsonl"));
    ASSERT_EQ(recorded.size(), 14U);
    const auto base = [] {
        Notify n;
        n.version = "1.102.5-ERR-BuildInfo";
        return n;
    };
    Notify n = base();
    n.state = State::kNeedsLogin;
    EXPECT_EQ(notify_json(n), recorded[1]);
    n = base();
    n.health = std::vector<HealthWarning>{
        {"warming-up", "low", "Tailscale is starting", "Tailscale is starting. Please wait.",
         WallTime{1795223795'835169336}, "82ed398c1be31739bf555c0221d7e4bc4c54c0e27219078e6e7fcd69deb3834b", false}};
    EXPECT_EQ(notify_json(n), recorded[2]);
    n = base();
    n.login_finished = true;
    EXPECT_EQ(notify_json(n), recorded[4]);
    n = base();
    n.prefs = Prefs{};
    n.prefs->control_url = "http://10.211.0.1:8080";
    n.prefs->want_running = true;
    n.prefs->logged_out = false;
    n.prefs->hostname = "node-a";
    n.prefs->auto_update_apply = false;
    n.prefs->persist = Persist{{}, {}, {1, "alice", "alice", ""}, "", "1"};
    EXPECT_EQ(notify_json(n), recorded[6]);
    n = base();
    n.drive_shares = true;
    EXPECT_EQ(notify_json(n), recorded[9]);
    n = base();
    n.engine = EngineStatus{};
    EXPECT_EQ(notify_json(n), recorded[10]);
    n = base();
    n.health.emplace();
    EXPECT_EQ(notify_json(n), recorded[13]);
}

TEST(Notify, SummaryOfARecordedLoginTellsStateAndKey) {
    std::vector<State> states;
    std::optional<NodePublic> key;
    for (const std::string& line : lines(vector_file("bus.jsonl"))) {
        const auto n = parse_notify(line);
        ASSERT_TRUE(n);
        if (n->state) states.push_back(*n->state);
        if (n->self_key) key = n->self_key;
    }
    EXPECT_EQ(states, (std::vector{State::kNeedsLogin, State::kStarting, State::kRunning}));
    ASSERT_TRUE(key);
    EXPECT_EQ(key->text().substr(0, 16), "nodekey:7d882907");
}

TEST(WhoIs, ParsedAndWrittenAgainEqualsTheRecordedSample) {
    const std::string sample = vector_file("whois.json");
    const auto w = parse_whois(sample);
    ASSERT_TRUE(w);
    EXPECT_EQ(indent_json(whois_json(*w), "  ") + "\n", sample);
}

TEST(Ping, ResultEqualsTheRecordedBody) {
    const std::string body =
        R"({"IP":"100.64.0.2","NodeIP":"100.64.0.2","NodeName":"router-b","Err":"","LatencySeconds":0.000581728,)"
        R"("Endpoint":"","PeerRelay":"","DERPRegionID":0,"DERPRegionCode":"","PeerAPIPort":46590})";
    const auto r = parse_ping_result(body);
    ASSERT_TRUE(r);
    EXPECT_EQ(ping_result_json(*r), body);
    EXPECT_EQ(parse_ping_type("TSMP"), PingType::kTsmp);
    EXPECT_FALSE(parse_ping_type("bogus"));
}

}  // namespace
}  // namespace mesh::api
