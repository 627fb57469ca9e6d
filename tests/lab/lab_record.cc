// SPDX-License-Identifier: BSD-3-Clause
// lab-record: one session with a real control server, written down: every register answer and every map frame as it came
// over the wire (tests/vectors/headscale). What happens on the server meanwhile is up to whoever runs it.
#include <CLI/CLI.hpp>
#include <csignal>
#include <fstream>

#include "base/crypto/crypto.h"
#include "base/log.h"
#include "platform/http/http_client.h"
#include "tailscaled/control/client_connection.h"
#include "tailscaled/control/control.h"
#include "tailscaled/control/map_framing.h"

namespace {

using namespace mesh;
using control::H2Event;

struct Recorder : control::Connection::Owner {
    std::string out, label = "register";
    control::RegisterRequest request;
    control::MapRequest map;
    bool follow = false, map_only = false;
    std::unique_ptr<control::Connection> connection;
    platform::Loop* loop = nullptr;
    std::string body;
    int status = 0, answers = 0, frames = 0;
    Bytes stream;

    void save(const std::string& name, ByteSpan bytes) const {
        std::ofstream f(out + "/" + name, std::ios::binary);
        f << as_text(bytes);
        log::info("{}: {} bytes", name, bytes.size());
    }
    void on_connection_up() override { map_only ? open_map() : send_register(); }
    void on_connection_down(const Error& why, bool) override {
        log::info("down: {}", why.message());
        loop->stop();
    }
    void send_register() {
        body.clear();
        (void)connection->send("POST", "/machine/register", {}, to_text(request), [this](H2Event& e) { on_register(e); });
    }
    void on_register(H2Event& e) {
        if (e.kind == H2Event::Kind::kHeaders) status = e.status;
        if (e.kind == H2Event::Kind::kData) body += as_text(e.data);
        if (e.kind != H2Event::Kind::kClose) return;
        save(fmt::format("{}-{}-{}.json", label, ++answers, status), as_bytes(body));
        const auto r = control::parse_register_response(body);
        if (!r || !r->error.empty()) return loop->stop();
        if (r->auth_url.empty()) return open_map();
        log::info("open {}", r->auth_url);
        request.followup = r->auth_url;
        follow ? send_register() : loop->stop();
    }
    void open_map() {
        map.stream = true;
        (void)connection->send("POST", "/machine/map", {}, to_text(map), [this](H2Event& e) { on_map(e); });
    }
    void on_map(H2Event& e) {
        if (e.kind == H2Event::Kind::kHeaders) status = e.status;
        if (e.kind == H2Event::Kind::kClose) loop->stop();
        if (e.kind != H2Event::Kind::kData) return;
        if (status != 200) return save(fmt::format("map-error-{}.txt", status), e.data);
        stream.insert(stream.end(), e.data.begin(), e.data.end());
        while (stream.size() >= 4 && stream.size() >= 4 + load_le32(stream.data())) {
            const size_t n = 4 + load_le32(stream.data());
            save(fmt::format("frame-{:02}.bin", frames), ByteSpan(stream).first(n));
            const auto text = control::zstd_decompress(ByteSpan(stream).subspan(4, n - 4), control::kMaxMapJson);
            if (text) save(fmt::format("frame-{:02}.json", frames), as_bytes(*text));
            ++frames;
            stream.erase(stream.begin(), stream.begin() + static_cast<std::ptrdiff_t>(n));
        }
    }
};

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{"Records one session with a control server."};
    std::string server, hostname = "recorder";
    std::vector<std::string> routes;
    int64_t limit = 60;
    Recorder r;
    uint64_t seed = 1;
    app.add_option("--server", server)->required();
    app.add_option("--out", r.out)->required();
    app.add_option("--auth-key", r.request.auth_key);
    app.add_option("--hostname", hostname);
    app.add_option("--label", r.label, "prefix of the files with register answers");
    app.add_option("--seconds", limit);
    app.add_option("--seed", seed, "keys are made from this: the same seed is the same node");
    app.add_option("--routes", routes, "subnets to offer");
    app.add_option("--version", r.request.version, "protocol version inside the requests");
    app.add_flag("--map-only", r.map_only, "poll without registering first");
    app.add_flag("--follow", r.follow, "wait until the login is approved");
    CLI11_PARSE(app, argc, argv);
    crypto::init();
    std::signal(SIGPIPE, SIG_IGN);

    SeededRandom keys(seed);
    SystemRandom random;
    platform::Loop loop;
    platform::Resolver resolver(loop, platform::system_resolver_config());
    platform::Dialer dialer(loop, resolver);
    platform::HttpClient http(loop, resolver);
    r.loop = &loop;
    control::Connection::Config config;
    const auto url = control::parse_control_url(server);
    if (!url) return fmt::print(stderr, "{}\n", url.error().message()), 1;
    config.url = *url;
    config.machine_key = MachinePrivate::generate(keys);
    r.request.node_key = NodePrivate::generate(keys).public_key();
    r.map.node_key = r.request.node_key;
    r.map.disco_key = DiscoPrivate::generate(keys).public_key();
    control::Hostinfo& h = r.map.hostinfo;
    h.hostname = hostname;
    for (const std::string& text : routes)
        if (const auto p = Prefix::parse(text)) h.routable_ips.push_back(*p);
    r.map.version = r.request.version;
    r.map.endpoints = {{{Addr::v4(192, 0, 2, static_cast<uint8_t>(seed)), 41641}, control::EndpointType::kLocal}};
    h.net_info.emplace().preferred_derp = 999;
    r.request.hostinfo = h;

    platform::HttpRequest key;
    key.url = server + fmt::format("/key?v={}", control::kCapabilityVersion);
    auto call = http.send(key, [&](Result<platform::HttpResponse> a) {
        const auto k = a ? control::parse_server_key(a->body) : tl::unexpected(a.error());
        if (!k) {
            log::info("{}", k.error().message());
            return loop.stop();
        }
        r.save("key.json", as_bytes(a->body));
        config.server_key = *k;
        r.connection = std::make_unique<control::Connection>(loop, dialer, random, config, r);
    });
    platform::Timer end(loop, [&] { loop.stop(); });
    end.set_after(seconds(limit));
    loop.run();
    r.connection.reset();
    return 0;
}
