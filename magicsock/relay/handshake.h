// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// A client's way to a bound leg at a UDP relay server (server.h): Bind to all its addresses, the first challenge is answered from
/// where it came, then the path is proved by ping and pong like any other. Pure; sealing is the owner's.
///
/// A datagram may get lost, so Bind and answer are repeated after 0.5, 1, 2 and 4 s; the server takes no harm from it. The
/// whole ends after the server's bind lifetime, 30 s at most.

#include <vector>

#include "magicsock/disco/disco.h"

namespace mesh::relay {

inline constexpr Duration kMaxHandshake = seconds(30);
inline constexpr size_t kMaxBindAddrs = 16;

class Handshake {
   public:
    /// To be sent with the control bit, sealed for relay().server.
    struct Out {
        Endpoint to;
        disco::RelayBind message;
    };
    /// `remote`: disco key of the other client. `generation` ≠ 0, another one for each handshake.
    Handshake(disco::RelayEndpoint relay, const DiscoPublic& remote, uint32_t generation, Time now, std::vector<Out>& out);

    [[nodiscard]] const disco::RelayEndpoint& relay() const { return relay_; }
    /// A challenge that only the server can have sealed. True: it is the first that fits; the answer is in `out`, addr() is known.
    bool heard_challenge(const disco::RelayBind& m, const Endpoint& from, uint32_t header_vni, Time now, std::vector<Out>& out);
    /// Where the server answered; invalid before.
    [[nodiscard]] const Endpoint& addr() const { return addr_; }
    /// A pong came by addr(): the leg is bound, nothing is repeated any more.
    void proved() { proved_ = true; }
    [[nodiscard]] bool is_proved() const { return proved_; }
    /// It came to nothing.
    [[nodiscard]] bool failed(Time now) const { return !proved_ && now >= deadline_; }

    [[nodiscard]] Time next_timeout() const;
    void handle_timeout(Time now, std::vector<Out>& out);

   private:
    void send(Time now, std::vector<Out>& out);

    disco::RelayEndpoint relay_;
    disco::RelayBind message_;  // the one that is repeated
    Endpoint addr_;
    Time deadline_, again_;
    size_t sent_ = 0;
    bool proved_ = false;
};

}  // namespace mesh::relay
