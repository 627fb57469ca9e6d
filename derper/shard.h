// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// One event loop of the relay: the clients that are at home there, their Relay, and the road to the other loops. The front
/// (index kFront) has the strangers and the mesh peers, too.
///
/// What crosses goes into the inbox of the other loop: clients on the move, tasks, and buffers of notes. A turn gathers its
/// notes for each loop in one buffer, so a turn costs a lock and at most one wake-up for each loop it has something for.
/// From one loop to another everything arrives in order. Bounds: see the constants in shard.cc.

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/crypto/short_hash.h"
#include "base/random.h"
#include "derper/admission.h"
#include "derper/connection.h"
#include "derper/metrics.h"
#include "derper/relay.h"
#include "platform/loop/doorbell.h"
#include "platform/loop/loop.h"

namespace mesh::derper {

class Shard;

/// What all loops share. Made before their threads run, gone after they ended.
struct Crew {
    Random& random;  ///< threadsafe if there are several loops
    Patience patience;
    crypto::ShortKey home_key{};   ///< nobody may choose with whom to share a loop
    std::vector<Shard*> shards{};  ///< not changed while threads run
    SharedBucket bucket{};
    std::atomic<size_t> connections{0};
};

class Shard final : private ConnectionHost, private Siblings {
   public:
    /// All must outlive it. `door`: the front's, else nullptr.
    Shard(platform::Loop& loop, Crew& crew, size_t index, Door* door);
    /// On any thread, when the loops' threads have ended.
    ~Shard() override;

    // ---- from any thread

    using Task = std::function<void(Shard&)>;
    /// Runs on this loop, after what the caller's thread gave it before.
    void post(Task task) { push({.task = std::move(task)}); }

    // ---- from its own thread

    [[nodiscard]] size_t index() const { return index_; }
    [[nodiscard]] Relay& relay() override { return relay_; }
    Connection& accept(ConnId id, Service service, platform::ByteStream stream);
    [[nodiscard]] Connection& connection(ConnId id) { return *connections_.at(id); }
    /// Clients that are not in it are disconnected, mesh peers excepted.
    void set_allowed(const KeySet& keys);
    void set_rate(const RateLimit& each);
    /// Nobody hears of departures any more.
    void fall_silent() { relay_.fall_silent(); }
    /// Sends everybody away, who shall return at a random time within `spread_ms`.
    void leave(uint32_t spread_ms);
    void close_peer(const NodePublic& key) override;
    /// Adds what is counted here.
    void add_metrics(Metrics& m) const;
    /// Takes what the other loops have handed over.
    void read_inbox();
    /// Writes and hands over what is queued.
    void flush();
    void flush_soon() override { turn_end_.want(); }
    /// Called at the end of every flush, once a turn at most.
    void on_flush(std::function<void()> then) { after_flush_ = std::move(then); }

   private:
    /// One of the three.
    struct Item {
        size_t from = 0;
        Bytes notes{};
        std::unique_ptr<MovingClient> client{};
        Task task{};
    };

    platform::Loop& loop() override { return loop_; }
    Random& random() override { return crew_.random; }
    const Patience& patience() override { return crew_.patience; }
    const RateLimit& client_rate() override { return client_rate_; }
    SharedBucket& shared_bucket() override { return crew_.bucket; }
    Door& door() override { return *door_; }
    bool is_home(const NodePublic& key) override { return !several() || home(key) == index_; }
    void move_out(MovingClient client) override;
    bool must_wait(ConnId id) override;
    void count_session(const derp::ServerSessionStats& stats) override { ended_ += stats; }
    void write_now(ConnId id) override;
    void closed(ConnId id) override;

    [[nodiscard]] size_t loops() const override { return crew_.shards.size(); }
    [[nodiscard]] size_t home(const NodePublic& key) const override;
    bool tell(size_t loop, const Note& note, ByteSpan packet) override;

    [[nodiscard]] bool several() const { return several_; }
    void bury(ConnId id);
    void hand_over(size_t loop);
    void push(Item item);
    void take_notes(Item& item);
    void take_in(MovingClient client);
    void room();
    void give_back(Bytes buffer);

    platform::Loop& loop_;
    Crew& crew_;
    const size_t index_;
    const bool several_;
    Door* const door_;
    RateLimit client_rate_;
    Relay relay_;
    derp::ServerSessionStats ended_;
    bool flushing_ = false;
    std::unordered_map<ConnId, std::unique_ptr<Connection>> connections_;
    std::vector<std::unique_ptr<Connection>> graveyard_;
    std::function<void()> after_flush_;

    // To the others. The atomics are changed by those loops, too.
    struct Road {
        Bytes open;                       // gathered in this turn
        std::atomic<size_t> waiting{0};   // bytes handed over and not worked off
        std::atomic<bool> wants_room{false};
    };
    std::vector<std::unique_ptr<Road>> roads_;
    uint64_t open_roads_ = 0;  // a bit for each with something in it
    uint64_t behind_ = 0;      // a bit for each loop that has more than it should, since the last question
    std::vector<ConnId> stopped_;

    std::mutex mutex_;
    std::vector<Item> inbox_;    // guarded by mutex_
    bool rung_ = false;          // guarded by mutex_
    std::vector<Bytes> spares_;  // guarded by mutex_; buffers that came back
    std::deque<Item> taken_;     // from the inbox, not yet worked off

    platform::Timer bury_;
    platform::TurnEnd turn_end_;
    platform::Doorbell bell_;
};

}  // namespace mesh::derper
