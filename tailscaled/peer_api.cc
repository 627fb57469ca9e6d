// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/peer_api.h"

#include <algorithm>

#include "base/crypto/crypto.h"

namespace mesh::daemon {
namespace {

constexpr std::string_view kDnsType = "application/dns-message";

http1::Response text(unsigned status, std::string_view body) {
    http1::Response r;
    r.status = status;
    r.headers.emplace_back("Content-Type", "text/plain; charset=utf-8");
    r.body = std::string(body) + "\n";
    return r;
}

/// RFC 4648 section 5, without padding.
std::optional<Bytes> decode_base64url(std::string in) {
    std::replace(in.begin(), in.end(), '-', '+');
    std::replace(in.begin(), in.end(), '_', '/');
    in.append((4 - in.size() % 4) % 4, '=');
    return base64_decode(in);
}

/// A page in a browser must not use its user's place in the tailnet: no script of another page asks here, and none that
/// came by a name pointing to us.
bool from_a_browser(const http1::Request& r) {
    if (r.has_header("Origin") || r.has_header("Referer")) return true;
    const std::string host(r.header("Host"));
    return !Addr::parse(host) && !Endpoint::parse(host);
}

}  // namespace

uint16_t peer_api_port(const Addr& own) {
    const auto hash = crypto::sha256(own.bytes());
    return static_cast<uint16_t>(0x8000U | load_be16(hash.data()));
}

PeerDnsRequest parse_peer_request(const http1::Request& r, bool allowed) {
    if (from_a_browser(r)) return {{}, text(403, "not for browsers")};
    const auto target = http1::parse_target(r.target);
    if (!target) return {{}, text(400, "malformed request target")};
    if (target->path != "/dns-query") return {{}, text(404, "unsupported peerapi path")};
    if (!allowed) return {{}, text(403, "DNS access denied")};
    Bytes query;
    if (r.method == "POST") {
        if (r.header("Content-Type") != kDnsType) return {{}, text(400, "Content-Type must be application/dns-message")};
        query = to_bytes(as_bytes(r.body));
    } else if (r.method == "GET") {
        const auto param = target->param("dns");
        auto decoded = param ? decode_base64url(*param) : std::nullopt;
        if (!decoded) return {{}, text(400, "missing or malformed 'dns' parameter")};
        query = std::move(*decoded);
    } else {
        return {{}, text(405, "use GET or POST")};
    }
    if (query.size() < dns::kHeaderBytes || query.size() > dns::kMaxQueryBytes) return {{}, text(400, "not a DNS query")};
    return {std::move(query), {}};
}

class PeerApi::Connection final : public platform::ByteStream::Listener, public std::enable_shared_from_this<Connection> {
   public:
    Connection(PeerApi& owner, platform::ByteStream stream)
        : owner_(owner),
          peer_(stream.remote_endpoint().addr),
          idle_(owner.loop_, [this] { owner_.connections_.drop(this); }),
          parser_(http1::Role::kRequests, dns::kMaxQueryBytes),
          stream_(std::move(stream)) {}

    void begin() {
        stream_.attach(owner_.loop_, *this);
        idle_.set_after(kIdle);
    }
    void close() {
        idle_.cancel();
        stream_.close();
    }
    [[nodiscard]] const Addr& peer() const { return peer_; }

    void on_bytes(MutByteSpan bytes) override {
        idle_.set_after(kIdle);
        inbox_.insert(inbox_.end(), bytes.begin(), bytes.end());
        take_requests();
    }
    void on_closed(const Status& /*why*/) override { owner_.connections_.drop(this); }

   private:
    /// One after the other: reading rests while an answer is under way.
    void take_requests() {
        const auto self = shared_from_this();  // an answer at once may end us
        while (!busy_ && stream_.is_open() && !inbox_.empty()) {
            const auto used = parser_.feed(inbox_);
            if (!used) {
                answer(text(400, "not an HTTP request"), false);
                return;
            }
            inbox_.erase(inbox_.begin(), inbox_.begin() + static_cast<std::ptrdiff_t>(*used));
            if (!parser_.done()) {
                if (*used == 0) break;
                continue;
            }
            const http1::Request request = parser_.take_request();
            parser_.reset();
            handle(request);
        }
        if (stream_.is_open()) stream_.set_reading(!busy_);
    }
    void handle(const http1::Request& request) {
        // Known by now at the latest: the tunnel's end of it is confirmed before the first byte comes.
        if (owner_.who_) peer_ = owner_.who_(stream_.remote_endpoint());
        PeerDnsRequest asked = parse_peer_request(request, owner_.allowed_(peer_));
        if (asked.query.empty()) return answer(std::move(asked.refusal), request.keep_alive);
        busy_ = true;
        owner_.ask_(asked.query, [weak = weak_from_this(), keep = request.keep_alive](const Bytes& reply) {
            const auto c = weak.lock();
            if (!c || !c->stream_.is_open()) return;  // its owner may be gone as well
            http1::Response r;
            if (reply.empty()) {
                r = text(500, "no answer");
            } else {
                r.headers.emplace_back("Content-Type", std::string(kDnsType));
                r.body = std::string(as_text(reply));
            }
            c->busy_ = false;
            c->answer(std::move(r), keep);
            // Later, so that a row of answers at once does not pile up on the stack.
            c->owner_.loop_.post([weak] {
                if (const auto again = weak.lock()) again->take_requests();
            });
        });
    }
    void answer(http1::Response response, bool keep_alive) {
        if (!stream_.is_open()) return;
        response.keep_alive = keep_alive;
        if (!stream_.write(http1::serialize(response)) || !keep_alive) owner_.connections_.drop(this);
    }

    PeerApi& owner_;
    Addr peer_;
    bool busy_ = false;
    Bytes inbox_;
    platform::Timer idle_;
    http1::Parser parser_;
    platform::ByteStream stream_;
};

Result<std::unique_ptr<PeerApi>> PeerApi::start(platform::Loop& loop, const std::string& device, uint16_t port, Allowed allowed, Ask ask,
                                                Who who) {
    std::unique_ptr<PeerApi> out(new PeerApi(loop, std::move(allowed), std::move(ask), std::move(who)));
    const auto accept = [self = out.get()](platform::ByteStream stream) { self->accept(std::move(stream)); };
    auto listener = out->who_ ? platform::Listener::tcp(loop, {Addr::v4(127, 0, 0, 1), port}, accept) : listen_by_tun(loop, device, {port, uint16_t{0}}, accept);
    if (!listener) return tl::unexpected(std::move(listener.error()));
    out->listener_ = std::move(*listener);
    return out;
}

PeerApi::~PeerApi() {
    for (const auto& c : connections_) c->close();
}

void PeerApi::accept(platform::ByteStream stream) {
    const Addr from = stream.remote_endpoint().addr;
    const auto same = std::count_if(connections_.begin(), connections_.end(), [&](const auto& c) { return c->peer() == from; });
    if (connections_.size() >= kMaxConnections || (!who_ && static_cast<size_t>(same) >= kMaxPerPeer)) return;
    connections_.add(std::make_shared<Connection>(*this, std::move(stream)));
}

}  // namespace mesh::daemon
