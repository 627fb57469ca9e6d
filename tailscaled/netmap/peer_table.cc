// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/netmap/peer_table.h"

#include <algorithm>

namespace mesh::netmap {
namespace {

bool id_less(const NodePtr& n, NodeId id) { return n->id < id; }

}  // namespace

/// The chunk in which this ID is, or would be. chunks_ must not be empty.
size_t PeerTable::chunk_of(NodeId id) const {
    const auto it = std::partition_point(chunks_.begin(), chunks_.end(),
                                         [id](const ChunkPtr& c) { return c->front()->id <= id; });
    return it == chunks_.begin() ? 0 : static_cast<size_t>(it - chunks_.begin()) - 1;
}

NodePtr PeerTable::find(NodeId id) const {
    if (chunks_.empty()) return nullptr;
    const Chunk& c = *chunks_[chunk_of(id)];
    const auto it = std::lower_bound(c.begin(), c.end(), id, id_less);
    return it != c.end() && (*it)->id == id ? *it : nullptr;
}

NodePtr PeerTable::upsert(NodePtr node) {
    if (chunks_.empty()) {
        chunks_.push_back(std::make_shared<const Chunk>(Chunk{std::move(node)}));
        size_ = 1;
        return nullptr;
    }
    const size_t at = chunk_of(node->id);
    auto chunk = std::make_shared<Chunk>(*chunks_[at]);
    const auto it = std::lower_bound(chunk->begin(), chunk->end(), node->id, id_less);
    if (it != chunk->end() && (*it)->id == node->id) {
        NodePtr before = std::move(*it);
        *it = std::move(node);
        chunks_[at] = std::move(chunk);
        return before;
    }
    // IDs mostly arrive in ascending order: a full last chunk is left full and a new one begun.
    if (chunk->size() >= kChunk && it == chunk->end() && at + 1 == chunks_.size()) {
        chunks_.push_back(std::make_shared<const Chunk>(Chunk{std::move(node)}));
        ++size_;
        return nullptr;
    }
    chunk->insert(it, std::move(node));
    ++size_;
    if (chunk->size() > kChunk) {
        const auto middle = chunk->begin() + static_cast<std::ptrdiff_t>(chunk->size() / 2);
        auto upper = std::make_shared<const Chunk>(middle, chunk->end());
        chunk->erase(middle, chunk->end());
        chunks_.insert(chunks_.begin() + static_cast<std::ptrdiff_t>(at) + 1, std::move(upper));
    }
    chunks_[at] = std::move(chunk);
    return nullptr;
}

NodePtr PeerTable::erase(NodeId id) {
    if (chunks_.empty()) return nullptr;
    const size_t at = chunk_of(id);
    const Chunk& old = *chunks_[at];
    const auto it = std::lower_bound(old.begin(), old.end(), id, id_less);
    if (it == old.end() || (*it)->id != id) return nullptr;
    NodePtr before = *it;
    --size_;
    if (old.size() == 1) {
        chunks_.erase(chunks_.begin() + static_cast<std::ptrdiff_t>(at));
        return before;
    }
    auto chunk = std::make_shared<Chunk>(old);
    chunk->erase(chunk->begin() + (it - old.begin()));
    chunks_[at] = std::move(chunk);
    return before;
}

void PeerTable::clear() {
    chunks_.clear();
    size_ = 0;
}

}  // namespace mesh::netmap
