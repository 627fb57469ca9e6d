// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/user_net.h"

#include <algorithm>
#include <list>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "netstack/icmp.h"
#include "netstack/udp.h"
#include "netstack/user/user_stack.h"
#include "platform/linux/child_process.h"
#include "platform/net/dialer.h"
#include "tailscaled/user_datagrams.h"

namespace mesh::daemon {

using netstack::FlowId;
using netstack::UserStack;

namespace {

constexpr Duration kBackendPatience = seconds(10);
/// What one connection has waiting for a slow program; the window keeps it below that.
constexpr size_t kStreamLimit = UserStack::kWindow + (size_t{64} << 10);
constexpr size_t kMaxPings = 20;  // at a time
constexpr size_t kAllWaiting = size_t{64} << 20;  // of all of them; whoever asks for more is reset

class Net final : public UserNet, private UserStack::Listener {
   public:
    Net(platform::Loop& loop, Random& random, size_t mtu, Hooks hooks)
        : loop_(loop),
          random_(random),
          hooks_(std::move(hooks)),
          resolver_(loop, {}),
          dialer_(loop, resolver_),
          mtu_(mtu),
          stack_(random, *this, mtu),
          datagrams_(loop, mtu, [this](ByteSpan packet) { stack_.emit(packet); }),
          timer_(loop, [this] {
              stack_.handle_timeout(loop_.now());
              arm();
          }) {}

    void set_self(std::vector<Addr> self) override {
        self_ = self;
        stack_.set_self(std::move(self));
    }
    void input(std::span<const TunWrite> packets) override {
        for (const TunWrite& w : packets) {
            CHECK(w.pieces.size() == 1);  // nothing was joined
            stack_.input(w.pieces[0], loop_.now());
        }
        stack_.dispatch();
        arm();
    }
    std::span<TunRead> take() override { return stack_.take(); }

    void dial(Outgoing what) override {
        const auto give_up = [&](Error why) {
            what.client.write(what.refusal(why));
            what.client.finish_writing();
        };
        for (const Addr& self : self_) {
            if (self.is_v4() != what.to.addr.is_v4()) continue;
            const auto flow = stack_.connect(self, what.to, loop_.now());
            if (!flow) return give_up({Code::kLimit, 0, "too many connections"});
            Join& j = add(*flow);
            j.out = std::move(what);
            arm();
            return;
        }
        give_up({Code::kUnavailable, 0, what.to.str() + ": this node has no address of that family in the tailnet"});
    }

    void send_datagram(uint64_t association, const Endpoint& to, ByteSpan payload) override {
        const auto self = std::find_if(self_.begin(), self_.end(), [&](const Addr& a) { return a.is_v4() == to.addr.is_v4(); });
        if (self == self_.end()) return;
        auto [port, fresh] = ports_.try_emplace(association, uint16_t{0});
        // There are far more ports than associations (SocksDatagrams::kMaxAssociations).
        while (fresh && (port->second == 0 || associations_.contains(port->second))) port->second = static_cast<uint16_t>(32768 + random_.below(28232));
        if (fresh) associations_[port->second] = association;
        const Bytes packet = netstack::build_udp({*self, port->second}, to, payload);
        if (!packet.empty() && packet.size() <= mtu_) stack_.emit(packet);
    }
    void end_association(uint64_t association) override {
        const auto port = ports_.find(association);
        if (port == ports_.end()) return;
        associations_.erase(port->second);
        ports_.erase(port);
    }

    std::optional<Endpoint> client_of(const Endpoint& local) const override {
        for (const auto& [k, j] : joins_)
            if (j->backend == local) return j->remote;
        const Endpoint* of = datagrams_.client_of(local);
        return of != nullptr ? std::optional(*of) : std::nullopt;
    }

    void clear() override {
        while (!joins_.empty()) {
            const FlowId flow = joins_.begin()->second->flow;
            joins_.erase(joins_.begin());
            stack_.reset(flow);
        }
        waiting_ = 0;
        datagrams_.clear();
        pings_.clear();
    }

    std::vector<std::pair<std::string, uint64_t>> drops() const override {
        const UserStack::Counters& c = stack_.counters();
        return {{"user_malformed", c.malformed}, {"user_refused", c.refused}, {"user_out_full", c.out_full}, {"user_out_of_memory", c.out_of_memory}};
    }

   private:
    /// Where this host finds what the tunnel calls `local`.
    [[nodiscard]] Endpoint here(const Endpoint& local) const {
        const bool own = std::find(self_.begin(), self_.end(), local.addr) != self_.end();
        return {own ? Addr::v4(127, 0, 0, 1) : local.addr, local.port};
    }

    /// A connection in the tunnel and a socket here.
    struct Join final : platform::ByteStream::Listener {
        Join(Net& net, FlowId id) : owner(net), flow(id) {}

        Net& owner;
        const FlowId flow;
        platform::ByteStream stream;
        std::unique_ptr<platform::Dial> dialling;  // to the program here
        std::optional<Outgoing> out;               // until the other end stands
        Endpoint remote, backend;
        Bytes pending;        // read from the socket; the stack had no room
        size_t waiting = 0;   // given to the socket and not yet taken by it: the stack's window is smaller by that
        bool stream_ended = false, peer_ended = false;

        void on_bytes(MutByteSpan bytes) override {
            owner.to_tunnel(*this, bytes);
            owner.arm();
        }
        void on_closed(const Status& why) override { owner.stream_closed(*this, why.has_value()); }
        void on_drained() override { owner.drained(*this); }
    };

    static uint64_t key(FlowId flow) { return uint64_t{flow.generation} << 32 | flow.slot; }
    Join& add(FlowId flow) {
        auto& j = joins_[key(flow)];
        j = std::make_unique<Join>(*this, flow);
        return *j;
    }
    Join* find(FlowId flow) {
        const auto it = joins_.find(key(flow));
        return it != joins_.end() ? it->second.get() : nullptr;
    }
    /// The socket closes; the stack is told by the caller.
    void forget(FlowId flow) {
        const auto it = joins_.find(key(flow));
        if (it == joins_.end()) return;
        waiting_ -= it->second->waiting;
        // It may be on the stack.
        it->second->stream.close();
        loop_.post([old = std::shared_ptr<Join>(std::move(it->second))] {});
        joins_.erase(it);
    }
    void reset(FlowId flow) {
        stack_.reset(flow);
        forget(flow);
    }
    void arm() {
        if (timer_.deadline() != stack_.next_timeout()) timer_.set(stack_.next_timeout());
    }

    // ---- socket → tunnel

    void to_tunnel(Join& j, ByteSpan bytes) {
        const size_t n = j.pending.empty() ? stack_.write(j.flow, bytes, loop_.now()) : 0;
        if (n == bytes.size()) return;
        j.pending.insert(j.pending.end(), bytes.begin() + static_cast<ptrdiff_t>(n), bytes.end());
        j.stream.set_reading(false);
    }
    void on_writable(FlowId flow) override {
        Join* j = find(flow);
        if (j == nullptr) return;
        const size_t n = stack_.write(flow, j->pending, loop_.now());
        j->pending.erase(j->pending.begin(), j->pending.begin() + static_cast<ptrdiff_t>(n));
        if (!j->pending.empty()) return;
        if (j->stream_ended)
            finish(*j);
        else
            j->stream.set_reading(true);
    }
    void stream_closed(Join& j, bool orderly) {
        if (!orderly) {
            reset(j.flow);
        } else {
            j.stream_ended = true;
            if (j.pending.empty()) finish(j);
        }
        arm();
    }
    void finish(Join& j) {
        stack_.finish(j.flow, loop_.now());
        end_if_done(j);
    }

    // ---- tunnel → socket

    void on_bytes(FlowId flow, ByteSpan bytes) override {
        Join* j = find(flow);
        if (j == nullptr) return;
        if (!j->stream.write(bytes) || waiting_ > kAllWaiting) return reset(flow);
        const size_t before = std::exchange(j->waiting, std::min(j->waiting + bytes.size(), j->stream.queued_bytes()));
        waiting_ += j->waiting - before;
        stack_.consumed(flow, before + bytes.size() - j->waiting);
    }
    void drained(Join& j) {
        const size_t taken = std::exchange(j.waiting, 0);
        waiting_ -= taken;
        stack_.consumed(j.flow, taken);
        end_if_done(j);
        arm();
    }
    void on_peer_finished(FlowId flow) override {
        Join* j = find(flow);
        if (j == nullptr) return;
        j->peer_ended = true;
        j->stream.finish_writing();
        end_if_done(*j);
    }
    /// Both have said all they had to say.
    void end_if_done(Join& j) {
        if (!j.stream_ended || !j.peer_ended || !j.pending.empty() || j.stream.queued_bytes() > 0) return;
        stack_.close(j.flow, loop_.now());
        forget(j.flow);
    }
    void on_gone(FlowId flow, UserStack::Gone why) override {
        Join* j = find(flow);
        if (j == nullptr) return;
        if (j->out) {
            const bool refused = why == UserStack::Gone::kReset;
            j->out->client.write(j->out->refusal({refused ? Code::kUnavailable : Code::kTimeout, 0,
                                                  j->out->to.str() + (refused ? ": connection refused" : ": no answer")}));
            j->out->client.finish_writing();
        } else if (why == UserStack::Gone::kClosed && j->stream.queued_bytes() > 0) {
            j->stream_ended = j->peer_ended = true;  // a slow program gets the rest
            return;
        }
        forget(flow);
    }

    // ---- beginnings

    void on_flow(FlowId flow, const Endpoint& remote, const Endpoint& local) override {
        Join& j = add(flow);
        j.remote = remote;
        const Endpoint to = here(local);
        platform::DialOptions options;
        options.addresses = {to.addr};
        options.protect = platform::Protect::kNo;
        options.timeout = kBackendPatience;
        j.dialling = dialer_.dial(to.addr.str(), to.port, options, [this, flow](Result<platform::ByteStream> r) { dialled(flow, std::move(r)); });
    }
    void dialled(FlowId flow, Result<platform::ByteStream> r) {
        Join* j = find(flow);
        if (j == nullptr) return;
        if (!r) {
            stack_.refuse(flow);
            forget(flow);
        } else {
            j->backend = r->local_endpoint();
            j->stream = std::move(*r);
            j->stream.set_reading(false);  // until the peer has confirmed
            attach(*j);
            if (!stack_.accept(flow, loop_.now())) forget(flow);
        }
        arm();
    }
    void on_connected(FlowId flow) override {
        Join* j = find(flow);
        if (j == nullptr) return;
        if (j->out) {
            Outgoing out = std::move(*j->out);
            j->out.reset();
            j->stream = std::move(out.client);
            j->stream.write(out.greeting);
            j->stream.set_reading(false);
            attach(*j);
            if (!out.first.empty()) to_tunnel(*j, as_bytes(out.first));
        }
        if (j->pending.empty()) j->stream.set_reading(true);
    }
    void attach(Join& j) {
        j.stream.set_queue_limit(kStreamLimit);
        j.stream.attach(loop_, j);
    }

    void on_datagram(const Endpoint& remote, const Endpoint& local, ByteSpan payload) override {
        const Endpoint to = here(local);
        const auto asked = to.addr != local.addr ? associations_.find(local.port) : associations_.end();
        if (asked != associations_.end())
            hooks_.datagram(asked->second, remote, payload);
        else
            datagrams_.send(remote, local, to, payload);
    }
    /// Somebody behind this node. Raw sockets are not ours to open, but a program for it is on every host; an answer goes back only if
    /// it got one.
    void on_ping(ByteSpan packet, const netstack::Parsed& p) override {
        if (pings_.size() >= kMaxPings) return;
        const auto it = pings_.insert(pings_.end(), Ping{to_bytes(packet), nullptr});
        const std::vector<std::string> argv{"ping", p.version == 4 ? "-4" : "-6", "-n", "-c", "1", "-W", "3", p.dst.str()};
        auto child = platform::ChildProcess::start(loop_, argv, [this, it](bool ok) {
            netstack::Parsed asked;
            if (ok && netstack::parse(it->packet, asked)) {
                netstack::make_echo_reply(it->packet, asked);
                stack_.emit(it->packet);
            }
            pings_.erase(it);
        });
        if (child)
            it->program = std::move(*child);
        else
            pings_.erase(it);
    }
    void on_output() override { hooks_.output(); }

    platform::Loop& loop_;
    Random& random_;
    const Hooks hooks_;
    platform::Resolver resolver_;  // for the dialer, which gets addresses only
    platform::Dialer dialer_;
    std::vector<Addr> self_;
    struct Ping {
        Bytes packet;
        std::unique_ptr<platform::ChildProcess> program;
    };
    std::list<Ping> pings_;
    std::unordered_map<uint64_t, std::unique_ptr<Join>> joins_;
    std::unordered_map<uint64_t, uint16_t> ports_;         // of associations
    std::unordered_map<uint16_t, uint64_t> associations_;  // by port
    size_t waiting_ = 0;
    const size_t mtu_;
    UserStack stack_;
    UserDatagrams datagrams_;
    platform::Timer timer_;
};

}  // namespace

Status UserNet::available() { return {}; }

Result<std::unique_ptr<UserNet>> UserNet::open(platform::Loop& loop, Random& random, size_t mtu, Hooks hooks) {
    return std::make_unique<Net>(loop, random, mtu, std::move(hooks));
}

}  // namespace mesh::daemon
