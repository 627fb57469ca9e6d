// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/file_sends.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <utility>

#include "base/crypto/crypto.h"
#include "base/json.h"
#include "base/log.h"
#include "platform/net/stream_pair.h"

namespace mesh::daemon {

namespace {

constexpr std::string_view kPath = "/localapi/v0/file-put/";
constexpr size_t kBlock = size_t{64} << 10;
constexpr size_t kMaxLine = 1024;
constexpr size_t kMaxAhead = size_t{16} << 10;  // of hashes before the file
constexpr size_t kMaxAnswer = size_t{64} << 10;
constexpr Duration kLinger = seconds(10);


}  // namespace

std::optional<BlockHash> parse_block_hash(std::string_view line) {
    const auto j = json::parse(line, kMaxLine);
    if (!j || !j->is_object()) return std::nullopt;
    BlockHash out;
    out.sha256 = json::str(*j, "checksum");
    const int64_t size = json::integer(*j, "size", -1);
    if (json::str(*j, "algo") != "sha256" || out.sha256.size() != 64 || size <= 0 || size > static_cast<int64_t>(kBlock)) return std::nullopt;
    out.size = static_cast<size_t>(size);
    return out;
}

/// Request read → what the peer has is asked → compared with the beginning of the file → the rest sent → answered.
class FileSends::Transfer final : public std::enable_shared_from_this<Transfer> {
   public:
    Transfer(FileSends& owner, platform::ByteStream client)
        : owner_(owner),
          client_{*this, std::move(client)},
          request_parser_(http1::Role::kRequests, std::numeric_limits<size_t>::max()),
          timer_(owner.loop_, [this] { on_time(); }),
          tick_(owner.loop_, [this] { tell(false); }) {}

    void begin() {
        client_.stream.attach(owner_.loop_, client_);
        timer_.set_after(kLinger);
    }
    void close() {
        timer_.cancel();
        tick_.cancel();
        client_.stream.close();
        drop_peer();
        if (phase_ != Phase::kRequest && phase_ != Phase::kDone) {
            file_.finished = true;
            owner_.note(file_);
        }
        phase_ = Phase::kDone;
    }

   private:
    enum class Phase : uint8_t { kRequest, kCompare, kSend, kDone };

    struct ClientEnd final : platform::ByteStream::Listener {
        ClientEnd(Transfer& t, platform::ByteStream s) : owner(t), stream(std::move(s)) {}
        void on_bytes(MutByteSpan bytes) override { owner.from_client(bytes); }
        void on_closed(const Status& /*why*/) override { owner.owner_.transfers_.drop(&owner); }
        Transfer& owner;
        platform::ByteStream stream;
    };
    /// A connection to the peer, by way of whoever makes it: one byte first says whether it stands.
    struct PeerEnd final : platform::ByteStream::Listener {
        PeerEnd(Transfer& t, platform::ByteStream s, size_t limit) : owner(t), stream(std::move(s)), parser(http1::Role::kResponses, limit) {}
        void on_bytes(MutByteSpan bytes) override { owner.from_peer(bytes); }
        void on_closed(const Status& /*why*/) override { owner.peer_ended(); }
        void on_drained() override { owner.pump(); }
        Transfer& owner;
        platform::ByteStream stream;
        http1::Parser parser;
        bool stands = false;
        std::string refusal;
    };

    // ---- the program's side

    void from_client(ByteSpan bytes) {
        const auto self = shared_from_this();
        if (phase_ == Phase::kDone) return;
        while (!bytes.empty() && !body_ended_ && phase_ != Phase::kDone) {
            const auto used = request_parser_.feed(bytes);
            if (!used) return answer(http1::plain_text(400, "400 Bad Request"));
            bytes = bytes.subspan(*used);
            if (phase_ == Phase::kRequest && request_parser_.headers_done()) begin_request();
            if (request_parser_.headers_done()) body_ += request_parser_.take_body();
            body_ended_ = request_parser_.done();
            if (*used == 0) break;
        }
        if (phase_ == Phase::kCompare) compare();
        pump();
    }
    void begin_request() {
        const http1::Request request = request_parser_.take_request();
        body_ = request.body;
        const auto target = http1::parse_target(request.target);
        const std::string_view host = request.header("Host");
        if ((!host.empty() && host != "local-tailscaled.sock") || request.has_header("Origin") || request.has_header("Referer"))
            return answer(http1::plain_text(403, "invalid localapi request"));
        const std::string path = target ? target->path : "";
        const size_t slash = path.starts_with(kPath) ? path.find('/', kPath.size()) : std::string::npos;
        if (request.method != "PUT" || slash == std::string::npos) return answer(http1::plain_text(400, "bogus URL"));
        file_.id = fmt::format("{:030x}", owner_.next_id_++);
        file_.peer_id = path.substr(kPath.size(), slash - kPath.size());
        file_.name = path.substr(slash + 1);
        file_.started = owner_.loop_.wall();
        file_.declared_size = -1;
        if (const std::string_view l = request.header("Content-Length"); !l.empty()) std::from_chars(l.data(), l.data() + l.size(), file_.declared_size);
        const auto to = owner_.hooks_.target(file_.peer_id);
        if (!to) return answer(http1::plain_text(to.error().code == Code::kNotFound ? 404 : 500, to.error().message()));
        to_ = *to;
        phase_ = Phase::kCompare;
        tell(true);
        connect(std::numeric_limits<size_t>::max(), fmt::format("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", peer_path(), to_.str()));
        timer_.set_after(kHashPatience);
    }
    void answer(http1::Response response) {
        if (phase_ == Phase::kDone) return;
        const bool ran = phase_ != Phase::kRequest;
        phase_ = Phase::kDone;
        if (ran) {
            file_.finished = true;
            file_.succeeded = response.status == 200;
            owner_.note(file_);
        }
        tick_.cancel();
        body_.clear();
        drop_peer();
        response.keep_alive = false;
        if (!client_.stream.write(http1::serialize(response))) return owner_.transfers_.drop(this);
        // What the program still has to say is read and forgotten: closing now would keep the answer from it.
        client_.stream.finish_writing();
        client_.stream.set_reading(true);
        timer_.set_after(kLinger);
    }
    void on_time() {
        if (phase_ == Phase::kCompare) return send();  // without knowing what the peer has
        if (phase_ == Phase::kSend) return answer(http1::plain_text(504, "the other node takes no more and does not answer"));
        owner_.transfers_.drop(this);
    }
    void tell(bool now) {
        if (now || file_.sent != told_) owner_.note(file_);
        told_ = file_.sent;
        tick_.set_after(kProgress);
    }

    // ---- the peer's side

    [[nodiscard]] std::string peer_path() const { return "/v0/put/" + http1::percent_encode(file_.name); }

    void connect(size_t answer_limit, const std::string& request) {
        drop_peer();
        auto pair = platform::stream_pair();
        if (!pair) return answer(http1::plain_text(500, pair.error().message()));
        peer_ = std::make_shared<PeerEnd>(*this, std::move(pair->first), answer_limit);
        peer_->stream.attach(owner_.loop_, *peer_);
        peer_->stream.write(request);
        Outgoing out;
        out.client = std::move(pair->second);
        out.to = to_;
        out.greeting = "+";
        out.refusal = [](const Error& e) { return "-" + e.message(); };
        owner_.hooks_.dial(to_, std::move(out));
    }
    /// It may be on the stack.
    void drop_peer() {
        if (!peer_) return;
        peer_->stream.close();
        owner_.loop_.post([old = std::move(peer_)] {});
        peer_.reset();
    }
    void from_peer(ByteSpan bytes) {
        const auto self = shared_from_this();
        const auto peer = peer_;
        if (!peer->stands) {
            if (bytes[0] != '+' || !peer->refusal.empty()) {
                peer->refusal.append(as_text(bytes).substr(0, kMaxLine));
                return;
            }
            peer->stands = true;
            bytes = bytes.subspan(1);
        }
        while (!bytes.empty() && peer == peer_) {
            const auto used = peer->parser.feed(bytes);
            if (!used || *used == 0) return peer_failed("the other node's answer is not HTTP");
            bytes = bytes.subspan(*used);
            step();
        }
    }
    void peer_ended() {
        const auto self = shared_from_this();
        const auto peer = peer_;
        if (peer->stands && peer->parser.feed_eof() && peer->parser.done()) return step();  // hashes may be ahead of the file
        peer_failed(peer->refusal.empty() ? "the other node closed the connection" : peer->refusal.substr(1));
    }
    void peer_failed(const std::string& why) {
        if (phase_ == Phase::kCompare && peer_->refusal.empty()) return send();  // what it has stays unknown; the PUT will tell
        answer(http1::plain_text(502, log::printable(why, 1000)));
    }
    /// More of the answer is there.
    void step() {
        if (!peer_->parser.headers_done()) return;
        if (phase_ == Phase::kCompare) {
            if (status_ == 0) {
                http1::Response head = peer_->parser.take_response();
                status_ = head.status;
                lines_ = std::move(head.body);
            }
            if (status_ != 200) return send();
            lines_ += peer_->parser.take_body();
            lines_ended_ = peer_->parser.done();
            return compare();
        }
        if (phase_ != Phase::kSend || !peer_->parser.done()) return;
        http1::Response from = peer_->parser.take_response();
        http1::Response to;
        to.status = from.status;
        if (const auto type = from.header("Content-Type"); !type.empty()) to.headers.emplace_back("Content-Type", std::string(type));
        to.body = std::move(from.body);
        answer(std::move(to));
    }
    /// Drops from the file's beginning what the peer has.
    void compare() {
        for (;;) {
            const size_t end = lines_.find('\n');
            if (end == std::string::npos) {
                if (lines_ended_ || lines_.size() > kMaxLine) return send();
                break;
            }
            const auto block = parse_block_hash(std::string_view(lines_).substr(0, end));
            if (!block) return send();
            if (body_.size() < block->size) {
                if (body_ended_) return send();
                break;  // more of the file has to come
            }
            if (hex_encode(crypto::sha256(as_bytes(std::string_view(body_).substr(0, block->size)))) != block->sha256) return send();
            body_.erase(0, block->size);
            offset_ += block->size;
            lines_.erase(0, end + 1);
            timer_.set_after(kStall);
        }
        if (peer_) peer_->stream.set_reading(lines_.size() < kMaxAhead);
        client_.stream.set_reading(body_.size() < kBehind);
    }
    void send() {
        phase_ = Phase::kSend;
        lines_.clear();
        file_.sent = static_cast<int64_t>(offset_);
        std::string head = fmt::format("PUT {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", peer_path(), to_.str());
        if (offset_ > 0) head += fmt::format("Range: bytes={}-\r\n", offset_);
        chunked_ = file_.declared_size < 0;
        head += chunked_ ? "Transfer-Encoding: chunked\r\n\r\n" : fmt::format("Content-Length: {}\r\n\r\n", file_.declared_size - static_cast<int64_t>(offset_));
        if (offset_ > 0) log::info("taildrop: {} goes on at byte {}", log::printable(file_.name), offset_);
        connect(kMaxAnswer, head);
        timer_.set_after(kStall);
        pump();
    }
    /// As much as fits in what waits for the peer; called again when that is empty.
    void pump() {
        if (phase_ == Phase::kSend && peer_ && !all_sent_ && peer_->stream.queued_bytes() < kBehind) {
            if (!body_.empty()) {
                file_.sent += static_cast<int64_t>(body_.size());
                const std::string body = std::exchange(body_, {});
                if (!peer_->stream.write(chunked_ ? http1::chunk(body) : body)) return;  // its end is told in a moment
                timer_.set_after(kStall);
            }
            if (body_ended_) {
                all_sent_ = true;
                if (chunked_) peer_->stream.write(http1::chunk(""));
            }
        }
        if (phase_ == Phase::kSend) client_.stream.set_reading(body_.size() < kBehind && peer_ && peer_->stream.queued_bytes() < kBehind);
    }

    FileSends& owner_;
    ClientEnd client_;
    std::shared_ptr<PeerEnd> peer_;
    Phase phase_ = Phase::kRequest;
    http1::Parser request_parser_;
    Endpoint to_;
    api::OutgoingFile file_;
    std::string body_;  ///< read and not yet compared or sent
    bool body_ended_ = false, all_sent_ = false, chunked_ = false;
    unsigned status_ = 0;  ///< of the answer about hashes
    std::string lines_;
    bool lines_ended_ = false;
    uint64_t offset_ = 0;
    int64_t told_ = 0;
    platform::Timer timer_, tick_;
};

FileSends::~FileSends() {
    for (const auto& t : transfers_) t->close();
}

void FileSends::take(platform::ByteStream client) {
    if (transfers_.size() >= kMaxAtOnce) {
        http1::Response r = http1::plain_text(503, "too many files are being sent");
        r.keep_alive = false;
        client.write(http1::serialize(r));
        return client.finish_writing();
    }
    transfers_.add(std::make_shared<Transfer>(*this, std::move(client)));
}

void FileSends::note(const api::OutgoingFile& file) {
    const auto it = std::find_if(files_.begin(), files_.end(), [&](const auto& f) { return f.id == file.id; });
    if (it != files_.end())
        *it = file;
    else
        files_.push_back(file);
    for (size_t finished = 0, i = files_.size(); i-- > 0;)
        if (files_[i].finished && ++finished > kRemembered) files_.erase(files_.begin() + static_cast<std::ptrdiff_t>(i));
    hooks_.progress();
}

}  // namespace mesh::daemon
