// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Longest-prefix match over both families: a hash table per prefix length that occurs. Tailnets use few lengths
/// (/32, /128 and a handful of subnets), so a look-up is a few probes, longest first. Immutable once shared.

#include <bitset>
#include <optional>
#include <unordered_map>

#include "base/ip.h"

namespace mesh {

template <class V>
class PrefixTable {
   public:
    /// Host bits are masked off. An existing entry is replaced.
    void insert(const Prefix& p, V value) {
        if (!p.is_valid()) return;
        const Prefix m = p.masked();
        Side& s = side(m.addr);
        s.lengths.set(m.len);
        s.map[Key{m.addr, m.len}] = std::move(value);
    }
    [[nodiscard]] const V* find(const Addr& a) const {
        if (!a.is_valid()) return nullptr;
        const Side& s = a.is_v4() ? v4_ : v6_;
        for (int len = static_cast<int>(a.bits()); len >= 0; --len) {
            if (!s.lengths.test(static_cast<size_t>(len))) continue;
            const auto l = static_cast<uint8_t>(len);
            const auto it = s.map.find(Key{Prefix{a, l}.masked().addr, l});
            if (it != s.map.end()) return &it->second;
        }
        return nullptr;
    }
    [[nodiscard]] const V* find_exact(const Prefix& p) const {
        const Prefix m = p.masked();
        const Side& s = m.addr.is_v4() ? v4_ : v6_;
        const auto it = s.map.find(Key{m.addr, m.len});
        return it == s.map.end() ? nullptr : &it->second;
    }
    [[nodiscard]] size_t size() const { return v4_.map.size() + v6_.map.size(); }

   private:
    struct Key {
        Addr addr;
        uint8_t len;
        bool operator==(const Key&) const = default;
    };
    struct Hash {
        size_t operator()(const Key& k) const { return std::hash<Addr>()(k.addr) * 131 + k.len; }
    };
    struct Side {
        std::bitset<129> lengths;
        std::unordered_map<Key, V, Hash> map;
    };
    Side& side(const Addr& a) { return a.is_v4() ? v4_ : v6_; }
    Side v4_, v6_;
};

}  // namespace mesh
