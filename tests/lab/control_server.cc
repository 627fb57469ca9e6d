// SPDX-License-Identifier: BSD-3-Clause
#include "tests/lab/control_server.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "platform/file.h"
#include "tailscaled/control/h2.h"
#include "tailscaled/control/map_framing.h"
#include "tailscaled/control/noise.h"
#include "tailscaled/control/upgrade.h"

namespace mesh::lab {

using control::H2Event;
using control::H2Session;
using Coding = control::MapFrameReader::Coding;

namespace {
constexpr size_t kMaxBody = 1U << 20;
constexpr size_t kMaxSessions = 4096;
constexpr size_t kMaxFile = 256U << 20;
}  // namespace

struct ControlServer::State {
    State(platform::Loop& l, Random& r, Options o)
        : loop(l), random(r), options(std::move(o)), registry(options.registry, random), timer(l, [this] { tick(); }) {}

    struct Poll {
        Session* session;
        int32_t stream;
        NodeId node;
        Coding coding;
        Time keepalive_at;
    };
    struct Held {
        Session* session;
        int32_t stream;
        MachinePublic machine;
        std::string body;
        std::string login;
    };

    void deliver();
    void send_json(Poll& p, const std::string& json);
    void tick();
    void forget_stream(Session* s, int32_t stream);
    void session_gone(Session* s);
    http1::Response outer(const http1::Request& r);
    http1::Response lab_command(const http1::Target& t);
    void retry_held();

    platform::Loop& loop;
    Random& random;
    Options options;
    Registry registry;
    MachinePrivate key;
    std::map<Session*, std::unique_ptr<Session>> sessions;
    std::vector<Poll> polls;
    std::vector<Held> held;
    std::map<NodeId, Time> going_offline;
    int answered_pings = 0;
    int next_ping = 1;
    int refuse_status = 0, refuse_count = 0;
    platform::Timer timer;
    std::unique_ptr<platform::Listener> listener;
};

/// One TCP connection: HTTP/1.1 requests, or after the upgrade Noise and HTTP/2.
class ControlServer::Session : private platform::ByteStream::Listener {
   public:
    Session(State& server, platform::ByteStream stream)
        : server_(server), parser_(http1::Role::kRequests, kMaxBody), stream_(std::move(stream)) {
        if (server_.options.tls) {
            auto tls = platform::TlsSession::server(server_.options.tls);
            if (tls) stream_.start_tls(std::move(*tls));
        }
        stream_.attach(server_.loop, *this);
    }
    ~Session() override = default;

    void respond(int32_t stream, int status, const std::string& body) {
        h2_->respond(stream, status, {{"content-type", "application/json"}}, body);
        flush();
    }
    void open_body(int32_t stream) {
        h2_->respond(stream, 200, {{"content-type", "application/octet-stream"}}, "", H2Session::Body::kOpen);
    }
    void send_body(int32_t stream, ByteSpan data) {
        h2_->send_data(stream, data);
        flush();
    }

   private:
    struct Request {
        std::string method, path, body;
        bool too_long = false;
    };

    void on_bytes(MutByteSpan bytes) override {
        if (h2_) return noise_bytes(bytes);
        ByteSpan rest = bytes;
        while (!rest.empty() && !h2_) {
            const auto used = parser_.feed(rest);
            if (!used) return close();
            rest = rest.subspan(*used);
            if (!parser_.done()) {
                if (*used == 0) return close();
                continue;
            }
            const http1::Request r = parser_.take_request();
            const auto target = http1::parse_target(r.target);
            if (target && target->path == control::kUpgradePath) {
                if (!upgrade(r)) return;
                break;
            }
            http1::Response a = server_.outer(r);
            if (r.method == "HEAD") a.body.clear();
            stream_.write(http1::serialize(a));
            if (!r.keep_alive) return stream_.finish_writing();
            parser_.reset();
        }
        if (h2_ && !rest.empty()) noise_bytes(rest);
    }
    void on_closed(const Status&) override { close(); }
    void close() { server_.session_gone(this); }

    /// False: this session is over.
    bool upgrade(const http1::Request& r) {
        const auto initiation = control::upgrade_initiation(r);
        if (!initiation) {
            http1::Response bad;
            bad.status = 400;
            bad.body = initiation.error().message() + "\n";
            stream_.write(http1::serialize(bad));
            stream_.finish_writing();
            return false;
        }
        stream_.write(control::upgrade_response());
        auto accepted = control::noise_accept(*initiation, server_.key, server_.random);
        if (!accepted || accepted->version < 113) {
            // As Headscale does: the upgrade is granted and the connection closed without a word.
            stream_.finish_writing();
            return false;
        }
        machine_ = accepted->machine;
        stream_.write(accepted->response);
        noise_ = std::make_unique<control::NoiseStream>(accepted->keys);
        if (server_.options.early_payload) {
            const std::string challenge =
                fmt::format(R"({{"nodeKeyChallenge":"{}"}})", ChallengePublic::from(machine_.bytes()).text());
            const Bytes early = control::EarlyPayload::encode(challenge);
            Bytes wire;
            // In three records, so that clients meet a header that spans records.
            for (auto [from, n] : {std::pair<size_t, size_t>{0, 5}, {5, 4}, {9, early.size() - 9}})
                (void)noise_->seal(ByteSpan(early).subspan(from, n), wire);
            stream_.write(wire);
        }
        H2Session::Limits limits;
        h2_ = std::make_unique<H2Session>(H2Session::Role::kServer, limits);
        flush();
        return true;
    }

    void noise_bytes(ByteSpan bytes) {
        Bytes plain;
        if (!noise_->open(bytes, plain) || !h2_->receive(plain)) return close();
        H2Event e;
        while (h2_->next_event(e)) handle(e);
        flush();
        if (h2_->finished()) close();
    }
    void flush() {
        Bytes plain, wire;
        if (!h2_->take_output(plain) || !noise_->seal(plain, wire)) return;
        if (!wire.empty() && !stream_.write(wire)) stream_.finish_writing();
    }

    void handle(H2Event& e) {
        switch (e.kind) {
            case H2Event::Kind::kHeaders:
                requests_[e.stream] = {e.method, e.path, "", false};
                break;
            case H2Event::Kind::kData: {
                const auto it = requests_.find(e.stream);
                if (it == requests_.end()) break;
                it->second.too_long |= it->second.body.size() + e.data.size() > kMaxBody;
                if (!it->second.too_long) it->second.body += as_text(e.data);
                break;
            }
            case H2Event::Kind::kEnd:
                if (auto node = requests_.extract(e.stream); !node.empty()) request(e.stream, node.mapped());
                break;
            case H2Event::Kind::kClose:
                requests_.erase(e.stream);
                server_.forget_stream(this, e.stream);
                break;
            case H2Event::Kind::kPong:
                break;
        }
    }

    void request(int32_t stream, const Request& r) {
        if (r.too_long) return respond(stream, 413, "request body too large\n");
        if (r.path == "/machine/register" && r.method == "POST") return do_register(stream, r.body);
        if (r.path == "/machine/map" && r.method == "POST") return do_map(stream, r.body);
        respond(stream, 404, "404 page not found\n");
    }

   public:
    void do_register(int32_t stream, const std::string& body) { do_register(stream, body, machine_); }
    void do_register(int32_t stream, const std::string& body, const MachinePublic& machine) {
        if (server_.refuse_count > 0) {
            --server_.refuse_count;
            return respond(stream, server_.refuse_status, "not now\n");
        }
        const Registry::Answer a = server_.registry.on_register(machine, body, server_.loop.wall());
        if (!a.held_login.empty())
            server_.held.push_back({this, stream, machine, body, a.held_login});
        else
            respond(stream, a.status, a.body);
        server_.deliver();
    }

   private:
    void do_map(int32_t stream, const std::string& body) {
        const WallTime now = server_.loop.wall();
        const Registry::Poll p = server_.registry.on_map(machine_, body, now);
        if (p.node == 0) {
            respond(stream, p.refusal.status, p.refusal.body);
        } else if (!p.stream) {
            respond(stream, 200, "");
        } else {
            server_.going_offline.erase(p.node);
            open_body(stream);
            const Coding coding = p.zstd && server_.options.zstd ? Coding::kZstd : Coding::kPlain;
            State::Poll poll{this, stream, p.node, coding, {}};
            // First the others hear of it, so that the first map carries the routes this node serves from now on.
            server_.registry.set_online(p.node, true, now);
            server_.deliver();
            server_.send_json(poll, json::dump(server_.registry.first_map(p.node, now)));
            server_.polls.push_back(poll);
            server_.tick();
        }
        server_.deliver();
    }

    State& server_;
    http1::Parser parser_;
    MachinePublic machine_;
    std::unique_ptr<control::NoiseStream> noise_;
    std::unique_ptr<H2Session> h2_;
    std::map<int32_t, Request> requests_;
    platform::ByteStream stream_;
};

void ControlServer::State::deliver() {
    for (const auto& [node, message] : registry.take_messages()) {
        const std::string text = json::dump(message);
        for (Poll& p : polls)
            if (p.node == node) send_json(p, text);
    }
    for (const std::string& line : registry.take_log())
        if (options.log) options.log(line);
}

void ControlServer::State::send_json(Poll& p, const std::string& json) {
    p.session->send_body(p.stream, control::encode_map_frame(json, p.coding));
    p.keepalive_at = loop.now() + options.keepalive;
}

void ControlServer::State::tick() {
    const Time now = loop.now();
    Time next = Time::never();
    for (Poll& p : polls) {
        if (p.keepalive_at <= now) send_json(p, R"({"KeepAlive":true})");
        next = min(next, p.keepalive_at);
    }
    std::vector<NodeId> gone;
    for (const auto& [node, at] : going_offline) {
        if (at <= now)
            gone.push_back(node);
        else
            next = min(next, at);
    }
    for (NodeId id : gone) {
        going_offline.erase(id);
        registry.set_online(id, false, loop.wall());
    }
    if (!gone.empty()) deliver();
    timer.set(next);
}

void ControlServer::State::forget_stream(Session* s, int32_t stream) {
    std::erase_if(held, [&](const Held& h) { return h.session == s && h.stream == stream; });
    for (const Poll& p : polls) {
        if (p.session != s || p.stream != stream) continue;
        const NodeId node = p.node;
        const auto mine = [&](const Poll& q) { return q.session == s && q.stream == stream; };
        const auto others = [&](const Poll& q) { return q.node == node && !mine(q); };
        if (std::none_of(polls.begin(), polls.end(), others)) going_offline[node] = loop.now() + options.offline_delay;
        std::erase_if(polls, mine);
        tick();
        return;
    }
}

void ControlServer::State::session_gone(Session* s) {
    std::erase_if(held, [&](const Held& h) { return h.session == s; });
    std::vector<int32_t> streams;
    for (const Poll& p : polls)
        if (p.session == s) streams.push_back(p.stream);
    for (int32_t id : streams) forget_stream(s, id);
    sessions.erase(s);
}

void ControlServer::State::retry_held() {
    const std::vector<Held> all = held;
    for (const Held& h : all) {
        if (registry.login_pending(h.login)) continue;
        std::erase_if(held, [&](const Held& x) { return x.session == h.session && x.stream == h.stream; });
        h.session->do_register(h.stream, h.body, h.machine);
    }
    deliver();
}

http1::Response ControlServer::State::outer(const http1::Request& r) {
    http1::Response a;
    a.headers = {{"Content-Type", "text/plain; charset=utf-8"}};
    const auto t = http1::parse_target(r.target);
    if (!t) {
        a.status = 400;
        return a;
    }
    if (t->path == "/key") {
        if (!t->param("v")) {
            a.status = 400;
            a.body = "capability version must be set";
            return a;
        }
        a.headers = {{"Content-Type", "application/json"}};
        a.body = fmt::format(R"({{"legacyPublicKey":"{}","publicKey":"{}"}})", MachinePublic{}.text(), key.public_key().text());
    } else if (t->path.starts_with("/register/") && r.method == "GET") {
        const bool ok = registry.approve_login(t->path.substr(10));
        a.status = ok ? 200 : 404;
        a.body = ok ? "approved\n" : "no such login\n";
        retry_held();
    } else if (t->path == "/machine/ping-response") {
        ++answered_pings;
    } else if (t->path == "/lab/nodes") {
        a.headers = {{"Content-Type", "application/json"}};
        a.body = json::dump(registry.nodes_json(), "  ") + "\n";
    } else if (t->path.starts_with("/lab/") && r.method == "POST") {
        a = lab_command(*t);
    } else {
        a.status = 404;
        a.body = "404 page not found\n";
    }
    return a;
}

http1::Response ControlServer::State::lab_command(const http1::Target& t) {
    http1::Response a;
    const WallTime now = loop.wall();
    const NodeId id = std::strtoll(t.param("id").value_or("0").c_str(), nullptr, 10);
    bool ok = true;
    if (t.path == "/lab/routes") {
        std::set<Prefix> routes;
        std::string list = t.param("routes").value_or("");
        while (!list.empty()) {
            const size_t comma = std::min(list.find(','), list.size());
            if (const auto p = Prefix::parse(list.substr(0, comma))) routes.insert(p->masked());
            list.erase(0, comma + 1);
        }
        ok = registry.set_routes(id, routes, now);
    } else if (t.path == "/lab/expire") {
        ok = registry.expire(id, now);
    } else if (t.path == "/lab/remove") {
        ok = registry.remove(id, now);
    } else if (t.path == "/lab/ping") {
        for (Poll& p : polls)
            if (p.node == id)
                send_json(p, fmt::format(R"({{"PingRequest":{{"URL":"{}/machine/ping-response?id={}"}}}})",
                                         options.registry.base_url, next_ping++));
    } else if (t.path == "/lab/raw" || t.path == "/lab/frame") {
        const auto content = platform::read_file(t.param("file").value_or(""), kMaxFile);
        ok = content.has_value();
        const bool frame = t.path == "/lab/frame";
        if (ok && options.log) options.log(fmt::format("sends {} bytes as {} to {} polls", content->size(), frame ? "a frame" : "a message", polls.size()));
        for (Poll& p : polls) {
            if (!ok) break;
            if (frame)
                p.session->send_body(p.stream, as_bytes(*content));
            else
                send_json(p, *content);
        }
    } else if (t.path == "/lab/derp-map") {
        const auto text = platform::read_file(t.param("file").value_or(""));
        auto map = text ? json::parse(*text) : tl::unexpected(text.error());
        ok = map && map->is_object();
        if (ok) registry.set_derp_map(std::move(*map));
    } else if (t.path == "/lab/drop") {
        // Not the connection this came by: it is still to be answered.
        std::vector<Session*> controls;
        for (const Poll& p : polls) controls.push_back(p.session);
        for (Session* s : controls)
            if (sessions.contains(s)) session_gone(s);
    } else {
        ok = false;
    }
    deliver();
    a.status = ok ? 200 : 404;
    a.body = ok ? "done\n" : "not found\n";
    return a;
}

ControlServer::ControlServer(std::unique_ptr<State> state) : state_(std::move(state)) {}
ControlServer::~ControlServer() {
    state_->listener.reset();
    state_->sessions.clear();
}

Result<std::unique_ptr<ControlServer>> ControlServer::start(platform::Loop& loop, Random& random, Options options) {
    const bool named = !options.registry.base_url.empty();
    auto state = std::make_unique<State>(loop, random, std::move(options));
    state->key = MachinePrivate::generate(random);
    State* s = state.get();
    const auto accept = [s](platform::ByteStream stream) {
        if (s->sessions.size() >= kMaxSessions) return;
        auto session = std::make_unique<Session>(*s, std::move(stream));
        Session* p = session.get();
        s->sessions.emplace(p, std::move(session));
    };
    TRY_ASSIGN(state->listener, platform::Listener::tcp(loop, s->options.listen, accept, platform::Listener::TcpOptions{.v6_only = false}));
    if (!named) {
        const Endpoint at{s->options.listen.addr, state->listener->port()};
        s->options.registry.base_url = fmt::format("{}://{}", s->options.tls ? "https" : "http", at.str());
        s->registry.set_base_url(s->options.registry.base_url);
    }
    return std::unique_ptr<ControlServer>(new ControlServer(std::move(state)));
}

uint16_t ControlServer::port() const { return state_->listener->port(); }
std::string ControlServer::base_url() const { return state_->options.registry.base_url; }
Registry& ControlServer::registry() { return state_->registry; }
void ControlServer::deliver() {
    state_->retry_held();
    state_->deliver();
}
void ControlServer::drop_connections() {
    while (!state_->sessions.empty()) state_->session_gone(state_->sessions.begin()->first);
}
void ControlServer::change_key() {
    state_->key = MachinePrivate::generate(state_->random);
    drop_connections();
}
void ControlServer::ping(NodeId node) {
    for (State::Poll& p : state_->polls)
        if (p.node == node)
            state_->send_json(p, fmt::format(R"({{"PingRequest":{{"URL":"{}/machine/ping-response?id={}"}}}})", base_url(),
                                             state_->next_ping++));
}
int ControlServer::answered_pings() const { return state_->answered_pings; }
void ControlServer::refuse_registers(int status, int count) {
    state_->refuse_status = status;
    state_->refuse_count = count;
}
size_t ControlServer::open_polls() const { return state_->polls.size(); }
void ControlServer::send_raw(const std::string& json) {
    for (State::Poll& p : state_->polls) state_->send_json(p, json);
}

}  // namespace mesh::lab
