// SPDX-License-Identifier: BSD-3-Clause
#include "derper/mesh.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/log.h"

namespace mesh::derper {
namespace {

constexpr Duration kRetry = seconds(5);
constexpr Duration kWriteGuard = seconds(5);
constexpr size_t kMaxTargets = 256;
constexpr size_t kWriteAt = 64U << 10;  // not only at the end of the turn
constexpr size_t kQueueBytes = 4U << 20;
constexpr size_t kMaxClients = 1U << 20;

std::string_view trimmed(std::string_view s) {
    constexpr std::string_view kBlank = " \t\r\n";
    const size_t from = s.find_first_not_of(kBlank);
    if (from == std::string_view::npos) return {};
    return s.substr(from, s.find_last_not_of(kBlank) + 1 - from);
}

/// Splits "host:port", "[v6]:port", or a bare one of each.
bool split_port(std::string_view text, MeshTarget& out) {
    std::string_view port;
    if (text.starts_with('[')) {
        const size_t end = text.find(']');
        if (end == std::string_view::npos) return false;
        out.host = std::string(text.substr(1, end - 1));
        if (end + 1 < text.size()) {
            if (text[end + 1] != ':') return false;
            port = text.substr(end + 2);
            if (port.empty()) return false;
        }
    } else if (Addr::parse(text) || text.find(':') == std::string_view::npos) {
        out.host = std::string(text);
    } else {
        out.host = std::string(text.substr(0, text.find(':')));
        port = text.substr(text.find(':') + 1);
        if (port.empty()) return false;
    }
    if (!port.empty()) {
        const auto [end, ec] = std::from_chars(port.data(), port.data() + port.size(), out.port);
        if (ec != std::errc{} || end != port.data() + port.size() || out.port == 0) return false;
    }
    return !out.host.empty();
}

}  // namespace

Result<LockedKey> parse_mesh_key(std::string_view text) {
    const std::string_view key = trimmed(text);
    const bool good = key.size() == 64 && std::all_of(key.begin(), key.end(), [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
    });
    LockedKey out;
    if (!good || !hex_decode(key, out.bytes()) || out.is_zero())
        return fail(Code::kInvalid, "a mesh key is 64 lower-case hex digits (make one: openssl rand -hex 32)");
    return out;
}

Result<std::vector<MeshTarget>> parse_mesh_with(std::string_view text) {
    std::vector<MeshTarget> out;
    while (!text.empty()) {
        const size_t comma = std::min(text.find(','), text.size());
        const std::string_view whole = trimmed(text.substr(0, comma));
        text.remove_prefix(std::min(comma + 1, text.size()));
        if (whole.empty()) continue;
        MeshTarget t;
        std::string_view rest = whole;
        if (const size_t hash = rest.find('#'); hash != std::string_view::npos) {
            t.cert_name = std::string(rest.substr(hash + 1));
            rest = rest.substr(0, hash);
        }
        if (const size_t slash = rest.find('/'); slash != std::string_view::npos) {
            t.dial = std::string(rest.substr(slash + 1));
            rest = rest.substr(0, slash);
        }
        if (!split_port(rest, t) || t.dial.find_first_of("/: ") != std::string::npos ||
            !platform::derp_tls_options(t.host, t.cert_name, false))
            return fail(Code::kInvalid, fmt::format("-mesh-with \"{}\" is not host[:port][/host-to-dial][#sha256-raw:hash]",
                                                    log::printable(whole, 100)));
        if (out.size() >= kMaxTargets) return fail(Code::kLimit, "-mesh-with names too many derpers");
        out.push_back(std::move(t));
    }
    return out;
}

MeshLink::MeshLink(MeshContext& context, MeshTarget target)
    : context_(context),
      target_(std::move(target)),
      own_key_(context.key.public_key()),
      timer_(context.loop, [this] { on_timer(); }) {
    timer_.set(context_.loop.now());
}

MeshLink::~MeshLink() { forget_clients(); }

std::string MeshLink::name() const { return fmt::format("mesh with {}:{}", target_.host, target_.port); }

void MeshLink::connect() {
    platform::DialOptions options;
    auto tls = platform::derp_tls_options(target_.host, target_.cert_name, false);
    if (!tls) return drop(tls.error().message());
    options.tls = std::move(*tls);
    options.protect = platform::Protect::kNo;
    dial_ = context_.dialer.dial(target_.dial.empty() ? target_.host : target_.dial, target_.port, std::move(options),
                                 [this](Result<platform::ByteStream> stream) { dialled(std::move(stream)); });
}

void MeshLink::dialled(Result<platform::ByteStream> stream) {
    const std::unique_ptr<platform::Dial> keep = std::move(dial_);
    if (!stream) return drop(stream.error().message());
    stream_ = std::move(*stream);
    stream_.attach(context_.loop, *this);
    derp::ClientConfig config;
    config.node_key = context_.key;
    config.mesh_key = context_.mesh_key;
    config.data_queue_bytes = kQueueBytes;
    session_ = std::make_unique<derp::ClientSession>(context_.random, std::move(config));
    session_->watch_connections();
    derp::ClientStart start;
    start.host = target_.host.find(':') != std::string::npos ? "[" + target_.host + "]" : target_.host;
    if (target_.port != 443) start.host += fmt::format(":{}", target_.port);
    session_->start(start, context_.loop.now());
    pump();
}

void MeshLink::on_bytes(MutByteSpan bytes) {
    session_->feed(bytes, context_.loop.now());
    read_events();
}

void MeshLink::on_closed(const Status& why) {
    session_->closed(why ? "" : log::printable(why.error().message()));
    read_events();
}

void MeshLink::on_drained() {
    stalled_since_ = {};
    pump();
}

void MeshLink::read_events() {
    using Kind = derp::Event::Kind;
    std::string problem;
    const Time now = context_.loop.now();
    while (const derp::Event* e = session_->next_event(now)) {
        if (e->kind == Kind::kConnected) {
            if (session_->server_key() == own_key_) {
                self_ = true;
                log::info("derper: {}: that is this server itself", name());
                session_.reset();
                stream_.close();
                timer_.cancel();
                return;
            }
            up_ = true;
            last_problem_.clear();
            log::info("derper: {}: connected", name());
        } else if (e->kind == Kind::kPeerPresent) {
            // Its other mesh links are clients there too; only ours would make a circle.
            if (e->key != own_key_ && clients_.size() < kMaxClients && clients_.insert(e->key).second)
                context_.relay.add_forwarder(e->key, *this);
        } else if (e->kind == Kind::kPeerGone && e->reason != derp::GoneReason::kNotHere) {
            if (clients_.erase(e->key) > 0) context_.relay.remove_forwarder(e->key, *this, now);
        } else if (e->kind == Kind::kError) {
            problem = e->error.message();
        }
    }
    if (!problem.empty()) return drop(problem);
    pump();
    context_.flush_soon();
}

void MeshLink::forward(const NodePublic& from, const NodePublic& to, ByteSpan packet, Time now) {
    if (!session_ || !session_->forward(from, to, packet, now)) return;
    queued_ = true;
    if (session_->queued_bytes() >= kWriteAt) pump();
}

void MeshLink::flush() {
    if (std::exchange(queued_, false)) pump();
}

void MeshLink::pump() {
    if (!session_) return;
    const Time now = context_.loop.now();
    while (stream_.queued_bytes() == 0) {
        const ByteSpan bytes = session_->writable(now);
        if (bytes.empty()) break;
        const size_t n = bytes.size();
        if (!stream_.write(bytes)) return drop("cannot write");
        session_->wrote(n, now);
    }
    if (stream_.queued_bytes() > 0 && stalled_since_.is_zero()) stalled_since_ = now;
    arm();
}

void MeshLink::arm() {
    Time want = session_->next_timeout();
    if (!stalled_since_.is_zero()) want = min(want, stalled_since_ + kWriteGuard);
    if (!timer_.armed() || want < timer_.deadline()) timer_.set(want);
}

void MeshLink::on_timer() {
    if (!session_) return connect();
    const Time now = context_.loop.now();
    if (!stalled_since_.is_zero() && now >= stalled_since_ + kWriteGuard) return drop("it takes no data for 5 s");
    session_->handle_timeout(now);
    read_events();
}

void MeshLink::forget_clients() {
    const Time now = context_.loop.now();
    for (const NodePublic& key : clients_) context_.relay.remove_forwarder(key, *this, now);
    clients_.clear();
}

void MeshLink::drop(const std::string& why) {
    // The same trouble every five seconds is told once.
    if (up_ || why != last_problem_) log::info("derper: {}: {}; trying again every 5 s", name(), log::printable(why));
    last_problem_ = why;
    up_ = false;
    queued_ = false;
    stalled_since_ = {};
    session_.reset();
    stream_.close();
    forget_clients();
    timer_.set_after(kRetry);
    context_.flush_soon();
}

}  // namespace mesh::derper
