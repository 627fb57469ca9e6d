// SPDX-License-Identifier: BSD-3-Clause
#include "derper/shard.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "derper/note_buffer.h"

namespace mesh::derper {
namespace {
constexpr size_t kHandOverAt = 64U << 10;      // not only at the end of the turn
constexpr size_t kStopReadingAt = 512U << 10;  // a loop has that much from another: its senders there are not read further
constexpr size_t kReadAgainAt = kStopReadingAt / 2;
// One reading call of each of many senders may still come. What tells who comes and goes is bounded by the number of clients.
constexpr size_t kMostData = 4U << 20;
constexpr size_t kMostDisco = 5U << 20;
constexpr size_t kTurn = 4U << 20;  // bytes of notes worked off before the loop looks at its sockets again
constexpr size_t kSpares = 4;
constexpr Duration kTryFor = seconds(60);

constexpr uint64_t bit(size_t loop) { return uint64_t{1} << loop; }

/// Calls `f` with the number of every bit that is set.
template <class F>
void for_each_bit(uint64_t bits, F&& f) {
    for (; bits != 0; bits &= bits - 1) f(static_cast<size_t>(std::countr_zero(bits)));
}

size_t limit_of(const Note& note, ByteSpan packet) {
    switch (note.kind) {
        case Note::Kind::kPacket:
        case Note::Kind::kForward: return derp::looks_like_disco(packet) ? kMostDisco : kMostData;
        case Note::Kind::kNotHere: return kMostDisco;
        default: return SIZE_MAX;
    }
}
}  // namespace

Shard::Shard(platform::Loop& loop, Crew& crew, size_t index, Door* door)
    : loop_(loop),
      crew_(crew),
      index_(index),
      several_(crew.shards.size() > 1),
      door_(door),
      relay_(several_ ? this : nullptr, index),
      bury_(loop, [this] { graveyard_.clear(); }),
      turn_end_(loop, [this] { flush(); }),
      bell_(loop, [this] { read_inbox(); }) {
    if (several_)
        for (size_t i = 0; i < crew.shards.size(); ++i) roads_.push_back(std::make_unique<Road>());
}

Shard::~Shard() { relay_.fall_silent(); }

// ---- connections

Connection& Shard::accept(ConnId id, Service service, platform::ByteStream stream) {
    ConnectionHost& host = *this;  // make_unique has no access to the private base
    return *connections_.emplace(id, std::make_unique<Connection>(host, id, service, std::move(stream))).first->second;
}

void Shard::bury(ConnId id) {
    const auto it = connections_.find(id);
    if (it == connections_.end()) return;
    graveyard_.push_back(std::move(it->second));
    connections_.erase(it);
    bury_.set(loop_.now());
}

void Shard::closed(ConnId id) {
    if (index_ == kFront) door_->logged_in(id);  // if it was a stranger, it is none now
    --crew_.connections;
    bury(id);
}

void Shard::move_out(MovingClient client) {
    const ConnId id = client.id;
    const size_t home_loop = home(client.session->key());
    crew_.shards[home_loop]->push({.from = index_, .client = std::make_unique<MovingClient>(std::move(client))});
    bury(id);
}

void Shard::take_in(MovingClient client) {
    const ConnId id = client.id;
    ConnectionHost& host = *this;
    connections_.emplace(id, std::make_unique<Connection>(host, std::move(client))).first->second->begin();
}

void Shard::set_allowed(const KeySet& keys) {
    std::vector<ConnId> out;
    for (const auto& [id, connection] : connections_) {
        const derp::ServerSession* s = connection->session();
        if (s && s->logged_in() && !s->is_mesh_peer() && !keys.contains(s->key())) out.push_back(id);
    }
    for (const ConnId id : out)
        if (const auto it = connections_.find(id); it != connections_.end()) it->second->close("no longer in the list of keys");
}

void Shard::set_rate(const RateLimit& each) {
    client_rate_ = each;
    for (const auto& [id, connection] : connections_) connection->rate_changed();
}

void Shard::leave(uint32_t spread_ms) {
    std::vector<Connection*> all;
    for (const auto& [id, connection] : connections_) all.push_back(connection.get());
    for (Connection* c : all) c->leave(milliseconds(crew_.random.below(spread_ms)), kTryFor);
    flush();
}

void Shard::close_peer(const NodePublic& key) {
    for (const ConnId id : relay_.connections_of(key))
        if (const auto it = connections_.find(id); it != connections_.end()) it->second->close("a mesh peer asked for it");
    if (index_ == kFront && !is_home(key)) crew_.shards[home(key)]->post([key](Shard& there) { there.close_peer(key); });
}

void Shard::add_metrics(Metrics& m) const {
    m.relay += relay_.stats();
    m.sessions += ended_;
    for (const auto& [id, connection] : connections_)
        if (const auto* session = connection->session()) m.sessions += session->stats();
}

void Shard::write_now(ConnId id) {
    if (const auto it = connections_.find(id); it != connections_.end()) it->second->pump();
}

void Shard::flush() {
    // pump() may close a connection, which queues PeerGone at others: go on until nothing is left, but not recursively.
    if (std::exchange(flushing_, true)) return;
    for (auto dirty = relay_.take_dirty(); !dirty.empty(); dirty = relay_.take_dirty())
        for (const ConnId id : dirty)
            if (const auto it = connections_.find(id); it != connections_.end()) it->second->pump();
    if (after_flush_) after_flush_();
    for_each_bit(open_roads_, [this](size_t loop) { hand_over(loop); });
    flushing_ = false;
}

// ---- to the other loops

size_t Shard::home(const NodePublic& key) const { return crypto::short_hash(key.bytes(), crew_.home_key) % crew_.shards.size(); }

bool Shard::tell(size_t loop, const Note& note, ByteSpan packet) {
    Road& road = *roads_[loop];
    const size_t waiting = road.waiting.load(std::memory_order_relaxed) + road.open.size();
    if (waiting > limit_of(note, packet)) return false;
    if (waiting > kStopReadingAt) behind_ |= bit(loop);
    if (road.open.empty()) {
        open_roads_ |= bit(loop);
        turn_end_.want();
        if (road.open.capacity() == 0) {
            const std::lock_guard lock(mutex_);
            if (!spares_.empty()) {
                road.open = std::move(spares_.back());
                spares_.pop_back();
            }
        }
    }
    put_note(road.open, note, packet);
    if (road.open.size() >= kHandOverAt) hand_over(loop);
    return true;
}

void Shard::hand_over(size_t loop) {
    Road& road = *roads_[loop];
    open_roads_ &= ~bit(loop);
    if (road.open.empty()) return;
    road.waiting += road.open.size();
    crew_.shards[loop]->push({.from = index_, .notes = std::exchange(road.open, {})});
}

bool Shard::must_wait(ConnId id) {
    bool wait = false;
    for_each_bit(std::exchange(behind_, 0), [this, &wait](size_t loop) {
        hand_over(loop);
        Road& road = *roads_[loop];
        // This order, against the opposite one of the loop that works off: one of the two sees the other.
        road.wants_room = true;
        wait |= road.waiting >= kReadAgainAt || !road.wants_room.exchange(false);
    });
    if (wait) stopped_.push_back(id);
    return wait;
}

void Shard::room() {
    for (const ConnId id : std::exchange(stopped_, {}))
        if (const auto it = connections_.find(id); it != connections_.end()) it->second->room();
}

void Shard::give_back(Bytes buffer) {
    buffer.clear();
    const std::lock_guard lock(mutex_);
    if (spares_.size() < kSpares) spares_.push_back(std::move(buffer));
}

// ---- from the other loops

void Shard::push(Item item) {
    bool ring = false;
    {
        const std::lock_guard lock(mutex_);
        inbox_.push_back(std::move(item));
        ring = !std::exchange(rung_, true);
    }
    if (ring) bell_.ring();
}

void Shard::read_inbox() {
    {
        const std::lock_guard lock(mutex_);
        for (Item& item : inbox_) taken_.push_back(std::move(item));
        inbox_.clear();
        rung_ = false;
    }
    for (size_t done = 0; !taken_.empty() && done < kTurn;) {
        Item item = std::move(taken_.front());
        taken_.pop_front();
        done += item.notes.size();
        if (item.task)
            item.task(*this);
        else if (item.client)
            take_in(std::move(*item.client));
        else
            take_notes(item);
    }
    if (!taken_.empty()) bell_.ring();
    behind_ = 0;  // what came from there is not the fault of whoever is read next
    flush_soon();
}

void Shard::take_notes(Item& item) {
    const Time now = loop_.now();
    ByteSpan left = item.notes, packet;
    Note note;
    while (take_note(left, note, packet))
        if (const ConnId full = relay_.hear(item.from, note, packet, now); full != 0) write_now(full);
    Shard& sender = *crew_.shards[item.from];
    Road& road = *sender.roads_[index_];
    const size_t size = item.notes.size();
    sender.give_back(std::move(item.notes));
    const size_t waiting = road.waiting.fetch_sub(size) - size;
    if (waiting < kReadAgainAt && road.wants_room.exchange(false)) sender.post([](Shard& s) { s.room(); });
}

}  // namespace mesh::derper
