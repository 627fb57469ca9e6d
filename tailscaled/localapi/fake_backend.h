// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// A daemon that only remembers: for the tests of this folder.

#include <fmt/format.h>

#include <string>
#include <utility>
#include <vector>

#include "tailscaled/localapi/backend.h"

namespace mesh::localapi {

class FakeBackend : public Backend {
   public:
    api::DaemonStatus status_value;
    api::Prefs prefs_value;
    std::vector<api::WhoIsResult> nodes;
    std::vector<std::string> calls;
    Done logout_done;
    PingDone ping_done;
    bool hold_completions = false;
    bool hold_ready = false;
    std::function<void()> ready_done;

    api::DaemonStatus status(WithPeers peers) override {
        api::DaemonStatus s = status_value;
        if (peers == WithPeers::kNo) s.peers.reset();
        return s;
    }
    const api::Prefs& prefs() override { return prefs_value; }
    std::optional<api::WhoIsResult> whois(const Addr& ip, uint16_t, std::string_view) override {
        for (const auto& w : nodes)
            for (const Prefix& p : w.node.addresses)
                if (p.addr == ip) return w;
        return std::nullopt;
    }
    std::optional<api::WhoIsResult> whois(const NodePublic& key) override {
        for (const auto& w : nodes)
            if (w.node.key == key) return w;
        return std::nullopt;
    }
    std::string derp_map_json() override { return ""; }
    std::optional<std::string> dns_config_json() override { return std::nullopt; }
    std::string dns_os_config_json() override { return R"({"Nameservers":["10.0.0.1"],"SearchDomains":[],"MatchDomains":[]})"; }
    void dns_query(const std::string& name, uint16_t type, DnsDone done) override {
        if (name == "bad..name") return done(fail(Code::kInvalid, "not a DNS name"));
        done(fmt::format(R"({{"Bytes":"{}","Resolvers":[]}})", type));
    }
    std::string net_map_json() override { return ""; }
    std::string user_metrics() override { return "# TYPE x gauge\n# HELP x Test.\nx 1\n"; }
    std::string drops_json() override { return R"({"no_route":3})"; }
    void check_relays(RelaysDone done) override { done(R"({"Relays":[],"CaptivePortal":null})"); }
    std::string peer_relay_sessions_json() override { return R"({"UDPPort":null,"Sessions":null})"; }
    std::string port_mapping_json() override { return R"({"Endpoint":"","Protocol":"","Notes":[]})"; }
    std::string paths_json(const std::optional<Addr>& peer) override {
        return peer ? "[{\"Peer\":\"" + peer->str() + "\"}]" : "[]";
    }
    void doctor(const std::optional<Addr>& peer, bool measure, DoctorDone done) override {
        calls.push_back("doctor " + (peer ? peer->str() : std::string("-")) + (measure ? " measured" : ""));
        done("{}");
    }
    std::string ip_forwarding_warning() override { return ""; }
    std::string udp_gro_forwarding_warning() override { return ""; }
    bool uses_so_mark() override { return true; }
    void dial(const std::string& host, uint16_t port, platform::ByteStream client) override {
        dialled = host + ":" + std::to_string(port);
        client.write("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ts-dial\r\n\r\n");
    }
    std::string dialled;
    std::string bug_report(const std::string& note, bool diagnose) override {
        calls.push_back("bugreport " + note + (diagnose ? " diagnosed" : ""));
        return "BUG-1-20261121000000Z-0000000000000000";
    }
    Result<std::string> file_targets_json() override { return R"([])"; }
    void waiting_files(Duration wait, FilesDone done) override {
        calls.push_back("files " + std::to_string(wait.ns / 1'000'000'000));
        done(std::string(R"([{"Name":"a b.txt","Size":3}])"));
    }
    void delete_file(const std::string& name, Done done) override {
        calls.push_back("delete " + name);
        done(name == "none" ? Status(fail(Code::kNotFound, "open none: No such file or directory")) : Status());
    }
    void read_file(const std::string& name, platform::ByteStream client) override {
        calls.push_back("read " + name);
        file_written = client.write("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + std::string(100'000, 'x'));
        taken = std::move(client);
    }
    void put_file(platform::ByteStream client) override {
        calls.emplace_back("put");
        taken = std::move(client);
    }
    platform::ByteStream taken;
    bool file_written = false;
    std::string state_dir() override { return "/var/lib/tailscale"; }
    std::vector<api::LoginProfile> profiles() override { return {current_profile()}; }
    api::LoginProfile current_profile() override {
        api::LoginProfile p;
        p.id = "8175";
        p.name = "alice";
        return p;
    }
    Status switch_profile(const std::string& id) override {
        calls.push_back("switch " + id);
        return id == "nosuch" ? Status(fail(Code::kNotFound, "profile not found")) : Status();
    }
    Status remove_profile(const std::string& id) override {
        calls.push_back("remove " + id);
        return {};
    }
    api::Notify initial_notify(uint64_t mask) override {
        api::Notify n;
        n.version = status_value.version;
        if ((mask & api::kWatchInitialState) != 0) n.state = status_value.backend_state;
        if ((mask & api::kWatchInitialPrefs) != 0) n.prefs = prefs_value;
        return n;
    }

    Result<api::Prefs> edit_prefs(const api::MaskedPrefs& change, const Caller& caller) override {
        calls.push_back("edit_prefs " + std::to_string(caller.uid) + " " + caller.reason);
        if (change.has(api::PrefField::kShieldsUp)) return fail(Code::kDenied, "not today");
        change.apply_to(prefs_value);
        return prefs_value;
    }
    Status check_prefs(const api::Prefs& p) override { return api::check_prefs(p); }
    Status start(const api::StartOptions& options, const Caller&) override {
        calls.push_back("start " + options.auth_key);
        return {};
    }
    Status login_interactive(const Caller&) override {
        calls.emplace_back("login");
        return {};
    }
    void when_host_ready(std::function<void()> done) override {
        if (hold_ready)
            ready_done = std::move(done);
        else
            done();
    }
    void logout(const Caller&, Done done) override {
        calls.emplace_back("logout");
        if (hold_completions)
            logout_done = std::move(done);
        else
            done({});
    }
    void ping(const api::PingRequest& request, PingDone done) override {
        calls.push_back("ping " + request.ip.str());
        if (hold_completions) {
            ping_done = std::move(done);
            return;
        }
        api::PingResult r;
        r.ip = r.node_ip = request.ip.str();
        r.node_name = "router-b";
        r.latency_seconds = 0.0008;
        r.endpoint = "10.211.0.3:41641";
        done(r);
    }
    std::optional<Result<Reply>> debug_action(std::string_view action) override {
        calls.push_back("debug " + std::string(action));
        if (action != "restun") return std::nullopt;
        return Reply{200, "text/plain", "done\n"};
    }
    void reset_auth() override { calls.emplace_back("reset_auth"); }
};

}  // namespace mesh::localapi
