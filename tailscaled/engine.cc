// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/engine.h"

#include <fmt/format.h>

#include <atomic>
#include <future>
#include <thread>

#include "tailscaled/packet_loop.h"

namespace mesh::daemon {

namespace {
constexpr auto kPatience = std::chrono::milliseconds(200);
}  // namespace

/// The thread and what both sides share.
class Engine::Thread {
   public:
    Thread(platform::Loop& control, Listener& listener) : control_(control), listener_(&listener) {}

    [[nodiscard]] Status start(const Options& options) {
        auto parts = PacketLoop::open(options);
        if (!parts) return tl::unexpected(std::move(parts.error()));
        port_v4_ = parts->v4->local_port();
        port_v6_ = parts->v6 ? parts->v6->local_port() : uint16_t{0};
        tun_index_ = parts->tun ? parts->tun->if_index() : 0;
        auto shared = std::make_shared<PacketLoop::Parts>(std::move(*parts));
        loop_.post([this, shared] { packets_ = std::make_unique<PacketLoop>(loop_, std::move(*shared), *this); });
        thread_ = std::thread([this] { loop_.run(); });
        return {};
    }

    ~Thread() {
        *alive_ = false;
        if (!thread_.joinable()) return;
        loop_.post([this] {
            packets_.reset();
            loop_.stop();
        });
        thread_.join();
    }

    /// Runs on the packet loop, in order.
    void to_packets(std::function<void(PacketLoop&)> task) {
        loop_.post([this, task = std::move(task)] {
            if (packets_) task(*packets_);
        });
    }

    /// Called on the packet loop; runs on the control loop unless the engine has gone.
    void to_control(std::function<void(Listener&)> task) {
        control_.post([alive = alive_, listener = listener_, task = std::move(task)] {
            if (*alive) task(*listener);
        });
    }

    platform::Loop& control_;
    Listener* listener_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // control loop only
    platform::Loop loop_;
    std::unique_ptr<PacketLoop> packets_;  // packet loop only
    std::thread thread_;
    uint16_t port_v4_ = 0, port_v6_ = 0;
    int tun_index_ = 0;
    std::atomic<int64_t> last_timestamp_{0};
    EngineSnapshot last_snapshot_;
};

void PacketLoop::tell(std::function<void(Engine::Listener&)> task) { shared_.to_control(std::move(task)); }
void PacketLoop::note_timestamp(int64_t unix_ns) { shared_.last_timestamp_.store(unix_ns, std::memory_order_relaxed); }

Engine::Engine(std::unique_ptr<Thread> thread) : thread_(std::move(thread)) {}
Engine::~Engine() = default;

Result<std::unique_ptr<Engine>> Engine::start(platform::Loop& control, const Options& options, Listener& listener) {
    auto thread = std::make_unique<Thread>(control, listener);
    TRY(thread->start(options));
    return std::unique_ptr<Engine>(new Engine(std::move(thread)));
}

uint16_t Engine::port_v4() const { return thread_->port_v4_; }
uint16_t Engine::port_v6() const { return thread_->port_v6_; }
int Engine::tun_index() const { return thread_->tun_index_; }
int64_t Engine::last_timestamp() const { return thread_->last_timestamp_.load(std::memory_order_relaxed); }

void Engine::set_keys(const NodePrivate& node, const DiscoPrivate& disco, int64_t timestamp_floor_ns) {
    thread_->to_packets([=](PacketLoop& p) { p.set_keys(node, disco, timestamp_floor_ns); });
}
void Engine::set_tables(std::shared_ptr<const dataplane::Tables> tables) {
    thread_->to_packets([t = std::move(tables)](PacketLoop& p) { p.set_tables(t); });
}
void Engine::apply_peers(PeerSlice slice) {
    thread_->to_packets([s = std::move(slice)](PacketLoop& p) { p.apply_peers(s); });
}
void Engine::set_derp_map(std::shared_ptr<const derp::DerpMap> map) {
    thread_->to_packets([m = std::move(map)](PacketLoop& p) { p.set_derp_map(m); });
}
void Engine::set_local_addrs(std::vector<Addr> addrs, bool have_v4, bool have_v6) {
    thread_->to_packets([a = std::move(addrs), have_v4, have_v6](PacketLoop& p) { p.set_local_addrs(a, have_v4, have_v6); });
}
void Engine::set_running(bool running) {
    thread_->to_packets([running](PacketLoop& p) { p.set_running(running); });
}
void Engine::adopt_derp(DerpLink link) {
    auto shared = std::make_shared<DerpLink>(std::move(link));
    thread_->to_packets([shared](PacketLoop& p) { p.adopt_derp(std::move(*shared)); });
}
void Engine::derp_failed(int region) {
    thread_->to_packets([region](PacketLoop& p) { p.derp_failed(region); });
}
void Engine::close_derp() {
    thread_->to_packets([](PacketLoop& p) { p.close_derp(); });
}
void Engine::give_names(std::string host, std::vector<Addr> addrs) {
    thread_->to_packets([h = std::move(host), a = std::move(addrs)](PacketLoop& p) { p.give_names(h, a); });
}
void Engine::give_https_latency(int region, bool ok, Duration latency, Addr::Family family) {
    thread_->to_packets([=](PacketLoop& p) { p.give_https_latency(region, ok, latency, family); });
}
void Engine::set_port_mapping(std::optional<Endpoint> endpoint, std::optional<bool> upnp, std::optional<bool> pmp, std::optional<bool> pcp) {
    thread_->to_packets([=](PacketLoop& p) { p.set_port_mapping(endpoint, upnp, pmp, pcp); });
}
void Engine::give_captive_portal(std::optional<bool> found) {
    thread_->to_packets([=](PacketLoop& p) { p.give_captive_portal(found); });
}
void Engine::restun() {
    thread_->to_packets([](PacketLoop& p) { p.restun(); });
}
void Engine::measure() {
    thread_->to_packets([](PacketLoop& p) { p.measure(); });
}
void Engine::rebind() {
    thread_->to_packets([](PacketLoop& p) { p.rebind(); });
}
void Engine::ping(uint64_t id, PeerId peer, size_t size) {
    thread_->to_packets([=](PacketLoop& p) { p.ping(id, peer, size); });
}
void Engine::ping_tunnel(uint64_t id, PeerId peer, const Addr& dst, dataplane::PingKind kind) {
    thread_->to_packets([=](PacketLoop& p) { p.ping_tunnel(id, peer, dst, kind); });
}
void Engine::set_names(std::shared_ptr<const dns::NameTable> names) {
    thread_->to_packets([n = std::move(names)](PacketLoop& p) { p.set_names(n); });
}
void Engine::set_dns_listener(uint16_t port) {
    thread_->to_packets([port](PacketLoop& p) { p.set_dns_listener(port); });
}
void Engine::give_dns_reply(const DnsClient& client, Bytes reply) {
    thread_->to_packets([client, r = std::move(reply)](PacketLoop& p) { p.give_dns_reply(client, r); });
}
void Engine::set_relay_client(bool allowed, bool own_server) {
    thread_->to_packets([=](PacketLoop& p) { p.set_relay_client(allowed, own_server); });
}
void Engine::set_relay_server(RelayService::Sockets sockets) {
    auto shared = std::make_shared<RelayService::Sockets>(std::move(sockets));
    thread_->to_packets([shared](PacketLoop& p) { p.set_relay_server(std::move(*shared)); });
}
void Engine::set_relay_static_endpoints(std::vector<Endpoint> endpoints) {
    thread_->to_packets([e = std::move(endpoints)](PacketLoop& p) { p.set_relay_static_endpoints(e); });
}
void Engine::link_up() {
    thread_->to_packets([](PacketLoop& p) { p.link_up(); });
}

void Engine::dial(Outgoing what) {
    auto shared = std::make_shared<Outgoing>(std::move(what));
    thread_->to_packets([shared](PacketLoop& p) { p.dial(std::move(*shared)); });
}
void Engine::send_datagram(uint64_t association, const Endpoint& to, Bytes payload) {
    thread_->to_packets([association, to, p = std::move(payload)](PacketLoop& packets) { packets.send_datagram(association, to, p); });
}
void Engine::end_association(uint64_t association) {
    thread_->to_packets([association](PacketLoop& p) { p.end_association(association); });
}
std::optional<Endpoint> Engine::client_of(const Endpoint& local) {
    if (!userspace()) return std::nullopt;
    auto promise = std::make_shared<std::promise<std::optional<Endpoint>>>();
    auto future = promise->get_future();
    thread_->to_packets([promise, local](PacketLoop& p) { promise->set_value(p.client_of(local)); });
    return future.wait_for(kPatience) == std::future_status::ready ? future.get() : std::nullopt;
}

const EngineSnapshot& Engine::snapshot() {
    auto promise = std::make_shared<std::promise<EngineSnapshot>>();
    auto future = promise->get_future();
    thread_->to_packets([promise](PacketLoop& p) { promise->set_value(p.snapshot()); });
    // A packet loop that is busy for longer than this has other worries; people get the last picture.
    if (future.wait_for(kPatience) == std::future_status::ready) thread_->last_snapshot_ = future.get();
    return thread_->last_snapshot_;
}

}  // namespace mesh::daemon
