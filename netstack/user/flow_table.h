// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The connections of a UserStack: slots, found by addresses, counted by peer. A slot is given again, with another generation.

#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "netstack/user/user_stack.h"

struct pbuf;
struct tcp_pcb;

namespace mesh::netstack {

struct FlowKey {
    Endpoint remote, local;
    bool operator==(const FlowKey&) const = default;
};
struct FlowKeyHash {
    uint64_t seed;
    size_t operator()(const FlowKey& k) const;
};

enum class FlowState : uint8_t { kFree, kHeld, kOpening, kOpen, kClosing };

struct Flow {
    FlowKey key;
    uint32_t generation = 0;
    FlowState state = FlowState::kFree;
    Bytes syn;               // kHeld
    tcp_pcb* pcb = nullptr;
    std::vector<pbuf*> received;
    size_t unconsumed = 0;  // bytes told and not yet consumed()
    UserStack::Gone why = UserStack::Gone::kClosed;
    // To be told, in this order.
    bool touched = false, connected = false, finished = false, writable = false, gone = false;
    bool wants_room = false;  // write() took less than it was given
};

class FlowTable {
   public:
    explicit FlowTable(Random& random) : by_key_(64, FlowKeyHash{random.u64()}) {}

    /// Slots, those of no connection included.
    [[nodiscard]] size_t slots() const { return flows_.size(); }
    [[nodiscard]] size_t used() const { return by_key_.size(); }
    [[nodiscard]] size_t of_peer(const Addr& peer) const;
    Flow& operator[](uint32_t slot) { return flows_[slot]; }
    [[nodiscard]] bool contains(const FlowKey& key) const { return by_key_.contains(key); }
    [[nodiscard]] std::optional<uint32_t> find(const FlowKey& key) const;
    /// nullptr: that connection is no more.
    [[nodiscard]] const Flow* find(FlowId id) const;
    [[nodiscard]] Flow* find(FlowId id) { return const_cast<Flow*>(std::as_const(*this).find(id)); }
    [[nodiscard]] FlowId id(uint32_t slot) const { return {slot, flows_[slot].generation}; }
    /// The limits are the caller's business. `key` is not there yet.
    [[nodiscard]] uint32_t add(const FlowKey& key);
    /// What the flow pointed to is somebody else's by now.
    void remove(uint32_t slot);
    [[nodiscard]] auto begin() { return flows_.begin(); }
    [[nodiscard]] auto end() { return flows_.end(); }

   private:
    std::unordered_map<FlowKey, uint32_t, FlowKeyHash> by_key_;
    std::unordered_map<Addr, size_t> by_peer_;
    std::vector<Flow> flows_;
    std::vector<uint32_t> free_;
};

}  // namespace mesh::netstack
