// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Peers sorted by ID in chunks that successive maps share: copying a table of 10,000 peers copies some hundred
/// pointers, and changing one peer copies one chunk. So a delta costs the same in a small and in a large tailnet.

#include <cstddef>
#include <iterator>
#include <memory>
#include <vector>

#include "tailscaled/netmap/node.h"

namespace mesh::netmap {

class PeerTable {
    using Chunk = std::vector<NodePtr>;  // sorted by ID, never empty
    using ChunkPtr = std::shared_ptr<const Chunk>;

   public:
    static constexpr size_t kChunk = 64;

    class Iterator {
       public:
        using iterator_category = std::forward_iterator_tag;
        using value_type = NodePtr;
        using difference_type = std::ptrdiff_t;
        using pointer = const NodePtr*;
        using reference = const NodePtr&;
        Iterator() = default;
        reference operator*() const { return (*(*chunks_)[chunk_])[index_]; }
        pointer operator->() const { return &**this; }
        Iterator& operator++() {
            if (++index_ == (*chunks_)[chunk_]->size()) {
                index_ = 0;
                ++chunk_;
            }
            return *this;
        }
        Iterator operator++(int) {
            Iterator old = *this;
            ++*this;
            return old;
        }
        bool operator==(const Iterator&) const = default;

       private:
        friend class PeerTable;
        Iterator(const std::vector<ChunkPtr>* chunks, size_t chunk) : chunks_(chunks), chunk_(chunk) {}
        const std::vector<ChunkPtr>* chunks_ = nullptr;
        size_t chunk_ = 0;
        size_t index_ = 0;
    };

    [[nodiscard]] Iterator begin() const { return {&chunks_, 0}; }
    [[nodiscard]] Iterator end() const { return {&chunks_, chunks_.size()}; }
    [[nodiscard]] size_t size() const { return size_; }
    [[nodiscard]] bool empty() const { return size_ == 0; }
    /// nullptr if unknown.
    [[nodiscard]] NodePtr find(NodeId id) const;

    /// Adds or replaces by ID. Returns the node that was there before.
    NodePtr upsert(NodePtr node);
    /// Returns the node that was there, or nullptr.
    NodePtr erase(NodeId id);
    void clear();

   private:
    [[nodiscard]] size_t chunk_of(NodeId id) const;
    std::vector<ChunkPtr> chunks_;
    size_t size_ = 0;
};

}  // namespace mesh::netmap
