// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/outgoing_dialer.h"

#include <utility>

namespace mesh::daemon {

namespace {
constexpr size_t kBehind = size_t{256} << 10;  // what one side may wait for the other before it is not read any more
}  // namespace

/// A client and, in time, a connection of this host: bytes go both ways until both have ended.
class OutgoingDialer::Pair final {
   public:
    Pair(OutgoingDialer& owner, std::string host, Outgoing what)
        : owner_(owner), host_(std::move(host)), what_(std::move(what)), client_{*this, std::move(what_.client)}, target_{*this, {}} {}

    void begin() {
        if (const auto literal = Addr::parse(host_)) return choose({*literal});
        if (auto known = owner_.hooks_.names(host_); !known.empty()) return choose(std::move(known));
        lookup_ = owner_.dialer_.resolver().resolve(host_, {}, [this](Result<std::vector<Addr>> r) { r ? choose(std::move(*r)) : refuse(r.error()); });
    }
    void close() {
        lookup_.reset();
        dialling_.reset();
        client_.stream.close();
        target_.stream.close();
    }

   private:
    struct End final : platform::ByteStream::Listener {
        End(Pair& p, platform::ByteStream s) : pair(p), stream(std::move(s)) {}
        void on_bytes(MutByteSpan bytes) override { pair.bytes(*this, bytes); }
        void on_closed(const Status& why) override { pair.closed(*this, why.has_value()); }
        void on_drained() override { pair.drained(*this); }

        Pair& pair;
        platform::ByteStream stream;
        bool ended = false;
    };

    void choose(std::vector<Addr> addresses) {
        for (const Addr& a : addresses) {
            const Way way = owner_.hooks_.way(a);
            if (way == Way::kTunnel) {
                what_.to.addr = a;
                what_.client = std::move(client_.stream);
                owner_.hooks_.tunnel(std::move(what_));
                return owner_.pairs_.drop(this);
            }
            if (way == Way::kSelf) {
                addresses = {Addr::v4(127, 0, 0, 1)};  // as for whoever comes by the tunnel
                break;
            }
        }
        platform::DialOptions options;
        options.addresses = std::move(addresses);
        options.protect = platform::Protect::kNo;  // with a TUN the tailnet is behind it
        dialling_ = owner_.dialer_.dial(host_, what_.to.port, std::move(options), [this](Result<platform::ByteStream> r) {
            if (!r) return refuse(r.error());
            client_.stream.write(what_.greeting);
            target_.stream = std::move(*r);
            target_.stream.write(what_.first);
            for (End* e : {&client_, &target_}) e->stream.attach(owner_.dialer_.loop(), *e);
        });
    }
    void refuse(const Error& why) {
        client_.stream.write(what_.refusal(why));
        client_.stream.finish_writing();
        owner_.pairs_.drop(this);
    }
    End& other(End& e) { return &e == &client_ ? target_ : client_; }
    void bytes(End& from, ByteSpan bytes) {
        End& to = other(from);
        if (!to.stream.write(bytes)) return owner_.pairs_.drop(this);
        if (to.stream.queued_bytes() > kBehind) from.stream.set_reading(false);
    }
    void drained(End& to) {
        if (client_.ended && target_.ended) return owner_.pairs_.drop(this);
        if (!other(to).ended) other(to).stream.set_reading(true);
    }
    void closed(End& from, bool orderly) {
        from.ended = true;
        other(from).stream.finish_writing();
        const bool through = client_.ended && target_.ended && client_.stream.queued_bytes() == 0 && target_.stream.queued_bytes() == 0;
        if (!orderly || through) owner_.pairs_.drop(this);
    }

    OutgoingDialer& owner_;
    const std::string host_;
    Outgoing what_;
    End client_, target_;
    std::unique_ptr<platform::Resolver::Lookup> lookup_;
    std::unique_ptr<platform::Dial> dialling_;
};

OutgoingDialer::~OutgoingDialer() {
    for (const auto& p : pairs_) p->close();
}

void OutgoingDialer::dial(const std::string& host, Outgoing what) {
    if (pairs_.size() >= kMaxConnections) {
        what.client.write(what.refusal({Code::kLimit, 0, "too many connections"}));
        return what.client.finish_writing();
    }
    pairs_.add(std::make_shared<Pair>(*this, host, std::move(what)));
}

}  // namespace mesh::daemon
