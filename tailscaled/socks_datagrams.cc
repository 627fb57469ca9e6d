// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/socks_datagrams.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "netstack/proxy_handshake.h"
#include "platform/net/udp_socket.h"

namespace mesh::daemon {

class SocksDatagrams::Association final : public platform::ByteStream::Listener {
   public:
    Association(SocksDatagrams& owner, uint64_t id, platform::ByteStream client)
        : owner_(owner), id_(id), from_(client.remote_endpoint().addr), inside_(*this, &Association::from_program),
          outside4_(*this, &Association::from_host), outside6_(*this, &Association::from_host), client_(std::move(client)) {}

    void begin() {
        const Endpoint here = client_.local_endpoint();
        if (!inside_.open(owner_.dialer_.loop(), here.addr)) {
            client_.write(netstack::socks_failure());
            return owner_.associations_.drop(this);
        }
        client_.write(netstack::socks_associated(inside_.socket->local_endpoint()));
        client_.attach(owner_.dialer_.loop(), *this);
    }
    void close() {
        lookups_.clear();
        for (Side* s : {&inside_, &outside4_, &outside6_}) s->socket.reset();
        client_.close();
        owner_.hooks_.end(id_);
    }
    [[nodiscard]] uint64_t id() const { return id_; }
    void answer(const Endpoint& from, ByteSpan payload) {
        if (program_.is_valid() && inside_.socket) inside_.socket->send(program_, netstack::socks_datagram(from, payload));
    }

    void on_bytes(MutByteSpan) override {}  // nothing more is said there
    void on_closed(const Status&) override { owner_.associations_.drop(this); }

   private:
    /// A socket, and who is told what comes.
    struct Side final : platform::UdpSocket::Listener {
        using Take = void (Association::*)(const Endpoint& from, ByteSpan datagram);
        Side(Association& a, Take t) : association(a), take(t) {}
        bool open(platform::Loop& loop, const Addr& at) {
            platform::UdpSocket::Options options;
            options.family = at.is_v4() ? Addr::Family::kV4 : Addr::Family::kV6;
            options.bind_addr = at;
            options.protect = platform::Protect::kNo;
            options.bulk = false;
            auto opened = platform::UdpSocket::open(options);
            if (!opened) return false;
            socket = std::move(*opened);
            socket->attach(loop, *this);
            return true;
        }
        void on_datagrams(std::span<UdpReceive> batch) override {
            for (const UdpReceive& r : batch) r.each([&](ByteSpan one) { (association.*take)(r.from, one); });
        }
        void on_send_error(const Endpoint&, int) override {}

        Association& association;
        Take take;
        std::unique_ptr<platform::UdpSocket> socket;
    };

    void from_program(const Endpoint& from, ByteSpan datagram) {
        if (from.addr != from_) return;  // somebody else's
        program_ = from;
        const auto said = netstack::parse_socks_datagram(datagram);
        if (!said) return;
        if (const Addr to = address_of(said->host); to.is_valid()) send({to, said->port}, said->payload);
    }
    void from_host(const Endpoint& from, ByteSpan payload) { answer(from, payload); }

    /// Invalid: not known (yet). What is sent meanwhile is lost, as on any network.
    Addr address_of(const std::string& host) {
        if (const auto literal = Addr::parse(host)) return *literal;
        if (const auto known = owner_.hooks_.names(host); !known.empty()) return known.front();
        if (const auto it = found_.find(host); it != found_.end()) return it->second;
        if (found_.size() >= kMaxNames) return {};
        found_[host] = Addr();
        lookups_[host] = owner_.dialer_.resolver().resolve(host, {}, [this, host](Result<std::vector<Addr>> r) {
            if (r) found_[host] = r->front();
        });
        return {};
    }

    void send(Endpoint to, ByteSpan payload) {
        const OutgoingDialer::Way way = owner_.hooks_.way(to.addr);
        if (way == OutgoingDialer::Way::kTunnel) return owner_.hooks_.tunnel(id_, to, payload);
        if (way == OutgoingDialer::Way::kSelf) to.addr = Addr::v4(127, 0, 0, 1);
        Side& out = to.addr.is_v4() ? outside4_ : outside6_;
        if (out.socket || out.open(owner_.dialer_.loop(), to.addr.is_v4() ? Addr::v4(0, 0, 0, 0) : *Addr::parse("::"))) out.socket->send(to, payload);
    }

    SocksDatagrams& owner_;
    const uint64_t id_;
    const Addr from_;   // the program's host
    Endpoint program_;  // where it sends from, and hears
    std::map<std::string, Addr> found_;  // invalid: not found, or not yet
    std::map<std::string, std::unique_ptr<platform::Resolver::Lookup>> lookups_;
    Side inside_, outside4_, outside6_;
    platform::ByteStream client_;
};

SocksDatagrams::~SocksDatagrams() {
    for (const auto& a : associations_) a->close();
}

void SocksDatagrams::associate(platform::ByteStream client) {
    if (associations_.size() >= kMaxAssociations) {
        client.write(netstack::socks_failure());
        return;
    }
    associations_.add(std::make_shared<Association>(*this, next_id_++, std::move(client)));
}

void SocksDatagrams::answer(uint64_t id, const Endpoint& from, ByteSpan payload) {
    for (const auto& a : associations_)
        if (a->id() == id) return a->answer(from, payload);
}

}  // namespace mesh::daemon
