// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/netmap/netmap.h"

#include <algorithm>

namespace mesh::netmap {
namespace {

bool owns(const Node& n, const Addr& a) {
    return std::any_of(n.addresses.begin(), n.addresses.end(),
                       [&a](const Prefix& p) { return p.is_single() && p.addr == a; });
}

template <class T>
bool same(const std::shared_ptr<const T>& a, const std::shared_ptr<const T>& b) {
    return a == b || (a && b && *a == *b);
}

bool same_rest(const NetMap& a, const NetMap& b) {
    return a.domain == b.domain && a.collect_services == b.collect_services && a.health == b.health &&
           a.display_messages == b.display_messages && same(a.ssh_policy_json, b.ssh_policy_json) &&
           a.client_version == b.client_version && a.tka_head == b.tka_head && a.clock_offset == b.clock_offset;
}

}  // namespace

const UserProfile* NetMap::user(UserId id) const {
    if (!users) return nullptr;
    const auto it = users->find(id);
    return it == users->end() ? nullptr : &it->second;
}

NodePtr NetMap::node_by_addr(const Addr& addr) const {
    if (self && owns(*self, addr)) return self;
    for (const NodePtr& n : peers)
        if (owns(*n, addr)) return n;
    return nullptr;
}

NodePtr NetMap::node_by_key(const NodePublic& key) const {
    if (key.is_zero()) return nullptr;
    if (self && self->key == key) return self;
    for (const NodePtr& n : peers)
        if (n->key == key) return n;
    return nullptr;
}

bool NetMap::is_expired(const Node& node, WallTime local_now) const {
    return node.expired || (!node.key_expiry.is_zero() && node.key_expiry <= local_now + clock_offset);
}

WallTime NetMap::next_expiry(WallTime local_now) const {
    const WallTime now = local_now + clock_offset;
    WallTime next;
    const auto consider = [&](const Node& n) {
        if (n.expired || n.key_expiry <= now) return;
        if (next.is_zero() || n.key_expiry < next) next = n.key_expiry;
    };
    if (self) consider(*self);
    for (const NodePtr& n : peers) consider(*n);
    return next.is_zero() ? next : WallTime{next.unix_ns - clock_offset.ns};
}

std::string NetMap::magic_dns_suffix() const { return self ? std::string(self->domain_suffix()) : std::string(); }

PeerChanges diff(const NetMap* before, const NetMap* after) {
    static const NetMap nothing{};
    const NetMap& a = before ? *before : nothing;
    const NetMap& b = after ? *after : nothing;
    PeerChanges out;
    auto i = a.peers.begin();
    auto j = b.peers.begin();
    while (i != a.peers.end() || j != b.peers.end()) {
        if (j == b.peers.end() || (i != a.peers.end() && (*i)->id < (*j)->id)) {
            out.removed.push_back(*i++);
        } else if (i == a.peers.end() || (*j)->id < (*i)->id) {
            out.added.push_back(*j++);
        } else {
            if (*i != *j && !(**i == **j)) out.changed.push_back({*i, *j});
            ++i;
            ++j;
        }
    }
    out.self = !same(a.self, b.self);
    out.derp_map = !same(a.derp_map, b.derp_map);
    out.dns = !same(a.dns, b.dns);
    out.filter = !same(a.filter, b.filter);
    out.users = !same(a.users, b.users);
    out.other = !same_rest(a, b);
    return out;
}

}  // namespace mesh::netmap
