// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/dns_forwarder.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/dns_message.h"
#include "base/log.h"
#include "platform/fd.h"
#include "platform/net/sockaddr.h"
#include "tailscaled/dns/names.h"

namespace mesh::daemon {

namespace {
constexpr Duration kResendAfter = seconds(1);
constexpr Duration kTcpAfter = seconds(2);
constexpr Duration kSayAfter = seconds(15);
constexpr size_t kMaxReply = 65'535;

bool is_good(ByteSpan reply) {
    const auto h = dns::parse_header(reply);
    return h && h->rcode != dns::kServFail && h->rcode != dns::kRefused;
}
}  // namespace

/// One query under way. Its legs report here; it dies in finish().
class DnsForwarder::Exchange {
   public:
    Exchange(DnsForwarder& owner, dns::Query query, ByteSpan wire, Client client, Done done, const std::vector<dns::Upstream>& upstreams)
        : owner_(owner),
          query_(std::move(query)),
          wire_(to_bytes(wire)),
          client_(client),
          done_(std::move(done)),
          id_(static_cast<uint16_t>(owner.random_.u64())),
          began_(owner.loop_.now()),
          timer_(owner.loop_, [this] { on_timer(); }) {
        store_be16(wire_.data(), id_);  // an ID that nobody outside can know
        for (const dns::Upstream& u : upstreams) legs_.push_back(std::make_unique<Leg>(*this, u));
    }

    /// May end in the exchange's destruction.
    void start() {
        for (auto& leg : legs_) leg->start();
        timer_.set(began_ + kResendAfter);
        finish_if_all_failed();
    }
    [[nodiscard]] bool asks(const dns::Query& q) const { return q.type == query_.type && q.name == query_.name; }
    Done take_done() { return std::move(done_); }
    /// The reply as the client wants it: its ID, its size.
    [[nodiscard]] Bytes for_client(Bytes reply) const {
        if (reply.empty()) return dns::error_reply(query_, dns::kServFail);
        store_be16(reply.data(), query_.header.id);
        if (client_ == Client::kUdp && reply.size() > query_.udp_limit()) return dns::truncated_reply(query_, reply);
        return reply;
    }

   private:
    /// One server, by UDP, then maybe TCP; or a peer's DNS over HTTP.
    class Leg final : public platform::ByteStream::Listener {
       public:
        Leg(Exchange& owner, const dns::Upstream& upstream) : owner_(owner), upstream_(upstream) {}

        void start() {
            if (upstream_.at.is_valid())
                send_udp();
            else
                ask_peer();
        }
        /// True while an answer may still come.
        [[nodiscard]] bool alive() const { return poll_ || dial_ || stream_.is_open() || call_; }
        void resend() {
            if (poll_) transmit();
        }
        void start_tcp() {
            if (tcp_tried_ || !upstream_.at.is_valid()) return;
            tcp_tried_ = true;
            platform::DialOptions options;
            options.addresses = {upstream_.at.addr};
            options.protect = protect();
            options.timeout = kPatience;
            dial_ = owner_.owner_.dialer_.dial(upstream_.at.addr.str(), upstream_.at.port, std::move(options),
                                               [this](Result<platform::ByteStream> stream) { connected(std::move(stream)); });
        }

        void on_bytes(MutByteSpan bytes) override {
            inbox_.insert(inbox_.end(), bytes.begin(), bytes.end());
            if (inbox_.size() < 2 || inbox_.size() < 2U + load_be16(inbox_.data())) return;
            const Bytes reply(inbox_.begin() + 2, inbox_.begin() + 2 + load_be16(inbox_.data()));
            stream_.close();
            if (dns::answers(reply, owner_.query_, owner_.id_)) return owner_.heard(reply);
            owner_.finish_if_all_failed();
        }
        void on_closed(const Status& /*why*/) override {
            stream_.close();
            owner_.finish_if_all_failed();
        }

       private:
        [[nodiscard]] platform::Protect protect() const {
            return owner_.owner_.in_tunnel_ && owner_.owner_.in_tunnel_(upstream_.at.addr) ? platform::Protect::kNo : platform::Protect::kYes;
        }
        void send_udp() {
            const Addr& to = upstream_.at.addr;
            fd_ = platform::UniqueFd(::socket(to.is_v4() ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
            if (!fd_.valid()) return;
            if (protect() == platform::Protect::kYes)
                if (const Status s = platform::protect_socket(fd_.get(), to); !s) log::debug(1, "dns: {}", s.error().message());
            // Connected: only that server's datagrams come in, and refusals are told.
            sockaddr_storage at{};
            const socklen_t len = platform::to_sockaddr(upstream_.at, to.is_v4() ? Addr::Family::kV4 : Addr::Family::kV6, at);
            if (::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&at), len) != 0) return;
            poll_ = std::make_unique<platform::FdPoll>(owner_.owner_.loop_, fd_.get(), [this](platform::FdPoll::Events) { on_udp(); });
            poll_->set_interest(true, false);
            if (!transmit()) poll_.reset();
        }
        bool transmit() {
            return ::send(fd_.get(), owner_.wire_.data(), owner_.wire_.size(), MSG_NOSIGNAL) >= 0 || errno == EAGAIN || errno == ENOBUFS;
        }
        void on_udp() {
            std::array<uint8_t, kMaxReply> buffer;
            for (int i = 0; i < 16; ++i) {
                const ssize_t n = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
                if (n < 0) {
                    if (errno == EAGAIN || errno == EINTR) return;
                    poll_.reset();  // refused
                    return owner_.finish_if_all_failed();
                }
                const ByteSpan reply(buffer.data(), static_cast<size_t>(n));
                if (!dns::answers(reply, owner_.query_, owner_.id_)) continue;  // somebody guesses
                if (dns::parse_header(reply)->truncated && owner_.client_ == Client::kTcp) {
                    start_tcp();
                    return;
                }
                poll_.reset();
                return owner_.heard(to_bytes(reply));
            }
        }
        void connected(Result<platform::ByteStream> stream) {
            const std::unique_ptr<platform::Dial> over = std::move(dial_);
            if (!stream) return owner_.finish_if_all_failed();
            stream_ = std::move(*stream);
            stream_.attach(owner_.owner_.loop_, *this);
            Bytes framed(2);
            store_be16(framed.data(), static_cast<uint16_t>(owner_.wire_.size()));
            framed.insert(framed.end(), owner_.wire_.begin(), owner_.wire_.end());
            static_cast<void>(stream_.write(framed));
        }
        void ask_peer() {
            platform::HttpRequest request;
            request.method = platform::HttpRequest::Method::kPost;
            request.url = upstream_.peer_url;
            request.headers = {{"Content-Type", "application/dns-message"}, {"Accept", "application/dns-message"}};
            request.body = std::string(as_text(owner_.wire_));
            request.max_body_bytes = kMaxReply;
            request.timeout = kPatience;
            request.protect = platform::Protect::kNo;  // the peer is in the tunnel
            call_ = owner_.owner_.http_.send(std::move(request), [this](Result<platform::HttpResponse> answer) {
                const std::unique_ptr<platform::HttpClient::Call> over = std::move(call_);
                if (answer && answer->status == 200 && dns::answers(as_bytes(answer->body), owner_.query_, owner_.id_))
                    return owner_.heard(to_bytes(as_bytes(answer->body)));
                owner_.finish_if_all_failed();
            });
        }

        Exchange& owner_;
        dns::Upstream upstream_;
        platform::UniqueFd fd_;
        std::unique_ptr<platform::FdPoll> poll_;
        bool tcp_tried_ = false;
        std::unique_ptr<platform::Dial> dial_;
        platform::ByteStream stream_;
        Bytes inbox_;
        std::unique_ptr<platform::HttpClient::Call> call_;
    };

    /// The last thing a leg calls: the exchange may be gone afterwards.
    void heard(Bytes reply) {
        if (is_good(reply)) return owner_.finish(this, std::move(reply), true);
        // A server that failed says more than one that refused.
        const auto held = dns::parse_header(held_);
        if (!held || held->rcode == dns::kRefused) held_ = std::move(reply);
        finish_if_all_failed();
    }
    void finish_if_all_failed() {
        if (std::any_of(legs_.begin(), legs_.end(), [](const auto& leg) { return leg->alive(); })) return;
        owner_.finish(this, std::move(held_), false);
    }
    void on_timer() {
        const Time now = owner_.loop_.now();
        if (now >= began_ + kPatience) return owner_.finish(this, std::move(held_), false);
        if (!resent_) {
            resent_ = true;
            for (auto& leg : legs_) leg->resend();
            timer_.set(began_ + kTcpAfter);
            return;
        }
        for (auto& leg : legs_) leg->start_tcp();
        timer_.set(began_ + kPatience);
    }

    DnsForwarder& owner_;
    dns::Query query_;
    Bytes wire_;
    Client client_;
    Done done_;
    uint16_t id_;
    Time began_;
    bool resent_ = false;
    Bytes held_;  ///< an answer nobody likes, in case no better one comes
    std::vector<std::unique_ptr<Leg>> legs_;
    platform::Timer timer_;
};

DnsForwarder::DnsForwarder(platform::Loop& loop, platform::Dialer& dialer, platform::HttpClient& http, Random& random)
    : loop_(loop), dialer_(dialer), http_(http), random_(random) {}
DnsForwarder::~DnsForwarder() = default;

void DnsForwarder::set_routes(dns::Routes routes, InTunnel in_tunnel) {
    if (routes != routes_) failing_since_ = {};
    routes_ = std::move(routes);
    in_tunnel_ = std::move(in_tunnel);
}

void DnsForwarder::ask(ByteSpan query, Client client, Done done) {
    dns::Query q;
    if (dns::parse_query(query, q) != dns::QueryError::kNone) return done(dns::failure(query, dns::kFormErr));
    const auto* upstreams = routes_.find(q.name);
    const auto same = std::count_if(exchanges_.begin(), exchanges_.end(), [&](const auto& e) { return e->asks(q); });
    if (upstreams == nullptr || upstreams->empty() || exchanges_.size() >= kMaxOutstanding || static_cast<size_t>(same) >= kMaxSame)
        return done(dns::error_reply(q, dns::kServFail));
    exchanges_.push_back(std::make_unique<Exchange>(*this, std::move(q), query, client, std::move(done), *upstreams));
    exchanges_.back()->start();
}

void DnsForwarder::finish(Exchange* exchange, Bytes reply, bool answered) {
    const auto it = std::find_if(exchanges_.begin(), exchanges_.end(), [&](const auto& e) { return e.get() == exchange; });
    if (it == exchanges_.end()) return;
    const std::unique_ptr<Exchange> over = std::move(*it);
    exchanges_.erase(it);
    if (answered)
        failing_since_ = {};
    else if (failing_since_.is_zero())
        failing_since_ = loop_.now();
    over->take_done()(over->for_client(std::move(reply)));
}

bool DnsForwarder::failing() const { return !failing_since_.is_zero() && loop_.now() - failing_since_ >= kSayAfter; }

}  // namespace mesh::daemon
