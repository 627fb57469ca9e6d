// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/user/flow_table.h"

#include "base/check.h"

namespace mesh::netstack {

size_t FlowKeyHash::operator()(const FlowKey& k) const {
    uint64_t h = seed;
    const auto mix = [&h](uint64_t v) {
        h ^= v;
        h *= 0x9E3779B97F4A7C15ULL;
        h ^= h >> 29;
    };
    for (const Endpoint* e : {&k.remote, &k.local}) {
        const auto b = e->addr.mapped16();
        mix(load_be64(b.data()));
        mix(load_be64(b.data() + 8));
        mix(e->port);
    }
    return static_cast<size_t>(h ^ (h >> 32));
}

size_t FlowTable::of_peer(const Addr& peer) const {
    const auto it = by_peer_.find(peer);
    return it != by_peer_.end() ? it->second : 0;
}

std::optional<uint32_t> FlowTable::find(const FlowKey& key) const {
    const auto it = by_key_.find(key);
    return it != by_key_.end() ? std::optional(it->second) : std::nullopt;
}

const Flow* FlowTable::find(FlowId id) const {
    if (id.slot >= flows_.size()) return nullptr;
    const Flow& f = flows_[id.slot];
    return f.state != FlowState::kFree && f.generation == id.generation ? &f : nullptr;
}

uint32_t FlowTable::add(const FlowKey& key) {
    uint32_t slot = 0;
    if (!free_.empty()) {
        slot = free_.back();
        free_.pop_back();
    } else {
        slot = static_cast<uint32_t>(flows_.size());
        flows_.emplace_back();
    }
    Flow& f = flows_[slot];
    if (++f.generation == 0) f.generation = 1;
    f.key = key;
    const bool fresh = by_key_.emplace(key, slot).second;
    CHECK(fresh);
    ++by_peer_[key.remote.addr];
    return slot;
}

void FlowTable::remove(uint32_t slot) {
    Flow& f = flows_[slot];
    if (const auto it = by_peer_.find(f.key.remote.addr); it != by_peer_.end() && --it->second == 0) by_peer_.erase(it);
    by_key_.erase(f.key);
    const uint32_t generation = f.generation;
    const bool touched = f.touched;  // it stands in a list of its owner
    f = Flow{};
    f.generation = generation;
    f.touched = touched;
    free_.push_back(slot);
}

}  // namespace mesh::netstack
