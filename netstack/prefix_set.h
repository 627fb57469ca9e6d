// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Is an address inside any of these prefixes? Up to a few prefixes are compared one by one, which beats hashing; more
/// go into a table. An idle peer's two addresses cost two Prefix values on the heap.

#include <memory>
#include <vector>

#include "base/ip.h"
#include "base/prefix_table.h"

namespace mesh::netstack {

class PrefixSet {
   public:
    static constexpr size_t kLinear = 6;

    PrefixSet() = default;
    /// Invalid prefixes are skipped; host bits are masked off.
    explicit PrefixSet(const std::vector<Prefix>& prefixes) {
        for (const Prefix& p : prefixes)
            if (p.is_valid()) few_.push_back(p.masked());
        few_.shrink_to_fit();
        if (few_.size() <= kLinear) return;
        table_ = std::make_shared<PrefixTable<char>>();
        for (const Prefix& p : few_) table_->insert(p, 1);
        std::vector<Prefix>().swap(few_);
    }
    [[nodiscard]] bool contains(const Addr& a) const {
        if (table_) return table_->find(a) != nullptr;
        for (const Prefix& p : few_)
            if (p.contains(a)) return true;
        return false;
    }
    [[nodiscard]] bool empty() const { return few_.empty() && !table_; }

   private:
    std::vector<Prefix> few_;
    std::shared_ptr<PrefixTable<char>> table_;  // never changed after construction, so copies may share it
};

}  // namespace mesh::netstack
