// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The simulated internet: one clock, one queue of events, sites behind NATs, STUN servers, relays. Nothing here depends
/// on anything but the seed, so a run can be repeated to the last datagram.

#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <set>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/keys.h"
#include "base/random.h"
#include "base/time.h"
#include "magicsock/derp/derp_map.h"
#include "tests/sim/link.h"
#include "tests/sim/nat.h"

namespace mesh::sim {

/// Everybody's wall clock.
[[nodiscard]] inline WallTime wall(Time now) { return {1'700'000'000LL * 1'000'000'000LL + now.ns}; }

/// Every packet that a simulated host sends carries these bytes; no datagram on a link may.
inline constexpr std::string_view kInTheClear = "inClear!";

/// Whoever has a socket in a site.
class Host {
   public:
    virtual ~Host() = default;
    virtual void udp_arrived(Bytes datagram, const Endpoint& from) = 0;
    virtual void derp_arrived(Bytes datagram, int region, const NodePublic& from) = 0;
    virtual void derp_connected(int region, bool connected) = 0;
    /// The relay cannot be reached.
    virtual void derp_failed(int /*region*/) {}
    virtual void derp_peer_gone(int region, const NodePublic& peer) = 0;
};

struct Site {
    Site(int n, NatType type4, Addr wan4, uint64_t seed) : number(n), v4(type4, wan4, seed) {}
    int number;
    Nat v4;
    std::unique_ptr<Nat> v6;  ///< a firewall; null: no IPv6
    Link link;
    Lane up, down;
    std::map<Addr, Host*> hosts;  ///< by each of their addresses
};

class Network {
   public:
    explicit Network(uint64_t seed) : random_(seed), lies_(seed + 1) {}

    [[nodiscard]] Time now() const { return now_; }
    void at(Time t, std::function<void()> run) { queue_.push({t, seq_++, std::move(run)}); }
    /// Time::never() if nothing is queued.
    [[nodiscard]] Time next_event() const { return queue_.empty() ? Time::never() : queue_.top().at; }
    void run_next();
    void advance_to(Time t) { now_ = max(now_, t); }

    Site& add_site(NatType v4);
    [[nodiscard]] Site& site(int n) { return *sites_[static_cast<size_t>(n)]; }
    [[nodiscard]] size_t sites() const { return sites_.size(); }
    [[nodiscard]] std::shared_ptr<const derp::DerpMap> derp_map() const { return map_; }
    /// Regions 1..n, each with one relay that answers STUN.
    void add_regions(int n);

    // ---- UDP
    /// False: no route for that family.
    bool send_udp(Site& site, const Endpoint& inside, const Endpoint& to, ByteSpan datagram);
    /// Datagrams between two sites (STUN goes on) are lost while cut.
    void cut(int a, int b, bool dead);

    // ---- relays: reliable, in order, as TCP is; connecting takes two round trips
    void derp_connect(Host& host, Site& site, int region, const NodePublic& key);
    void derp_disconnect(Host& host, int region);
    /// False if there is no connection, not even one under way, or its queue is full.
    bool derp_send(Host& host, int region, const NodePublic& to, ByteSpan datagram);
    /// The relay restarts: all its connections break.
    void derp_restart(int region);
    /// How long the region's relay takes to answer, besides the host's own link.
    void set_region_delay(int region, Duration delay) { far_[region] = delay; }
    /// No STUN and no relay there any more, or again.
    void kill_region(int region, bool dead);
    /// This region's relay does what it should and lies besides: copies go out under somebody else's key, to somebody else, or
    /// with a broken bit, and senders hear that the receiver has gone. 0: none does.
    void set_liar(int region) { liar_ = region; }
    /// A host leaves: nothing reaches it any more.
    void forget(Host& host);

    /// Sees every datagram that a host sends, by UDP or into a relay connection.
    void set_tap(std::function<void(ByteSpan)> tap) { tap_ = std::move(tap); }
    /// Datagrams lost because a queue was full, or because they were longer than an MTU.
    [[nodiscard]] uint64_t queue_drops() const { return queue_drops_; }
    [[nodiscard]] uint64_t too_long() const { return too_long_; }

    // ---- trace
    /// FNV-1a over everything that was sent, to compare two runs.
    [[nodiscard]] uint64_t trace_hash() const { return hash_; }
    void set_trace(std::function<void(const std::string&)> sink) { trace_ = std::move(sink); }
    [[nodiscard]] bool tracing() const { return static_cast<bool>(trace_); }
    void trace(const std::string& line);
    [[nodiscard]] uint64_t datagrams() const { return datagrams_; }

   private:
    struct Event {
        Time at;
        uint64_t seq;
        std::function<void()> run;
        bool operator<(const Event& o) const { return at != o.at ? o.at < at : o.seq < seq; }
    };
    struct DerpConn {
        Host* host = nullptr;
        Site* site = nullptr;
        NodePublic key;
        bool up = false;
        uint64_t generation = 0;
        Time last_in{}, last_out{};  // keep the order
        std::vector<std::pair<NodePublic, Bytes>> waiting;
    };
    void transit(Site* from_site, const Endpoint& from, const Endpoint& to, Bytes datagram);
    /// One way of a link: how long until the datagram is through; nullopt: lost.
    std::optional<Duration> pass(const Link& link, uint32_t loss_ppm, Lane& lane, size_t size);
    void arrive(int from_site, const Endpoint& from, const Endpoint& to, Bytes datagram);
    void answer_stun(const Endpoint& from, const Endpoint& to, ByteSpan datagram);
    DerpConn* conn(Host& host, int region);
    void relay(DerpConn& c, int region, const NodePublic& to, Bytes datagram);
    /// It reaches this connection's host after everything that it was sent before, if the connection still stands.
    void hand_over(DerpConn& to, int region, Duration more, std::function<void(Host&)> what);
    void lie(int region, DerpConn& sender, DerpConn& receiver, ByteSpan datagram);
    void mix(ByteSpan b);
    void record(const char* how, const std::string& from, const std::string& to, ByteSpan datagram);
    [[nodiscard]] bool is_server(const Addr& a) const;
    [[nodiscard]] Duration relay_delay(int region) const;

    SeededRandom random_, lies_;
    int liar_ = 0;
    std::map<int, Duration> far_;
    std::set<int> dead_;
    Time now_{seconds(100'000).ns};
    std::priority_queue<Event> queue_;
    uint64_t seq_ = 0;
    std::vector<std::unique_ptr<Site>> sites_;
    std::shared_ptr<const derp::DerpMap> map_;
    std::set<std::pair<int, int>> cut_;
    std::map<int, std::vector<std::unique_ptr<DerpConn>>> relays_;  // by region, in order of connecting
    uint64_t generation_ = 0;
    uint64_t hash_ = 14695981039346656037ULL;
    uint64_t datagrams_ = 0, queue_drops_ = 0, too_long_ = 0;
    std::function<void(const std::string&)> trace_;
    std::function<void(ByteSpan)> tap_;
};

}  // namespace mesh::sim
