// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/peer_api.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "base/crypto/crypto.h"

namespace mesh::daemon {
namespace {

constexpr std::string_view kDnsType = "application/dns-message";
constexpr std::string_view kPut = "/v0/put/";
constexpr Duration kLinger = seconds(10);


/// RFC 4648 section 5, without padding.
std::optional<Bytes> decode_base64url(std::string in) {
    std::replace(in.begin(), in.end(), '-', '+');
    std::replace(in.begin(), in.end(), '_', '/');
    in.append((4 - in.size() % 4) % 4, '=');
    return base64_decode(in);
}

}  // namespace

bool is_from_a_browser(const http1::Request& r) {
    if (r.has_header("Origin") || r.has_header("Referer")) return true;
    const std::string host(r.header("Host"));
    return host != "peer" && !Addr::parse(host) && !Endpoint::parse(host);  // "peer": what original senders of files write
}

std::optional<uint64_t> parse_offset(std::string_view range) {
    if (range.empty()) return 0;
    constexpr std::string_view kBegin = "bytes=";
    if (!range.starts_with(kBegin) || !range.ends_with('-')) return std::nullopt;
    const std::string_view digits = range.substr(kBegin.size(), range.size() - kBegin.size() - 1);
    uint64_t out = 0;
    const auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), out);
    if (ec != std::errc() || end != digits.data() + digits.size() || out > uint64_t{INT64_MAX}) return std::nullopt;
    return out;
}

uint16_t peer_api_port_for(const Addr& own) {
    const auto hash = crypto::sha256(own.bytes());
    return static_cast<uint16_t>(0x8000U | load_be16(hash.data()));
}

PeerDnsRequest parse_peer_request(const http1::Request& r, bool allowed) {
    if (is_from_a_browser(r)) return {{}, http1::plain_text(403, "not for browsers")};
    const auto target = http1::parse_target(r.target);
    if (!target) return {{}, http1::plain_text(400, "malformed request target")};
    if (target->path != "/dns-query") return {{}, http1::plain_text(404, "unsupported peerapi path")};
    if (!allowed) return {{}, http1::plain_text(403, "DNS access denied")};
    Bytes query;
    if (r.method == "POST") {
        if (r.header("Content-Type") != kDnsType) return {{}, http1::plain_text(400, "Content-Type must be application/dns-message")};
        query = to_bytes(as_bytes(r.body));
    } else if (r.method == "GET") {
        const auto param = target->param("dns");
        auto decoded = param ? decode_base64url(*param) : std::nullopt;
        if (!decoded) return {{}, http1::plain_text(400, "missing or malformed 'dns' parameter")};
        query = std::move(*decoded);
    } else {
        return {{}, http1::plain_text(405, "use GET or POST")};
    }
    if (query.size() < dns::kHeaderBytes || query.size() > dns::kMaxQueryBytes) return {{}, http1::plain_text(400, "not a DNS query")};
    return {std::move(query), {}};
}

/// One request after the other: reading rests while an answer is under way, or while the disk is behind.
class PeerApi::Connection final : public platform::ByteStream::Listener, public std::enable_shared_from_this<Connection> {
   public:
    Connection(PeerApi& owner, platform::ByteStream stream)
        : owner_(owner),
          peer_(stream.remote_endpoint().addr),
          idle_(owner.loop_, [this] { on_idle(); }),
          parser_(http1::Role::kRequests, std::numeric_limits<size_t>::max()),
          stream_(std::move(stream)) {}

    void begin() {
        stream_.attach(owner_.loop_, *this);
        idle_.set_after(kIdle);
    }
    void close() {
        idle_.cancel();
        upload_.reset();
        stream_.close();
    }
    [[nodiscard]] const Addr& peer() const { return peer_; }

    void on_bytes(MutByteSpan bytes) override {
        if (lingering_) return;
        idle_.set_after(kIdle);
        inbox_.insert(inbox_.end(), bytes.begin(), bytes.end());
        take_requests();
    }
    void on_closed(const Status& /*why*/) override { owner_.connections_.drop(this); }
    void on_drained() override {
        if (hashing_) send_hashes();
    }

   private:
    void on_idle() {
        if (upload_ && busy_) return idle_.set_after(kIdle);  // the disk is slow, not the peer
        owner_.connections_.drop(this);
    }
    void take_requests() {
        const auto self = shared_from_this();  // an answer at once may end us
        while (!busy_ && !lingering_ && stream_.is_open() && !inbox_.empty()) {
            const auto used = parser_.feed(inbox_);
            if (!used) {
                answer(http1::plain_text(400, "not an HTTP request"), false);
                return;
            }
            inbox_.erase(inbox_.begin(), inbox_.begin() + static_cast<std::ptrdiff_t>(*used));
            if (!request_ && parser_.headers_done()) begin_request();
            if (request_ && stream_.is_open() && !lingering_) take_body();
            if (*used == 0 || !request_) break;
        }
        if (stream_.is_open()) stream_.set_reading(lingering_ || !busy_);
    }
    void begin_request() {
        request_ = parser_.take_request();
        // Known by now at the latest: the tunnel's end of it is confirmed before the first byte comes.
        if (owner_.services_.who) peer_ = owner_.services_.who(stream_.remote_endpoint());
        if (request_->header("Expect") == "100-continue") stream_.write("HTTP/1.1 100 Continue\r\n\r\n");
        const auto target = http1::parse_target(request_->target);
        if (owner_.services_.files == nullptr || request_->method != "PUT" || !target || !target->path.starts_with(kPut)) return;
        if (is_from_a_browser(*request_)) return refuse_upload(http1::plain_text(403, "not for browsers"));
        const auto offset = parse_offset(request_->header("Range"));
        if (!offset) return refuse_upload(http1::plain_text(400, "invalid Range header"));
        std::optional<uint64_t> length;
        uint64_t number = 0;
        if (const std::string_view l = request_->header("Content-Length"); !l.empty() && std::from_chars(l.data(), l.data() + l.size(), number).ec == std::errc())
            length = number;
        auto upload = owner_.services_.files->receive(
            peer_, target->path.substr(kPut.size()), *offset, length,
            [this] {
                busy_ = false;
                idle_.set_after(kIdle);
                take_requests();
            },
            [this](const Taildrop::Answer& a) { end_upload(a); });
        if (!upload) return refuse_upload(http1::plain_text(upload.error().code == Code::kUnavailable ? 409 : http_status(upload.error()), upload.error().message()));
        upload_ = std::move(*upload);
    }
    /// The rest of the file may be long: it is not read to its end for the sake of one more request.
    void refuse_upload(http1::Response response) { answer(std::move(response), false); }
    void end_upload(const Taildrop::Answer& a) {
        const bool whole = parser_.done();
        http1::Response r = http1::plain_text(a.status, a.body);
        r.body = a.body;
        owner_.loop_.post([old = std::shared_ptr<Taildrop::Upload>(std::move(upload_))] {});  // it calls
        busy_ = false;
        const bool keep = whole && request_->keep_alive;
        if (whole) next_request();
        answer(std::move(r), keep);
        later();
    }
    void take_body() {
        const std::string more = std::exchange(request_->body, {}) + parser_.take_body();
        if (upload_) {
            if (!more.empty() && !upload_->write(more)) busy_ = true;
            if (!parser_.done()) return;
            busy_ = true;
            if (upload_) upload_->finish();
            return;
        }
        body_ += more;
        if (body_.size() > dns::kMaxQueryBytes) return answer(http1::plain_text(413, "too large"), false);
        if (!parser_.done()) return;
        http1::Request request = std::move(*request_);
        request.body = std::exchange(body_, {});
        next_request();
        handle(request);
    }
    void next_request() {
        request_.reset();
        parser_.reset();
    }
    void handle(const http1::Request& request) {
        const auto target = http1::parse_target(request.target);
        const bool head = request.method == "HEAD";  // how others look whether we are there
        const bool get = (request.method == "GET" || head) && target && !is_from_a_browser(request);
        if (get && !head && owner_.services_.files != nullptr && target->path.starts_with(kPut)) {
            hashing_ = {target->path.substr(kPut.size()), 0, request.keep_alive};
            busy_ = true;
            return send_hashes();
        }
        if (get && target->path == "/" && owner_.services_.greeting) {
            const std::string line = owner_.services_.greeting(peer_);
            http1::Response r = line.empty() ? http1::plain_text(403, "unknown peer") : http1::plain_text(200, line);
            if (head) {
                r.headers.emplace_back("Content-Length", std::to_string(r.body.size()));
                r.body.clear();
            }
            return answer(std::move(r), request.keep_alive);
        }
        PeerDnsRequest asked = parse_peer_request(request, owner_.services_.may_ask && owner_.services_.may_ask(peer_));
        if (asked.query.empty()) return answer(std::move(asked.refusal), request.keep_alive);
        busy_ = true;
        owner_.services_.ask(asked.query, [weak = weak_from_this(), keep = request.keep_alive](const Bytes& reply) {
            const auto c = weak.lock();
            if (!c || !c->stream_.is_open()) return;  // its owner may be gone as well
            http1::Response r;
            if (reply.empty()) {
                r = http1::plain_text(500, "no answer");
            } else {
                r.headers.emplace_back("Content-Type", std::string(kDnsType));
                r.body = std::string(as_text(reply));
            }
            c->busy_ = false;
            c->answer(std::move(r), keep);
            c->later();
        });
    }
    /// A piece of them each time the last has left.
    void send_hashes() {
        if (hashing_->asking) return;
        hashing_->asking = true;
        owner_.services_.files->left_by(peer_, hashing_->name, hashing_->offset, [weak = weak_from_this()](const Result<std::string>& lines) {
            const auto c = weak.lock();
            if (c && c->stream_.is_open() && c->hashing_) c->on_hashes(lines);
        });
    }
    void on_hashes(const Result<std::string>& lines) {
        idle_.set_after(kIdle);
        hashing_->asking = false;
        const bool first = hashing_->offset == 0 && !hashing_->begun;
        if (!lines && first) {
            const Error e = lines.error();
            const bool keep = hashing_->keep_alive;
            hashing_.reset();
            busy_ = false;
            answer(http1::plain_text(http_status(e), e.message()), keep);
            return later();
        }
        std::string out;
        if (first) {
            http1::Response r;
            r.headers = {{"Content-Type", "application/json"}, {"Transfer-Encoding", "chunked"}};
            r.keep_alive = hashing_->keep_alive;
            out = http1::serialize(r);
            hashing_->begun = true;
        }
        if (lines && !lines->empty()) out += http1::chunk(*lines);
        const auto blocks = lines ? static_cast<size_t>(std::count(lines->begin(), lines->end(), '\n')) : 0;
        hashing_->offset += blocks * platform::Inbox::kHashBlock;
        const bool last = blocks == 0 || hashing_->name.empty();
        if (last) out += http1::chunk("");
        const bool keep = hashing_->keep_alive;
        if (last) {
            hashing_.reset();
            busy_ = false;
        }
        if (!stream_.write(out) || (last && !keep)) return finish_connection();
        if (last) return later();
        if (stream_.queued_bytes() == 0) send_hashes();
    }
    /// In a later turn, so that a row of answers at once does not pile up on the stack.
    void later() {
        owner_.loop_.post([weak = weak_from_this()] {
            if (const auto again = weak.lock(); again && again->stream_.is_open()) again->take_requests();
        });
    }
    void answer(http1::Response response, bool keep_alive) {
        if (!stream_.is_open()) return;
        response.keep_alive = keep_alive;
        if (!stream_.write(http1::serialize(response)))
            owner_.connections_.drop(this);
        else if (!keep_alive)
            finish_connection();
    }
    /// The peer hears the answer, also if it is still sending: closing now would reset the connection under it.
    void finish_connection() {
        lingering_ = true;
        busy_ = false;
        inbox_.clear();
        idle_.set_after(kLinger);
        stream_.finish_writing();
        stream_.set_reading(true);
    }

    struct Hashing {
        std::string name;
        uint64_t offset = 0;
        bool keep_alive = true;
        bool begun = false, asking = false;
    };

    PeerApi& owner_;
    Addr peer_;
    bool busy_ = false;
    bool lingering_ = false;
    Bytes inbox_;
    platform::Timer idle_;
    http1::Parser parser_;
    std::optional<http1::Request> request_;  ///< its headers are there
    std::string body_;
    std::optional<Hashing> hashing_;
    std::unique_ptr<Taildrop::Upload> upload_;
    platform::ByteStream stream_;
};

Result<std::unique_ptr<PeerApi>> PeerApi::start(platform::Loop& loop, const std::string& device, uint16_t port, Services services) {
    std::unique_ptr<PeerApi> out(new PeerApi(loop, std::move(services)));
    const auto accept = [self = out.get()](platform::ByteStream stream) { self->accept(std::move(stream)); };
    auto listener = out->services_.who ? platform::Listener::tcp(loop, {Addr::v4(127, 0, 0, 1), port}, accept)
                                       : listen_by_tun(loop, device, {port, uint16_t{0}}, accept);
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
    if (connections_.size() >= kMaxConnections || (!services_.who && static_cast<size_t>(same) >= kMaxPerPeer)) return;
    connections_.add(std::make_shared<Connection>(*this, std::move(stream)));
}

}  // namespace mesh::daemon
