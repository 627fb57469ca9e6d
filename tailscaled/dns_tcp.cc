// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/dns_tcp.h"

#include "base/dns_message.h"

namespace mesh::daemon {

class DnsTcp::Connection final : public platform::ByteStream::Listener, public std::enable_shared_from_this<Connection> {
   public:
    Connection(DnsTcp& owner, platform::ByteStream stream)
        : owner_(owner), idle_(owner.loop_, [this] { owner_.connections_.drop(this); }), stream_(std::move(stream)) {}

    void begin() {
        stream_.attach(owner_.loop_, *this);
        idle_.set_after(kIdle);
    }
    void on_bytes(MutByteSpan bytes) override {
        inbox_.insert(inbox_.end(), bytes.begin(), bytes.end());
        idle_.set_after(kIdle);
        take_queries();
    }
    void on_closed(const Status& why) override {
        finished_ = true;
        if (!why || under_way_ == 0) owner_.connections_.drop(this);
    }

    void close() {
        idle_.cancel();
        stream_.close();
    }

   private:
    void take_queries() {
        const auto self = shared_from_this();  // an answer at once may close us
        while (inbox_.size() >= 2 && under_way_ < kMaxQueries && stream_.is_open()) {
            const size_t n = load_be16(inbox_.data());
            if (n < dns::kHeaderBytes || n > dns::kMaxQueryBytes) return owner_.connections_.drop(this);
            if (inbox_.size() < 2 + n) break;
            const Bytes query(inbox_.begin() + 2, inbox_.begin() + 2 + static_cast<std::ptrdiff_t>(n));
            inbox_.erase(inbox_.begin(), inbox_.begin() + 2 + static_cast<std::ptrdiff_t>(n));
            ++under_way_;
            owner_.ask_(query, [weak = weak_from_this()](Bytes reply) {
                if (const auto c = weak.lock()) c->answered(reply);
            });
        }
        // Who sends more than is answered waits in the kernel's buffers.
        if (stream_.is_open()) stream_.set_reading(under_way_ < kMaxQueries);
    }
    void answered(const Bytes& reply) {
        if (under_way_ > 0) --under_way_;
        if (!stream_.is_open()) return;
        Bytes framed(2);
        store_be16(framed.data(), static_cast<uint16_t>(reply.size()));
        framed.insert(framed.end(), reply.begin(), reply.end());
        if (reply.empty() || reply.size() > 0xFFFF || !stream_.write(framed) || (finished_ && under_way_ == 0)) return owner_.connections_.drop(this);
        if (inbox_.size() >= 2 && !taking_later_) {
            taking_later_ = true;
            owner_.loop_.post([weak = weak_from_this()] {
                if (const auto c = weak.lock()) {
                    c->taking_later_ = false;
                    c->take_queries();
                }
            });
        } else {
            stream_.set_reading(under_way_ < kMaxQueries);
        }
    }

    DnsTcp& owner_;
    Bytes inbox_;
    size_t under_way_ = 0;
    bool finished_ = false;
    bool taking_later_ = false;
    platform::Timer idle_;
    platform::ByteStream stream_;
};

Result<std::unique_ptr<DnsTcp>> DnsTcp::start(platform::Loop& loop, const std::string& device, Ask ask) {
    std::unique_ptr<DnsTcp> out(new DnsTcp(loop, std::move(ask), !device.empty()));
    auto listener = listen_by_tun(loop, device, {uint16_t{0}}, [self = out.get()](platform::ByteStream stream) { self->accept(std::move(stream)); });
    if (!listener) return tl::unexpected(std::move(listener.error()));
    out->listener_ = std::move(*listener);
    return out;
}

DnsTcp::~DnsTcp() = default;

uint16_t DnsTcp::port() const { return listener_->port(); }

void DnsTcp::accept(platform::ByteStream stream) {
    const Addr from = stream.remote_endpoint().addr;
    if (only_service_ && from != service_addr_v4() && from != service_addr_v6()) return;
    if (connections_.size() >= kMaxConnections) return;
    connections_.add(std::make_shared<Connection>(*this, std::move(stream)));
}

}  // namespace mesh::daemon
