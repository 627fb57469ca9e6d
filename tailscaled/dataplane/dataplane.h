// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The straight line: TUN → parse, filter, peer → seal in the reserved slot → path → UDP, and back. Owns the WireGuard
/// engine and magicsock, and joins them; the owner of this object brings the kernel (TUN, sockets, relay connections),
/// the clock and one timer. Pure, one thread.
///
/// send() and receive() take one batch each and hand everything that follows from it to Kernel before they return.
/// Per packet there is no allocation, lock, log line or Result; what is refused is counted (drop.h).

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "base/packet.h"
#include "base/random.h"
#include "base/time.h"
#include "magicsock/path/magicsock.h"
#include "netstack/coalesce.h"
#include "netstack/filter.h"
#include "netstack/segment.h"
#include "netstack/tsmp.h"
#include "netstack/via6.h"
#include "tailscaled/dataplane/drop.h"
#include "tailscaled/dataplane/relay_queue.h"
#include "tailscaled/dataplane/seal_queue.h"
#include "tailscaled/dataplane/send_batch.h"
#include "tailscaled/dataplane/tables.h"
#include "tailscaled/dataplane/tunnel_ping.h"
#include "wg/device.h"

namespace mesh::dataplane {

/// The hot seams. Spans are valid during the call only. Errors come back by facts (Magicsock::udp_send_failed), later.
class Kernel : public SendBatch::Sink {
   public:
    virtual void write_tun(std::span<const TunWrite> writes) = 0;
    /// False: no connection and none can be begun, or its queue is full.
    virtual bool send_derp(int region, const NodePublic& to, ByteSpan datagram) = 0;
};

/// Facts for the rest of the daemon; called from inside DataPlane's functions, so an implementation only takes notes
/// (it may call inject_to_host). All optional.
class Events {
   public:
    virtual ~Events() = default;
    virtual void path_changed(PeerId /*peer*/, const magicsock::Path& /*path*/, Time /*now*/) {}
    virtual void endpoints_changed(std::span<const magicsock::LocalEndpoint> /*endpoints*/) {}
    virtual void home_derp_changed(int /*region*/) {}
    virtual void netcheck_done(const netcheck::Report& /*report*/) {}
    virtual void resolve_names(const std::vector<std::string>& /*hosts*/) {}
    virtual void https_latency_wanted(const std::vector<int>& /*regions*/) {}
    virtual void ping_done(uint64_t /*id*/, const magicsock::PingResult& /*result*/) {}
    /// As magicsock::Output::relay_requested.
    virtual void relay_requested(PeerId /*by*/, const disco::AllocateRequest& /*request*/) {}
    virtual void tunnel_ping_done(uint64_t /*id*/, const TunnelPong& /*pong*/) {}
    /// The peer refused a connection of ours, and says why.
    virtual void flow_rejected(PeerId /*peer*/, const netstack::TsmpReject& /*reject*/) {}
    /// A packet from the host to 100.100.100.100 or fd7a:115c:a1e0::53 that is no ping (DNS for one). `packet` is
    /// complete, checksums included, and may be changed. True: taken care of.
    virtual bool service_packet(MutByteSpan /*packet*/, const netstack::Parsed& /*parsed*/, Time /*now*/) { return false; }
};

struct Config {
    size_t mtu = 1280;  ///< of the TUN: padding never makes a packet longer than this
    magicsock::Config magicsock;
};

class DataPlane final : private wg::Output, private magicsock::Output {
   public:
    /// All must outlive this object.
    DataPlane(Random& random, Kernel& kernel, Events& events, Config config = {});
    ~DataPlane() override;
    DataPlane(const DataPlane&) = delete;
    DataPlane& operator=(const DataPlane&) = delete;

    // ---- straight line
    /// TUN → wire. The bytes may be changed.
    void send(std::span<TunRead> reads, Time now);
    /// Wire → TUN. Datagrams are opened in place.
    void receive(std::span<UdpReceive> batch, Time now);
    struct DerpReceive {
        NodePublic from;
        MutByteSpan bytes;  ///< until the call returns
    };
    void receive_derp(int region, std::span<DerpReceive> batch, Time now);
    void receive_derp(int region, const NodePublic& from, MutByteSpan datagram, Time now);

    // ---- time
    [[nodiscard]] Time next_timeout() const;
    void handle_timeout(Time now);

    // ---- what changes rarely
    /// Our identity; zero: logged out, everything received is dropped.
    void set_node_key(const NodePrivate& key, Time now);
    void set_tables(std::shared_ptr<const Tables> tables);
    /// Peers are made known here and to the tables; the order does not matter. Cheap, apply in slices.
    void upsert_peer(PeerId peer, const magicsock::PeerConfig& config, Time now);
    void remove_peer(PeerId peer);
    void set_mtu(size_t mtu) {
        config_.mtu = mtu;
        sock_.set_full_datagram(mtu + wg::kDataOverhead);
    }
    /// Whether the TUN takes super-packets (TUNSETOFFLOAD, start-up probe).
    void set_tun_offload(bool tcp, bool udp);

    /// For everything else they offer. Follow calls that may send by settle().
    [[nodiscard]] wg::Device& wg() { return wg_; }
    [[nodiscard]] magicsock::Magicsock& sock() { return sock_; }
    [[nodiscard]] const wg::Device& wg() const { return wg_; }
    [[nodiscard]] const magicsock::Magicsock& sock() const { return sock_; }
    /// Does what the engines asked for in passing and flushes everything to the kernel.
    void settle(Time now);

    // ---- requests and questions
    /// A ping inside the tunnel to an address of the peer. tunnel_ping_done(id) follows exactly once, within 5 s.
    void ping_tunnel(uint64_t id, PeerId peer, const Addr& dst, PingKind kind, Time now);
    /// Writes one packet to the TUN at once. The bytes stay untouched.
    void inject_to_host(ByteSpan packet);
    /// Seals one packet to a peer, as if the host had sent it, past the filter.
    void inject_to_peer(PeerId peer, ByteSpan packet, Time now);
    [[nodiscard]] const Counters& counters() const { return counters_; }
    /// Packets that send_derp() took and had to drop after all, to make room for newer ones.
    void relay_gave_up(uint64_t packets) { counters_.dropped_out[static_cast<size_t>(Drop::kRelayQueue)] += packets; }
    [[nodiscard]] const Tables& tables() const { return *tables_; }

   private:
    // What one batch sent to, or got from, one peer: told to the engines once.
    struct Account {
        PeerId peer = kNoPeer;
        size_t bytes = 0;
        Source from;           // in: of its first datagram
        magicsock::Path path;  // out
    };
    template <size_t N>
    struct Accounts {
        std::array<Account, N> rows;
        size_t used = 0;
        Account* find(PeerId peer) {
            for (size_t i = used; i-- > 0;)
                if (rows[i].peer == peer) return &rows[i];
            return nullptr;
        }
    };

    // wg::Output
    bool send_to_peer(PeerId peer, ByteSpan datagram, Time now) override;
    void reply(const Source& to, ByteSpan datagram, Time now) override;
    bool knows(const Source& source) const override;
    void session_ready(PeerId peer, Time now) override;
    void authenticated(PeerId peer, const Source& from, Time now) override;
    // magicsock::Output
    void send_udp(const Endpoint& to, ByteSpan datagram) override;
    bool send_derp(int region, const NodePublic& to, ByteSpan datagram) override;
    void path_changed(PeerId peer, const magicsock::Path& path, Time now) override;
    void disco_alive(PeerId peer, Time now) override;
    void endpoints_changed(std::span<const magicsock::LocalEndpoint> endpoints) override;
    void home_derp_changed(int region) override;
    void netcheck_done(const netcheck::Report& report) override;
    void ping_done(uint64_t id, const magicsock::PingResult& result) override;
    void relay_requested(PeerId by, const disco::AllocateRequest& request) override;
    void resolve_names(const std::vector<std::string>& hosts) override;
    void https_latency_wanted(const std::vector<int>& regions) override;

    // out
    [[nodiscard]] PeerId route_out(TunRead& read, netstack::Parsed& p, Time now);
    void serve_host(TunRead& read, const netstack::Parsed& p, Time now);
    void answer_via6(TunRead& read, const netstack::Parsed& p, Time now);
    void seal_segments(PeerId peer, Time now);
    void seal_packet(PeerId peer, ByteSpan packet, Time now);
    template <class Fill>
    size_t seal_one(const Account& to, wg::Session& session, size_t len, Fill fill);
    void send_wg(const Endpoint& to, uint32_t vni, ByteSpan datagram);
    void send_relay(const RelayQueue::Entry& entry);
    void flush_relays();
    void flush_staged(Account& to, Time now);
    Account& account_out(PeerId peer, Time now);
    void flush_accounts_out(Time now);
    // in
    void open(std::span<const MutByteSpan> datagrams, const Source& from, Time now);
    void take(const wg::Device::Opened& opened, size_t size, const Source& from, Time now);
    void deliver(PeerId peer, MutByteSpan plain, Time now);
    void deny(PeerId peer, const PeerRow& row, const netstack::Parsed& p, netstack::Verdict why, Time now);
    void handle_tsmp(PeerId peer, ByteSpan packet, const netstack::Parsed& p, Time now);
    void send_tsmp(PeerId peer, const netstack::Tsmp& message, const Addr& src, const Addr& dst, Time now);
    void account_in(PeerId peer, size_t bytes, const Source& from, Time now);
    void flush_accounts_in(Time now);
    void write_tun();

    void drop_in(Drop d) { ++counters_.dropped_in[static_cast<size_t>(d)]; }
    void drop_out(Drop d) { ++counters_.dropped_out[static_cast<size_t>(d)]; }
    [[nodiscard]] const NodePublic& key_of(PeerId peer) const;

    struct Known {
        NodePublic key;
        DiscoPublic disco;
    };

    Random& random_;
    Kernel& kernel_;
    Events& events_;
    Config config_;
    wg::Device wg_;
    magicsock::Magicsock sock_;
    std::shared_ptr<const Tables> tables_;
    netstack::Filter filter_;
    netstack::Via6 via6_;
    Bytes via6_packet_;
    netstack::Segmenter segmenter_;
    netstack::Coalescer coalescer_;
    SealQueue seals_;  // empty between calls from outside
    SendBatch batch_;
    TunnelPings pings_;
    std::vector<Known> peers_;  // index: PeerId; zero key: none
    std::vector<PeerId> appeared_, appeared_now_;  // paths that wg must hear of; `now`: being told
    RelayQueue relays_;
    std::unique_ptr<uint8_t[]> scratch_;  // one packet: for segments that must wait or that the host gets
    Bytes staged_;
    Accounts<32> out_, in_;
    unsigned rejects_left_ = 0;  // filled at the end of each batch
    Counters counters_;
};

}  // namespace mesh::dataplane
