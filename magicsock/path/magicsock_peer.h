// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The row of one peer. Only magicsock*.cc include this.

#include "magicsock/path/magicsock.h"
#include "magicsock/path/via_paths.h"
#include "magicsock/relay/geneve.h"

namespace mesh::magicsock {

/// Path state of a peer without any sign of life for this long is dropped.
inline constexpr Duration kForgetPaths = seconds(310);

struct Magicsock::Peer {
    PeerId id = kNoPeer;
    PeerConfig config;
    std::optional<disco::SharedKey> shared;  // computed when first needed
    std::unique_ptr<PeerPaths> paths;        // while active
    std::unique_ptr<ViaPaths> via;           // with `paths`, once a UDP relay was heard of
    std::vector<ViaPaths::Leg> legs;         // what by_leg_ holds for this peer
    std::vector<Endpoint> sources;           // what by_endpoint_ holds for this peer, oldest first
    Time deadline = Time::never();           // as in deadlines_
    Time relay_heard;                        // something of it came by a relay
    Time relay_gone;                         // its relay said that it is not there; zero: heard by relay since
    int derp_route = 0;                      // a region by which it reached us, other than its home
    bool path_wanted = false;                // a send found no path
    bool call_me_maybe_due = false;          // could not be sent yet: no endpoints of ours, or no relay
    bool alive_told = false;                 // Output::disco_alive was called for the present keys
    disco::TxId last_derp_tx{};
    // wireguard_only
    Endpoint fixed;
    Time fixed_until, fixed_sent;
    size_t fixed_next = 0;
};

}  // namespace mesh::magicsock
