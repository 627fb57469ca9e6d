// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What the packet loop looks up: routes, who may send what, the filter, our own addresses. Built on the control side
/// from the network map and the prefs, shared as shared_ptr<const Tables> and swapped in whole.

#include <vector>

#include "base/keys.h"
#include "base/prefix_table.h"
#include "netstack/filter.h"

namespace mesh::dataplane {

struct PeerRow {
    netstack::PrefixSet allowed;  ///< decrypted packets of this peer must come from here
    bool present = false;
    bool jailed = false;  ///< may answer us but not reach us (Node.IsJailed)
    Addr v4{};            ///< its own IPv4 address; invalid if none
};

struct Tables {
    PrefixTable<PeerId> routes;   ///< destination → peer
    std::vector<PeerRow> peers;   ///< index: PeerId
    netstack::FilterTable filter;
    std::vector<Addr> self;       ///< our addresses in the tailnet, IPv4 first
    uint16_t peerapi_port4 = 0;   ///< told in TSMP pongs, and open to peers whatever the filter says; 0: none
    uint16_t peerapi_port6 = 0;
    std::vector<Prefix> via6_routes;  ///< sites of 4via6 behind this node

    /// `prefixes`: the peer's allowed IPs as far as this node uses them (subnets only if routes are accepted, the
    /// default routes only of the chosen exit node). A prefix belongs to the peer that was added with it last; the
    /// source check is per peer and does not care. Leave out peers whose key is expired.
    void add_peer(PeerId peer, const std::vector<Prefix>& prefixes, bool jailed = false) {
        if (peers.size() <= peer) peers.resize(size_t{peer} + 1);
        peers[peer] = PeerRow{netstack::PrefixSet(prefixes), true, jailed, {}};
        for (const Prefix& p : prefixes) routes.insert(p, peer);
    }
    /// nullptr: not a peer.
    [[nodiscard]] const PeerRow* row(PeerId peer) const {
        return peer < peers.size() && peers[peer].present ? &peers[peer] : nullptr;
    }
    /// Our first address of that family; invalid if none.
    [[nodiscard]] Addr self_addr(bool v4) const {
        for (const Addr& a : self)
            if (a.is_v4() == v4) return a;
        return {};
    }
};

}  // namespace mesh::dataplane
