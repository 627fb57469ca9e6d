// SPDX-License-Identifier: BSD-3-Clause
#include "derper/addresses.h"

#include <algorithm>

#include "platform/linux/net_monitor.h"

namespace mesh::derper {
namespace {

bool usable(const platform::LinkAddr& l) {
    const Addr& a = l.prefix.addr;
    return a.is_valid() && !a.is_loopback() && !a.is_link_local() && !a.is_multicast() && !a.is_unspecified() &&
           !l.deprecated && !l.tentative && !l.temporary && !is_tailscale_range(a);
}

}  // namespace

OwnAddresses pick_addresses(const platform::NetState& state) {
    std::vector<Addr> open, on_default, others;
    for (const platform::NetInterface& i : state.interfaces) {
        if (!i.link.up || i.link.loopback) continue;
        const bool is_default = i.link.name == state.default_interface_v4 || i.link.name == state.default_interface_v6;
        for (const platform::LinkAddr& l : i.addrs) {
            if (!usable(l)) continue;
            auto& list = !l.prefix.addr.is_private() ? open : is_default ? on_default : others;
            list.push_back(l.prefix.addr);
        }
    }
    OwnAddresses out;
    out.only_private = open.empty();
    out.addrs = !open.empty() ? open : !on_default.empty() ? on_default : others;
    std::stable_sort(out.addrs.begin(), out.addrs.end(), [](const Addr& a, const Addr& b) { return a.is_v4() && !b.is_v4(); });
    out.addrs.erase(std::unique(out.addrs.begin(), out.addrs.end()), out.addrs.end());
    if (out.addrs.size() > kMaxAddresses) out.addrs.resize(kMaxAddresses);
    return out;
}

Result<OwnAddresses> read_addresses(const Addr& listen) {
    if (listen.is_valid()) return OwnAddresses{{listen}, listen.is_private() || listen.is_loopback()};
    TRY_ASSIGN(const platform::NetState state, platform::read_net_state());
    return pick_addresses(state);
}

}  // namespace mesh::derper
